//! Rows to columns at the least total cost, one to one, where each row may also stay alone at a price.
//!
//! Jonker and Volgenant's shortest augmenting paths over a sparse table (each row names the columns that it may have).
//! A path looks at no more than [`MAX_COLUMNS`] columns; a row that would need more stays alone and is counted. So the
//! work is at most rows × [`MAX_COLUMNS`] × the columns that a row names. The order of the rows changes the answer only
//! where two have the same cost, or where a path was cut.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Columns that the path of one row may pass.
pub const MAX_COLUMNS: usize = 256;

/// What a row may have.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Column and cost.
    pub edges: Vec<(u32, f64)>,
    /// Cost of having none.
    pub alone: f64,
}

#[derive(Debug, PartialEq)]
struct Step {
    cost: f64,
    column: u32,
}

impl Eq for Step {}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        other.cost.total_cmp(&self.cost).then(other.column.cmp(&self.column))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Column {
    row: Option<u32>,
    price: f64,
    /// Of the current path: its number, the cost so far, the row it was reached from, and whether it is passed.
    path: u32,
    cost: f64,
    from: u32,
    passed: bool,
}

#[derive(Debug)]
struct Table<'a> {
    rows: &'a [Row],
    columns: Vec<Column>,
    prices: Vec<f64>,
    /// Column of each row.
    held: Vec<Option<u32>>,
}

/// Column of each row, and how many rows stayed alone because their path was cut.
pub fn assign(rows: &[Row], columns: usize) -> (Vec<Option<u32>>, u64) {
    let (columns, prices, held) = (vec![Column::default(); columns], vec![0.0; rows.len()], vec![None; rows.len()]);
    let mut table = Table { rows, columns, prices, held };
    let cut = (0..rows.len()).filter(|row| !table.place(*row as u32)).count() as u64;
    (table.held, cut)
}

impl Table<'_> {
    /// Gives a row a column or leaves it alone, whatever others must change for it. `false`: the path was cut.
    fn place(&mut self, first: u32) -> bool {
        let path = first + 1;
        let rows = self.rows;
        let Some(Row { edges, alone }) = rows.get(first as usize) else { return false };
        let best = edges.iter().filter_map(|(column, cost)| Some(cost - self.columns.get(*column as usize)?.price));
        let price = best.fold(*alone, f64::min);
        if let Some(own) = self.prices.get_mut(first as usize) {
            *own = price;
        }
        let mut heap = BinaryHeap::new();
        let mut passed: Vec<u32> = Vec::new();
        let (mut row, mut so_far) = (first, 0.0);
        // The cheapest row on the path to stay alone.
        let mut given_up = (f64::INFINITY, first);
        let end = loop {
            let Some(Row { edges, alone }) = rows.get(row as usize) else { return false };
            let own = self.prices.get(row as usize).copied().unwrap_or_default();
            if so_far + alone - own < given_up.0 {
                given_up = (so_far + alone - own, row);
            }
            for (number, cost) in edges {
                let Some(column) = self.columns.get_mut(*number as usize) else { continue };
                let cost = so_far + cost - own - column.price;
                if column.path != path {
                    *column = Column { path, cost: f64::INFINITY, passed: false, ..*column };
                }
                if !column.passed && cost < column.cost {
                    (column.cost, column.from) = (cost, row);
                    heap.push(Step { cost, column: *number });
                }
            }
            let next = loop {
                let Some(step) = heap.pop() else { break None };
                let Some(column) = self.columns.get(step.column as usize) else { continue };
                if !column.passed && column.cost == step.cost {
                    break Some(step);
                }
            };
            let Some(step) = next.filter(|step| step.cost < given_up.0) else { break None };
            if passed.len() >= MAX_COLUMNS {
                return false;
            }
            let Some(column) = self.columns.get_mut(step.column as usize) else { return false };
            column.passed = true;
            passed.push(step.column);
            so_far = step.cost;
            match column.row {
                Some(holder) => row = holder,
                None => break Some(step.column),
            }
        };
        let total = if end.is_some() { so_far } else { given_up.0 };
        self.settle(&passed, total, first);
        match end {
            Some(column) => self.shift(column, first),
            None => {
                let (_, loser) = given_up;
                let held = self.held.get_mut(loser as usize).and_then(Option::take);
                if let Some(column) = held.filter(|_| loser != first) {
                    self.shift(column, first);
                }
            }
        }
        true
    }

    /// Prices after a path of this total cost.
    fn settle(&mut self, passed: &[u32], total: f64, first: u32) {
        for number in passed {
            let Some(column) = self.columns.get_mut(*number as usize) else { continue };
            let less = total - column.cost;
            column.price -= less;
            if let Some(price) = column.row.and_then(|row| self.prices.get_mut(row as usize)) {
                *price += less;
            }
        }
        if let Some(price) = self.prices.get_mut(first as usize) {
            *price += total;
        }
    }

    /// Each row on the way to `column` takes the column that it reached; the first one had none.
    fn shift(&mut self, mut column: u32, first: u32) {
        for _ in 0..=MAX_COLUMNS {
            let Some(taken) = self.columns.get_mut(column as usize) else { return };
            let from = taken.from;
            taken.row = Some(from);
            let held = self.held.get_mut(from as usize).and_then(|held| held.replace(column));
            match held {
                Some(held) if from != first => column = held,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};

    use super::{Row, assign};

    fn cost(rows: &[Row], found: &[Option<u32>]) -> f64 {
        let of = |row: &Row, column: Option<u32>| match column {
            None => row.alone,
            Some(column) => row.edges.iter().find(|(edge, _)| *edge == column).map_or(f64::INFINITY, |(_, cost)| *cost),
        };
        rows.iter().zip(found).map(|(row, column)| of(row, *column)).sum()
    }

    fn best(rows: &[Row], taken: &mut Vec<u32>) -> f64 {
        let Some((row, rest)) = rows.split_first() else { return 0.0 };
        let mut least = row.alone + best(rest, taken);
        for (column, cost) in &row.edges {
            if !taken.contains(column) {
                taken.push(*column);
                least = least.min(cost + best(rest, taken));
                taken.pop();
            }
        }
        least
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_assignment_is_cheaper_and_no_column_is_given_twice(table in vec((vec((0u32..6, -20i32..20), 0..6), -10i32..20), 0..6)) {
            let rows: Vec<Row> = table
                .into_iter()
                .map(|(mut edges, alone)| {
                    edges.sort();
                    edges.dedup_by_key(|(column, _)| *column);
                    let edges = edges.into_iter().map(|(column, cost)| (column, f64::from(cost) / 4.0)).collect();
                    Row { edges, alone: f64::from(alone) / 4.0 }
                })
                .collect();
            let (found, cut) = assign(&rows, 6);
            prop_assert!(cut == 0);
            let mut columns: Vec<u32> = found.iter().flatten().copied().collect();
            columns.sort_unstable();
            let given = columns.len();
            columns.dedup();
            prop_assert!(columns.len() == given);
            let (own, least) = (cost(&rows, &found), best(&rows, &mut Vec::new()));
            prop_assert!((own - least).abs() < 1e-9, "{own} is not {least}");
        }
    }
}
