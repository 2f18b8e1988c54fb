//! The container's process: `process` of the document.

use std::collections::BTreeMap;

use oci_spec::image::Config;
use oci_spec::runtime::{
    Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Spec,
};

use super::{Error, Inputs};
use crate::capabilities;
use crate::options::{Isolation, Options, Ulimit, Variable};

/// Docker's PATH where an image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The names of `--ulimit`: getrlimit(2), in lower case and without RLIMIT_.
pub(super) const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// What a tuned host of containers gives each of them, where a bare kernel's own limits are lower: nofile as systemd and
/// containerd have it; processes without limit, as Docker's unit says (a kernel derives its own from the memory, of
/// which a VM has little); pending signals as on a host of 16 GiB.
const DEFAULT_ULIMITS: [(&str, u64, u64); 3] = [
    ("nofile", 1024, 524_288),
    ("nproc", u64::MAX, u64::MAX),
    ("sigpending", 65_536, 65_536),
];

/// The largest number of a user or group: what Docker and runc take.
const MAX_ID: u64 = i32::MAX as u64;

/// The longest argument or variable, its zero byte included (MAX_ARG_STRLEN of Linux).
const MAX_WORD_LEN: usize = 32 * 4096;
/// The stack's default soft limit, in bytes (_STK_LIM of Linux).
const DEFAULT_STACK_BYTES: u64 = 8 << 20;
/// What arguments and environment may take whatever the stack's limit: at least (ARG_MAX) and at most (bprm_stack_limits),
/// in bytes.
const LEAST_ARGS_BYTES: u64 = 128 << 10;
const MOST_ARGS_BYTES: u64 = DEFAULT_STACK_BYTES / 4 * 3;
/// A pointer, of which each argument and variable has one on the stack.
const POINTER_LEN: u64 = 8;

/// More words than execve(2) takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLong {
    /// One of them.
    #[error("{what} is {len} bytes long, and Linux takes at most {max} in one word (execve: \"Argument list too long\"); pass it in a file or through standard input", max = MAX_WORD_LEN - 1)]
    Word {
        /// Which.
        what: String,
        /// Its length.
        len: usize,
    },
    /// All together.
    #[error(
        "the command and its environment take {bytes} bytes, and Linux takes at most {limit} (execve: \"Argument list too long\"), which is a quarter of the stack's limit; pass them in a file, or raise the limit with --ulimit stack=BYTES"
    )]
    All {
        /// What they take, pointers included.
        bytes: u64,
        /// What they may take.
        limit: u64,
    },
}

pub(super) fn set(spec: &mut Spec, inputs: &Inputs<'_>) -> Result<(), Error> {
    let options = inputs.options;
    let args = command(options, inputs.image)?;
    let env = environment(options, inputs.image, inputs.hostname);
    let cwd = workdir(options, inputs.image)?;
    refuse_zero_bytes("command", args.iter())?;
    refuse_zero_bytes("environment", env.iter())?;
    refuse_zero_bytes("working directory", std::iter::once(&cwd))?;
    let rlimits = rlimits(options)?;
    refuse_too_long(&args, &env, &options.ulimits)?;
    let held = capabilities::of(options)?;
    let Some(process) = spec.process_mut() else {
        unreachable!("the built-in document has a process");
    };
    process
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(cwd.into())
        .set_terminal(Some(options.terminal))
        .set_no_new_privileges(Some(options.no_new_privileges))
        .set_rlimits(Some(rlimits))
        .set_capabilities(Some(capability_sets(&held)));
    if let Some(score) = options.oom_score_adj {
        process.set_oom_score_adj(Some(score));
    }
    Ok(())
}

fn refuse_zero_bytes<'a>(
    what: &'static str,
    mut texts: impl Iterator<Item = &'a String>,
) -> Result<(), Error> {
    match texts.any(|text| text.contains('\0')) {
        true => Err(Error::ZeroByte(what)),
        false => Ok(()),
    }
}

/// Docker's rule: an entrypoint of the user's drops the image's Cmd unless it has no word; one that is a single empty word is none.
pub(crate) fn words(options: &Options, image: Option<&Config>) -> (Vec<String>, Vec<String>) {
    let of_image = |part: fn(&Config) -> &Option<Vec<String>>| {
        image
            .and_then(|config| part(config).clone())
            .unwrap_or_default()
    };
    let mut entrypoint = match &options.entrypoint {
        Some(entrypoint) => entrypoint.clone(),
        None => of_image(Config::entrypoint),
    };
    if entrypoint == [""] {
        entrypoint.clear();
    }
    let command = if !options.command.is_empty() {
        options.command.clone()
    } else if options.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        of_image(Config::cmd)
    } else {
        Vec::new()
    };
    (entrypoint, command)
}

/// The entrypoint and then the command.
fn command(options: &Options, image: Option<&Config>) -> Result<Vec<String>, Error> {
    let (mut args, command) = words(options, image);
    args.extend(command);
    match args.first() {
        None => Err(Error::NoCommand),
        Some(program) if program.is_empty() => Err(Error::EmptyCommand),
        Some(_) => Ok(args),
    }
}

/// Docker's own variables (PATH, HOSTNAME, TERM), then the image's, then the user's; a name appears once.
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
    let given = |dir: Option<String>| dir.filter(|dir| !dir.is_empty());
    let of_image = || given(image.and_then(|config| config.working_dir().clone()));
    match given(options.workdir.clone()).or_else(of_image) {
        None => Ok("/".to_owned()),
        Some(dir) if dir.starts_with('/') => Ok(dir),
        Some(dir) => Err(Error::RelativeWorkdir(dir)),
    }
}

/// `USER[:GROUP]` for the lookup inside; `None` is root.
pub(crate) fn user(options: &Options, image: Option<&Config>) -> Result<Option<String>, Error> {
    let given = |user: Option<String>| user.filter(|user| !user.is_empty());
    let of_image = || given(image.and_then(|config| config.user().clone()));
    let user = given(options.user.clone()).or_else(of_image);
    let out_of_range = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number && part.parse::<u64>().map_or(true, |number| number > MAX_ID)
    };
    let groups = options.groups.iter();
    let mut parts = user
        .iter()
        .flat_map(|user| user.split(':'))
        .chain(groups.map(String::as_str));
    match parts.find(|part| out_of_range(part)) {
        Some(part) => Err(Error::UserRange(part.to_owned())),
        None => Ok(user),
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

/// The user's limits, the last of a name, and the default ones that they leave. A native container has the host's own
/// where the user says nothing: root may not be able to raise them.
fn rlimits(options: &Options) -> Result<Vec<PosixRlimit>, Error> {
    let defaults = match options.isolation {
        Isolation::Native => &[][..],
        Isolation::Vm | Isolation::Pod(_) => &DEFAULT_ULIMITS,
    };
    let mut limits: BTreeMap<&str, (u64, u64)> = defaults
        .iter()
        .map(|&(name, soft, hard)| (name, (soft, hard)))
        .collect();
    for ulimit in &options.ulimits {
        if !ULIMITS.contains(&ulimit.name.as_str()) {
            return Err(Error::Ulimit(ulimit.name.clone()));
        }
        limits.insert(&ulimit.name, (ulimit.soft, ulimit.hard));
    }
    Ok(limits
        .into_iter()
        .map(|(name, (soft, hard))| rlimit(name, soft, hard))
        .collect())
}

fn rlimit(name: &str, soft: u64, hard: u64) -> PosixRlimit {
    let name = format!("RLIMIT_{}", name.to_ascii_uppercase());
    let typ: PosixRlimitType =
        serde_json::from_value(name.into()).expect("every name of ours is one of oci-spec's");
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft)
        .hard(hard)
        .build()
        .expect("every field is set")
}

/// Refuses what execve(2) would answer with E2BIG, before a VM starts.
fn refuse_too_long(args: &[String], env: &[String], ulimits: &[Ulimit]) -> Result<(), TooLong> {
    let long = |word: &&String| word.len() >= MAX_WORD_LEN;
    if let Some((index, word)) = args.iter().enumerate().find(|(_, word)| long(word)) {
        return Err(TooLong::Word {
            what: format!("argument {index} of the command"),
            len: word.len(),
        });
    }
    if let Some(entry) = env.iter().find(long) {
        let name = entry
            .split_once('=')
            .map_or(entry.as_str(), |(name, _)| name);
        return Err(TooLong::Word {
            what: format!("the environment variable {name:.64}"),
            len: entry.len(),
        });
    }
    let words = args.iter().chain(env);
    let bytes: u64 = words.map(|word| word.len() as u64 + 1 + POINTER_LEN).sum();
    let stack = ulimits.iter().rfind(|ulimit| ulimit.name == "stack");
    let stack = stack.map_or(DEFAULT_STACK_BYTES, |ulimit| ulimit.soft);
    let limit = (stack / 4).clamp(LEAST_ARGS_BYTES, MOST_ARGS_BYTES);
    if bytes > limit {
        return Err(TooLong::All { bytes, limit });
    }
    Ok(())
}

#[cfg(test)]
#[path = "process/tests.rs"]
mod tests;
