//! The parent's side: from a request to a process that waits, then executes.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Uid, fchown, fstat};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};
use sys::{fork, packet};

use crate::cgroup::Cgroup;
use crate::error::{Attempt, Error, Refusal, Step};
use crate::plan::{Plan, write_etc};
use crate::{Request, Stdio, child, namespaces};

/// Larger than any report: a step, a path and a number.
const MAX_REPORT_LEN: usize = 16 << 10;

/// What the child says: once when it is built, and once more if it could not execute.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It is built up and waits; with the terminal's master as descriptor, if there is a terminal.
    Built,
    /// It failed and ends.
    Failed(Error),
}

/// What the parent says: go on, to build up and then to execute.
pub(crate) const GO: &[u8] = b"go";

/// A container whose process is built up and waits to execute. Dropping it kills the process.
#[derive(Debug)]
pub struct Created {
    child: Option<Child>,
    channel: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// A container whose process executes.
#[derive(Debug)]
pub struct Running {
    /// Its first process in our PID namespace: to wait for, by whatever loop the caller has.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// To be removed once the process has been waited for.
    pub cgroup: Cgroup,
}

/// The process and the cgroup until somebody else takes care of them.
#[derive(Debug)]
struct Child {
    process: fork::Child,
    cgroup: Cgroup,
}

/// Makes a container up to the point where its process would execute.
pub fn create(mut request: Request) -> Result<Created, Error> {
    let stdio = std::mem::replace(
        &mut request.stdio,
        Stdio::Pipes {
            stdin: None,
            stdout: None,
            stderr: None,
        },
    );
    let (etc, run_dir) = (request.etc.clone(), request.run_dir.clone());
    let plan = Plan::new(request)?;
    give_pipes(&stdio, plan.outside_uid())?;
    write_etc(&etc, &run_dir)?;
    let cgroup = Cgroup::create(&plan.cgroup)?;
    match fork(&plan, stdio, &cgroup) {
        Ok((process, channel)) => {
            let mut created = Created {
                child: Some(Child { process, cgroup }),
                channel,
                terminal: None,
            };
            // From here on, a failure drops `created`, which kills the process and removes the cgroup.
            created.build(&plan)?;
            Ok(created)
        }
        Err(error) => {
            // Nothing is in it. That it could not be removed would hide why it is not wanted.
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// Gives the pipes among the streams to the container's user, who may then open /dev/stdout. Other files keep their
/// owner.
fn give_pipes(stdio: &Stdio, uid: u32) -> Result<(), Error> {
    let Stdio::Pipes {
        stdin,
        stdout,
        stderr,
    } = stdio
    else {
        return Ok(());
    };
    for stream in [stdin, stdout, stderr].into_iter().flatten() {
        let stat = fstat(stream).at(Step::Stdio, "pipe")?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            fchown(stream, Some(Uid::from_raw(uid)), None).at(Step::Stdio, "owner of the pipe")?;
        }
    }
    Ok(())
}

fn fork(plan: &Plan, stdio: Stdio, cgroup: &Cgroup) -> Result<(fork::Child, OwnedFd), Error> {
    cgroup.limit(&plan.spec.linux.resources)?;
    let directory = cgroup.open()?;
    let (ours, theirs) = packet::pair().at(Step::Fork, "")?;
    let flags = plan.namespaces.clone_flags();
    let process = fork::fork(flags, Some(directory.as_fd()), |in_child| {
        // The child must see the parent's end of the channel close.
        match in_child.close(ours.as_fd()) {
            Ok(()) => child::run(plan, stdio, theirs, &in_child),
            Err(_) => child::FAILED,
        }
    })
    .at(Step::Fork, "")?;
    Ok((process, ours))
}

impl Created {
    /// What only the outside can do for the child, and then its own part.
    fn build(&mut self, plan: &Plan) -> Result<(), Error> {
        let child = self.child.as_ref().expect("taken only by start");
        let pid = child.process.pid;
        if let Some(score) = plan.spec.process.oom_score_adj {
            std::fs::write(
                format!("/proc/{}/oom_score_adj", pid.as_raw_pid()),
                score.to_string(),
            )
            .at(Step::OomScore, score)?;
        }
        if plan.namespaces.makes(libc::CLONE_NEWUSER) {
            namespaces::map_ids(pid, &plan.spec.linux)?;
        }
        if let Some(interface) = &plan.interface {
            interface.move_to(pid)?;
        }
        self.go()?;
        match self.report()? {
            Some((Report::Built, terminal)) => {
                self.terminal = terminal;
                Ok(())
            }
            Some((Report::Failed(error), _)) => Err(error),
            None => Err(Refusal::ChildDied).at(Step::Start, ""),
        }
    }

    /// Lets the process execute. Returns when it has, or when it could not.
    pub fn start(mut self) -> Result<Running, Error> {
        self.go()?;
        match self.report()? {
            // The channel is close-on-exec: that it closed without a word means that the command runs. (Or that the
            // process was killed this very moment, which is an end of its own and seen by who waits for it.)
            None => {
                let Child { process, cgroup } = self.child.take().expect("taken only here");
                let terminal = self.terminal.take();
                Ok(Running {
                    pid: process.pid,
                    pidfd: process.pidfd,
                    terminal,
                    cgroup,
                })
            }
            Some((Report::Failed(error), _)) => Err(error),
            Some((Report::Built, _)) => Err(Refusal::Twice).at(Step::Start, ""),
        }
    }

    /// The process in our PID namespace.
    pub fn pid(&self) -> Pid {
        self.child
            .as_ref()
            .expect("taken only by start")
            .process
            .pid
    }

    fn go(&self) -> Result<(), Error> {
        match packet::send(&self.channel, GO, &[]) {
            // It has ended: its last words tell why.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result.at(Step::Start, ""),
        }
    }

    /// The child's next report and its descriptor; `None` when it has closed the channel.
    fn report(&self) -> Result<Option<(Report, Option<OwnedFd>)>, Error> {
        let mut buffer = [0; MAX_REPORT_LEN];
        let mut packet = match packet::receive(&self.channel, &mut buffer) {
            Ok(packet) => packet,
            Err(_) => return Err(Refusal::ChildDied).at(Step::Start, ""),
        };
        if packet.len == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&buffer[..packet.len]) {
            Ok(report) => Ok(Some((report, packet.descriptors.pop()))),
            Err(_) => Err(Refusal::ChildDied).at(Step::Start, ""),
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let Some(Child { process, cgroup }) = self.child.take() else {
            return;
        };
        // By its descriptor: the caller may have waited for it already, and its number be another's by now.
        let _ = pidfd_send_signal(&process.pidfd, Signal::KILL);
        let _ = waitpid(Some(process.pid), WaitOptions::empty());
        // A cgroup that stays behind is replaced when the name is used again.
        let _ = cgroup.remove();
    }
}

/// Tells a terminal its size; its processes get SIGWINCH.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> std::io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
