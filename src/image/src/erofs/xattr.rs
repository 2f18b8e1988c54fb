//! Extended attributes, stored beside the inode (`erofs_xattr_ibody_header` and
//! `erofs_xattr_entry`).

use super::format::u16_at;

/// Name prefixes and their indexes (`EROFS_XATTR_INDEX_*`). The POSIX ACLs are whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// Bytes of `struct erofs_xattr_ibody_header`.
const HEADER_SIZE: usize = 12;
/// Bytes of `struct erofs_xattr_entry`.
const ENTRY_SIZE: usize = 4;
/// The most bytes that one inode's xattrs take in the image: what Linux allows a single value
/// (XATTR_SIZE_MAX).
pub(super) const MAX_SIZE: usize = 64 << 10;

/// Why an inode cannot have an xattr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// Only `user.`, `trusted.`, `security.` and the POSIX ACLs have a place in EROFS.
    #[error("its namespace does not exist in EROFS")]
    Namespace,
    /// The name is empty after its prefix, longer than 255 bytes, or contains NUL.
    #[error("its name is not valid")]
    Name,
    /// All xattrs of an inode together may take 64 KiB.
    #[error("the xattrs of one file exceed {MAX_SIZE} bytes")]
    TooLarge,
}

/// The xattrs of an inode, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs {
    /// Sorted by name index and name.
    entries: Vec<Entry>,
    /// Bytes that the entries take, without the header.
    entry_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    index: u8,
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    fn encoded_size(&self) -> usize {
        (ENTRY_SIZE + self.name.len() + self.value.len()).next_multiple_of(4)
    }
}

impl Xattrs {
    /// Sets an xattr by its full name, replacing a value that it had.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> Result<(), XattrError> {
        let (index, name) = split(name)?;
        let entry = Entry {
            index,
            name: name.into(),
            value: value.into(),
        };
        let position = self
            .entries
            .binary_search_by(|e| (e.index, &*e.name).cmp(&(index, name)));
        let replaced = position.map_or(0, |at| self.entries[at].encoded_size());
        let entry_bytes = self.entry_bytes - replaced + entry.encoded_size();
        if HEADER_SIZE + entry_bytes > MAX_SIZE || u16::try_from(value.len()).is_err() {
            return Err(XattrError::TooLarge);
        }
        match position {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
        self.entry_bytes = entry_bytes;
        Ok(())
    }

    /// Takes an xattr away.
    pub fn remove(&mut self, name: &[u8]) {
        if let Ok((index, name)) = split(name) {
            self.entries
                .retain(|e| (e.index, &*e.name) != (index, name));
            self.entry_bytes = self.entries.iter().map(Entry::encoded_size).sum();
        }
    }

    /// The value of an xattr.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let (index, name) = split(name).ok()?;
        let at = self
            .entries
            .binary_search_by(|e| (e.index, &*e.name).cmp(&(index, name)))
            .ok()?;
        Some(&self.entries[at].value)
    }

    /// Full names and values.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
        self.entries.iter().map(|e| {
            let prefix = PREFIXES
                .iter()
                .find(|(index, _)| *index == e.index)
                .map_or(&b""[..], |(_, p)| p);
            ([prefix, &e.name].concat(), &*e.value)
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that they take in the image, beside the inode; 0 if there are none.
    pub fn size(&self) -> usize {
        if self.entries.is_empty() {
            return 0;
        }
        HEADER_SIZE + self.entry_bytes
    }

    /// `i_xattr_icount`
    pub(super) fn count(&self) -> u16 {
        match self.size() {
            0 => 0,
            size => ((size - HEADER_SIZE) / 4 + 1) as u16,
        }
    }

    /// Appends the bytes that follow the inode.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        if self.entries.is_empty() {
            return;
        }
        to.extend([0; HEADER_SIZE]);
        for entry in &self.entries {
            to.push(entry.name.len() as u8);
            to.push(entry.index);
            to.extend((entry.value.len() as u16).to_le_bytes());
            to.extend(&*entry.name);
            to.extend(&*entry.value);
            let padding = entry.encoded_size() - ENTRY_SIZE - entry.name.len() - entry.value.len();
            to.extend(&[0; 4][..padding]);
        }
    }

    /// Bytes that follow an inode with this `i_xattr_icount`.
    pub(super) fn size_of(count: u16) -> usize {
        match count {
            0 => 0,
            n => HEADER_SIZE + 4 * (usize::from(n) - 1),
        }
    }

    /// Decodes what [`Self::encode`] wrote; `None` if it is anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Xattrs> {
        let mut xattrs = Xattrs::default();
        if bytes.is_empty() {
            return Some(xattrs);
        }
        if *bytes.get(4)? != 0 {
            return None; // Shared xattrs: not ours.
        }
        let mut rest = bytes.get(HEADER_SIZE..)?;
        while !rest.is_empty() {
            let header = rest.first_chunk::<ENTRY_SIZE>()?;
            let name_end = ENTRY_SIZE + usize::from(header[0]);
            let value_end = name_end + usize::from(u16_at(header, 2));
            let entry = Entry {
                index: header[1],
                name: rest.get(ENTRY_SIZE..name_end)?.into(),
                value: rest.get(name_end..value_end)?.into(),
            };
            PREFIXES.iter().find(|(index, _)| *index == entry.index)?;
            rest = rest.get(entry.encoded_size()..)?;
            xattrs.entry_bytes += entry.encoded_size();
            xattrs.entries.push(entry);
        }
        xattrs
            .entries
            .sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
        Some(xattrs)
    }
}

/// The index of a full name's prefix, and what follows it.
fn split(full: &[u8]) -> Result<(u8, &[u8]), XattrError> {
    let (index, name) = PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, prefix, full.strip_prefix(*prefix)?)))
        .and_then(|(index, prefix, name)| {
            (prefix.ends_with(b".") || name.is_empty()).then_some((index, name))
        })
        .ok_or(XattrError::Namespace)?;
    // The kernel's XATTR_NAME_MAX is 255 for the full name, which leaves the rest below 256.
    if full.len() > 255 || full.contains(&0) || full.ends_with(b".") && name.is_empty() {
        return Err(XattrError::Name);
    }
    Ok((index, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_of_erofs_survives_encoding() {
        let mut xattrs = Xattrs::default();
        for name in [
            "user.mime_type",
            "trusted.overlay.opaque",
            "security.capability",
            "system.posix_acl_access",
            "system.posix_acl_default",
        ] {
            xattrs.set(name.as_bytes(), name.as_bytes()).unwrap();
        }
        xattrs.set(b"user.empty", b"").unwrap();
        xattrs.set(b"user.empty", b"").unwrap();
        let mut bytes = Vec::new();
        xattrs.encode(&mut bytes);
        assert_eq!(bytes.len(), xattrs.size());
        assert_eq!(bytes.len(), Xattrs::size_of(xattrs.count()));
        assert_eq!(Xattrs::decode(&bytes), Some(xattrs.clone()));
        assert_eq!(xattrs.iter().count(), 6);
        assert_eq!(
            xattrs.get(b"security.capability"),
            Some(&b"security.capability"[..])
        );
    }

    #[test]
    fn what_erofs_cannot_hold_is_refused() {
        let mut xattrs = Xattrs::default();
        assert_eq!(
            xattrs.set(b"system.nfs4_acl", b""),
            Err(XattrError::Namespace)
        );
        assert_eq!(
            xattrs.set(b"system.posix_acl_accessory", b""),
            Err(XattrError::Namespace)
        );
        assert_eq!(xattrs.set(b"noprefix", b""), Err(XattrError::Namespace));
        assert_eq!(xattrs.set(b"user.", b""), Err(XattrError::Name));
        assert_eq!(xattrs.set(b"user.a\0b", b""), Err(XattrError::Name));
        assert_eq!(
            xattrs.set(&[b"user.".as_slice(), &[b'x'; 251]].concat(), b""),
            Err(XattrError::Name)
        );
        assert_eq!(
            xattrs.set(b"user.big", &vec![0; 65536]),
            Err(XattrError::TooLarge)
        );
        xattrs.set(b"user.a", &vec![0; 60_000]).unwrap();
        assert_eq!(
            xattrs.set(b"user.b", &vec![0; 6_000]),
            Err(XattrError::TooLarge)
        );
        xattrs.set(b"user.a", &vec![1; 65_000]).unwrap();
        assert!(xattrs.size() <= MAX_SIZE);
    }

    #[test]
    fn damaged_xattrs_are_not_decoded() {
        let mut xattrs = Xattrs::default();
        xattrs.set(b"user.name", b"value").unwrap();
        let mut bytes = Vec::new();
        xattrs.encode(&mut bytes);
        for (at, value) in [(4, 1), (12, 200), (13, 99), (15, 1)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Xattrs::decode(&damaged), None, "byte {at}");
        }
    }
}
