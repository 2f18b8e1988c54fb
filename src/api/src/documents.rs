//! What is known of containers, images, volumes and networks, in the shape of Docker's API. The command line's `inspect`
//! prints the same documents.

pub mod container;
mod host_config;
pub mod image;
mod mounts;
pub mod network;
pub mod ports;
pub mod processes;
pub mod volume;
