//! Copying a stream through a buffer of our own.
//!
//! Not `std::io::copy`: it splices, and a splice from a socket into a pipe holds the pipe's lock for as long as the
//! socket is silent. A command that exits meanwhile cannot close its end: it hangs, and cannot even be killed.

use std::io::{ErrorKind, Read, Write};

/// Copies until either end is gone, which is how streams end: not an error.
pub(crate) fn until_the_end(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let written = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        if written.is_err() {
            return;
        }
    }
}
