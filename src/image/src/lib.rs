//! Container images: their names, where they come from, and the store that keeps them as EROFS
//! layers.
//!
//! - [`Reference`]: an image's name, such as `nginx:1.27`.
//! - [`Store`]: the local images. [`Store::pull`] fetches one from a registry,
//!   [`Store::load_archive`] and [`Store::import`] take them from a file, [`Store::create`] makes one;
//!   [`Store::image`] finds it, [`Store::lease`] keeps it while a sandbox runs, [`Store::push`] and
//!   [`Store::save`] take it elsewhere, [`Store::delete`] removes it.
//! - [`login`]: credentials for registries.
//! - `layer` and `erofs`: a layer's tar stream as a read-only file system image.
//!
//! Invariants: every digest is checked before content is used; a layer's file and an image's rows
//! appear whole or not at all, even if the process or the machine stops; no path of an image is
//! resolved on the host. Images of any platform are kept; the caller that runs one checks
//! [`Image::platform`]. Deliberately absent: printing, async, Dockerfiles.

pub mod change;
mod compression;
mod create;
mod digest;
pub mod docker;
pub mod erofs;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod import;
pub mod layer;
pub mod login;
pub mod manifest;
mod progress;
mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod save;
pub mod store;
mod time;

pub use create::NewImage;
pub use digest::Digest;
pub use digest::Error as DigestError;
pub use error::{Cause, Error, Result};
pub use import::{Loaded, Source};
pub use manifest::Platform;
pub use progress::{Event, LayerName, Progress};
pub use pull::{PullOptions, Pulled};
pub use push::{PushOptions, Pushed};
pub use reference::Reference;
pub use store::{Image, Layer, Lease, Store};
