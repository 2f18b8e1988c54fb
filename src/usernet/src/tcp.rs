//! One TCP connection of a member's, ended here: what its guest sends goes into a socket of the host, and the other way
//! round. Step functions: time, the socket ([`Host`]) and the way to the guest ([`Wire`]) are given to each.
//!
//! ```text
//! guest connects:   Connecting --host connected--> SynReceived --ACK--> Open
//! host's client:    SynSent --SYN, ACK--> Open
//!
//! guest --segments--> receive.rs --> socket; what it does not take waits in `to_host`
//! guest <--segments-- send.rs <-- `to_guest`: what is not acknowledged yet <-- socket
//! ```
//!
//! Contract with the loop around it: after each of [`Flow::segment`], [`Flow::connected`], [`Flow::host_ready`] and
//! [`Flow::expire`], or when the wire has room again, [`Flow::pump`] is to be called, and then [`Flow::end`] to be looked
//! at. Several segments may come before one `pump`: they are acknowledged together.
//!
//! Invariants: a flow holds at most the bytes of its two rings; what is acknowledged is in the socket or in `to_host`;
//! the right edge of the window that the guest is told never moves back. A connection that the guest sees exists on the
//! host.
//!
//! Deliberately absent: congestion control, selective acknowledgments, timestamps, reassembly. The wire neither loses nor
//! reorders; what a guest drops by itself is sent again from there on (go-back-N). Urgent data is data. There is no
//! TIME-WAIT: a flow ends when both sides have, and a late segment is answered with a reset, which ends the guest's
//! LAST-ACK as well.

mod flow;
mod receive;
mod ring;
mod send;
#[cfg(test)]
mod tests;

use std::io;

pub use flow::{End, Flow, Limits};
pub use ring::Ring;

use crate::frame::Outgoing;

/// The host's socket: a stream that does not block.
pub trait Host {
    /// Writes some of these bytes.
    ///
    /// # Errors
    /// `WouldBlock` if it takes none; after that [`Flow::host_ready`] says when.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads into the two pieces, in their order; 0 at the end.
    fn read(&mut self, room: [&mut [u8]; 2]) -> io::Result<usize>;
    /// Nothing more will be written.
    fn shutdown(&mut self) -> io::Result<()>;
}

/// The way to the guest.
pub trait Wire {
    /// Sends a segment with these pieces of payload. `false` if there is no room for it.
    fn send(&mut self, segment: &Outgoing, payload: [&[u8]; 2]) -> bool;
}

/// Whether sequence number `a` is before `b` (RFC 9293, 3.4).
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
