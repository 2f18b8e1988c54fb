//! hull-fs, which shows directories of the host's to the guest: its process, and the mounts that it is given.
//!
//! ```text
//! warden: start --fork--> in the jail, with one end of a socketpair to hull-vmm; the other goes to hull-vmm (ServeFs)
//!         add   --------> the path opened without a symlink, cloned as a detached mount, its attributes set
//! ```
//!
//! Invariants: what hull-fs is given is a mount of its own without a parent, so that no `..` leads out of it; a read-only share
//! is mounted so. It ends when its socket is closed or the warden dies; a VM does not outlive it (lifecycle H26).
//! Deliberately absent: hull-fs of an ordinary user, who may make neither such mounts nor other users' files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::fs::{Descriptor, FromFs, MAX_DOCUMENT_LEN, ToFs};
use protocol::record::{Mount, Submounts};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::fork::Child;
use sys::mount::{Attributes, set_attributes};

use crate::process::{is_ready, reap};
use crate::{chain, jail};

/// How long hull-fs may take to answer: it only looks at what it is given. A file server that does not answer takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why directories cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It takes rights.
    #[error(
        "directories can be shared with a VM by root only, in this version; run hull as root, or leave the mounts out"
    )]
    NotRoot,
    /// The installation is older than its sandbox, or damaged.
    #[error(
        "hull-fs, which shares directories, is not part of the installation that this sandbox was made with"
    )]
    NoProgram,
    /// Its jail.
    #[error(transparent)]
    Jail(#[from] jail::Error),
    /// The path.
    #[error("cannot share {path} with the VM")]
    Mount {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message to hull-fs, or from it.
    #[error("cannot talk to hull-fs")]
    Talk(#[source] io::Error),
    /// It said why it does not serve a share, or why it ended.
    #[error("{0}")]
    Refused(String),
}

/// A hull-fs. Dropped in the process that started it, it is killed.
#[derive(Debug)]
pub(crate) struct Shares {
    /// `None` in the speaker, whose it is not.
    child: Option<Child>,
    control: OwnedFd,
    words: OwnedFd,
    /// Names of the shares that it serves.
    served: BTreeSet<String>,
}

impl Shares {
    /// Starts a hull-fs with these shares. Returns it with hull-vmm's end of its socket.
    pub(crate) fn start(
        program: Option<&Path>,
        cgroup: Option<BorrowedFd<'_>>,
        mounts: &[Mount],
    ) -> Result<(Shares, OwnedFd), Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let program = program.ok_or(Error::NoProgram)?;
        let (control, their_control) = sys::packet::pair().map_err(Error::Talk)?;
        let (fuse, their_fuse) = sys::packet::pair().map_err(Error::Talk)?;
        let jailed = jail::spawn_fs(program, their_control, cgroup)?;
        let mut shares = Shares {
            child: Some(jailed.child),
            control,
            words: jailed.words,
            served: BTreeSet::new(),
        };
        let start = ToFs::Start {
            build: protocol::BUILD.into(),
            fuse: Descriptor(0),
        };
        shares.send(&start, Some(their_fuse.as_fd()))?;
        shares.add(mounts)?;
        Ok((shares, fuse))
    }

    /// Shares these, too. One that cannot be opened leaves all as they are, one that hull-fs refuses leaves the others.
    pub(crate) fn add(&mut self, mounts: &[Mount]) -> Result<(), Error> {
        let mut new = BTreeMap::new();
        for mount in mounts {
            if !self.served.contains(&mount.share) && !new.contains_key(&mount.share) {
                let root = detached(mount).map_err(|source| Error::Mount {
                    path: mount.path.clone(),
                    source,
                })?;
                new.insert(&mount.share, (mount, root));
            }
        }
        // Every one that is sent is answered.
        for (mount, root) in new.values() {
            let add = ToFs::Add {
                name: mount.share.clone(),
                root: Descriptor(0),
                read_only: mount.read_only,
                cache: mount.cache,
            };
            self.send(&add, Some(root.as_fd()))?;
        }
        let mut result = Ok(());
        for _ in new {
            match self.await_answer()? {
                Ok(name) => drop(self.served.insert(name)),
                Err(refusal) => result = Err(refusal),
            }
        }
        result
    }

    /// Shares no more than these. What cannot be told goes with hull-fs.
    pub(crate) fn keep(&mut self, mounts: &[&Mount]) {
        let kept: BTreeSet<&String> = mounts.iter().map(|mount| &mount.share).collect();
        let gone: Vec<String> = self
            .served
            .iter()
            .filter(|name| !kept.contains(name))
            .cloned()
            .collect();
        for name in gone {
            self.served.remove(&name);
            if let Err(error) = self.send(&ToFs::Remove { name }, None) {
                tracing::warn!(error = %chain(&error), "hull-fs is not told that a share has ended");
            }
        }
    }

    /// Leaves it to the parent of this process, of which this value is a copy.
    pub(crate) fn part(&mut self) {
        self.child = None;
    }

    /// To be polled for its end.
    pub(crate) fn end_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.child.as_ref().map(|child| child.pidfd.as_fd())
    }

    /// Why it has ended, or is ended now; `None` if that is because hull-vmm has closed its socket, as one that ends does.
    pub(crate) fn end(mut self) -> Option<String> {
        let status = self.child.take().and_then(|child| reap(&child));
        if status.is_some_and(|status| status.success()) {
            return None;
        }
        Some(self.explain())
    }

    fn explain(&self) -> String {
        match jail::explain("hull-fs", self.words.as_fd()) {
            Ok(Some(words)) => words,
            _ => "hull-fs, which serves its shared directories, ended unexpectedly".to_owned(),
        }
    }

    fn send(&self, message: &ToFs, descriptor: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let bytes = serde_json::to_vec(message).map_err(|error| Error::Talk(error.into()))?;
        sys::packet::send(&self.control, &bytes, descriptor.as_slice())
            .map_err(|error| self.gone(error))
    }

    /// The name of the share that is served, or why one is not.
    fn await_answer(&self) -> Result<Result<String, Error>, Error> {
        if !is_ready(&self.control, Instant::now() + ANSWER_TIMEOUT) {
            return Err(Error::Talk(io::ErrorKind::TimedOut.into()));
        }
        let mut buffer = [0; MAX_DOCUMENT_LEN];
        let packet = sys::packet::receive(&self.control, &mut buffer)
            .map_err(|error| self.gone(io::Error::other(error)))?;
        if packet.len == 0 {
            return Err(self.gone(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&buffer[..packet.len]) {
            Ok(FromFs::Added { name }) => Ok(Ok(name)),
            Ok(FromFs::Refused { message, .. }) => Ok(Err(Error::Refused(message))),
            Err(error) => Err(Error::Talk(error.into())),
        }
    }

    /// What it said before its end says more than that its socket is closed.
    fn gone(&self, error: io::Error) -> Error {
        match jail::explain("hull-fs", self.words.as_fd()) {
            Ok(Some(words)) => Error::Refused(words),
            _ => Error::Talk(error),
        }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            reap(&child);
        }
    }
}

/// A mount of what is at the path that has no parent, with the attributes of a share.
fn detached(mount: &Mount) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place =
        rustix::io::retry_on_intr(|| openat2(CWD, &mount.path, flags, Mode::empty(), resolve))?;
    let recursive = mount.submounts != Submounts::Hidden;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(place, "", flags)?;
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    set_attributes(&tree, attributes, recursive)?;
    if mount.read_only {
        let read_only = Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            ..Attributes::default()
        };
        set_attributes(&tree, read_only, mount.submounts == Submounts::Alike)?;
    }
    Ok(tree)
}
