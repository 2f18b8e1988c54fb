//! Tables of times, and ratios between their rows.

use anyhow::{Context, Result};

use crate::sample::{Spread, spread};

/// A row of the table: what was run, and how long each run took, in ms.
pub(crate) struct Row {
    name: &'static str,
    times_ms: Vec<f64>,
}

/// Times something so often, in ms.
pub(crate) fn row(
    name: &'static str,
    runs: u32,
    mut once: impl FnMut() -> Result<f64>,
) -> Result<Row> {
    let times_ms = (0..runs)
        .map(|_| once())
        .collect::<Result<_>>()
        .with_context(|| format!("measuring {name}"))?;
    Ok(Row { name, times_ms })
}

/// Prints rows with their medians and ranges.
pub(crate) fn print_table(title: &str, rows: &[Row]) {
    println!("\n{title}\n  median ms     range ms          runs");
    for row in rows {
        let Spread {
            median,
            least,
            most,
        } = spread(&row.times_ms);
        println!(
            "{median:11.1}  {least:8.1}-{most:<8.1} {:4}  {}",
            row.times_ms.len(),
            row.name
        );
    }
}

/// Prints the ratio of two rows' medians.
pub(crate) fn ratio(ours: &Row, theirs: &Row, what: &str) {
    println!(
        "  {:.2}  {what}",
        spread(&ours.times_ms).median / spread(&theirs.times_ms).median
    );
}
