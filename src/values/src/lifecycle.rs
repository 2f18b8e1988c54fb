//! Restarts, signals, logs and attachment.

use engine::protocol::record::{LogConfig, RestartPolicy};

/// Why a value is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a policy.
    #[error("{0:?} is not a restart policy: no, always, unless-stopped or on-failure[:TIMES]")]
    Restart(String),
    /// Not a signal.
    #[error("{0:?} is not a signal: a name such as TERM or SIGRTMIN+3, or a number from 1 to 64")]
    Signal(String),
    /// Not a stream.
    #[error("{0:?} is not a stream: stdin, stdout or stderr")]
    Stream(String),
    /// Not keys.
    #[error(
        "{0:?} is not a sequence of keys: single characters and ctrl-X with X of a-z @ [ \\ ] ^ _, between commas"
    )]
    Keys(String),
    /// A log driver that hull does not have.
    #[error("there is no log driver {0:?}: hull has json-file and none")]
    LogDriver(String),
    /// An option that the driver does not have.
    #[error("the log driver {driver} has no option {option:?}{hint}")]
    LogOption {
        /// The driver.
        driver: &'static str,
        /// The option, as it was written.
        option: String,
        /// Which options there are.
        hint: &'static str,
    },
    /// A value that the option does not take.
    #[error("--log-opt {0:?}: max-size is a size such as 10m, max-file a number from 1 to 1000")]
    LogValue(String),
}

/// A policy; an empty word is Docker's for its default.
pub fn restart(text: &str) -> Result<RestartPolicy, Error> {
    let error = || Error::Restart(text.to_owned());
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "no", "") => Ok(RestartPolicy::No),
        ("always", "") => Ok(RestartPolicy::Always),
        ("unless-stopped", "") => Ok(RestartPolicy::UnlessStopped),
        ("on-failure", "") => Ok(RestartPolicy::OnFailure { max_retries: 0 }),
        ("on-failure", times) => {
            let max_retries = times.parse().map_err(|_| error())?;
            Ok(RestartPolicy::OnFailure { max_retries })
        }
        _ => Err(error()),
    }
}

/// A signal's number; an empty word is Docker's for the image's.
pub fn signal(text: &str) -> Result<Option<i32>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = engine::signals::number(text);
    number
        .map(Some)
        .ok_or_else(|| Error::Signal(text.to_owned()))
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A stream's name, in any case.
pub fn stream(text: &str) -> Result<Stream, Error> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" => Ok(Stream::Stdin),
        "stdout" => Ok(Stream::Stdout),
        "stderr" => Ok(Stream::Stderr),
        _ => Err(Error::Stream(text.to_owned())),
    }
}

/// The keys that detach a client from a terminal: the bytes that they send, in order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(pub Vec<u8>);

impl Default for DetachKeys {
    /// Docker's: ctrl-p, ctrl-q.
    fn default() -> DetachKeys {
        DetachKeys(vec![0x10, 0x11])
    }
}

/// `KEY[,KEY…]`; an empty word is Docker's for the default.
pub fn detach_keys(text: &str) -> Result<DetachKeys, Error> {
    if text.is_empty() {
        return Ok(DetachKeys::default());
    }
    let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>();
    keys.map(DetachKeys)
        .ok_or_else(|| Error::Keys(text.to_owned()))
}

fn key(name: &str) -> Option<u8> {
    let control = name
        .get(..5)
        .filter(|start| start.eq_ignore_ascii_case("ctrl-"));
    match (control, name.as_bytes()) {
        (Some(_), [.., key @ (b'a'..=b'z' | b'A'..=b'Z' | b'@' | b'['..=b'_')])
            if name.len() == 6 =>
        {
            // ASCII: a control character is its letter without the two highest bits.
            Some(key & 0x1f)
        }
        (None, b"DEL" | b"del") => Some(0x7f),
        (None, [key]) if key.is_ascii() => Some(*key),
        _ => None,
    }
}

/// `--log-driver` and `--log-opt` together.
pub fn log(driver: Option<&str>, options: &[String]) -> Result<LogConfig, Error> {
    /// A bound on what a mistyped number keeps on disk; Docker has none.
    const MAX_FILES: i64 = 1000;
    match driver.unwrap_or_default() {
        "" | "json-file" => {}
        "none" => {
            return match options.first() {
                None => Ok(LogConfig::None),
                Some(option) => Err(Error::LogOption {
                    driver: "none",
                    option: option.clone(),
                    hint: ": it keeps nothing",
                }),
            };
        }
        other => return Err(Error::LogDriver(other.to_owned())),
    }
    let (mut max_size_bytes, mut max_files) = (None, 1);
    for option in options {
        let error = || Error::LogValue(option.clone());
        match option.split_once('=').unwrap_or((option, "")) {
            // Docker's word for no bound.
            ("max-size", "-1") => max_size_bytes = None,
            ("max-size", size) => max_size_bytes = Some(super::size(size).map_err(|_| error())?),
            ("max-file", count) => {
                let count = super::integer(count, 1, MAX_FILES).map_err(|_| error())?;
                max_files = u32::try_from(count).map_err(|_| error())?;
            }
            _ => {
                return Err(Error::LogOption {
                    driver: "json-file",
                    option: option.clone(),
                    hint: "; it has max-size and max-file",
                });
            }
        }
    }
    Ok(LogConfig::JsonFile {
        max_size_bytes,
        max_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_docker_s() {
        for (text, policy) in [
            ("", RestartPolicy::No),
            ("no", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure { max_retries: 0 }),
            ("on-failure:5", RestartPolicy::OnFailure { max_retries: 5 }),
        ] {
            assert_eq!(restart(text), Ok(policy));
        }
        for bad in [
            "Always",
            "always:3",
            "no:1",
            "on-failure:-1",
            "on-failure:x",
            ":3",
            "yes",
        ] {
            assert_eq!(restart(bad), Err(Error::Restart(bad.into())));
        }
    }

    #[test]
    fn detach_keys_are_the_bytes_that_a_terminal_sends() {
        let keys = |text: &str| detach_keys(text).map(|keys| keys.0);
        assert_eq!(keys(""), Ok(vec![0x10, 0x11]));
        assert_eq!(keys("ctrl-a,d"), Ok(vec![1, b'd']));
        assert_eq!(
            keys("ctrl-@,ctrl-[,ctrl-_,DEL"),
            Ok(vec![0, 0x1b, 0x1f, 0x7f])
        );
        for bad in [
            "ctrl-", "ctrl-ab", "foo", "a,,b", ",", "ctrl-1", "é", "ctrl-é",
        ] {
            assert_eq!(keys(bad), Err(Error::Keys(bad.into())));
        }
    }

    #[test]
    fn signals_and_streams_have_names_in_any_case() {
        assert_eq!(signal("sigusr1"), Ok(Some(10)));
        assert_eq!(signal(""), Ok(None));
        assert!(signal("NOPE").is_err());
        assert_eq!(stream("STDIN"), Ok(Stream::Stdin));
        assert!(stream("in").is_err());
    }

    #[test]
    fn a_log_is_rotated_as_its_options_say() {
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(log(None, &[]), Ok(LogConfig::default()));
        assert_eq!(log(Some("none"), &[]), Ok(LogConfig::None));
        assert_eq!(
            log(Some("json-file"), &words(&["max-size=10m", "max-file=3"])),
            Ok(LogConfig::JsonFile {
                max_size_bytes: Some(10 << 20),
                max_files: 3
            })
        );
        assert_eq!(
            log(None, &words(&["max-size=-1"])),
            Ok(LogConfig::default())
        );
        assert_eq!(
            log(Some("syslog"), &[]),
            Err(Error::LogDriver("syslog".into()))
        );
        for bad in [
            "max-size=x",
            "max-size=0",
            "max-file=0",
            "max-file=",
            "max-file=99999",
        ] {
            assert_eq!(log(None, &words(&[bad])), Err(Error::LogValue(bad.into())));
        }
        for bad in ["compress=true", "tag=x", "mode=non-blocking"] {
            assert!(matches!(
                log(None, &words(&[bad])),
                Err(Error::LogOption { .. })
            ));
        }
        assert!(log(Some("none"), &words(&["max-size=1m"])).is_err());
    }
}
