//! The contents of an archive: images that can be run here, and other content, which is passed
//! over.

use super::contents::Contents;
use super::{Error, docker, oci};
use crate::digest::Digest;
use crate::error::{Cause, chain};
use crate::manifest::{Config, MAX_MANIFEST_LEN, Platform};
use crate::reference::Reference;

/// The most characters of a name from an archive that a message repeats.
const MAX_SHOWN: usize = 300;

/// An image found in an archive, ready to be stored.
pub(super) struct Found {
    pub(super) config: Config,
    pub(super) manifest: Option<Vec<u8>>,
    /// Bottom first, as many as the configuration has diffIDs.
    pub(super) layers: Vec<FoundLayer>,
    pub(super) names: Vec<Reference>,
}

/// Where a layer is.
pub(super) struct FoundLayer {
    /// Its name in the archive.
    pub(super) path: String,
    /// The digest and size that were stated for the bytes there.
    pub(super) stated: Option<(Digest, u64)>,
}

/// What an archive holds.
#[derive(Default)]
pub(super) struct Inventory {
    pub(super) found: Vec<Found>,
    /// Content that is not an image for this machine, and why, both for messages.
    pub(super) passed_over: Vec<(String, String)>,
    /// The reason for the first of those.
    first: Option<Cause>,
}

impl Inventory {
    /// Adds an entry. An image that cannot be run here is passed over; damage, or a digest that
    /// is wrong, is an error of the whole archive.
    pub(super) fn add(
        &mut self,
        found: Result<Found, Cause>,
        described: impl FnOnce() -> String,
    ) -> Result<(), Cause> {
        match found {
            Ok(found) => self.found.push(found),
            Err(error @ (Cause::Manifest(_) | Cause::Archive(Error::Absent { .. }))) => {
                self.pass_over(&described(), &error);
                self.first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn pass_over(&mut self, what: &str, why: &dyn std::error::Error) {
        self.passed_over.push((what.to_owned(), chain(why)));
    }

    /// The images, or the reason for the first entry that was passed over if there is none.
    pub(super) fn into_found(self) -> Result<Vec<Found>, Cause> {
        match self.first {
            Some(error) if self.found.is_empty() => Err(error),
            _ => Ok(self.found),
        }
    }
}

/// Takes the inventory of an archive: the images for the first of these platforms for which there
/// are any. In an OCI layout, a `manifest.json` that `docker save` did not write is ignored.
pub(super) fn take(
    contents: &Contents,
    platforms: &[Option<&Platform>],
) -> Result<Inventory, Cause> {
    let mut first: Option<Inventory> = None;
    for wanted in platforms {
        let inventory = take_for(contents, *wanted)?;
        if !inventory.found.is_empty() {
            return Ok(inventory);
        }
        first.get_or_insert(inventory);
    }
    first.ok_or_else(|| Error::Empty.into())
}

fn take_for(contents: &Contents, wanted: Option<&Platform>) -> Result<Inventory, Cause> {
    let Some(manifest) = contents.read(docker::MANIFEST, MAX_MANIFEST_LEN)? else {
        return oci::images(contents, wanted);
    };
    match docker::images(contents, &manifest, wanted) {
        Err(Cause::Archive(Error::Syntax { .. } | Error::Empty))
            if contents.open(oci::LAYOUT)?.is_some() =>
        {
            oci::images(contents, wanted)
        }
        found => found,
    }
}

/// A name from an archive as a message shows it: short, and without control characters.
pub(super) fn shown(name: &str) -> String {
    let name: String = name.chars().take(MAX_SHOWN).collect();
    name.escape_debug().to_string()
}
