//! `man`: manual pages of all commands, from the definition that also makes the help and the completions.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::commands;

/// Write the manual pages of all commands into a folder
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder, made when missing
    folder: PathBuf,
}

/// `hull man`: for `cargo xtask man` and packagers.
pub(crate) fn man(args: ManArgs) -> anyhow::Result<u8> {
    let failed = || format!("cannot write manual pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(failed)?;
    let mut command = commands::command().disable_help_subcommand(true);
    // Gives subcommands their whole names.
    command.build();
    write(command, &args.folder).with_context(failed)?;
    Ok(0)
}

/// Writes the page of a command, and those of its subcommands.
fn write(command: clap::Command, folder: &Path) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write(subcommand.clone(), folder)?;
    }
    let man = clap_mangen::Man::new(command)
        .source(concat!("hull ", env!("CARGO_PKG_VERSION")))
        .manual("hull");
    let mut page = Vec::new();
    man.render(&mut page)?;
    // What stands behind the options has no other name in the library.
    let page = String::from_utf8_lossy(&page).replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
    std::fs::write(folder.join(man.get_filename()), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_each_command_and_none_for_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name));
        let man = || {
            man(ManArgs {
                folder: folder.path().to_owned(),
            })
        };
        man().unwrap();
        let run = page("hull-run.1").unwrap();
        assert!(run.contains(".TH hull-run 1"), "{run}");
        let start = page("hull-system-start.1").unwrap();
        assert!(start.contains("\n.SH NOTES\n"), "{start}");
        assert!(run.contains(r"\-\-restart"), "{run}");
        // Options that are refused by name are not offered.
        assert!(!run.contains("device\\-cgroup\\-rule"), "{run}");
        for name in ["hull.1", "hull-system-install.1", "hull-container-ls.1"] {
            assert!(page(name).is_ok(), "{name}");
        }
        assert!(page("hull-man.1").is_err());
        man().unwrap();
        assert_eq!(page("hull-run.1").unwrap(), run);
    }
}
