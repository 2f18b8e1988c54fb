//! Finds the manifest for a platform, through indexes. Entries that are not images for this
//! platform, or not images at all (signatures, charts, attestations), are passed over.

use super::{
    Descriptor, Document, Error, INDEX_TYPES, MANIFEST_TYPES, MAX_INDEX_DEPTH, Manifest, Platform,
    Platforms, is_config_type,
};

/// The most documents that are read in search of one image: bounds what an index can make us fetch.
const MAX_DOCUMENTS: usize = 32;

impl Descriptor {
    /// The type of its content, if the descriptor says that it is neither an image nor an index.
    pub(crate) fn foreign_type(&self) -> Option<&str> {
        let media_type = self.media_type.as_str();
        let known = [INDEX_TYPES, MANIFEST_TYPES].concat().contains(&media_type);
        if !known && !media_type.is_empty() {
            return Some(media_type);
        }
        self.artifact_type
            .as_deref()
            .filter(|kind| !is_config_type(kind))
    }
}

impl Error {
    /// Whether the document may be valid, but is not an image that hull can run.
    fn is_foreign(&self) -> bool {
        matches!(
            self,
            Error::NotAnImage { .. }
                | Error::MediaType { .. }
                | Error::NoLayers
                | Error::Platform { .. }
        )
    }
}

/// Follows indexes to the manifest for a platform, or for any if it is `None`, from the document in
/// `bytes`; `fetch` reads the ones that indexes list, or says that one is not there. Returns the
/// manifest with its bytes, or the first error.
pub(crate) fn resolve<E: From<Error>>(
    mut bytes: Vec<u8>,
    wanted: Option<&Platform>,
    mut fetch: impl FnMut(&Descriptor) -> Result<Option<Vec<u8>>, E>,
) -> Result<(Vec<u8>, Manifest), E> {
    let mut first_error = None;
    // With their depths, the best last.
    let mut pending: Vec<(Descriptor, usize)> = Vec::new();
    let mut depth = 0;
    for _ in 0..MAX_DOCUMENTS {
        let found = match Document::parse(&bytes) {
            Ok(Document::Manifest(manifest)) => return Ok((bytes, manifest)),
            Ok(Document::Index(_)) if depth == MAX_INDEX_DEPTH => Err(Error::Depth),
            Ok(Document::Index(index)) => candidates(&index.entries, wanted).map(|entries| {
                let best_last = entries.into_iter().rev().cloned();
                pending.extend(best_last.map(|entry| (entry, depth + 1)));
            }),
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => {}
            Err(error) if error.is_foreign() => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
        let next = loop {
            let Some((entry, at)) = pending.pop() else {
                break None;
            };
            if let Some(bytes) = fetch(&entry)? {
                break Some((bytes, at));
            }
        };
        let Some(next) = next else { break };
        (bytes, depth) = next;
    }
    Err(first_error.unwrap_or(Error::Depth).into())
}

/// The entries of an index that may lead to an image for a platform, or for any if it is `None`, the
/// best first. An entry without a platform comes last: only its configuration tells what it is for.
pub(crate) fn candidates<'a>(
    entries: &'a [Descriptor],
    wanted: Option<&Platform>,
) -> Result<Vec<&'a Descriptor>, Error> {
    let rank = |entry: &Descriptor| {
        let platform = entry.platform.as_ref();
        platform.map_or(Some(u8::MAX), |platform| match wanted {
            Some(wanted) => platform.rank_for(wanted),
            None => (!platform.is_attestation()).then_some(0),
        })
    };
    let images = entries
        .iter()
        .filter(|entry| entry.foreign_type().is_none());
    let mut found: Vec<(u8, &Descriptor)> = images
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    match found.is_empty() {
        true => Err(nothing_suits(entries, wanted)),
        false => Ok(found.into_iter().map(|(_, entry)| entry).collect()),
    }
}

/// Why none of an index's entries is a candidate.
fn nothing_suits(entries: &[Descriptor], wanted: Option<&Platform>) -> Error {
    let available = platforms(entries);
    let foreign = entries.iter().find_map(Descriptor::foreign_type);
    match foreign.filter(|_| available.0.is_empty()) {
        Some(media_type) => Error::NotAnImage {
            media_type: media_type.to_owned(),
        },
        None => Error::Platform {
            wanted: wanted.cloned().unwrap_or_else(Platform::native),
            available,
        },
    }
}

fn platforms(entries: &[Descriptor]) -> Platforms {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| !platform.is_attestation())
        .take(64)
        .map(ToString::to_string)
        .collect();
    names.dedup();
    Platforms(names)
}
