//! For `fuzz/` only: what a guest, a VMM and a client send to the monitor.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use protocol::agent::Request;
use protocol::vmm::FromVmm;

use crate::agent::{Agent, Said};
use crate::console::Console;
use crate::jail;
use crate::measure::Files;
use crate::vmm::explain;

/// The agent's side of its connection: `pieces` arrive one after the other, then the connection closes.
pub fn agent<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) {
    let Ok((ours, theirs)) = sys::packet::stream_pair() else {
        return;
    };
    let mut agent = Agent::new(ours);
    let mut theirs = File::from(theirs);
    let mut greeted = false;
    for piece in pieces {
        for part in piece.chunks(4096) {
            if theirs.write_all(part).is_err() {
                return;
            }
            match agent.receive() {
                Err(_) => return,
                Ok(said) => {
                    for said in said {
                        assert_eq!(
                            matches!(said, Said::Hello),
                            !greeted,
                            "a greeting comes first, once"
                        );
                        greeted = true;
                    }
                }
            }
        }
        if greeted {
            let container = "c".into();
            let _ = agent.request(1, Request::Start { container });
        }
    }
    drop(theirs);
    assert!(agent.receive().is_err(), "a closed connection is noticed");
}

/// A guest that opens a stream and sends `bytes`: it is let through with the right token alone.
pub fn stream(bytes: &[u8]) {
    crate::speaker::fuzz_stream(&bytes[..bytes.len().min(4096)]);
}

/// What a speaker that is in a guest's hands says to the warden.
pub fn from_speaker(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<crate::link::ToWarden>(bytes) {
        let again = serde_json::to_vec(&message).expect("what was read can be written");
        let read: crate::link::ToWarden = serde_json::from_slice(&again).expect("and read again");
        assert_eq!(read, message);
    }
}

/// A guest's console.
pub fn console(bytes: &[u8]) {
    let Ok((mut console, end)) = Console::new() else {
        return;
    };
    let mut end = File::from(end);
    for part in bytes.chunks(2048) {
        if end.write_all(part).is_err() {
            return;
        }
        let _ = console.read();
    }
    for line in console.last_lines() {
        assert!(
            !line.chars().any(|c| c.is_control() && c != '\t'),
            "{line:?} reaches a terminal"
        );
    }
    let _ = console.panic();
}

/// What a hull-vmm that is in a guest's hands reports.
pub fn report(packet: &[u8]) {
    let Ok(message) = serde_json::from_slice::<FromVmm>(packet) else {
        return;
    };
    match message {
        FromVmm::Report(report) => {
            let files = Files::open(std::process::id());
            let _ = files.and_then(|mut files| files.measure(&report));
        }
        FromVmm::Ended { end, .. } => assert!(!explain(&end, None).is_empty()),
        _ => {}
    }
}

/// The last words of a process that is in a guest's hands.
pub fn last_words(bytes: &[u8]) {
    let Ok((read, write)) = std::io::pipe() else {
        return;
    };
    let mut write = File::from(OwnedFd::from(write));
    // No more than fits the pipe.
    if write.write_all(&bytes[..bytes.len().min(4096)]).is_err() {
        return;
    }
    drop(write);
    if let Ok(Some(text)) = jail::explain("hull-vmm", read.as_fd()) {
        assert!(
            !text.chars().any(char::is_control),
            "{text:?} reaches a terminal"
        );
        assert!(text.len() < 2048);
    }
}

/// A sandbox's and a container's records.
pub fn config(bytes: &[u8]) {
    let _ = serde_json::from_slice::<protocol::record::SandboxConfig>(bytes);
    let _ = serde_json::from_slice::<protocol::record::ContainerConfig>(bytes);
    let _ = serde_json::from_slice::<protocol::record::State>(bytes);
}
