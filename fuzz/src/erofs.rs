//! The EROFS reader on images that nobody wrote. Checked: it ends, in bounded memory.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use image::erofs::{NodeKind, ReadError, Reader};

use crate::input::Input;
use crate::{file_of, layer};

/// The most nodes, names and bytes of files that are looked at: images may hold loops.
const MAX_NODES: usize = 4000;
const MAX_NAMES: usize = 40_000;
const MAX_BYTES: u64 = 32 << 20;

/// What an image holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Walked {
    /// Different inodes.
    pub inodes: u64,
    /// Names.
    pub names: usize,
    /// Sum of all bytes of all files and links.
    pub sum: u64,
}

/// Runs an input: changes to a good image, or a whole one.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut image = match input.u8() & 1 {
        0 => patched(&mut input),
        _ => input.rest().to_vec(),
    };
    image::fuzzing::sign(&mut image);
    let _ = walk(file_of(&image));
}

fn patched(input: &mut Input<'_>) -> Vec<u8> {
    let good = layer::lower();
    let mut image = vec![0; good.metadata().expect("a file").len() as usize];
    good.read_exact_at(&mut image, 0).expect("it is as long");
    while let Some(len) = input.op() {
        let at = usize::from(input.u16()) % image.len();
        let bytes = input.bytes(usize::from(len % 32));
        let len = bytes.len().min(image.len() - at);
        image[at..at + len].copy_from_slice(&bytes[..len]);
    }
    image
}

/// Reads everything that an image has.
pub fn walk(image: File) -> Result<Walked, ReadError> {
    let reader = Reader::open(image)?;
    let mut open = vec![reader.root()?];
    let mut seen = HashSet::from([open[0].nid()]);
    let (mut names, mut sum, mut bytes) = (0, 0u64, 0);
    let mut buffer = vec![0; 64 << 10];
    while let Some(node) = open.pop() {
        for (name, value) in node.metadata.xattrs.iter() {
            sum = sum.wrapping_add((name.len() + value.len()) as u64);
        }
        match node.kind {
            NodeKind::Directory => {
                for entry in reader.entries(&node)? {
                    names += 1;
                    if names > MAX_NAMES || seen.len() > MAX_NODES {
                        return Ok(Walked {
                            inodes: 0,
                            names,
                            sum,
                        });
                    }
                    let child = reader.child(&node, &entry.name)?;
                    if seen.insert(entry.nid) {
                        open.push(reader.node(entry.nid)?);
                    }
                    sum = sum.wrapping_add(child.map_or(0, |child| child.size()));
                }
            }
            NodeKind::File => {
                let mut at = 0;
                while at < node.size() && bytes < MAX_BYTES {
                    let hole = reader.hole_at(&node, at)?;
                    if hole > 0 {
                        at += hole;
                        bytes += 1;
                        continue;
                    }
                    let count = reader.read_at(&node, &mut buffer, at)? as u64;
                    assert!(count > 0, "a file that does not end");
                    let part = &buffer[..count as usize];
                    sum = part.iter().fold(sum, |sum, &byte| {
                        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
                    });
                    at += count;
                    bytes += count;
                }
            }
            NodeKind::Symlink => sum = sum.wrapping_add(reader.read_link(&node)?.len() as u64),
            _ => {}
        }
    }
    Ok(Walked {
        inodes: seen.len() as u64,
        names,
        sum,
    })
}
