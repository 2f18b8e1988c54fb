//! The health check: the options over the image's HEALTHCHECK, as Docker has it.

use std::time::Duration;

use image::Image;
use image::docker::Healthcheck;
use oci_spec::runtime::Process;
use protocol::record::HealthCheck;

use crate::options::{Health, Options};

/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// What executes a command line where an image names no shell.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Why a container's health cannot be checked so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two options that exclude each other.
    #[error("--no-healthcheck excludes the other --health options")]
    Disabled,
    /// Nothing to change.
    #[error("the image has no health check for the --health options to change; add --health-cmd")]
    NoCommand,
    /// A check that is of no kind.
    #[error("the image's health check is {0:?}, and a check begins with NONE, CMD or CMD-SHELL")]
    Kind(Vec<String>),
    /// A check without a command.
    #[error("the health check has an empty command")]
    Empty,
    /// Its process cannot be written.
    #[error("cannot write the health check's process")]
    Json(#[from] serde_json::Error),
}

/// Docker's `Config.Healthcheck`: each part is the options' if they have it, and else the image's.
pub(crate) fn merged(options: &Options, image: &Image) -> Option<Healthcheck> {
    merge(&options.health, image.docker.healthcheck.as_ref())
}

fn merge(options: &Health, image: Option<&Healthcheck>) -> Option<Healthcheck> {
    if options.disabled {
        return Some(Healthcheck {
            test: vec!["NONE".into()],
            ..Healthcheck::default()
        });
    }
    let image = image.cloned().unwrap_or_default();
    let nanoseconds =
        |ms: Option<u64>, image: u64| ms.map_or(image, |ms| ms.saturating_mul(1_000_000));
    let merged = Healthcheck {
        test: match &options.command {
            Some(command) => vec!["CMD-SHELL".into(), command.clone()],
            None if !options.words.is_empty() => {
                let words = options.words.iter().cloned();
                std::iter::once("CMD".to_owned()).chain(words).collect()
            }
            None => image.test,
        },
        interval: nanoseconds(options.interval_ms, image.interval),
        timeout: nanoseconds(options.timeout_ms, image.timeout),
        start_period: nanoseconds(options.start_period_ms, image.start_period),
        start_interval: nanoseconds(options.start_interval_ms, image.start_interval),
        retries: options.retries.unwrap_or(image.retries),
    };
    (merged != Healthcheck::default()).then_some(merged)
}

/// What the monitor executes, if there is a check. `process` is the container's own, whose environment, working
/// directory and capabilities the check has too.
pub(crate) fn check(
    options: &Options,
    image: &Image,
    process: Option<&Process>,
) -> Result<Option<HealthCheck>, Error> {
    let shell = image.docker.shell.as_deref();
    of(
        &options.health,
        image.docker.healthcheck.as_ref(),
        shell,
        process,
    )
}

fn of(
    options: &Health,
    image: Option<&Healthcheck>,
    shell: Option<&[String]>,
    process: Option<&Process>,
) -> Result<Option<HealthCheck>, Error> {
    let changed = Health {
        disabled: false,
        ..options.clone()
    } != Health::default();
    if options.disabled && changed {
        return Err(Error::Disabled);
    }
    let Some(merged) = merge(options, image) else {
        return Ok(None);
    };
    let Some(command) = command(&merged.test, shell)? else {
        return if changed {
            Err(Error::NoCommand)
        } else {
            Ok(None)
        };
    };
    let mut document = process.cloned().unwrap_or_default();
    document
        .set_args(Some(command.clone()))
        .set_terminal(Some(false));
    let or = |nanoseconds: u64, default: Duration| match Duration::from_nanos(nanoseconds) {
        Duration::ZERO => milliseconds(default),
        // What is shorter than a millisecond is one: a check without a pause would take a processor for itself.
        given => milliseconds(given).max(1),
    };
    Ok(Some(HealthCheck {
        command,
        document: serde_json::to_string(&document)?.into_boxed_str(),
        interval_ms: or(merged.interval, INTERVAL),
        timeout_ms: or(merged.timeout, TIMEOUT),
        start_period_ms: merged.start_period / 1_000_000,
        start_interval_ms: or(merged.start_interval, START_INTERVAL),
        retries: match merged.retries {
            0 => RETRIES,
            retries => retries,
        },
    }))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The words to execute; `None` where the check is NONE or absent.
fn command(test: &[String], shell: Option<&[String]>) -> Result<Option<Vec<String>>, Error> {
    let (kind, words) = match test.split_first() {
        None => return Ok(None),
        Some((kind, words)) => (kind.as_str(), words),
    };
    let command = match kind {
        // Docker treats an empty first word as inherited; an image's has nothing to inherit from.
        "NONE" | "" => return Ok(None),
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let default = SHELL.map(str::to_owned);
            let mut command = shell.unwrap_or(&default).to_vec();
            command.extend(words.first().cloned());
            command
        }
        _ => return Err(Error::Kind(test.to_vec())),
    };
    let is_empty = words.first().is_none_or(String::is_empty);
    if is_empty {
        Err(Error::Empty)
    } else {
        Ok(Some(command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image(test: &[&str]) -> Healthcheck {
        Healthcheck {
            test: words(test),
            interval: 7_000_000_000,
            ..Healthcheck::default()
        }
    }

    fn command_line(text: &str) -> Health {
        Health {
            command: Some(text.into()),
            ..Health::default()
        }
    }

    #[test]
    fn an_image_s_check_has_docker_s_defaults() {
        let check = of(
            &Health::default(),
            Some(&image(&["CMD", "/check", "-v"])),
            None,
            None,
        );
        let check = check.unwrap().unwrap();
        assert_eq!(check.command, ["/check", "-v"]);
        assert_eq!((check.interval_ms, check.timeout_ms), (7000, 30_000));
        assert_eq!((check.start_period_ms, check.start_interval_ms), (0, 5000));
        assert_eq!(check.retries, 3);
        let document: serde_json::Value = serde_json::from_str(&check.document).unwrap();
        assert_eq!(document["args"], serde_json::json!(["/check", "-v"]));
    }

    #[test]
    fn a_command_line_is_for_the_image_s_shell() {
        let check = |shell: Option<&[String]>| {
            of(&command_line("a && b"), None, shell, None)
                .unwrap()
                .unwrap()
        };
        assert_eq!(check(None).command, ["/bin/sh", "-c", "a && b"]);
        let bash = words(&["/bin/bash", "-ec"]);
        assert_eq!(check(Some(&bash)).command, ["/bin/bash", "-ec", "a && b"]);
    }

    #[test]
    fn options_change_parts_of_the_image_s_check() {
        let options = Health {
            retries: Some(9),
            timeout_ms: Some(1),
            ..Health::default()
        };
        let check = of(&options, Some(&image(&["CMD-SHELL", "x"])), None, None)
            .unwrap()
            .unwrap();
        assert_eq!(
            (check.retries, check.timeout_ms, check.interval_ms),
            (9, 1, 7000)
        );
        assert!(matches!(
            of(&options, None, None, None),
            Err(Error::NoCommand)
        ));
        assert!(matches!(
            of(&options, Some(&image(&["NONE"])), None, None),
            Err(Error::NoCommand)
        ));
    }

    #[test]
    fn none_is_no_check() {
        let none =
            |options: &Health, image: Option<&Healthcheck>| of(options, image, None, None).unwrap();
        assert_eq!(none(&Health::default(), None), None);
        assert_eq!(none(&Health::default(), Some(&image(&["NONE"]))), None);
        let disabled = Health {
            disabled: true,
            ..Health::default()
        };
        assert_eq!(none(&disabled, Some(&image(&["CMD", "x"]))), None);
        assert_eq!(merge(&disabled, None).unwrap().test, ["NONE"]);
        let both = Health {
            disabled: true,
            ..command_line("x")
        };
        assert!(matches!(of(&both, None, None, None), Err(Error::Disabled)));
    }

    #[test]
    fn a_check_that_cannot_be_executed_is_an_error() {
        let refused =
            |test: &[&str]| of(&Health::default(), Some(&image(test)), None, None).unwrap_err();
        assert!(matches!(refused(&["CMD"]), Error::Empty));
        assert!(matches!(refused(&["CMD-SHELL", ""]), Error::Empty));
        assert!(matches!(refused(&["curl", "x"]), Error::Kind(_)));
    }
}
