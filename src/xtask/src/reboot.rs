//! `cargo xtask reboot`: restart policies across a reboot.
//!
//! ```text
//! test host 1: containers of all policies, hull system install, SIGTERM as systemd sends it --power off-->
//! test host 2, on the same disk: ps tells what was, the unit's command starts what is due
//! ```
//!
//! The second machine has nothing of the first but the disk with hull's state: another boot of another kernel, no process,
//! no cgroup, no file in memory. Deliberately absent: systemd itself, which test hosts do not have; its part is played by
//! tests/reboot.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::host::{self, Host};
use crate::step::step;
use crate::{dist, paths};

/// Runs both parts.
pub(crate) fn reboot() -> Result<()> {
    host::start::require()?;
    dist::build(false)?;
    fs::create_dir_all(host::folder())?;
    let folder = tempfile::tempdir_in(host::folder())?;
    let disk = folder.path().join("disk");
    for part in ["before", "after"] {
        step(&format!("{part} the reboot"), || {
            let host = Host::start_on(&host::kernel(), Some(&disk))?;
            let script = paths::checkout().join(format!("tests/reboot/{part}.sh"));
            let script = script.to_str().context("a path is not UTF-8")?.to_owned();
            match host.run(&[script])? {
                0 => host.power_off(),
                code => bail!("it failed with code {code}"),
            }
        })?;
    }
    println!("restart policies survive a reboot");
    Ok(())
}
