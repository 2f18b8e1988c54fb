//! Everything that hull does with sandboxes, containers and pods. Front ends (the command line, the Docker API, the
//! containerd shim) are thin layers over [`Engine`].
//!
//! - [`Engine`]: its methods are spread over `create`, [`session`], `control`, [`exec`], [`list`], [`logs`], [`copy`],
//!   [`pods`], [`prune`], [`system`], `update` and `remove`.
//! - [`Connection`], [`session::Session`]: a conversation with a sandbox's monitor.
//! - [`events`]: what happened, appended to a file by engines and monitors.
//! - [`layout`], `files`, `lock`, `index`: what is on disk.
//! - [`options`], [`prepare`], [`asked`]: from options and an image to the records of a container and its sandbox, with
//!   [`spec`], [`capabilities`], [`seccomp`], [`size`], [`signals`], [`etc`] and [`template`].
//! - [`doctor`]: what the host lacks.
//!
//! Invariants: the engine is synchronous and keeps no state between calls, so any number of processes may use it at once;
//! truth is in the folders (docs/lifecycle.md), the database is an index of them; a `kill -9` of any process at any point
//! leaves what the next command repairs. No command is worse than linear in the number of containers, and [`list`] opens no
//! socket. Deliberately absent: parsing of what a user wrote, terminals and standard streams, which are the front ends'.

pub mod asked;
pub mod capabilities;
mod commit;
mod connection;
pub mod container;
mod control;
pub mod copy;
mod create;
pub mod doctor;
mod engine;
mod error;
pub mod etc;
pub mod events;
pub mod exec;
mod files;
pub mod id;
pub mod images;
mod index;
pub mod install;
pub mod layout;
pub mod list;
mod lock;
pub mod logs;
mod make;
mod memory;
pub mod mounts;
pub mod names;
pub mod networks;
pub mod options;
pub mod pods;
pub mod prepare;
pub mod prune;
mod remove;
mod repair;
mod sandbox;
pub mod seccomp;
pub mod session;
pub mod signals;
pub mod size;
pub mod spec;
pub mod system;
pub mod template;
#[cfg(test)]
mod testing;
pub mod time;
pub mod update;
pub mod volumes;
mod watch;

pub use commit::CommitOptions;
pub use connection::{Connection, Message, Streams};
pub use container::Container;
pub use control::{Ended, Stop, WaitCondition};
pub use create::NewContainer;
pub use engine::Engine;
pub use error::{Error, Kind, Refusal, Subject};
pub use make::MakeError;
pub use remove::Remove;
pub use repair::SystemStart;

// What front ends show of the crates below: they depend on the engine alone.
pub use image;
pub use protocol;
pub use sys::clock;
