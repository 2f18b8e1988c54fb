//! Nodes: what a guest knows by number.
//!
//! ```text
//!           LOOKUP, CREATE, … (+1)                FORGET (-n)
//!  (none) ------------------------> known (count) ----------> (none): count 0, share removed, INIT, DESTROY
//! ```
//!
//! Invariants: one node for one file of a share as seen through one mount, so that hard links have one and file systems
//! mounted below a share do not collide; its descriptor keeps the file, and with it the file's number, from being used again;
//! a node's number is never used again. A lock is held for a look into the table, never during a system call.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::abi::ROOT_ID;
use crate::share::Share;
use crate::{Result, host, lock};

/// The most nodes of a guest: each is a descriptor, and an inode in the host's memory. Half of what Linux lets a process open
/// (fs.nr_open); a guest forgets nodes when it needs its memory.
pub(crate) const MAX_NODES: usize = 512 << 10;

/// Which file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    share: u64,
    pub(crate) mount: u64,
    device: (u32, u32),
    inode: u64,
}

impl Key {
    fn new(share: &Share, stat: &Statx) -> Self {
        Self {
            share: share.number,
            mount: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }
    }
}

/// A file that the guest has looked up.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) key: Key,
    /// A file's type never changes.
    pub(crate) kind: FileType,
    /// O_PATH.
    pub(crate) place: OwnedFd,
    pub(crate) share: Arc<Share>,
}

impl Node {
    /// Whether a share begins here.
    pub(crate) fn is_root_of_share(&self) -> bool {
        host::stat(&self.share.root).is_ok_and(|root| Key::new(&self.share, &root) == self.key)
    }
}

/// All nodes but the root.
#[derive(Debug)]
pub(crate) struct Nodes {
    table: Mutex<Table>,
    most: usize,
}

#[derive(Debug)]
struct Table {
    by_id: HashMap<u64, Known>,
    by_key: HashMap<Key, u64>,
    last_id: u64,
}

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    /// How often it was looked up and not forgotten.
    lookups: u64,
}

impl Nodes {
    /// None; at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            table: Mutex::new(Table {
                by_id: HashMap::new(),
                by_key: HashMap::new(),
                last_id: ROOT_ID,
            }),
            most: most.min(MAX_NODES),
        }
    }

    /// The node of that number. ESTALE if there is none.
    pub(crate) fn get(&self, id: u64) -> Result<Arc<Node>> {
        let table = lock(&self.table);
        let known = table.by_id.get(&id).ok_or(Errno::STALE)?;
        known.node.share.alive()?;
        Ok(known.node.clone())
    }

    /// Fails with ENFILE if there is no room for a further node: to be asked before something is made.
    pub(crate) fn room(&self) -> Result<()> {
        if lock(&self.table).by_id.len() < self.most {
            Ok(())
        } else {
            Err(Errno::NFILE)
        }
    }

    /// Counts a look-up of what is at `place`, which becomes a node unless it is one.
    pub(crate) fn found(
        &self,
        share: &Arc<Share>,
        place: OwnedFd,
        stat: &Statx,
    ) -> Result<Arc<Node>> {
        let key = Key::new(share, stat);
        let mut table = lock(&self.table);
        // Under the lock, so that none enters behind the removal.
        share.alive()?;
        let table = &mut *table;
        if let Some(known) = table
            .by_key
            .get(&key)
            .and_then(|id| table.by_id.get_mut(id))
        {
            known.lookups = known.lookups.saturating_add(1);
            return Ok(known.node.clone());
        }
        if table.by_id.len() >= self.most {
            return Err(Errno::NFILE);
        }
        table.last_id += 1;
        let node = Arc::new(Node {
            id: table.last_id,
            key,
            kind: host::kind(stat),
            place,
            share: share.clone(),
        });
        table.by_key.insert(key, node.id);
        let known = Known {
            node: node.clone(),
            lookups: 1,
        };
        table.by_id.insert(node.id, known);
        Ok(node)
    }

    /// Takes back so many look-ups. A guest that forgets more than it looked up, or what it does not know, loses nothing but
    /// its own node.
    pub(crate) fn forget(&self, id: u64, lookups: u64) {
        let mut table = lock(&self.table);
        let Some(known) = table.by_id.get_mut(&id) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups > 0 {
            return;
        }
        let forgotten = table.by_id.remove(&id);
        if let Some(known) = &forgotten {
            table.by_key.remove(&known.node.key);
        }
        drop(table);
        // Its descriptor is closed here, without the lock.
        drop(forgotten);
    }

    /// Forgets every node of a share that was removed.
    pub(crate) fn forget_share(&self, share: &Share) {
        let mut table = lock(&self.table);
        let of_share = table
            .by_id
            .extract_if(|_, known| known.node.share.number == share.number);
        let forgotten: Vec<_> = of_share.collect();
        table.by_key.retain(|key, _| key.share != share.number);
        drop(table);
        drop(forgotten);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut table = lock(&self.table);
        table.by_key.clear();
        let forgotten: Vec<_> = table.by_id.drain().collect();
        drop(table);
        drop(forgotten);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let table = lock(&self.table);
        assert_eq!(table.by_id.len(), table.by_key.len());
        table.by_id.len()
    }
}
