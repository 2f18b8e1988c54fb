//! Platforms: an operating system, an architecture and perhaps a variant of it, by Go's names.
//!
//! github.com/containerd/platforms has the spellings that people use and how the variants of a platform are ordered.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

/// What an image is made for: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system: `linux`.
    #[serde(default)]
    pub os: String,
    /// The architecture, by Go's name: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture: `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a platform: it is written OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as linux/arm64"
)]
pub struct PlatformError {
    /// The text.
    pub text: String,
}

/// Operating systems that have images. A single word that is none of them is an architecture.
const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];

impl Platform {
    /// What this machine's guests run.
    pub fn native() -> Platform {
        Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }

    /// Whether this machine's guests can run it, so far as operating system and architecture tell.
    pub fn is_native(&self) -> bool {
        let native = Platform::native();
        (&self.os, &self.architecture) == (&native.os, &native.architecture)
    }

    /// Of a configuration.
    pub(crate) fn of(config: &ImageConfiguration) -> Platform {
        Platform {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        }
    }

    /// How well it suits who wants another, lower is better; `None` if not at all. A variant of amd64 (`v2`, `v3`) asks
    /// for newer processors than the plain one, so the plainest is taken; of arm, the newest that is not too new.
    pub(super) fn rank_for(&self, wanted: &Platform) -> Option<u8> {
        if (&self.os, &self.architecture) != (&wanted.os, &wanted.architecture) {
            return None;
        }
        let (own, limit) = (self.version()?, wanted.version()?);
        let named = wanted.variant.as_deref().is_some_and(|v| !v.is_empty());
        match self.architecture.as_str() {
            "amd64" | "arm64" if !named => Some(own),
            _ => limit.checked_sub(own),
        }
    }

    /// The number of the variant, or of the one that is meant where none is named; `None` for an unknown one.
    fn version(&self) -> Option<u8> {
        match self.variant.as_deref() {
            None | Some("") => Some(match self.architecture.as_str() {
                "arm" => 7,
                "arm64" => 8,
                _ => 1,
            }),
            // Of amd64 and arm; "power8" and the like are all the same to us.
            Some(variant) => match variant.strip_prefix('v') {
                Some(number) => number.split('.').next()?.parse().ok(),
                None => Some(1),
            },
        }
    }

    /// Builders list attestations under this platform (BuildKit, attestation-storage.md).
    pub(super) fn is_attestation(&self) -> bool {
        self.os == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let wrong = || PlatformError {
            text: text.chars().take(100).collect(),
        };
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(word) {
            return Err(wrong());
        }
        let native = Platform::native();
        let (os, architecture, variant) = match parts[..] {
            [os] if SYSTEMS.contains(&os) => (os, native.architecture.as_str(), None),
            [architecture] => (native.os.as_str(), architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(wrong()),
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" => ("386", None),
            other => (other, None),
        };
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.or(implied).map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn the_spellings_of_people_are_gos_names() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("Linux/aarch64", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
            ("armhf", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(text).to_string(), expected, "{text}");
        }
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "linux//v7"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_best_variant_that_is_not_too_new_is_taken() {
        let best = |wanted: &str, there: &[&str]| {
            let ranked = there
                .iter()
                .filter_map(|text| Some((platform(text).rank_for(&platform(wanted))?, *text)));
            ranked.min().map(|(_, text)| text.to_owned())
        };
        let arm = [
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
        ];
        assert_eq!(best("linux/arm", &arm).unwrap(), "linux/arm/v7");
        assert_eq!(best("linux/arm/v6", &arm).unwrap(), "linux/arm/v6");
        assert_eq!(best("linux/arm64", &arm).unwrap(), "linux/arm64/v8");
        assert_eq!(
            best("linux/arm64", &["linux/arm64"]).unwrap(),
            "linux/arm64"
        );
        let amd64 = ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"];
        assert_eq!(best("linux/amd64", &amd64).unwrap(), "linux/amd64");
        assert_eq!(best("linux/amd64", &amd64[..1]).unwrap(), "linux/amd64/v3");
        assert_eq!(best("linux/amd64/v2", &amd64).unwrap(), "linux/amd64/v2");
        assert_eq!(best("linux/s390x", &amd64), None);
        assert_eq!(
            best("linux/ppc64le", &["linux/ppc64le"]).unwrap(),
            "linux/ppc64le"
        );
    }
}
