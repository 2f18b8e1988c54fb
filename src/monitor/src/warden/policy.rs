//! What a restart policy decides: plain functions over the record.

use std::time::Duration;

use protocol::agent::ExitStatus;
use protocol::record::{RestartPolicy, State};

/// The first pause before a restart; each further one is twice as long. Docker's figures, as are those below.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A container that ran so long begins with the first pause again.
const SETTLED: Duration = Duration::from_secs(10);

/// The pause before a container's next restart.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff(Option<Duration>);

impl Backoff {
    /// The next pause, after a run of this length.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        let pause = match self.0 {
            Some(last) if ran < SETTLED => (last * 2).min(MAX_BACKOFF),
            _ => FIRST_BACKOFF,
        };
        self.0 = Some(pause);
        pause
    }

    /// The pause that was decided last.
    pub(super) fn current(self) -> Duration {
        self.0.unwrap_or_default()
    }
}

/// Whether a container that ended with this status is started again. `state` is as it was before the end.
pub(super) fn restarts(policy: RestartPolicy, state: &State, status: ExitStatus) -> bool {
    if state.stopped_by_user {
        return false;
    }
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max_retries } => {
            status.code() != 0 && (max_retries == 0 || state.restarts < max_retries)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(restarts: u32, stopped_by_user: bool) -> State {
        State {
            restarts,
            stopped_by_user,
            ..State::default()
        }
    }

    #[test]
    fn a_policy_decides_by_code_count_and_user() {
        let ok = ExitStatus::Code(0);
        let killed = ExitStatus::Signal(9);
        let three = RestartPolicy::OnFailure { max_retries: 3 };
        let any = RestartPolicy::OnFailure { max_retries: 0 };
        assert!(!restarts(RestartPolicy::No, &state(0, false), killed));
        assert!(restarts(RestartPolicy::Always, &state(9, false), ok));
        assert!(restarts(RestartPolicy::UnlessStopped, &state(9, false), ok));
        assert!(!restarts(three, &state(0, false), ok));
        assert!(restarts(three, &state(2, false), killed));
        assert!(!restarts(three, &state(3, false), killed));
        assert!(restarts(any, &state(1000, false), killed));
        for policy in [RestartPolicy::Always, RestartPolicy::UnlessStopped, any] {
            assert!(!restarts(policy, &state(0, true), killed), "{policy:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_after_a_good_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next(short).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(backoff.next(SETTLED), FIRST_BACKOFF);
        assert_eq!(backoff.next(short), FIRST_BACKOFF * 2);
    }
}
