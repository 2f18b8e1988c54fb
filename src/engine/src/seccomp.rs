//! Seccomp profiles, from Docker's or the OCI's JSON to the program that the kernel runs.
//!
//! The profile is compiled by libseccomp. A short prologue of our own runs before it and holds whatever the profile says:
//! AF_VSOCK sockets are refused, so that no container can dial the host beside the agent.
//!
//! A limit: an io_uring can open sockets unseen by seccomp. The default profile refuses io_uring, as Docker's does;
//! with a profile of the user's that allows it, the host's own checks (ports offered once, tokens) stand alone.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use serde::Deserialize;

use crate::options::Seccomp;

mod newer;
mod prologue;

/// The profile of containers whose options name no other.
const DEFAULT_PROFILE: &str = include_str!("../../../resources/seccomp/default.json");
/// What the profile's minKernel is compared with: the guest kernel's series.
const KERNEL: (u32, u32) = (6, 12);
/// The kernel's limit of instructions (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;
/// The longest profile that is read, in bytes: ten times the length of Docker's at least.
const MAX_PROFILE_BYTES: u64 = 4 << 20;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the seccomp profile {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a profile.
    #[error("{path} is not a seccomp profile in Docker's or the OCI's format")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// An action that is unknown or that hull cannot carry out.
    #[error("the seccomp profile asks for {0}, which hull does not support")]
    Unsupported(String),
    /// The compiler refused it.
    #[error("the seccomp profile cannot be compiled")]
    Compile(#[from] libseccomp::error::SeccompError),
    /// Its program could not be taken over.
    #[error("the compiled seccomp profile cannot be read")]
    Export(#[source] std::io::Error),
    /// The kernel would not take it.
    #[error(
        "the compiled seccomp profile has {0} instructions and the kernel takes at most {MAX_INSTRUCTIONS}"
    )]
    TooLong(usize),
}

/// Compiles the profile for a container that holds `capabilities`: an array of `struct sock_filter`.
///
/// The compiled default profile is kept in the folder `cache`, where one is given; a cache that cannot be used only costs
/// time.
pub fn compile(
    choice: &Seccomp,
    capabilities: &[String],
    cache: Option<&Path>,
) -> Result<Vec<u8>, Error> {
    match choice {
        Seccomp::Unconfined => Ok(prologue::before(&prologue::ALLOW)),
        Seccomp::File(path) => {
            let text = read_bounded(path).map_err(|source| Error::Read {
                path: path.clone(),
                source,
            })?;
            let profile = serde_json::from_slice(&text).map_err(|source| Error::Malformed {
                path: path.clone(),
                source,
            })?;
            checked(prologue::before(&compile_profile(&profile, capabilities)?))
        }
        Seccomp::Default => {
            let entry =
                cache.map(|cache| cache.join(format!("seccomp-{:016x}", key(capabilities))));
            if let Some(program) = entry.as_deref().and_then(read_cached) {
                return Ok(program);
            }
            let profile =
                serde_json::from_str(DEFAULT_PROFILE).expect("the built-in profile is valid");
            let program = checked(prologue::before(&compile_profile(&profile, capabilities)?))?;
            if let Some(entry) = entry
                && let Err(error) = write_cached(&entry, &program)
            {
                tracing::debug!(%error, path = %entry.display(), "the compiled seccomp profile was not kept");
            }
            Ok(program)
        }
    }
}

fn checked(program: Vec<u8>) -> Result<Vec<u8>, Error> {
    let instructions = program.len() / prologue::INSTRUCTION_LEN;
    if instructions > MAX_INSTRUCTIONS {
        Err(Error::TooLong(instructions))
    } else {
        Ok(program)
    }
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(MAX_PROFILE_BYTES)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn key(capabilities: &[String]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (
        protocol::BUILD,
        DEFAULT_PROFILE,
        capabilities,
        prologue::before(&[]),
    )
        .hash(&mut hasher);
    hasher.finish()
}

fn read_cached(path: &Path) -> Option<Vec<u8>> {
    let program = std::fs::read(path).ok()?;
    let instructions = program.len() / prologue::INSTRUCTION_LEN;
    let whole = program.len().is_multiple_of(prologue::INSTRUCTION_LEN);
    (whole && (1..=MAX_INSTRUCTIONS).contains(&instructions)).then_some(program)
}

fn write_cached(path: &Path, program: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, program)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A profile, as Docker and the OCI write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Option<Vec<String>>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Conditions,
    #[serde(default)]
    excludes: Conditions,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Rule {
    fn applies(&self, capabilities: &[String]) -> bool {
        let held = |cap: &String| capabilities.contains(cap);
        let ours = |arches: &[String]| arches.iter().any(|arch| arch == "amd64");
        let includes = &self.includes;
        let excludes = &self.excludes;
        includes
            .caps
            .as_ref()
            .is_none_or(|caps| caps.iter().all(held))
            && includes
                .arches
                .as_ref()
                .is_none_or(|arches| arches.is_empty() || ours(arches))
            && includes.min_kernel.as_deref().is_none_or(kernel_at_least)
            && !excludes
                .caps
                .as_ref()
                .is_some_and(|caps| caps.iter().any(held))
            && !excludes.arches.as_ref().is_some_and(|arches| ours(arches))
            && !excludes.min_kernel.as_deref().is_some_and(kernel_at_least)
    }
}

fn kernel_at_least(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    KERNEL >= (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn compile_profile(profile: &Profile, capabilities: &[String]) -> Result<Vec<u8>, Error> {
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut context = ScmpFilterContext::new(default)?;
    for arch in architectures(profile)? {
        if !context.is_arch_present(arch)? {
            context.add_arch(arch)?;
        }
    }
    // A binary tree over the numbers: a handful of comparisons instead of hundreds.
    context.set_ctl_optimize(2)?;
    for rule in profile
        .syscalls
        .iter()
        .filter(|rule| rule.applies(capabilities))
    {
        let action = action(&rule.action, rule.errno_ret)?;
        if action == default {
            continue;
        }
        for name in rule.names.iter().flatten().chain(&rule.name) {
            // Calls that this libseccomp does not know are decided before its program runs, see `newer`.
            if let Ok(syscall) = ScmpSyscall::from_name(name) {
                add(
                    &mut context,
                    action,
                    syscall,
                    rule.args.as_deref().unwrap_or_default(),
                )?;
            }
        }
    }
    let mut program = newer::before(profile, capabilities)?;
    program.extend(export(&context)?);
    Ok(program)
}

fn architectures(profile: &Profile) -> Result<Vec<ScmpArch>, Error> {
    let mut names: Vec<&String> = profile.architectures.iter().collect();
    for map in profile
        .arch_map
        .iter()
        .filter(|map| map.architecture == "SCMP_ARCH_X86_64")
    {
        names.push(&map.architecture);
        names.extend(map.sub_architectures.iter().flatten());
    }
    names
        .into_iter()
        .filter(|name| name.starts_with("SCMP_ARCH_X"))
        .map(|name| {
            name.parse()
                .map_err(|_| Error::Unsupported(format!("the architecture {name}")))
        })
        .collect()
}

fn add(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    syscall: ScmpSyscall,
    args: &[Argument],
) -> Result<(), Error> {
    let compare: Vec<ScmpArgCompare> = args.iter().map(|arg| arg.compare()).collect();
    let mut indexes: Vec<u32> = args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    if indexes.windows(2).any(|pair| pair[0] == pair[1]) {
        // Several conditions on one argument: any of them suffices, as runc reads it.
        for one in compare {
            context.add_rule_conditional(action, syscall, &[one])?;
        }
    } else {
        context.add_rule_conditional(action, syscall, &compare)?;
    }
    Ok(())
}

impl Argument {
    fn compare(self) -> ScmpArgCompare {
        let (op, datum) = match self.op {
            Operator::Ne => (ScmpCompareOp::NotEqual, self.value),
            Operator::Lt => (ScmpCompareOp::Less, self.value),
            Operator::Le => (ScmpCompareOp::LessOrEqual, self.value),
            Operator::Eq => (ScmpCompareOp::Equal, self.value),
            Operator::Ge => (ScmpCompareOp::GreaterEqual, self.value),
            Operator::Gt => (ScmpCompareOp::Greater, self.value),
            Operator::MaskedEq => (ScmpCompareOp::MaskedEqual(self.value), self.value_two),
        };
        ScmpArgCompare::new(self.index, op, datum)
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<ScmpAction, Error> {
    const EPERM: u32 = 1;
    let errno = errno.unwrap_or(EPERM);
    Ok(match name {
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(i32::try_from(errno).unwrap_or(libc::EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_TRACE" => ScmpAction::Trace(u16::try_from(errno).unwrap_or(1)),
        "SCMP_ACT_LOG" => ScmpAction::Log,
        other => return Err(Error::Unsupported(format!("the action {other}"))),
    })
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, Error> {
    let memory = rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::Export(errno.into()))?;
    context.export_bpf(&memory)?;
    let mut file = File::from(memory);
    let mut program = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut program))
        .map_err(Error::Export)?;
    Ok(program)
}

#[cfg(test)]
#[path = "seccomp/tests.rs"]
mod tests;
