//! The health check.

use clap::Args;
use engine::options::Health;

use super::container::given;
use values::{OrDefault, or_default, value};

/// Changes to the image's HEALTHCHECK.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Command line that checks the container's health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between checks [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = or_default(values::duration))]
    health_interval: Option<OrDefault<u64>>,
    /// Time that a check may take [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = or_default(values::duration))]
    health_timeout: Option<OrDefault<u64>>,
    /// Failures in a row that make it unhealthy [default: 3]
    #[arg(long, value_name = "COUNT", value_parser = or_default(values::small_count))]
    health_retries: Option<OrDefault<u32>>,
    /// Time from the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = or_default(values::duration))]
    health_start_period: Option<OrDefault<u64>>,
    /// Time between checks in that time [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = or_default(values::duration))]
    health_start_interval: Option<OrDefault<u64>>,
    /// No check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    pub(super) fn options(self) -> Health {
        Health {
            disabled: self.no_healthcheck,
            command: given(self.health_cmd),
            words: Vec::new(),
            interval_ms: value(self.health_interval),
            timeout_ms: value(self.health_timeout),
            start_period_ms: value(self.health_start_period),
            start_interval_ms: value(self.health_start_interval),
            retries: value(self.health_retries),
        }
    }
}
