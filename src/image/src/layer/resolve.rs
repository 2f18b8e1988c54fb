//! Paths in a layer's root. Symlinks in the place of a path's directories are followed, as by a
//! runtime that unpacks the layer over those below it: symlinks of this layer, and of the layers
//! below where this one has nothing at their place. `/` in a target is the layer's root and `..`
//! ends there, so no path leads out of it.

use std::io::{Seek, Write};

use crate::erofs::{Inode, InodeId, Kind, Metadata, NodeKind, Tree};

use super::Error;
use super::builder::{Builder, WHITEOUT, implied_directory, refused};
use super::path::{MAX_PATH, Problem, is_valid_name};
use super::tar::Entry;
use super::whiteouts::OPAQUE_XATTR;

/// The most symlinks that one path leads through; Linux has the same bound (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;
/// The most names of one path, those of its symlinks' targets included: bounds the time that an
/// entry costs.
const MAX_STEPS: usize = MAX_PATH;

/// A path on its way from the root, without symlinks so far.
#[derive(Debug)]
pub(super) struct Walk {
    passed: Vec<Level>,
    passed_bytes: usize,
    /// The next name last.
    pending: Vec<Box<[u8]>>,
    symlinks: usize,
    steps: usize,
}

/// A directory that a path leads through.
#[derive(Debug)]
struct Level {
    name: Box<[u8]>,
    /// In this layer, if it has it.
    dir: Option<InodeId>,
    /// This layer hides what the lower ones have here.
    hides: bool,
}

/// What is at a name of a directory.
enum Found {
    /// A directory of this layer.
    Directory(InodeId),
    /// A directory of a lower layer only.
    LowerDirectory(Metadata),
    Symlink(Box<[u8]>),
    /// Something of this layer that leads nowhere.
    Other,
    /// Nothing, or something of a lower layer that leads nowhere.
    Nothing,
}

impl Walk {
    fn new(path: &[&[u8]]) -> Walk {
        Walk {
            passed: Vec::new(),
            passed_bytes: 0,
            pending: path.iter().rev().map(|&name| name.into()).collect(),
            symlinks: 0,
            steps: 0,
        }
    }

    /// The directory reached, if this layer has it.
    pub(super) fn dir(&self) -> Option<InodeId> {
        self.passed
            .last()
            .map_or(Some(Tree::ROOT), |level| level.dir)
    }

    /// Whether this layer hides what the lower ones have at the directory reached.
    pub(super) fn hides(&self) -> bool {
        self.passed.last().is_some_and(|level| level.hides)
    }

    /// The names from the root to `name` in the directory reached.
    pub(super) fn path_to<'a>(&'a self, name: &'a [u8]) -> Vec<&'a [u8]> {
        let passed = self.passed.iter().map(|level| &*level.name);
        passed.chain([name]).collect()
    }

    /// The next name to look up; `..` is taken here.
    fn next(&mut self) -> Result<Option<Box<[u8]>>, Problem> {
        while let Some(name) = self.pending.pop() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Problem::Symlinks);
            }
            if *name != *b".." {
                return Ok(Some(name));
            }
            if let Some(level) = self.passed.pop() {
                self.passed_bytes -= level.name.len() + 1;
            }
        }
        Ok(None)
    }

    fn enter(&mut self, name: Box<[u8]>, dir: Option<InodeId>, hides: bool) -> Result<(), Problem> {
        self.passed_bytes += name.len() + 1;
        if self.passed_bytes > MAX_PATH {
            return Err(Problem::Path);
        }
        self.passed.push(Level { name, dir, hides });
        Ok(())
    }

    /// Takes the names of a symlink's target before those that are left.
    fn follow(&mut self, target: &[u8]) -> Result<(), Problem> {
        self.symlinks += 1;
        if self.symlinks > MAX_SYMLINKS {
            return Err(Problem::Symlinks);
        }
        if target.starts_with(b"/") {
            self.passed.clear();
            self.passed_bytes = 0;
        }
        for name in target.rsplit(|&byte| byte == b'/') {
            if matches!(name, b"" | b".") {
                continue;
            }
            if !is_valid_name(name) {
                return Err(Problem::Path);
            }
            if name.starts_with(WHITEOUT) {
                return Err(Problem::Whiteout);
            }
            self.pending.push(name.into());
        }
        Ok(())
    }
}

impl<W: Write + Seek> Builder<'_, W> {
    /// The directory at a path, made with its parents where the layer has not named them.
    pub(super) fn directory(&mut self, path: &[&[u8]], entry: &Entry) -> Result<InodeId, Error> {
        let problem = |problem| refused(entry, problem);
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next().map_err(problem)? {
            let (found, hides) = self.look(&walk, &name)?;
            let dir = match found {
                Found::Directory(dir) => dir,
                Found::Symlink(target) => {
                    walk.follow(&target).map_err(problem)?;
                    continue;
                }
                Found::LowerDirectory(metadata) => self.make(&walk, &name, metadata)?,
                Found::Nothing => self.make(&walk, &name, implied_directory())?,
                Found::Other => return Err(problem(Problem::ThroughNonDirectory)),
            };
            walk.enter(name, Some(dir), hides).map_err(problem)?;
        }
        Ok(walk.dir().expect("every directory of the path is made"))
    }

    /// Where a path leads, with nothing made: `None` if one of its directories is not there.
    pub(super) fn locate(&mut self, path: &[&[u8]], entry: &Entry) -> Result<Option<Walk>, Error> {
        let problem = |problem| refused(entry, problem);
        let mut walk = Walk::new(path);
        while let Some(name) = walk.next().map_err(problem)? {
            let (found, hides) = self.look(&walk, &name)?;
            match found {
                Found::Directory(dir) => walk.enter(name, Some(dir), hides),
                Found::LowerDirectory(_) => walk.enter(name, None, hides),
                Found::Symlink(target) => walk.follow(&target),
                Found::Nothing | Found::Other => return Ok(None),
            }
            .map_err(problem)?;
        }
        Ok(Some(walk))
    }

    /// What is at a name of the directory reached, and whether this layer hides lower layers there.
    fn look(&mut self, walk: &Walk, name: &[u8]) -> Result<(Found, bool), Error> {
        let mut hides = walk.hides();
        if let Some(dir) = walk.dir() {
            hides |= self.hides(dir, name);
            if let Some(id) = self.tree.child(dir, name) {
                let found = match &self.tree.inode(id).kind {
                    Kind::Directory(_) => Found::Directory(id),
                    Kind::Symlink(target) => Found::Symlink(target.clone()),
                    _ => Found::Other,
                };
                return Ok((found, hides));
            }
        }
        match hides {
            true => Ok((Found::Nothing, true)),
            false => Ok((self.look_below(&walk.path_to(name))?, false)),
        }
    }

    /// What the lower layers have at a path without symlinks.
    fn look_below(&mut self, path: &[&[u8]]) -> Result<Found, Error> {
        self.depends_on_lower = true;
        let key = path.join(&b'/');
        if let Some(target) = self.lower_symlinks.get(&key) {
            return Ok(Found::Symlink(target.clone()));
        }
        let Some((reader, node)) = self.lower.find(path)? else {
            return Ok(Found::Nothing);
        };
        match node.kind {
            NodeKind::Directory => {
                let mut metadata = node.metadata;
                metadata.xattrs.remove(OPAQUE_XATTR);
                Ok(Found::LowerDirectory(metadata))
            }
            NodeKind::Symlink => {
                let target: Box<[u8]> = reader.read_link(&node)?.into();
                self.charge(key.len() + target.len())?;
                self.lower_symlinks.insert(key, target.clone());
                Ok(Found::Symlink(target))
            }
            _ => Ok(Found::Nothing),
        }
    }

    /// Makes a directory that the layer implies.
    fn make(&mut self, walk: &Walk, name: &[u8], metadata: Metadata) -> Result<InodeId, Error> {
        self.charge(name.len() + metadata.xattrs.size())?;
        let id = self.tree.add(Inode {
            metadata,
            kind: Kind::Directory(Default::default()),
        });
        let parent = walk.dir().expect("the parents are made first");
        self.tree.link(parent, name, id);
        Ok(id)
    }
}
