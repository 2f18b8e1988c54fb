//! Directory blocks: an array of `struct erofs_dirent` (12 bytes), then the names, packed.
//!
//! Entries are sorted by their names' bytes over the whole directory, `.` and `..` among them,
//! which is what the kernel's binary search needs. No entry crosses a block.

use super::format::{BLOCK_SIZE, u16_at, u64_at};

/// Bytes of `struct erofs_dirent`.
const DIRENT_SIZE: usize = 12;

/// Room that an entry needs in a block.
fn room(name: &[u8]) -> usize {
    DIRENT_SIZE + name.len()
}

/// Bytes of a directory with these names, in order: all blocks but the last are full.
pub(super) fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut full_blocks, mut used) = (0, 0);
    for name in names {
        if used + room(name) > BLOCK_SIZE {
            full_blocks += 1;
            used = 0;
        }
        used += room(name);
    }
    full_blocks * BLOCK_SIZE as u64 + used as u64
}

/// An entry to write.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) nid: u64,
    pub(super) file_type: u8,
}

/// The directory's bytes, as many as [`size`] says.
pub(super) fn encode<'a>(entries: impl Iterator<Item = Dirent<'a>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block: Vec<Dirent<'a>> = Vec::new();
    let mut used = 0;
    for entry in entries {
        if used + room(entry.name) > BLOCK_SIZE {
            encode_block(&block, &mut bytes);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_SIZE), 0);
            block.clear();
            used = 0;
        }
        used += room(entry.name);
        block.push(entry);
    }
    encode_block(&block, &mut bytes);
    bytes
}

fn encode_block(entries: &[Dirent<'_>], to: &mut Vec<u8>) {
    let mut name_offset = (entries.len() * DIRENT_SIZE) as u16;
    for entry in entries {
        to.extend(entry.nid.to_le_bytes());
        to.extend(name_offset.to_le_bytes());
        to.extend([entry.file_type, 0]);
        name_offset += entry.name.len() as u16;
    }
    for entry in entries {
        to.extend(entry.name);
    }
}

/// The entries of one block (the last one cut to the directory's size), or `None` if it is damaged.
pub(super) fn decode_block(block: &[u8]) -> Option<Vec<(&[u8], u64)>> {
    if block.len() < DIRENT_SIZE {
        return None;
    }
    let names_at = usize::from(u16_at(block, 8));
    let count = names_at / DIRENT_SIZE;
    if count == 0 || !names_at.is_multiple_of(DIRENT_SIZE) || names_at > block.len() {
        return None;
    }
    (0..count)
        .map(|i| {
            let dirent = &block[i * DIRENT_SIZE..];
            let start = usize::from(u16_at(dirent, 8));
            let name = match i + 1 == count {
                true => {
                    let rest = block.get(start..)?;
                    &rest[..rest
                        .iter()
                        .position(|&byte| byte == 0)
                        .unwrap_or(rest.len())]
                }
                false => block.get(start..usize::from(u16_at(dirent, DIRENT_SIZE + 8)))?,
            };
            (!name.is_empty()).then_some((name, u64_at(dirent, 0)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_announces_what_encode_writes() {
        for count in [1usize, 3, 200, 341, 342, 5000] {
            let names: Vec<Vec<u8>> = (0..count).map(|i| format!("{i:07}").into_bytes()).collect();
            let entries = names.iter().map(|name| Dirent {
                name,
                nid: 7,
                file_type: 1,
            });
            let bytes = encode(entries);
            assert_eq!(bytes.len() as u64, size(names.iter().map(|n| &n[..])));
            let decoded: Vec<_> = bytes
                .chunks(BLOCK_SIZE)
                .flat_map(|b| decode_block(b).unwrap())
                .collect();
            assert_eq!(decoded.len(), count);
            assert!(
                decoded
                    .iter()
                    .zip(&names)
                    .all(|((name, nid), expected)| name == expected && *nid == 7)
            );
        }
    }

    #[test]
    fn damaged_blocks_are_not_decoded() {
        let good = encode([&b"a"[..], b"b"].into_iter().map(|name| Dirent {
            name,
            nid: 1,
            file_type: 1,
        }));
        assert!(decode_block(&good).is_some());
        assert!(decode_block(&good[..5]).is_none());
        for (at, value) in [(8, 0), (8, 13), (9, 0xff), (20, 0)] {
            let mut damaged = good.clone();
            damaged[at] = value;
            assert!(decode_block(&damaged).is_none(), "byte {at}");
        }
    }
}
