//! Values of options, from what a user writes to what the engine takes. Spellings are Docker's; where one of them is
//! refused, the message says why.
//!
//! - here: sizes, numbers, CPUs, durations, and what a container's resources are named by.
//! - [`attachments`]: networks, and what is asked for on each.
//! - [`environment`]: variables, labels and their files.
//! - [`lifecycle`]: restarts, signals, logs, attachment.
//! - [`mounts`]: volumes, directories of the host, tmpfs.
//! - [`machine`]: devices, kernel parameters, namespaces, isolation.
//! - [`names`]: host names, addresses and resolvers.
//!
//! Deliberately absent: libraries for sizes and durations. bytesize reads `512m` as 512,000,000, humantime knows no
//! `1.5h` and no `-1s`; both would have to be wrapped in as much code as is here.

use std::path::Path;

use engine::options::{CpuSet, Seccomp, Swap, Tmpfs, Ulimit};
use engine::size::MilliCpus;

pub mod attachments;
pub mod environment;
pub mod lifecycle;
pub mod machine;
pub mod moments;
pub mod mounts;
pub mod names;
pub mod ports;

/// Why a value is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a size.
    #[error("{0:?} is not a size: a positive number and then b, k, m, g, t or p, as in 512m")]
    Size(String),
    /// Not a number of CPUs.
    #[error(
        "{0:?} is not a number of CPUs: a positive number with at most three decimals, as in 1.5"
    )]
    Cpus(String),
    /// Not a tmpfs.
    #[error(
        "{0:?} is not a tmpfs: an absolute path below / without .., and perhaps options, as in /run:size=64m,mode=1770"
    )]
    Tmpfs(String),
    /// Not a resource limit.
    #[error("{0:?} is not a ulimit: TYPE=SOFT[:HARD], as in nofile=1024:4096")]
    Ulimit(String),
    /// A soft limit above the hard one.
    #[error("ulimit {0:?}: the soft limit exceeds the hard one")]
    UlimitOrder(String),
    /// Not a security option.
    #[error(
        "{0:?} is not a security option: no-new-privileges, seccomp=FILE|unconfined or systempaths=unconfined"
    )]
    SecurityOption(String),
    /// Neither true nor false.
    #[error("{0:?} is neither true nor false")]
    Boolean(String),
    /// Not an integer.
    #[error("{0:?} is not an integer")]
    Integer(String),
    /// An integer that is too small or too large.
    #[error("{text:?} is out of range: {least} to {most}")]
    Range {
        /// What was written.
        text: String,
        /// The least that is taken.
        least: i64,
        /// The most that is taken.
        most: i64,
    },
    /// Not a duration.
    #[error(
        "{0:?} is not a duration: numbers with units, as in 1m30s or 1.5h (ns, us, ms, s, m, h)"
    )]
    Duration(String),
    /// A duration below zero.
    #[error("{0:?} is negative")]
    NegativeDuration(String),
    /// A duration that is too short to be meant.
    #[error("{0:?} is less than 1ms")]
    ShortDuration(String),
}

/// A value, or Docker's word for the default: an empty one, 0 or -1, as the option has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrDefault<T>(pub Option<T>);

/// A parser for the command line from one whose `None` is the default.
pub fn or_default<T, E>(
    parse: impl Fn(&str) -> Result<Option<T>, E> + Clone,
) -> impl Fn(&str) -> Result<OrDefault<T>, E> + Clone {
    move |text| parse(text).map(OrDefault)
}

/// The value of an option that was given, unless that was the default's word.
pub fn value<T>(given: Option<OrDefault<T>>) -> Option<T> {
    given.and_then(|given| given.0)
}

/// What Docker takes as a boolean.
pub fn boolean(text: &str) -> Result<bool, Error> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::Boolean(text.to_owned())),
    }
}

/// A size in bytes, of at least one: Docker's units are powers of 1024.
pub fn size(text: &str) -> Result<u64, Error> {
    size_or_zero(text)
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| Error::Size(text.to_owned()))
}

/// A size in bytes; 0 is Docker's word for the default.
fn size_or_zero(text: &str) -> Result<u64, Error> {
    let error = || Error::Size(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(error()),
    };
    let billionths = decimal(number, 9).ok_or_else(error)?;
    let bytes = billionths.checked_mul(1 << shift).ok_or_else(error)? / 1_000_000_000;
    u64::try_from(bytes).map_err(|_| error())
}

/// A size whose 0 means the default.
pub fn optional_size(text: &str) -> Result<Option<u64>, Error> {
    Ok(Some(size_or_zero(text)?).filter(|bytes| *bytes > 0))
}

/// `--memory-swap`: a size, -1 for as much as there is; 0 is Docker's word for the default.
pub fn swap(text: &str) -> Result<Option<Swap>, Error> {
    match text {
        "-1" => Ok(Some(Swap::Unlimited)),
        text => Ok(optional_size(text)?.map(Swap::Total)),
    }
}

/// An integer from `least` to `most`.
pub fn integer(text: &str, least: i64, most: i64) -> Result<i64, Error> {
    let is_number = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if !is_number || text.is_empty() {
        return Err(Error::Integer(text.to_owned()));
    }
    let value = text.parse().ok();
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| Error::Range {
            text: text.to_owned(),
            least,
            most,
        })
}

/// An integer whose 0 means the default, as many of Docker's do.
pub fn count(text: &str) -> Result<Option<u64>, Error> {
    let value = integer(text, 0, i64::MAX)?;
    Ok(u64::try_from(value).ok().filter(|value| *value > 0))
}

/// [`count`] for what is kept in 32 bits.
pub fn small_count(text: &str) -> Result<Option<u32>, Error> {
    let value = integer(text, 0, i64::from(i32::MAX))?;
    Ok(u32::try_from(value).ok().filter(|value| *value > 0))
}

/// An integer that stands for a limit: 0 and what is less is no limit.
pub fn limit(text: &str) -> Result<Option<u64>, Error> {
    let value = integer(text, i64::MIN, i64::MAX)?;
    Ok(u64::try_from(value).ok().filter(|value| *value > 0))
}

/// `--oom-score-adj`
pub fn oom_score(text: &str) -> Result<i32, Error> {
    let value = integer(text, -1000, 1000)?;
    Ok(i32::try_from(value).unwrap_or_default())
}

/// `--stop-timeout`: seconds; negative is without limit.
pub fn seconds(text: &str) -> Result<i64, Error> {
    integer(text, i64::from(i32::MIN), i64::from(i32::MAX))
}

/// A number of CPUs.
pub fn cpus(text: &str) -> Result<MilliCpus, Error> {
    decimal(text, 3)
        .and_then(|milli| u64::try_from(milli).ok())
        .filter(|milli| *milli > 0)
        .map(MilliCpus)
        .ok_or_else(|| Error::Cpus(text.to_owned()))
}

/// CPUs or memory nodes; an empty list is Docker's word for all.
pub fn cpu_set(text: &str) -> Result<Option<CpuSet>, engine::options::NoCpuSet> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some),
    }
}

/// A duration as Go writes it, in milliseconds: numbers with units and perhaps decimals. 0 is Docker's word for the
/// default.
pub fn duration(text: &str) -> Result<Option<u64>, Error> {
    let error = || Error::Duration(text.to_owned());
    match engine::image::docker::duration_ns(text).ok_or_else(error)? {
        0 => Ok(None),
        ..0 => Err(Error::NegativeDuration(text.to_owned())),
        1..1_000_000 => Err(Error::ShortDuration(text.to_owned())),
        total => Ok(Some(u64::try_from(total / 1_000_000).map_err(|_| error())?)),
    }
}

/// `PATH[:OPTION,…]`
pub fn tmpfs(text: &str) -> Result<Tmpfs, Error> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let path = absolute(path).ok_or_else(|| Error::Tmpfs(text.to_owned()))?;
    let options = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Tmpfs { path, options })
}

/// An absolute path below the root without `..`, in its shortest form: what names one place whatever the container's
/// links are.
pub fn absolute(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    let is_place = !parts.is_empty() && !parts.contains(&"..");
    is_place.then(|| format!("/{}", parts.join("/")))
}

/// `TYPE=SOFT[:HARD]`; -1 is no limit.
pub fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let error = || Error::Ulimit(text.to_owned());
    let (name, limits) = text.split_once('=').ok_or_else(error)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| match text {
        "-1" | "unlimited" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    let (soft, hard) = (
        limit(soft).ok_or_else(error)?,
        limit(hard).ok_or_else(error)?,
    );
    if name.is_empty() {
        return Err(error());
    }
    if soft > hard {
        return Err(Error::UlimitOrder(text.to_owned()));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// What a `--security-opt` asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum SecurityOption {
    /// no-new-privileges, on or off.
    NoNewPrivileges(bool),
    /// A seccomp profile.
    Seccomp(Seccomp),
    /// Nothing of /proc and /sys is hidden.
    Unmasked,
    /// Accepted; has no effect.
    Nothing,
}

/// `no-new-privileges[=BOOL]`, `seccomp=builtin`, `seccomp=unconfined`, `seccomp=FILE`, `systempaths=unconfined`,
/// `apparmor=unconfined`, `label=disable`
pub fn security_option(text: &str) -> Result<SecurityOption, Error> {
    let (name, value) = match text.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let error = || Error::SecurityOption(text.to_owned());
    match (name, value) {
        ("no-new-privileges", None) => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", Some(value)) => boolean(value)
            .map(SecurityOption::NoNewPrivileges)
            .map_err(|_| error()),
        ("seccomp", Some("builtin")) => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", Some("unconfined")) => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", Some(path)) if !path.is_empty() => Ok(SecurityOption::Seccomp(Seccomp::File(
            Path::new(path).into(),
        ))),
        ("systempaths", Some("unconfined")) => Ok(SecurityOption::Unmasked),
        // Neither AppArmor nor SELinux confines a container in the first place.
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {
            Ok(SecurityOption::Nothing)
        }
        _ => Err(error()),
    }
}

/// A decimal number in units of 10 to the power of minus `places`, exactly.
fn decimal(text: &str, places: usize) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty())
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > places
    {
        return None;
    }
    // Both together are the number of such units; 20 digits hold every u64.
    let whole = whole.trim_start_matches('0');
    let number = format!("{whole}{fraction:0<places$}");
    (whole.len() <= 20).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
