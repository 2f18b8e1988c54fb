//! Containers' names, in SQLite: each belongs to one container.
//!
//! Invariants: a row says that a name was given, the sandbox's lock says whether its container lives; a row whose lock
//! is free is stale and yields to the next container of that name. Deliberately absent: all other state of containers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::sandbox;

/// Version of the schema, kept in SQLite's user_version.
const SCHEMA_VERSION: i64 = 1;
/// How long one command waits for another's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// Why a name cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It belongs to a running container.
    #[error(
        "the container name {name:?} is in use by container {id}; choose another or end that container"
    )]
    InUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The database cannot be used.
    #[error("cannot use the database of container names {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The database is of another time.
    #[error(
        "the database of container names {path} has version {found}, and this hull knows {SCHEMA_VERSION}; use the hull that made it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: i64,
    },
}

/// The database of names.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    connection: Connection,
}

impl Names {
    /// Opens the database of `root`, making it when missing.
    pub fn open(root: &Path) -> Result<Names, Error> {
        let path = root.join("names.sqlite");
        let connection = prepare(&path).map_err(|source| Error::Database {
            path: path.clone(),
            source,
        })?;
        let found = version(&connection).map_err(|source| Error::Database {
            path: path.clone(),
            source,
        })?;
        if found != SCHEMA_VERSION {
            return Err(Error::Version { path, found });
        }
        Ok(Names { path, connection })
    }

    /// Gives `name` to the container `id`, whose sandbox is already locked.
    pub fn claim(&mut self, root: &Path, name: &str, id: &str) -> Result<(), Error> {
        match self.try_claim(root, name, id) {
            Ok(None) => Ok(()),
            Ok(Some(owner)) => Err(Error::InUse {
                name: name.to_owned(),
                id: owner,
            }),
            Err(source) => Err(Error::Database {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Takes back the names of the container `id`.
    pub fn release(&self, id: &str) -> Result<(), Error> {
        self.connection
            .execute("DELETE FROM names WHERE id = ?1", [id])
            .map(drop)
            .map_err(|source| Error::Database {
                path: self.path.clone(),
                source,
            })
    }

    fn try_claim(&mut self, root: &Path, name: &str, id: &str) -> rusqlite::Result<Option<String>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let owner: Option<String> = transaction
            .query_row("SELECT id FROM names WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(owner) = owner.filter(|owner| sandbox::is_alive(root, owner)) {
            return Ok(Some(owner));
        }
        transaction.execute(
            "INSERT OR REPLACE INTO names (name, id) VALUES (?1, ?2)",
            params![name, id],
        )?;
        transaction.commit()?;
        Ok(None)
    }
}

fn prepare(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // With a write-ahead log and synchronous=NORMAL a claim needs no fsync: a name lost with the machine's power is
    // lost with its container.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    if version(&connection)? == 0 {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, id TEXT NOT NULL) WITHOUT ROWID;
             PRAGMA user_version = {SCHEMA_VERSION};
             COMMIT;"
        ))?;
    }
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_container_keeps_its_name_and_a_dead_one_s_is_free() {
        let root = tempfile::tempdir().unwrap();
        let mut names = Names::open(root.path()).unwrap();
        let first = sandbox::create(root.path(), "one").unwrap();
        names.claim(root.path(), "web", "one").unwrap();
        let _second = sandbox::create(root.path(), "two").unwrap();
        let refused = names.claim(root.path(), "web", "two").unwrap_err();
        assert!(
            matches!(refused, Error::InUse { ref id, .. } if id == "one"),
            "{refused}"
        );
        drop(first);
        names.claim(root.path(), "web", "two").unwrap();
        assert!(names.claim(root.path(), "web", "three").is_err());
        names.release("two").unwrap();
        names.claim(root.path(), "web", "three").unwrap();
    }

    #[test]
    fn a_database_of_another_version_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        drop(Names::open(root.path()).unwrap());
        let connection = Connection::open(root.path().join("names.sqlite")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(
            Names::open(root.path()),
            Err(Error::Version { found: 99, .. })
        ));
    }
}
