//! Listing containers: what `ps` shows, with Docker's filters.
//!
//! Invariants: no socket is opened and nothing is written; for each container one row of the index, its state and, where
//! that says it runs, a look at its sandbox's lock.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;

use protocol::record::{HealthStatus, State};

use crate::container::{Summary, read_health, read_state};
use crate::engine::{Engine, chain};
use crate::error::Error;
use crate::files;
use crate::index::Entry;

mod filter;
mod status;

pub use filter::{Filter, FilterError, Filters};
pub use status::{duration_text, status_text};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Those that do not run too.
    pub all: bool,
    /// Only so many, the latest created, whether they run or not.
    pub last: Option<usize>,
    /// How much each has written to its disk.
    pub sizes: bool,
    /// Which.
    pub filters: Filters,
}

/// A container in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its configuration, in brief.
    pub summary: Summary,
    /// What is true of it.
    pub state: State,
    /// What its health checks say together, if it has them.
    pub health: Option<HealthStatus>,
    /// What it takes of the host's disk beside its image, if asked for and known: not that of a pod's, whose disk is
    /// the pod's.
    pub size_bytes: Option<u64>,
}

impl Listed {
    /// Docker's STATUS column.
    pub fn status_text(&self, now_ns: u64) -> String {
        status_text(&self.state, self.health, now_ns)
    }
}

impl Engine {
    /// The containers, the latest created first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Listed>, Error> {
        let mut summaries = self.summaries()?;
        summaries.sort_by(|a, b| (b.created_ns, &b.id).cmp(&(a.created_ns, &a.id)));
        let bounds = options.filters.bounds(&summaries)?;
        let all = options.all || options.last.is_some() || options.filters.wants_stopped();
        let pods = self.pod_names(&options.filters)?;
        let mut listed = Vec::new();
        for summary in summaries {
            if options.last.is_some_and(|last| listed.len() >= last) {
                break;
            }
            if !options.filters.match_summary(&summary, &bounds, &pods) {
                continue;
            }
            let Some(one) = self.look_at(summary)? else {
                continue;
            };
            let shown = all || one.state.status.is_alive();
            if shown && options.filters.match_state(&one) {
                listed.push(one);
            }
        }
        if options.sizes {
            for one in &mut listed {
                one.size_bytes = self.size(&one.summary);
            }
        }
        Ok(listed)
    }

    /// `None`: it was removed meanwhile.
    fn look_at(&self, summary: Summary) -> Result<Option<Listed>, Error> {
        let layout = self.layout();
        let state = match read_state(layout, &summary.id, &summary.sandbox) {
            Ok(state) => state,
            Err(error) => {
                if !self.exists(&summary.id) {
                    return Ok(None);
                }
                return Err(error);
            }
        };
        let health = match summary.has_health_check {
            true => Some(read_health(layout, &summary.id)?.unwrap_or_default().status),
            false => None,
        };
        Ok(Some(Listed {
            summary,
            state,
            health,
            size_bytes: None,
        }))
    }

    fn size(&self, summary: &Summary) -> Option<u64> {
        /// Of st_blocks (inode(7)).
        const BLOCK_BYTES: u64 = 512;
        if summary.sandbox != summary.id {
            return None;
        }
        let scratch = std::fs::metadata(self.layout().scratch(&summary.id));
        Some(scratch.map_or(0, |scratch| scratch.blocks() * BLOCK_BYTES))
    }

    /// Every container, in brief and in no order. An index that cannot be used (a full disk) is done without.
    pub(crate) fn summaries(&self) -> Result<Vec<Summary>, Error> {
        let rows: BTreeMap<String, Entry> = match self.with_index(|index| index.entries()) {
            Ok(rows) => rows
                .into_iter()
                .map(|row| (row.summary.id.clone(), row))
                .collect(),
            Err(error @ Error::Index(crate::index::Error::Later { .. })) => return Err(error),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the index cannot be used; the folders are read");
                return self.summaries_from_folders();
            }
        };
        let mut rows = rows;
        let mut summaries = Vec::with_capacity(rows.len());
        for id in files::names(&self.layout().containers())? {
            match self.current(&id, rows.remove(&id)) {
                Ok(summary) => summaries.extend(summary),
                Err(error @ Error::Later { .. }) => return Err(error),
                // One damaged file does not hide the others.
                Err(error) => {
                    tracing::warn!(%id, error = %chain(&error), "a container is not shown")
                }
            }
        }
        Ok(summaries)
    }

    fn summaries_from_folders(&self) -> Result<Vec<Summary>, Error> {
        let mut summaries = Vec::new();
        for id in files::names(&self.layout().containers())? {
            let config = crate::container::read_config(self.layout(), &id)?;
            summaries.extend(config.as_ref().map(Summary::of));
        }
        Ok(summaries)
    }

    /// The images that containers use, each with the containers that do.
    pub fn images_in_use(&self) -> Result<BTreeMap<String, BTreeSet<String>>, Error> {
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for summary in self.summaries()? {
            users
                .entry(summary.image_id)
                .or_default()
                .insert(summary.id);
        }
        Ok(users)
    }
}

#[cfg(test)]
mod tests;
