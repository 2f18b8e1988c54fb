//! `hull-native`: the agent on the host itself, for `--isolation native`.
//!
//! ```text
//! hull-native FOLDER
//! descriptor 3    the control connection: a stream socket
//! descriptor 4    streams, as they are offered: a SOCK_SEQPACKET socket; each packet is {"port":N} with one descriptor
//! ```
//!
//! Signals that end programs do not end it: systemd sends them to every process of a unit that is stopped, and it is the
//! monitor that then ends the containers, each in its own time.
//!
//! FOLDER is the sandbox's: what is mounted is below it, in FOLDER/machine, in mounts of this process's own. It ends with its
//! parent, and its mounts with it; the containers' processes end with their cgroups, which the monitor removes if it
//! could not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use agent::{Asleep, End, Surroundings};
use protocol::agent::Hello;
use protocol::frame;
use rustix::process::{Signal, set_child_subreaper, set_parent_process_death_signal};
use sys::packet;
use sys::signalfd::SignalFd;

/// The number of the control connection.
const CONTROL_FD: i32 = 3;
/// The number of the socket that streams are offered on.
const OFFERS_FD: i32 = 4;
/// What ends a program, other than SIGKILL.
const ENDING: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
/// Longer than any offer.
const MAX_OFFER_LEN: usize = 256;
/// The cgroup, in the host's version 2 hierarchy, below which containers get theirs.
const CGROUP: &str = "hull";

/// A stream that is offered.
#[derive(serde::Deserialize)]
struct Offer {
    port: u32,
}

fn main() -> ExitCode {
    match run() {
        Ok(End::Shutdown(code)) => ExitCode::from(code as u8),
        Ok(End::ControlLost(frame::Error::Closed)) => ExitCode::SUCCESS,
        Ok(End::ControlLost(error)) => complain(&error),
        Err(error) => complain(&*error),
    }
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    // If standard error is closed, there is no other place to say it.
    let _ = writeln!(io::stderr(), "hull-native: {}", protocol::chain(error));
    ExitCode::FAILURE
}

fn run() -> Result<End, Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let (Some(folder), None) = (words.next().map(PathBuf::from), words.next()) else {
        return Err("hull-native is started by hull's monitor: hull-native FOLDER".into());
    };
    // It is executed by a descriptor, whose number would be its name.
    rustix::thread::set_name(c"hull-native")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that has ended before this has closed the control connection.
    // What a container without a PID namespace of its own orphans is reaped here.
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let (control, offers) = (inherited(CONTROL_FD)?, inherited(OFFERS_FD)?);
    // Blocked and never read; what a container executes has a mask of its own.
    let _ignored = SignalFd::new(&ENDING)?;
    sys::private_mounts::enter()?;
    let asleep = Asleep::new(Surroundings {
        dial: dial(offers),
        run_dir: folder.join("machine"),
        cgroup: sys::cgroup2::mount_point()
            .ok_or(
                "this host has no cgroup v2 hierarchy, which --isolation native needs; mount one \
                 (`mount -t cgroup2 none /sys/fs/cgroup/unified`)",
            )?
            .join(CGROUP),
        layer_device: None,
        interface: |it| container::Which::WithMac(it.mac),
        is_own_machine: false,
        open_files: None,
        // The host has its own clock and random numbers.
        wake: Box::new(|_| Ok(())),
        on_exec: Box::new(|| ()),
    })?;
    let uname = rustix::system::uname();
    let hello = Hello {
        build: protocol::BUILD.to_owned(),
        kernel_release: uname.release().to_string_lossy().into_owned(),
    };
    let mut control = fs::File::from(control);
    frame::write(&mut control, &hello)?;
    Ok(asleep.serve(control.into())?)
}

/// A descriptor that this program was started with; it does not reach containers.
fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the monitor gives this program these descriptors, nothing here has used their numbers yet, and each is taken
    // once. A number that is not open is found out by the next call.
    #[expect(unsafe_code, reason = "an inherited descriptor has no other form")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// Takes the descriptors that are offered; each comes before the request that names its port.
fn dial(offers: OwnedFd) -> agent::Dial {
    let waiting = RefCell::new(BTreeMap::new());
    Box::new(move |port| {
        let mut waiting = waiting.borrow_mut();
        loop {
            if let Some(stream) = waiting.remove(&port) {
                return Ok(stream);
            }
            let mut bytes = [0; MAX_OFFER_LEN];
            let received = packet::receive(&offers, &mut bytes);
            let mut received = received.map_err(io::Error::other)?;
            if received.len == 0 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let offer: Offer = serde_json::from_slice(&bytes[..received.len])?;
            let stream = received.descriptors.pop();
            let stream = stream.ok_or(io::ErrorKind::InvalidData)?;
            waiting.insert(offer.port, stream);
        }
    })
}
