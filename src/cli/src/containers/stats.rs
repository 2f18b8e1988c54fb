//! `stats`: what containers use, live or once.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use engine::list::{ListOptions, Listed};
use engine::protocol::agent::Stats;
use engine::{Engine, Kind};

use crate::output::{self, Columns, Row};
use crate::{complain, out};

/// Show what running containers use
#[derive(Debug, Args)]
#[command(
    after_help = "The table is shown anew each second until ctrl-c; with --no-stream it is shown once."
)]
pub(crate) struct StatsArgs {
    /// Show those that do not run too
    #[arg(short, long)]
    all: bool,
    /// table, table TEMPLATE, json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Do not cut identifiers short
    #[arg(long)]
    no_trunc: bool,
    /// Containers; all that run if none is named
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    headings: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

/// Between two looks: the first counts nothing but where the second begins.
const INTERVAL: Duration = Duration::from_secs(1);

/// `hull stats`.
pub(crate) fn stats(args: StatsArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    // A name that there is none of is told before anything is shown.
    let named: Result<Vec<String>, _> =
        args.containers.iter().map(|name| engine.id(name)).collect();
    let named = named?;
    show(
        args.no_stream,
        args.format.as_deref(),
        || {
            let options = ListOptions {
                all: args.all || !named.is_empty(),
                ..ListOptions::default()
            };
            let mut listed = engine.list(&options)?;
            listed.retain(|one| named.is_empty() || named.contains(&one.summary.id));
            Ok(looks(&engine, listed))
        },
        args.no_trunc,
    )
}

/// A container and what it uses; `None` if it does not run.
pub(crate) type Look = (Listed, Option<Stats>);

/// Shows what `look` finds, once or for ever.
pub(crate) fn show(
    once: bool,
    format: Option<&str>,
    look: impl Fn() -> Result<Vec<Look>, engine::Error>,
    whole: bool,
) -> anyhow::Result<u8> {
    let clears = !once && std::io::stdout().is_terminal();
    let mut before = look()?;
    loop {
        std::thread::sleep(INTERVAL);
        let now = look()?;
        let rows: Vec<Row> = now
            .iter()
            .map(|(one, stats)| {
                let earlier = before
                    .iter()
                    .find(|(other, _)| other.summary.id == one.summary.id);
                row(
                    one,
                    earlier.and_then(|(_, stats)| stats.as_ref()),
                    stats.as_ref(),
                    whole,
                )
            })
            .collect();
        let text = output::listing(COLUMNS, format, false, &rows)?;
        match clears {
            // Home, and everything erased (ECMA-48, CUP and ED).
            true => out(&format!("\x1b[H\x1b[2J{text}"))?,
            false => out(&text)?,
        }
        if once {
            return Ok(0);
        }
        before = now;
    }
}

/// What each of them uses now, asked for all at once: each answer comes from another process.
fn looks(engine: &Engine, listed: Vec<Listed>) -> Vec<Look> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = listed
            .into_iter()
            .map(|one| {
                scope.spawn(move || {
                    let stats = match one.state.status.is_alive() {
                        true => ask(engine, &one.summary.id),
                        false => None,
                    };
                    (one, stats)
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    })
}

fn ask(engine: &Engine, id: &str) -> Option<Stats> {
    match engine.stats(id) {
        Ok(stats) => Some(stats),
        // It ended meanwhile.
        Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => None,
        Err(error) => {
            complain(&error.into());
            None
        }
    }
}

fn row(one: &Listed, before: Option<&Stats>, now: Option<&Stats>, whole: bool) -> Row {
    let summary = &one.summary;
    let id = match whole {
        true => summary.id.clone(),
        false => output::short_id(&summary.id),
    };
    let stats = now.cloned().unwrap_or_default();
    let used = stats.memory_bytes.saturating_sub(stats.inactive_file_bytes);
    let limit = stats.memory_limit_bytes.unwrap_or(0);
    let sum = |direction: fn(&engine::protocol::agent::InterfaceStats) -> u64| {
        stats
            .interfaces
            .values()
            .map(direction)
            .fold(0u64, u64::saturating_add)
    };
    Row::new([
        ("Container", id.clone()),
        ("ID", id),
        ("Name", summary.name.clone()),
        ("CPUPerc", format!("{:.2}%", cpu_percent(before, now))),
        (
            "MemUsage",
            format!(
                "{} / {}",
                output::binary_size(used),
                output::binary_size(limit)
            ),
        ),
        ("MemPerc", format!("{:.2}%", ratio(used, limit) * 100.0)),
        (
            "NetIO",
            format!(
                "{} / {}",
                output::size(sum(|i| i.received[0])),
                output::size(sum(|i| i.sent[0]))
            ),
        ),
        (
            "BlockIO",
            format!(
                "{} / {}",
                output::size(stats.block_read_bytes),
                output::size(stats.block_written_bytes)
            ),
        ),
        ("PIDs", stats.processes.to_string()),
    ])
}

fn ratio(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64,
    }
}

/// Of one processor: two that are busy are 200.
fn cpu_percent(before: Option<&Stats>, now: Option<&Stats>) -> f64 {
    let (Some(before), Some(now)) = (before, now) else {
        return 0.0;
    };
    let own = now.cpu_us.saturating_sub(before.cpu_us);
    let machine = now.machine_cpu_us.saturating_sub(before.machine_cpu_us);
    ratio(own, machine) * f64::from(now.processors) * 100.0
}

#[cfg(test)]
mod tests {
    use engine::container::Summary;
    use engine::protocol::agent::InterfaceStats;
    use engine::protocol::record::State;

    use super::*;

    #[test]
    fn the_table_is_dockers() {
        let one = Listed {
            summary: Summary {
                id: "a".repeat(64),
                name: "web".into(),
                ..Summary::default()
            },
            state: State::default(),
            health: None,
            size_bytes: None,
        };
        let before = Stats::default();
        let now = Stats {
            memory_bytes: 12 << 20,
            inactive_file_bytes: 2 << 20,
            memory_limit_bytes: Some(512 << 20),
            cpu_us: 500_000,
            machine_cpu_us: 2_000_000,
            processors: 2,
            processes: 3,
            block_read_bytes: 1_234_000,
            interfaces: [(
                "eth0".to_owned(),
                InterfaceStats {
                    received: [906, 1, 0, 0],
                    sent: [0; 4],
                },
            )]
            .into(),
            ..Stats::default()
        };
        let rows = [
            row(&one, Some(&before), Some(&now), false),
            row(&one, None, None, false),
        ];
        assert_eq!(
            output::listing(COLUMNS, None, false, &rows).unwrap(),
            "\
CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O     BLOCK I/O     PIDS
aaaaaaaaaaaa   web       50.00%    10MiB / 512MiB      1.95%     906B / 0B   1.23MB / 0B   3
aaaaaaaaaaaa   web       0.00%     0B / 0B             0.00%     0B / 0B     0B / 0B       0
"
        );
    }
}
