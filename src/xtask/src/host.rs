//! `cargo xtask host`: an emulated x86-64 machine in which /dev/kvm is KVM itself, for where the real one cannot boot
//! a stock kernel or there is none.
//!
//! QEMU's TCG with nested SVM runs Debian's own kernel. The machine's root file system is its root, read-only under an
//! overlay. Inside, [`serve`] runs commands for [`client`], which reaches it over a port of the loopback interface with
//! a secret that lies in a file that only its owner can read. How it is put together: resources/README.md.
//!
//! Deliberately absent: any way to write to the machine from inside, except in the results folder.

pub(crate) mod artifacts;
pub(crate) mod client;
mod copy;
pub(crate) mod machine;
mod monitor;
pub(crate) mod serve;
pub(crate) mod start;
mod watch;
pub(crate) mod wire;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::paths;
use client::Started;
use machine::{Endpoint, Machine};
use watch::Watch;

/// A folder without a QEMU that is older than this was abandoned: no start takes as long.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Debian 12's newest cloud kernel, and its own, which most of its users have.
const NEW_KERNEL: &str = "linux-image-6.12-cloud-amd64";
pub(crate) const OWN_KERNEL: &str = "linux-image-cloud-amd64";

/// The test host that commands run in; one that was started for this purpose ends when this is dropped.
pub(crate) struct Host {
    endpoint: Endpoint,
    watch: Watch,
    /// Ends the machine when it is dropped.
    machine: Option<Machine>,
}

/// The folder of a test host's files, below cargo's target folder.
pub(crate) fn folder() -> PathBuf {
    paths::target().join("host")
}

impl Host {
    /// Uses the kept host when one runs; starts one otherwise, which stays when `keep` says so. Its kernel is the package's
    /// that HULL_HOST_KERNEL names, if that is set.
    pub(crate) fn reach(keep: bool) -> Result<Host> {
        let kernel = &kernel();
        let folder = folder();
        fs::create_dir_all(&folder)?;
        // Two commands that start a kept host at once would start two.
        let starting = File::create(folder.join("starting"))?;
        flock(&starting, FlockOperation::LockExclusive)?;
        remove_abandoned(&folder)?;
        let kept = folder.join("kept");
        let kept_host = |endpoint| Host::new(endpoint, &kept, None);
        if let Some(endpoint) = self::kept()? {
            return Ok(kept_host(endpoint));
        }
        if keep {
            if kept.exists() {
                fs::remove_dir_all(&kept)?;
            }
            let (machine, endpoint) = Machine::start(&kept, true, kernel, None)?;
            machine.leave_running();
            return Ok(kept_host(endpoint));
        }
        drop(starting);
        Self::start(kernel)
    }

    /// Starts a host with this kernel.
    pub(crate) fn start(kernel: &str) -> Result<Host> {
        Self::start_on(kernel, None)
    }

    /// The same, on a disk that is kept: what an earlier host wrote to /var/lib/hull, /tmp and its root is there. The disk is
    /// made when missing.
    pub(crate) fn start_on(kernel: &str, disk: Option<&Path>) -> Result<Host> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let scratch = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(&folder)?;
        let (machine, endpoint) = Machine::start(scratch.path(), false, kernel, disk)?;
        let path = scratch.path().to_path_buf();
        Ok(Host::new(endpoint, &path, Some(machine.owning(scratch))))
    }

    fn new(endpoint: Endpoint, folder: &Path, machine: Option<Machine>) -> Host {
        Host {
            watch: Watch::new(&endpoint, &folder.join("console")),
            endpoint,
            machine,
        }
    }

    /// What answers at this endpoint, with a file `console` in this folder, as a host.
    #[cfg(test)]
    pub(crate) fn fake(port: u16, folder: &Path) -> Host {
        let endpoint = Endpoint {
            port,
            token: String::new(),
        };
        Host::new(endpoint, folder, None)
    }

    /// Runs a command in the host with our standard streams, and gives back its exit code.
    pub(crate) fn run(&self, argv: &[String]) -> Result<u8> {
        client::run(&self.endpoint, argv, &cwd())
    }

    /// Starts a command in the host without input: see [`client::start`].
    pub(crate) fn start_command(&self, argv: &[String], refresh: bool) -> Result<Started> {
        client::start(&self.endpoint, argv, &cwd(), refresh)
    }

    /// Powers the host off, and waits until it is.
    pub(crate) fn power_off(self) -> Result<()> {
        client::power_off(&self.endpoint)?;
        match self.machine {
            Some(machine) => machine.wait(),
            None => Ok(()),
        }
    }

    /// What the host's server and kernel do.
    pub(crate) fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// The package of the kernel that hosts have: the one that HULL_HOST_KERNEL names, or the newest.
pub(crate) fn kernel() -> String {
    env::var("HULL_HOST_KERNEL").unwrap_or_else(|_| NEW_KERNEL.to_owned())
}

/// The working directory if it is in the checkout; the checkout otherwise.
fn cwd() -> PathBuf {
    let checkout = paths::checkout();
    env::current_dir()
        .ok()
        .filter(|cwd| cwd.starts_with(checkout))
        .unwrap_or_else(|| checkout.to_path_buf())
}

/// Removes the folders of hosts whose starters were killed: those that are old and that no QEMU holds.
fn remove_abandoned(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > ABANDONED_AFTER);
        if name.starts_with(b"run-")
            && fs::metadata(&path)?.modified().is_ok_and(old)
            && !held(&path.join("endpoint.json"))
        {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Whether the QEMU that was given this endpoint is running.
fn held(endpoint: &Path) -> bool {
    File::open(endpoint)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// The kept host, if it runs: QEMU holds a lock on its endpoint's file until it ends.
fn kept() -> Result<Option<Endpoint>> {
    let path = folder().join("kept/endpoint.json");
    if !held(&path) {
        return Ok(None);
    }
    let text = fs::read_to_string(&path)?;
    let endpoint = serde_json::from_str(&text)
        .with_context(|| format!("{} is not an endpoint", path.display()))?;
    Ok(Some(endpoint))
}

/// Ends the kept host.
pub(crate) fn stop() -> Result<()> {
    let Some(endpoint) = kept()? else {
        bail!("no test host is kept running");
    };
    client::power_off(&endpoint)?;
    // Granted when QEMU is gone.
    let file = File::open(folder().join("kept/endpoint.json"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    fs::remove_dir_all(folder().join("kept"))?;
    Ok(())
}
