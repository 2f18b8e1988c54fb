//! What processes say to each other. Where one side is hostile (the agent, the guest's console) the other must stand
//! anything; where it is not (the monitor), a mistake must end in an error.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use protocol::agent::{FromAgent, ToAgent};
use protocol::frame::{self, Assembler};

use crate::input::Input;

/// Frames: what arrives in pieces must mean the same as what arrives at once, and what is understood can be said again.
pub fn frame(data: &[u8]) {
    let mut input = Input::new(data);
    let piece = usize::from(input.u8()) + 1;
    let stream = input.rest();
    let mut assembler = Assembler::new(frame::MAX_REPLY_LEN);
    let mut seen = Vec::new();
    let mut failed = false;
    'pieces: for piece in stream.chunks(piece) {
        assembler.push(piece);
        loop {
            match assembler.next::<FromAgent>() {
                Ok(Some(message)) => seen.push(message),
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break 'pieces;
                }
            }
        }
    }
    let mut rest = stream;
    let mut read = Vec::new();
    let end = loop {
        match frame::read::<FromAgent>(&mut rest) {
            Ok(message) => read.push(message),
            Err(error) => break error,
        }
    };
    assert_eq!(seen, read);
    // A stream that ends within a frame is an error for the one and no message yet for the other.
    let malformed = matches!(
        end,
        frame::Error::TooLong { .. } | frame::Error::Malformed(_)
    );
    assert_eq!(failed, malformed);
    for message in seen {
        let again = frame::encode(&message).expect("it came in a frame");
        assert_eq!(
            frame::read::<FromAgent>(&again[..]).expect("our own"),
            message
        );
    }
}

/// The agent's messages, in the monitor; and the opening of a stream.
pub fn from_agent(data: &[u8]) {
    crate::threads::survive_broken_pipes();
    let mut input = Input::new(data);
    if input.u8() & 1 != 0 {
        return monitor::fuzzing::stream(input.rest());
    }
    // A right greeting in front of most, for the build's number cannot be guessed.
    let greeted = input.u8() & 3 != 0;
    let hello = frame::encode(&protocol::agent::Hello {
        build: protocol::BUILD.into(),
        kernel_release: "6.12".into(),
    })
    .expect("short");
    let mut pieces: Vec<&[u8]> = Vec::new();
    if greeted {
        pieces.push(&hello);
    }
    let framed: Vec<Vec<u8>> = framed(&mut input);
    pieces.extend(framed.iter().map(Vec::as_slice));
    monitor::fuzzing::agent(pieces);
}

/// Pieces of a stream: documents with a right length before them, and bytes as they are.
fn framed(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while let Some(kind) = input.op() {
        let bytes = match kind & 2 {
            0 => input.short(),
            _ => {
                let len = input.u16().into();
                input.bytes(len)
            }
        };
        pieces.push(match kind & 1 {
            0 => [&(bytes.len() as u32).to_le_bytes(), bytes].concat(),
            _ => bytes.to_vec(),
        });
    }
    pieces
}

/// The monitor's requests, in the agent.
pub fn to_agent(data: &[u8]) {
    crate::threads::survive_broken_pipes();
    let mut input = Input::new(data);
    let bytes = framed(&mut input).concat();
    agent::fuzzing::requests(&bytes);
    if let Some(body) = bytes.get(4..) {
        let _ = serde_json::from_slice::<ToAgent>(body);
    }
}

/// A user's archive, on its way into a container. Headers have checksums, which no mutation keeps right: they are put right
/// before the agent reads them.
pub fn untar(data: &[u8]) {
    let mut bytes = data.to_vec();
    agent::fuzzing::archive(&bytes);
    for block in bytes.chunks_exact_mut(512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    agent::fuzzing::archive(&bytes);
}

/// The monitor's packets, in hull-vmm: as a whole VM is begun, with descriptors that are no KVM. And a sandbox's
/// configuration, which the monitor reads.
pub fn to_vmm(data: &[u8]) {
    crate::threads::survive_broken_pipes();
    let mut input = Input::new(data);
    let count = usize::from(input.u8() % 8);
    let text = String::from_utf8_lossy(input.rest());
    monitor::fuzzing::config(text.as_bytes());
    let null = std::fs::File::open("/dev/null").expect("it is there");
    let Ok((ours, theirs)) = sys::packet::pair() else {
        return;
    };
    let descriptors: Vec<_> = (0..count).map(|_| null.as_fd()).collect();
    // The build's number cannot be guessed.
    let packet = text.replace("BUILD", protocol::BUILD);
    if packet.len() > protocol::vmm::MAX_PACKET_LEN
        || sys::packet::send(&ours, packet.as_bytes(), &descriptors).is_err()
    {
        return;
    }
    let serve = |socket: OwnedFd| vmm::control::serve(socket, Arc::default());
    let error = serve(theirs).expect_err("there is no KVM");
    assert!(!protocol::chain(&error).is_empty());
}

/// A hull-vmm that is in a guest's hands, in the monitor: its packets, and its last words.
pub fn from_vmm(data: &[u8]) {
    // What a speaker tells the warden, which may be in a guest's hands as hull-vmm may.
    monitor::fuzzing::from_speaker(data);
    let mut input = Input::new(data);
    match input.u8() & 1 {
        0 => monitor::fuzzing::report(input.rest()),
        _ => monitor::fuzzing::last_words(input.rest()),
    }
}

/// A guest's console, in the monitor.
pub fn guest_console(data: &[u8]) {
    monitor::fuzzing::console(data);
}
