//! The OCI runtime-spec document of a container: Docker's defaults, then the image, then the options.
//!
//! Deliberately absent: the user (looked up inside the image by whoever spawns) and seccomp (compiled by `seccomp`).

use std::collections::BTreeMap;

use oci_spec::image::Config;
use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxCpu, LinuxMemory, LinuxResources, Mount,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec,
};

use crate::capabilities;
use crate::options::{Isolation, Options, Tmpfs, Ulimit, Variable};
use crate::size::MilliCpus;

mod privileges;

/// Docker's PATH where an image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The period of `--cpus`, in microseconds: the kernel's and Docker's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Why a container cannot be as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the image nor the user says what to run.
    #[error(
        "no command specified: the image has no Cmd or Entrypoint; name a command after the image"
    )]
    NoCommand,
    /// A working directory that depends on where one is.
    #[error("the working directory {0:?} is not absolute")]
    RelativeWorkdir(String),
    /// A capability that does not exist.
    #[error(transparent)]
    Capability(#[from] capabilities::Unknown),
    /// A resource limit that does not exist.
    #[error("unknown ulimit {0:?}")]
    Ulimit(String),
    /// A string that no C program could receive.
    #[error("the {0} contains a zero byte")]
    ZeroByte(&'static str),
}

/// What a container's document is made of.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the user asked for.
    pub options: &'a Options,
    /// What the image says.
    pub image: Option<&'a Config>,
    /// The container's host name.
    pub hostname: &'a str,
    /// memory.max, if any.
    pub memory_bytes: Option<u64>,
    /// Path of its cgroup below the root of the hierarchy.
    pub cgroup: &'a str,
}

/// Builds the document.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, Error> {
    let mut spec: Spec = serde_json::from_str(include_str!("spec/default.json"))
        .expect("the built-in document is valid");
    let options = inputs.options;
    set_process(&mut spec, inputs)?;
    spec.set_hostname(Some(inputs.hostname.to_owned()));
    if let Some(root) = spec.root_mut() {
        root.set_readonly(Some(options.read_only));
    }
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for tmpfs in &options.tmpfs {
        mounts.retain(|mount| mount.destination().as_os_str() != tmpfs.path.as_str());
        mounts.push(tmpfs_mount(tmpfs));
    }
    if options.privileged {
        privileges::of_mounts(&mut mounts);
    }
    spec.set_mounts(Some(mounts));
    if let Some(linux) = spec.linux_mut() {
        set_linux(linux, inputs);
    }
    Ok(spec)
}

fn set_linux(linux: &mut Linux, inputs: &Inputs<'_>) {
    let options = inputs.options;
    linux.set_cgroups_path(Some(inputs.cgroup.into()));
    let mut resources = linux.resources().clone().unwrap_or_default();
    set_limits(&mut resources, inputs.memory_bytes, options.cpus);
    if options.privileged {
        privileges::of_devices(&mut resources);
    }
    linux.set_resources(Some(resources));
    if options.privileged || options.unmasked {
        linux.set_masked_paths(None).set_readonly_paths(None);
    } else if options.isolation == Isolation::Native {
        let mut masked = linux.masked_paths().clone().unwrap_or_default();
        masked.extend(privileges::thermal_throttle());
        linux.set_masked_paths(Some(masked));
    }
}

/// The signal that stops the container politely: the image's StopSignal or SIGTERM.
pub fn stop_signal(image: Option<&Config>) -> i32 {
    image
        .and_then(|config| config.stop_signal().as_deref())
        .and_then(signal_number)
        .unwrap_or(libc::SIGTERM)
}

fn set_process(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<(), Error> {
    let options = inputs.options;
    let args = command(options, inputs.image)?;
    let env = environment(options, inputs.image, inputs.hostname);
    let cwd = workdir(options, inputs.image)?;
    refuse_zero_bytes("command", args.iter())?;
    refuse_zero_bytes("environment", env.iter())?;
    refuse_zero_bytes("working directory", std::iter::once(&cwd))?;
    let held = capabilities::of(options)?;
    let rlimits = options
        .ulimits
        .iter()
        .map(rlimit)
        .collect::<Result<Vec<_>, _>>()?;
    let Some(process) = spec.process_mut() else {
        unreachable!("the built-in document has a process");
    };
    process
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(cwd.into())
        .set_terminal(Some(options.terminal))
        .set_no_new_privileges(Some(options.no_new_privileges))
        .set_rlimits((!rlimits.is_empty()).then_some(rlimits))
        .set_capabilities(Some(capability_sets(&held)));
    Ok(())
}

fn refuse_zero_bytes<'a>(
    what: &'static str,
    texts: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    for text in texts {
        if text.contains('\0') {
            return Err(Error::ZeroByte(what));
        }
    }
    Ok(())
}

/// Docker's rule: the entrypoint and then the command; an entrypoint of the user's drops the image's Cmd.
fn command(options: &Options, image: Option<&Config>) -> Result<Vec<String>, Error> {
    let of_image = |part: fn(&Config) -> &Option<Vec<String>>| {
        image
            .and_then(|config| part(config).clone())
            .unwrap_or_default()
    };
    let mut args = match &options.entrypoint {
        Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
        Some(entrypoint) => vec![entrypoint.clone()],
        None => of_image(Config::entrypoint),
    };
    if !options.command.is_empty() {
        args.extend(options.command.iter().cloned());
    } else if options.entrypoint.is_none() {
        args.extend(of_image(Config::cmd));
    }
    if args.is_empty() {
        Err(Error::NoCommand)
    } else {
        Ok(args)
    }
}

/// The image's environment, then Docker's own (PATH, HOSTNAME, TERM), then the user's; a name appears once.
fn environment(options: &Options, image: Option<&Config>, hostname: &str) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut set = |name: &str, value: Option<&str>| {
        if values
            .insert(name.to_owned(), value.map(str::to_owned))
            .is_none()
        {
            order.push(name.to_owned());
        }
    };
    set("PATH", Some(DEFAULT_PATH));
    set("HOSTNAME", Some(hostname));
    if options.terminal {
        set("TERM", Some("xterm"));
    }
    for entry in image
        .and_then(|config| config.env().as_ref())
        .into_iter()
        .flatten()
    {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, Some(value));
    }
    for variable in &options.env {
        match variable {
            Variable::Set(name, value) => set(name, Some(value)),
            Variable::Unset(name) => set(name, None),
        }
    }
    order
        .iter()
        .filter_map(|name| Some(format!("{name}={}", values.get(name)?.as_ref()?)))
        .collect()
}

fn workdir(options: &Options, image: Option<&Config>) -> Result<String, Error> {
    let of_image = image.and_then(|config| config.working_dir().clone());
    let dir = options
        .workdir
        .clone()
        .or(of_image)
        .filter(|dir| !dir.is_empty());
    match dir {
        None => Ok("/".to_owned()),
        Some(dir) if dir.starts_with('/') => Ok(dir),
        Some(dir) => Err(Error::RelativeWorkdir(dir)),
    }
}

fn capability_sets(held: &[String]) -> LinuxCapabilities {
    let set: std::collections::HashSet<Capability> = held
        .iter()
        .map(|name| {
            serde_json::from_value(name.as_str().into())
                .expect("every name of ours is one of oci-spec's")
        })
        .collect();
    let mut sets = LinuxCapabilities::default();
    // As Docker: nothing inheritable or ambient, so that a change of user drops what is held.
    sets.set_bounding(Some(set.clone()))
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn rlimit(ulimit: &Ulimit) -> Result<PosixRlimit, Error> {
    let name = format!("RLIMIT_{}", ulimit.name.to_ascii_uppercase());
    let typ: PosixRlimitType =
        serde_json::from_value(name.into()).map_err(|_| Error::Ulimit(ulimit.name.clone()))?;
    Ok(PosixRlimitBuilder::default()
        .typ(typ)
        .soft(ulimit.soft)
        .hard(ulimit.hard)
        .build()
        .expect("every field is set"))
}

/// Docker's options for a tmpfs of the user's, which come last and so win.
fn tmpfs_mount(tmpfs: &Tmpfs) -> Mount {
    let opposite = |option: &str| match option {
        "exec" => "noexec".to_owned(),
        "suid" => "nosuid".to_owned(),
        "dev" => "nodev".to_owned(),
        other => other.to_owned(),
    };
    let overridden: Vec<String> = tmpfs
        .options
        .iter()
        .map(|option| opposite(option))
        .collect();
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"]
        .into_iter()
        .filter(|default| !overridden.iter().any(|option| option == default))
        .map(str::to_owned)
        .collect();
    options.extend(tmpfs.options.iter().cloned());
    let mut mount = Mount::default();
    mount
        .set_destination(tmpfs.path.clone().into())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(options));
    mount
}

fn set_limits(resources: &mut LinuxResources, memory_bytes: Option<u64>, cpus: Option<MilliCpus>) {
    if let Some(bytes) = memory_bytes {
        let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut memory = LinuxMemory::default();
        // The sum of memory and swap: none of the latter.
        memory.set_limit(Some(limit)).set_swap(Some(limit));
        resources.set_memory(Some(memory));
    }
    if let Some(MilliCpus(milli)) = cpus {
        let quota = i64::try_from(milli.saturating_mul(CPU_PERIOD_US / 1000)).unwrap_or(i64::MAX);
        let mut cpu = LinuxCpu::default();
        cpu.set_period(Some(CPU_PERIOD_US)).set_quota(Some(quota));
        resources.set_cpu(Some(cpu));
    }
}

/// A signal by name (with or without SIG) or number.
pub fn signal_number(text: &str) -> Option<i32> {
    const NAMES: [(&str, i32); 30] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("STKFLT", libc::SIGSTKFLT),
        ("CHLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
        ("VTALRM", libc::SIGVTALRM),
        ("PROF", libc::SIGPROF),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("SYS", libc::SIGSYS),
    ];
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare
        .strip_prefix("RTMIN+")
        .and_then(|n| n.parse::<i32>().ok())
    {
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    if let Some(offset) = bare
        .strip_prefix("RTMAX-")
        .and_then(|n| n.parse::<i32>().ok())
    {
        return (0..=30).contains(&offset).then_some(64 - offset);
    }
    NAMES
        .iter()
        .find(|(name, _)| *name == bare)
        .map(|(_, number)| *number)
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
