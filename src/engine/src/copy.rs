//! Files of a container: copies in and out, its changes, its whole root. Of one that does not run its sandbox is started
//! without the container's process (docs/lifecycle.md: nothing on the host mounts what a guest wrote).
//!
//! Archives are tar streams, written by a guest and so hostile: whoever unpacks one treats it as such.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::agent::FileStat;
use protocol::monitor::{Answer, Request};
use serde::Serialize;

use crate::container::Container;
use crate::control::unexpected;
use crate::engine::Engine;
use crate::error::Error;
use crate::events;
use crate::sandbox::{Link, conversation};

/// The most that a list of changes may take, in bytes: it is held in memory.
const MAX_CHANGES_BYTES: u64 = 256 << 20;

/// An archive in transfer. It is complete only when [`Transfer::finish`] says so.
#[derive(Debug)]
pub struct Transfer<'a> {
    engine: &'a Engine,
    sandbox: String,
    link: Link,
    seq: u64,
    stream: Option<OwnedFd>,
}

/// A change of a container against its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute path in the container, with whatever is not UTF-8 replaced.
    pub path: String,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ChangeKind {
    /// It was added.
    Added,
    /// It, or something below it, was changed.
    Changed,
    /// It was deleted.
    Deleted,
}

impl ChangeKind {
    /// As `docker diff` prints it.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

impl Transfer<'_> {
    /// The stream: to read an archive from, or to write one to (shut down for writing at its end).
    pub fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(AsFd::as_fd)
    }

    /// Takes the stream, to be closed by the caller.
    pub fn take_stream(&mut self) -> Option<OwnedFd> {
        self.stream.take()
    }

    /// Waits until the other side has said that all was read or written. Closes the stream, if it was not taken.
    pub fn finish(mut self) -> Result<(), Error> {
        drop(self.stream.take());
        let answer = self.link.connection.answer(self.seq);
        answer
            .map_err(conversation(&self.sandbox))?
            .map(drop)
            .map_err(Error::Failure)
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if let Some(monitor) = self.link.take_spawned() {
            self.engine.adopt(monitor);
        }
    }
}

impl Engine {
    /// What is at a path in a container.
    pub fn stat(&self, reference: &str, path: &str, follow: bool) -> Result<FileStat, Error> {
        let container = self.container(reference)?;
        let sandbox = container.config.sandbox;
        let request = || Request::Stat {
            container: container.config.id.clone(),
            path: path.to_owned(),
            follow,
        };
        let (answer, mut link) = self.converse(&sandbox, |link| link.ask(request()))?;
        if let Some(monitor) = link.take_spawned() {
            self.adopt(monitor);
        }
        match answer.map_err(Error::Failure)? {
            Answer::Stat(stat) => Ok(stat),
            other => Err(unexpected(&sandbox, &other)),
        }
    }

    /// An archive of what is at a path in a container; entries are named from the path's last component.
    pub fn copy_out(
        &self,
        reference: &str,
        path: &str,
        follow: bool,
    ) -> Result<Transfer<'_>, Error> {
        let container = self.container(reference)?;
        let id = container.config.id.clone();
        let request = || Request::Archive {
            container: id.clone(),
            path: path.to_owned(),
            follow,
        };
        let transfer = self.transfer(&container, request)?;
        self.tell(events::container(&container.config, "archive-path"));
        Ok(transfer)
    }

    /// An archive to be unpacked below a directory in a container. `owners`: keep the archive's; `no_overwrite_kind`: refuse to
    /// replace a directory by another kind of file and the reverse.
    pub fn copy_in(
        &self,
        reference: &str,
        path: &str,
        owners: bool,
        no_overwrite_kind: bool,
    ) -> Result<Transfer<'_>, Error> {
        let container = self.container(reference)?;
        let id = container.config.id.clone();
        let request = || Request::Extract {
            container: id.clone(),
            path: path.to_owned(),
            owners,
            no_overwrite_kind,
        };
        let transfer = self.transfer(&container, request)?;
        self.tell(events::container(&container.config, "extract-to-dir"));
        Ok(transfer)
    }

    /// A container's whole root as an archive.
    pub fn export(&self, reference: &str) -> Result<Transfer<'_>, Error> {
        let container = self.container(reference)?;
        let id = container.config.id.clone();
        let request = || Request::Archive {
            container: id.clone(),
            path: "/".to_owned(),
            follow: false,
        };
        let transfer = self.transfer(&container, request)?;
        self.tell(events::container(&container.config, "export"));
        Ok(transfer)
    }

    /// A container's changes as a layer: a tar with whiteouts, of which the image store makes an image's topmost layer.
    pub fn changes_as_layer(&self, reference: &str) -> Result<Transfer<'_>, Error> {
        let container = self.container(reference)?;
        let id = container.config.id.clone();
        let request = || Request::Diff {
            container: id.clone(),
        };
        self.transfer(&container, request)
    }

    /// A container's changes against its image.
    pub fn changes(&self, reference: &str) -> Result<Vec<Change>, Error> {
        let container = self.container(reference)?;
        let id = container.config.id.clone();
        let request = || Request::Changes {
            container: id.clone(),
        };
        let mut transfer = self.transfer(&container, request)?;
        let mut text = Vec::new();
        if let Some(stream) = transfer.take_stream() {
            std::fs::File::from(stream)
                .take(MAX_CHANGES_BYTES)
                .read_to_end(&mut text)
                .map_err(|error| conversation(&container.config.sandbox)(error.into()))?;
        }
        transfer.finish()?;
        Ok(parse_changes(&text))
    }

    /// Reaches the container's sandbox, starting it without a process if need be, and asks for a stream.
    fn transfer(
        &self,
        container: &Container,
        request: impl Fn() -> Request,
    ) -> Result<Transfer<'_>, Error> {
        let sandbox = &container.config.sandbox;
        let ((seq, streams), mut link) = self.converse(sandbox, |link| {
            let seq = link.connection.send(request())?;
            link.greet()?;
            Ok((seq, link.connection.streams(seq)?))
        })?;
        match streams {
            Ok(streams) => Ok(Transfer {
                engine: self,
                sandbox: sandbox.clone(),
                link,
                seq,
                stream: streams.terminal,
            }),
            Err(failure) => {
                link.take_spawned().into_iter().for_each(|m| self.adopt(m));
                Err(Error::Failure(failure))
            }
        }
    }
}

/// A letter, a space, a path and a zero byte for each. What does not look so is passed over.
fn parse_changes(text: &[u8]) -> Vec<Change> {
    text.split(|byte| *byte == 0)
        .filter_map(|entry| {
            let [letter, b' ', path @ ..] = entry else {
                return None;
            };
            let kind = match letter {
                b'A' => ChangeKind::Added,
                b'C' => ChangeKind::Changed,
                b'D' => ChangeKind::Deleted,
                _ => return None,
            };
            let path = String::from_utf8_lossy(path).into_owned();
            Some(Change { kind, path })
        })
        .collect()
}

#[cfg(test)]
mod tests;
