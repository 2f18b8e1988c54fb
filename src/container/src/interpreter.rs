//! The missing file when execve fails with ENOENT though the command exists: the interpreter that a script's first line
//! or an ELF file's program header names.
//!
//! Invariants: nothing is read beyond what the kernel reads of such a file; a file that is neither has no interpreter.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Bytes of a file that the kernel looks at for `#!` (BINPRM_BUF_SIZE).
const HEAD_LEN: usize = 256;
/// How many interpreters of interpreters the kernel follows (fs/exec.c: exec_binprm).
const MAX_DEPTH: usize = 5;

// elf(5), for 64 bits.
const ELF_HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
const PT_INTERP: u32 = 3;
/// The most program headers (ELF_MAX_PROGRAM_HEADERS, 64 KiB of them).
const MAX_PROGRAM_HEADERS: u16 = 1170;
const PATH_MAX: u64 = 4096;

/// The first missing file among a command's interpreters, if it is there itself.
pub(crate) fn missing(command: &Path) -> Option<PathBuf> {
    let mut path = command.to_owned();
    for _ in 0..MAX_DEPTH {
        path = of(&path)?;
        if rustix::fs::stat(&path).is_err() {
            return Some(path);
        }
    }
    None
}

/// The interpreter that a file names.
fn of(path: &Path) -> Option<PathBuf> {
    // Not blocking: the file may be of any kind.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat(CWD, path, flags, Mode::empty()).ok()?;
    let mode = fstat(&file).ok()?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return None;
    }
    let mut file = File::from(file);
    let mut head = [0; HEAD_LEN];
    let len = file.read(&mut head).ok()?;
    let head = &head[..len];
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line);
    }
    elf(&file, head)
}

fn script(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|&byte| byte == b'\n' || byte == 0).next()?;
    let mut words = line.split(|&byte| byte == b' ' || byte == b'\t');
    let word = words.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

fn elf(file: &File, head: &[u8]) -> Option<PathBuf> {
    // 64 bits, little-endian.
    if head.len() < ELF_HEADER_LEN || !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = number(head, 32, 8)?;
    let count = number(head, 56, 2)? as u16;
    if number(head, 54, 2)? != PROGRAM_HEADER_LEN as u64 || count > MAX_PROGRAM_HEADERS {
        return None;
    }
    for index in 0..u64::from(count) {
        let mut header = [0; PROGRAM_HEADER_LEN];
        let offset = table.checked_add(index * PROGRAM_HEADER_LEN as u64)?;
        file.read_exact_at(&mut header, offset).ok()?;
        if number(&header, 0, 4)? != u64::from(PT_INTERP) {
            continue;
        }
        let (offset, len) = (number(&header, 8, 8)?, number(&header, 32, 8)?);
        if !(2..=PATH_MAX).contains(&len) {
            return None;
        }
        let mut path = vec![0; len as usize];
        file.read_exact_at(&mut path, offset).ok()?;
        let path = path.split(|&byte| byte == 0).next()?;
        return Some(PathBuf::from(OsStr::from_bytes(path)));
    }
    None
}

/// A little-endian number of `len` bytes.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..len].copy_from_slice(bytes.get(at..at + len)?);
    Some(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    /// An ELF file with one program header, PT_INTERP.
    fn program(interpreter: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; ELF_HEADER_LEN + PROGRAM_HEADER_LEN];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = ELF_HEADER_LEN as u8;
        elf[54] = PROGRAM_HEADER_LEN as u8;
        elf[56] = 1;
        let header = &mut elf[ELF_HEADER_LEN..];
        header[0] = PT_INTERP as u8;
        header[8] = (ELF_HEADER_LEN + PROGRAM_HEADER_LEN) as u8;
        header[32] = interpreter.len() as u8;
        elf.extend(interpreter);
        elf
    }

    #[test]
    fn the_missing_interpreter_is_named() {
        for (content, expected) in [
            (&b"#! /no/such -x\n"[..], Some("/no/such")),
            (b"#!/no/such", Some("/no/such")),
            (b"#!/bin/sh\n", None),
            (b"#!\n", None),
            (b"", None),
            (b"\x7fELF", None),
        ] {
            let file = file(content);
            assert_eq!(missing(file.path()).as_deref(), expected.map(Path::new));
        }
        let elf = file(&program(b"/lib/ld-none.so\0"));
        assert_eq!(
            missing(elf.path()).as_deref(),
            Some(Path::new("/lib/ld-none.so"))
        );
        let script = file(format!("#!{}\n", elf.path().display()).as_bytes());
        assert_eq!(
            missing(script.path()).as_deref(),
            Some(Path::new("/lib/ld-none.so"))
        );
    }

    #[test]
    fn a_malformed_program_names_nothing() {
        let whole = program(b"/lib/ld-none.so\0");
        for len in 0..whole.len() {
            assert_eq!(missing(file(&whole[..len]).path()), None, "{len}");
        }
        for at in 0..ELF_HEADER_LEN + PROGRAM_HEADER_LEN {
            let mut bytes = whole.clone();
            bytes[at] = 0xff;
            missing(file(&bytes).path());
        }
    }

    #[test]
    fn scripts_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loop");
        std::fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        assert_eq!(missing(&path), None);
    }
}
