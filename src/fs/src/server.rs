//! The server: from a request to its reply.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::fs::Ownership;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::abi::{Answer, Attr, InHeader, Opcode, ROOT_ID, Reader, Writer};
use crate::handle::{Handles, OpenFile};
use crate::links::Links;
use crate::node::{Node, Nodes};
use crate::owners::Owners;
use crate::share::{Error, Shares};
use crate::{Result, host};

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) header: InHeader,
    pub(crate) arguments: Reader<'a>,
}

/// What goes back to hull-vmm.
#[derive(Debug)]
pub struct Reply {
    /// `fuse_out_header` and what follows it.
    pub bytes: Vec<u8>,
    pub(crate) file: Option<Arc<OpenFile>>,
}

impl Reply {
    /// The file that was opened, which goes with the reply.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|open| open.file.as_fd())
    }
}

/// An answer, with the file that was opened.
pub(crate) type Opened = (Answer, Arc<OpenFile>);

/// The file system that a guest sees: a root directory with the shares in it.
#[derive(Debug)]
pub struct Server {
    pub(crate) links: Links,
    pub(crate) owners: Owners,
    pub(crate) shares: Shares,
    pub(crate) nodes: Nodes,
    pub(crate) handles: Handles,
    /// Whether there was a FUSE_INIT, and what it has settled.
    pub(crate) ready: AtomicBool,
    pub(crate) submounts: AtomicBool,
    pub(crate) setxattr_ext: AtomicBool,
}

impl Server {
    /// A server without shares, that keeps at most so many nodes, and owners as is said. The process's umask becomes 0: the
    /// guest's kernel applies that of its own process.
    pub fn new(links: Links, most_nodes: usize, ownership: Ownership) -> Self {
        rustix::process::umask(rustix::fs::Mode::empty());
        Self {
            links,
            owners: Owners::new(ownership),
            shares: Shares::default(),
            nodes: Nodes::new(most_nodes),
            handles: Handles::default(),
            ready: AtomicBool::new(false),
            submounts: AtomicBool::new(false),
            setxattr_ext: AtomicBool::new(false),
        }
    }

    /// Adds a share. `root` is O_PATH of the root of a mount of its own: a directory or a regular file. Under a lease
    /// (`protocol::lease`) the guest may remember what it is told.
    pub fn add(
        &self,
        name: &str,
        root: OwnedFd,
        read_only: bool,
        lease: Option<OwnedFd>,
    ) -> std::result::Result<(), Error> {
        self.shares.add(name, root, read_only, lease)
    }

    /// Removes a share: it cannot be looked up any more, and what the guest has looked up of it is gone (ESTALE). Files that
    /// are open stay open.
    pub fn remove(&self, name: &str) {
        if let Some(share) = self.shares.remove(name) {
            self.nodes.forget_share(&share);
        }
    }

    /// Handles one request; `None` if it has no reply.
    pub fn handle(&self, bytes: &[u8]) -> Option<Reply> {
        let mut arguments = Reader::new(bytes);
        // Without a header there is none to answer to. hull-vmm sends no such thing.
        let header = InHeader::read(&mut arguments).ok()?;
        let opcode = Opcode(header.opcode);
        let unique = header.unique;
        let request = Request { header, arguments };
        let done = if header.len as usize == bytes.len() {
            self.dispatch(opcode, request)
        } else {
            Err(Errno::INVAL)
        };
        if opcode.has_no_reply() {
            return None;
        }
        Some(match done {
            Ok((answer, file)) => Reply {
                bytes: answer.finish(unique),
                file,
            },
            Err(errno) => Reply {
                bytes: Writer::failure(unique, errno),
                file: None,
            },
        })
    }

    /// The reply to a request whose file could not be sent along; the file is closed. `None` if there was none.
    pub(crate) fn take_back(&self, bytes: &[u8], reply: &Reply) -> Option<Reply> {
        let header = InHeader::read(&mut Reader::new(bytes)).ok()?;
        let open = reply.file.as_ref()?;
        if Opcode(header.opcode) != Opcode::OPEN {
            // The guest does not hear of the node either.
            self.nodes.forget(open.node, 1);
        }
        self.handles.close_open(open);
        Some(Reply {
            bytes: Writer::failure(header.unique, Errno::NFILE),
            file: None,
        })
    }

    fn dispatch(
        &self,
        opcode: Opcode,
        request: Request<'_>,
    ) -> Result<(Answer, Option<Arc<OpenFile>>)> {
        if opcode == Opcode::INIT {
            return Ok((self.init(request)?, None));
        }
        if !self.ready.load(Ordering::Acquire) {
            return Err(Errno::IO);
        }
        let opened = match opcode {
            Opcode::OPEN => self.open(request)?,
            Opcode::CREATE => self.create(request)?,
            Opcode::TMPFILE => self.tmpfile(request)?,
            _ => return Ok((self.answer(opcode, request)?, None)),
        };
        Ok((opened.0, Some(opened.1)))
    }

    fn answer(&self, opcode: Opcode, request: Request<'_>) -> Result<Answer> {
        match opcode {
            Opcode::LOOKUP => self.lookup(request),
            Opcode::FORGET => self.forget(request),
            Opcode::BATCH_FORGET => self.batch_forget(request),
            Opcode::GETATTR => self.getattr(request),
            Opcode::SETATTR => self.setattr(request),
            Opcode::STATFS => self.statfs(request),
            Opcode::ACCESS => self.access(request),
            Opcode::READLINK => self.readlink(request),
            Opcode::SYMLINK => self.symlink(request),
            Opcode::MKNOD => self.mknod(request),
            Opcode::MKDIR => self.mkdir(request),
            Opcode::LINK => self.link(request),
            Opcode::UNLINK => self.unlink(request),
            Opcode::RMDIR => self.rmdir(request),
            Opcode::RENAME => self.rename(request),
            Opcode::RENAME2 => self.rename2(request),
            Opcode::RELEASE => self.release(request),
            Opcode::FLUSH => self.flush(request),
            Opcode::FSYNC => self.fsync(request),
            Opcode::FALLOCATE => self.fallocate(request),
            Opcode::LSEEK => self.lseek(request),
            Opcode::COPY_FILE_RANGE => self.copy_file_range(request),
            Opcode::OPENDIR => self.opendir(request),
            Opcode::READDIR => self.readdir(request),
            Opcode::READDIRPLUS => self.readdirplus(request),
            Opcode::RELEASEDIR => self.releasedir(request),
            Opcode::FSYNCDIR => self.fsyncdir(request),
            Opcode::SETXATTR => self.setxattr(request),
            Opcode::GETXATTR => self.getxattr(request),
            Opcode::LISTXATTR => self.listxattr(request),
            Opcode::REMOVEXATTR => self.removexattr(request),
            Opcode::DESTROY => Ok(self.destroy()),
            // The guest's kernel asks once, and then does without.
            _ => Err(Errno::NOSYS),
        }
    }

    /// A node to which something is done that nothing can do to the root.
    pub(crate) fn node(&self, id: u64) -> Result<Arc<Node>> {
        match id {
            ROOT_ID => Err(Errno::ROFS),
            id => self.nodes.get(id),
        }
    }

    /// A node that is to be changed, or in which something is.
    pub(crate) fn writable(&self, id: u64) -> Result<Arc<Node>> {
        let node = self.node(id)?;
        node.share.writable()?;
        Ok(node)
    }

    /// Counts a look-up of what is at `place` and tells of it.
    pub(crate) fn enter(&self, parent: &Node, place: OwnedFd) -> Result<(Arc<Node>, Statx)> {
        let stat = host::stat(&place)?;
        let node = self.nodes.found(&parent.share, place, &stat)?;
        Ok((node, stat))
    }

    /// What the guest is told of a file.
    pub(crate) fn attr(&self, place: impl AsFd, stat: &Statx) -> Result<Attr> {
        self.owners.attr(&self.links, place, stat)
    }

    /// Whether the guest is to mount at what was found in `parent`: other file systems have inodes of the same numbers.
    pub(crate) fn is_submount(&self, parent_mount: Option<u64>, node: &Node) -> bool {
        node.kind == FileType::Directory
            && Some(node.key.mount) != parent_mount
            && self.submounts.load(Ordering::Relaxed)
    }
}
