//! hull-fs, which shows directories of the host's to the guest: its process, and the mounts that it is given.
//!
//! ```text
//! warden: start --fork--> in the jail, with one end of a socketpair to hull-vmm; the other goes to hull-vmm (ServeFs)
//!         add   --------> the path opened without a symlink, cloned as a detached mount, its attributes set; of a volume
//!                         also its part in the volume's lease
//!         renew, now and then: a volume that is this VM's alone again may be remembered again
//! ```
//!
//! Invariants: what hull-fs is given is a mount of its own without a parent, so that no `..` leads out of it; a read-only share
//! is mounted so. It ends when its socket is closed or the warden dies; a VM does not outlive it (lifecycle H26). A share of a
//! volume takes part in its lease before hull-fs has it, and is not used before what other guests know is forgotten (H27).
//! An ordinary user's mounts are made in a user namespace, and owners that a guest sets are kept beside the files (see hull-fs).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::fs::{Cache, Descriptor, FromFs, MAX_DOCUMENT_LEN, Ownership, ToFs};
use protocol::record::{Mount, Submounts};
use sys::fork::Child;
use sys::mount::{AsUserError, Attributes, Tree};

use crate::lease::{self, Joined, Lease};
use crate::process::{is_ready, reap};
use crate::{chain, jail};

/// How long hull-fs may take to answer: it only looks at what it is given. A file server that does not answer takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked whether volumes are this VM's alone again.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// Why directories cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The host forbids user namespaces, without which an ordinary user can make no mount.
    #[error("{}", jail::NO_SHARES)]
    UserNamespaces(#[source] io::Error),
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
        source: AsUserError,
    },
    /// Where hull keeps its state.
    #[error("cannot look at {path}, where hull keeps its state")]
    Root {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lease of the volume that the path lies in.
    #[error("cannot use the lease of the volume at {folder}")]
    Lease {
        /// The volume's folder.
        folder: PathBuf,
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
    /// Where hull keeps its state, without symlinks: volumes lie in it.
    root: PathBuf,
    /// The shares that it serves by name, each with the lease by which its guest may remember.
    served: BTreeMap<String, Option<Lease>>,
    /// When other guests remember nothing more of volumes among them.
    forgotten: Option<Instant>,
    /// When leases are looked at again.
    renewal: Instant,
}

/// A share that hull-fs is about to get.
struct New<'a> {
    mount: &'a Mount,
    root: OwnedFd,
    /// Of a volume.
    joined: Option<Joined>,
}

impl Shares {
    /// Starts a hull-fs with these shares. Returns it with hull-vmm's end of its socket.
    pub(crate) fn start(
        program: Option<&Path>,
        root: &Path,
        cgroup: Option<BorrowedFd<'_>>,
        mounts: &[Mount],
    ) -> Result<(Shares, OwnedFd), Error> {
        let program = program.ok_or(Error::NoProgram)?;
        let root = real(root)?;
        let (control, their_control) = sys::packet::pair().map_err(Error::Talk)?;
        let (fuse, their_fuse) = sys::packet::pair().map_err(Error::Talk)?;
        let jailed = jail::spawn_fs(program, their_control, cgroup)?;
        let mut shares = Shares {
            child: Some(jailed.child),
            control,
            words: jailed.words,
            root,
            served: BTreeMap::new(),
            forgotten: None,
            renewal: Instant::now() + RENEWAL_INTERVAL,
        };
        let start = ToFs::Start {
            build: protocol::BUILD.into(),
            fuse: Descriptor(0),
            ownership: match rustix::process::geteuid().is_root() {
                true => Ownership::Host,
                false => Ownership::Recorded,
            },
        };
        shares.send(&start, &[their_fuse.as_fd()])?;
        shares.add(mounts)?;
        Ok((shares, fuse))
    }

    /// Shares these, too. One that cannot be opened leaves all as they are, one that hull-fs refuses leaves the others. They are
    /// not to be used before [`Shares::wait`] has returned.
    pub(crate) fn add(&mut self, mounts: &[Mount]) -> Result<(), Error> {
        let mut new = BTreeMap::new();
        for mount in mounts {
            if !self.served.contains_key(&mount.share) && !new.contains_key(&mount.share) {
                let root = detached(mount)?;
                let joined = join(&self.root, mount, mount.cache == Cache::Exclusive)?;
                let share = New {
                    mount,
                    root,
                    joined,
                };
                new.insert(mount.share.clone(), share);
            }
        }
        // Every one that is sent is answered.
        for (name, share) in &new {
            let mut descriptors = vec![share.root.as_fd()];
            let lease = share.joined.as_ref().map(|joined| {
                descriptors.push(joined.lock.as_fd());
                Descriptor(1)
            });
            let add = ToFs::Add {
                name: name.clone(),
                root: Descriptor(0),
                read_only: share.mount.read_only,
                lease,
            };
            self.send(&add, &descriptors)?;
        }
        let mut result = Ok(());
        for _ in 0..new.len() {
            match self.await_answer()? {
                Ok(name) => {
                    let share = new.remove(&name);
                    let may_remember = share
                        .as_ref()
                        .is_some_and(|share| share.mount.cache == Cache::Exclusive);
                    let joined = share.and_then(|share| share.joined);
                    let forgotten = joined.as_ref().map(|joined| joined.forgotten);
                    self.forgotten = self.forgotten.max(forgotten);
                    let lease = joined.map(|joined| joined.lease).filter(|_| may_remember);
                    self.served.insert(name, lease);
                }
                Err(refusal) => result = Err(refusal),
            }
        }
        result
    }

    /// Waits until no other guest remembers anything of the volumes among the shares. The VM may run meanwhile, so that this
    /// comes after what it cannot wait for.
    pub(crate) fn wait(&self) {
        wait_until(self.forgotten);
    }

    /// How long until [`Shares::renew`] has something to do; `None` if it never has.
    pub(crate) fn next_renewal(&self) -> Option<Duration> {
        let has_leases = self.served.values().any(Option::is_some);
        has_leases.then(|| self.renewal.saturating_duration_since(Instant::now()))
    }

    /// When it is time: lets the guest remember again of volumes that no one else uses any more.
    pub(crate) fn renew(&mut self) {
        if Instant::now() < self.renewal {
            return;
        }
        self.renewal = Instant::now() + RENEWAL_INTERVAL;
        for (name, lease) in &self.served {
            if let Some(Err(error)) = lease.as_ref().map(Lease::renew) {
                tracing::debug!(%error, name, "a volume's lease was not renewed: its guest remembers nothing");
            }
        }
    }

    /// Shares no more than these. What cannot be told goes with hull-fs.
    pub(crate) fn keep(&mut self, mounts: &[&Mount]) {
        let kept: BTreeSet<&String> = mounts.iter().map(|mount| &mount.share).collect();
        let gone: Vec<String> = self
            .served
            .keys()
            .filter(|name| !kept.contains(name))
            .cloned()
            .collect();
        for name in gone {
            self.served.remove(&name);
            if let Err(error) = self.send(&ToFs::Remove { name }, &[]) {
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

    fn send(&self, message: &ToFs, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = serde_json::to_vec(message).map_err(|error| Error::Talk(error.into()))?;
        sys::packet::send(&self.control, &bytes, descriptors).map_err(|error| self.gone(error))
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

/// Where native containers use volumes: other guests are told nothing more that they may remember of these until the value is
/// dropped.
#[derive(Debug)]
pub(crate) struct NativeUse {
    _locks: Vec<OwnedFd>,
}

impl NativeUse {
    /// Begins, when no guest remembers anything of the volumes among the mounts.
    pub(crate) fn begin(root: &Path, mounts: &[Mount]) -> Result<NativeUse, Error> {
        let root = real(root)?;
        let mut joined = Vec::new();
        for mount in mounts {
            joined.extend(join(&root, mount, false)?);
        }
        wait_until(joined.iter().map(|joined| joined.forgotten).max());
        Ok(NativeUse {
            _locks: joined.into_iter().map(|joined| joined.lock).collect(),
        })
    }
}

/// Takes part in the lease of the volume that a mount lies in, if it does.
fn join(root: &Path, mount: &Mount, may_remember: bool) -> Result<Option<Joined>, Error> {
    let Some(folder) = lease::volume_of(root, &mount.path) else {
        return Ok(None);
    };
    match Lease::join(&folder, may_remember) {
        Ok(joined) => Ok(Some(joined)),
        Err(source) => Err(Error::Lease { folder, source }),
    }
}

fn wait_until(time: Option<Instant>) {
    if let Some(time) = time {
        std::thread::sleep(time.saturating_duration_since(Instant::now()));
    }
}

fn real(root: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(root).map_err(|source| Error::Root {
        path: root.to_owned(),
        source,
    })
}

/// A mount of what is at the path that has no parent, with the attributes of a share.
fn detached(mount: &Mount) -> Result<OwnedFd, Error> {
    let recursive = mount.submounts != Submounts::Hidden;
    let inert = Attributes {
        set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    let read_only = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    let changes = [
        (inert, recursive),
        (read_only, mount.submounts == Submounts::Alike),
    ];
    let tree = Tree {
        path: &mount.path,
        recursive,
        changes: if mount.read_only {
            &changes
        } else {
            &changes[..1]
        },
    };
    let made = match rustix::process::geteuid().is_root() {
        true => sys::mount::detached(tree).map_err(AsUserError::Other),
        false => sys::mount::detached_as_user(tree),
    };
    made.map_err(|error| match error {
        AsUserError::UserNamespaces(source) => Error::UserNamespaces(source),
        source => Error::Mount {
            path: mount.path.clone(),
            source,
        },
    })
}
