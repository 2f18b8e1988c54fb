//! hull-net: what one network of hull's needs of a process. Today that is its DNS server.
//!
//! ```text
//! warden --ToNet::Start--> control: sockets bound to the gateway, the folder of leases, resolvers
//! containers ==UDP, TCP 53==> serve (one thread, epoll) --> dns (step functions) --> answers
//!                                    '==UDP, TCP==> resolvers of the host
//! ```
//!
//! - [`dns`] is what clients talk to: a function from what has come to what is to be done. It knows no socket, but
//!   reads the folder of leases.
//! - [`serve`] puts sockets around it, [`confine`] takes from the process what it does not need, [`control`] is the
//!   conversation with the warden.
//!
//! Invariants: clients are hostile. hull-net opens no path but names below the folder that it was given, executes
//! nothing, and makes no sockets but those to resolvers, of the Internet's two families. It stays when the warden that
//! started it goes, and ends with its network.
//!
//! Deliberately absent: networks without root, which this process will serve beside [`dns`] on the same loop; anything
//! that is told to it after its start. A host's new resolvers are a reason to start another in its place.

mod clients;
pub mod confine;
pub mod control;
pub mod dns;
mod exchange;
mod inbox;
mod poller;
pub mod serve;
