//! `docker login` and `docker logout`: credentials that the registry has accepted, kept where Docker keeps them: in its
//! config.json, or with the credential helper that this file names.
//!
//! docker/cli, docs/reference/commandline/login.md; docker-credential-helpers, README.md. Deliberately absent: refresh
//! tokens, which servers give to those that ask in a way of their own; the password itself is kept instead.

mod file;
mod helper;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::pull::PullOptions;
use crate::reference::{self, Reference};
use crate::registry::{self, Client, DOCKER_HUB_KEY};

use file::ConfigFile;
pub use file::FileError;
use helper::Helper;
pub use helper::HelperError;

/// The registry that is meant where none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Why a login or logout failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the registry is none.
    #[error("{name:?} is not the name of a registry")]
    Name {
        /// As it was given.
        name: String,
        /// Why.
        #[source]
        source: reference::Error,
    },
    /// No user's name.
    #[error("a user name is needed to log in to {registry}")]
    NoUser {
        /// The registry.
        registry: String,
    },
    /// A colon in the name, which then cannot be told from the password (RFC 7617, section 2).
    #[error("{user:?} cannot be a user name: it has a colon in it")]
    User {
        /// The name.
        user: String,
    },
    /// The registry does not take the credentials.
    #[error("registry {registry} does not accept the password of {user:?}")]
    Denied {
        /// The registry.
        registry: String,
        /// The user.
        user: String,
    },
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Neither DOCKER_CONFIG nor HOME is set.
    #[error("there is no folder for Docker's config.json: neither DOCKER_CONFIG nor HOME is set")]
    NoFolder,
    /// Docker's configuration.
    #[error(transparent)]
    File(#[from] FileError),
    /// A credential helper.
    #[error(transparent)]
    Helper(#[from] HelperError),
}

impl Error {
    /// What a person can do about it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Error::Registry(error) => return error.help(),
            Error::Denied { .. } => {
                "check the name and the password; some registries want an access token in its place"
            }
            Error::NoFolder => "set DOCKER_CONFIG to a folder",
            Error::File(FileError::Syntax { .. }) => {
                "mend the file, or move it away: hull does not overwrite what it cannot read"
            }
            Error::Helper(HelperError::Start { .. }) => {
                "install the helper, or take it out of Docker's config.json"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredIn {
    /// Docker's config.json, where the password can be read by every reader of the file.
    File(PathBuf),
    /// A credential helper: the word after `docker-credential-`.
    Helper(String),
}

/// Checks a user's password at a registry and keeps it for pulls and pushes, by hull and by Docker. `registry` is
/// `docker.io`, `host[:port]` or an address with either in it.
pub fn login(
    registry: &str,
    user: &str,
    password: &str,
    options: &PullOptions,
) -> Result<StoredIn, Error> {
    let name = registry_name(registry)?;
    let domain = name.domain().to_owned();
    if user.is_empty() {
        return Err(Error::NoUser { registry: domain });
    }
    if user.contains(':') {
        let user = user.to_owned();
        return Err(Error::User { user });
    }
    let mut file = ConfigFile::read(&folder(options)?)?;
    if !Client::check_login(&name, user, password, options)? {
        return Err(Error::Denied {
            registry: domain,
            user: user.to_owned(),
        });
    }
    let key = key(&domain);
    match file.helper(key)? {
        Some(helper) => {
            helper.store(key, user, password)?;
            // As Docker does, so that a list of logins is complete without asking the helper.
            file.set(key, None);
            file.write()?;
            Ok(StoredIn::Helper(helper.name().to_owned()))
        }
        None => {
            file.set(key, Some((user, password)));
            file.write()?;
            Ok(StoredIn::File(file.path().to_owned()))
        }
    }
}

/// Forgets what is kept for a registry. `false` if nothing was. `options` says where Docker's config.json is.
pub fn logout(registry: &str, options: &PullOptions) -> Result<bool, Error> {
    let name = registry_name(registry)?;
    let mut file = ConfigFile::read(&folder(options)?)?;
    let mut known = false;
    // Earlier versions of Docker and other tools file a registry under its address.
    let domain = name.domain();
    let keys = [
        key(domain).to_owned(),
        domain.to_owned(),
        format!("https://{domain}"),
        format!("http://{domain}"),
    ];
    for key in &keys {
        if let Some(helper) = file.helper(key)? {
            known |= helper.erase(key)?;
        }
        known |= file.remove(key);
    }
    if known {
        file.write()?;
    }
    Ok(known)
}

/// The registries for which there are credentials, by Docker's names for them, with the user's where it is known without
/// asking for the password.
pub fn logins(options: &PullOptions) -> Result<BTreeMap<String, Option<String>>, Error> {
    let file = ConfigFile::read(&folder(options)?)?;
    let mut logins = file.logins();
    if let Some(helper) = file.default_helper()? {
        let kept = helper.list()?;
        logins.extend(kept.into_iter().map(|(server, user)| (server, Some(user))));
    }
    Ok(logins)
}

/// Some name at the registry, which stands for it.
fn registry_name(text: &str) -> Result<Reference, Error> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text);
    let host = host.split('/').next().unwrap_or(host);
    let host = match host {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    };
    let wrong = |source| Error::Name {
        name: text.chars().take(200).collect(),
        source,
    };
    let reference: Reference = format!("{host}/x").parse().map_err(wrong)?;
    // A word without a dot or a port is no registry in a name, but stands alone here.
    match reference.domain().eq_ignore_ascii_case(host) {
        true => Ok(reference),
        false => Err(wrong(reference::Error::Domain {
            domain: host.to_owned(),
        })),
    }
}

/// Under which name Docker files a registry.
fn key(domain: &str) -> &str {
    match domain {
        DEFAULT_REGISTRY => DOCKER_HUB_KEY,
        domain => domain,
    }
}

fn folder(options: &PullOptions) -> Result<PathBuf, Error> {
    let named = options.docker_config.clone();
    named
        .or_else(registry::docker_config_folder)
        .ok_or(Error::NoFolder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_named_as_people_do() {
        for (text, domain) in [
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://r.example/v2/", "r.example"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(registry_name(text).unwrap().domain(), domain, "{text}");
        }
        for text in ["word", "a b.example", "user@r.example", "r.example:x"] {
            assert!(registry_name(text).is_err(), "{text}");
        }
        assert_eq!(key("docker.io"), "https://index.docker.io/v1/");
    }
}
