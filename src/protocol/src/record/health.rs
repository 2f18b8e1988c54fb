//! How a container's health is checked, and what the checks have found.

use serde::{Deserialize, Serialize};

/// How a container's health is checked: Docker's HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments, to be executed in the container. (`CMD-SHELL` is resolved by the engine.)
    pub command: Vec<String>,
    /// An OCI `process` document template for it: environment, working directory, capabilities.
    pub document: Box<str>,
    /// From one check's end to the next check.
    pub interval_ms: u64,
    /// A check that takes longer has failed.
    pub timeout_ms: u64,
    /// Failures in this time from the start do not count.
    pub start_period_ms: u64,
    /// Interval during the start period.
    pub start_interval_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// What the checks of a container's health have found: written by the speaker, so as hostile as a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What they say together.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five.
    pub log: Vec<HealthResult>,
}

/// Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// No check has succeeded yet, and none has failed that counts.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// As many checks as `retries` have failed in a row.
    Unhealthy,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    /// The command's code; -1 if it took too long or could not be executed.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote.
    pub output: String,
}
