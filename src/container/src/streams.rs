//! The standard streams of a process, from inside.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Uid, fchown, fstat};

use crate::error::{Attempt, Error, Step};
use crate::execute::Streams;
use crate::inside::Root;
use crate::{Stdio, devices};

/// Where streams are connected.
pub(crate) struct Place<'a> {
    /// The container's root.
    pub(crate) root: &'a Root,
    /// The user inside.
    pub(crate) uid: u32,
    /// A terminal becomes /dev/console as well.
    pub(crate) has_console: bool,
    /// Device nodes cannot be made.
    pub(crate) in_user_namespace: bool,
}

/// The standard streams, and the master if they are a terminal. What is not given is the container's own /dev/null, so
/// that it can be opened again by its path; and nothing of the outside's can be changed through it (fchmod).
pub(crate) fn connect(
    stdio: &Stdio,
    place: &Place<'_>,
) -> Result<(Streams, Option<OwnedFd>), Error> {
    let copy = |fd: &OwnedFd| fd.try_clone().at(Step::Stdio, "copy");
    match stdio {
        Stdio::Terminal { rows, columns } => {
            let devices::Terminal { master, slave } = devices::terminal(place.root, place.uid)?;
            devices::set_terminal_size(&master, *rows, *columns).at(Step::Terminal, "size")?;
            if place.has_console {
                devices::make_console(place.root, &slave)?;
            }
            let streams = Streams {
                descriptors: [copy(&slave)?, copy(&slave)?, slave],
                is_terminal: true,
            };
            Ok((streams, Some(master)))
        }
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let or_null = |stream: &Option<OwnedFd>| match stream {
                Some(stream) => copy(stream),
                None => devices::open_null(place.root, place.in_user_namespace),
            };
            let streams = Streams {
                descriptors: [or_null(stdin)?, or_null(stdout)?, or_null(stderr)?],
                is_terminal: false,
            };
            Ok((streams, None))
        }
    }
}

/// Gives the pipes among the streams to a user, so that /dev/stdout can be opened again. Other files keep their owner.
pub(crate) fn give_pipes(stdio: &Stdio, uid: u32) -> Result<(), Error> {
    for stream in stdio.descriptors() {
        let stat = fstat(stream).at(Step::Stdio, "pipe")?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            fchown(stream, Some(Uid::from_raw(uid)), None).at(Step::Stdio, "owner of the pipe")?;
        }
    }
    Ok(())
}
