//! UNLINK, RMDIR, RENAME, RENAME2.

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::Result;
use crate::abi::{Answer, Rename2In, RenameIn};
use crate::server::{Request, Server};

impl Server {
    /// FUSE_UNLINK.
    pub(crate) fn unlink(&self, request: Request<'_>) -> Result<Answer> {
        self.remove_entry(request, AtFlags::empty())
    }

    /// FUSE_RMDIR.
    pub(crate) fn rmdir(&self, request: Request<'_>) -> Result<Answer> {
        self.remove_entry(request, AtFlags::REMOVEDIR)
    }

    fn remove_entry(&self, mut request: Request<'_>, flags: AtFlags) -> Result<Answer> {
        let name = request.arguments.name()?;
        request.arguments.end()?;
        let parent = self.writable(request.header.nodeid)?;
        unlinkat(&parent.place, name.as_c_str(), flags)?;
        Ok(Answer::new())
    }

    /// FUSE_RENAME.
    pub(crate) fn rename(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = RenameIn::read(&mut request.arguments)?;
        self.rename_entry(request, input.newdir, RenameFlags::empty())
    }

    /// FUSE_RENAME2.
    pub(crate) fn rename2(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = Rename2In::read(&mut request.arguments)?;
        let flags = RenameFlags::from_bits(input.flags).ok_or(Errno::INVAL)?;
        self.rename_entry(request, input.newdir, flags)
    }

    fn rename_entry(
        &self,
        mut request: Request<'_>,
        new_parent: u64,
        flags: RenameFlags,
    ) -> Result<Answer> {
        let old_name = request.arguments.name()?;
        let new_name = request.arguments.name()?;
        request.arguments.end()?;
        let old = self.writable(request.header.nodeid)?;
        let new = self.writable(new_parent)?;
        if old.share.number != new.share.number {
            return Err(Errno::XDEV);
        }
        // As the caller: RENAME_WHITEOUT makes something.
        self.owners.acting(&request.header, || {
            let (from, to) = (old_name.as_c_str(), new_name.as_c_str());
            renameat_with(&old.place, from, &new.place, to, flags)
        })?;
        Ok(Answer::new())
    }
}
