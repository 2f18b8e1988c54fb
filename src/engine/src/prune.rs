//! Removing what is not used.

use std::collections::BTreeMap;

use protocol::record::Status;

use crate::engine::{Engine, chain};
use crate::error::Error;
use crate::events::Told;
use crate::list::ListOptions;
use crate::remove::Remove;

/// Which containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFilters {
    /// Only those created before this, in nanoseconds since the epoch.
    pub until_ns: Option<u64>,
    /// Only those with these labels, with this value if there is one.
    pub labels: Vec<(String, Option<String>)>,
    /// Only those without these.
    pub without_labels: Vec<(String, Option<String>)>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Identifiers.
    pub containers: Vec<String>,
    /// What they took of the host's disk.
    pub freed_bytes: u64,
}

impl PruneFilters {
    fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(name, value): &(String, Option<String>)| {
            let found = labels.get(name);
            found.is_some_and(|found| value.as_ref().is_none_or(|value| found == value))
        };
        self.labels.iter().all(has) && !self.without_labels.iter().any(has)
    }
}

impl Engine {
    /// Removes the containers that do not run. One that cannot be removed (it was started meanwhile) is left.
    pub fn prune_containers(&self, filters: &PruneFilters) -> Result<Pruned, Error> {
        self.sweep()?;
        let all = ListOptions {
            all: true,
            sizes: true,
            ..Default::default()
        };
        let mut pruned = Pruned::default();
        for one in self.list(&all)? {
            let is_old = filters
                .until_ns
                .is_none_or(|until| one.summary.created_ns < until);
            let has_ended = matches!(
                one.state.status,
                Status::Created | Status::Exited | Status::Dead
            );
            if !is_old || !has_ended || !filters.match_labels(&one.summary.labels) {
                continue;
            }
            match self.remove(&one.summary.id, Remove::default()) {
                Ok(()) => {
                    pruned.containers.push(one.summary.id);
                    pruned.freed_bytes += one.size_bytes.unwrap_or(0);
                }
                Err(error) => {
                    tracing::warn!(id = one.summary.id, error = %chain(&error), "a container is left");
                }
            }
        }
        let freed = pruned.freed_bytes.to_string();
        self.tell(Told::new("container", "prune", "").with("reclaimed", freed));
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests;
