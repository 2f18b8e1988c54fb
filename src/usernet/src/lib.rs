//! hull-net: what one network of hull's needs of a process. On a bridge that is its DNS server; for users who can have no
//! bridge it is the whole network.
//!
//! ```text
//! warden --ToNet::Start--> control: sockets bound to the gateway, the folder of leases, resolvers
//! containers ==UDP, TCP 53==> serve (one thread, epoll) --> dns (step functions) --> answers
//!                                    '==UDP, TCP==> resolvers of the host
//!
//! warden --ToNet::Switch-> control: the socket that sandboxes connect to, the folder of leases, resolvers
//! VMs ==frames over their wires==> serve --> network: to other VMs, to dns, or to
//!                                               '==TCP, UDP, ICMP echo==> hosts, by sockets of this one
//! ```
//!
//! - [`dns`] is what clients talk to: a function from what has come to what is to be done. It knows no socket, but
//!   reads the folder of leases.
//! - [`frame`] and [`tcp`] are a TCP/IP stack's step functions; [`network`] puts them between members' wires and
//!   sockets.
//! - [`serve`] is the loop, [`confine`] takes from the process what it does not need, [`control`] is the conversation with
//!   the warden.
//!
//! Invariants: clients are hostile, and so are VMs. hull-net opens no path but names below the folder that it was given
//! and executes nothing. Its sockets are of the Internet's two families, and pairs that reach itself alone. It stays when
//! the warden that started it goes, and ends with its network.
//!
//! Deliberately absent: anything that is told to it after its start but who joins. A host's new resolvers are a reason
//! to start another in its place.

mod clients;
pub mod confine;
pub mod control;
pub mod dns;
mod exchange;
pub mod frame;
mod inbox;
pub mod network;
mod poller;
pub mod serve;
pub mod tcp;
