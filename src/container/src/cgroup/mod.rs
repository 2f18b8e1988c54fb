//! A container's cgroup (v2): made, limited, read, paused, killed and removed.
//!
//! Nothing here waits: what takes time (freezing, the end of killed processes) is announced by [`Cgroup::events`].
//! Deliberately absent: cgroup v1.

mod devices;
mod events;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod limits;
mod tree;
mod usage;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub use events::{Events, State};
pub use usage::Usage;

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::Resources;

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// A cgroup that we made.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// What an attempt to remove a cgroup has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// There are processes in it.
    StillPopulated,
}

impl Cgroup {
    /// Makes a cgroup at an absolute path in a cgroup v2 hierarchy. An empty one left there is replaced.
    pub(crate) fn create(path: &Path) -> Result<Cgroup, Error> {
        let name = path.display();
        let parent = path.parent().filter(|_| path.is_absolute());
        let parent = parent
            .ok_or(Refusal::NotAnAbsolutePath)
            .at(Step::Cgroup, &name)?;
        fs::create_dir_all(parent).at(Step::Cgroup, &name)?;
        if !is_cgroup2(parent) {
            return Err(Refusal::NotACgroup).at(Step::Cgroup, &name);
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_dir(path)
                    .and_then(|()| fs::create_dir(path))
                    .at(Step::Cgroup, &name)?;
            }
            result => result.at(Step::Cgroup, &name)?,
        }
        Ok(Cgroup {
            path: path.to_owned(),
        })
    }

    /// One that was made before, at the same path, whether it is there or not: to clear it away.
    pub fn at(path: &Path) -> Cgroup {
        Cgroup {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the document's limits.
    pub(crate) fn limit(&self, resources: &Resources) -> Result<(), Error> {
        self.write_limits(&limits::files(resources, None)?)?;
        if !resources.devices.is_empty() {
            let program = devices::program(&resources.devices)?;
            let directory = self.open()?;
            sys::bpf::attach_device_program(directory, &program)
                .at(Step::DeviceFilter, self.path.display())?;
        }
        Ok(())
    }

    /// Changes limits. Members that the document lacks stay as they are. Which devices may be used cannot be changed.
    pub fn update(&self, resources: &Resources) -> Result<(), Error> {
        if !resources.devices.is_empty() {
            return Err(Refusal::NotBuilt).at(Step::DeviceFilter, "a running container");
        }
        let limit = self.usage().memory_limit_bytes;
        self.write_limits(&limits::files(resources, limit)?)
    }

    fn write_limits(&self, files: &[(String, String)]) -> Result<(), Error> {
        for (file, value) in files {
            let controller = file.split('.').next().unwrap_or_default();
            // The cgroup's own files belong to no controller.
            if controller != "cgroup" {
                enable(&self.path, controller)?;
            }
            let path = self.path.join(file);
            // Without swap in the kernel there is no file, and nothing to limit.
            if file == "memory.swap.max" && !path.exists() {
                continue;
            }
            fs::write(path, value).at(Step::Limit, format_args!("{file} = {value}"))?;
        }
        Ok(())
    }

    /// Its directory, for clone3.
    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        open(&self.path)
    }

    /// The directory of the cgroup in which a further process may begin: this one, or where the container has made
    /// cgroups of its own with controllers (so that this one takes no processes), that of its first process.
    pub(crate) fn open_for_new_process(&self, first: Pid) -> Result<OwnedFd, Error> {
        let controllers = fs::read_to_string(self.path.join("cgroup.subtree_control"));
        match controllers {
            Ok(text) if !text.trim().is_empty() => {
                let place = tree::holder(&self.path, first);
                open(place.as_deref().unwrap_or(&self.path))
            }
            Ok(_) => self.open(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Refusal::NotRunning).at(Step::Enter, "")
            }
            Err(error) => Err(error).at(Step::Cgroup, self.path.display()),
        }
    }

    /// The processes in it and in those that the container made below, as the caller's PID namespace numbers them.
    pub fn pids(&self) -> Result<Vec<Pid>, Error> {
        let mut pids = Vec::new();
        tree::processes(&self.path, &mut pids).at(Step::Usage, self.path.display())?;
        pids.sort_unstable_by_key(|pid: &Pid| pid.as_raw_pid());
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in it and below.
    pub fn kill(&self) -> Result<(), Error> {
        fs::write(self.path.join("cgroup.kill"), "1").at(Step::Kill, self.path.display())
    }

    /// Sends a signal to every process in it and below.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL {
            return self.kill();
        }
        let mut opened = Vec::new();
        for pid in self.pids()? {
            // What has ended in between needs no signal.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
                opened.push((pid, pidfd));
            }
        }
        // A process that is alive when its number is seen in the cgroup after its pidfd was opened is the one that the
        // pidfd stands for.
        let still = self.pids()?;
        for (pid, pidfd) in opened {
            if still
                .binary_search_by_key(&pid.as_raw_pid(), |pid| pid.as_raw_pid())
                .is_err()
            {
                continue;
            }
            match sys::sigset::send(&pidfd, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).at(Step::Kill, self.path.display());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Begins to pause its processes: they have stopped when [`State::frozen`] says so.
    pub fn freeze(&self) -> Result<(), Error> {
        fs::write(self.path.join("cgroup.freeze"), "1").at(Step::Freeze, self.path.display())
    }

    /// Lets its processes go on, or gives up pausing them.
    pub fn thaw(&self) -> Result<(), Error> {
        fs::write(self.path.join("cgroup.freeze"), "0").at(Step::Freeze, self.path.display())
    }

    /// Its state, and a descriptor that tells of changes.
    pub fn events(&self) -> Result<Events, Error> {
        Events::open(&self.path)
    }

    /// What its processes use now, and its limits.
    pub fn usage(&self) -> Usage {
        usage::read(&self.path)
    }

    /// Removes it, with the cgroups that the container made below, unless there are processes.
    pub fn try_remove(&self) -> Result<Removal, Error> {
        match tree::remove(&self.path) {
            Ok(()) => Ok(Removal::Removed),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Removal::Removed),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(Removal::StillPopulated),
            Err(error) => Err(error).at(Step::Cgroup, self.path.display()),
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).at(Step::Cgroup, path.display())
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC)
}

/// Makes a controller's files appear in a cgroup, by enabling it in every cgroup above.
fn enable(cgroup: &Path, controller: &str) -> Result<(), Error> {
    let has = |path: &Path, file: &str| {
        fs::read_to_string(path.join(file))
            .is_ok_and(|text| text.split_whitespace().any(|c| c == controller))
    };
    let mut above: Vec<&Path> = cgroup
        .ancestors()
        .skip(1)
        .take_while(|path| is_cgroup2(path))
        .collect();
    above.reverse();
    for path in above {
        if !has(path, "cgroup.controllers") {
            return Err(Refusal::ControllerMissing).at(Step::Limit, controller);
        }
        if !has(path, "cgroup.subtree_control") {
            fs::write(
                path.join("cgroup.subtree_control"),
                format!("+{controller}"),
            )
            .at(
                Step::Limit,
                format_args!("{controller} (enabling it in {})", path.display()),
            )?;
        }
    }
    Ok(())
}
