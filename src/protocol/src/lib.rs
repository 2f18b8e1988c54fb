//! Plain data that crosses a process: what the engine, the monitor, hull-vmm and the agent say to each other.
//!
//! - [`frame`]: how a message travels (a length and a JSON document).
//! - [`agent`]: monitor to agent, over the first vsock connection of a sandbox.
//! - [`vmm`]: monitor to hull-vmm, over the one SOCK_SEQPACKET socket that hull-vmm inherits.
//! - [`fs`]: warden to hull-fs, which serves shared directories.
//! - [`net`]: warden to hull-net, the process of a network.
//! - [`layer`]: a layer's image to those that mount it.
//! - [`lease`]: wardens to each other and to hull-fs, about a volume.
//! - [`monitor`]: a client (the engine) to a monitor, over the sandbox's Unix socket.
//! - [`record`]: what is on disk of sandboxes and containers.
//! - [`subnet`]: an IPv4 network.
//!
//! Invariants: every type is data without behaviour beyond `validate`; both ends are built together and compare
//! [`BUILD`] in their first message. Deliberately absent: sockets, descriptors, anything that does I/O on its own.

pub mod agent;
mod bytes;
pub mod frame;
pub mod fs;
pub mod layer;
pub mod lease;
pub mod monitor;
pub mod net;
pub mod record;
pub mod subnet;
pub mod timeline;
pub mod vmm;

/// What both ends of every conversation must agree on: they are built from one tree.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("HULL_BUILD"));

/// An error for a person: what failed, and why, to the last cause, joined with ": ". A cause that the error before it has
/// said already is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let why = cause.to_string();
        if !text.ends_with(&why) {
            text += &format!(": {why}");
        }
        source = cause.source();
    }
    text
}
