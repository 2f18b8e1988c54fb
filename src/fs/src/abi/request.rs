//! What a guest sends.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::Result;
use crate::name::Name;

/// A request's bytes, read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*array)
    }

    /// A string up to its NUL.
    pub(crate) fn string(&mut self) -> Result<&'a CStr> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[string.to_bytes_with_nul().len()..];
        Ok(string)
    }

    /// The name of an entry of a directory.
    pub(crate) fn name(&mut self) -> Result<Name<'a>> {
        Name::new(self.string()?)
    }

    /// Exactly `len` bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Nothing may follow: a string with a NUL in it would be another than the guest meant.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }
}

trait Field: Sized {
    fn read(reader: &mut Reader<'_>) -> Result<Self>;
}

macro_rules! fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn read(reader: &mut Reader<'_>) -> Result<Self> {
                Ok(Self::from_le_bytes(reader.array()?))
            }
        }
    )*};
}

fields!(u16, u32, u64);

/// Structures by their fields in the header's order; what is not used is `_`, a number's type for its place.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($parts:tt)* })*) => {$(
        structures!(@define [$(#[$doc])*] $name [] [] $($parts)*);
    )*};
    (@define [$($doc:tt)*] $name:ident [$($field:ident: $type:ty,)*] [$($read:tt)*] _: $skipped:ty, $($rest:tt)*) => {
        structures!(@define [$($doc)*] $name [$($field: $type,)*] [$($read)* (_ $skipped)] $($rest)*);
    };
    (@define [$($doc:tt)*] $name:ident [$($field:ident: $type:ty,)*] [$($read:tt)*] $new:ident: $new_type:ty, $($rest:tt)*) => {
        structures!(@define [$($doc)*] $name [$($field: $type,)* $new: $new_type,] [$($read)* ($new $new_type)] $($rest)*);
    };
    (@define [$($doc:tt)*] $name:ident [$($field:ident: $type:ty,)*] [$($read:tt)*]) => {
        $($doc)*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl $name {
            pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
                $(structures!(@read reader $read);)*
                Ok(Self { $($field),* })
            }
        }
    };
    (@read $reader:ident (_ $type:ty)) => {
        <$type as Field>::read($reader)?;
    };
    (@read $reader:ident ($field:ident $type:ty)) => {
        let $field = <$type as Field>::read($reader)?;
    };
}

structures! {
    /// `struct fuse_in_header`.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, _: u32, _: u16, _: u16, }
    /// `struct fuse_init_in`, as far as every version has it.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// `struct fuse_forget_in`.
    ForgetIn { nlookup: u64, }
    /// `struct fuse_batch_forget_in`.
    BatchForgetIn { count: u32, _: u32, }
    /// `struct fuse_forget_one`.
    ForgetOne { nodeid: u64, nlookup: u64, }
    /// `struct fuse_setattr_in`.
    SetattrIn {
        valid: u32, _: u32, fh: u64, size: u64, _: u64, atime: u64, mtime: u64, _: u64,
        atimensec: u32, mtimensec: u32, _: u32, mode: u32, _: u32, uid: u32, gid: u32, _: u32,
    }
    /// `struct fuse_mknod_in`.
    MknodIn { mode: u32, rdev: u32, _: u32, _: u32, }
    /// `struct fuse_mkdir_in`.
    MkdirIn { mode: u32, _: u32, }
    /// `struct fuse_rename_in`.
    RenameIn { newdir: u64, }
    /// `struct fuse_rename2_in`.
    Rename2In { newdir: u64, flags: u32, _: u32, }
    /// `struct fuse_link_in`.
    LinkIn { oldnodeid: u64, }
    /// `struct fuse_open_in`.
    OpenIn { flags: u32, _: u32, }
    /// `struct fuse_create_in`.
    CreateIn { flags: u32, mode: u32, _: u32, _: u32, }
    /// `struct fuse_release_in`.
    ReleaseIn { fh: u64, _: u32, _: u32, _: u64, }
    /// `struct fuse_flush_in`.
    FlushIn { fh: u64, _: u32, _: u32, _: u64, }
    /// `struct fuse_read_in`, of a directory.
    ReadIn { fh: u64, offset: u64, size: u32, _: u32, _: u64, _: u32, _: u32, }
    /// `struct fuse_fsync_in`.
    FsyncIn { fh: u64, fsync_flags: u32, _: u32, }
    /// `struct fuse_setxattr_in` without FUSE_SETXATTR_EXT.
    SetxattrIn { size: u32, flags: u32, }
    /// What FUSE_SETXATTR_EXT adds to it.
    SetxattrExtIn { _: u32, _: u32, }
    /// `struct fuse_getxattr_in`.
    GetxattrIn { size: u32, _: u32, }
    /// `struct fuse_access_in`.
    AccessIn { mask: u32, _: u32, }
    /// `struct fuse_fallocate_in`.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, _: u32, }
    /// `struct fuse_lseek_in`.
    LseekIn { fh: u64, offset: u64, whence: u32, _: u32, }
    /// `struct fuse_copy_file_range_in`.
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64, }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length of `struct fuse_in_header`.
    const IN_HEADER_LEN: usize = 40;

    #[test]
    fn fields_are_read_in_the_headers_order() {
        let mut bytes = Vec::new();
        for number in [40u32, 26] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [7u64, 1] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [1000u32, 100, 4321, 0] {
            bytes.extend(number.to_le_bytes());
        }
        assert_eq!(bytes.len(), IN_HEADER_LEN);
        let mut reader = Reader::new(&bytes);
        let header = InHeader::read(&mut reader).unwrap();
        assert_eq!(
            (header.len, header.opcode, header.unique, header.nodeid),
            (40, 26, 7, 1)
        );
        assert_eq!((header.uid, header.gid), (1000, 100));
        assert_eq!(reader.end(), Ok(()));
        for short in 0..IN_HEADER_LEN {
            let cut = InHeader::read(&mut Reader::new(&bytes[..short]));
            assert_eq!(cut.unwrap_err(), Errno::INVAL);
        }
    }

    #[test]
    fn strings_end_with_a_nul() {
        let mut reader = Reader::new(b"one\0two");
        assert_eq!(reader.string().unwrap(), c"one");
        assert_eq!(reader.string().unwrap_err(), Errno::INVAL);
    }
}
