//! Docker's Engine API over the engine library: `hull serve`.
//!
//! ```text
//! client --HTTP--> server (async: sockets, bodies, upgrades) --blocking thread--> router -> handler -> engine
//!                      ^                                                             |
//!                      +------- whole answer, stream of chunks, or taken-over connection
//! ```
//!
//! - [`listen`]: sockets, made or handed over by systemd; `server`: the asynchronous edge.
//! - [`router`]: method, version and path to a handler; [`query`]: query strings and filters; [`fields`]: JSON bodies of which
//!   every member is taken or refused by name.
//! - `handlers`: a file for each group; [`convert`]: from Docker's documents to the engine's options; [`documents`]: back.
//! - [`frames`], `stream`: standard streams over a connection that was taken over.
//!
//! Invariants: no state is kept between requests, so that this process may be killed at any time and containers never notice;
//! the engine is called on blocking threads alone, and what may last (followers, waits, attachments) has a thread of its own that
//! ends when its client goes; a member, a filter or an endpoint that hull cannot do is refused by name. Deliberately absent: TCP.

mod body;
mod call;
pub mod convert;
pub mod documents;
mod error;
pub mod fields;
pub mod frames;
mod handlers;
pub mod keys;
pub mod listen;
pub mod query;
pub mod router;
mod server;
mod stream;
mod threads;

pub use error::Failure;
pub use server::{Error, Settings, serve};

/// The latest version of Docker's API that is spoken.
pub const API_VERSION: &str = "1.51";
/// The earliest.
pub const MIN_API_VERSION: &str = "1.24";
