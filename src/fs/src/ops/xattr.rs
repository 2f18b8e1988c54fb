//! SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use rustix::fs::{XattrFlags, getxattr, getxattr_query, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::abi::{Answer, GetxattrIn, ROOT_ID, Reader, SetxattrExtIn, SetxattrIn};
use crate::server::{Request, Server};
use crate::{Result, record};

/// XATTR_NAME_MAX and XATTR_SIZE_MAX, which is XATTR_LIST_MAX too (linux/limits.h).
const MAX_NAME_LEN: usize = 255;
const MAX_BYTES: usize = 64 << 10;
/// Where access control lists are kept: nothing in the guest would heed them, as FUSE_POSIX_ACL is not offered.
const LISTS: &[u8] = b"system.posix_acl_";

impl Server {
    /// FUSE_SETXATTR.
    pub(crate) fn setxattr(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = SetxattrIn::read(&mut request.arguments)?;
        if self.setxattr_ext.load(Ordering::Relaxed) {
            SetxattrExtIn::read(&mut request.arguments)?;
        }
        let name = name(&mut request.arguments)?;
        if is_reserved(name) {
            return Err(Errno::PERM);
        }
        let size = usize::try_from(input.size).map_err(|_| Errno::INVAL)?;
        if size > MAX_BYTES {
            return Err(Errno::TOOBIG);
        }
        let value = request.arguments.bytes(size)?;
        request.arguments.end()?;
        let flags = XattrFlags::from_bits(input.flags).ok_or(Errno::INVAL)?;
        let node = self.writable(request.header.nodeid)?;
        setxattr(self.links.path(&node.place), name, value, flags)?;
        Ok(Answer::new())
    }

    /// FUSE_GETXATTR.
    pub(crate) fn getxattr(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = GetxattrIn::read(&mut request.arguments)?;
        let name = name(&mut request.arguments)?;
        request.arguments.end()?;
        if request.header.nodeid == ROOT_ID || is_reserved(name) {
            return Err(Errno::NODATA);
        }
        let node = self.nodes.get(request.header.nodeid)?;
        let path = self.links.path(&node.place);
        if input.size == 0 {
            return Ok(length(getxattr_query(path, name)?));
        }
        let mut value = vec![0; MAX_BYTES.min(input.size as usize)];
        let len = getxattr(path, name, &mut *value)?;
        sized(input.size, &value[..len])
    }

    /// FUSE_LISTXATTR.
    pub(crate) fn listxattr(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = GetxattrIn::read(&mut request.arguments)?;
        if request.header.nodeid == ROOT_ID {
            return sized(input.size, b"");
        }
        let node = self.nodes.get(request.header.nodeid)?;
        let mut list = vec![0; MAX_BYTES];
        let len = listxattr(self.links.path(&node.place), &mut *list)?;
        let names = list[..len].split_inclusive(|&byte| byte == 0);
        let shown: Vec<u8> = names
            .filter(|name| !name.starts_with(LISTS) && !name.starts_with(record::RESERVED))
            .flatten()
            .copied()
            .collect();
        sized(input.size, &shown)
    }

    /// FUSE_REMOVEXATTR.
    pub(crate) fn removexattr(&self, mut request: Request<'_>) -> Result<Answer> {
        let name = name(&mut request.arguments)?;
        request.arguments.end()?;
        let node = self.writable(request.header.nodeid)?;
        if is_reserved(name) {
            return Err(Errno::NODATA);
        }
        removexattr(self.links.path(&node.place), name)?;
        Ok(Answer::new())
    }
}

/// An attribute's name.
fn name<'a>(arguments: &mut Reader<'a>) -> Result<&'a CStr> {
    let name = arguments.string()?;
    match name.to_bytes() {
        b"" => Err(Errno::RANGE),
        bytes if bytes.len() > MAX_NAME_LEN => Err(Errno::RANGE),
        bytes if bytes.starts_with(LISTS) => Err(Errno::OPNOTSUPP),
        _ => Ok(name),
    }
}

/// Whether the host keeps something of its own there, whoever serves the share.
fn is_reserved(name: &CStr) -> bool {
    name.to_bytes().starts_with(record::RESERVED)
}

/// The value, or for a size of 0 how long it is.
fn sized(size: u32, value: &[u8]) -> Result<Answer> {
    match size as usize {
        0 => Ok(length(value.len())),
        size if size < value.len() => Err(Errno::RANGE),
        _ => {
            let mut answer = Answer::new();
            answer.bytes(value);
            Ok(answer)
        }
    }
}

/// `struct fuse_getxattr_out`.
fn length(len: usize) -> Answer {
    let mut answer = Answer::new();
    answer.u32(len as u32);
    answer.u32(0);
    answer
}
