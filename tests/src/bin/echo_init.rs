//! PID 1 of a guest that dials as many ports of the host as /plan says, from [`FIRST_PORT`] on, and sends back on each what
//! comes, to its end: the guest of `tests/tests/vsock.rs`.
//!
//! Nothing is read before all are connected. At the end it writes how many streams there were to the control device.

use std::fs::File;
use std::io;

use anyhow::{Context, Result};
use protocol::agent::HOST_CID;
use protocol::timeline::control;
use rustix::net::Shutdown;
use sys::ports::Ports;

/// Port of the first stream.
const FIRST_PORT: u32 = 5000;

fn main() -> Result<()> {
    // An error ends PID 1, and the kernel's panic then ends the VM.
    let streams = echo()?;
    Ports::new(control::PORT, control::LEN).write_u32(control::REG_EXIT, streams)?;
    Ports::new(control::RESET_PORT, 1).write_u8(0, control::RESET)?;
    loop {
        std::thread::park();
    }
}

fn echo() -> Result<u32> {
    let count: u32 = std::fs::read_to_string("/plan")?.parse()?;
    let mut streams = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + count {
        let stream = sys::vsock::connect(HOST_CID, port);
        streams.push(File::from(stream.with_context(|| format!("port {port}"))?));
    }
    let echoes: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            std::thread::spawn(move || {
                io::copy(&mut &stream, &mut &stream)?;
                Ok::<_, io::Error>(rustix::net::shutdown(&stream, Shutdown::Write)?)
            })
        })
        .collect();
    for echo in echoes {
        echo.join().expect("an echo does not panic")?;
    }
    Ok(count)
}
