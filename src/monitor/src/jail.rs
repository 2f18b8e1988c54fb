//! The jails of hull-vmm, hull-fs and hull-net: whom they run as, what they may use, what they are given.
//!
//! Invariants: as root, every hull-vmm has a user of its own ([`users`]) that owns nothing; what the jail cannot have on
//! this host is refused or, where the user has said so, left out: never silently.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::fs::{LINKS_FD, MAX_OPEN_FILES};
use protocol::record::JailPolicy;
use protocol::vmm::{CONTROL_FD, WORDS_FD};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource};
use rustix::thread::CapabilitySet;
use sys::fork::Child;
use sys::fs_ids::OWNERSHIP;
use sys::jail::{Jail, Life, Network, Walls};
use sys::last_words::{self, LastWords};

use crate::users::{self, Users};

/// Descriptors of hull-vmm: those of one packet, eventfds of devices, a stream for each connection of the guest's; and what it has
/// open on shares.
const VMM_FILES: u64 = 4096 + MAX_OPEN_FILES as u64;
/// Descriptors of hull-fs: one for each file that its guest knows, of which it never takes more than it may.
const FS_FILES: u64 = 1 << 20;

/// What a hull-net may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetLimits {
    /// Descriptors: a socket for each query in flight and for each connection, and some more.
    files: u64,
    /// Memory, in bytes: what its bounds add up to, and as much again.
    data_bytes: u64,
}

/// Of a bridge.
pub(crate) const NAMES: NetLimits = NetLimits {
    files: 2048,
    data_bytes: 256 << 20,
};
/// That is a whole network: half of its descriptors are containers' connections.
pub(crate) const SWITCH: NetLimits = NetLimits {
    files: 32 << 10,
    data_bytes: 4 << 30,
};

/// Resource limits of a jailed process that may have so many descriptors. It needs no more, whatever its guest does; that it
/// makes no process is seccomp's.
const fn limits(files: u64) -> [(Resource, u64); 7] {
    [
        // No dump of a guest's memory: 1 rather than 0 keeps the kernel from starting a program that takes dumps, too. (That
        // hull-vmm may be dumped otherwise lets an ordinary user's monitor read its memory's maps.)
        (Resource::Core, 1),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, files),
        (Resource::Sigpending, 256),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
    ]
}

/// Threads of a user of its own: the first, 32 vCPUs, 19 devices, KVM's worker, and as many again for its user's last VM,
/// which may still be ending.
const MAX_THREADS: u64 = 128;

/// What an ordinary user is told where the host forbids user namespaces, without which there is neither hull-fs' jail nor a
/// mount for it.
pub(crate) const NO_SHARES: &str = "directories cannot be shared with the VM: this host does not allow user namespaces to you \
    (see the sysctls user.max_user_namespaces and, where there are such, kernel.unprivileged_userns_clone and \
    kernel.apparmor_restrict_unprivileged_userns); have them allowed, run hull as root, or leave the mounts out";

/// Why there is no jail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program.
    #[error("cannot open {path}")]
    Program {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No user of its own.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// The process.
    #[error("cannot make a jail")]
    Prepare(#[source] io::Error),
    /// The host forbids user namespaces.
    #[error(
        "{program} cannot be jailed: this host does not allow user namespaces to you (see \
         /proc/sys/user/max_user_namespaces and your security modules); to run VMs with a weaker jail, set \
         HULL_JAIL=no-user-namespace"
    )]
    UserNamespaces {
        /// What was to be jailed.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The same, where a weaker jail would not help: an ordinary user's shares need one besides.
    #[error("{NO_SHARES}")]
    FsUserNamespaces(#[source] io::Error),
    /// The process.
    #[error(transparent)]
    Spawn(sys::jail::Error),
}

/// A process in its jail.
#[derive(Debug)]
pub struct Jailed {
    /// The process.
    pub child: Child,
    /// Where its last words can be read.
    pub words: OwnedFd,
    /// Its user and the monitor's, if they are their own.
    pub users: Option<Users>,
}

/// Starts hull-vmm, which gets `control` and nothing else, in a directory of cgroup v2 if one is given. The process is
/// killed when the caller, which has one thread only, dies.
pub fn spawn(
    program: &Path,
    control: OwnedFd,
    policy: JailPolicy,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Jailed, Error> {
    let program = open_program(program)?;
    let is_root = rustix::process::geteuid().is_root();
    let users = if is_root { users::take()? } else { None };
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let user = users
        .as_ref()
        .map_or(own, |users| (users.vmm(), users.vmm()));
    let null = sys::jail::null().map_err(Error::Prepare)?;
    let log = std::env::var_os("HULL_LOG").map(|_| io::stderr());
    let (words, their_words) = io::pipe().map_err(Error::Prepare)?;
    let least = limits(VMM_FILES);
    let mut limits = least.to_vec();
    if users.is_some() || counts_by_namespace() {
        limits.push((Resource::Nproc, MAX_THREADS));
    }
    let descriptors = [
        null.as_fd(),
        null.as_fd(),
        log.as_ref().map_or(null.as_fd(), AsFd::as_fd),
        control.as_fd(),
        their_words.as_fd(),
    ];
    const { assert!(CONTROL_FD == 3 && WORDS_FD == 4) };
    let mut jail = Jail {
        walls: Walls::All,
        user,
        cgroup,
        limits: &limits,
        descriptors: &descriptors,
        words: WORDS_FD,
        links: false,
        network: Network::None,
        life: Life::WithParent,
        kept: CapabilitySet::empty(),
        program: program.as_fd(),
        arguments: &[CString::from(c"hull-vmm")],
        environment: &[],
    };
    let spawned = match sys::jail::spawn(&jail) {
        Err(sys::jail::Error::UserNamespaces(error)) if policy == JailPolicy::NoUserNamespace => {
            tracing::warn!(%error, "hull-vmm runs without a user namespace, as HULL_JAIL says");
            jail.walls = if is_root {
                Walls::NoUserNamespace
            } else {
                Walls::None
            };
            if users.is_none() {
                // Nothing but its user tells its threads from others'.
                jail.limits = &least;
            }
            sys::jail::spawn(&jail)
        }
        other => other,
    };
    let child = spawned.map_err(|error| match error {
        sys::jail::Error::UserNamespaces(source) => Error::UserNamespaces {
            program: "hull-vmm",
            source,
        },
        other => Error::Spawn(other),
    })?;
    Ok(Jailed {
        child,
        words: words.into(),
        users,
    })
}

/// Starts hull-fs, which gets `control` and the links of its descriptors and nothing else. Of root's it is root, of the host's
/// user namespace, with as much of root's rights as ownership of files takes; that it reaches no file but those of its shares is
/// its other namespaces'. Of an ordinary user's it is that user, in a user namespace that has no other, without capabilities.
/// The process is killed when the caller, which has one thread only, dies.
pub(crate) fn spawn_fs(
    program: &Path,
    control: OwnedFd,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Jailed, Error> {
    let program = open_program(program)?;
    let null = sys::jail::null().map_err(Error::Prepare)?;
    let log = std::env::var_os("HULL_LOG").map(|_| io::stderr());
    let (words, their_words) = io::pipe().map_err(Error::Prepare)?;
    let descriptors = [
        null.as_fd(),
        null.as_fd(),
        log.as_ref().map_or(null.as_fd(), AsFd::as_fd),
        control.as_fd(),
        their_words.as_fd(),
    ];
    const { assert!(protocol::fs::CONTROL_FD == 3 && protocol::fs::WORDS_FD == 4 && LINKS_FD == 5) };
    let user = rustix::process::geteuid();
    let (walls, kept) = match user.is_root() {
        true => (Walls::NoUserNamespace, OWNERSHIP),
        false => (Walls::All, CapabilitySet::empty()),
    };
    let jail = Jail {
        walls,
        user: (user.as_raw(), rustix::process::getegid().as_raw()),
        cgroup,
        limits: &limits(FS_FILES),
        descriptors: &descriptors,
        words: WORDS_FD,
        links: true,
        network: Network::None,
        life: Life::WithParent,
        kept,
        program: program.as_fd(),
        arguments: &[CString::from(c"hull-fs")],
        environment: &[],
    };
    let child = sys::jail::spawn(&jail).map_err(|error| match error {
        sys::jail::Error::UserNamespaces(source) => Error::FsUserNamespaces(source),
        other => Error::Spawn(other),
    })?;
    Ok(Jailed {
        child,
        words: words.into(),
        users: None,
    })
}

/// A hull-net, which is no child of this process.
#[derive(Debug)]
pub(crate) struct Apart {
    /// Its number.
    pub(crate) pid: Pid,
    /// Where its last words can be read.
    pub(crate) words: OwnedFd,
}

/// Starts hull-net, which gets `control` and nothing else, as this user: on the host's network, but for that with the
/// walls of hull-fs, or those of an ordinary user's hull-vmm. It lives until it is killed, and holds on to nothing of the
/// caller's, which has one thread only.
pub(crate) fn spawn_net(
    program: &Path,
    control: OwnedFd,
    user: (u32, u32),
    policy: JailPolicy,
    most: NetLimits,
) -> Result<Apart, Error> {
    let program = open_program(program)?;
    let null = sys::jail::null().map_err(Error::Prepare)?;
    let (words, their_words) = io::pipe().map_err(Error::Prepare)?;
    let mut limits = limits(most.files).to_vec();
    limits.extend([(Resource::Data, most.data_bytes), (Resource::Fsize, 0)]);
    let descriptors = [
        null.as_fd(),
        null.as_fd(),
        null.as_fd(),
        control.as_fd(),
        their_words.as_fd(),
    ];
    const { assert!(protocol::net::CONTROL_FD == 3 && protocol::net::WORDS_FD == 4) };
    let walls = match rustix::process::geteuid().is_root() {
        true => Walls::NoUserNamespace,
        false => Walls::All,
    };
    let mut jail = Jail {
        walls,
        user,
        cgroup: None,
        limits: &limits,
        descriptors: &descriptors,
        words: WORDS_FD,
        links: false,
        network: Network::Shared,
        life: Life::Apart,
        kept: CapabilitySet::empty(),
        program: program.as_fd(),
        arguments: &[CString::from(c"hull-net")],
        environment: &[],
    };
    let spawned = match sys::jail::spawn_apart(&jail) {
        Err(sys::jail::Error::UserNamespaces(error)) if policy == JailPolicy::NoUserNamespace => {
            tracing::warn!(%error, "hull-net runs without a user namespace, as HULL_JAIL says");
            jail.walls = Walls::None;
            sys::jail::spawn_apart(&jail)
        }
        other => other,
    };
    let pid = spawned.map_err(|error| match error {
        sys::jail::Error::UserNamespaces(source) => Error::UserNamespaces {
            program: "hull-net",
            source,
        },
        other => Error::Spawn(other),
    })?;
    Ok(Apart {
        pid,
        words: words.into(),
    })
}

fn open_program(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        Error::Program {
            path: path.to_owned(),
            source: errno.into(),
        }
    })
}

/// Whether this kernel counts a user's processes in each user namespace apart, as Linux does from 5.14 on: otherwise a limit
/// for hull-vmm would count everything that an ordinary user runs.
fn counts_by_namespace() -> bool {
    let uname = rustix::system::uname();
    is_at_least(&uname.release().to_string_lossy(), (5, 14))
}

fn is_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

/// What `program` said with its last breath, for a person; `None` if it said nothing.
pub fn explain(program: &str, words: BorrowedFd<'_>) -> io::Result<Option<String>> {
    Ok(last_words::read(words)?.map(|words| match words {
        LastWords::SetUp { step, errno } => {
            let step = sys::jail::STEPS
                .get(step as usize)
                .unwrap_or(&"do something unknown");
            let error = io::Error::from_raw_os_error(errno);
            format!("its jail could not {step}: {error}")
        }
        LastWords::Refused { call, thread } => match sys::syscalls::name(call) {
            Some(name) => {
                format!("{program} was refused the system call `{name}` on its thread {thread}")
            }
            None => {
                format!("{program} was refused system call number {call} on its thread {thread}")
            }
        },
        LastWords::Panicked { text } => format!("{program} failed: {text}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(is_at_least("5.14.0-1", (5, 14)));
        assert!(is_at_least("6.1.0-13-amd64", (5, 14)));
        assert!(!is_at_least("5.9.16", (5, 14)));
        assert!(!is_at_least("gibberish", (5, 14)));
    }
}
