//! LOOKUP, FORGET, BATCH_FORGET, READLINK.

use std::time::Duration;

use rustix::fs::{Statx, readlinkat};
use rustix::io::Errno;

use crate::abi::{Answer, Attr, BatchForgetIn, Entry, ForgetIn, ForgetOne, ROOT_ID};
use crate::name::Name;
use crate::node::Node;
use crate::server::{Request, Server};
use crate::{Result, host};

impl Server {
    /// FUSE_LOOKUP.
    pub(crate) fn lookup(&self, mut request: Request<'_>) -> Result<Answer> {
        let name = request.arguments.name()?;
        request.arguments.end()?;
        let entry = match request.header.nodeid {
            ROOT_ID => self.entry_of_root(name)?,
            id => {
                let parent = self.nodes.get(id)?;
                match self.entry(&parent, name) {
                    Err(Errno::NOENT) => absent(&parent)?,
                    found => found?,
                }
            }
        };
        let mut answer = Answer::new();
        answer.entry(&entry);
        Ok(answer)
    }

    /// Looks a share up. The name is asked for each time: shares come and go.
    fn entry_of_root(&self, name: Name<'_>) -> Result<Entry> {
        let share = self.shares.get(name.as_bytes()).ok_or(Errno::NOENT)?;
        let place = rustix::io::fcntl_dupfd_cloexec(&share.root, 0)?;
        let stat = host::stat(&place)?;
        let node = self.nodes.found(&share, place, &stat)?;
        let mut attr = self.told(&node, &stat)?;
        attr.submount = self.is_submount(None, &node);
        Ok(Entry {
            node: node.id,
            entry_valid: Duration::ZERO,
            attr_valid: share.validity(),
            attr,
        })
    }

    /// Looks `name` up in a directory, and counts it.
    pub(crate) fn entry(&self, parent: &Node, name: Name<'_>) -> Result<Entry> {
        let mut entry = self.entry_now(parent, name)?;
        let valid = parent.share.validity();
        (entry.entry_valid, entry.attr_valid) = (valid, valid);
        Ok(entry)
    }

    /// The same, not to be remembered.
    pub(crate) fn entry_now(&self, parent: &Node, name: Name<'_>) -> Result<Entry> {
        let place = host::place(&parent.place, name)?;
        let (node, stat) = self.enter(parent, place)?;
        let mut attr = self.told(&node, &stat)?;
        attr.submount = self.is_submount(Some(parent.key.mount), &node);
        Ok(Entry {
            node: node.id,
            attr,
            ..Entry::default()
        })
    }

    /// The attributes of a node that was looked up. The guest does not hear of it if there are none.
    pub(crate) fn told(&self, node: &Node, stat: &Statx) -> Result<Attr> {
        let attr = self.attr(&node.place, stat);
        if attr.is_err() {
            self.nodes.forget(node.id, 1);
        }
        attr
    }

    /// FUSE_FORGET.
    pub(crate) fn forget(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = ForgetIn::read(&mut request.arguments)?;
        self.nodes.forget(request.header.nodeid, input.nlookup);
        Ok(Answer::new())
    }

    /// FUSE_BATCH_FORGET: as many as the request holds, whatever it says.
    pub(crate) fn batch_forget(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = BatchForgetIn::read(&mut request.arguments)?;
        for _ in 0..input.count {
            let one = ForgetOne::read(&mut request.arguments)?;
            self.nodes.forget(one.nodeid, one.nlookup);
        }
        Ok(Answer::new())
    }

    /// FUSE_READLINK.
    pub(crate) fn readlink(&self, request: Request<'_>) -> Result<Answer> {
        let node = self.node(request.header.nodeid)?;
        if node.kind != rustix::fs::FileType::Symlink {
            return Err(Errno::INVAL);
        }
        let target = readlinkat(&node.place, c"", Vec::new())?;
        let mut answer = Answer::new();
        answer.bytes(target.as_bytes());
        Ok(answer)
    }
}

/// What is told of a name that is not there: as an entry without a node where that may be remembered, else as an error.
fn absent(parent: &Node) -> Result<Entry> {
    match parent.share.validity() {
        Duration::ZERO => Err(Errno::NOENT),
        valid => Ok(Entry {
            entry_valid: valid,
            ..Entry::default()
        }),
    }
}
