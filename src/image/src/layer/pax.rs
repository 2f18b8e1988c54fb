//! PAX extended headers (POSIX.1-2017, pax, "pax Extended Header"), with GNU's and star's records.

use std::collections::BTreeMap;

use crate::erofs::Timestamp;

use super::tar::TarError;

/// The records of one or several headers. `None` where a record is absent or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    /// `SCHILY.xattr.*`, names without that prefix.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.*`
    pub(super) sparse: PaxSparse,
}

/// GNU's records for sparse files, formats 0.0, 0.1 and 1.0 (tar manual, "Storing Sparse Files").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`
    pub(super) size: Option<u64>,
    /// Offsets and lengths in turn, from `GNU.sparse.map` or `GNU.sparse.offset` and
    /// `GNU.sparse.numbytes`.
    pub(super) map: Vec<u64>,
}

impl Pax {
    /// Adds a header's records; later records replace earlier ones.
    pub(super) fn add(&mut self, mut body: &[u8]) -> Result<(), TarError> {
        while !body.is_empty() {
            let (key, value, rest) = record(body).ok_or(TarError::Pax)?;
            self.set(key, value).ok_or(TarError::Pax)?;
            body = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = bytes(value),
            b"linkpath" => self.link = bytes(value),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?.map(u32::try_from).transpose().ok()?,
            b"gid" => self.gid = number(value)?.map(u32::try_from).transpose().ok()?,
            b"mtime" => self.mtime = timestamp(value)?,
            b"GNU.sparse.major" => self.sparse.major = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = bytes(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // Each pair is an offset, then a length.
                let expected = if key.ends_with(b"offset") { 0 } else { 1 };
                (self.sparse.map.len() % 2 == expected).then_some(())?;
                self.sparse.map.push(number(value)??);
            }
            b"GNU.sparse.map" => {
                let numbers = value
                    .split(|&byte| byte == b',')
                    .filter(|number| !number.is_empty());
                self.sparse.map = numbers
                    .map(|n| number(n).flatten())
                    .collect::<Option<_>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.to_vec(), value.to_vec());
                }
            }
        }
        Some(())
    }

    /// These records, overridden by those of `local`.
    pub(super) fn overridden_by(&self, local: Pax) -> Pax {
        let mut xattrs = self.xattrs.clone();
        xattrs.extend(local.xattrs);
        Pax {
            path: local.path.or_else(|| self.path.clone()),
            link: local.link.or_else(|| self.link.clone()),
            size: local.size.or(self.size),
            uid: local.uid.or(self.uid),
            gid: local.gid.or(self.gid),
            mtime: local.mtime.or(self.mtime),
            xattrs,
            sparse: local.sparse,
        }
    }
}

/// Splits the first record, `LENGTH KEY=VALUE\n`, from the rest.
fn record(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = body.iter().position(|&byte| byte == b' ')?;
    let len = usize::try_from(number(&body[..space])??).ok()?;
    let (record, rest) = body.split_at_checked(len)?;
    let (newline, key_value) = record.get(space + 1..)?.split_last()?;
    let equals = key_value.iter().position(|&byte| byte == b'=')?;
    (*newline == b'\n' && equals > 0).then_some((
        &key_value[..equals],
        &key_value[equals + 1..],
        rest,
    ))
}

fn bytes(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// A decimal number, `Some(None)` for the empty string.
fn number(value: &[u8]) -> Option<Option<u64>> {
    if value.is_empty() {
        return Some(None);
    }
    decimal(value).map(Some)
}

/// Digits and nothing else.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

/// `[-]SECONDS[.FRACTION]`, `Some(None)` for the empty string. Digits beyond nanoseconds are cut
/// off.
fn timestamp(value: &[u8]) -> Option<Option<Timestamp>> {
    if value.is_empty() {
        return Some(None);
    }
    let (negative, unsigned) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = unsigned.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut fraction = parts.next().unwrap_or_default().to_vec();
    fraction.truncate(9);
    fraction.resize(9, b'0');
    let nanoseconds = decimal(&fraction)? as u32;
    Some(Some(match (negative, nanoseconds) {
        (false, _) => Timestamp {
            seconds,
            nanoseconds,
        },
        (true, 0) => Timestamp {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Timestamp {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Pax, TarError> {
        let mut pax = Pax::default();
        pax.add(body).map(|()| pax)
    }

    #[test]
    fn records_may_contain_newlines_and_equals_signs() {
        let pax = parse(b"16 path=a\nb=c\nd\n28 SCHILY.xattr.user.k=\0v\n1\n").unwrap();
        assert_eq!(pax.path.unwrap(), b"a\nb=c\nd");
        assert_eq!(
            pax.xattrs,
            BTreeMap::from([(b"user.k".to_vec(), b"\0v\n1".to_vec())])
        );
    }

    #[test]
    fn times_are_kept_to_the_nanosecond_on_both_sides_of_1970() {
        let time = |text: &[u8]| timestamp(text).unwrap().unwrap();
        assert_eq!(
            time(b"1.5"),
            Timestamp {
                seconds: 1,
                nanoseconds: 500_000_000
            }
        );
        assert_eq!(
            time(b"1700000000.1234567899"),
            Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: 123_456_789
            }
        );
        assert_eq!(
            time(b"-1.25"),
            Timestamp {
                seconds: -2,
                nanoseconds: 750_000_000
            }
        );
        assert_eq!(
            time(b"-3"),
            Timestamp {
                seconds: -3,
                nanoseconds: 0
            }
        );
        for wrong in [&b"x"[..], b"1.x", b"--1", b"1e9", b"99999999999999999999"] {
            assert_eq!(timestamp(wrong), None);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for body in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n ",
            b"99 path=a\n",
            b"3 \n",
            b"5 =b\n",
            b"18446744073709551616 path=a\n",
            b"9 size=x\n",
            b"21 GNU.sparse.map=1,x\n",
            b"24 GNU.sparse.numbytes=1\n",
        ] {
            assert!(
                matches!(parse(body), Err(TarError::Pax)),
                "{:?}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn an_entrys_own_records_override_the_global_ones() {
        let global = parse(b"8 uid=7\n8 gid=8\n").unwrap();
        let local = parse(b"8 gid=9\n").unwrap();
        let both = global.overridden_by(local);
        assert_eq!((both.uid, both.gid), (Some(7), Some(9)));
    }
}
