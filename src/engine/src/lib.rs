//! The lifecycle of sandboxes and containers: from options and an image to a process in a VM of its own, and back
//! with its output and exit code.
//!
//! - [`run`]: the whole way, for `hull run`; [`prepare`] decides, [`client`] stays with the container.
//! - [`sandbox`], [`names`], [`install`]: what exists on disk.
//! - [`doctor`]: what the host lacks.
//! - [`template`]: which saved VM a VM begins from.
//! - [`spec`], [`capabilities`], [`seccomp`], [`size`], [`etc`]: what a container is made of.
//!
//! Invariants: strings of the user's are parsed in `cli`, not here; a kill -9 of any process at any point leaves what
//! the next command repairs. Deliberately absent: detached containers and exec, which come with later issues.

pub mod capabilities;
pub mod client;
pub mod doctor;
pub mod etc;
pub mod id;
pub mod images;
pub mod install;
pub mod names;
pub mod options;
pub mod prepare;
pub mod run;
pub mod sandbox;
mod sealed;
pub mod seccomp;
pub mod size;
pub mod spec;
pub mod template;

// What the command line and the benches show of the crates below: they depend on the engine alone.
pub use image;
pub use protocol;
pub use sys::clock;
