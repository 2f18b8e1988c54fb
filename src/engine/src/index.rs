//! The index of containers, pods and execs, in SQLite: names to identifiers, and what a listing shows of each container.
//!
//! Invariants: it holds nothing that is not in the folders, and is rebuilt from them when it is missing or damaged; a name
//! belongs to one container, and its row is there before the folder is; a row whose folder is neither there nor being made is
//! stale and yields. A row carries the stamp of the config.json that it was made of: where that differs, the file counts.
//! Deliberately absent: anything that changes while a container runs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, params};

use crate::container::Summary;
use crate::files;
use crate::layout::Layout;

/// Version of the schema, kept in SQLite's user_version.
const SCHEMA_VERSION: i64 = 1;
/// How long one process waits for another's transaction, which is a handful of statements.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL, summary TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE pods (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) WITHOUT ROWID;
    CREATE TABLE execs (id TEXT PRIMARY KEY, container TEXT NOT NULL) WITHOUT ROWID;";

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite failed.
    #[error("cannot use the index {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A later hull made it.
    #[error(
        "the index {path} was made by a later hull (its version is {found}, and this hull knows {SCHEMA_VERSION}); use that hull"
    )]
    Later {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A damaged index cannot be put aside.
    #[error("cannot put the damaged index {path} aside")]
    Aside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the file is damaged, so that it must be made anew.
    pub(crate) fn is_damage(&self) -> bool {
        let Error::Database { source, .. } = self else {
            return false;
        };
        match source.sqlite_error_code() {
            Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
            // A table or a column that is not there, a value of another type.
            None => true,
        }
    }
}

/// Which table a name is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Containers,
    Pods,
}

/// A container's row.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) stamp: String,
    pub(crate) summary: Summary,
}

/// The open index.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    connection: Connection,
    /// It was made just now, and is empty.
    pub(crate) is_new: bool,
}

impl Index {
    /// Opens the index, making it when missing.
    pub(crate) fn open(layout: &Layout) -> Result<Index, Error> {
        let path = layout.index();
        let mut connection = connect(&path).map_err(failed(&path))?;
        let mut found = version(&connection).map_err(failed(&path))?;
        let is_new = found == 0;
        if is_new {
            make_tables(&mut connection).map_err(failed(&path))?;
            found = version(&connection).map_err(failed(&path))?;
        }
        if found > SCHEMA_VERSION {
            return Err(Error::Later { path, found });
        }
        Ok(Index {
            path,
            connection,
            is_new,
        })
    }

    /// Puts a damaged index out of the way.
    pub(crate) fn put_aside(layout: &Layout) -> Result<(), Error> {
        let path = layout.index();
        let with = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        for suffix in ["-journal", "-wal", "-shm"] {
            let _ = fs::remove_file(with(suffix));
        }
        match fs::rename(&path, with(".damaged")) {
            Err(source) if !files::is_absent(&source) => Err(Error::Aside { path, source }),
            _ => Ok(()),
        }
    }

    /// Gives the container its name, unless that belongs to another for which `keeps` holds. The answer is the other's
    /// identifier then.
    pub(crate) fn claim(
        &mut self,
        entry: &Entry,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, Error> {
        let path = self.path.clone();
        self.try_claim(entry, keeps).map_err(failed(&path))
    }

    fn try_claim(
        &mut self,
        entry: &Entry,
        keeps: impl Fn(&str) -> bool,
    ) -> rusqlite::Result<Option<String>> {
        let Entry { stamp, summary } = entry;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let owner: Option<String> = transaction
            .query_row(
                "SELECT id FROM containers WHERE name = ?1 AND id <> ?2",
                [&summary.name, &summary.id],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(owner) = owner {
            if keeps(&owner) {
                return Ok(Some(owner));
            }
            transaction.execute("DELETE FROM containers WHERE id = ?1", [owner])?;
        }
        transaction.execute(
            "INSERT OR REPLACE INTO containers (id, name, stamp, summary) VALUES (?1, ?2, ?3, ?4)",
            params![summary.id, summary.name, stamp, text(summary)],
        )?;
        transaction.commit()?;
        Ok(None)
    }

    /// Gives the pod its name, as [`Self::claim`].
    pub(crate) fn claim_pod(
        &mut self,
        id: &str,
        name: &str,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, Error> {
        let mut run = || -> rusqlite::Result<Option<String>> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let owner: Option<String> = transaction
                .query_row(
                    "SELECT id FROM pods WHERE name = ?1 AND id <> ?2",
                    [name, id],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(owner) = owner {
                if keeps(&owner) {
                    return Ok(Some(owner));
                }
                transaction.execute("DELETE FROM pods WHERE id = ?1", [owner])?;
            }
            transaction.execute(
                "INSERT OR REPLACE INTO pods (id, name) VALUES (?1, ?2)",
                [id, name],
            )?;
            transaction.commit()?;
            Ok(None)
        };
        let found = run();
        found.map_err(failed(&self.path))
    }

    /// The container's row.
    pub(crate) fn entry(&self, id: &str) -> Result<Option<Entry>, Error> {
        let found = self
            .connection
            .prepare_cached("SELECT stamp, summary FROM containers WHERE id = ?1")
            .and_then(|mut select| select.query_row([id], entry).optional());
        found.map_err(failed(&self.path))
    }

    /// The row of the container that has this name.
    pub(crate) fn entry_named(&self, name: &str) -> Result<Option<Entry>, Error> {
        let found = self
            .connection
            .query_row(
                "SELECT stamp, summary FROM containers WHERE name = ?1",
                [name],
                entry,
            )
            .optional();
        found.map_err(failed(&self.path))
    }

    /// Every container's row.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Error> {
        let all = || -> rusqlite::Result<Vec<Entry>> {
            self.connection
                .prepare_cached("SELECT stamp, summary FROM containers")?
                .query_map([], entry)?
                .collect()
        };
        all().map_err(failed(&self.path))
    }

    /// The pod that has this name.
    pub(crate) fn pod_named(&self, name: &str) -> Result<Option<String>, Error> {
        self.connection
            .query_row("SELECT id FROM pods WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
            .map_err(failed(&self.path))
    }

    /// Identifiers that begin so, in order.
    pub(crate) fn with_prefix(&self, table: Table, prefix: &str) -> Result<Vec<String>, Error> {
        let sql = match table {
            Table::Containers => "SELECT id FROM containers WHERE id >= ?1 AND id < ?2",
            Table::Pods => "SELECT id FROM pods WHERE id >= ?1 AND id < ?2",
        };
        // Identifiers are hexadecimal digits: "g" comes after the last.
        let end = format!("{prefix}g");
        let all = || -> rusqlite::Result<Vec<String>> {
            self.connection
                .prepare(sql)?
                .query_map([prefix, &end], |row| row.get(0))?
                .collect()
        };
        all().map_err(failed(&self.path))
    }

    /// Notes the container that an exec belongs to.
    pub(crate) fn add_exec(&self, id: &str, container: &str) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO execs (id, container) VALUES (?1, ?2)";
        self.execute(sql, &[id, container])
    }

    /// The container that an exec belongs to.
    pub(crate) fn exec(&self, id: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT container FROM execs WHERE id = ?1";
        self.connection
            .query_row(sql, [id], |row| row.get(0))
            .optional()
            .map_err(failed(&self.path))
    }

    /// Forgets a container, and its execs.
    pub(crate) fn forget(&self, id: &str) -> Result<(), Error> {
        self.execute("DELETE FROM containers WHERE id = ?1", &[id])?;
        self.execute("DELETE FROM execs WHERE container = ?1", &[id])
    }

    /// Forgets a pod.
    pub(crate) fn forget_pod(&self, id: &str) -> Result<(), Error> {
        self.execute("DELETE FROM pods WHERE id = ?1", &[id])
    }

    fn execute(&self, sql: &str, values: &[&str]) -> Result<(), Error> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)))
            .map(drop)
            .map_err(failed(&self.path))
    }
}

/// Tells one config.json from another that took its place: each is a file of its own.
pub(crate) fn stamp(config: &Path) -> io::Result<String> {
    let metadata = fs::metadata(config)?;
    Ok(format!(
        "{}-{}-{}",
        metadata.ino(),
        i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        metadata.len()
    ))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let summary: String = row.get(1)?;
    Ok(Entry {
        stamp: row.get(0)?,
        summary: serde_json::from_str(&summary).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
        })?,
    })
}

fn text(summary: &Summary) -> String {
    serde_json::to_string(summary).expect("a summary is text, numbers and maps of text")
}

fn failed(path: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Database {
        path: path.to_owned(),
        source,
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // The index may be lost with the machine's power, since it can be rebuilt: nothing waits for the disk.
    // A journal that stays takes no room that it has not had before: on a full disk, names are found and rows can go. (A
    // write-ahead log would need room for reading, even.)
    connection.pragma_update(None, "journal_mode", "persist")?;
    connection.pragma_update(None, "synchronous", "off")?;
    Ok(connection)
}

fn make_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been first.
    if version(&transaction)? == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, name: &str) -> Entry {
        Entry {
            stamp: "1-2-3".into(),
            summary: Summary {
                id: id.into(),
                name: name.into(),
                ..Summary::default()
            },
        }
    }

    fn index() -> (tempfile::TempDir, Layout, Index) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let index = Index::open(&layout).unwrap();
        (root, layout, index)
    }

    #[test]
    fn a_name_that_is_kept_is_refused_and_a_stale_one_yields() {
        let (_root, _, mut index) = index();
        assert_eq!(index.claim(&entry("aa", "web"), |_| true).unwrap(), None);
        let refused = index.claim(&entry("bb", "web"), |_| true).unwrap();
        assert_eq!(refused.as_deref(), Some("aa"));
        assert_eq!(index.claim(&entry("bb", "web"), |_| false).unwrap(), None);
        assert!(index.entry("aa").unwrap().is_none());
        let named = index.entry_named("web").unwrap().unwrap();
        assert_eq!(named.summary.id, "bb");
    }

    #[test]
    fn a_container_may_change_its_name_and_frees_the_old_one() {
        let (_root, _, mut index) = index();
        index.claim(&entry("aa", "web"), |_| true).unwrap();
        index.claim(&entry("aa", "www"), |_| true).unwrap();
        assert_eq!(index.claim(&entry("bb", "web"), |_| true).unwrap(), None);
        assert_eq!(index.entries().unwrap().len(), 2);
    }

    #[test]
    fn prefixes_find_all_that_begin_so() {
        let (_root, _, mut index) = index();
        for id in ["a0", "a1", "b0"] {
            index.claim(&entry(id, id), |_| true).unwrap();
        }
        assert_eq!(
            index.with_prefix(Table::Containers, "a").unwrap(),
            ["a0", "a1"]
        );
        assert!(
            index
                .with_prefix(Table::Containers, "c")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn execs_go_with_their_container() {
        let (_root, _, mut index) = index();
        index.claim(&entry("aa", "web"), |_| true).unwrap();
        index.add_exec("e1", "aa").unwrap();
        assert_eq!(index.exec("e1").unwrap().as_deref(), Some("aa"));
        index.forget("aa").unwrap();
        assert_eq!(index.exec("e1").unwrap(), None);
    }

    #[test]
    fn an_index_of_a_later_version_is_refused_by_name_and_left_alone() {
        let (_root, layout, index) = index();
        index
            .connection
            .pragma_update(None, "user_version", 99)
            .unwrap();
        drop(index);
        let error = Index::open(&layout).unwrap_err();
        assert!(matches!(error, Error::Later { found: 99, .. }));
        assert!(!error.is_damage());
    }

    #[test]
    fn a_file_that_is_no_database_counts_as_damaged() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        fs::write(layout.index(), "x".repeat(5000)).unwrap();
        assert!(Index::open(&layout).unwrap_err().is_damage());
        Index::put_aside(&layout).unwrap();
        assert!(Index::open(&layout).unwrap().is_new);
    }
}
