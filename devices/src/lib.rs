//! Device models: virtio, and what little of the legacy PC a guest expects.
//!
//! This crate knows guest memory and file descriptors, not KVM. Chips do not know the bus that they sit on.

pub mod legacy;
pub mod output;
pub mod virtio;
