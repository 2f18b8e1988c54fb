//! Users that belong to one VM each, where hull runs as root.
//!
//! They are numbers of a range in which no distribution and no system service gives out any (systemd's table of user ids
//! calls 1879048192 to 2147483647 unused), taken two by two: one for hull-vmm, one for its monitor. A pair is taken by
//! a lock on a byte of [`FILE`], so that it is free again when the last process that holds it ends, however that ends.
//! (hull-vmm itself does not hold it: it dies with its monitor and executes nothing after that.)

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The first user of the range.
pub const FIRST: u32 = 2_000_000_000;
/// Pairs of users in the range.
pub const PAIRS: u32 = 32_768;

/// Where the pairs in use are locked.
const FOLDER: &str = "/run/hull";
const FILE: &str = "/run/hull/users";

/// Why there is no user for a VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of locks.
    #[error("cannot use {FILE}, where the users of VMs are taken")]
    File(#[source] io::Error),
    /// Every pair is in use.
    #[error("all {PAIRS} users for VMs are in use")]
    None,
}

/// A pair of users, this VM's until the value and its copies in other processes are gone.
#[derive(Debug)]
pub struct Users {
    number: u32,
    /// The lock is on this.
    file: File,
}

impl Users {
    /// hull-vmm's user; its group has the same number.
    pub fn vmm(&self) -> u32 {
        FIRST + 2 * self.number
    }

    /// What a process holds that has this pair and outlives the caller.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The monitor's.
    pub fn monitor(&self) -> u32 {
        self.vmm() + 1
    }
}

/// Takes a pair. `None` where this root, one of a user namespace, does not have the range.
pub(crate) fn take() -> Result<Option<Users>, Error> {
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(Error::File)?;
    if !is_mapped(&map) {
        return Ok(None);
    }
    match DirBuilder::new().mode(0o755).create(FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::File(error));
        }
        _ => {}
    }
    take_from(Path::new(FILE)).map(Some)
}

/// Whether the range is among the users of this namespace (user_namespaces(7)): each line has a first number inside, one
/// outside, and a count.
fn is_mapped(map: &str) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse().ok());
        let (Some(Some(inside)), _, Some(Some(count))) =
            (fields.next(), fields.next(), fields.next())
        else {
            return false;
        };
        let (inside, count): (u64, u64) = (inside, count);
        let (first, end) = (u64::from(FIRST), u64::from(FIRST + 2 * PAIRS));
        inside <= first && end <= inside + count
    })
}

fn take_from(path: &Path) -> Result<Users, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let file = sys::trusted::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(Error::File)?;
    // Somewhere, so that a number that was given back is used again as late as possible.
    let mut start = [0; 4];
    sys::random::fill(&mut start).map_err(Error::File)?;
    let start = u32::from_ne_bytes(start) % PAIRS;
    for number in (start..PAIRS).chain(0..start) {
        if sys::range_lock::try_lock(&file, number.into()).map_err(Error::File)? {
            return Ok(Users { number, file });
        }
    }
    Err(Error::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_one_vms() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let all: Vec<_> = (0..50).map(|_| take_from(&path).unwrap()).collect();
        let mut users: Vec<_> = all.iter().flat_map(|u| [u.vmm(), u.monitor()]).collect();
        users.sort_unstable();
        users.dedup();
        assert_eq!(users.len(), 100);
        assert!(users[0] >= FIRST && users[99] < FIRST + 2 * PAIRS);
    }

    #[test]
    fn the_range_is_looked_for_in_the_namespace() {
        assert!(is_mapped("         0          0 4294967295\n"));
        assert!(!is_mapped("0 1000 1\n1 100000 65536\n"));
        assert!(!is_mapped("gibberish"));
    }
}
