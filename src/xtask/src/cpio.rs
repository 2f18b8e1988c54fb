//! A writer of newc cpio archives (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
//!
//! The same input gives the same bytes: inode numbers count up, times and owners are zero.

use std::io::{self, Write};

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// An archive under construction; [`Archive::finish`] ends it.
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Archive { out, inode: 0 }
    }

    /// A folder; its parents come first.
    pub(crate) fn directory(&mut self, name: &str, mode: u32) -> io::Result<()> {
        self.entry(name, S_IFDIR | mode, (0, 0), &[])
    }

    /// A regular file.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(name, S_IFREG | mode, (0, 0), content)
    }

    /// A character device of this major and minor number.
    pub(crate) fn character_device(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        self.entry(name, S_IFCHR | mode, device, &[])
    }

    /// Writes the trailer and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "cpio ends at 4 GiB"))?;
        let name_size = name.len() as u32 + 1;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out
            .write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_aligned_and_ends_with_the_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("dev", 0o755).unwrap();
        archive
            .character_device("dev/console", 0o600, (5, 1))
            .unwrap();
        archive.file("init", 0o755, b"#!x").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("dev/console\0"));
        assert!(text.contains("init\0"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn a_device_carries_its_number_and_a_file_its_length() {
        let mut archive = Archive::new(Vec::new());
        archive.character_device("c", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[14..22], b"00002180");
        assert_eq!(&bytes[6 + 9 * 8..6 + 11 * 8], b"0000000500000001");
    }
}
