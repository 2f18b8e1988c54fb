//! Asking QEMU's monitor what the emulated processor does, when the host itself does not answer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The monitor's socket, in the host's folder.
pub(super) const SOCKET: &str = "monitor.socket";
/// The monitor answers at once unless QEMU itself hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the answers are to be searched for: where the processor is, whether it takes interrupts (FL: I), whether it has
/// halted (HLT), and which interrupts are requested of it (IRR) or served (ISR).
const TELLING: [&str; 4] = ["RIP=", "ISR", "IRR", "LVTT"];
/// Ends the answers: the monitor knows no such command, and says so.
const END: &str = "end-of-answers";

/// Asks the monitor of the host whose files lie in `folder`.
///
/// # Errors
/// The socket is not there, or QEMU does not answer.
pub(super) fn processor(folder: &Path) -> io::Result<Vec<String>> {
    // A socket's path has at most 107 bytes (unix(7)); the folder's may have more.
    let within = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", within.as_raw_fd());
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("info registers\ninfo lapic\n{END}\n").as_bytes())?;
    let mut found = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        // It repeats what it reads; only its answer has these quotes.
        if line.contains(&format!("'{END}'")) {
            break;
        }
        if TELLING
            .iter()
            .any(|word| line.trim_start().starts_with(word))
        {
            found.push(line.trim_end().to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn the_telling_lines_of_an_answer_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let monitor = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let answer = "QEMU 7.2 monitor\r\n(qemu) info registers\r\nRAX=0\r\nRIP=12 RFL=00000202 [-------] CPL=0 HLT=0\r\n\
                ISR\t (none)\r\nIRR\t 236 \r\n(qemu) end-of-answers\r\nunknown command: 'end-of-answers'\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            stream
        });
        let lines = processor(folder.path()).unwrap();
        let expected = [
            "RIP=12 RFL=00000202 [-------] CPL=0 HLT=0",
            "ISR\t (none)",
            "IRR\t 236",
        ];
        assert_eq!(lines, expected);
        monitor.join().unwrap();
    }
}
