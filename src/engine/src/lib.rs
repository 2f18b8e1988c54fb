//! The lifecycle of sandboxes and containers.

pub mod capabilities;
pub mod id;
pub mod install;
pub mod options;
pub mod seccomp;
pub mod size;
pub mod spec;
