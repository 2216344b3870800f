//! The table as a picture for the README: a panel for each measure, a bar for each contender, each panel to its own scale from zero.

use std::fmt::Write as _;

use super::{Figure, Row};
use crate::support::server::Kind;

const WIDTH: usize = 960;
const COLUMNS: usize = 2;
const PANEL: usize = WIDTH / COLUMNS;
const MARGIN: usize = 16;
const TITLE: usize = 30;
const BAR: usize = 18;
/// Where the names end and the bars begin.
const NAMES: usize = 118;
/// The longest bar; behind it stands its figure.
const LONGEST: f64 = 250.0;

/// The picture of these rows.
pub fn draw(names: &[&str], rows: &[Row]) -> String {
    let panel = TITLE + names.len() * BAR + MARGIN;
    let height = 44 + rows.len().div_ceil(COLUMNS) * panel + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"Peers compared: less is better\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{MARGIN}\" y=\"28\" font-size=\"15\" font-weight=\"600\" fill=\"#1f2933\">\
         One core for the servers; less is better. ~ marks what neighbours may have disturbed.</text>\n"
    );
    for (place, row) in rows.iter().enumerate() {
        let x = MARGIN + place % COLUMNS * PANEL;
        let y = 44 + place / COLUMNS * panel;
        panel_of(&mut svg, names, row, x, y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel_of(svg: &mut String, names: &[&str], row: &Row, x: usize, y: usize) {
    let greatest = row.figures.iter().flatten().map(|figure| figure.value);
    let greatest = greatest.fold(f64::MIN_POSITIVE, f64::max);
    let title = row.title;
    line(
        svg,
        format_args!(
            "<text x=\"{x}\" y=\"{}\" font-weight=\"600\" fill=\"#1f2933\">{title}</text>",
            y + 20
        ),
    );
    for (place, (name, figure)) in names.iter().zip(&row.figures).enumerate() {
        let top = y + TITLE + place * BAR;
        bar(svg, name, *figure, greatest, x, top);
    }
}

fn bar(svg: &mut String, name: &str, figure: Option<Figure>, greatest: f64, x: usize, top: usize) {
    let (fill, weight) = match name {
        _ if name == Kind::Node.name() => ("#0b7285", 600),
        _ if name == Kind::Plain.name() || name == Kind::Merging.name() => ("#ced4da", 400),
        _ => ("#868e96", 400),
    };
    let (start, base) = (x + NAMES, top + 12);
    line(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\" font-weight=\"{weight}\" fill=\"#1f2933\">{name}</text>",
            start - 6
        ),
    );
    let (long, shown) = match figure {
        Some(figure) => (figure.value.max(0.0) / greatest * LONGEST, figure.show()),
        None => (0.0, "–".into()),
    };
    line(
        svg,
        format_args!(
            "<rect x=\"{start}\" y=\"{}\" width=\"{long:.1}\" height=\"{}\" fill=\"{fill}\"/>",
            top + 2,
            BAR - 5
        ),
    );
    line(
        svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{base}\" font-weight=\"{weight}\" fill=\"#1f2933\">{shown}</text>",
            start as f64 + long + 5.0
        ),
    );
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "{text}");
}
