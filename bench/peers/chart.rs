//! The table as a picture for the README: a panel for each measure, a bar for each contender, each
//! panel to its own scale from zero. It brings its own background, light or dark as the reader's
//! browser is, so that it can stand on any page.

use std::fmt::Write as _;

use super::{Figure, Row};
use crate::support::server::Kind;

const WIDTH: usize = 1020;
const COLUMNS: usize = 3;
const PANEL: usize = WIDTH / COLUMNS;
const MARGIN: usize = 16;
const TITLE: usize = 30;
const BAR: usize = 18;
/// Above the first panels.
const HEAD: usize = 62;
/// Where the names end and the bars begin.
const NAMES: usize = 104;
/// The longest bar; behind it stands its figure.
const LONGEST: f64 = 160.0;

/// Of a node, of the limits, and of everyone else.
const STYLE: &str = "\
.back{fill:#ffffff}text{fill:#1f2933}.node{fill:#0b7285}.limit{fill:#ced4da}\
.peer{fill:#868e96}.strong{font-weight:600}\n\
@media (prefers-color-scheme:dark){\
.back{fill:#0d1117}text{fill:#e6edf3}.node{fill:#22b8cf}.limit{fill:#3d444d}.peer{fill:#7d8590}}";

/// The picture of these rows.
pub fn draw(names: &[&str], rows: &[&Row]) -> String {
    let panel = TITLE + names.len() * BAR + MARGIN;
    let height = HEAD + rows.len().div_ceil(COLUMNS) * panel + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\" \
         aria-label=\"Peers compared: less is better\">\n\
         <style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n\
         <text class=\"strong\" x=\"{MARGIN}\" y=\"28\" font-size=\"15\">\
         One core for the servers; less is better</text>\n\
         <text x=\"{MARGIN}\" y=\"47\">Rooms × members. {} and {} are bare epoll servers \
         that do nothing else. ~: neighbours were busy.</text>\n",
        Kind::Plain.name(),
        Kind::Merging.name(),
    );
    for (place, row) in rows.iter().enumerate() {
        let x = MARGIN + place % COLUMNS * PANEL;
        let y = HEAD + place / COLUMNS * panel;
        panel_of(&mut svg, names, row, x, y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel_of(svg: &mut String, names: &[&str], row: &Row, x: usize, y: usize) {
    let greatest = row.figures.iter().flatten().map(|figure| figure.value);
    let greatest = greatest.fold(f64::MIN_POSITIVE, f64::max);
    let (title, base) = (row.title.text, y + 20);
    line(
        svg,
        format_args!("<text class=\"strong\" x=\"{x}\" y=\"{base}\">{title}</text>"),
    );
    for (place, (name, figure)) in names.iter().zip(&row.figures).enumerate() {
        let top = y + TITLE + place * BAR;
        bar(svg, name, *figure, greatest, x, top);
    }
}

fn bar(svg: &mut String, name: &str, figure: Option<Figure>, greatest: f64, x: usize, top: usize) {
    let (of, weight) = match name {
        _ if name == Kind::Node.name() => ("node", " class=\"strong\""),
        _ if name == Kind::Plain.name() || name == Kind::Merging.name() => ("limit", ""),
        _ => ("peer", ""),
    };
    let (long, shown) = match figure {
        Some(figure) => (figure.value.max(0.0) / greatest * LONGEST, figure.show()),
        None => (0.0, "–".into()),
    };
    let (start, base) = (x + NAMES, top + 12);
    let (names_end, figure_start) = (start - 6, start as f64 + long + 5.0);
    let (bar_top, thick) = (top + 2, BAR - 5);
    line(
        svg,
        format_args!(
            "<text{weight} x=\"{names_end}\" y=\"{base}\" text-anchor=\"end\">{name}</text>"
        ),
    );
    line(
        svg,
        format_args!(
            "<rect class=\"{of}\" x=\"{start}\" y=\"{bar_top}\" \
             width=\"{long:.1}\" height=\"{thick}\"/>"
        ),
    );
    line(
        svg,
        format_args!("<text{weight} x=\"{figure_start:.1}\" y=\"{base}\">{shown}</text>"),
    );
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "{text}");
}
