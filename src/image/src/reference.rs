//! Image references as users type them: Docker's grammar and its resolution of short names.
//!
//! The grammar is that of github.com/distribution/reference (regexp.go, normalize.go). `nginx` is
//! `docker.io/library/nginx:latest`; a first component with a dot, a colon or a capital, or
//! `localhost`, is a registry. Deliberately absent: any meaning of a name (`demo` is a name like
//! others here).

use std::fmt;
use std::str::FromStr;

use crate::digest::{self, Digest};

/// The registry of a name without one.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Its name in old configurations.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// The host that serves it.
const DEFAULT_HOST: &str = "registry-1.docker.io";
/// The folder of its official images.
const OFFICIAL: &str = "library/";
/// The tag of a name without a tag or a digest.
const DEFAULT_TAG: &str = "latest";
/// distribution/reference: NameTotalLengthMax.
const MAX_NAME_LEN: usize = 255;
/// distribution/reference: TagRegexp.
const MAX_TAG_LEN: usize = 128;

/// The name of an image: registry, repository, and a tag or a digest (or both: then the digest
/// decides).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The empty text.
    #[error("an image name cannot be empty")]
    Empty,
    /// Capitals in the repository.
    #[error("image name {name:?} has capital letters: a repository is written in lower case")]
    Capitals {
        /// The repository.
        name: String,
    },
    /// Not Docker's grammar.
    #[error(
        "{name:?} is not an image name: components are lower-case letters and digits, joined by '.', '_', '__' or '-'"
    )]
    Name {
        /// The offending part.
        name: String,
    },
    /// Not a host with an optional port.
    #[error(
        "{domain:?} is not the name of a registry (a host name or address, and perhaps a port)"
    )]
    Domain {
        /// The first component.
        domain: String,
    },
    /// Not a tag.
    #[error(
        "{tag:?} is not a tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'"
    )]
    Tag {
        /// What follows the colon.
        tag: String,
    },
    /// Longer than registries take.
    #[error("the image name is {length} bytes long, more than {MAX_NAME_LEN}")]
    Length {
        /// Of registry and repository.
        length: usize,
    },
    /// 64 hex digits are an image's id, never its name.
    #[error("{name:?} is an image id, not a name")]
    LooksLikeId {
        /// The whole text.
        name: String,
    },
    /// What follows the `@` is not a digest.
    #[error(transparent)]
    Digest(#[from] digest::Error),
}

impl Reference {
    /// The registry as users write it: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The host and port that serve the registry.
    pub fn host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN {
            DEFAULT_HOST
        } else {
            &self.domain
        }
    }

    /// The repository inside the registry: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.path
    }

    /// The tag that was given, or `latest` if neither a tag nor a digest was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The digest or else the tag, as used in the path of a request for the manifest.
    pub(crate) fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Registry and repository in full: `docker.io/library/nginx`.
    pub(crate) fn full_repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name under which the store knows an image; the inverse of parsing. A tag beside a digest
    /// is dropped, as Docker does: nothing has checked that it belongs to it.
    pub(crate) fn canonical(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.full_repository()),
            None => format!("{}:{}", self.full_repository(), self.manifest()),
        }
    }

    /// The same repository with this tag, which [`is_tag`] has approved.
    pub(crate) fn with_tag(&self, tag: &str) -> Reference {
        Reference {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// The same repository at `digest`.
    pub(crate) fn at(&self, digest: Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    /// The familiar form: the shortest text that parses to this reference, with its tag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.domain == DEFAULT_DOMAIN {
            let short = self
                .path
                .strip_prefix(OFFICIAL)
                .filter(|rest| !rest.contains('/'));
            let name = short.unwrap_or(&self.path);
            // Without its registry, "docker.io/a.b/c" would name a registry a.b.
            if named_domain(name).is_some() {
                write!(f, "{DEFAULT_DOMAIN}/")?;
            }
            f.write_str(name)?;
        } else {
            write!(f, "{}/{}", self.domain, self.path)?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if Digest::from_hex(text).is_ok() {
            return Err(Error::LooksLikeId {
                name: text.to_owned(),
            });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(checked_tag(tag)?)),
            None => (rest, None),
        };
        let (domain, path) = split_domain(name)?;
        check_path(&path)?;
        let length = domain.len() + 1 + path.len();
        if length > MAX_NAME_LEN {
            return Err(Error::Length { length });
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag,
        };
        Ok(Reference {
            domain,
            path,
            tag,
            digest,
        })
    }
}

/// The registry that a name begins with and what follows it, if it begins with one.
fn named_domain(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':'])
            || *first == "localhost"
            || first.chars().any(|c| c.is_ascii_uppercase())
    })
}

/// Registry and repository of a name without tag and digest (normalize.go, splitDockerDomain).
fn split_domain(name: &str) -> Result<(String, String), Error> {
    let (domain, path) = named_domain(name).unwrap_or((DEFAULT_DOMAIN, name));
    check_domain(domain)?;
    let domain = if domain == LEGACY_DOMAIN {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return Ok((domain.to_owned(), format!("{OFFICIAL}{path}")));
    }
    Ok((domain.to_owned(), path.to_owned()))
}

/// A host name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn check_domain(domain: &str) -> Result<(), Error> {
    let wrong = || Error::Domain {
        domain: domain.to_owned(),
    };
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(wrong)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match after {
                "" => return Ok(()),
                after => (None, Some(after.strip_prefix(':').ok_or_else(wrong)?)),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(host) = host {
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !host.split('.').all(label) {
            return Err(wrong());
        }
    }
    match port {
        Some(port) if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) => Err(wrong()),
        Some(port) => port.parse::<u16>().map(drop).map_err(|_| wrong()),
        None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), Error> {
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(Error::Capitals {
            name: path.to_owned(),
        });
    }
    match path.split('/').all(is_path_component) {
        true => Ok(()),
        false => Err(Error::Name {
            name: path.to_owned(),
        }),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|&b| word(b)) || !bytes.last().is_some_and(|&b| word(b)) {
        return false;
    }
    bytes.split(|&b| word(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

/// Whether a text can be a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    checked_tag(text).is_ok()
}

fn checked_tag(tag: &str) -> Result<String, Error> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let right = tag.len() <= MAX_TAG_LEN
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    match right {
        true => Ok(tag.to_owned()),
        false => Err(Error::Tag {
            tag: tag.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
