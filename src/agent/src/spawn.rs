//! `container` as the loop wants it, until it has this interface itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use container::cgroup::Cgroup;
use container::{Error, Request};
use rustix::process::Pid;

pub(crate) enum Progress<P, D> {
    #[expect(dead_code, reason = "not yet")]
    Pending(P),
    Done(D),
    Failed(Error),
}

fn readable() -> OwnedFd {
    rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd")
}

#[derive(Debug)]
pub(crate) struct Building(container::Created, OwnedFd);
#[derive(Debug)]
pub(crate) struct Created(container::Created);
#[derive(Debug)]
pub(crate) struct Starting(container::Created, OwnedFd);
#[derive(Debug)]
pub(crate) struct Joinable;
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) joinable: Joinable,
}
pub(crate) struct ExecRequest {}

pub(crate) fn create(request: Request) -> Result<Building, Error> {
    Ok(Building(container::create(request)?, readable()))
}
pub(crate) fn exec(_: &Joinable, _: ExecRequest) -> Result<Starting, crate::failure::Refusal> {
    Err(crate::failure::Refusal::WorkerDied)
}
impl Building {
    pub(crate) fn pid(&self) -> Pid {
        self.0.pid()
    }
    pub(crate) fn advance(self) -> Progress<Building, Created> {
        Progress::Done(Created(self.0))
    }
}
impl Created {
    pub(crate) fn pid(&self) -> Pid {
        self.0.pid()
    }
    pub(crate) fn start(self) -> Starting {
        Starting(self.0, readable())
    }
}
impl Starting {
    pub(crate) fn pid(&self) -> Pid {
        self.0.pid()
    }
    pub(crate) fn advance(self) -> Progress<Starting, Running> {
        match self.0.start() {
            Ok(running) => Progress::Done(Running {
                pid: running.pid,
                pidfd: running.pidfd,
                terminal: running.terminal,
                cgroup: Some(running.cgroup),
                joinable: Joinable,
            }),
            Err(error) => Progress::Failed(error),
        }
    }
}
impl AsFd for Building {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}
impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}
