//! Names of entries of directories.

use std::ffi::CStr;

use rustix::io::Errno;

use crate::Result;

/// NAME_MAX (limits.h): no file system of Linux has longer ones.
const MAX_LEN: usize = 255;

/// One component of a path, which leads from a directory to an entry of it and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Refuses what is not the name of an entry: nothing at all, `.`, `..`, anything with a slash (EINVAL; an honest kernel
    /// sends none of these), and what is too long (ENAMETOOLONG).
    pub(crate) fn new(name: &'a CStr) -> Result<Self> {
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > MAX_LEN => Err(Errno::NAMETOOLONG),
            _ => Ok(Self(name)),
        }
    }

    pub(crate) fn as_c_str(self) -> &'a CStr {
        self.0
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.0.to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    #[test]
    fn a_name_leads_to_an_entry_and_nowhere_else() {
        for bad in [c"", c".", c"..", c"/", c"a/b", c"../x", c"x/..", c"/etc"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL), "{bad:?}");
        }
        for good in [c"a", c"...", c"..a", c".hidden", c"a b\n", c"\xff\xfe"] {
            assert_eq!(Name::new(good).unwrap().as_c_str(), good);
        }
        let longest = CString::new([b'x'; 255]).unwrap();
        assert!(Name::new(&longest).is_ok());
        let longer = CString::new([b'x'; 256]).unwrap();
        assert_eq!(Name::new(&longer), Err(Errno::NAMETOOLONG));
    }
}
