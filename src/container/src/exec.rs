//! Executing a further process in a running container.
//!
//! ```text
//! caller --fork--> enters all namespaces --fork--> streams, user --> execute (as a container's first process)
//!                  ends                            in the container's cgroup from its birth
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, fchmod, fstat};
use rustix::process::{Pid, umask};
use sys::fork::{self, InChild};

use crate::abandoned::sweep;
use crate::build::become_root;
use crate::cgroup::Cgroup;
use crate::channel::{Report, report, wait_for_go};
use crate::child::FAILED;
use crate::draft::Draft;
use crate::enter::{Entrance, fork_inside};
use crate::error::{Attempt, Error, Step};
use crate::execute::{Execution, Streams};
use crate::inside::Root;
use crate::limits::{Outside, check_machines};
use crate::plan::Plan;
use crate::start::Starting;
use crate::streams::{self, Place, give_pipes};
use crate::user::{self, Wanted};
use crate::{Stdio, spec};

/// A process to execute in a running container.
#[derive(Debug)]
pub struct ExecRequest {
    /// Its OCI `process` document.
    pub process: spec::Process,
    /// `USER[:GROUP]`, looked up in the container as it is now; replaces the document's.
    pub user: Option<String>,
    /// A compiled seccomp program: an array of `struct sock_filter` in this machine's byte order.
    pub seccomp: Option<Vec<u8>>,
    /// The standard streams.
    pub stdio: Stdio,
}

/// A running container, as far as executing in it needs it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Joinable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The container's first process.
    pidfd: OwnedFd,
    /// Its number, which may be another's when it has ended.
    pid: Pid,
    cgroup: Cgroup,
    /// `CLONE_NEW*` of all namespaces that are not the caller's.
    namespaces: i32,
    groups: Vec<String>,
    oom_score_adj: Option<i32>,
    own_machine: bool,
}

impl Joinable {
    pub(crate) fn new(
        process: &fork::Child,
        plan: &Plan,
        cgroup: Cgroup,
    ) -> Result<Joinable, Error> {
        Ok(Joinable(Arc::new(Inner {
            pidfd: process.pidfd.try_clone().at(Step::Start, "")?,
            pid: process.pid,
            cgroup,
            namespaces: plan.namespaces.flags(),
            groups: plan.groups.clone(),
            oom_score_adj: plan.spec.process.oom_score_adj,
            own_machine: plan.own_machine,
        })))
    }

    /// The container's cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.0.cgroup
    }
}

/// Begins to execute a process in a running container.
///
/// What the process inherits of the container: its namespaces, cgroup, the request's supplementary groups, and the score
/// for when memory runs out, unless the document gives one.
pub fn exec(into: &Joinable, request: ExecRequest) -> Result<Starting, Error> {
    sweep();
    let inner = &*into.0;
    let in_user_namespace = inner.namespaces & libc::CLONE_NEWUSER != 0;
    let draft = Draft::new(&request.process, request.seccomp.clone(), false)?;
    check_machines(draft.limits(), inner.own_machine)?;
    let mut outside = Outside {
        oom_score_adj: request.process.oom_score_adj.or(inner.oom_score_adj),
        limits: Vec::new(),
    };
    if in_user_namespace {
        open_pipes(&request.stdio)?;
        outside.limits = draft.limits().to_vec();
    }
    let directory = inner.cgroup.open_for_new_process(inner.pid)?;
    let entrance = Entrance {
        process: inner.pidfd.as_fd(),
        namespaces: inner.namespaces & !libc::CLONE_NEWCGROUP,
        new: 0,
        cgroup: directory.as_fd(),
        keep: request.stdio.descriptors().collect(),
    };
    let line = fork_inside(&entrance, None, |channel, in_child| {
        let prepared =
            wait_for_go(channel).and_then(|()| prepare(inner, &request, draft, channel, in_child));
        let error = match prepared {
            Ok((execution, streams)) => execution.run(streams, channel.as_fd(), in_child),
            Err(error) => error,
        };
        report(channel, &Report::Failed(error), None);
        FAILED
    })?;
    Ok(Starting::entering(line, into.clone(), outside))
}

/// Makes the pipes among the streams accessible to every user: inside a user namespace they cannot be given to one.
fn open_pipes(stdio: &Stdio) -> Result<(), Error> {
    for stream in stdio.descriptors() {
        let stat = fstat(stream).at(Step::Stdio, "pipe")?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            fchmod(stream, Mode::from_raw_mode(0o666)).at(Step::Stdio, "mode of the pipe")?;
        }
    }
    Ok(())
}

/// The second process, inside: streams and user. The files that it looks at are the container's, and may be anything.
fn prepare(
    inner: &Inner,
    request: &ExecRequest,
    draft: Draft,
    channel: &OwnedFd,
    in_child: &InChild,
) -> Result<(Execution, Streams), Error> {
    let in_user_namespace = inner.namespaces & libc::CLONE_NEWUSER != 0;
    umask(Mode::empty());
    if inner.namespaces & libc::CLONE_NEWCGROUP != 0 {
        // Not by the first process: where cgroup namespaces are boundaries (nsdelegate), it could not have made this one
        // outside of its own cgroup.
        in_child
            .enter_namespaces_of(inner.pidfd.as_fd(), libc::CLONE_NEWCGROUP)
            .at(Step::Namespace, "cgroup")?;
    }
    if in_user_namespace {
        become_root()?;
    }
    let root = Root::open("/").at(Step::Enter, "/")?;
    let identity = user::find(
        &root,
        &Wanted {
            user: request.user.as_deref(),
            document: &request.process.user,
            groups: &inner.groups,
        },
    )?;
    if !in_user_namespace {
        give_pipes(&request.stdio, identity.uid)?;
    }
    let place = Place {
        root: &root,
        uid: identity.uid,
        has_console: false,
        in_user_namespace,
    };
    let (streams, master) = streams::connect(&request.stdio, &place)?;
    if let Some(master) = &master {
        report(channel, &Report::Built, Some(master.as_fd()));
    }
    Ok((draft.finish(identity)?, streams))
}
