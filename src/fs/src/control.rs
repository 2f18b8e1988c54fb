//! The conversation with the warden: what is served, from the first packet to the last.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use protocol::fs::{Descriptor, FromFs, MAX_DOCUMENT_LEN, MAX_OPEN_FILES, ToFs};
use protocol::{BUILD, chain};
use sys::packet::{self, Descriptors};

use crate::handle::MAX_OPEN_DIRECTORIES;
use crate::links::Links;
use crate::server::Server;
use crate::{confine, serve};

/// Descriptors for all but nodes and handles: sockets, shares' roots, and what is open for the length of one request.
const OTHER_DESCRIPTORS: usize = 1024;

/// Why hull-fs gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A packet that could not be received.
    #[error("the warden's socket cannot be read")]
    Receive(#[from] packet::Error),
    /// A packet that could not be sent.
    #[error("the warden's socket cannot be written")]
    Send(#[source] std::io::Error),
    /// A packet that is not the protocol's.
    #[error("the warden sent what is not a message of the protocol")]
    Message(#[from] serde_json::Error),
    /// The first packet was another, or came again.
    #[error("the warden's first message, and no other, is \"start\"")]
    Start,
    /// The warden is of another build.
    #[error("the warden is of build {theirs}, hull-fs of {BUILD}: install both from one build")]
    Build {
        /// What it said.
        theirs: String,
    },
    /// A packet came without a descriptor that it speaks of.
    #[error("a message of the warden's came without its descriptor")]
    Descriptor,
    /// The limit of descriptors, the threads or a filter.
    #[error("hull-fs could not be confined")]
    Confine(#[source] std::io::Error),
}

/// Serves what the warden says, until it closes the socket.
pub fn run(socket: &OwnedFd, links: Links) -> Result<(), Error> {
    let Some((message, mut descriptors)) = receive(socket)? else {
        return Ok(());
    };
    let ToFs::Start {
        build,
        fuse,
        ownership,
    } = message
    else {
        return Err(Error::Start);
    };
    if build != BUILD {
        return Err(Error::Build { theirs: build });
    }
    let fuse = take(&mut descriptors, fuse)?;
    let limit = confine::raise_descriptors().map_err(Error::Confine)?;
    let server = Arc::new(Server::new(links, most_nodes(limit), ownership));
    serve::start(server.clone(), fuse).map_err(Error::Confine)?;
    // Every thread exists: from here on, only the calls of this loop are needed.
    confine::first_thread().map_err(Error::Confine)?;
    sys::thread::wait_until_confined();
    while let Some((message, mut descriptors)) = receive(socket)? {
        match message {
            ToFs::Start { .. } => return Err(Error::Start),
            ToFs::Remove { name } => server.remove(&name),
            ToFs::Add {
                name,
                root,
                read_only,
                lease,
            } => {
                let root = take(&mut descriptors, root)?;
                let lease = lease
                    .map(|lease| take(&mut descriptors, lease))
                    .transpose()?;
                let answer = match server.add(&name, root, read_only, lease) {
                    Ok(()) => FromFs::Added { name },
                    Err(error) => FromFs::Refused {
                        name,
                        message: chain(&error),
                    },
                };
                send(socket, &answer)?;
            }
        }
    }
    Ok(())
}

/// How many nodes there may be when so many descriptors can be open: what remains of them, and half of them at least.
fn most_nodes(limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let others = MAX_OPEN_FILES + MAX_OPEN_DIRECTORIES + OTHER_DESCRIPTORS;
    limit.saturating_sub(others).max(limit / 2)
}

fn take(descriptors: &mut Descriptors, Descriptor(index): Descriptor) -> Result<OwnedFd, Error> {
    descriptors.take(index).ok_or(Error::Descriptor)
}

/// The next message, or `None` when the warden is gone.
fn receive(socket: &OwnedFd) -> Result<Option<(ToFs, Descriptors)>, Error> {
    let mut buffer = [0; MAX_DOCUMENT_LEN];
    let received = packet::receive(socket, &mut buffer)?;
    if received.len == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..received.len])?;
    Ok(Some((message, Descriptors::new(received.descriptors))))
}

fn send(socket: &OwnedFd, message: &FromFs) -> Result<(), Error> {
    let bytes = serde_json::to_vec(message)?;
    packet::write(socket, &bytes).map_err(Error::Send)
}

#[cfg(test)]
mod tests {
    use super::most_nodes;

    #[test]
    fn nodes_take_the_descriptors_that_nothing_else_needs() {
        assert_eq!(
            most_nodes(1 << 20),
            (1 << 20) - (64 << 10) - (8 << 10) - 1024
        );
        assert_eq!(most_nodes(1024), 512);
        assert_eq!(most_nodes(0), 0);
    }
}
