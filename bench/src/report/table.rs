//! A Markdown table, padded so that it is also readable in a terminal.

use serde::{Deserialize, Serialize};

/// The head and the rows of a table, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// How many of the first columns hold names. Names are aligned left, numbers right.
    pub names: usize,
    /// The names of the columns.
    pub head: Vec<String>,
    /// The rows. Each row must have as many cells as the head.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table without rows.
    pub fn new(names: usize, head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { names, head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Returns the table as Markdown. All cells of a column have the same width: at least 3 characters, which the line below the
    /// head needs.
    pub fn align(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().chain([&self.head]).map(|row| row[column].chars().count());
                cells.max().unwrap_or(0).max(3)
            })
            .collect();
        let line = |row: &[String]| -> String {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                if column < self.names { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") }
            });
            cells.collect::<String>() + "|\n"
        };
        let rule = widths.iter().enumerate().map(|(column, width)| {
            if column < self.names {
                format!("| {} ", "-".repeat(*width))
            } else {
                format!("| {}: ", "-".repeat(width - 1))
            }
        });
        let rule = rule.collect::<String>() + "|\n";
        line(&self.head) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a cell is padded to another width than its column, if bytes are counted instead of characters (`µ` has two bytes),
    /// or if a name is aligned right or a number left.
    #[test]
    fn tables_are_aligned() {
        let mut table = Table::new(2, ["", "contender", "ops"]);
        table.rows.push(["1 client", "µ", "12 k"].map(str::to_owned).to_vec());
        assert_eq!(
            table.align(),
            "|          | contender |  ops |\n\
             | -------- | --------- | ---: |\n\
             | 1 client | µ         | 12 k |\n"
        );
    }
}
