//! Images as the store returns them.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use super::database::ImageRow;
use super::layers::CONVERTER_VERSION;
use super::{Check, Damage, Error, LayerRow, Result, Store};
use crate::digest::Digest;
use crate::docker::DockerConfig;
use crate::manifest;
use crate::reference::Reference;

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The digest of its configuration: Docker's image id.
    pub id: Digest,
    /// Its tags.
    pub names: Vec<Reference>,
    /// The digests by which registries know it (`repository@sha256:…`).
    pub digests: Vec<Reference>,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// What Docker adds to that.
    pub docker: DockerConfig,
    /// The layers to be mounted, bottom first; never empty. Those that one above hides altogether are left out.
    pub layers: Vec<Layer>,
    /// When it was built, in seconds since 1970, if its configuration states it.
    pub created_s: Option<i64>,
    /// When it was stored, in seconds since 1970.
    pub stored_s: i64,
    /// The size of its layers' files, in bytes. Other images may share them.
    pub size_bytes: u64,
}

/// A layer's EROFS image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
    /// A read-only file, shared by every image and sandbox that uses the layer.
    pub path: PathBuf,
    /// Its size, a multiple of 4096.
    pub size_bytes: u64,
}

impl Image {
    /// What it is made for. The store keeps images of any platform; only native ones can run here.
    pub fn platform(&self) -> manifest::Platform {
        manifest::Platform::of(&self.config)
    }

    /// A name for messages: the first tag, else the first digits of the id.
    pub fn display_name(&self) -> String {
        self.names
            .first()
            .map_or_else(|| self.id.short(), Reference::to_string)
    }
}

impl Store {
    /// Makes an [`Image`] from its row. With [`Check::Files`], a missing or truncated layer is an
    /// error.
    pub(super) fn load(&self, row: ImageRow, check: Check) -> Result<Image> {
        let names = self.database().names(&row.id)?;
        let rows = self.database().layers(&row.id)?;
        let name = names.first().cloned().unwrap_or_else(|| row.id.short());
        let damaged = |path, damage| Error::Damaged {
            image: name.clone(),
            path,
            damage,
        };
        if Digest::of(&row.config) != row.id {
            return Err(damaged(self.root.join("images.db"), Damage::Contents));
        }
        let config = manifest::parse_config(&row.config)
            .map_err(|_| damaged(self.root.join("images.db"), Damage::Contents))?;
        if rows.len() != config.rootfs().diff_ids().len() {
            return Err(damaged(self.root.join("images.db"), Damage::Missing));
        }
        if check == Check::Files {
            for layer in &rows {
                self.check_layer(layer)
                    .map_err(|damage| damaged(self.layer_path(layer), damage))?;
            }
        }
        // overlayfs ignores opaqueness of a root directory, so the layers below such a layer are
        // not mounted.
        let bottom = rows.iter().rposition(|row| row.opaque_root).unwrap_or(0);
        let layers: Vec<Layer> = rows[bottom..]
            .iter()
            .map(|row| Layer {
                diff_id: row.diff_id,
                path: self.layer_path(row),
                size_bytes: row.size_bytes,
            })
            .collect();
        let references = names
            .iter()
            .filter_map(|name| name.parse::<Reference>().ok());
        let (digests, names) = references.partition(|name| name.digest().is_some());
        Ok(Image {
            id: row.id,
            names,
            digests,
            created_s: config.created().as_deref().and_then(seconds_of_rfc3339),
            stored_s: row.stored_s,
            size_bytes: rows.iter().map(|row| row.size_bytes).sum(),
            docker: DockerConfig::of(&row.config),
            config,
            layers,
        })
    }

    pub(crate) fn layer_path(&self, layer: &LayerRow) -> PathBuf {
        self.layers_folder().join(&layer.file)
    }

    /// Whether the layer's file is present and has the size that was written.
    pub(super) fn check_layer(&self, layer: &LayerRow) -> std::result::Result<(), Damage> {
        if layer.converter != CONVERTER_VERSION {
            return Err(Damage::Outdated);
        }
        match std::fs::symlink_metadata(self.layer_path(layer)) {
            Ok(metadata) if metadata.is_file() && metadata.len() == layer.size_bytes => Ok(()),
            Ok(_) => Err(Damage::Size),
            Err(_) => Err(Damage::Missing),
        }
    }
}

/// RFC 3339, section 5.6: the seconds since 1970 of `2026-11-22T09:40:28.5Z` or the like.
pub(super) fn seconds_of_rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())
            .flatten()
    };
    let is = |at: usize, allowed: &str| text.get(at..at + 1).is_some_and(|c| allowed.contains(c));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let punctuated = is(4, "-") && is(7, "-") && is(10, "Tt ") && is(13, ":") && is(16, ":");
    let sensible = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !punctuated || !sensible {
        return None;
    }
    let zone = text
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset_s = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
    };
    // Days since 1970-01-01 of a Gregorian date, counting years from March so that leap days come
    // last.
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset_s)
}

#[cfg(test)]
mod tests {
    use super::seconds_of_rfc3339;

    #[test]
    fn creation_times_are_read_as_date_prints_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-22T09:40:28Z", 1_795_340_428),
            ("2024-02-29T23:59:59.123456789Z", 1_709_251_199),
            ("2024-03-01T01:30:00+02:00", 1_709_249_400),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
        ] {
            assert_eq!(seconds_of_rfc3339(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-22",
            "2026-11-22T09:40:28",
            "é026",
        ] {
            assert_eq!(seconds_of_rfc3339(text), None, "{text}");
        }
    }
}
