//! A directory that is read.
//!
//! Invariants: it is read as it is asked for, never as a whole; what the host has given and the guest has not taken yet is kept
//! and continued with, so that entries which go away meanwhile make none of the others be left out, even where a file system
//! counts its positions. A guest that goes back, or elsewhere, is followed with lseek(2).

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};

use crate::Result;
use crate::node::Node;

/// Bytes of entries that are read from the host at once, as much as a guest takes: 170 of the shortest names, which take some
/// 16 KiB here.
const BUFFER_BYTES: usize = 4 << 10;

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: CString,
    pub(crate) inode: u64,
    pub(crate) kind: FileType,
    /// Where the next one is.
    pub(crate) next: u64,
}

/// A directory and how far it was read.
#[derive(Debug)]
pub(crate) enum Stream {
    /// The root: all of it as it was when it was opened. Positions are indices.
    Root(Vec<Entry>),
    /// The host's.
    Host(HostStream),
}

/// A directory of the host's.
#[derive(Debug)]
pub(crate) struct HostStream {
    /// The node, for what is looked up in it.
    pub(crate) node: Arc<Node>,
    pub(crate) directory: OwnedFd,
    /// Read and not taken.
    waiting: VecDeque<Entry>,
    /// The position of the first that waits, or of what is to be read next.
    position: u64,
}

impl HostStream {
    pub(crate) fn new(node: Arc<Node>, directory: OwnedFd) -> Self {
        Self {
            node,
            directory,
            waiting: VecDeque::new(),
            position: 0,
        }
    }
}

impl Stream {
    /// Goes to a position that an entry named, or 0.
    pub(crate) fn go_to(&mut self, position: u64) -> Result<()> {
        if let Self::Host(host) = self
            && host.position != position
        {
            seek(&host.directory, SeekFrom::Start(position))?;
            host.waiting.clear();
            host.position = position;
        }
        Ok(())
    }

    /// The entry at `position`, where the stream is; `None` at the end.
    pub(crate) fn peek(&mut self, position: u64) -> Result<Option<&Entry>> {
        match self {
            Self::Root(entries) => {
                let index = usize::try_from(position).ok();
                Ok(index.and_then(|index| entries.get(index)))
            }
            Self::Host(host) => {
                if host.waiting.is_empty() {
                    host.waiting = read(&host.directory)?;
                }
                Ok(host.waiting.front())
            }
        }
    }

    /// Goes on behind the entry that was seen; the position there.
    pub(crate) fn take(&mut self, position: u64) -> u64 {
        match self {
            Self::Root(_) => position.saturating_add(1),
            Self::Host(host) => {
                if let Some(taken) = host.waiting.pop_front() {
                    host.position = taken.next;
                }
                host.position
            }
        }
    }
}

/// The next entries; none at the end.
fn read(directory: &OwnedFd) -> Result<VecDeque<Entry>> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut raw = RawDir::new(directory, &mut buffer);
    let mut entries = VecDeque::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        entries.push_back(Entry {
            name: entry.file_name().to_owned(),
            inode: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok(entries)
}

/// Whether it is the directory itself or the one above.
pub(crate) fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
