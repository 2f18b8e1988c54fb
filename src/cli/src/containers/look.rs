//! Small commands that look into a container: `top`, `diff` and `export`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::Context;
use api::documents::processes::{Column, columns};
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
}
