//! What is recorded of a file whose owner the host cannot keep: the value of one extended attribute.
//!
//! ```text
//! 1:UID:GID:MODE            1:1000:1000:0640
//! 1:UID:GID:MODE:S.NS       1:0:0:4755:1764465000.000000007
//! ```
//!
//! The version, then numbers in decimal without leading zeros, then the mode's twelve bits as four octal digits. A regular
//! file that is set-user-ID or set-group-ID has its time of last change behind it: the bits hold for what the file had in it
//! when they were set. Invariant: there is one way to write a record; whatever reads otherwise is none.

use std::fmt;

use rustix::io::Errno;

use crate::Result;

/// The attribute. Not one of `trusted.` or `security.`, which take rights that an ordinary user has in no namespace.
pub(crate) const NAME: &str = "user.hull.owner";
/// Attributes that are hull's: a guest neither sees nor sets any.
pub(crate) const RESERVED: &[u8] = b"user.hull.";
/// The longest value: two numbers of 10 digits, the mode, and a time of 20 and 9 digits.
pub(crate) const MAX_LEN: usize = 2 + 11 + 11 + 4 + 1 + 20 + 1 + 9;
/// What is written, and all that is read.
const VERSION: &str = "1";
/// The bits of a mode that are not its type's.
const MODE_BITS: u32 = 0o7777;
/// In a second.
const NANOSECONDS: u32 = 1_000_000_000;
/// The number of no user and of no group.
const NONE: u32 = u32::MAX;

/// A time: seconds and nanoseconds.
pub(crate) type Time = (i64, u32);

/// A file's owner and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Without the type.
    pub(crate) mode: u32,
}

/// What the attribute says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) owner: Owner,
    /// For as long as the file's last change is this one its set-ID bits hold.
    pub(crate) unchanged_since: Option<Time>,
}

impl Record {
    /// Reads a value. EIO if it is not one that [`Record`] writes: of a later version, foreign or damaged.
    pub(crate) fn parse(value: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(value).map_err(|_| Errno::IO)?;
        let record = Self::fields(text).ok_or(Errno::IO)?;
        let is_valid = record.owner.uid != NONE
            && record.owner.gid != NONE
            && record.owner.mode & !MODE_BITS == 0
            && record
                .unchanged_since
                .is_none_or(|(_, ns)| ns < NANOSECONDS)
            && record.to_string() == text;
        if is_valid { Ok(record) } else { Err(Errno::IO) }
    }

    fn fields(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        if fields.next()? != VERSION {
            return None;
        }
        let owner = Owner {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            mode: u32::from_str_radix(fields.next()?, 8).ok()?,
        };
        let unchanged_since = match fields.next() {
            None => None,
            Some(time) => {
                let (seconds, nanoseconds) = time.split_once('.')?;
                Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
            }
        };
        let ends = fields.next().is_none();
        ends.then_some(Self {
            owner,
            unchanged_since,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { uid, gid, mode } = self.owner;
        write!(f, "{VERSION}:{uid}:{gid}:{mode:04o}")?;
        match self.unchanged_since {
            Some((seconds, nanoseconds)) => write!(f, ":{seconds}.{nanoseconds:09}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (uid, gid, mode) in (0..NONE, 0..NONE, 0..=MODE_BITS),
            unchanged_since in prop::option::of((any::<i64>(), 0..NANOSECONDS)),
        ) {
            let record = Record { owner: Owner { uid, gid, mode }, unchanged_since };
            let text = record.to_string();
            prop_assert!(text.len() <= MAX_LEN);
            prop_assert_eq!(Record::parse(text.as_bytes()), Ok(record));
        }

        #[test]
        fn nothing_else_is_read(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Ok(record) = Record::parse(&bytes) {
                prop_assert_eq!(record.to_string().into_bytes(), bytes);
            }
        }
    }

    #[test]
    fn later_versions_and_other_spellings_are_no_records() {
        for bad in [
            "",
            "1",
            "2:0:0:0644",
            "1:0:0",
            "1:0:0:644",
            "1:0:0:00644",
            "1:0:0:10644",
            "1:0:0:0648",
            "1:00:0:0644",
            "1:+1:0:0644",
            "1:-1:0:0644",
            "1:4294967295:0:0644",
            "1:0:4294967296:0644",
            "1:0:0:0644:",
            "1:0:0:0644\n",
            "1:0:0:0644\0",
            "1:0:0:4755:1.5",
            "1:0:0:4755:1.1000000000",
            "1:0:0:4755:1.000000005:",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), Err(Errno::IO), "{bad:?}");
        }
        assert_eq!(Record::parse(b"1:0:0:\xff644"), Err(Errno::IO));
    }
}
