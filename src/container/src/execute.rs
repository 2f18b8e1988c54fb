//! The last half of a process's making: from built up to the command, for a container's first process and for those
//! executed in it later.
//!
//! ```text
//! session, streams, descriptors -> limits -> [init forks] -> directory, user, capabilities, seccomp -> exec
//! ```

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Signal, fchdir, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use sys::fork::{self, InChild};
use sys::sigset::{self, Set};

use crate::capabilities::Capabilities;
use crate::channel::{Report, report};
use crate::child::FAILED;
use crate::command::Command;
use crate::error::{Attempt, Error, Refusal, Step};
use crate::init;
use crate::inside::Root;
use crate::limits::Limit;
use crate::user::Identity;

/// What a process is when it executes its command.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) identity: Identity,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: Vec<Limit>,
    pub(crate) command: Command,
    pub(crate) cwd: PathBuf,
    pub(crate) umask: Mode,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<Vec<u8>>,
    pub(crate) init: bool,
}

/// The standard streams as they will be, in the order of their numbers.
pub(crate) struct Streams {
    pub(crate) descriptors: [OwnedFd; 3],
    pub(crate) is_terminal: bool,
}

impl Execution {
    /// Becomes the command, or its init. Returns only when that failed.
    pub(crate) fn run(
        &self,
        streams: Streams,
        channel: BorrowedFd<'_>,
        in_child: &InChild,
    ) -> Error {
        match self.prepare(streams, channel, in_child) {
            Ok(is_terminal) if self.init => self.under_init(is_terminal, in_child, channel),
            Ok(_) => self.execute(),
            Err(error) => error,
        }
    }

    /// Session, streams and limits. True if the streams are a terminal.
    fn prepare(
        &self,
        streams: Streams,
        channel: BorrowedFd<'_>,
        in_child: &InChild,
    ) -> Result<bool, Error> {
        rustix::process::setsid().at(Step::Terminal, "session")?;
        let is_terminal = take_streams(streams)?;
        // From here on nothing of the outside is open, whatever path the document or the image names.
        in_child
            .close_from(3, Some(channel))
            .at(Step::Stdio, "descriptors")?;
        self.limits.iter().try_for_each(Limit::set)?;
        sigset::reset_actions();
        umask(self.umask);
        Ok(is_terminal)
    }

    /// The process splits: its child executes the command, it becomes the init. Returns only when that failed.
    fn under_init(&self, is_terminal: bool, in_child: &InChild, channel: BorrowedFd<'_>) -> Error {
        let forked = init::fork(|| {
            let error = match init::lead_group(is_terminal) {
                Ok(()) => self.execute(),
                Err(error) => error,
            };
            report(channel, &Report::Failed(error), None);
            FAILED
        });
        let command = match forked {
            Ok(command) => command,
            Err(error) => return error,
        };
        // The init keeps nothing open, so that the streams end with the command, and no right that the command lacks
        // but for its seccomp program.
        if in_child.close_from(0, None).is_err() || self.enter_user(false).is_err() {
            fork::exit(FAILED);
        }
        fork::exit(init::serve(command))
    }

    /// The last steps. Returns only when one failed.
    fn execute(&self) -> Error {
        let last = || -> Result<(), Error> {
            self.enter_user(true)?;
            Set::empty().block_only().at(Step::Signals, "")?;
            // A container does not outlive what looks after it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .at(Step::Signals, "parent's end")?;
            if let Some(program) = self.seccomp.as_ref().filter(|_| self.no_new_privileges) {
                sys::seccomp::install(program).at(Step::Seccomp, "")?;
            }
            Ok(())
        };
        match last() {
            Ok(()) => self.command.execute(),
            Err(error) => error,
        }
    }

    /// Working directory, user, groups and capabilities.
    ///
    /// A seccomp program needs CAP_SYS_ADMIN or no_new_privs. Without the latter it goes in (if asked for) before the
    /// capabilities are given up, and must itself allow the calls that do that, as Docker's does; with it, it comes
    /// last.
    fn enter_user(&self, with_seccomp: bool) -> Result<(), Error> {
        let identity = &self.identity;
        let groups: Vec<Gid> = identity
            .groups
            .iter()
            .map(|&gid| Gid::from_raw(gid))
            .collect();
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        let name = format!("{}:{}", identity.uid, identity.gid);
        // Before the change of user for directories that only root may enter, after it for those that root may not
        // (a network file system's).
        let entered = enter_directory(&self.cwd);
        if self.no_new_privileges {
            set_no_new_privs(true).at(Step::NoNewPrivileges, "")?;
        } else if let Some(program) = self.seccomp.as_ref().filter(|_| with_seccomp) {
            sys::seccomp::install(program).at(Step::Seccomp, "")?;
        }
        self.capabilities.bound()?;
        set_keep_capabilities(true).at(Step::Credentials, &name)?;
        set_thread_groups(&groups).at(Step::Credentials, format_args!("{name} (groups)"))?;
        set_thread_res_gid(gid, gid, gid).at(Step::Credentials, &name)?;
        set_thread_res_uid(uid, uid, uid).at(Step::Credentials, &name)?;
        set_keep_capabilities(false).at(Step::Credentials, &name)?;
        if entered.is_err() {
            enter_directory(&self.cwd)?;
        }
        self.capabilities.install()
    }
}

/// Puts the streams in their places. True if they are a terminal, which then is the session's.
fn take_streams(streams: Streams) -> Result<bool, Error> {
    let high = |stream| fcntl_dupfd_cloexec(stream, 3).at(Step::Stdio, "copy");
    // Out of the way first: a stream may have the number of another's place.
    let [stdin, stdout, stderr] = streams.descriptors;
    let (stdin, stdout, stderr) = (high(stdin)?, high(stdout)?, high(stderr)?);
    rustix::stdio::dup2_stdin(&stdin).at(Step::Stdio, "stdin")?;
    rustix::stdio::dup2_stdout(&stdout).at(Step::Stdio, "stdout")?;
    rustix::stdio::dup2_stderr(&stderr).at(Step::Stdio, "stderr")?;
    if streams.is_terminal {
        rustix::process::ioctl_tiocsctty(&stdin).at(Step::Terminal, "controlling terminal")?;
    }
    Ok(streams.is_terminal)
}

fn enter_directory(path: &Path) -> Result<(), Error> {
    let enter = || -> Result<(), crate::error::Cause> {
        // Not a plain chdir: through /proc/self/fd it would follow a descriptor that was left open (CVE-2024-21626).
        let directory = Root::open("/")?.get(path, OFlags::PATH | OFlags::DIRECTORY)?;
        fchdir(&directory)?;
        let inside = rustix::process::getcwd(Vec::new())?;
        if !inside.as_bytes().starts_with(b"/") {
            return Err(Refusal::NotAnAbsolutePath.into());
        }
        Ok(())
    };
    enter().at(Step::WorkingDirectory, path.display())
}
