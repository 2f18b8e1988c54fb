//! cgroup.events: whether a cgroup has processes, and whether they are frozen.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::error::{Attempt, Error, Step};

/// A cgroup's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// There are processes in it or below.
    pub populated: bool,
    /// All of its processes are frozen.
    pub frozen: bool,
}

/// The state of a cgroup, and notice of its changes: as a descriptor it has an exceptional condition (POLLPRI, EPOLLPRI)
/// when the state has changed since it was last read. (It is always readable besides: POLLIN says nothing.)
#[derive(Debug)]
pub struct Events(File);

impl Events {
    pub(super) fn open(cgroup: &Path) -> Result<Events, Error> {
        let path = cgroup.join("cgroup.events");
        Ok(Events(File::open(&path).at(Step::Usage, path.display())?))
    }

    /// The state now. A cgroup that has been removed has no processes.
    pub fn state(&mut self) -> Result<State, Error> {
        let mut text = String::new();
        let read = self
            .0
            .rewind()
            .and_then(|()| self.0.read_to_string(&mut text));
        match read {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(State::default()),
            read => read.map(|_| parse(&text)).at(Step::Usage, "cgroup.events"),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn parse(text: &str) -> State {
    let is_set = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .any(|(key, value)| key == name && value == "1")
    };
    State {
        populated: is_set("populated"),
        frozen: is_set("frozen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_by_its_names() {
        let state = |populated, frozen| State { populated, frozen };
        assert_eq!(parse("populated 1\nfrozen 0\n"), state(true, false));
        assert_eq!(parse("frozen 1\npopulated 1\nnew 1\n"), state(true, true));
        assert_eq!(parse(""), state(false, false));
    }
}
