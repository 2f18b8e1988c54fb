//! A container made and run once in a VM that is to be saved, for what that leaves in the kernel: caches filled, code patched,
//! the agent's own pages read. VMs that begin from the snapshot share all that, and have it behind them.
//!
//! Its document is like the one that containers get by default; its program is the agent, which says that it is of no use
//! there and ends. It draws nothing that a later container sees: names, addresses and keys are drawn anew for each.

use std::path::{Path, PathBuf};

use container::rootfs::{self, Upper};
use container::{EtcFiles, Request, Spec, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, waitpid};

use crate::disks::make_dir;
use crate::failure::Refusal;
use crate::{Rehearsal, Surroundings};

const DOCUMENT: &str = include_str!("rehearsal.json");
const NAME: &str = "rehearsal";
/// BPF_RET | BPF_K with SECCOMP_RET_ALLOW (linux/filter.h, linux/seccomp.h).
const ALLOW_ALL: [u8; 8] = [6, 0, 0, 0, 0, 0, 0xff, 0x7f];

/// Makes the container, runs it to its end and removes it. The programs of `root` are its own.
pub(crate) fn rehearse(place: &Surroundings, root: &Path) -> Result<(), Rehearsal> {
    let dir = place.run_dir.join(NAME);
    let mounted = mount(&dir, root)?;
    let result = run(place, &dir);
    for path in mounted.iter().rev() {
        rootfs::unmount(path)?;
    }
    std::fs::remove_dir_all(&dir).map_err(|source| Refusal::Directory { path: dir, source })?;
    result
}

/// What is mounted, in that order; the last is the root.
fn mount(dir: &Path, lower: &Path) -> Result<[PathBuf; 2], Rehearsal> {
    let (writable, target) = (dir.join("writable"), dir.join("rootfs"));
    make_dir(&writable)?;
    make_dir(&target)?;
    rootfs::mount("tmpfs", Path::new("tmpfs"), false, &[], &writable)?;
    let (upper, work) = (writable.join("upper"), writable.join("work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    let upper = Upper {
        upper: &upper,
        work: &work,
    };
    rootfs::overlay(&[lower], Some(upper), &target)?;
    Ok([writable, target])
}

fn run(place: &Surroundings, dir: &Path) -> Result<(), Rehearsal> {
    let some = |text: &str| Some(text.to_owned());
    let created = container::create(Request {
        spec: Spec::from_json(DOCUMENT.as_bytes())?,
        rootfs: dir.join("rootfs"),
        user: None,
        groups: Vec::new(),
        seccomp: Some(ALLOW_ALL.to_vec()),
        init: false,
        stdio: Stdio::Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
        },
        etc: EtcFiles {
            hosts: some("127.0.0.1 localhost\n"),
            hostname: some("rehearsal\n"),
            resolv_conf: some(""),
        },
        network: container::Network::Loopback,
        pid: container::PidNamespace::Own,
        volumes: Vec::new(),
        shares: Vec::new(),
        own_machine: place.is_own_machine,
        cgroup: place.cgroup.join(NAME),
        run_dir: dir.join("files"),
    })?
    .wait()?;
    let running = created.start().wait()?;
    // However it ends: it has run.
    let _ = waitpid(Some(running.pid), WaitOptions::empty());
    let cgroup = running.joinable.cgroup();
    let mut events = cgroup.events()?;
    while events.state()?.populated {
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        poll(&mut fds, None).map_err(|errno| Refusal::Wait {
            what: "the container's cgroup",
            source: errno.into(),
        })?;
    }
    cgroup.try_remove()?;
    Ok(())
}
