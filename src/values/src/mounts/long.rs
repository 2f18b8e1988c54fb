//! `--mount`: fields with keys, separated by commas as in a line of a CSV file.

use std::path::PathBuf;

use engine::options::mounts::{Form, Mount, Source, Volume};
use engine::protocol::record::Submounts;

use super::{Error, driver, is_path, on_host, place};
use crate::{boolean, size};

/// What the fields say, before they are looked at together.
#[derive(Debug, Default)]
struct Fields {
    kind: Option<String>,
    source: String,
    target: String,
    read_only: bool,
    /// `bind-recursive`.
    recursive: Option<String>,
    propagation: Option<String>,
    volume: Volume,
    size_bytes: Option<u64>,
    mode: Option<u32>,
    /// The types whose options were used.
    of: Vec<&'static str>,
}

/// `type=TYPE,source=SOURCE,target=TARGET[,KEY=VALUE…]`
pub fn mount(text: &str) -> Result<Mount, Error> {
    let mut fields = Fields::default();
    for field in split(text)? {
        fields.add(&field)?;
    }
    fields.mount()
}

/// The fields of a line: one that begins with a quote ends with one, and holds commas and doubled quotes.
fn split(line: &str) -> Result<Vec<String>, Error> {
    let error = || Error::Quote(line.to_owned());
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(error());
                }
                (field.to_owned(), after)
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut quoted = quoted;
                loop {
                    let (part, after) = quoted.split_once('"').ok_or_else(error)?;
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        Some(after) => {
                            field.push('"');
                            quoted = after;
                        }
                        None => break (field, after),
                    }
                }
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(error()),
        }
    }
}

impl Fields {
    fn add(&mut self, field: &str) -> Result<(), Error> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let key = key.trim().to_ascii_lowercase();
        let flag = || match value {
            None => Ok(true),
            Some(value) => boolean(value).map_err(|_| bad(&key, value)),
        };
        match key.as_str() {
            "readonly" | "ro" => {
                self.read_only = flag()?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.volume.no_copy = flag()?;
                self.of.push("volume");
                return Ok(());
            }
            "bind-nonrecursive" => {
                self.recursive = flag()?.then(|| "disabled".to_owned());
                self.of.push("bind");
                return Ok(());
            }
            _ => {}
        }
        let value = value.ok_or_else(|| Error::Field(field.to_owned()))?;
        self.set(&key, value, field)
    }

    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), Error> {
        let pair = || {
            let (name, value) = value.split_once('=').unwrap_or((value, ""));
            (name.to_owned(), value.to_owned())
        };
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            // Docker's on a Mac: has no effect on Linux.
            "consistency" => {}
            "bind-propagation" => self.propagation = Some(value.to_ascii_lowercase()),
            "bind-recursive" => self.recursive = Some(value.to_owned()),
            "volume-subpath" => self.volume.subpath = Some(PathBuf::from(value)),
            "volume-label" => self.volume.labels.extend([pair()]),
            "volume-opt" => self.volume.options.extend([pair()]),
            "volume-driver" => driver(value)?,
            "tmpfs-size" => self.size_bytes = Some(size(value).map_err(|_| bad(key, value))?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok();
                let mode = mode.filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| bad(key, value))?);
            }
            key => {
                return Err(Error::Key {
                    key: key.to_owned(),
                    field: field.to_owned(),
                });
            }
        }
        let of = ["bind", "volume", "tmpfs"];
        let of = of.into_iter().find(|kind| {
            let rest = key.strip_prefix(kind);
            rest.is_some_and(|rest| rest.starts_with('-'))
        });
        self.of.extend(of);
        Ok(())
    }

    fn mount(self) -> Result<Mount, Error> {
        if self.target.is_empty() {
            return Err(Error::Required("target"));
        }
        let target = place(&self.target)?;
        let read_only = self.read_only;
        let source = match self.kind.as_deref() {
            None | Some("volume") => self.volume()?,
            Some("bind") => self.bind()?,
            Some("tmpfs") => self.tmpfs()?,
            Some("") => return Err(Error::Required("type")),
            Some(kind) => return Err(Error::Type(kind.to_owned())),
        };
        Ok(Mount {
            source,
            target,
            read_only,
            form: Form::Mount,
        })
    }

    /// Refuses options of other types.
    fn only(&self, kind: &'static str) -> Result<(), Error> {
        let options = match self.of.iter().find(|of| **of != kind) {
            None => return Ok(()),
            Some(&"bind") => "bind-*",
            Some(&"volume") => "volume-*",
            Some(_) => "tmpfs-*",
        };
        Err(Error::Mixed { options, kind })
    }

    fn volume(self) -> Result<Source, Error> {
        self.only("volume")?;
        let why = |why| Error::Config {
            kind: "volume",
            why,
        };
        if let Some(subpath) = &self.volume.subpath {
            if self.source.is_empty() {
                return Err(why("must not set Subpath when using anonymous volumes"));
            }
            let leaves = |part| matches!(part, std::path::Component::ParentDir);
            if subpath.is_absolute() || subpath.components().any(leaves) {
                return Err(why("subpath must be a relative path within the volume"));
            }
        }
        if is_path(&self.source) {
            return Err(why("a volume's name is no path; type=bind mounts one"));
        }
        Ok(Source::Volume(Volume {
            name: Some(self.source).filter(|name| !name.is_empty()),
            ..self.volume
        }))
    }

    fn bind(self) -> Result<Source, Error> {
        self.only("bind")?;
        let why = |why| Error::Config { kind: "bind", why };
        if self.source.is_empty() {
            return Err(why("field Source must not be empty"));
        }
        if !is_path(&self.source) {
            return Err(why(
                "the source is neither an absolute path nor one that begins with ./ or ../",
            ));
        }
        match self.propagation.as_deref() {
            None | Some("private" | "rprivate") => {}
            Some(word @ ("shared" | "rshared" | "slave" | "rslave")) => {
                return Err(Error::Propagation(word.to_owned()));
            }
            Some(word) => return Err(bad("bind-propagation", word)),
        }
        let submounts = match self.recursive.as_deref() {
            None | Some("enabled") => Submounts::Alike,
            Some("disabled") => Submounts::Hidden,
            Some("writable") => Submounts::AsTheyAre,
            Some("readonly") => {
                let option = "bind-recursive=readonly";
                if !self.read_only {
                    let needs = "readonly";
                    return Err(Error::Needs { option, needs });
                }
                if self.propagation.as_deref() != Some("rprivate") {
                    let needs = "bind-propagation=rprivate";
                    return Err(Error::Needs { option, needs });
                }
                Submounts::Alike
            }
            Some(word) => return Err(bad("bind-recursive", word)),
        };
        Ok(Source::Bind {
            path: on_host(&self.source),
            submounts,
        })
    }

    fn tmpfs(self) -> Result<Source, Error> {
        self.only("tmpfs")?;
        if !self.source.is_empty() {
            return Err(Error::Config {
                kind: "tmpfs",
                why: "field Source must not be specified",
            });
        }
        Ok(Source::Tmpfs {
            size_bytes: self.size_bytes,
            mode: self.mode,
        })
    }
}

fn bad(key: &str, value: &str) -> Error {
    Error::Value {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}
