//! A VM's monitor from the moment on when its guest runs: two processes, of which one is trusted with the host and the other
//! with the guest.
//!
//! ```text
//! warden: hull-vmm's parent; network, cgroup, lock, folder    speaker: agent, client, streams, console
//!    fork ------------------------------------------------->    a user of its own, no capabilities, seccomp
//!    waits for the speaker, hull-vmm, signals                   reads what the guest sends
//!    hull-vmm ends -- how, over a pipe ------------------->     says why
//!    the speaker ends <-------------------------------------    its client has hung up
//!    kills hull-vmm, takes everything down
//! ```
//!
//! Invariants: the warden never reads what a guest or hull-vmm has sent, but for the last words of the speaker; the
//! speaker holds no descriptor by which it could reach more than its client, hull-vmm's socket and the guest's streams;
//! whatever becomes of either, hull-vmm ends: it and the speaker die with the warden.

use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use protocol::monitor::FromMonitor;
use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, pidfd_send_signal, setrlimit,
    waitpid,
};
use sys::fork::{self, Child};
use sys::refusal;
use sys::signalfd::SignalFd;

use crate::client::Client;
use crate::machine::Machine;
use crate::microvm::MicroVm;
use crate::vmm::Vmm;
use crate::{Error, LEASE_FD, LISTENER_FD, Monitor, chain, jail, wait_for};

/// Serves the client of a VM that runs, to its end, and takes the VM down.
pub(crate) fn run(monitor: Monitor, vm: MicroVm, measured: bool) -> Result<(), Error> {
    let (status, our_status) = io::pipe().map_err(Error::Part)?;
    let (our_words, words) = io::pipe().map_err(Error::Part)?;
    let user = vm.vmm().process.monitor_user();
    let warden = getpid();
    // Taken in the child, whose copies they are there; what is left of them in the parent is the parent's.
    let mut parts = Some((monitor, vm, status, words));
    let mut ours = Some((our_status, our_words));
    let forked = fork::fork(0, None, |in_child| {
        let Some((mut monitor, mut vm, status, words)) = parts.take() else {
            return 1;
        };
        drop(ours.take());
        let parted = in_child
            .close_numbers(LISTENER_FD, LEASE_FD)
            .and_then(|()| vm.part(status.into(), measured))
            .and_then(|()| confine(user, warden, words.into()));
        if let Err(error) = parted {
            monitor.client.send_last(&broken(&Error::Part(error)));
            return 1;
        }
        monitor.machine = Some(Machine::Vm(Box::new(vm)));
        match monitor.serve(measured) {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the monitor cannot go on");
                1
            }
        }
    });
    let (Some((monitor, vm, status, words)), Some((our_status, our_words))) = (parts, ours) else {
        unreachable!("only the child takes them");
    };
    drop((status, words));
    let Monitor { client, quit, .. } = monitor;
    let (mut vmm, network) = vm.into_host();
    let outcome = match forked {
        Ok(speaker) => watch(&speaker, &mut vmm, quit, our_status.into())
            .map(|ended| tell_end(&client, ended, our_words.into())),
        Err(error) => {
            let error = Error::Part(error);
            client.send_last(&broken(&error));
            Err(error)
        }
    };
    vmm.end();
    if let Some(network) = network {
        network.detach();
    }
    outcome
}

fn broken(error: &Error) -> FromMonitor {
    FromMonitor::Broken {
        message: chain(error),
        console: Vec::new(),
    }
}

/// Takes from this process what the speaker does not need: all but talking.
fn confine(user: Option<u32>, warden: Pid, words: OwnedFd) -> io::Result<()> {
    // Their first use asks the kernel where the vDSO is, by a call that is refused from here on.
    let _ = (sys::clock::monotonic_ns(), rustix::param::page_size());
    // Open as long as the process lives: a signal handler writes to it.
    refusal::report_to(words.into_raw_fd())?;
    refusal::name_thread("monitor");
    for resource in [Resource::Core, Resource::Memlock, Resource::Msgqueue] {
        let nothing = Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        setrlimit(resource, nothing)?;
    }
    sys::jail::renounce(user.map(|user| (user, user)))?;
    if getppid() != Some(warden) {
        return Err(io::Error::other("its parent has died"));
    }
    sys::seccomp::install(filters::program(&filters::MONITOR))
}

/// Waits for the speaker's end, and says how it was. A signal that asks the monitor to end ends it: `None`.
fn watch(
    speaker: &Child,
    vmm: &mut Vmm,
    mut quit: SignalFd,
    status: OwnedFd,
) -> Result<Option<ExitStatus>, Error> {
    let mut asked = false;
    loop {
        let mut fds = vec![
            PollFd::new(&speaker.pidfd, PollFlags::IN),
            PollFd::new(&quit, PollFlags::IN),
        ];
        fds.extend(
            vmm.process
                .end_descriptor()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        wait_for(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            let waited = retry_on_intr(|| waitpid(Some(speaker.pid), WaitOptions::empty()))
                .map_err(|errno| Error::Poll(errno.into()))?;
            let ended = waited.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
            return Ok(ended.filter(|_| !asked));
        }
        if ready[1] {
            // What signal it was does not matter.
            let _ = quit.take().map_err(Error::Poll)?;
            asked = true;
            if let Err(error) = pidfd_send_signal(&speaker.pidfd, Signal::KILL) {
                tracing::debug!(%error, "it has ended in the meantime");
            }
        }
        if ready.get(2) == Some(&true)
            && let Some(ended) = vmm.process.wait()
        {
            // A speaker that has ended need not know.
            if let Err(error) = rustix::io::write(&status, &ended.bytes()) {
                tracing::debug!(%error, "nobody asks how hull-vmm ended");
            }
        }
    }
}

/// What the speaker could not say itself: that it was refused a system call, panicked, or was killed.
fn tell_end(client: &Client, ended: Option<ExitStatus>, words: OwnedFd) {
    let words = jail::explain("hull-monitor", words.as_fd()).unwrap_or_else(|error| {
        tracing::warn!(%error, "the last words cannot be read");
        None
    });
    let killed = || {
        let ended = ended.filter(|ended| ended.signal().is_some())?;
        Some(format!(
            "the monitor's process that talks to the guest was ended ({ended})"
        ))
    };
    if let Some(message) = words.or_else(killed) {
        client.send_last(&FromMonitor::Broken {
            message,
            console: Vec::new(),
        });
    }
}
