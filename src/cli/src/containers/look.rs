//! Small commands that look into a container: `top`, `diff` and `export`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use engine::Engine;
use engine::protocol::agent::ProcessEntry;
use engine::time;

use crate::format::tabs;
use crate::{out, top};

/// Show the processes of a running container, or without one a live table of all sandboxes
#[derive(Debug, Args)]
#[command(
    after_help = "Without options the columns are those of ps -ef; -o names others: pid, ppid, uid, user, nlwp, tty, \
                  time, rss, vsz, stat, comm, args.

The live table shows, each second: processor time; memory that the containers use, and that their VMs take of the host \
(GUEST: the guest's own, SHARED: pages of files that VMs share, VMM: hull-vmm's own, which only root sees apart from GUEST); \
network and disk; exits from the VM. Keys: q quits, arrows and j, k select, s sorts by the next column, r reverses."
)]
pub(crate) struct TopArgs {
    /// The container
    container: Option<String>,
    /// Options of ps: -ef, or -o with columns
    #[arg(
        value_name = "PS OPTIONS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    options: Vec<String>,
}

/// Show what a container has changed of its image's files: A is added, C changed, D deleted
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The container
    container: String,
}

/// Write a container's files as a tar archive
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    container: String,
}

/// A column of `top`.
type Column = (&'static str, fn(&ProcessEntry, u64) -> String);

/// Those of `ps -ef`.
const DEFAULT: [&str; 8] = ["uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd"];

/// `hull top`.
pub(crate) fn top(args: TopArgs) -> anyhow::Result<u8> {
    let Some(container) = args.container else {
        return top::live();
    };
    let columns = columns(&args.options)?;
    let processes = Engine::find()?.top(&container)?;
    out(&process_table(
        &columns,
        &processes,
        time::now_ns() / 1_000_000_000,
    ))?;
    Ok(0)
}

fn columns(options: &[String]) -> anyhow::Result<Vec<Column>> {
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let names: Vec<&str> = match words[..] {
        [] | ["-ef"] | ["ef"] => DEFAULT.to_vec(),
        ["-o", names] | ["-eo", names] | ["-e", "-o", names] => names.split(',').collect(),
        [word] if word.starts_with("-o") => word.trim_start_matches("-o").split(',').collect(),
        _ => anyhow::bail!("hull top knows of ps only -ef and -o COLUMN,COLUMN,...: {words:?}"),
    };
    names.into_iter().map(column).collect()
}

fn column(name: &str) -> anyhow::Result<Column> {
    Ok(match name {
        "uid" | "user" => ("UID", |process, _| match process.uid {
            0 => "root".into(),
            uid => uid.to_string(),
        }),
        "pid" => ("PID", |process, _| process.pid.to_string()),
        "ppid" => ("PPID", |process, _| process.ppid.to_string()),
        "c" => ("C", usage),
        "stime" | "start" => ("STIME", start),
        "tty" | "tt" => ("TTY", |process, _| terminal(process.tty)),
        "time" | "cputime" => ("TIME", |process, _| {
            let seconds = process.cpu_ms / 1000;
            format!(
                "{:02}:{:02}:{:02}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60
            )
        }),
        "nlwp" => ("NLWP", |process, _| process.threads.to_string()),
        "rss" => ("RSS", |process, _| (process.rss_bytes / 1024).to_string()),
        "vsz" => ("VSZ", |process, _| {
            (process.virtual_bytes / 1024).to_string()
        }),
        "stat" | "s" => ("STAT", |process, _| process.state.to_string()),
        "comm" => ("COMMAND", |process, _| {
            let program = process.command.split(' ').next().unwrap_or_default();
            program.rsplit('/').next().unwrap_or_default().to_owned()
        }),
        "cmd" => ("CMD", |process, _| process.command.clone()),
        "args" | "command" => ("COMMAND", |process, _| process.command.clone()),
        other => anyhow::bail!("hull top has no column {other:?}; `hull top --help` lists them"),
    })
}

/// Processor time as a percentage of the process's life.
fn usage(process: &ProcessEntry, now_s: u64) -> String {
    let life_ms = now_s.saturating_sub(process.started_s).saturating_mul(1000);
    process
        .cpu_ms
        .saturating_mul(100)
        .checked_div(life_ms)
        .unwrap_or(0)
        .to_string()
}

/// The time of today, or the day, in UTC.
fn start(process: &ProcessEntry, now_s: u64) -> String {
    const DAY_S: u64 = 86_400;
    let text = time::format_nano(process.started_s.saturating_mul(1_000_000_000));
    let is_today = process.started_s / DAY_S == now_s / DAY_S;
    let part = if is_today {
        text.get(11..16)
    } else {
        text.get(5..10)
    };
    part.unwrap_or("?").to_owned()
}

/// A terminal device's name, as Linux numbers them (new_encode_dev of the kernel).
fn terminal(device: i32) -> String {
    let device = device as u32;
    let (major, minor) = (
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xf_ff00),
    );
    match major {
        // UNIX98_PTY_SLAVE_MAJOR and the seven behind it, 256 each.
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        5 if minor == 1 => "console".into(),
        _ => "?".into(),
    }
}

fn process_table(columns: &[Column], processes: &[ProcessEntry], now_s: u64) -> String {
    /// Docker's for this table.
    const MIN_WIDTH: usize = 20;
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut text = headings.join("\t") + "\n";
    for process in processes {
        // What a program calls itself is not to move the terminal's cursor, nor a column.
        let cells = columns
            .iter()
            .map(|(_, cell)| crate::printable(&cell(process, now_s)).replace(['\t', '\n'], " "));
        text.push_str(&cells.collect::<Vec<_>>().join("\t"));
        text.push('\n');
    }
    tabs::layout_with(&text, MIN_WIDTH)
}

/// `hull diff`.
pub(crate) fn diff(args: DiffArgs) -> anyhow::Result<u8> {
    for change in Engine::find()?.changes(&args.container)? {
        out(&format!("{} {}\n", change.kind.letter(), change.path))?;
    }
    Ok(0)
}

/// `hull export`.
pub(crate) fn export(args: ExportArgs) -> anyhow::Result<u8> {
    if args.output.is_none() && io::stdout().is_terminal() {
        anyhow::bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let engine = Engine::find()?;
    let mut transfer = engine.export(&args.container)?;
    let stream = transfer.take_stream().context("the export has no stream")?;
    let mut stream = File::from(stream);
    match &args.output {
        Some(path) => {
            // Beside it and then renamed, so that what is there is whole.
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(std::path::Path::new("."));
            let mut file = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .tempfile_in(folder)
                .with_context(|| format!("cannot write {}", path.display()))?;
            io::copy(&mut stream, &mut file)
                .with_context(|| format!("cannot write {}", path.display()))?;
            drop(stream);
            transfer.finish()?;
            file.persist(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {
            io::copy(&mut stream, &mut io::stdout().lock()).context("cannot write the archive")?;
            drop(stream);
            transfer.finish()?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> ProcessEntry {
        ProcessEntry {
            pid: 312,
            ppid: 290,
            uid: 0,
            threads: 1,
            tty: 136 << 8,
            started_s: 1_795_904_368,
            cpu_ms: 61_000,
            rss_bytes: 4096,
            virtual_bytes: 8192,
            state: 'S',
            command: "sleep\u{1b}[2J 1000".into(),
        }
    }

    #[test]
    fn processes_are_shown_as_ps_shows_them() {
        let text = process_table(&columns(&[]).unwrap(), &[process()], 1_795_904_468);
        assert_eq!(
            text,
            "\
UID                 PID                 PPID                C                   STIME               TTY                 TIME                CMD
root                312                 290                 61                  22:19               pts/0               00:01:01            sleep\u{fffd}[2J 1000
"
        );
    }

    #[test]
    fn columns_may_be_chosen() {
        let words = |words: &[&str]| {
            columns(
                &words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let text = process_table(&words(&["-o", "pid,rss,comm"]).unwrap(), &[process()], 0);
        assert!(
            text.starts_with("PID                 RSS                 COMMAND\n312 "),
            "{text}"
        );
        assert!(words(&["aux"]).is_err() && words(&["-o", "pid,nope"]).is_err());
    }

    #[test]
    fn terminals_have_their_names() {
        assert_eq!(terminal(0), "?");
        assert_eq!(terminal((137 << 8) | 1), "pts/257");
        assert_eq!(terminal((4 << 8) | 1), "tty1");
        assert_eq!(terminal(-1), "?");
    }
}
