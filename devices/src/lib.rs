//! Device models: virtio, and what little of the legacy PC a guest expects.
//!
//! This crate knows guest memory and file descriptors, not KVM. Chips know nothing of the bus that they sit on.

pub mod legacy;
pub mod output;
pub mod virtio;
