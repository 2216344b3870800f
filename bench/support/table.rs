//! Tables in Markdown, so that what a run prints can be read in a terminal and put into the README
//! as it is, row by row as they are measured.

/// A table's columns: as wide as their titles.
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Prints a title and the head. A column is as wide as its head, at least 9.
    pub fn begin(title: &str, columns: &[&str]) -> Self {
        let widths = columns.iter().map(|column| column.chars().count().max(9));
        let table = Self {
            widths: widths.collect(),
        };
        println!("\n{title}\n");
        table.row(columns);
        let rule = |width: &usize| format!("{}:", "-".repeat(width - 1));
        table.row(&table.widths.iter().map(rule).collect::<Vec<_>>());
        table
    }

    pub fn row<T: AsRef<str>>(&self, cells: &[T]) {
        let cells = cells.iter().zip(&self.widths).map(|(cell, width)| {
            let cell = cell.as_ref();
            format!("{cell:>width$}")
        });
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

/// A ratio to a figure of another server, such as `1.08×`.
pub fn ratio(figure: f64, to: Option<f64>) -> String {
    match to {
        Some(to) if to > 0.0 => format!("{:.2}×", figure / to),
        _ => "–".into(),
    }
}
