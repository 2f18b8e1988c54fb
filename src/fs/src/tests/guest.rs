//! A guest's driver: requests in bytes, replies read.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use protocol::fs::Ownership;
use protocol::lease::Word;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::abi::{Opcode, fattr};
use crate::{Links, Server};

pub(crate) type Done<T> = Result<T, Errno>;

/// FUSE_INIT flags of Linux 6.12's virtio-fs, all of them.
pub(crate) const ALL_FLAGS: u32 = u32::MAX;

pub(crate) struct Guest {
    pub(crate) server: Server,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    unique: u64,
}

/// Writes what a lease's file says.
pub(crate) fn say(lease: &File, word: Word) {
    lease.write_all_at(&word.to_bytes(), 0).unwrap();
}

/// Arguments of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    pub(crate) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }
    pub(crate) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }
    /// With its NUL.
    pub(crate) fn string(mut self, string: impl AsRef<[u8]>) -> Self {
        self.0.extend(string.as_ref());
        self.0.push(0);
        self
    }
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// What is read of a reply.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn u32(&mut self) -> u32 {
        let (number, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u32::from_le_bytes(*number)
    }
    pub(crate) fn u64(&mut self) -> u64 {
        let (number, rest) = self.0.split_first_chunk().unwrap();
        self.0 = rest;
        u64::from_le_bytes(*number)
    }
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes.to_vec()
    }
    fn attr(&mut self) -> Attr {
        let [ino, size, _blocks] = [(); 3].map(|()| self.u64());
        let seconds = [(); 3].map(|()| self.u64());
        let nanoseconds = [(); 3].map(|()| self.u32());
        let [mode, nlink, uid, gid, rdev, _blksize, flags] = [(); 7].map(|()| self.u32());
        Attr {
            ino,
            size,
            atime: (seconds[0].cast_signed(), nanoseconds[0]),
            mtime: (seconds[1].cast_signed(), nanoseconds[1]),
            mode,
            nlink,
            uid,
            gid,
            rdev,
            flags,
        }
    }
    pub(crate) fn entry(&mut self) -> Entry {
        let [node, _generation, entry_valid_s, attr_valid_s] = [(); 4].map(|()| self.u64());
        let [entry_valid_ns, attr_valid_ns] = [(); 2].map(|()| self.u32());
        Entry {
            node,
            entry_valid: Duration::new(entry_valid_s, entry_valid_ns),
            attr_valid: Duration::new(attr_valid_s, attr_valid_ns),
            attr: self.attr(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) atime: (i64, u32),
    pub(crate) mtime: (i64, u32),
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) flags: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) entry_valid: Duration,
    pub(crate) attr_valid: Duration,
    pub(crate) attr: Attr,
}

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fh: u64,
    pub(crate) open_flags: u32,
    /// As hull-vmm gets it.
    pub(crate) file: File,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dirent {
    pub(crate) ino: u64,
    pub(crate) off: u64,
    pub(crate) kind: u32,
    pub(crate) name: String,
    /// Of READDIRPLUS.
    pub(crate) node: u64,
}

impl Guest {
    /// A guest that has initialized its driver.
    pub(crate) fn new() -> Self {
        Self::over(Ownership::Host)
    }

    /// The same, of a server that keeps owners so.
    pub(crate) fn over(ownership: Ownership) -> Self {
        let mut guest = Self::silent(1 << 20, ownership);
        guest.init(7, 41, ALL_FLAGS).unwrap();
        guest
    }

    /// One that has said nothing yet.
    pub(crate) fn silent(most_nodes: usize, ownership: Ownership) -> Self {
        Self {
            server: Server::new(Links::of_proc(), most_nodes, ownership),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            unique: 0,
        }
    }

    pub(crate) fn share(&self, name: &str, path: &Path, read_only: bool) {
        let root = place(path);
        self.server.add(name, root, read_only, None).unwrap();
    }

    /// The same, under a lease: the file says at first that the share is the only one.
    pub(crate) fn lease(&self, name: &str, path: &Path) -> File {
        let file = tempfile::tempfile().unwrap();
        say(&file, Word::Alone);
        let lease = file.try_clone().unwrap().into();
        self.server
            .add(name, place(path), false, Some(lease))
            .unwrap();
        file
    }

    pub(crate) fn init(&mut self, major: u32, minor: u32, flags: u32) -> Done<Vec<u8>> {
        let body = Body::new().u32(major).u32(minor).u32(128 << 10).u32(flags);
        self.call(Opcode::INIT, 0, body)
    }

    /// The bytes of a request.
    pub(crate) fn request(&mut self, opcode: Opcode, node: u64, body: &Body) -> Vec<u8> {
        self.unique += 2;
        let len = 40 + body.0.len() as u32;
        let header = Body::new().u32(len).u32(opcode.0);
        let header = header.u64(self.unique).u64(node);
        let header = header.u32(self.uid).u32(self.gid).u32(1).u32(0);
        header.bytes(&body.0).0
    }

    /// What the reply says, and the file that came with it.
    pub(crate) fn exchange(
        &mut self,
        opcode: Opcode,
        node: u64,
        body: &Body,
    ) -> Done<(Vec<u8>, Option<OwnedFd>)> {
        let request = self.request(opcode, node, body);
        let reply = self.server.handle(&request).expect("a reply");
        let mut fields = Fields(&reply.bytes);
        assert_eq!(fields.u32() as usize, reply.bytes.len());
        let error = fields.u32().cast_signed();
        assert_eq!(fields.u64(), self.unique);
        let file = reply
            .descriptor()
            .map(|file| file.try_clone_to_owned().unwrap());
        if error == 0 {
            Ok((fields.0.to_vec(), file))
        } else {
            assert!(fields.0.is_empty() && file.is_none() && error < 0);
            Err(Errno::from_raw_os_error(-error))
        }
    }

    pub(crate) fn call(&mut self, opcode: Opcode, node: u64, body: Body) -> Done<Vec<u8>> {
        let (reply, file) = self.exchange(opcode, node, &body)?;
        assert!(file.is_none(), "a file came with {opcode:?}");
        Ok(reply)
    }

    fn entry(&mut self, opcode: Opcode, node: u64, body: Body) -> Done<Entry> {
        let reply = self.call(opcode, node, body)?;
        Ok(Fields(&reply).entry())
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Done<Entry> {
        self.entry(Opcode::LOOKUP, parent, Body::new().string(name))
    }

    /// The node at a path below `node`.
    pub(crate) fn walk(&mut self, node: u64, path: &str) -> Done<u64> {
        path.split('/')
            .try_fold(node, |node, name| Ok(self.lookup(node, name)?.node))
    }

    pub(crate) fn forget(&mut self, node: u64, lookups: u64) {
        let request = self.request(Opcode::FORGET, node, &Body::new().u64(lookups));
        assert!(self.server.handle(&request).is_none());
    }

    pub(crate) fn getattr(&mut self, node: u64) -> Done<Attr> {
        let reply = self.call(Opcode::GETATTR, node, Body::new().u64(0).u64(0))?;
        let mut fields = Fields(&reply);
        let [_valid, _] = [(); 2].map(|()| fields.u64());
        Ok(fields.attr())
    }

    pub(crate) fn attributes_are_valid_for(&mut self, node: u64) -> Done<Duration> {
        let reply = self.call(Opcode::GETATTR, node, Body::new().u64(0).u64(0))?;
        let mut fields = Fields(&reply);
        Ok(Duration::new(fields.u64(), fields.u32()))
    }

    pub(crate) fn setattr(&mut self, node: u64, set: Set) -> Done<Attr> {
        let body = Body::new().u32(set.valid).u32(0).u64(set.fh).u64(set.size);
        let body = body.u64(0).u64(set.atime.0).u64(set.mtime.0).u64(0);
        let body = body.u32(set.atime.1).u32(set.mtime.1).u32(0).u32(set.mode);
        let body = body.u32(0).u32(set.uid).u32(set.gid).u32(0);
        let reply = self.call(Opcode::SETATTR, node, body)?;
        let mut fields = Fields(&reply);
        let [_valid, _] = [(); 2].map(|()| fields.u64());
        Ok(fields.attr())
    }

    pub(crate) fn open(&mut self, node: u64, flags: i32) -> Done<Opened> {
        let body = Body::new().u32(flags.cast_unsigned()).u32(0);
        let (reply, file) = self.exchange(Opcode::OPEN, node, &body)?;
        Ok(opened(&mut Fields(&reply), file))
    }

    pub(crate) fn create(
        &mut self,
        parent: u64,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> Done<(Entry, Opened)> {
        self.created(Opcode::CREATE, parent, name, flags, mode)
    }

    pub(crate) fn tmpfile(&mut self, parent: u64, flags: i32) -> Done<(Entry, Opened)> {
        self.created(Opcode::TMPFILE, parent, "/", flags, 0o600)
    }

    fn created(
        &mut self,
        opcode: Opcode,
        parent: u64,
        name: &str,
        flags: i32,
        mode: u32,
    ) -> Done<(Entry, Opened)> {
        let body = Body::new().u32(flags.cast_unsigned()).u32(mode);
        let body = body.u32(0o22).u32(0).string(name);
        let (reply, file) = self.exchange(opcode, parent, &body)?;
        let mut fields = Fields(&reply);
        let entry = fields.entry();
        Ok((entry, opened(&mut fields, file)))
    }

    pub(crate) fn release(&mut self, node: u64, fh: u64) -> Done<()> {
        let body = Body::new().u64(fh).u64(0).u64(0);
        self.call(Opcode::RELEASE, node, body).map(drop)
    }

    pub(crate) fn mkdir(&mut self, parent: u64, name: &str, mode: u32) -> Done<Entry> {
        let body = Body::new().u32(mode).u32(0).string(name);
        self.entry(Opcode::MKDIR, parent, body)
    }

    pub(crate) fn mknod(&mut self, parent: u64, name: &str, mode: u32, rdev: u32) -> Done<Entry> {
        let body = Body::new().u32(mode).u32(rdev).u64(0).string(name);
        self.entry(Opcode::MKNOD, parent, body)
    }

    pub(crate) fn symlink(&mut self, parent: u64, name: &str, target: &str) -> Done<Entry> {
        let body = Body::new().string(name).string(target);
        self.entry(Opcode::SYMLINK, parent, body)
    }

    pub(crate) fn readlink(&mut self, node: u64) -> Done<String> {
        let reply = self.call(Opcode::READLINK, node, Body::new())?;
        Ok(String::from_utf8(reply).unwrap())
    }

    pub(crate) fn link(&mut self, node: u64, parent: u64, name: &str) -> Done<Entry> {
        let body = Body::new().u64(node).string(name);
        self.entry(Opcode::LINK, parent, body)
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &str) -> Done<()> {
        let body = Body::new().string(name);
        self.call(Opcode::UNLINK, parent, body).map(drop)
    }

    pub(crate) fn rmdir(&mut self, parent: u64, name: &str) -> Done<()> {
        let body = Body::new().string(name);
        self.call(Opcode::RMDIR, parent, body).map(drop)
    }

    pub(crate) fn rename(
        &mut self,
        (parent, name): (u64, &str),
        (to, new_name): (u64, &str),
        flags: u32,
    ) -> Done<()> {
        let names = |body: Body| body.string(name).string(new_name);
        if flags == 0 {
            let body = names(Body::new().u64(to));
            return self.call(Opcode::RENAME, parent, body).map(drop);
        }
        let body = names(Body::new().u64(to).u32(flags).u32(0));
        self.call(Opcode::RENAME2, parent, body).map(drop)
    }

    pub(crate) fn opendir(&mut self, node: u64) -> Done<u64> {
        let reply = self.call(Opcode::OPENDIR, node, Body::new().u64(0))?;
        Ok(Fields(&reply).u64())
    }

    /// One request of a directory's entries.
    pub(crate) fn read_entries(
        &mut self,
        (node, fh): (u64, u64),
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Done<Vec<Dirent>> {
        let body = Body::new().u64(fh).u64(offset).u32(size).u32(0).u64(0);
        let opcode = [Opcode::READDIR, Opcode::READDIRPLUS][usize::from(plus)];
        let reply = self.call(opcode, node, body.u64(0))?;
        assert!(reply.len() <= size as usize);
        let mut fields = Fields(&reply);
        let mut entries = Vec::new();
        while !fields.0.is_empty() {
            let entry = if plus { fields.entry().node } else { 0 };
            let (ino, off) = (fields.u64(), fields.u64());
            let (len, kind) = (fields.u32() as usize, fields.u32());
            let name = String::from_utf8(fields.bytes(len)).unwrap();
            fields.bytes(len.next_multiple_of(8) - len);
            let node = entry;
            entries.push(Dirent {
                ino,
                off,
                kind,
                name,
                node,
            });
        }
        Ok(entries)
    }

    /// A whole directory, in pieces, by name.
    pub(crate) fn list(&mut self, node: u64, plus: bool) -> Done<Vec<Dirent>> {
        let fh = self.opendir(node)?;
        let mut all = Vec::new();
        loop {
            let offset = all.last().map_or(0, |last: &Dirent| last.off);
            let entries = self.read_entries((node, fh), offset, 4096, plus)?;
            if entries.is_empty() {
                break;
            }
            all.extend(entries);
        }
        self.releasedir(node, fh)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(crate) fn releasedir(&mut self, node: u64, fh: u64) -> Done<()> {
        let body = Body::new().u64(fh).u64(0).u64(0);
        self.call(Opcode::RELEASEDIR, node, body).map(drop)
    }
}

/// What SETATTR sets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Set {
    pub(crate) valid: u32,
    pub(crate) fh: u64,
    pub(crate) size: u64,
    pub(crate) atime: (u64, u32),
    pub(crate) mtime: (u64, u32),
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Set {
    pub(crate) fn mode(mode: u32) -> Self {
        Self {
            valid: fattr::MODE,
            mode,
            ..Self::default()
        }
    }
    pub(crate) fn size(size: u64) -> Self {
        Self {
            valid: fattr::SIZE,
            size,
            ..Self::default()
        }
    }
    pub(crate) fn owner(uid: u32, gid: u32) -> Self {
        Self {
            valid: fattr::UID | fattr::GID,
            uid,
            gid,
            ..Self::default()
        }
    }
}

fn opened(fields: &mut Fields<'_>, file: Option<OwnedFd>) -> Opened {
    let fh = fields.u64();
    let open_flags = fields.u32();
    assert_eq!(fields.u32(), 0);
    Opened {
        fh,
        open_flags,
        file: file.expect("a file comes with the reply").into(),
    }
}

/// O_PATH of a path of the host's.
pub(crate) fn place(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).unwrap()
}
