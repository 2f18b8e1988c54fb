//! What Docker adds to an image's configuration: members of `config` that the OCI image specification lacks, as Docker
//! Engine's API describes them (definition `ImageConfig`).
//!
//! They are read leniently: a member that is not as Docker writes it counts as absent, since OCI images may use the
//! name for something else.

use serde::{Deserialize, Serialize};

/// Docker's members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerConfig {
    /// HEALTHCHECK.
    pub healthcheck: Option<Healthcheck>,
    /// SHELL: what executes a command line. `None` is `/bin/sh -c`.
    pub shell: Option<Vec<String>>,
}

/// HEALTHCHECK of a Dockerfile. What is 0 or empty is inherited or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `NONE`; `CMD` and a command's words; or `CMD-SHELL` and a command line.
    pub test: Vec<String>,
    /// Nanoseconds from one check's end to the next check.
    pub interval: u64,
    /// Nanoseconds after which a check has failed.
    pub timeout: u64,
    /// Nanoseconds from the start in which failures do not count.
    pub start_period: u64,
    /// Nanoseconds between checks during the start period.
    pub start_interval: u64,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
}

impl DockerConfig {
    /// Reads them from an image's configuration.
    pub(crate) fn of(configuration: &[u8]) -> DockerConfig {
        let member = |name: &str| {
            let document: serde_json::Value = serde_json::from_slice(configuration).ok()?;
            Some(document.get("config")?.get(name)?.clone()).filter(|value| !value.is_null())
        };
        DockerConfig {
            healthcheck: member("Healthcheck").and_then(|value| read("Healthcheck", value)),
            shell: member("Shell").and_then(|value| read("Shell", value)),
        }
    }
}

/// A duration as Go writes it, in nanoseconds: numbers, perhaps with decimals, and their units, as in `1m30.5s`; without a
/// unit only `0`.
pub fn duration_ns(text: &str) -> Option<i128> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    let mut rest = unsigned;
    let mut total_ns: i128 = 0;
    loop {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        // Go's unit is all up to the next number, so `m` is not the beginning of `ms`.
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let (_, unit_ns) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total_ns =
            total_ns.checked_add(billionths(number)?.checked_mul(*unit_ns)? / 1_000_000_000)?;
        rest = after;
        if rest.is_empty() {
            return Some(if text.starts_with('-') {
                -total_ns
            } else {
                total_ns
            });
        }
    }
}

/// A decimal number in billionths; further digits are cut off.
fn billionths(text: &str) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    format!("{whole}{fraction}").parse().ok()
}

fn read<T: serde::de::DeserializeOwned>(name: &str, value: serde_json::Value) -> Option<T> {
    match serde_json::from_value(value) {
        Ok(member) => Some(member),
        Err(error) => {
            tracing::warn!(%error, name, "a member of an image's configuration is not as Docker writes it");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_read_as_docker_writes_it() {
        let config = DockerConfig::of(
            br#"{"config": {"Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 5000000000,
                "Retries": 2}, "Shell": ["/bin/bash", "-c"]}}"#,
        );
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!((check.interval, check.retries), (5_000_000_000, 2));
        assert_eq!(check.timeout, 0);
        assert_eq!(config.shell.unwrap(), ["/bin/bash", "-c"]);
    }

    #[test]
    fn durations_have_units() {
        for (text, ns) in [
            ("1m30.5s", 90_500_000_000),
            ("-1.5h", -5_400_000_000_000),
            ("+.25us", 250),
            ("1.0000000019s", 1_000_000_001),
            ("0", 0),
            ("-0", 0),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "-", "5", ".s", "1", "1s0", "1x", "1.2.3s", "s", "1e3s"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_not_docker_s_counts_as_absent() {
        for text in [
            &br#"{}"#[..],
            br#"{"config": null}"#,
            br#"{"config": {"Healthcheck": null, "Shell": "sh"}}"#,
            br#"{"config": {"Healthcheck": {"Test": "x"}}}"#,
            br#"{"config": {"Healthcheck": {"Interval": -1}}}"#,
            b"not JSON",
        ] {
            assert_eq!(DockerConfig::of(text), DockerConfig::default());
        }
    }
}
