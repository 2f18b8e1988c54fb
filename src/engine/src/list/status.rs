//! Docker's STATUS column.

use protocol::record::{HealthStatus, State, Status};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`, `Created`, …
pub fn status_text(state: &State, health: Option<HealthStatus>, now_ns: u64) -> String {
    let since = |ns: u64| duration_text(now_ns.saturating_sub(ns) / NANOS_PER_SEC);
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = match health {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since(state.started_ns))
        }
        Status::Paused => format!("Up {} (Paused)", since(state.started_ns)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            since(state.finished_ns)
        ),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_ns)
        ),
        Status::Dead => "Dead".to_owned(),
    }
}

/// A span as a person says it: `Less than a second`, `About a minute`, `3 hours`.
pub fn duration_text(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        MINUTE..120 => "About a minute".to_owned(),
        120..HOUR => format!("{} minutes", seconds / MINUTE),
        // Hours are rounded, and 46 of them are the most that are not days.
        _ => match (seconds + HOUR / 2) / HOUR {
            1 => "About an hour".to_owned(),
            hours @ ..48 => format!("{hours} hours"),
            hours @ ..336 => format!("{} days", hours / 24),
            hours @ ..1440 => format!("{} weeks", hours / 24 / 7),
            hours @ ..17_520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / DAY / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_in_dockers_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86_400, "2 weeks"),
            (60 * 86_400, "2 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(duration_text(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_state_says_since_when() {
        let now = 100 * NANOS_PER_SEC;
        let state = State {
            status: Status::Running,
            started_ns: 90 * NANOS_PER_SEC,
            finished_ns: 95 * NANOS_PER_SEC,
            exit_code: 3,
            ..State::default()
        };
        let text = |status, health| {
            status_text(
                &State {
                    status,
                    ..state.clone()
                },
                health,
                now,
            )
        };
        assert_eq!(text(Status::Created, None), "Created");
        assert_eq!(text(Status::Running, None), "Up 10 seconds");
        let starting = Some(HealthStatus::Starting);
        assert_eq!(
            text(Status::Running, starting),
            "Up 10 seconds (health: starting)"
        );
        assert_eq!(text(Status::Paused, None), "Up 10 seconds (Paused)");
        assert_eq!(text(Status::Exited, starting), "Exited (3) 5 seconds ago");
        assert_eq!(
            text(Status::Restarting, None),
            "Restarting (3) 5 seconds ago"
        );
    }
}
