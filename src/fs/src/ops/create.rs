//! MKNOD, MKDIR, SYMLINK, LINK.

use rustix::fs::{AtFlags, CWD, FileType, linkat, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;

use crate::abi::{Answer, LinkIn, MkdirIn, MknodIn};
use crate::name::Name;
use crate::node::Node;
use crate::server::{Request, Server};
use crate::{Result, host};

/// PATH_MAX without its NUL.
const MAX_TARGET_LEN: usize = 4095;
/// WHITEOUT_DEV: a character device of this number is no device, but what overlayfs leaves in an upper directory where a file
/// of a lower one is gone (Linux, Documentation/filesystems/overlayfs.rst). Anybody may make one.
const WHITEOUT: u32 = 0;

impl Server {
    /// FUSE_MKNOD: regular files; FIFOs and sockets, which are served in the guest and nothing but names here; whiteouts. No
    /// device is made.
    pub(crate) fn mknod(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = MknodIn::read(&mut request.arguments)?;
        let kind = FileType::from_raw_mode(input.mode);
        let may_be = match kind {
            FileType::RegularFile | FileType::Fifo | FileType::Socket => true,
            FileType::CharacterDevice => input.rdev == WHITEOUT,
            _ => false,
        };
        let header = request.header;
        self.make(request, |parent, name| {
            if !may_be {
                return Err(Errno::PERM);
            }
            let Some(recorded) = self.owners.recorded() else {
                let mode = host::permissions(input.mode);
                return mknodat(&parent.place, name.as_c_str(), kind, mode, WHITEOUT.into());
            };
            let new = recorded.of_new(&self.links, &parent.place, &header, kind, input.mode)?;
            match kind {
                FileType::RegularFile => recorded
                    .make_file(&self.links, &parent.place, name, new)
                    .map(drop),
                _ => {
                    let name = name.as_c_str();
                    mknodat(&parent.place, name, kind, new.host_mode, WHITEOUT.into())
                }
            }
        })
    }

    /// FUSE_MKDIR.
    pub(crate) fn mkdir(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = MkdirIn::read(&mut request.arguments)?;
        let header = request.header;
        self.make(request, |parent, name| {
            let Some(recorded) = self.owners.recorded() else {
                let mode = host::permissions(input.mode);
                return mkdirat(&parent.place, name.as_c_str(), mode);
            };
            let (kind, mode) = (FileType::Directory, input.mode);
            let new = recorded.of_new(&self.links, &parent.place, &header, kind, mode)?;
            recorded.make_directory(&self.links, &parent.place, name, new)
        })
    }

    /// FUSE_SYMLINK. Where it leads to is the guest's: nothing here ever follows it.
    pub(crate) fn symlink(&self, mut request: Request<'_>) -> Result<Answer> {
        let name = request.arguments.name()?;
        let target = request.arguments.string()?;
        request.arguments.end()?;
        if target.count_bytes() > MAX_TARGET_LEN {
            return Err(Errno::NAMETOOLONG);
        }
        let parent = self.writable(request.header.nodeid)?;
        self.nodes.room()?;
        self.owners.acting(&request.header, || {
            symlinkat(target, &parent.place, name.as_c_str())
        })?;
        self.made(&parent, name)
    }

    /// FUSE_LINK: a further name for a file, which may be one that has none yet (O_TMPFILE).
    pub(crate) fn link(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = LinkIn::read(&mut request.arguments)?;
        let name = request.arguments.name()?;
        request.arguments.end()?;
        let parent = self.writable(request.header.nodeid)?;
        let old = self.node(input.oldnodeid)?;
        if old.share.number != parent.share.number {
            return Err(Errno::XDEV);
        }
        linkat(
            CWD,
            self.links.path(&old.place),
            &parent.place,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?;
        self.made(&parent, name)
    }

    /// Makes an entry whose name ends the request, as its owner.
    fn make(
        &self,
        mut request: Request<'_>,
        make: impl FnOnce(&Node, Name<'_>) -> Result<()>,
    ) -> Result<Answer> {
        let name = request.arguments.name()?;
        request.arguments.end()?;
        let parent = self.writable(request.header.nodeid)?;
        self.nodes.room()?;
        self.owners
            .acting(&request.header, || make(&parent, name))?;
        self.made(&parent, name)
    }

    fn made(&self, parent: &Node, name: Name<'_>) -> Result<Answer> {
        let entry = self.entry(parent, name)?;
        let mut answer = Answer::new();
        answer.entry(&entry);
        Ok(answer)
    }
}
