//! The engine itself: where its state is, what a name means.

pub(crate) use protocol::chain;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::Store;

use crate::container::{Summary, read_config};
use crate::error::{Error, Subject};
use crate::files;
use crate::images;
use crate::index::{self, Entry, Index, Table};
use crate::install::{self, Installation};
use crate::layout::Layout;

/// Length of a whole identifier, in hexadecimal digits.
const ID_LEN: usize = 64;

/// The engine of one state root. It may be used by any number of threads and processes at once: what it keeps between
/// calls (an open database, monitors to reap) is of no consequence to what they see.
#[derive(Debug)]
pub struct Engine {
    layout: Layout,
    installation: Installation,
    index: Mutex<Option<Index>>,
    monitors: Mutex<Vec<Child>>,
}

impl Engine {
    /// The engine of this state root, which exists, with the parts of this installation. Opens nothing yet.
    pub fn open(root: &Path, installation: Installation) -> Engine {
        Engine {
            layout: Layout::new(root),
            installation,
            index: Mutex::new(None),
            monitors: Mutex::new(Vec::new()),
        }
    }

    /// The engine of this user's state root ([`install::state_root`]), with the parts beside the running program.
    pub fn find() -> Result<Engine, Error> {
        Ok(Engine::open(&install::state_root()?, Installation::find()?))
    }

    /// The root of all state.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where everything is below the root.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Hull's parts.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Opens the image store.
    pub fn images(&self) -> Result<Store, Error> {
        Ok(images::open_store(self.root())?)
    }

    /// The whole identifier of the container that is meant: by identifier, name, or the beginning of an identifier, in
    /// this order, as Docker has it.
    pub fn id(&self, reference: &str) -> Result<String, Error> {
        let name = reference.strip_prefix('/').unwrap_or(reference);
        match self.find_id(name)? {
            Some(id) => Ok(id),
            None => Err(Error::not_found(Subject::Container, reference)),
        }
    }

    fn find_id(&self, name: &str) -> Result<Option<String>, Error> {
        if is_id(name) {
            return Ok(self.exists(name).then(|| name.to_owned()));
        }
        if let Some(id) = self.known_id(name)? {
            return Ok(Some(id));
        }
        // What the index lacks after a power cut is in the folders.
        match self.reconcile()? {
            true => self.known_id(name),
            false => Ok(None),
        }
    }

    fn known_id(&self, name: &str) -> Result<Option<String>, Error> {
        if let Some(entry) = self.with_index(|index| index.entry_named(name))? {
            let id = entry.summary.id.clone();
            let current = self.current(&id, Some(entry))?;
            if current.is_some_and(|summary| summary.name == name) {
                return Ok(Some(id));
            }
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let prefix = name.to_ascii_lowercase();
        let ids = self.with_index(|index| index.with_prefix(Table::Containers, &prefix))?;
        let mut there = ids.into_iter().filter(|id| self.exists(id));
        match (there.next(), there.next()) {
            (Some(id), None) => Ok(Some(id)),
            (Some(_), Some(_)) => Err(Error::Ambiguous(name.to_owned())),
            (None, _) => Ok(None),
        }
    }

    /// Whether the container with this whole identifier exists.
    pub(crate) fn exists(&self, id: &str) -> bool {
        self.layout.container_config(id).exists()
    }

    /// What a listing shows of a container's configuration; `None` if it does not exist. From the index if that is still
    /// true, else from its file.
    pub(crate) fn summary(&self, id: &str) -> Result<Option<Summary>, Error> {
        let entry = self.with_index(|index| index.entry(id))?;
        self.current(id, entry)
    }

    /// The same, given its row.
    pub(crate) fn current(&self, id: &str, entry: Option<Entry>) -> Result<Option<Summary>, Error> {
        let path = self.layout.container_config(id);
        let is_current = |entry: &Entry| match index::stamp(&path) {
            Ok(stamp) => Ok(Some(stamp == entry.stamp)),
            Err(error) if files::is_absent(&error) => Ok(None),
            Err(error) => Err(Error::file("look at", &path)(error)),
        };
        match entry {
            None => self.index_container(id),
            Some(entry) => match is_current(&entry)? {
                Some(true) => Ok(Some(entry.summary)),
                Some(false) => self.index_container(id),
                None => Ok(None),
            },
        }
    }

    /// Makes a container's row of its file, under the folder's lock, so that no change is under way.
    fn index_container(&self, id: &str) -> Result<Option<Summary>, Error> {
        let Some(_lock) = files::lock_folder(&self.layout.container(id))? else {
            return Ok(None);
        };
        let path = self.layout.container_config(id);
        let Some(config) = read_config(&self.layout, id)? else {
            return Ok(None);
        };
        let entry = Entry {
            stamp: index::stamp(&path).map_err(Error::file("look at", &path))?,
            summary: Summary::of(&config),
        };
        // A name that another has by now is the other's: this one is found by its identifier.
        let taken = self.with_index(|index| index.claim(&entry, |id| self.exists(id)))?;
        if let Some(other) = taken {
            tracing::warn!(%id, %other, name = entry.summary.name, "two containers have one name");
        }
        Ok(Some(entry.summary))
    }

    /// Enters the containers and pods that the index lacks. Whether there were any.
    fn reconcile(&self) -> Result<bool, Error> {
        let known = self.with_index(|index| index.entries())?;
        let known: std::collections::BTreeSet<String> =
            known.into_iter().map(|entry| entry.summary.id).collect();
        let mut found = false;
        for id in files::names(&self.layout.containers())? {
            if !known.contains(&id) {
                found |= self.index_container(&id)?.is_some();
            }
        }
        Ok(found)
    }

    /// Uses the index. One that is missing is made, and one that is damaged is made anew, from the folders.
    pub(crate) fn with_index<T>(
        &self,
        mut work: impl FnMut(&mut Index) -> Result<T, index::Error>,
    ) -> Result<T, Error> {
        match self.try_with_index(&mut work) {
            Err(Error::Index(error)) if error.is_damage() => {
                tracing::warn!(error = %chain(&error), "the index is made anew");
                self.drop_damaged()?;
                self.try_with_index(&mut work)
            }
            other => other,
        }
    }

    fn try_with_index<T>(
        &self,
        work: impl FnOnce(&mut Index) -> Result<T, index::Error>,
    ) -> Result<T, Error> {
        let mut open = self.lock_index();
        if open.is_none() {
            let index = Index::open(&self.layout)?;
            let is_new = index.is_new;
            *open = Some(index);
            if is_new {
                drop(open);
                self.rebuild()?;
                open = self.lock_index();
            }
        }
        match open.as_mut() {
            Some(index) => Ok(work(index)?),
            None => Ok(work(&mut Index::open(&self.layout)?)?),
        }
    }

    /// Enters everything that the folders have into a new index.
    fn rebuild(&self) -> Result<(), Error> {
        for id in files::names(&self.layout.containers())? {
            match self.index_container(&id) {
                Ok(Some(_)) => self.index_execs(&id)?,
                Ok(None) => {}
                // One that cannot be read is not to keep the others from being found.
                Err(error) => {
                    tracing::warn!(%id, error = %chain(&error), "a container is not in the index")
                }
            }
        }
        self.index_pods()
    }

    fn index_execs(&self, id: &str) -> Result<(), Error> {
        for name in files::names(&self.layout.execs(id))? {
            if let Some(exec) = name.strip_suffix(".json") {
                self.with_index(|index| index.add_exec(exec, id))?;
            }
        }
        Ok(())
    }

    /// Puts a damaged index aside, unless another process has done so.
    fn drop_damaged(&self) -> Result<(), Error> {
        *self.lock_index() = None;
        let _lock = files::lock_folder(self.root())?;
        match Index::open(&self.layout).and_then(|index| index.entries()) {
            Err(error) if error.is_damage() => Ok(Index::put_aside(&self.layout)?),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    fn lock_index(&self) -> MutexGuard<'_, Option<Index>> {
        // SQLite has rolled back what a panic left undone.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a monitor until it has ended, so that a process that lives long leaves no zombies.
    pub(crate) fn adopt(&self, monitor: Child) {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        monitors.retain_mut(|monitor| matches!(monitor.try_wait(), Ok(None)));
        monitors.push(monitor);
    }
}

/// Whether this is a whole identifier.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LEN
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The path of something that was given by name, in a folder that is made first.
pub(crate) fn in_folder(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    files::make_folder(folder)?;
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use crate::error::{Error, Kind};
    use crate::testing::Fixture;

    #[test]
    fn a_container_is_found_by_name_identifier_and_the_beginning_of_one() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        for reference in ["web", "/web", &id, &id[..12], &id[..12].to_uppercase()] {
            assert_eq!(fixture.engine.id(reference).unwrap(), id, "{reference}");
        }
    }

    #[test]
    fn nothing_of_that_name_is_said_as_docker_says_it() {
        let fixture = Fixture::new();
        let error = fixture.engine.id("nothing").unwrap_err();
        assert_eq!(error.to_string(), "No such container: nothing");
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(fixture.engine.id(&"f".repeat(64)).is_err());
        assert!(fixture.engine.id("").is_err());
    }

    #[test]
    fn a_beginning_that_several_have_is_refused() {
        let fixture = Fixture::new();
        fixture.create_with_id(&format!("aa{}", "0".repeat(62)), "one");
        fixture.create_with_id(&format!("aa{}", "1".repeat(62)), "two");
        let error = fixture.engine.id("aa").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Multiple IDs found with provided prefix: aa"
        );
    }

    #[test]
    fn a_name_goes_before_the_beginning_of_an_identifier() {
        let fixture = Fixture::new();
        fixture.create_with_id(&format!("beef{}", "0".repeat(60)), "one");
        let named = fixture.create("beef");
        assert_eq!(fixture.engine.id("beef").unwrap(), named);
    }

    #[test]
    fn an_index_that_is_lost_is_rebuilt_from_the_folders() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        std::fs::remove_file(fixture.engine.layout().index()).unwrap();
        let engine = fixture.another_engine();
        assert_eq!(engine.id("web").unwrap(), id);
    }

    #[test]
    fn an_index_that_is_damaged_is_put_aside_and_rebuilt() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        let path = fixture.engine.layout().index();
        for suffix in ["-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        std::fs::write(&path, "no database".repeat(1000)).unwrap();
        let engine = fixture.another_engine();
        assert_eq!(engine.id("web").unwrap(), id);
        assert!(path.with_extension("sqlite.damaged").exists());
    }

    #[test]
    fn a_row_that_is_lost_is_found_again_in_the_folders() {
        let fixture = Fixture::new();
        let id = fixture.create("web");
        fixture
            .engine
            .with_index(|index| index.forget(&id))
            .unwrap();
        assert_eq!(fixture.engine.id("web").unwrap(), id);
    }

    #[test]
    fn an_index_of_a_later_hull_is_named_and_not_rebuilt() {
        let fixture = Fixture::new();
        fixture.create("web");
        let path = fixture.engine.layout().index();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let error = fixture.another_engine().id("web").unwrap_err();
        assert!(matches!(error, Error::Index(_)), "{error}");
        assert!(error.to_string().contains("later hull"), "{error}");
    }
}
