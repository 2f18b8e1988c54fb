//! Docker's config.json, changed without losing anything of it that is not ours.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Helper, HelperError};

/// The largest file that is read.
const MAX_LEN: u64 = 16 << 20;

/// Why Docker's configuration could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A system call failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// As in "cannot … PATH".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON.
    #[error("{} is not valid JSON", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// It is JSON, but a part of it is not what Docker writes.
    #[error("{} is not Docker's: {part} is not an object", .path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Which part.
        part: &'static str,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError::Io {
            action,
            path,
            source,
        }
    }
}

/// The file, read.
pub(super) struct ConfigFile {
    path: PathBuf,
    document: Map<String, Value>,
}

impl ConfigFile {
    /// Reads config.json in this folder; an absent or empty one is as good as `{}`.
    pub(super) fn read(folder: &Path) -> Result<ConfigFile, FileError> {
        let path = folder.join("config.json");
        // Where it is a link, what it leads to is replaced, not the link.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(file) => {
                let mut file = file.take(MAX_LEN);
                file.read_to_end(&mut text)
                    .map_err(FileError::io("read", &path))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::io("read", &path)(error)),
        }
        let document = match text.trim_ascii() {
            b"" => Map::new(),
            text => match serde_json::from_slice(text) {
                Ok(Value::Object(document)) => document,
                Ok(_) => {
                    let part = "the whole";
                    return Err(FileError::Shape { path, part });
                }
                Err(source) => return Err(FileError::Syntax { path, source }),
            },
        };
        for part in ["auths", "credHelpers"] {
            if document
                .get(part)
                .is_some_and(|part| !part.is_object() && !part.is_null())
            {
                return Err(FileError::Shape { path, part });
            }
        }
        Ok(ConfigFile { path, document })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The helper that keeps a registry's credentials, if one does.
    pub(super) fn helper(&self, key: &str) -> Result<Option<Helper>, HelperError> {
        let own = self
            .document
            .get("credHelpers")
            .and_then(|all| all.get(key));
        match own.and_then(Value::as_str) {
            // In Docker, too, an empty name takes a registry out of the store of all.
            Some("") => Ok(None),
            Some(name) => Helper::new(name).map(Some),
            None => self.default_helper(),
        }
    }

    /// The helper that keeps those for which no other is named.
    pub(super) fn default_helper(&self) -> Result<Option<Helper>, HelperError> {
        let name = self.document.get("credsStore").and_then(Value::as_str);
        name.filter(|name| !name.is_empty())
            .map(Helper::new)
            .transpose()
    }

    /// Enters a registry, with a user and password or, where a helper has them, without.
    pub(super) fn set(&mut self, key: &str, credentials: Option<(&str, &str)>) {
        let entry = match credentials {
            Some((user, password)) => {
                json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
            }
            None => json!({}),
        };
        let auths = self.document.entry("auths").or_insert(Value::Null);
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[key] = entry;
    }

    /// Takes a registry out; `false` if it was not there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let auths = self
            .document
            .get_mut("auths")
            .and_then(Value::as_object_mut);
        auths.is_some_and(|auths| auths.remove(key).is_some())
    }

    /// The registries that are entered, with the users of those whose passwords are here.
    pub(super) fn logins(&self) -> BTreeMap<String, Option<String>> {
        let auths = self.document.get("auths").and_then(Value::as_object);
        let user = |entry: &Value| {
            let auth = STANDARD.decode(entry.get("auth")?.as_str()?).ok()?;
            let (user, _) = std::str::from_utf8(&auth).ok()?.split_once(':')?;
            Some(user.to_owned())
        };
        let entries = auths.into_iter().flatten();
        entries
            .map(|(key, entry)| (key.clone(), user(entry)))
            .collect()
    }

    /// Writes the file anew beside the old one and puts it in its place, readable by its owner only.
    pub(super) fn write(&self) -> Result<(), FileError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(FileError::io("make the folder", folder))?;
        let new = folder.join(format!(".config.json-{}", std::process::id()));
        let result = self.write_to(&new).and_then(|()| {
            std::fs::rename(&new, &self.path).map_err(FileError::io("replace", &self.path))
        });
        if result.is_err() {
            // Perhaps it was not even made.
            let _ = std::fs::remove_file(&new);
        }
        result
    }

    fn write_to(&self, path: &Path) -> Result<(), FileError> {
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, tabs);
        serde::Serialize::serialize(&self.document, &mut serializer).map_err(|source| {
            FileError::Syntax {
                path: self.path.clone(),
                source,
            }
        })?;
        text.push(b'\n');
        // What a killed process of the same number left.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::io("remove", path)(error));
            }
            _ => {}
        }
        let failed = || FileError::io("write", path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed())?;
        file.write_all(&text).map_err(failed())?;
        file.sync_all().map_err(failed())
    }
}
