//! OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use protocol::fs::MAX_MESSAGE_LEN;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fdatasync, fsync, statx};
use rustix::io::Errno;

use crate::abi::{
    Answer, DIRENT_LEN, ENTRY_LEN, Entry, FSYNC_FDATASYNC, FsyncIn, OUT_HEADER_LEN, ROOT_ID,
    ReadIn, ReleaseIn,
};
use crate::directory::{self, HostStream, Stream, is_dot};
use crate::name::Name;
use crate::node::Node;
use crate::server::{Request, Server};
use crate::{Result, host, lock};

/// How long entries may be looked up for one reply: what it says of their validity was read before the first. Less than
/// `protocol::lease::MARGIN`.
const MAX_LOOKING_UP: Duration = Duration::from_millis(100);

impl Server {
    /// FUSE_OPENDIR.
    pub(crate) fn opendir(&self, request: Request<'_>) -> Result<Answer> {
        let id = request.header.nodeid;
        let stream = if id == ROOT_ID {
            Stream::Root(self.entries_of_root())
        } else {
            let node = self.nodes.get(id)?;
            if node.kind != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
            // Not by the name ".", which takes the right to search it.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let directory = self.links.open(&node.place, flags)?;
            Stream::Host(HostStream::new(node, directory))
        };
        let fh = self.handles.add_directory(id, stream)?;
        let mut answer = Answer::new();
        answer.u64(fh);
        answer.u64(0);
        Ok(answer)
    }

    fn entries_of_root(&self) -> Vec<directory::Entry> {
        let dots = [c".", c".."].map(|name| (name.to_owned(), ROOT_ID, FileType::Directory));
        let shares = self.shares.list().into_iter().filter_map(|(name, share)| {
            let stat = host::stat(&share.root).ok()?;
            Some((CString::new(name).ok()?, stat.stx_ino, host::kind(&stat)))
        });
        let all = dots.into_iter().chain(shares).zip(1..);
        all.map(|((name, inode, kind), next)| directory::Entry {
            name,
            inode,
            kind,
            next,
        })
        .collect()
    }

    /// FUSE_READDIR.
    pub(crate) fn readdir(&self, request: Request<'_>) -> Result<Answer> {
        self.list(request, false)
    }

    /// FUSE_READDIRPLUS: each entry is looked up as well, if the guest may remember what it is told; otherwise it would drop
    /// the entry at once, and look it up again. One that is not looked up, or cannot be, comes without (node 0), and the guest
    /// looks it up when it needs it, or hears then why it cannot.
    pub(crate) fn readdirplus(&self, request: Request<'_>) -> Result<Answer> {
        self.list(request, true)
    }

    fn list(&self, mut request: Request<'_>, plus: bool) -> Result<Answer> {
        let input = ReadIn::read(&mut request.arguments)?;
        let open = self.handles.directory(input.fh, request.header.nodeid)?;
        let mut stream = lock(&open.stream);
        let node = match &*stream {
            Stream::Root(_) => None,
            Stream::Host(host) => Some(host.node.clone()),
        };
        if let Some(node) = &node {
            node.share.alive()?;
        }
        let valid = node.as_ref().map(|node| node.share.validity());
        let looked_at = Instant::now();
        let valid = valid.filter(|valid| plus && !valid.is_zero());
        let mut listing = Listing::new(input.size, plus);
        let mut position = input.offset;
        stream.go_to(position)?;
        loop {
            let entry = match stream.peek(position) {
                Ok(Some(entry)) => entry.clone(),
                Ok(None) => break,
                // What there is so far is given; the error comes again when the guest goes on.
                Err(_) if !listing.is_empty() => break,
                Err(errno) => return Err(errno),
            };
            // The entries are told of together, when the last is looked up.
            if valid.is_some() && !listing.is_empty() && looked_at.elapsed() > MAX_LOOKING_UP {
                break;
            }
            if !listing.has_room_for(&entry.name) {
                if listing.is_empty() {
                    return Err(Errno::INVAL);
                }
                break;
            }
            let described = self.describe(node.as_deref(), &entry, valid);
            listing.push(&described, &entry);
            position = stream.take(position);
        }
        Ok(listing.answer)
    }

    /// An entry as the guest is told of it; looked up if that is valid for some time.
    fn describe(
        &self,
        node: Option<&Node>,
        entry: &directory::Entry,
        valid: Option<Duration>,
    ) -> Described {
        let mut described = Described {
            inode: entry.inode,
            kind: entry.kind,
            entry: Entry::default(),
        };
        let Some(node) = node else {
            return described;
        };
        if is_dot(&entry.name) {
            if entry.name.as_c_str() == c".." && node.is_root_of_share() {
                // What is above it on the host is nothing to the guest.
                described.inode = ROOT_ID;
            }
            described.kind = FileType::Directory;
            return described;
        }
        if let Some(valid) = valid
            && let Ok(name) = Name::new(&entry.name)
            && let Ok(mut found) = self.entry_now(node, name)
        {
            (found.entry_valid, found.attr_valid) = (valid, valid);
            if found.attr.submount {
                // It is looked up when it is gone into, and only then mounted.
                self.nodes.forget(found.node, 1);
            } else {
                described.kind = FileType::from_raw_mode(found.attr.mode);
                described.inode = found.attr.ino;
                described.entry = found;
            }
        }
        if described.kind == FileType::Unknown
            && let Ok(kind) = kind_of(&node.place, &entry.name)
        {
            described.kind = kind;
        }
        described
    }

    /// FUSE_RELEASEDIR.
    pub(crate) fn releasedir(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = ReleaseIn::read(&mut request.arguments)?;
        self.handles.directory(input.fh, request.header.nodeid)?;
        self.handles.close_directory(input.fh)?;
        Ok(Answer::new())
    }

    /// FUSE_FSYNCDIR.
    pub(crate) fn fsyncdir(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = FsyncIn::read(&mut request.arguments)?;
        let open = self.handles.directory(input.fh, request.header.nodeid)?;
        let directory = match &*lock(&open.stream) {
            Stream::Root(_) => return Ok(Answer::new()),
            Stream::Host(host) => rustix::io::fcntl_dupfd_cloexec(&host.directory, 0)?,
        };
        if input.fsync_flags & FSYNC_FDATASYNC != 0 {
            fdatasync(&directory)?;
        } else {
            fsync(&directory)?;
        }
        Ok(Answer::new())
    }
}

/// The type of an entry whose directory does not say it.
fn kind_of(directory: impl AsFd, name: &CStr) -> Result<FileType> {
    let stat = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    Ok(host::kind(&stat))
}

/// What a guest is told of an entry besides its name.
struct Described {
    inode: u64,
    kind: FileType,
    entry: Entry,
}

/// Entries as they are written: `struct fuse_dirent`, or with `struct fuse_entry_out` before each.
struct Listing {
    answer: Answer,
    /// The most that the reply may be long.
    limit: usize,
    plus: bool,
}

impl Listing {
    /// Up to `size` bytes, as far as a packet holds them.
    fn new(size: u32, plus: bool) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Self {
            answer: Answer::new(),
            limit: size.saturating_add(OUT_HEADER_LEN).min(MAX_MESSAGE_LEN),
            plus,
        }
    }

    fn is_empty(&self) -> bool {
        self.answer.len() == OUT_HEADER_LEN
    }

    fn has_room_for(&self, name: &CStr) -> bool {
        let entry = if self.plus { ENTRY_LEN } else { 0 };
        let len = (entry + DIRENT_LEN + name.count_bytes()).next_multiple_of(8);
        self.answer.len() + len <= self.limit
    }

    fn push(&mut self, described: &Described, entry: &directory::Entry) {
        if self.plus {
            self.answer.entry(&described.entry);
        }
        let name = entry.name.as_bytes();
        self.answer.u64(described.inode);
        self.answer.u64(entry.next);
        self.answer.u32(name.len() as u32);
        // DT_*: the mode's four bits of the type.
        self.answer.u32(described.kind.as_raw_mode() >> 12);
        self.answer.bytes(name);
        let odd = self.answer.len() % 8;
        if odd != 0 {
            self.answer.zeros(8 - odd);
        }
    }
}
