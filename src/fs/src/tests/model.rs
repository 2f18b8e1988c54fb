//! Random operations against a plain directory: what the guest does to a share, done to another directory with the standard
//! library, ends in the same tree, with the same errors on the way.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::guest::{Done, Set};
use super::tree::Tree;
use super::{Shared, flags};

/// Few names, so that operations meet.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A name in the root, or below another of these names.
type Place = (Option<usize>, usize);

#[derive(Debug, Clone)]
enum Step {
    Create(Place, bool),
    Write(Place, u16, u8),
    Mkdir(Place),
    Symlink(Place, usize),
    Link(Place, Place),
    Unlink(Place),
    Rmdir(Place),
    Rename(Place, Place, u32),
    Truncate(Place, u16),
    Chmod(Place, u32),
    List(Option<usize>),
    /// Forgets all that is known, so that it is looked up again.
    Forget,
}

fn place() -> impl Strategy<Value = Place> {
    (prop::option::of(0..NAMES.len()), 0..NAMES.len())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (place(), any::<bool>()).prop_map(|(at, exclusive)| Step::Create(at, exclusive)),
        2 => (place(), 0..300u16, any::<u8>()).prop_map(|(at, to, byte)| Step::Write(at, to, byte)),
        3 => place().prop_map(Step::Mkdir),
        1 => (place(), 0..NAMES.len()).prop_map(|(at, target)| Step::Symlink(at, target)),
        2 => (place(), place()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => place().prop_map(Step::Unlink),
        1 => place().prop_map(Step::Rmdir),
        4 => (place(), place(), 0..3u32).prop_map(|(from, to, how)| Step::Rename(from, to, how)),
        1 => (place(), 0..300u16).prop_map(|(at, size)| Step::Truncate(at, size)),
        1 => (place(), 0..0o1000u32).prop_map(|(at, mode)| Step::Chmod(at, mode | 0o700)),
        1 => prop::option::of(0..NAMES.len()).prop_map(Step::List),
        1 => Just(Step::Forget),
    ]
}

/// The model's directory.
struct Model(tempfile::TempDir);

impl Model {
    /// The path, if its directory is one: the guest's kernel follows links before it asks, so that the model must not either.
    fn path(&self, (parent, name): Place) -> io::Result<PathBuf> {
        Ok(self.directory(parent)?.join(NAMES[name]))
    }

    fn directory(&self, parent: Option<usize>) -> io::Result<PathBuf> {
        let root = self.0.path().to_owned();
        let Some(parent) = parent else {
            return Ok(root);
        };
        let path = root.join(NAMES[parent]);
        if fs::symlink_metadata(&path)?.is_dir() {
            Ok(path)
        } else {
            Err(Errno::NOTDIR.into())
        }
    }

    fn apply(&self, step: &Step) -> io::Result<()> {
        match *step {
            Step::Create(at, exclusive) => create(&self.path(at)?, exclusive),
            Step::Write(at, to, byte) => write(&self.path(at)?, to, byte),
            Step::Mkdir(at) => {
                fs::create_dir(self.path(at)?)?;
                fs::set_permissions(self.path(at)?, PermissionsExt::from_mode(0o755))
            }
            Step::Symlink(at, target) => symlink(NAMES[target], self.path(at)?),
            Step::Link(from, to) => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                fs::symlink_metadata(&from)?;
                fs::hard_link(from, to)
            }
            Step::Unlink(at) => fs::remove_file(self.path(at)?),
            Step::Rmdir(at) => fs::remove_dir(self.path(at)?),
            Step::Rename(from, to, how) => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                let flags = RenameFlags::from_bits_retain(how);
                Ok(renameat_with(CWD, from, CWD, to, flags)?)
            }
            Step::Truncate(at, size) => {
                let path = self.path(at)?;
                let mut options = fs::OpenOptions::new();
                options
                    .write(true)
                    .open(regular(&path)?)?
                    .set_len(size.into())
            }
            Step::Chmod(at, mode) => {
                let path = self.path(at)?;
                if fs::symlink_metadata(&path)?.is_symlink() {
                    return Err(Errno::OPNOTSUPP.into());
                }
                fs::set_permissions(path, PermissionsExt::from_mode(mode))
            }
            Step::List(_) | Step::Forget => Ok(()),
        }
    }

    fn names(&self, parent: Option<usize>) -> io::Result<Vec<String>> {
        let mut names = vec![".".to_owned(), "..".to_owned()];
        for entry in fs::read_dir(self.directory(parent)?)? {
            names.push(entry?.file_name().into_string().unwrap());
        }
        names.sort();
        Ok(names)
    }
}

fn create(path: &Path, exclusive: bool) -> io::Result<()> {
    if !exclusive && let Ok(meta) = fs::symlink_metadata(path) {
        if meta.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        if meta.is_symlink() {
            return Err(Errno::LOOP.into());
        }
    }
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o644);
    options.create_new(exclusive).open(path).map(drop)
}

/// What the server opens: a regular file and nothing else.
fn regular(path: &Path) -> io::Result<&Path> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_file() {
        Ok(path)
    } else if meta.is_dir() {
        Err(Errno::ISDIR.into())
    } else {
        Err(Errno::INVAL.into())
    }
}

fn write(path: &Path, to: u16, byte: u8) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(Errno::LOOP.into());
    }
    let mut file = fs::OpenOptions::new().write(true).open(regular(path)?)?;
    file.seek(SeekFrom::Start(to.into()))?;
    file.write_all(&[byte])
}

impl Shared {
    /// A directory's node, as the guest's kernel finds it: it does not look into what is none.
    fn directory(&mut self, parent: Option<usize>) -> Done<u64> {
        let Some(parent) = parent else {
            return Ok(self.root);
        };
        let entry = self.guest.lookup(self.root, NAMES[parent])?;
        if entry.attr.mode & 0o170_000 == 0o040_000 {
            Ok(entry.node)
        } else {
            Err(Errno::NOTDIR)
        }
    }

    fn at(&mut self, (parent, name): Place) -> Done<(u64, &'static str)> {
        Ok((self.directory(parent)?, NAMES[name]))
    }

    fn found(&mut self, place: Place) -> Done<u64> {
        let (parent, name) = self.at(place)?;
        Ok(self.guest.lookup(parent, name)?.node)
    }

    fn apply(&mut self, step: &Step) -> Done<()> {
        match *step {
            Step::Create(at, exclusive) => {
                let (parent, name) = self.at(at)?;
                let exclusive = if exclusive { flags::EXCL } else { 0 };
                let how = flags::RDWR | flags::CREAT | exclusive;
                let (entry, open) = self.guest.create(parent, name, how, 0o644)?;
                self.guest.release(entry.node, open.fh)
            }
            Step::Write(at, to, byte) => {
                let node = self.found(at)?;
                let mut open = self.guest.open(node, flags::WRONLY)?;
                open.file.seek(SeekFrom::Start(to.into())).unwrap();
                open.file.write_all(&[byte]).unwrap();
                self.guest.release(node, open.fh)
            }
            Step::Mkdir(at) => {
                let (parent, name) = self.at(at)?;
                self.guest.mkdir(parent, name, 0o755).map(drop)
            }
            Step::Symlink(at, target) => {
                let (parent, name) = self.at(at)?;
                self.guest.symlink(parent, name, NAMES[target]).map(drop)
            }
            Step::Link(from, to) => {
                let (old_parent, old_name) = self.at(from)?;
                let (parent, name) = self.at(to)?;
                let node = self.guest.lookup(old_parent, old_name)?.node;
                self.guest.link(node, parent, name).map(drop)
            }
            Step::Unlink(at) => {
                let (parent, name) = self.at(at)?;
                self.guest.unlink(parent, name)
            }
            Step::Rmdir(at) => {
                let (parent, name) = self.at(at)?;
                self.guest.rmdir(parent, name)
            }
            Step::Rename(from, to, how) => {
                let from = self.at(from)?;
                let to = self.at(to)?;
                self.guest.rename(from, to, how)
            }
            Step::Truncate(at, size) => {
                let node = self.found(at)?;
                self.guest.setattr(node, Set::size(size.into())).map(drop)
            }
            Step::Chmod(at, mode) => {
                let node = self.found(at)?;
                self.guest.setattr(node, Set::mode(mode)).map(drop)
            }
            Step::List(_) => Ok(()),
            Step::Forget => {
                self.guest.server.nodes.clear();
                self.root = self.guest.lookup(1, "s")?.node;
                Ok(())
            }
        }
    }

    fn names(&mut self, parent: Option<usize>, plus: bool) -> Done<Vec<String>> {
        let node = self.directory(parent)?;
        let entries = self.guest.list(node, plus)?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_share_is_what_a_plain_directory_is(steps in prop::collection::vec(step(), 1..80)) {
        let mut shared = Shared::new();
        let model = Model(tempfile::tempdir().unwrap());
        for step in &steps {
            if let Step::List(parent) = *step {
                for plus in [false, true] {
                    let told = shared.names(parent, plus);
                    let expected = model.names(parent).map_err(errno);
                    prop_assert_eq!(told, expected, "{:?}", step);
                }
                continue;
            }
            let done = shared.apply(step);
            let expected = model.apply(step).map_err(errno);
            prop_assert_eq!(done, expected, "{:?}", step);
        }
        prop_assert_eq!(Tree::of(&shared.path("")), Tree::of(model.0.path()));
        let secret = fs::read_to_string(shared.outer.path().join("secret"));
        prop_assert_eq!(secret.unwrap(), "outside");
        prop_assert_eq!(shared.guest.server.handles.count(), 0);
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap()
}
