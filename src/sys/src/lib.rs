//! Safe wrappers over the system calls that hull uses, one module for each topic.
//!
//! rustix is the base; a wrapper stands here only where rustix has none, or where every caller needs the same lines.

pub mod clock;
pub mod packet;
pub mod spawn;
pub mod thread;
