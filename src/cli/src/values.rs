//! Values of options, from what a user writes to what the engine takes. Spellings are Docker's.

use std::path::Path;

use engine::options::{Seccomp, Tmpfs, Ulimit, Variable};
use engine::size::MilliCpus;

/// Why a value is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A size that is none.
    #[error("{0:?} is not a size: a number and then b, k, m or g, as in 512m")]
    Size(String),
    /// A number of CPUs that is none.
    #[error(
        "{0:?} is not a number of CPUs: a positive number with at most three decimals, as in 1.5"
    )]
    Cpus(String),
    /// A tmpfs that is none.
    #[error(
        "{0:?} is not a tmpfs: an absolute path and perhaps options, as in /run:size=64m,mode=1770"
    )]
    Tmpfs(String),
    /// A limit that is none.
    #[error("{0:?} is not a ulimit: TYPE=SOFT[:HARD], as in nofile=1024:4096")]
    Ulimit(String),
    /// A soft limit above the hard one.
    #[error("ulimit {0:?}: the soft limit exceeds the hard one")]
    UlimitOrder(String),
    /// A variable that is none.
    #[error("{0:?} is not an environment variable: NAME=VALUE, or NAME to pass the host's on")]
    Variable(String),
    /// A security option that is none.
    #[error(
        "{0:?} is not a security option: no-new-privileges, seccomp=FILE|unconfined or systempaths=unconfined"
    )]
    SecurityOption(String),
}

/// A size in bytes: Docker's units are powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, Error> {
    let error = || Error::Size(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(error()),
    };
    let thousandths = decimal(number).ok_or_else(error)?;
    let bytes = (u128::from(thousandths) << shift) / 1000;
    u64::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes > 0)
        .ok_or_else(error)
}

/// A number of CPUs.
pub(crate) fn cpus(text: &str) -> Result<MilliCpus, Error> {
    let milli = decimal(text).filter(|milli| *milli > 0);
    milli
        .map(MilliCpus)
        .ok_or_else(|| Error::Cpus(text.to_owned()))
}

/// `PATH[:OPTION,…]`
pub(crate) fn tmpfs(text: &str) -> Result<Tmpfs, Error> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let is_inside = path.split('/').all(|part| part != "..");
    if !path.starts_with('/') || path.trim_matches('/').is_empty() || !is_inside {
        return Err(Error::Tmpfs(text.to_owned()));
    }
    let options = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(Tmpfs {
        path: path.to_owned(),
        options,
    })
}

/// `TYPE=SOFT[:HARD]`; -1 is no limit.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, Error> {
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

/// `NAME=VALUE`, or `NAME` for the host's, which `host` looks up.
pub(crate) fn variable(
    text: &str,
    host: impl Fn(&str) -> Option<String>,
) -> Result<Variable, Error> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, host(text)),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Error::Variable(text.to_owned()));
    }
    Ok(match value {
        Some(value) => Variable::Set(name.to_owned(), value),
        None => Variable::Unset(name.to_owned()),
    })
}

/// The lines of an `--env-file`: as [`variable`], with empty lines and those that begin with `#` left out. A name alone
/// that the host does not have is left out too, as Docker does in files.
pub(crate) fn env_file(
    text: &str,
    host: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Variable>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match variable(line, &host)? {
            Variable::Unset(_) => {}
            set => variables.push(set),
        }
    }
    Ok(variables)
}

/// What a `--security-opt` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    /// no-new-privileges, on or off.
    NoNewPrivileges(bool),
    /// A seccomp profile.
    Seccomp(Seccomp),
    /// Nothing of /proc and /sys is hidden.
    Unmasked,
    /// What is so anyway.
    Nothing,
}

/// `no-new-privileges[=BOOL]`, `seccomp=unconfined`, `seccomp=FILE`, `systempaths=unconfined`, `apparmor=unconfined`,
/// `label=disable`
pub(crate) fn security_option(text: &str) -> Result<SecurityOption, Error> {
    let (name, value) = match text.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(SecurityOption::NoNewPrivileges(false)),
        ("seccomp", Some("unconfined")) => Ok(SecurityOption::Seccomp(Seccomp::Unconfined)),
        ("seccomp", Some("builtin")) => Ok(SecurityOption::Seccomp(Seccomp::Default)),
        ("seccomp", Some(path)) if !path.is_empty() => Ok(SecurityOption::Seccomp(Seccomp::File(
            Path::new(path).to_owned(),
        ))),
        ("systempaths", Some("unconfined")) => Ok(SecurityOption::Unmasked),
        // The guest has neither AppArmor nor SELinux: there is nothing to switch off.
        ("apparmor", Some("unconfined")) | ("label", Some("disable")) => {
            Ok(SecurityOption::Nothing)
        }
        _ => Err(Error::SecurityOption(text.to_owned())),
    }
}

/// A decimal number in thousandths, exactly.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty())
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 3
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_docker_s_units() {
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("64kb"), Ok(64 << 10));
        assert_eq!(size("4096"), Ok(4096));
        for bad in ["", "m", "12x", "-1m", "0", "1..5g", "99999999999t"] {
            assert_eq!(size(bad), Err(Error::Size(bad.into())));
        }
    }

    #[test]
    fn cpus_are_exact_to_the_thousandth() {
        assert_eq!(cpus("1.5"), Ok(MilliCpus(1500)));
        assert_eq!(cpus(".25"), Ok(MilliCpus(250)));
        assert_eq!(cpus("32"), Ok(MilliCpus(32_000)));
        for bad in ["0", "-1", "1.0001", "one", ".", ""] {
            assert_eq!(cpus(bad), Err(Error::Cpus(bad.into())));
        }
    }

    #[test]
    fn a_tmpfs_has_an_absolute_path_and_options() {
        let parsed = tmpfs("/run:size=64m,exec").unwrap();
        assert_eq!((parsed.path.as_str(), parsed.options.len()), ("/run", 2));
        assert!(tmpfs("/tmp").unwrap().options.is_empty());
        for bad in ["run", "/", "/a/../b", ""] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ulimit_has_one_limit_or_two() {
        assert_eq!(
            ulimit("nofile=10"),
            Ok(Ulimit {
                name: "nofile".into(),
                soft: 10,
                hard: 10
            })
        );
        assert_eq!(
            ulimit("core=0:-1"),
            Ok(Ulimit {
                name: "core".into(),
                soft: 0,
                hard: u64::MAX
            })
        );
        assert!(matches!(ulimit("nofile=20:10"), Err(Error::UlimitOrder(_))));
        assert!(matches!(ulimit("nofile"), Err(Error::Ulimit(_))));
        assert!(matches!(ulimit("=1"), Err(Error::Ulimit(_))));
    }

    #[test]
    fn a_name_alone_takes_the_host_s_value() {
        let host = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(
            variable("A=b=c", host),
            Ok(Variable::Set("A".into(), "b=c".into()))
        );
        assert_eq!(
            variable("A=", host),
            Ok(Variable::Set("A".into(), String::new()))
        );
        assert_eq!(
            variable("HOME", host),
            Ok(Variable::Set("HOME".into(), "/root".into()))
        );
        assert_eq!(variable("NOPE", host), Ok(Variable::Unset("NOPE".into())));
        assert!(variable("=x", host).is_err());
        assert!(variable("A B=x", host).is_err());
    }

    #[test]
    fn an_env_file_has_comments_and_the_host_s_names() {
        let host = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        let variables = env_file(
            "\u{feff}# comment\n\nA=1 # kept\n  HOME\nNOPE\r\nB='x'\n",
            host,
        )
        .unwrap();
        let expected = [("A", "1 # kept"), ("HOME", "/root"), ("B", "'x'")]
            .map(|(name, value)| Variable::Set(name.into(), value.into()));
        assert_eq!(variables, expected);
    }

    #[test]
    fn security_options_are_docker_s() {
        assert_eq!(
            security_option("no-new-privileges"),
            Ok(SecurityOption::NoNewPrivileges(true))
        );
        assert_eq!(
            security_option("no-new-privileges:false"),
            Ok(SecurityOption::NoNewPrivileges(false))
        );
        assert_eq!(
            security_option("seccomp=unconfined"),
            Ok(SecurityOption::Seccomp(Seccomp::Unconfined))
        );
        assert_eq!(
            security_option("seccomp=/p.json"),
            Ok(SecurityOption::Seccomp(Seccomp::File("/p.json".into())))
        );
        for (text, option) in [
            ("systempaths=unconfined", SecurityOption::Unmasked),
            ("apparmor=unconfined", SecurityOption::Nothing),
            ("label=disable", SecurityOption::Nothing),
        ] {
            assert_eq!(security_option(text), Ok(option));
        }
        assert!(security_option("apparmor=x").is_err());
        assert!(security_option("seccomp=").is_err());
    }
}
