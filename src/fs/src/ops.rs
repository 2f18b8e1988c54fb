//! What a guest can ask for, operation by operation.

mod attributes;
mod create;
mod list;
mod lookup;
mod open;
mod remove;
mod session;
mod xattr;
