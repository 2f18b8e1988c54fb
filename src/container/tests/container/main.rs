//! Containers of busybox, looked at from inside. As root.

mod fixture;
mod hostile;
mod limits;
mod mounts;
mod network;
mod process;
mod roots;
mod streams;
mod users;
