//! Columns of text as runc prints them: at least twelve wide, three spaces apart, a line for each row.

use crate::error::printable;

/// The least width of a column, its gap included, and the gap after the widest cell.
const WIDTH: usize = 12;
const GAP: usize = 3;

/// Lays rows out in columns; the last column is not padded.
pub(super) fn lay_out<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (widest + GAP).max(WIDTH)
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == COLUMNS {
                true => text.push_str(cell),
                false => text.push_str(&format!("{cell:<width$}", width = widths[column])),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::lay_out;

    #[test]
    fn narrow_columns_are_twelve_wide_and_wide_ones_have_a_gap_of_three() {
        let rows = [["ID", "PID", "X"], ["a-long-identifier", "1", "y"]].map(|row| row.map(str::to_owned));
        assert_eq!(lay_out(&rows), "ID                  PID         X\na-long-identifier   1           y\n");
    }
}
