//! The server as a guest's driver sees it, over real directories.

mod attributes;
mod files;
mod guest;
mod hostile;
mod leases;
mod list;
mod model;
mod mounts;
mod names;
mod owners;
mod owners_model;
mod session;
mod shares;
mod tree;
mod xattr;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use protocol::fs::Ownership;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, set_capabilities,
    set_capabilities_secure_bits,
};

use guest::Guest;

/// A share "s" of an own directory, and the guest's number of its root.
struct Shared {
    /// The share's directory is below it, so that there is something outside.
    outer: tempfile::TempDir,
    guest: Guest,
    root: u64,
}

impl Shared {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(read_only: bool) -> Self {
        let share = |guest: &Guest, path: &Path| guest.share("s", path, read_only);
        Self::begin(Ownership::Host, |_| (), share).0
    }

    /// Of a server that keeps owners in records, over what `prepare` has made, with the test's rights.
    fn recorded(prepare: impl FnOnce(&Path)) -> Self {
        let share = |guest: &Guest, path: &Path| guest.share("s", path, false);
        Self::begin(Ownership::Recorded, prepare, share).0
    }

    /// Under a lease, whose file is returned.
    fn leased() -> (Self, File) {
        let lease = |guest: &Guest, path: &Path| guest.lease("s", path);
        Self::begin(Ownership::Host, |_| (), lease)
    }

    fn begin<T>(
        ownership: Ownership,
        prepare: impl FnOnce(&Path),
        share: impl FnOnce(&Guest, &Path) -> T,
    ) -> (Self, T) {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("share")).unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        prepare(&outer.path().join("share"));
        as_in_the_jail(ownership);
        let mut guest = Guest::over(ownership);
        let shared = share(&guest, &outer.path().join("share"));
        let root = guest.lookup(1, "s").unwrap().node;
        (Self { outer, guest, root }, shared)
    }

    /// A path on the host.
    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("share").join(name)
    }
}

/// Leaves this thread the capabilities that hull-fs has, if it is root's, with which nothing happens at a change of user. One
/// that keeps records has none: root is to it the user whose files it serves.
fn as_in_the_jail(ownership: Ownership) {
    if ownership == Ownership::Recorded {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        };
        set_capabilities(None, sets).unwrap();
    } else if is_root() {
        // Fails the second time in a thread, when CAP_SETPCAP is gone.
        let _ = set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP);
        crate::confine::keep_capabilities().unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// open(2)'s flags on x86-64 (include/uapi/asm-generic/fcntl.h).
mod flags {
    pub(super) const RDONLY: i32 = 0;
    pub(super) const WRONLY: i32 = 1;
    pub(super) const RDWR: i32 = 2;
    pub(super) const CREAT: i32 = 0o100;
    pub(super) const EXCL: i32 = 0o200;
    pub(super) const TRUNC: i32 = 0o1000;
    pub(super) const APPEND: i32 = 0o2000;
    pub(super) const DIRECT: i32 = 0o40000;
    pub(super) const DIRECTORY: i32 = 0o200_000;
    pub(super) const NOFOLLOW: i32 = 0o400_000;
    pub(super) const PATH: i32 = 0o10_000_000;
}
