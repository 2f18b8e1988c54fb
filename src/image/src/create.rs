//! New images: a layer above another image, or above nothing, with a changed configuration. What `docker commit`,
//! `docker import` and each step of a build come down to.
//!
//! Of the base's configuration, what OCI's specification (image-spec 1.1, config.md) defines goes into the new one; what
//! builders add of their own speaks of the base, and is left out.

use std::io::Read;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::error::{Cause, Error as TopError};
use crate::manifest::{Config, Platform, check_layer_count};
use crate::progress::{Event, LayerName, Progress};
use crate::pull::Watched;
use crate::reference::Reference;
use crate::store::{self, Image, LayerJob, LayerRow, Store};
use crate::time::rfc3339;

/// What the base's configuration gives to the new one, besides its `config`, `rootfs` and `history`.
const INHERITED: [&str; 6] = [
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "config",
];

/// An image to be made.
pub struct NewImage<'a> {
    /// What it is above; nothing if `None`.
    pub base: Option<&'a Image>,
    /// The tar of its own layer, packed or not. Without one, only the configuration changes.
    pub layer: Option<&'a mut dyn Read>,
    /// The whole `config` object (`Env`, `Cmd`, `Labels`, …); the base's if `None`. Fields that this crate does not know
    /// are kept.
    pub config: Option<Value>,
    /// What an image without a base is made for; of one with a base, the base says it.
    pub platform: Platform,
    /// Who made it.
    pub author: Option<String>,
    /// When.
    pub created: SystemTime,
    /// The step that made it, for its history: a command.
    pub created_by: String,
    /// A remark on that step; Docker's `--message`.
    pub comment: Option<String>,
    /// The names that it gets, taken from whatever has them.
    pub names: Vec<Reference>,
}

impl Store {
    /// Makes an image. The same parts at the same time make the same image.
    pub fn create(&self, new: NewImage<'_>, progress: &dyn Progress) -> crate::Result<Image> {
        self.create_image(new, progress)
            .map_err(|source| TopError::Create {
                source: source.into(),
            })
    }

    fn create_image(&self, new: NewImage<'_>, progress: &dyn Progress) -> Result<Image, Cause> {
        if let Some(name) = new.names.iter().find(|name| name.digest().is_some()) {
            let name = name.to_string();
            return Err(store::Error::DigestAsTag { name }.into());
        }
        let _session = self.session()?;
        let _lease = new.base.map(|base| self.lease(base)).transpose()?;
        let mut rows = match new.base {
            Some(base) => self.layer_rows(base)?,
            None => Vec::new(),
        };
        let base = match new.base {
            Some(base) => serde_json::from_slice(&self.config_of(base)?).unwrap_or_default(),
            None => json!({ "architecture": new.platform.architecture, "os": new.platform.os,
                "variant": new.platform.variant, "config": {} }),
        };
        let config = new.configuration(&base, rows.len());
        check_layer_count(rows.len() + usize::from(new.layer.is_some()))?;
        if let Some(layer) = new.layer {
            let row = self.create_layer(layer, &rows, progress)?;
            rows.push(row);
        }
        let config = with_layers(config, &rows);
        let config = Config::parse_any(Value::Object(config).to_string().into_bytes())?;
        Ok(self.put_image(&config, None, &rows, &new.names)?)
    }

    fn create_layer(
        &self,
        tar: &mut dyn Read,
        lower: &[LayerRow],
        progress: &dyn Progress,
    ) -> Result<LayerRow, store::Error> {
        let layer = LayerName {
            index: lower.len(),
            digest: None,
        };
        progress.event(Event::Converting {
            layer,
            total_bytes: None,
        });
        let source = Watched {
            inner: tar,
            bytes: 0,
            layer,
            progress,
        };
        let job = LayerJob {
            diff_id: None,
            lower,
            name: "of the new image",
        };
        let row = self.store_layer(&job, source)?;
        progress.event(Event::Stored {
            layer,
            size_bytes: row.size_bytes,
        });
        Ok(row)
    }
}

impl NewImage<'_> {
    /// The new configuration, without its layers.
    fn configuration(&self, base: &Value, base_layers: usize) -> Map<String, Value> {
        let given = |key: &str| base.get(key).filter(|value| !value.is_null()).cloned();
        let mut document: Map<String, Value> = INHERITED
            .iter()
            .filter_map(|&key| Some((key.to_owned(), given(key)?)))
            .collect();
        if let Some(config) = &self.config {
            document.insert("config".to_owned(), config.clone());
        }
        if let Some(author) = &self.author {
            document.insert("author".to_owned(), author.clone().into());
        }
        let created = rfc3339(self.created);
        document.insert("created".to_owned(), created.clone().into());
        let mut step = json!({ "created": created, "created_by": self.created_by });
        for (key, text) in [("author", &self.author), ("comment", &self.comment)] {
            if let Some(text) = text {
                step[key] = text.clone().into();
            }
        }
        if self.layer.is_none() {
            step["empty_layer"] = true.into();
        }
        let mut history = match given("history") {
            Some(Value::Array(steps)) => steps,
            _ => Vec::new(),
        };
        // A history that tells of some layers must tell of all: readers count.
        let empty = |step: &Value| step.get("empty_layer") == Some(&Value::Bool(true));
        let told = history.iter().filter(|step| !empty(step)).count();
        history.extend((told..base_layers).map(|_| json!({ "created_by": "" })));
        history.push(step);
        document.insert("history".to_owned(), history.into());
        document
    }
}

fn with_layers(mut document: Map<String, Value>, rows: &[LayerRow]) -> Map<String, Value> {
    let diff_ids: Vec<_> = rows.iter().map(|row| row.diff_id).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    document.insert("rootfs".to_owned(), rootfs);
    document
}
