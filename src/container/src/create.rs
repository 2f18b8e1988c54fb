//! The parent's side of making a container: from a request to a process that waits to execute.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use sys::fork;

use crate::abandoned::{self, sweep};
use crate::cgroup::Cgroup;
use crate::channel::{Line, Message, Report, pair};
use crate::enter::{Entrance, fork_inside};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::exec::Joinable;
use crate::limits::{Outside, check_machines};
use crate::plan::{Plan, write_etc};
use crate::start::Starting;
use crate::streams::give_pipes;
use crate::{Progress, Request, Stdio, child, namespaces};

/// A container whose process builds itself up. Readable (as a descriptor) when [`Building::advance`] has news. Dropping
/// it kills the process and removes the cgroup.
#[derive(Debug)]
pub struct Building {
    line: Line,
    plan: Box<Plan>,
    cgroup: Cgroup,
}

/// A container whose process is built up and waits to execute. Dropping it kills the process and removes the cgroup.
#[derive(Debug)]
pub struct Created {
    line: Line,
    terminal: Option<OwnedFd>,
    joinable: Joinable,
    outside: Outside,
}

/// Begins to make a container, up to the point where its process would execute.
pub fn create(mut request: Request) -> Result<Building, Error> {
    sweep();
    let nothing = Stdio::Pipes {
        stdin: None,
        stdout: None,
        stderr: None,
    };
    let stdio = std::mem::replace(&mut request.stdio, nothing);
    let (etc, run_dir) = (request.etc.clone(), request.run_dir.clone());
    let plan = Box::new(Plan::new(request)?);
    check_machines(&plan.execution.limits, plan.own_machine)?;
    give_pipes(&stdio, plan.outside_uid())?;
    write_etc(&etc, &run_dir)?;
    let cgroup = Cgroup::create(&plan.cgroup)?;
    let limited = cgroup
        .limit(&plan.spec.linux.resources)
        .and_then(|()| cgroup.open());
    let directory = match limited {
        Ok(directory) => directory,
        Err(error) => {
            abandoned::leave_cgroup(cgroup);
            return Err(error);
        }
    };
    let line = fork(&plan, &stdio, &cgroup, directory.as_fd())?;
    let building = Building { line, plan, cgroup };
    if building.line.process().is_some() {
        building.prepare()?;
    }
    Ok(building)
}

/// Makes the process, directly or in the PID namespace of another.
fn fork(
    plan: &Plan,
    stdio: &Stdio,
    cgroup: &Cgroup,
    directory: BorrowedFd<'_>,
) -> Result<Line, Error> {
    let new = plan.namespaces.clone_flags();
    if let Some(process) = &plan.pid {
        let entrance = Entrance {
            process: process.as_fd(),
            namespaces: libc::CLONE_NEWPID,
            new,
            cgroup: directory,
            keep: stdio
                .descriptors()
                .chain(plan.namespaces.network())
                .collect(),
        };
        return fork_inside(&entrance, Some(cgroup.clone()), |channel, in_child| {
            child::run(plan, stdio, channel, in_child)
        });
    }
    let (ours, theirs) = pair()?;
    let process = fork::fork(new, Some(directory), |in_child| {
        // The child must see the parent's end of the channel close.
        match in_child.close(ours.as_fd()) {
            Ok(()) => child::run(plan, stdio, &theirs, &in_child),
            Err(_) => child::FAILED,
        }
    })
    .at(Step::Fork, "")?;
    Ok(Line::direct(ours, process, cgroup.clone()))
}

impl Building {
    /// What only the outside can do for the process; then it builds itself up.
    fn prepare(&self) -> Result<(), Error> {
        let pid = self.pid();
        let plan = &self.plan;
        let outside = Outside {
            oom_score_adj: plan.spec.process.oom_score_adj,
            limits: Vec::new(),
        };
        outside.apply(pid)?;
        if plan.namespaces.makes(libc::CLONE_NEWUSER) {
            namespaces::map_ids(pid, &plan.spec.linux)?;
        }
        for interface in &plan.interfaces {
            interface.move_to(pid)?;
        }
        self.line.go()
    }

    /// The process in the caller's PID namespace. (In a PID namespace that is joined: at first the process that enters
    /// it for the container's.)
    pub fn pid(&self) -> Pid {
        self.line.pid()
    }

    /// Takes what the process has reported. Does not wait.
    pub fn advance(mut self) -> Progress<Building, Created> {
        sweep();
        loop {
            let step = match self.line.next() {
                Ok(Message::Nothing) => return Progress::Pending(self),
                Ok(Message::Report(Report::Entered { pid }, pidfd)) => {
                    self.line.entered(pid, pidfd).and_then(|()| self.prepare())
                }
                Ok(Message::Report(Report::Built, terminal)) => return self.built(terminal),
                Ok(Message::Report(Report::Failed(error), _)) | Err(error) => Err(error),
                Ok(Message::Closed) => Err(Refusal::ChildDied).at(Step::Start, ""),
            };
            if let Err(error) = step {
                return Progress::Failed(error);
            }
        }
    }

    fn built(self, terminal: Option<OwnedFd>) -> Progress<Building, Created> {
        let Some(process) = self.line.process() else {
            return Progress::Failed(Error::new(Step::Start, "", Refusal::ChildDied));
        };
        // Not before: with a low limit, the process might not have been built up.
        let limits = match self.plan.namespaces.makes(libc::CLONE_NEWUSER) {
            true => self.plan.execution.limits.clone(),
            false => Vec::new(),
        };
        match Joinable::new(process, &self.plan, self.cgroup) {
            Ok(joinable) => Progress::Done(Created {
                line: self.line,
                terminal,
                joinable,
                outside: Outside {
                    oom_score_adj: None,
                    limits,
                },
            }),
            Err(error) => Progress::Failed(error),
        }
    }

    /// Waits until the process is built up.
    pub fn wait(mut self) -> Result<Created, Error> {
        loop {
            self.line.wait()?;
            self = match self.advance() {
                Progress::Pending(building) => building,
                Progress::Done(created) => return Ok(created),
                Progress::Failed(error) => return Err(error),
            };
        }
    }
}

impl Created {
    /// The process in the caller's PID namespace.
    pub fn pid(&self) -> Pid {
        self.line.pid()
    }

    /// Lets the process execute.
    pub fn start(self) -> Starting {
        Starting::new(self.line, self.terminal, self.joinable, &self.outside)
    }
}

impl AsFd for Building {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl AsFd for Created {
    /// Readable when the process has ended before its start.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
