//! Columns of text that is separated by tabs, as Go's text/tabwriter lays them out for Docker: a cell is what a tab ends, a
//! column is a run of lines that have such a cell, [`PADDING`] blanks follow its widest one, and no column is narrower than
//! [`MIN_WIDTH`].

/// The least width of a column, its padding included, in most of Docker's tables.
const MIN_WIDTH: usize = 10;
/// Blanks behind the widest cell.
const PADDING: usize = 3;

/// Lays out lines.
pub(crate) fn layout(text: &str) -> String {
    layout_with(text, MIN_WIDTH)
}

/// The same with another least width of a column.
pub(crate) fn layout_with(text: &str, min_width: usize) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut out = String::with_capacity(text.len() * 2);
    // Of each column, the width of its present run and the line behind that.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let last = line.len().saturating_sub(1);
        for (column, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if column == last {
                break;
            }
            if runs.len() <= column {
                runs.push((0, 0));
            }
            if runs[column].1 <= number {
                runs[column] = run(&lines[number..], column, number, min_width);
            }
            let width = runs[column].0;
            out.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.chars().count()),
            ));
        }
        out.push('\n');
    }
    out
}

/// The width of a column's run of lines that begins here, and the number of the line behind it.
fn run(lines: &[Vec<&str>], column: usize, number: usize, min_width: usize) -> (usize, usize) {
    let cells = lines
        .iter()
        .take_while(|line| line.len() > column + 1)
        .map(|line| line[column].chars().count() + PADDING);
    let (width, len) = cells.fold((min_width, 0), |(width, len), cell| {
        (width.max(cell), len + 1)
    });
    (width, number + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_at_least_ten_wide_and_end_with_three_blanks() {
        assert_eq!(
            layout("REPOSITORY\tTAG\tIMAGE ID\ndemo\tlatest\tabc\n"),
            "REPOSITORY   TAG       IMAGE ID\ndemo         latest    abc\n"
        );
    }

    #[test]
    fn a_line_without_a_cell_ends_the_column() {
        assert_eq!(
            layout("a\tb\nplain\na much longer cell\tb\n"),
            "a         b\nplain\na much longer cell   b\n"
        );
    }

    #[test]
    fn an_empty_cell_takes_its_column() {
        assert_eq!(
            layout("PORTS\tNAMES\n\tweb\n"),
            "PORTS     NAMES\n          web\n"
        );
    }
}
