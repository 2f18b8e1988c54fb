//! `-v`, `--mount` and `--volumes-from`: Docker's grammars of what is mounted.
//!
//! Deliberately absent: whether a path or a volume is there, which is the engine's to say.

use std::path::{Path, PathBuf};

use engine::options::mounts::{Form, Mount, Source, Volume, VolumesFrom};
use engine::protocol::record::Submounts;

use super::absolute;

mod long;

pub use long::mount;

/// Why a text is no mount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `[SOURCE:]TARGET[:OPTIONS]`.
    #[error("invalid volume specification: '{0}'")]
    Volume(String),
    /// Options that are unknown, twice, or exclude each other.
    #[error("invalid mode: {0}")]
    Mode(String),
    /// A place in the container that depends on where one is, or is its root.
    #[error("{0:?} is not a place in the container: an absolute path below / without .. is one")]
    Target(String),
    /// Mounts that would come and go in the container, or in the host.
    #[error(
        "propagation {0} is not possible: a container's mounts are its own, and those of the host come along as they are when it \
         starts; private and rprivate are what is so"
    )]
    Propagation(String),
    /// A field of `--mount` that is not `KEY=VALUE`.
    #[error("invalid field '{0}' must be a key=value pair")]
    Field(String),
    /// A key that `--mount` does not have.
    #[error("unexpected key '{key}' in '{field}'")]
    Key {
        /// The key.
        key: String,
        /// Key and value.
        field: String,
    },
    /// A value that a key does not take.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A type of mount that there is not.
    #[error("mount type unknown: {0:?}; there are bind, volume and tmpfs")]
    Type(String),
    /// Something that has to be there.
    #[error("{0} is required")]
    Required(&'static str),
    /// Options of one type for a mount of another.
    #[error("cannot mix '{options}' options with mount type '{kind}'")]
    Mixed {
        /// Such as `bind-*`.
        options: &'static str,
        /// The mount's type.
        kind: &'static str,
    },
    /// An option that says nothing without another.
    #[error("option '{option}' requires '{needs}' to be specified in conjunction")]
    Needs {
        /// The option.
        option: &'static str,
        /// The other.
        needs: &'static str,
    },
    /// Something that a mount of this type does not take.
    #[error("invalid mount config for type \"{kind}\": {why}")]
    Config {
        /// The mount's type.
        kind: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// Quotes that are not closed, or in the middle of a field.
    #[error("bare or missing quote in {0:?}")]
    Quote(String),
    /// A driver that there is not.
    #[error("volume driver {0:?} is not known: hull has local alone")]
    Driver(String),
    /// Not `CONTAINER[:ro|rw]`.
    #[error("{0:?} does not name a container: CONTAINER, CONTAINER:ro or CONTAINER:rw")]
    VolumesFrom(String),
}

/// What the options of `-v` say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mode {
    read_only: bool,
    no_copy: bool,
}

/// `[SOURCE:]TARGET[:OPTIONS]`
pub fn volume(text: &str) -> Result<Mount, Error> {
    let error = || Error::Volume(text.to_owned());
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        // `/data:ro` has no source, and what has none takes no options.
        [_, options] if mode(options).is_ok_and(|_| !options.starts_with('/')) => {
            return Err(error());
        }
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(error()),
    };
    if source == Some("") || target.is_empty() {
        return Err(error());
    }
    let Mode { read_only, no_copy } = mode(options)?;
    let target = place(target)?;
    let source = match source {
        Some(path) if is_path(path) => {
            if no_copy {
                return Err(Error::Mode(options.to_owned()));
            }
            Source::Bind {
                path: on_host(path),
                submounts: Submounts::Alike,
            }
        }
        name => Source::Volume(Volume {
            name: name.map(str::to_owned),
            no_copy,
            ..Volume::default()
        }),
    };
    Ok(Mount {
        source,
        target,
        read_only,
        form: Form::Volume(options.to_owned()),
    })
}

/// Words between commas, of each kind one at most; none is fine.
fn mode(text: &str) -> Result<Mode, Error> {
    let error = || Error::Mode(text.to_owned());
    let mut seen = Vec::new();
    let mut mode = Mode::default();
    for word in text.split(',').filter(|_| !text.is_empty()) {
        let kind = match word {
            "ro" | "rw" => "access",
            // Labels of SELinux, which confines no container of hull's.
            "z" | "Z" => "label",
            "nocopy" => "copy",
            // Of Docker's on a Mac, which has none of it on Linux either.
            "consistent" | "cached" | "delegated" => "consistency",
            "private" | "rprivate" => "propagation",
            "shared" | "rshared" | "slave" | "rslave" => {
                return Err(Error::Propagation(word.to_owned()));
            }
            _ => return Err(error()),
        };
        if seen.contains(&kind) {
            return Err(error());
        }
        seen.push(kind);
        mode.read_only |= word == "ro";
        mode.no_copy |= word == "nocopy";
    }
    Ok(mode)
}

/// Docker's rule: a path begins with a slash or a dot; anything else is a volume's name.
fn is_path(source: &str) -> bool {
    source.starts_with('/')
        || [".", ".."].contains(&source)
        || source.starts_with("./")
        || source.starts_with("../")
}

/// A path of the host's, made absolute.
fn on_host(path: &str) -> PathBuf {
    // It fails where there is no current directory; then the path is refused as it is.
    std::path::absolute(path).unwrap_or_else(|_| Path::new(path).to_owned())
}

fn place(target: &str) -> Result<String, Error> {
    absolute(target).ok_or_else(|| Error::Target(target.to_owned()))
}

/// `CONTAINER[:OPTIONS]`
pub fn volumes_from(text: &str) -> Result<VolumesFrom, Error> {
    let (container, options) = text.split_once(':').unwrap_or((text, ""));
    let error = || Error::VolumesFrom(text.to_owned());
    let Mode { read_only, no_copy } = mode(options).map_err(|_| error())?;
    if container.is_empty() || no_copy {
        return Err(error());
    }
    Ok(VolumesFrom {
        container: container.to_owned(),
        read_only,
        mode: options.to_owned(),
    })
}

/// `--volume-driver`: the default's name.
pub fn driver(text: &str) -> Result<(), Error> {
    match text {
        "" | engine::volumes::DRIVER => Ok(()),
        other => Err(Error::Driver(other.to_owned())),
    }
}

#[cfg(test)]
mod tests;
