//! A container's cgroup (v2): made, limited, read, killed and removed.
//!
//! Deliberately absent: cgroup v1.

mod devices;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod limits;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::spec::Resources;

/// linux/magic.h
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// How often, and how long apart, the removal of a cgroup is tried again while killed processes leave it.
const REMOVAL_TRIES: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// A cgroup that we made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

/// What the processes of a cgroup use; 0 where the controller is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// memory.current
    pub memory_bytes: u64,
    /// usage_usec of cpu.stat
    pub cpu_us: u64,
    /// pids.current
    pub processes: u64,
    /// oom_kill of memory.events
    pub oom_kills: u64,
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

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the document's limits.
    pub(crate) fn limit(&self, resources: &Resources) -> Result<(), Error> {
        for (file, value) in limits::files(resources)? {
            let controller = file.split('.').next().unwrap_or_default();
            // The cgroup's own files belong to no controller.
            if controller != "cgroup" {
                enable(&self.path, controller)?;
            }
            let path = self.path.join(&file);
            // Without swap in the kernel there is no file, and nothing to limit.
            if file == "memory.swap.max" && !path.exists() {
                continue;
            }
            fs::write(path, &value).at(Step::Limit, format_args!("{file} = {value}"))?;
        }
        if !resources.devices.is_empty() {
            let program = devices::program(&resources.devices)?;
            let directory = self.open()?;
            sys::bpf::attach_device_program(directory, &program)
                .at(Step::DeviceFilter, self.path.display())?;
        }
        Ok(())
    }

    /// Its directory, for clone3.
    pub(crate) fn open(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.path, flags, Mode::empty())
            .at(Step::Cgroup, self.path.display())
    }

    /// What its processes use now.
    pub fn usage(&self) -> Usage {
        let read = |file: &str| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let number = |file: &str| read(file).trim().parse().unwrap_or(0);
        let field = |file: &str, name: &str| {
            let text = read(file);
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(0)
        };
        Usage {
            memory_bytes: number("memory.current"),
            cpu_us: field("cpu.stat", "usage_usec"),
            processes: number("pids.current"),
            oom_kills: field("memory.events", "oom_kill"),
        }
    }

    /// Sends a signal to every process in it.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let name = self.path.display();
        if signal == libc::SIGKILL {
            return fs::write(self.path.join("cgroup.kill"), "1").at(Step::Kill, &name);
        }
        let processes = fs::read_to_string(self.path.join("cgroup.procs")).at(Step::Kill, &name)?;
        let pids = processes
            .lines()
            .filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?));
        for pid in pids {
            match sys::sigset::kill(pid, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).at(Step::Kill, &name);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills what is left in it and removes it, with the cgroups that the container made below.
    pub fn remove(self) -> Result<(), Error> {
        let name = self.path.display();
        if !self.path.exists() {
            return Ok(());
        }
        self.signal(libc::SIGKILL)?;
        let mut tries = 0;
        loop {
            match remove_tree(&self.path) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && tries < REMOVAL_TRIES => {
                    tries += 1;
                    std::thread::sleep(REMOVAL_PAUSE);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                result => return result.at(Step::Cgroup, &name),
            }
        }
    }
}

/// Removes a cgroup and those below it. Their files go with the directories.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
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
