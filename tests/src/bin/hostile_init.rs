//! PID 1 of a hostile guest: it takes the agent's place, with root and a real kernel, and makes the attack that /plan
//! names. `tests/tests/hostile.rs` has the expected result of each.
//!
//! At its end it writes a code to the control device and resets, or stays, where that is the attack.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use protocol::agent::{
    CONTROL_PORT, ExitStatus, Failure, FailureKind, FromAgent, HOST_CID, Hello, ProcessId, Request,
    Stdio, ToAgent,
};
use protocol::frame;
use protocol::timeline::control;
use sys::ports::Ports;

/// A refusal that [`refusals`] did not get.
const NOT_REFUSED: u32 = 1;
/// Something that an attack needs did not work.
const FAILED: u32 = 2;
/// Everything that must be refused was refused.
const ALL_REFUSED: u32 = 4242;

fn main() {
    let plan = std::fs::read_to_string("/plan").unwrap_or_default();
    println!("hostile-init: {plan}");
    let code = attack(&plan).unwrap_or_else(|error| {
        println!("hostile-init: {error}");
        FAILED
    });
    // If the machine's own ports fail, there is no other way to report.
    let _ = Ports::new(control::PORT, control::LEN).write_u32(control::REG_EXIT, code);
    let _ = Ports::new(control::RESET_PORT, 1).write_u8(0, control::RESET);
    stay()
}

fn attack(plan: &str) -> io::Result<u32> {
    match plan {
        "hang up" => {
            drop(connect(CONTROL_PORT)?);
            stay()
        }
        "noise" => {
            File::from(connect(CONTROL_PORT)?).write_all(&[0xff; 100_000])?;
            stay()
        }
        "a frame that never ends" => {
            let mut monitor = File::from(connect(CONTROL_PORT)?);
            monitor.write_all(&(frame::MAX_LEN as u32).to_le_bytes())?;
            monitor.write_all(&[b'['; frame::MAX_LEN])?;
            stay()
        }
        "lies" => lies(),
        "a wrong token" => wrong_token(),
        "refusals" => refusals(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn connect(port: u32) -> io::Result<OwnedFd> {
    sys::vsock::connect(HOST_CID, port)
}

fn stay() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// The control connection, after a handshake as the agent does it.
fn greet() -> io::Result<File> {
    let monitor = File::from(connect(CONTROL_PORT)?);
    let hello = Hello {
        build: protocol::BUILD.to_owned(),
        kernel_release: "\x1b[31m".repeat(1000),
    };
    send(&monitor, &hello)?;
    Ok(monitor)
}

fn send(mut monitor: &File, message: &impl serde::Serialize) -> io::Result<()> {
    monitor.write_all(&frame::encode(message).map_err(io::Error::other)?)
}

fn receive(monitor: &File) -> io::Result<ToAgent> {
    frame::read(monitor).map_err(io::Error::other)
}

/// Answers without a request, events of containers that do not exist, and an error text with terminal controls.
fn lies() -> io::Result<u32> {
    let monitor = greet()?;
    let asked = receive(&monitor)?;
    for seq in (0..2000).chain([u64::MAX]) {
        if seq == asked.seq {
            continue;
        }
        send(
            &monitor,
            &FromAgent::Exited {
                process: ProcessId::first(format!("{seq}/../../etc/passwd")),
                status: ExitStatus::Signal(255),
                oom_killed: true,
            },
        )?;
    }
    send(
        &monitor,
        &FromAgent::Reply {
            seq: asked.seq,
            result: Err(Failure {
                kind: FailureKind::Other,
                message: format!("\x1b[2J\x1b]0;owned\x07a lie{}", "!".repeat(100_000)),
            }),
        },
    )?;
    stay()
}

/// Dials the container's output and guesses its token.
fn wrong_token() -> io::Result<u32> {
    let monitor = greet()?;
    loop {
        if let Request::Create(create) = receive(&monitor)?.request
            && let Stdio::Pipes {
                stdout: Some(stdout),
                ..
            } = create.stdio
        {
            let mut token = stdout.token;
            token[15] ^= 1;
            File::from(connect(stdout.port)?).write_all(&token)?;
            stay();
        }
    }
}

/// Dials every port except the open one, and that one twice.
fn refusals() -> io::Result<u32> {
    let mut monitor = File::from(connect(CONTROL_PORT)?);
    let ports = (900..1200).chain([0, CONTROL_PORT, 22, u32::MAX - 1]);
    // Stream ports are above the control port and are offered; a dialler needs their token.
    for port in ports.filter(|port| !(CONTROL_PORT + 1..CONTROL_PORT + 4).contains(port)) {
        if connect(port).is_ok() {
            println!("hostile-init: port {port} is open");
            return Ok(NOT_REFUSED);
        }
    }
    // This guest itself, a hypervisor that does not exist, other guests.
    for cid in [0, 1, 3, 4, 5, 1000, u32::MAX - 1] {
        if sys::vsock::connect(cid, CONTROL_PORT).is_ok() {
            println!("hostile-init: machine {cid} answers");
            return Ok(NOT_REFUSED);
        }
    }
    // The first connection stays open meanwhile.
    let hello = Hello {
        build: protocol::BUILD.to_owned(),
        kernel_release: String::new(),
    };
    send(&monitor, &hello)?;
    monitor.read_exact(&mut [0; 4])?;
    Ok(ALL_REFUSED)
}
