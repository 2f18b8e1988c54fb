//! The machine of `--isolation native`: hull-native, the agent's native form, in the place of hull-vmm and its guest.
//!
//! ```text
//! warden --spawns--> hull-native   3: the agent's control connection
//!                                  4: streams that are offered, `{"port":N}` with an end of a socketpair
//! ```
//!
//! It is executed from a sealed copy in memory: as /proc/1/exe a native container reaches the program that made it
//! (CVE-2019-5736).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use sys::fork::Child;
use sys::spawn::Inherit;

use crate::process::Process;
use crate::sealed::Sealed;

/// What the process is called.
const NAME: &str = "hull-native";
/// The number of the control connection in hull-native.
const CONTROL_FD: i32 = 3;
/// The number of the socket over which streams are offered.
const PORTS_FD: i32 = 4;

/// Why there is no native machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It takes root's rights.
    #[error("--isolation native needs root")]
    NotRoot,
    /// The host lacks what it stands on.
    #[error(
        "this host has no cgroup v2 hierarchy, which --isolation native needs; mount one \
         (`mount -t cgroup2 none /sys/fs/cgroup/unified`)"
    )]
    NoCgroup2,
    /// The program.
    #[error("cannot start hull-native")]
    Spawn(#[source] io::Error),
}

/// The process and the host's ends of its sockets.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) process: Process,
    pub(crate) control: OwnedFd,
    pub(crate) ports: Ports,
}

/// Where streams are offered.
#[derive(Debug)]
pub(crate) struct Ports(OwnedFd);

#[derive(Serialize)]
struct Offer {
    port: u32,
}

impl Ports {
    /// Offers an end of a socketpair at a port.
    pub(crate) fn offer(&self, port: u32, end: &OwnedFd) -> io::Result<()> {
        let offer = serde_json::to_vec(&Offer { port })?;
        sys::packet::send(&self.0, &offer, &[end.as_fd()])
    }
}

/// Starts hull-native for the sandbox in `folder`.
pub(crate) fn start(program: &Path, folder: &Path) -> Result<Native, Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    if sys::cgroup2::mount_point().is_none() {
        return Err(Error::NoCgroup2);
    }
    spawn(program, folder).map_err(Error::Spawn)
}

fn spawn(program: &Path, folder: &Path) -> io::Result<Native> {
    let (control, its_control) = sys::packet::stream_pair()?;
    let (ports, its_ports) = sys::packet::pair()?;
    let sealed = Sealed::copy(NAME, program)?;
    let mut command = Command::new(sealed.path());
    command
        .arg0(NAME)
        .arg(folder)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(filter) = std::env::var_os("HULL_LOG") {
        command.env("HULL_LOG", filter).stderr(Stdio::inherit());
    }
    let inherit = Inherit {
        descriptors: &[
            (its_control.as_fd(), CONTROL_FD),
            (its_ports.as_fd(), PORTS_FD),
        ],
        dies_with_parent: true,
        ..Inherit::default()
    };
    let child = sys::spawn::spawn(&mut command, &inherit)?;
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Native {
        process: Process::ours(Child { pid, pidfd }, None, None),
        control,
        ports: Ports(ports),
    })
}
