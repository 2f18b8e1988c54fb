//! What a host that does not answer is doing: the emulated processor and network, by QEMU's monitor; QEMU's threads and the
//! machine, by /proc.

use std::fs::{self, File};
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
/// halted (HLT), which interrupts are requested of it (IRR) or served (ISR); and the connections of its network, with what
/// waits in their queues.
const TELLING: [&str; 5] = ["RIP=", "ISR", "IRR", "LVTT", "TCP["];
/// What is said of the machine.
const MACHINE: [(&str, &str); 4] = [
    ("/proc/loadavg", ""),
    ("/proc/meminfo", "MemAvailable:"),
    ("/proc/meminfo", "Dirty:"),
    ("/proc/meminfo", "Writeback:"),
];
/// Ends the answers: the monitor knows no such command, and says so.
const END: &str = "end-of-answers";

/// Asks the monitor of the host whose files lie in `folder`, and the machine's kernel.
///
/// # Errors
/// The socket is not there, or QEMU does not answer.
pub(super) fn state(folder: &Path) -> io::Result<Vec<String>> {
    // A socket's path has at most 107 bytes (unix(7)); the folder's may have more.
    let within = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", within.as_raw_fd());
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("info registers\ninfo lapic\ninfo usernet\n{END}\n").as_bytes())?;
    // The threads first: asking makes QEMU busy.
    let qemu = rustix::net::sockopt::socket_peercred(&stream)?.pid;
    let mut found = [
        machine(),
        threads(Path::new(&format!("/proc/{}/task", qemu.as_raw_nonzero()))),
    ]
    .concat();
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

fn machine() -> Vec<String> {
    let told = |(path, word): (&str, &str)| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(word))?;
        Some(format!("{path}: {line}"))
    };
    MACHINE.into_iter().filter_map(told).collect()
}

/// What each thread is called, its state with the time that it has run, in ticks (proc_pid_stat(5), fields 3, 14 and 15), and
/// where in the kernel it waits. A thread that ends meanwhile is left out.
fn threads(tasks: &Path) -> Vec<String> {
    let told = |task: fs::DirEntry| {
        let read = |name| fs::read_to_string(task.path().join(name)).ok();
        let (stat, waits) = (read("stat")?, read("wchan")?);
        let (start, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let name = start.split_once('(')?.1;
        let (state, user, system) = (fields.first()?, fields.get(11)?, fields.get(12)?);
        Some(format!(
            "thread {name}: {state}, {user} + {system} ticks, {waits}"
        ))
    };
    let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
    tasks.filter_map(told).collect()
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
        let lines = state(folder.path()).unwrap();
        let has = |word: &str| lines.iter().any(|line| line.contains(word));
        assert!(has("MemAvailable") && has("thread "), "{lines:?}");
        let expected = [
            "RIP=12 RFL=00000202 [-------] CPL=0 HLT=0",
            "ISR\t (none)",
            "IRR\t 236",
        ];
        assert!(lines.ends_with(&expected.map(str::to_owned)), "{lines:?}");
        monitor.join().unwrap();
    }
}
