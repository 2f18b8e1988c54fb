//! The files of a rotated log as one sequence of lines, which may be rotated further while it is read.
//!
//! ```text
//! after each read: is the newest file that is open still named by the path?
//!   no: it is found among .1, .2, …; those after it are opened, before a further rotation removes them
//! at the end of a file: has anything been written to one after it?
//!   no: no more for now. Its writer may not know yet that it was rotated
//!   yes: it is read to its end once more, and the one after it is next
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::files;

/// Read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// A longer line is none of ours: it is passed over. (Docker's lines have at most 16 KiB, six bytes each in JSON.)
const MAX_LINE_BYTES: usize = 1 << 20;
/// Files that are kept open at most. A reader that is further behind loses what is rotated away, rather than hold its room
/// on the disk.
const MAX_OPEN: usize = 16;
/// Log files beyond this number are not looked for.
const MAX_FILES: u32 = 1000;

/// The files that are still to be read.
#[derive(Debug)]
pub(super) struct Chain {
    path: PathBuf,
    /// Oldest first; the first is being read. The last is the current one, as far as is known.
    files: VecDeque<File>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given out.
    used: usize,
    /// The first file was read to its end before it was known that nothing more is written to it.
    is_last_look: bool,
}

impl Chain {
    /// Opens the files; with `tail` at so many lines from the end.
    pub(super) fn open(path: &Path, tail: Option<u64>) -> io::Result<Chain> {
        let mut files = open_all(path, None)?;
        if let Some(lines) = tail {
            skip_to_tail(&mut files, lines)?;
        }
        Ok(Chain {
            path: path.to_owned(),
            files,
            buffer: Vec::new(),
            used: 0,
            is_last_look: false,
        })
    }

    /// The next whole line, without its line feed. `None`: there is no more now.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(len) = self.buffer[self.used..].iter().position(|b| *b == b'\n') {
                let line = self.buffer[self.used..self.used + len].to_vec();
                self.used += len + 1;
                return Ok(Some(line));
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            if self.buffer.len() > MAX_LINE_BYTES {
                self.buffer.clear();
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Whether there may be more: something was read, or another file is next.
    fn read(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.front_mut() else {
            self.files = open_all(&self.path, None)?;
            return Ok(!self.files.is_empty());
        };
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK_BYTES, 0);
        let len = file.read(&mut self.buffer[start..])?;
        self.buffer.truncate(start + len);
        self.look_ahead()?;
        if len > 0 {
            return Ok(true);
        }
        if !self.files.iter().skip(1).any(has_content) {
            return Ok(false);
        }
        // What was written between this end and the first word in another file is read next.
        if !std::mem::replace(&mut self.is_last_look, true) {
            return Ok(true);
        }
        // An end without a line feed is the rest of a line that was never finished.
        self.buffer.clear();
        self.files.pop_front();
        self.is_last_look = false;
        Ok(true)
    }

    /// Opens the files that have come since the last one.
    fn look_ahead(&mut self) -> io::Result<()> {
        if let Some(last) = self.files.back()
            && self.files.len() < MAX_OPEN
            && !is_named(last, &self.path)?
        {
            let newer = open_all(&self.path, Some(last))?;
            self.files.extend(newer);
        }
        Ok(())
    }
}

/// Opens the log's files, oldest first: those after `after`, or all if that is not among them.
fn open_all(path: &Path, after: Option<&File>) -> io::Result<VecDeque<File>> {
    loop {
        let mut files: VecDeque<File> = VecDeque::new();
        let mut is_gap = false;
        for number in 0..MAX_FILES {
            let Some(file) = open(&numbered(path, number))? else {
                // While the files are renamed, one at a time, one number is missing.
                if std::mem::replace(&mut is_gap, true) {
                    break;
                }
                continue;
            };
            is_gap = false;
            if after.is_some_and(|after| is_same(after, &file)) {
                break;
            }
            // Renamed between two opens, it was seen before: all are opened again.
            files.push_front(file);
        }
        if has_twice(&files) {
            continue;
        }
        return Ok(files);
    }
}

fn has_twice(files: &VecDeque<File>) -> bool {
    let mut ids: Vec<_> = files.iter().filter_map(identity).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ids.len() != count
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => {
            let mut name = path.to_owned().into_os_string();
            name.push(format!(".{number}"));
            name.into()
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if files::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|m| (m.dev(), m.ino()))
}

fn is_same(a: &File, b: &File) -> bool {
    matches!((identity(a), identity(b)), (Some(a), Some(b)) if a == b)
}

fn has_content(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.len() > 0)
}

fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(named) => Ok(identity(file) == Some((named.dev(), named.ino()))),
        // It was renamed, and its successor is not there yet.
        Err(error) if files::is_absent(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Drops files, and moves the first of the rest, so that as many lines are left.
fn skip_to_tail(files: &mut VecDeque<File>, lines: u64) -> io::Result<()> {
    let mut wanted = lines;
    let mut first = files.len();
    let mut offset = 0;
    while first > 0 {
        first -= 1;
        let (start, found) = tail_start(&files[first], wanted)?;
        offset = start;
        wanted -= found;
        if wanted == 0 {
            break;
        }
    }
    files.drain(..first);
    if let Some(file) = files.front_mut() {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(())
}

/// Where the last `lines` lines of a file begin, and how many these are. What follows the last line feed is a line that is
/// being written; it is not counted.
fn tail_start(file: &File, lines: u64) -> io::Result<(u64, u64)> {
    let mut found = 0;
    let mut end = file.metadata()?.len();
    let mut buffer = vec![0; CHUNK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(CHUNK_BYTES as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.read_exact_at(chunk, start)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            if found == lines {
                return Ok((start + index as u64 + 1, found));
            }
            found += 1;
        }
        end = start;
    }
    Ok((0, found))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    struct Log {
        folder: tempfile::TempDir,
        max_files: u32,
    }

    impl Log {
        fn new(max_files: u32) -> Log {
            let folder = tempfile::tempdir().unwrap();
            Log { folder, max_files }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("log")
        }

        fn write(&self, text: &str) {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).append(true).open(self.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        /// As the monitor rotates.
        fn rotate(&self) {
            for number in (0..self.max_files).rev() {
                let from = numbered(&self.path(), number);
                let _ = match number + 1 < self.max_files {
                    true => fs::rename(from, numbered(&self.path(), number + 1)),
                    false => fs::remove_file(from),
                };
            }
            self.write("");
        }
    }

    fn all(chain: &mut Chain) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = chain.next().unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        lines
    }

    #[test]
    fn lines_are_whole_and_one_that_is_being_written_waits() {
        let log = Log::new(1);
        log.write("one\ntw");
        let mut chain = Chain::open(&log.path(), None).unwrap();
        assert_eq!(all(&mut chain), ["one"]);
        log.write("o\n");
        assert_eq!(all(&mut chain), ["two"]);
    }

    #[test]
    fn what_is_written_after_the_end_was_seen_and_before_the_rotation_is_read() {
        let log = Log::new(3);
        log.write("1\n");
        let mut chain = Chain::open(&log.path(), None).unwrap();
        assert_eq!(all(&mut chain), ["1"]);
        log.write("2\n");
        log.rotate();
        log.write("3\n");
        log.rotate();
        log.write("4\n");
        assert_eq!(all(&mut chain), ["2", "3", "4"]);
    }

    #[test]
    fn what_is_still_written_to_a_file_that_was_rotated_is_read() {
        let log = Log::new(3);
        log.write("1\n");
        let mut chain = Chain::open(&log.path(), None).unwrap();
        let mut writer = OpenOptions::new().append(true).open(log.path()).unwrap();
        log.rotate();
        assert_eq!(all(&mut chain), ["1"]);
        // The writer has not been given the new file yet.
        writer.write_all(b"2\n").unwrap();
        assert_eq!(all(&mut chain), ["2"]);
        writer.write_all(b"3\n").unwrap();
        log.write("4\n");
        assert_eq!(all(&mut chain), ["3", "4"]);
    }

    #[test]
    fn a_reader_that_reads_holds_what_is_rotated_away() {
        let log = Log::new(1);
        let long = format!("{}\n", "x".repeat(CHUNK_BYTES));
        log.write(&long.repeat(20));
        let mut chain = Chain::open(&log.path(), None).unwrap();
        // One rotation with each line: there is never more than one file.
        for number in 0..10 {
            assert_eq!(chain.next().unwrap().unwrap().len(), CHUNK_BYTES);
            log.rotate();
            log.write(&format!("{number}\n"));
        }
        let rest = all(&mut chain);
        assert_eq!(rest[..10], vec!["x".repeat(CHUNK_BYTES); 10]);
        let numbers: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(rest[10..], numbers);
    }

    #[test]
    fn a_reader_that_is_far_behind_holds_no_more_files_than_so_many() {
        let log = Log::new(2);
        log.write(&format!("{}\n", "x".repeat(CHUNK_BYTES)).repeat(100));
        let mut chain = Chain::open(&log.path(), None).unwrap();
        for _ in 0..2 * MAX_OPEN {
            chain.next().unwrap().unwrap();
            log.rotate();
            log.write("later\n");
        }
        assert!(chain.files.len() <= MAX_OPEN + 2, "{}", chain.files.len());
        log.write("last\n");
        assert_eq!(all(&mut chain).last().unwrap(), "last");
    }

    #[test]
    fn a_number_that_is_missing_while_files_are_renamed_hides_none_behind_it() {
        let log = Log::new(4);
        for line in ["1\n", "2\n", "3\n"] {
            log.write(line);
            log.rotate();
        }
        log.write("4\n");
        // In the midst of a rotation.
        fs::remove_file(numbered(&log.path(), 3)).unwrap();
        for number in [2, 1, 0] {
            let file = |number| numbered(&log.path(), number);
            fs::rename(file(number), file(number + 1)).unwrap();
            let mut chain = Chain::open(&log.path(), None).unwrap();
            assert_eq!(all(&mut chain), ["2", "3", "4"]);
        }
    }

    #[test]
    fn a_log_that_appears_later_is_read_from_its_start() {
        let log = Log::new(1);
        let mut chain = Chain::open(&log.path(), None).unwrap();
        assert!(all(&mut chain).is_empty());
        log.write("1\n");
        assert_eq!(all(&mut chain), ["1"]);
    }

    #[test]
    fn a_file_that_was_rotated_away_while_it_was_read_is_read_to_its_end() {
        let log = Log::new(2);
        log.write("1\n2\n");
        let mut chain = Chain::open(&log.path(), None).unwrap();
        assert_eq!(chain.next().unwrap().unwrap(), b"1");
        for number in 3..7 {
            log.rotate();
            log.write(&format!("{number}\n"));
        }
        assert_eq!(all(&mut chain), ["2", "5", "6"]);
    }

    #[test]
    fn a_tail_reaches_into_earlier_files() {
        let log = Log::new(3);
        log.write("1\n2\n");
        log.rotate();
        log.write("3\n4\n");
        log.rotate();
        log.write("5\n");
        let tail = |lines| all(&mut Chain::open(&log.path(), Some(lines)).unwrap());
        assert!(tail(0).is_empty());
        assert_eq!(tail(1), ["5"]);
        assert_eq!(tail(2), ["4", "5"]);
        assert_eq!(tail(4), ["2", "3", "4", "5"]);
        assert_eq!(tail(9), ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn a_tail_of_long_lines_begins_at_a_line() {
        let log = Log::new(1);
        let long = "x".repeat(CHUNK_BYTES + 10);
        log.write(&format!("a\n{long}\n{long}\n"));
        let lines = all(&mut Chain::open(&log.path(), Some(2)).unwrap());
        assert_eq!(lines, [long.clone(), long]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_reader_that_keeps_up_sees_every_line_once(
            steps in prop::collection::vec(0..4u8, 0..60)
        ) {
            let log = Log::new(3);
            let mut chain = Chain::open(&log.path(), None).unwrap();
            let (mut written, mut seen, mut rotations) = (Vec::new(), Vec::new(), 0);
            for step in steps {
                match step {
                    // More rotations between two reads than there are files may lose lines.
                    0 if rotations < 1 => {
                        log.rotate();
                        rotations += 1;
                    }
                    0 | 1 => {
                        seen.extend(all(&mut chain));
                        rotations = 0;
                    }
                    _ => {
                        let line = written.len().to_string();
                        log.write(&format!("{line}\n"));
                        written.push(line);
                    }
                }
            }
            seen.extend(all(&mut chain));
            prop_assert_eq!(seen, written);
        }
    }
}
