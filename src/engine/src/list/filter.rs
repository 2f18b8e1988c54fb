//! Docker's filters of `ps`: several values of one key are alternatives, several keys must all match (labels: all of them).

use std::collections::BTreeMap;

use protocol::record::{HealthStatus, Status};

use super::Listed;
use crate::container::Summary;
use crate::engine::Engine;
use crate::error::Error;

/// A filter that is not one.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// No such key.
    #[error("invalid filter '{0}'")]
    Key(String),
    /// Not a value of this key.
    #[error("invalid filter '{key}={value}': {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// No container of that name.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The identifier contains this.
    Id(String),
    /// The name contains this, or `^…$` matches it whole.
    Name(String),
    /// It has this label, with this value if there is one.
    Label(String, Option<String>),
    /// Its state, in Docker's words.
    Status(Status),
    /// It has ended with this code.
    Exited(u8),
    /// Its image has this name or identifier.
    Ancestor(String),
    /// It was created before this container.
    Before(String),
    /// It was created after this container.
    Since(String),
    /// Its health: `None` is without a check.
    Health(Option<HealthStatus>),
    /// Its network, `bridge` or `none`.
    Network(String),
    /// It has this volume mounted, or something at this place.
    Volume(String),
    /// `vm`, or `pod` or `pod:NAME`.
    Isolation(String),
}

impl Filter {
    /// Of `key=value`.
    pub fn parse(key: &str, value: &str) -> Result<Filter, FilterError> {
        let text = || value.to_owned();
        let bad = |key, wanted| FilterError::Value {
            key,
            value: value.to_owned(),
            wanted,
        };
        Ok(match key {
            "id" => Filter::Id(text()),
            "name" => Filter::Name(text()),
            "label" => match value.split_once('=') {
                Some((name, value)) => Filter::Label(name.to_owned(), Some(value.to_owned())),
                None => Filter::Label(text(), None),
            },
            "status" => Filter::Status(status(value).ok_or_else(|| {
                bad(
                    "status",
                    "created, restarting, running, paused, exited or dead",
                )
            })?),
            "exited" => Filter::Exited(
                value
                    .parse()
                    .map_err(|_| bad("exited", "a code from 0 to 255"))?,
            ),
            "ancestor" => Filter::Ancestor(text()),
            "before" => Filter::Before(text()),
            "since" => Filter::Since(text()),
            "health" => Filter::Health(match value {
                "starting" => Some(HealthStatus::Starting),
                "healthy" => Some(HealthStatus::Healthy),
                "unhealthy" => Some(HealthStatus::Unhealthy),
                "none" => None,
                _ => return Err(bad("health", "starting, healthy, unhealthy or none")),
            }),
            "network" => Filter::Network(text()),
            "volume" => Filter::Volume(text()),
            "isolation" | "pod" => Filter::Isolation(match key {
                "pod" => format!("pod:{value}"),
                _ => text(),
            }),
            other => return Err(FilterError::Key(other.to_owned())),
        })
    }

    /// Filters of the same key are alternatives.
    fn key(&self) -> u8 {
        match self {
            Filter::Id(_) => 0,
            Filter::Name(_) => 1,
            Filter::Label(..) => 2,
            Filter::Status(_) => 3,
            Filter::Exited(_) => 4,
            Filter::Ancestor(_) => 5,
            Filter::Before(_) => 6,
            Filter::Since(_) => 7,
            Filter::Health(_) => 8,
            Filter::Network(_) => 9,
            Filter::Isolation(_) => 10,
            Filter::Volume(_) => 11,
        }
    }
}

fn status(word: &str) -> Option<Status> {
    Some(match word {
        "created" => Status::Created,
        "running" => Status::Running,
        "paused" => Status::Paused,
        "restarting" => Status::Restarting,
        "exited" => Status::Exited,
        "dead" => Status::Dead,
        _ => return None,
    })
}

/// What must hold of a container that is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub Vec<Filter>);

/// The containers that [`Filter::Before`] and [`Filter::Since`] name, by when they were created.
#[derive(Debug, Default)]
pub(super) struct Bounds(BTreeMap<String, u64>);

impl Filters {
    /// Docker lists those that do not run too when a filter asks for one.
    pub(super) fn wants_stopped(&self) -> bool {
        self.0
            .iter()
            .any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)))
    }

    pub(super) fn bounds(&self, summaries: &[Summary]) -> Result<Bounds, FilterError> {
        let mut bounds = Bounds::default();
        for filter in &self.0 {
            if let Filter::Before(name) | Filter::Since(name) = filter {
                let found = summaries
                    .iter()
                    .find(|summary| summary.name == *name || summary.id == *name)
                    .or_else(|| {
                        summaries
                            .iter()
                            .find(|summary| summary.id.starts_with(name))
                    });
                let found = found.ok_or_else(|| FilterError::NoSuchContainer(name.clone()))?;
                bounds.0.insert(name.clone(), found.created_ns);
            }
        }
        Ok(bounds)
    }

    /// Whether everything holds that can be said without a look at the state.
    pub(super) fn match_summary(
        &self,
        summary: &Summary,
        bounds: &Bounds,
        pods: &BTreeMap<String, String>,
    ) -> bool {
        self.all_keys(|filter| {
            Some(match filter {
                Filter::Id(part) => summary.id.contains(part.as_str()),
                Filter::Name(pattern) => name_matches(pattern, &summary.name),
                Filter::Label(name, value) => {
                    let found = summary.labels.get(name);
                    found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
                }
                Filter::Ancestor(image) => {
                    let id = summary.image_id.trim_start_matches("sha256:");
                    let digits = image.trim_start_matches("sha256:");
                    summary.image == *image
                        || summary.image == format!("{image}:latest")
                        || (digits.len() >= 4 && id.starts_with(digits))
                }
                Filter::Before(name) => summary.created_ns < bounds.0[name],
                Filter::Since(name) => summary.created_ns > bounds.0[name],
                Filter::Network(name) => summary.networks().contains(&name.as_str()),
                Filter::Volume(wanted) => summary.mounts.iter().any(|mount| {
                    let named = match &mount.volume {
                        Some(name) => name == wanted,
                        None => mount.path.as_os_str() == wanted.as_str(),
                    };
                    named || mount.destination == *wanted
                }),
                Filter::Isolation(kind) => {
                    let pod = pods.get(&summary.sandbox);
                    match kind.strip_prefix("pod") {
                        Some("") => summary.sandbox != summary.id,
                        Some(name) => {
                            pod.is_some_and(|pod| Some(pod.as_str()) == name.strip_prefix(':'))
                        }
                        None => kind == "vm" && summary.sandbox == summary.id,
                    }
                }
                Filter::Status(_) | Filter::Exited(_) | Filter::Health(_) => return None,
            })
        })
    }

    /// Whether the rest holds.
    pub(super) fn match_state(&self, listed: &Listed) -> bool {
        self.all_keys(|filter| {
            Some(match filter {
                Filter::Status(status) => listed.state.status == *status,
                Filter::Exited(code) => {
                    listed.state.status == Status::Exited && listed.state.exit_code == *code
                }
                Filter::Health(health) => listed.health == *health,
                _ => return None,
            })
        })
    }

    /// Whether each key has a filter that holds; of labels, all must. `None` is a filter that is judged elsewhere.
    fn all_keys(&self, holds: impl Fn(&Filter) -> Option<bool>) -> bool {
        let mut keys: BTreeMap<u8, bool> = BTreeMap::new();
        for filter in &self.0 {
            let Some(holds) = holds(filter) else {
                continue;
            };
            let is_label = matches!(filter, Filter::Label(..));
            let key = keys.entry(filter.key()).or_insert(is_label);
            *key = if is_label {
                *key && holds
            } else {
                *key || holds
            };
        }
        keys.into_values().all(|holds| holds)
    }
}

/// Docker takes a regular expression; anchors and a leading slash are what is used of them.
fn name_matches(pattern: &str, name: &str) -> bool {
    let starts = pattern.starts_with('^');
    let rest = pattern.trim_start_matches('^');
    let ends = rest.ends_with('$');
    let part = rest.trim_end_matches('$').trim_start_matches('/');
    match (starts || rest.starts_with('/'), ends) {
        (true, true) => name == part,
        (true, false) => name.starts_with(part),
        (false, true) => name.ends_with(part),
        (false, false) => name.contains(part),
    }
}

impl Engine {
    /// The names of all pods by identifier, if a filter asks for them.
    pub(super) fn pod_names(&self, filters: &Filters) -> Result<BTreeMap<String, String>, Error> {
        let asks = |filter: &Filter| matches!(filter, Filter::Isolation(_));
        if !filters.0.iter().any(asks) {
            return Ok(BTreeMap::new());
        }
        let pods = self.pods()?;
        Ok(pods.into_iter().map(|pod| (pod.id, pod.name)).collect())
    }
}
