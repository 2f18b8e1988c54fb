//! Random changes of owners and modes that are kept in records, against what chown(2), chmod(2) and the rest do to an inode.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use rustix::io::Errno;

use super::guest::{Done, Set};
use super::{Shared, flags};
use crate::abi::fattr;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    /// By a user, with a mode.
    Create(usize, u32, u32),
    Mkdir(usize, u32, u32),
    Chown(usize, Option<u32>, Option<u32>),
    Chmod(usize, u32),
    Truncate(usize, u64),
    Link(usize, usize),
    Rename(usize, usize),
    Unlink(usize),
    /// Forgets all that is known, so that it is looked up again.
    Forget,
}

/// Root often: its files have records less often.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(77), Just(65534), 0..u32::MAX]
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let mode = || 0..0o10_000u32;
    prop_oneof![
        (name(), number(), mode()).prop_map(|(at, user, mode)| Step::Create(at, user, mode)),
        (name(), number(), mode()).prop_map(|(at, user, mode)| Step::Mkdir(at, user, mode)),
        (
            name(),
            prop::option::of(number()),
            prop::option::of(number())
        )
            .prop_map(|(at, user, group)| Step::Chown(at, user, group)),
        (name(), mode()).prop_map(|(at, mode)| Step::Chmod(at, mode)),
        (name(), 0..9u64).prop_map(|(at, size)| Step::Truncate(at, size)),
        (name(), name()).prop_map(|(from, to)| Step::Link(from, to)),
        (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        name().prop_map(Step::Unlink),
        Just(Step::Forget),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    is_directory: bool,
    uid: u32,
    gid: u32,
    mode: u32,
}

/// Names, and what has them.
#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<usize, usize>,
    inodes: Vec<Inode>,
}

impl Model {
    fn make(&mut self, at: usize, inode: Inode) -> Done<()> {
        if self.names.contains_key(&at) {
            return Err(Errno::EXIST);
        }
        self.inodes.push(inode);
        self.names.insert(at, self.inodes.len() - 1);
        Ok(())
    }

    fn number(&self, at: usize) -> Done<usize> {
        self.names.get(&at).copied().ok_or(Errno::NOENT)
    }

    fn inode(&mut self, at: usize) -> Done<&mut Inode> {
        let number = self.number(at)?;
        Ok(&mut self.inodes[number])
    }

    fn apply(&mut self, step: &Step) -> Done<()> {
        let made = |is_directory, user, mode| Inode {
            is_directory,
            uid: user,
            gid: user,
            mode,
        };
        match *step {
            Step::Create(at, user, mode) => self.make(at, made(false, user, mode))?,
            Step::Mkdir(at, user, mode) => self.make(at, made(true, user, mode))?,
            Step::Chown(at, user, group) => {
                let inode = self.inode(at)?;
                inode.uid = user.unwrap_or(inode.uid);
                inode.gid = group.unwrap_or(inode.gid);
                if (user, group) != (None, None) {
                    inode.lose_set_ids();
                }
            }
            Step::Chmod(at, mode) => self.inode(at)?.mode = mode,
            Step::Truncate(at, _) => {
                let inode = self.inode(at)?;
                if inode.is_directory {
                    return Err(Errno::ISDIR);
                }
                inode.lose_set_ids();
            }
            Step::Link(from, to) => {
                let number = self.number(from)?;
                if self.names.contains_key(&to) {
                    return Err(Errno::EXIST);
                }
                if self.inodes[number].is_directory {
                    return Err(Errno::PERM);
                }
                self.names.insert(to, number);
            }
            Step::Rename(from, to) => {
                let number = self.number(from)?;
                let replaced = self.number(to).ok();
                if replaced == Some(number) {
                    return Ok(());
                }
                if let Some(replaced) = replaced {
                    let [old, new] = [replaced, number].map(|n| self.inodes[n].is_directory);
                    match (new, old) {
                        (true, false) => return Err(Errno::NOTDIR),
                        (false, true) => return Err(Errno::ISDIR),
                        _ => {}
                    }
                }
                self.names.remove(&from);
                self.names.insert(to, number);
            }
            Step::Unlink(at) => {
                if self.inode(at)?.is_directory {
                    return Err(Errno::ISDIR);
                }
                self.names.remove(&at);
            }
            Step::Forget => {}
        }
        Ok(())
    }
}

impl Inode {
    fn lose_set_ids(&mut self) {
        if !self.is_directory {
            let group = if self.mode & 0o010 != 0 { 0o2000 } else { 0 };
            self.mode &= !(0o4000 | group);
        }
    }
}

impl Shared {
    fn set_of(&mut self, at: usize, set: Set) -> Done<()> {
        let node = self.guest.lookup(self.root, NAMES[at])?.node;
        self.guest.setattr(node, set).map(drop)
    }

    fn change_owner(&mut self, step: &Step) -> Done<()> {
        let root = self.root;
        match *step {
            Step::Create(at, user, mode) => {
                (self.guest.uid, self.guest.gid) = (user, user);
                let how = flags::RDWR | flags::CREAT | flags::EXCL;
                let (entry, open) = self.guest.create(root, NAMES[at], how, mode)?;
                self.guest.release(entry.node, open.fh)
            }
            Step::Mkdir(at, user, mode) => {
                (self.guest.uid, self.guest.gid) = (user, user);
                self.guest.mkdir(root, NAMES[at], mode).map(drop)
            }
            Step::Chown(at, user, group) => {
                let bit = |number: Option<u32>, bit| number.map_or(0, |_| bit);
                let set = Set {
                    valid: bit(user, fattr::UID) | bit(group, fattr::GID),
                    ..Set::owner(user.unwrap_or(0), group.unwrap_or(0))
                };
                self.set_of(at, set)
            }
            Step::Chmod(at, mode) => self.set_of(at, Set::mode(mode)),
            Step::Truncate(at, size) => self.set_of(at, Set::size(size)),
            Step::Link(from, to) => {
                let node = self.guest.lookup(root, NAMES[from])?.node;
                self.guest.link(node, root, NAMES[to]).map(drop)
            }
            Step::Rename(from, to) => self.guest.rename((root, NAMES[from]), (root, NAMES[to]), 0),
            Step::Unlink(at) => self.guest.unlink(root, NAMES[at]),
            Step::Forget => {
                self.guest.server.nodes.clear();
                self.root = self.guest.lookup(1, "s")?.node;
                Ok(())
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn owners_in_records_are_what_a_file_system_keeps(steps in prop::collection::vec(step(), 1..60)) {
        let mut shared = Shared::recorded(|_| ());
        let mut model = Model::default();
        let server = rustix::process::geteuid().as_raw();
        for step in &steps {
            let done = shared.change_owner(step);
            prop_assert_eq!(done, model.apply(step), "{:?}", step);
            for (at, name) in NAMES.into_iter().enumerate() {
                let told = shared.guest.lookup(shared.root, name).map(|entry| entry.attr);
                let told = told.map(|attr| Inode {
                    is_directory: attr.mode & 0o170_000 == 0o040_000,
                    uid: attr.uid,
                    gid: attr.gid,
                    mode: attr.mode & 0o7777,
                });
                prop_assert_eq!(told, model.inode(at).map(|inode| *inode), "{} after {:?}", name, step);
                if let Ok(meta) = fs::symlink_metadata(shared.path(name)) {
                    let needed = if meta.is_dir() { 0o700 } else { 0o600 };
                    prop_assert_eq!((meta.uid(), meta.mode() & (0o7000 | needed)), (server, needed));
                }
            }
        }
    }
}
