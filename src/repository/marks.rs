//! One bit for each row of the index: what is marked of all chunks, at an eighth of a byte each. Not for: what a mark means (see
//! `prune` and `du`).

/// One bit for each row of each table, by the numbers that `Index::find_rows` gives.
#[derive(Debug, Default)]
pub struct Marks(Vec<Vec<u64>>);

impl Marks {
    /// No marks, for tables with these numbers of rows (`Index::rows_by_table`).
    pub fn new(rows: &[u64]) -> Marks {
        Marks(rows.iter().map(|rows| vec![0; rows.div_ceil(64) as usize]).collect())
    }

    /// Whether a row is marked.
    pub fn get(&self, table: u32, row: u64) -> bool {
        self.0[table as usize][(row / 64) as usize] & 1 << (row % 64) != 0
    }

    /// Marks a row, or takes its mark away.
    pub fn set(&mut self, table: u32, row: u64, value: bool) {
        let word = &mut self.0[table as usize][(row / 64) as usize];
        let bit = 1 << (row % 64);
        *word = if value { *word | bit } else { *word & !bit };
    }

    /// Takes all marks away.
    pub fn clear(&mut self) {
        self.0.iter_mut().for_each(|table| table.fill(0));
    }

    /// Moves each mark to `other` that is not there yet.
    pub fn move_to(&mut self, other: &mut Marks) {
        let words = self.0.iter_mut().flatten().zip(other.0.iter_mut().flatten());
        words.for_each(|(own, other)| {
            let moved = *own & !*other;
            *own &= !moved;
            *other |= moved;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_go_and_move() {
        let (mut one, mut other) = (Marks::new(&[3, 0, 200]), Marks::new(&[3, 0, 200]));
        for (table, row) in [(0, 2), (2, 63), (2, 64), (2, 199)] {
            one.set(table, row, true);
        }
        one.set(2, 63, false);
        other.set(2, 64, true);
        one.move_to(&mut other);
        assert!(one.get(2, 64) && !one.get(2, 199) && !one.get(0, 2), "what was there already stays in both");
        assert!(other.get(2, 64) && other.get(2, 199) && other.get(0, 2) && !other.get(2, 63));
        one.clear();
        assert!(!one.get(2, 64));
    }
}
