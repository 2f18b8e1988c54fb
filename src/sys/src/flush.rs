//! What closing a file would say (close(2)): on some file systems, NFS among them, the first to hear of a failed write.
#![expect(unsafe_code, reason = "a close that reports has no safe form")]

use std::os::fd::{AsFd, IntoRawFd};

/// Closes a further descriptor of the same open file, and reports what that reports.
pub fn flush(file: impl AsFd) -> std::io::Result<()> {
    let further = rustix::io::fcntl_dupfd_cloexec(file, 0)?.into_raw_fd();
    // SAFETY: the descriptor was made above and nothing else owns it. Linux closes it whatever is returned.
    match unsafe { libc::close(further) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_flushed_file_stays_open() {
        use std::io::Write;
        let mut file = tempfile();
        super::flush(&file).unwrap();
        file.write_all(b"still").unwrap();
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC)
            .unwrap()
            .into()
    }
}
