//! GETATTR, SETATTR, STATFS, ACCESS.

use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat,
    chownat, fstatvfs, ftruncate, utimensat,
};
use rustix::io::Errno;

use crate::abi::{AccessIn, Answer, Attr, ROOT_ID, SetattrIn, fattr};
use crate::node::Node;
use crate::server::{Request, Server};
use crate::{Result, host};

/// S_IFDIR, and that anybody may read and search it.
const ROOT_MODE: u32 = 0o040_555;
/// S_ISGID.
const SET_GROUP_ID: u32 = 0o2000;
/// W_OK of access(2).
const WRITE_OK: u32 = 2;
/// What a root directory without a file system below it says of blocks, and of names.
const ROOT_BLOCK_BYTES: u32 = 4096;
const NAME_MAX: u32 = 255;
const NANOSECONDS: u32 = 1_000_000_000;
/// "Leave it", to chown(2): no user and no group.
const UNCHANGED: u32 = u32::MAX;

impl Server {
    /// FUSE_GETATTR.
    pub(crate) fn getattr(&self, request: Request<'_>) -> Result<Answer> {
        let mut answer = Answer::new();
        match request.header.nodeid {
            ROOT_ID => {
                let attr = Attr {
                    ino: ROOT_ID,
                    mode: ROOT_MODE,
                    nlink: 2,
                    blksize: ROOT_BLOCK_BYTES,
                    ..Attr::default()
                };
                answer.attr_out(&attr, Duration::ZERO);
            }
            id => self.write_attr(&mut answer, &*self.nodes.get(id)?)?,
        }
        Ok(answer)
    }

    /// FUSE_SETATTR. One after the other: what fails leaves what came before it done, as a guest that asks for several does
    /// not happen to.
    pub(crate) fn setattr(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = SetattrIn::read(&mut request.arguments)?;
        let node = self.writable(request.header.nodeid)?;
        // Before the mode: a change of owner clears bits of it.
        self.set_owner(&node, &input)?;
        if input.valid & fattr::MODE != 0 {
            self.set_mode(&node, input.mode)?;
        }
        if input.valid & fattr::SIZE != 0 {
            self.set_size(&node, &input)?;
        }
        self.set_times(&node, &input)?;
        let mut answer = Answer::new();
        self.write_attr(&mut answer, &node)?;
        Ok(answer)
    }

    fn set_owner(&self, node: &Node, input: &SetattrIn) -> Result<()> {
        let wanted = |flag, number| match input.valid & flag != 0 {
            true if number == UNCHANGED => Err(Errno::INVAL),
            true => Ok(Some(number)),
            false => Ok(None),
        };
        let user = wanted(fattr::UID, input.uid)?;
        let group = wanted(fattr::GID, input.gid)?;
        if user.is_none() && group.is_none() {
            return Ok(());
        }
        if let Some(recorded) = self.owners.recorded() {
            return recorded.change_owner(&self.links, &node.place, (user, group));
        }
        let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
        chownat(&node.place, c"", user, group, AtFlags::EMPTY_PATH)
    }

    fn set_mode(&self, node: &Node, mode: u32) -> Result<()> {
        if let Some(recorded) = self.owners.recorded() {
            return recorded.change_mode(&self.links, &node.place, mode);
        }
        let set = || {
            let path = self.links.path(&node.place);
            chmodat(CWD, path, host::permissions(mode), AtFlags::empty())
        };
        if mode & SET_GROUP_ID == 0 {
            return set();
        }
        // Without CAP_FSETID the set-group-ID bit takes being in the file's group. Whether the caller may set it, the guest's
        // kernel has decided.
        self.owners.in_group(host::stat(&node.place)?.stx_gid, set)
    }

    fn set_size(&self, node: &Node, input: &SetattrIn) -> Result<()> {
        if input.valid & fattr::FH != 0 {
            let open = self.handles.file(input.fh, node.id)?;
            ftruncate(&open.file, input.size)?;
        } else {
            match node.kind {
                FileType::RegularFile => {}
                FileType::Directory => return Err(Errno::ISDIR),
                _ => return Err(Errno::INVAL),
            }
            ftruncate(self.links.open(&node.place, OFlags::WRONLY)?, input.size)?;
        }
        self.owners.written(&self.links, &node.place)
    }

    fn set_times(&self, node: &Node, input: &SetattrIn) -> Result<()> {
        let Some(times) = times(input)? else {
            return Ok(());
        };
        let set = || utimensat(&node.place, c"", &times, AtFlags::EMPTY_PATH);
        match self.owners.recorded() {
            Some(recorded) => recorded.keeping_set_ids(&self.links, &node.place, set),
            None => set(),
        }
    }

    fn write_attr(&self, answer: &mut Answer, node: &Node) -> Result<()> {
        let stat = host::stat(&node.place)?;
        let attr = self.attr(&node.place, &stat)?;
        answer.attr_out(&attr, node.share.validity());
        Ok(())
    }

    /// FUSE_STATFS.
    pub(crate) fn statfs(&self, request: Request<'_>) -> Result<Answer> {
        let mut answer = Answer::new();
        if request.header.nodeid == ROOT_ID {
            answer.zeros(5 * 8);
            write_sizes(&mut answer, ROOT_BLOCK_BYTES, NAME_MAX, ROOT_BLOCK_BYTES);
            return Ok(answer);
        }
        let node = self.nodes.get(request.header.nodeid)?;
        let stat = fstatvfs(&node.place)?;
        let counts = [stat.f_blocks, stat.f_bfree, stat.f_bavail];
        for count in counts.into_iter().chain([stat.f_files, stat.f_ffree]) {
            answer.u64(count);
        }
        let [block, name, fragment] = [stat.f_bsize, stat.f_namemax, stat.f_frsize]
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        write_sizes(&mut answer, block, name, fragment);
        Ok(answer)
    }

    /// FUSE_ACCESS: the guest's kernel checks owners and modes itself, so that what is left is whether the share can be
    /// written.
    pub(crate) fn access(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = AccessIn::read(&mut request.arguments)?;
        let writes = input.mask & WRITE_OK != 0;
        match request.header.nodeid {
            ROOT_ID if writes => Err(Errno::ROFS),
            ROOT_ID => Ok(Answer::new()),
            id if writes => self.writable(id).map(|_| Answer::new()),
            id => self.nodes.get(id).map(|_| Answer::new()),
        }
    }
}

/// The end of `struct fuse_kstatfs`.
fn write_sizes(answer: &mut Answer, block: u32, name: u32, fragment: u32) {
    for number in [block, name, fragment] {
        answer.u32(number);
    }
    answer.zeros(7 * 4);
}

/// What is to be set of a file's times, if anything is.
fn times(input: &SetattrIn) -> Result<Option<Timestamps>> {
    let time = |set, now, seconds: u64, nanoseconds: u32| {
        let (tv_sec, tv_nsec) = if input.valid & now != 0 {
            (0, UTIME_NOW)
        } else if input.valid & set != 0 {
            if nanoseconds >= NANOSECONDS {
                return Err(Errno::INVAL);
            }
            (seconds.cast_signed(), nanoseconds.into())
        } else {
            (0, UTIME_OMIT)
        };
        Ok(Timespec { tv_sec, tv_nsec })
    };
    let (atime, mtime) = (input.atime, input.mtime);
    let times = Timestamps {
        last_access: time(fattr::ATIME, fattr::ATIME_NOW, atime, input.atimensec)?,
        last_modification: time(fattr::MTIME, fattr::MTIME_NOW, mtime, input.mtimensec)?,
    };
    let any = fattr::ATIME | fattr::MTIME | fattr::ATIME_NOW | fattr::MTIME_NOW;
    Ok((input.valid & any != 0).then_some(times))
}
