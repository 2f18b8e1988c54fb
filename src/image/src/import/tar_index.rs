//! An index of an archive's tar: names to offsets, from the headers alone.
//!
//! POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's long names
//! and base-256 numbers. Only plain files and symbolic links are entered, and names that lead out
//! of the archive are refused. The layers' own tars are not read here: that is the converter's
//! work.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Error;

const BLOCK: u64 = 512;
/// How much of a stream is examined to detect its kind: the headers of its first entries.
pub(super) const HEAD_LEN: usize = 4 << 10;
/// The most entries of an archive of images: each image has a few dozen.
const MAX_ENTRIES: usize = 100_000;
/// The largest extended header or long name, in bytes.
const MAX_EXTENDED_LEN: u64 = 64 << 10;
/// Top folders that a root file system has and an archive of images does not.
const ROOTFS_FOLDERS: [&str; 6] = ["bin", "dev", "etc", "lib", "sbin", "usr"];

/// The kind of a tar.
pub(super) enum Verdict {
    Archive(TarIndex),
    RootFs,
}

/// The files of a tar.
#[derive(Default)]
pub(super) struct TarIndex(HashMap<String, Place>);

enum Place {
    File { offset: u64, size: u64 },
    Link { target: String },
}

/// One header, with the extended headers before it applied.
struct Entry {
    name: String,
    link: String,
    kind: u8,
    size: u64,
    /// Of its data.
    offset: u64,
}

impl TarIndex {
    /// Reads a tar's headers. The outer error is the file's.
    pub(super) fn read(file: &File) -> io::Result<Result<Verdict, Error>> {
        let length = file.metadata()?.len();
        let mut headers = Headers {
            file,
            length,
            offset: 0,
            extended: Extended::default(),
        };
        let mut index = TarIndex::default();
        let mut entries = 0;
        loop {
            let entry = match headers.next()? {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            entries += 1;
            let name = match clean(&entry.name) {
                Ok(name) => name,
                Err(error) => return Ok(Err(error)),
            };
            let top = name.split('/').next().unwrap_or_default();
            if entries > MAX_ENTRIES || ROOTFS_FOLDERS.contains(&top) {
                return Ok(Ok(Verdict::RootFs));
            }
            match entry.kind {
                b'0' | 0 | b'7' => {
                    index.0.insert(
                        name,
                        Place::File {
                            offset: entry.offset,
                            size: entry.size,
                        },
                    );
                }
                b'2' => {
                    index.0.insert(name, Place::Link { target: entry.link });
                }
                // A hard link to a file before it; its target counts from the top.
                b'1' => {
                    if let Some((offset, size)) = index.find(&entry.link) {
                        index.0.insert(name, Place::File { offset, size });
                    }
                }
                _ => {}
            }
        }
        if entries == 0 {
            return Ok(Err(Error::NotAnImage));
        }
        let archive = index.0.contains_key("manifest.json") || index.0.contains_key("oci-layout");
        Ok(Ok(if archive {
            Verdict::Archive(index)
        } else {
            Verdict::RootFs
        }))
    }

    /// Offset and size of a file, reached perhaps by one symbolic link (old `docker save` made them
    /// for layers that several images share).
    pub(super) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let name = clean(name).ok()?;
        match self.0.get(&name)? {
            Place::File { offset, size } => Some((*offset, *size)),
            Place::Link { target } => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                match self.0.get(&resolve(folder, target)?)? {
                    Place::File { offset, size } => Some((*offset, *size)),
                    Place::Link { .. } => None,
                }
            }
        }
    }
}

/// Whether a stream begins like an archive of images: with a file of a known name.
pub(super) fn begins_archive(head: &[u8]) -> Result<bool, Error> {
    let mut blocks = head.chunks_exact(BLOCK as usize);
    let Some(first) = blocks.next() else {
        return Err(Error::NotAnImage);
    };
    if !checksum_holds(first) {
        return Err(Error::NotAnImage);
    }
    let name_of = |block: &[u8]| clean(&ustar_name(block)).unwrap_or_default();
    let mut name = name_of(first);
    // An entry for the folder itself has no data, so the next header follows.
    if name.is_empty() {
        name = blocks
            .next()
            .filter(|block| checksum_holds(block))
            .map(name_of)
            .unwrap_or_default();
    }
    let top = name.split('/').next().unwrap_or_default();
    let hexadecimal = top.len() >= 64 && top.bytes().take(64).all(|b| b.is_ascii_hexdigit());
    let known = [
        "blobs",
        "oci-layout",
        "index.json",
        "manifest.json",
        "repositories",
    ];
    Ok(known.contains(&top) || hexadecimal || top.starts_with("sha256:"))
}

/// Extended headers that apply to the next entry.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

struct Headers<'a> {
    file: &'a File,
    length: u64,
    offset: u64,
    extended: Extended,
}

impl Headers<'_> {
    /// The next entry, past extended headers; `None` at the end.
    fn next(&mut self) -> io::Result<Result<Option<Entry>, Error>> {
        loop {
            let at = self.offset;
            let malformed = || Ok(Err(Error::Malformed { offset: at }));
            if self.length.saturating_sub(at) < BLOCK {
                // A tar without its two blocks of zeros ends at the file's end; half a block is
                // damage.
                return match at == self.length && at > 0 {
                    true => Ok(Ok(None)),
                    false if at == 0 => Ok(Err(Error::NotAnImage)),
                    false => malformed(),
                };
            }
            let mut block = [0; BLOCK as usize];
            self.file.read_exact_at(&mut block, at)?;
            if block.iter().all(|&b| b == 0) {
                return Ok(Ok(None));
            }
            if !checksum_holds(&block) {
                return if at == 0 {
                    Ok(Err(Error::NotAnImage))
                } else {
                    malformed()
                };
            }
            let Some(own_size) = number(&block[124..136]) else {
                return malformed();
            };
            let kind = block[156];
            let data = at + BLOCK;
            let size = match kind {
                b'L' | b'K' | b'x' | b'g' => own_size,
                _ => self.extended.size.unwrap_or(own_size),
            };
            let end = size
                .checked_next_multiple_of(BLOCK)
                .and_then(|size| data.checked_add(size));
            match end {
                // The last padding may be missing.
                Some(end) if data + size <= self.length => self.offset = end.min(self.length),
                _ => return malformed(),
            }
            match kind {
                b'L' | b'K' | b'x' => {
                    if size > MAX_EXTENDED_LEN {
                        return Ok(Err(Error::HeaderTooLarge {
                            offset: at,
                            bytes: size,
                        }));
                    }
                    let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
                    self.file.read_exact_at(&mut text, data)?;
                    if self.extended.add(kind, &text).is_none() {
                        return malformed();
                    }
                }
                b'g' => {}
                _ => {
                    let extended = std::mem::take(&mut self.extended);
                    return Ok(Ok(Some(Entry {
                        name: extended.name.unwrap_or_else(|| ustar_name(&block)),
                        link: extended.link.unwrap_or_else(|| text(&block[157..257])),
                        kind,
                        size,
                        offset: data,
                    })));
                }
            }
        }
    }
}

impl Extended {
    /// Takes in an extended header; `None` if it is malformed.
    fn add(&mut self, kind: u8, contents: &[u8]) -> Option<()> {
        match kind {
            b'L' => self.name = Some(text(contents)),
            b'K' => self.link = Some(text(contents)),
            _ => {
                let mut rest = contents;
                while !rest.is_empty() {
                    // "LENGTH KEY=VALUE\n", LENGTH counting all of it.
                    let space = rest.iter().position(|&b| b == b' ')?;
                    let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
                    let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
                    rest = &rest[length..];
                    let equals = record.iter().position(|&b| b == b'=')?;
                    let value = String::from_utf8_lossy(&record[equals + 1..]).into_owned();
                    match &record[..equals] {
                        b"path" => self.name = Some(value),
                        b"linkpath" => self.link = Some(value),
                        b"size" => self.size = Some(value.parse().ok()?),
                        _ => {}
                    }
                }
            }
        }
        Some(())
    }
}

/// The header's sum with its own field taken as spaces, in either signedness as old tars wrote it.
fn checksum_holds(block: &[u8]) -> bool {
    let Some(stated) = number(&block[148..156]) else {
        return false;
    };
    let (mut unsigned, mut signed) = (0u64, 0i64);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) { b' ' } else { byte };
        unsigned += u64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    stated == unsigned || i64::try_from(stated) == Ok(signed)
}

/// Octal digits between blanks, or GNU's base-256.
fn number(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        // Behind the mark comes a number that may be longer than ours, or negative.
        let sum = rest.iter().try_fold(0u64, |sum, &byte| {
            Some(sum.checked_mul(256)? + u64::from(byte))
        });
        return sum.filter(|_| *first == 0x80);
    }
    let digits = text(field);
    let digits = digits.trim_matches(' ');
    if digits.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(digits, 8).ok()
    }
}

/// The text before the first NUL.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn ustar_name(block: &[u8]) -> String {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    // GNU's headers have other things where POSIX has the prefix.
    match &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        true => format!("{prefix}/{name}"),
        false => name,
    }
}

/// A name without `.` components, or an error if it leads out.
fn clean(name: &str) -> Result<String, Error> {
    let unsafe_name = || Error::UnsafeName {
        name: name.chars().take(200).collect(),
    };
    if name.starts_with('/') {
        return Err(unsafe_name());
    }
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    match parts.contains(&"..") {
        true => Err(unsafe_name()),
        false => Ok(parts.join("/")),
    }
}

/// The target of a link in `folder`, if it stays inside the archive.
fn resolve(folder: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests;
