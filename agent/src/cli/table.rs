//! Aligned columns for people: rows of text → lines. Text from outside is made harmless here, long cells are cut.

use std::io::{self, IsTerminal as _, Write};

use crate::model::display::{clip, printable};

/// Longest cell but for the last column, which is never cut or padded.
const MAX_CELL: usize = 40;

/// Column widths; they only grow, so that a stream of rows stays aligned.
#[derive(Debug)]
pub struct Table<const COLUMNS: usize> {
    widths: [usize; COLUMNS],
    coloured: bool,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// `coloured`: see [`colours`].
    pub fn new(coloured: bool) -> Self {
        Self { widths: [0; COLUMNS], coloured }
    }

    /// Makes columns wide enough for a row.
    pub fn fit(&mut self, row: &[String; COLUMNS]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(MAX_CELL));
        }
    }

    /// Writes a row; `alarming` ones are red where colours are wanted.
    pub fn write(&self, out: &mut dyn Write, row: &[String; COLUMNS], alarming: bool) -> io::Result<()> {
        let last = COLUMNS.saturating_sub(1);
        let cells: Vec<_> = row
            .iter()
            .zip(self.widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let cell = printable(cell);
                if column == last { cell } else { format!("{:<width$}", clip(&cell, MAX_CELL)) }
            })
            .collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        if alarming && self.coloured { writeln!(out, "\x1b[31m{line}\x1b[0m") } else { writeln!(out, "{line}") }
    }
}

/// Whether standard output wants colours: a terminal, and `NO_COLOR` is not set.
pub fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Table;

    fn lines(coloured: bool) -> String {
        let rows =
            [["a", "bb", "x"], ["cc\x1b", "d", "y z"], [&"l".repeat(50), "", ""]].map(|row| row.map(str::to_owned));
        let mut table = Table::new(coloured);
        rows.iter().take(2).for_each(|row| table.fit(row));
        let mut out = Vec::new();
        rows.iter().for_each(|row| table.write(&mut out, row, row[0].starts_with("cc")).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_long_cells_cut() {
        assert_eq!(lines(false), format!("a    bb  x\ncc·  d   y z\n{}…\n", "l".repeat(39)));
    }

    #[test]
    fn only_alarming_rows_are_coloured_and_only_when_wanted() {
        assert!(lines(true).contains("\x1b[31mcc·  d   y z\x1b[0m\n"));
        assert_eq!(lines(true).matches('\x1b').count(), 2);
    }
}
