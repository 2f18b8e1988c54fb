//! Commands about containers.

use std::io::Write;

pub(crate) mod commit;
pub(crate) mod control;
pub(crate) mod cp;
pub(crate) mod exec;
pub(crate) mod inspect;
pub(crate) mod logs;
pub(crate) mod look;
pub(crate) mod ports;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod update;

use crate::{FAILED, complain, say};

/// Does something with each of the containers named, goes on after a failure, and prints each that it was done with: as
/// Docker, whose code is 1 if one failed.
pub(crate) fn each(
    references: &[String],
    mut act: impl FnMut(&str) -> Result<(), engine::Error>,
) -> anyhow::Result<u8> {
    let mut code = 0;
    for reference in references {
        match act(reference) {
            Ok(()) => crate::out(&format!("{reference}\n"))?,
            Err(error) => {
                complain(&error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Prints why something failed, and what can be done about it; the exit code.
fn failed(error: engine::Error) -> u8 {
    let (kind, help) = (error.kind(), error.help());
    complain(&error.into());
    if let Some(help) = help {
        say(&help);
    }
    kind.exit_code()
}

/// Writes a container's identifier to a file that must not exist.
fn write_cid(path: &std::path::Path, id: &str) -> anyhow::Result<()> {
    use anyhow::Context;
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(id.as_bytes()));
    written.with_context(|| {
        format!(
            "cannot write the container's identifier to {}: remove the file or name another one",
            path.display()
        )
    })
}

/// The code of a failure of hull's own, as of a run.
const RUN_FAILED: u8 = FAILED;
