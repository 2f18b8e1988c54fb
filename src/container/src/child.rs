//! The process that becomes the container's first: waits, is built up, waits, executes.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::DumpableBehavior;
use sys::fork::InChild;

use crate::Stdio;
use crate::build::build;
use crate::channel::{Report, report, wait_for_go};
use crate::error::{Attempt, Error, Step};
use crate::plan::Plan;

/// The code with which the process ends when it could not execute; its report says more.
pub(crate) const FAILED: i32 = 127;

/// The whole life of the process up to exec. Returns only when that failed.
pub(crate) fn run(plan: &Plan, stdio: &Stdio, channel: &OwnedFd, in_child: &InChild) -> i32 {
    let streams = hide()
        .and_then(|()| wait_for_go(channel))
        .and_then(|()| build(plan, stdio, in_child))
        .and_then(|(streams, master)| {
            report(channel, &Report::Built, master.as_ref().map(AsFd::as_fd));
            wait_for_go(channel)?;
            Ok(streams)
        });
    let error = match streams {
        Ok(streams) => plan.execution.run(streams, channel.as_fd(), in_child),
        Err(error) => error,
    };
    report(channel, &Report::Failed(error), None);
    FAILED
}

/// Keeps the container's other processes from looking into this one, which is a copy of the outside's program: at its
/// memory and descriptors (CVE-2016-9962) and at its file behind /proc/<pid>/exe (CVE-2019-5736). It ends with exec.
pub(crate) fn hide() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Step::Credentials, "")
}
