//! OPEN, CREATE, TMPFILE, and what is done with a file that is open.

use std::os::fd::OwnedFd;

use rustix::fs::{
    FallocateFlags, FileType, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fsync,
    openat, seek,
};
use rustix::io::Errno;

use crate::abi::{
    Answer, CopyFileRangeIn, CreateIn, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FSYNC_FDATASYNC,
    FallocateIn, FlushIn, FsyncIn, InHeader, LseekIn, OpenIn, ReleaseIn,
};
use crate::name::Name;
use crate::node::Node;
use crate::server::{Opened, Request, Server};
use crate::{Result, host};

/// What a guest may say about how a file is opened. O_DIRECT is between the guest and its own page cache: what hull-vmm reads
/// into need not be aligned as the host's file system wants it.
const ALLOWED: OFlags = OFlags::RWMODE
    .union(OFlags::APPEND)
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC);
/// How often a file may appear and disappear while it is created, before that counts as an error: another makes and removes it
/// in a loop.
const CREATE_ATTEMPTS: u32 = 16;
/// The most bytes of one FUSE_COPY_FILE_RANGE, so that none takes a thread for long; a guest that wants more asks again.
const MAX_COPY_BYTES: u64 = 128 << 20;
/// SEEK_DATA and SEEK_HOLE of lseek(2); the guest's kernel knows the others itself.
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;

impl Server {
    /// FUSE_OPEN.
    pub(crate) fn open(&self, mut request: Request<'_>) -> Result<Opened> {
        let input = OpenIn::read(&mut request.arguments)?;
        let flags = allowed(input.flags)?;
        let node = self.node(request.header.nodeid)?;
        let file = self.open_node(&node, flags)?;
        self.opened(Answer::new(), &node, flags, file)
    }

    /// Opens a node's file. Whatever is not a regular file is refused here, for every operation that opens.
    fn open_node(&self, node: &Node, flags: OFlags) -> Result<OwnedFd> {
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            // The guest's kernel opens its own devices, FIFOs and sockets.
            _ => return Err(Errno::NXIO),
        }
        if writes(flags) {
            node.share.writable()?;
        }
        self.handles.room()?;
        let file = self.links.open(&node.place, flags)?;
        if flags.contains(OFlags::TRUNC) {
            self.owners.written(&self.links, &node.place)?;
        }
        Ok(file)
    }

    /// FUSE_CREATE.
    pub(crate) fn create(&self, mut request: Request<'_>) -> Result<Opened> {
        let input = CreateIn::read(&mut request.arguments)?;
        let name = request.arguments.name()?;
        request.arguments.end()?;
        let flags = allowed(input.flags)?;
        let exclusive = OFlags::from_bits_retain(input.flags).contains(OFlags::EXCL);
        let parent = self.writable(request.header.nodeid)?;
        self.handles.room()?;
        self.nodes.room()?;
        for _ in 0..CREATE_ATTEMPTS {
            match self.create_new(&request.header, &parent, name, flags, input.mode) {
                Ok(file) => return self.entered(&parent, flags, file),
                Err(Errno::EXIST) if !exclusive => {}
                Err(errno) => return Err(errno),
            }
            match self.create_existing(&parent, name, flags) {
                // It is gone again.
                Err(Errno::NOENT) => {}
                opened => return opened,
            }
        }
        Err(Errno::BUSY)
    }

    /// Makes a file that was not there.
    fn create_new(
        &self,
        header: &InHeader,
        parent: &Node,
        name: Name<'_>,
        flags: OFlags,
        mode: u32,
    ) -> Result<OwnedFd> {
        if let Some(recorded) = self.owners.recorded() {
            let (links, kind) = (&self.links, FileType::RegularFile);
            let new = recorded.of_new(links, &parent.place, header, kind, mode)?;
            let made = recorded.make_file(links, &parent.place, name, new)?;
            return links.open(&made, flags.difference(OFlags::TRUNC));
        }
        self.owners.acting(header, || {
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(
                &parent.place,
                name.as_c_str(),
                flags,
                host::permissions(mode),
            )
        })
    }

    /// Opens what is there already, as one does that creates a file.
    fn create_existing(&self, parent: &Node, name: Name<'_>, flags: OFlags) -> Result<Opened> {
        let entry = self.entry(parent, name)?;
        let opened = self.nodes.get(entry.node).and_then(|node| {
            let file = self.open_node(&node, flags)?;
            let mut answer = Answer::new();
            answer.entry(&entry);
            self.opened(answer, &node, flags, file)
        });
        if opened.is_err() {
            // The guest does not hear of it.
            self.nodes.forget(entry.node, 1);
        }
        opened
    }

    /// FUSE_TMPFILE: a file without a name. The one that comes with the request says nothing.
    pub(crate) fn tmpfile(&self, mut request: Request<'_>) -> Result<Opened> {
        let input = CreateIn::read(&mut request.arguments)?;
        let asked = OFlags::from_bits_retain(input.flags);
        // Without O_EXCL it may get a name later.
        let flags = allowed(input.flags)?;
        let parent = self.writable(request.header.nodeid)?;
        self.handles.room()?;
        self.nodes.room()?;
        let kept = asked & OFlags::EXCL;
        let host_flags = flags.difference(OFlags::TRUNC) | kept | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = if let Some(recorded) = self.owners.recorded() {
            let (links, header) = (&self.links, &request.header);
            let kind = FileType::RegularFile;
            let new = recorded.of_new(links, &parent.place, header, kind, input.mode)?;
            let file = openat(&parent.place, c".", host_flags, new.host_mode)?;
            recorded.record_unnamed(links, &file, new)?;
            file
        } else {
            self.owners.acting(&request.header, || {
                openat(
                    &parent.place,
                    c".",
                    host_flags,
                    host::permissions(input.mode),
                )
            })?
        };
        self.entered(&parent, flags, file)
    }

    /// Makes a node of a file that was just made, by its descriptor: its name may lead elsewhere by now.
    fn entered(&self, parent: &Node, flags: OFlags, file: OwnedFd) -> Result<Opened> {
        let place = self.links.open(&file, OFlags::PATH)?;
        let (node, stat) = self.enter(parent, place)?;
        let attr = self.told(&node, &stat)?;
        let valid = parent.share.validity();
        let mut answer = Answer::new();
        answer.entry(&crate::abi::Entry {
            node: node.id,
            entry_valid: valid,
            attr_valid: valid,
            attr,
        });
        let opened = self.opened(answer, &node, flags, file);
        if opened.is_err() {
            self.nodes.forget(node.id, 1);
        }
        opened
    }

    /// Keeps an open file; `struct fuse_open_out` ends the answer.
    fn opened(
        &self,
        mut answer: Answer,
        node: &Node,
        flags: OFlags,
        file: OwnedFd,
    ) -> Result<Opened> {
        let open = self.handles.add_file(node.id, file)?;
        let mut open_flags = 0;
        if !node.share.validity().is_zero() {
            open_flags |= FOPEN_KEEP_CACHE;
        }
        if !writes(flags) || node.share.closes_quietly(node.key.mount) {
            // A file that was only read has nothing to report when it is closed, nor has one of a local file system.
            open_flags |= FOPEN_NOFLUSH;
        }
        answer.u64(open.fh);
        answer.u32(open_flags);
        answer.u32(0);
        Ok((answer, open))
    }

    /// FUSE_RELEASE. The node may be forgotten, and its share removed, by then.
    pub(crate) fn release(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = ReleaseIn::read(&mut request.arguments)?;
        self.handles.file(input.fh, request.header.nodeid)?;
        self.handles.close_file(input.fh)?;
        Ok(Answer::new())
    }

    /// FUSE_FLUSH: a descriptor of the guest's was closed.
    pub(crate) fn flush(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = FlushIn::read(&mut request.arguments)?;
        let open = self.handles.file(input.fh, request.header.nodeid)?;
        match sys::flush::flush(&open.file) {
            Ok(()) => Ok(Answer::new()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// FUSE_FSYNC.
    pub(crate) fn fsync(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = FsyncIn::read(&mut request.arguments)?;
        let open = self.handles.file(input.fh, request.header.nodeid)?;
        if input.fsync_flags & FSYNC_FDATASYNC != 0 {
            fdatasync(&open.file)?;
        } else {
            fsync(&open.file)?;
        }
        Ok(Answer::new())
    }

    /// FUSE_FALLOCATE.
    pub(crate) fn fallocate(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = FallocateIn::read(&mut request.arguments)?;
        let open = self.handles.file(input.fh, request.header.nodeid)?;
        let mode = FallocateFlags::from_bits(input.mode).ok_or(Errno::OPNOTSUPP)?;
        fallocate(&open.file, mode, input.offset, input.length)?;
        self.owners.written(&self.links, &open.file)?;
        Ok(Answer::new())
    }

    /// FUSE_LSEEK: where data or a hole begins.
    pub(crate) fn lseek(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = LseekIn::read(&mut request.arguments)?;
        let open = self.handles.file(input.fh, request.header.nodeid)?;
        let from = match input.whence {
            SEEK_DATA => SeekFrom::Data(input.offset),
            SEEK_HOLE => SeekFrom::Hole(input.offset),
            _ => return Err(Errno::INVAL),
        };
        // hull-vmm, which has the same open file, says with each access where it is meant.
        let offset = seek(&open.file, from)?;
        let mut answer = Answer::new();
        answer.u64(offset);
        Ok(answer)
    }

    /// FUSE_COPY_FILE_RANGE.
    pub(crate) fn copy_file_range(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = CopyFileRangeIn::read(&mut request.arguments)?;
        let from = self.handles.file(input.fh_in, request.header.nodeid)?;
        let to = self.handles.file(input.fh_out, input.nodeid_out)?;
        if input.flags != 0 {
            return Err(Errno::INVAL);
        }
        let (mut at, mut onto) = (input.off_in, input.off_out);
        let len = input.len.min(MAX_COPY_BYTES) as usize;
        let copied = copy_file_range(&from.file, Some(&mut at), &to.file, Some(&mut onto), len)?;
        self.owners.written(&self.links, &to.file)?;
        let mut answer = Answer::new();
        answer.u32(copied as u32);
        answer.u32(0);
        Ok(answer)
    }
}

fn allowed(flags: u32) -> Result<OFlags> {
    let flags = OFlags::from_bits_retain(flags) & ALLOWED;
    // Both bits of the access mode mean something to Linux alone, and nothing that a guest sends.
    if flags & OFlags::RWMODE == OFlags::RWMODE {
        return Err(Errno::INVAL);
    }
    Ok(flags)
}

fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::RWMODE | OFlags::TRUNC)
}
