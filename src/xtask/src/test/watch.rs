//! Detecting from outside that a test or its host hangs: a host whose kernel is stuck cannot report anything.
//!
//! Three things are looked at while a test runs: how long it has run, when the host's server was last heard (it answers
//! a beat every [`crate::host::wire::BEAT`]), and what the host's kernel prints on its console.

use std::fmt;
use std::time::Duration;

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A test may take this long at least,
    pub(crate) least: Duration,
    /// at most this long,
    pub(crate) most: Duration,
    /// and in between this many times as long as it is known to take.
    pub(crate) factor: u32,
    /// A server that has not answered for this long is taken for dead.
    pub(crate) silence: Duration,
}

impl Limits {
    /// For emulated machines on a machine that may be busy with other work.
    pub(crate) const USUAL: Limits = Limits {
        least: Duration::from_secs(5 * 60),
        most: Duration::from_secs(20 * 60),
        factor: 6,
        silence: Duration::from_secs(2 * 60),
    };

    /// How long a test may take that is `known` to take so long.
    pub(crate) fn of(&self, known: Duration) -> Duration {
        (known * self.factor).clamp(self.least, self.most)
    }
}

/// A soft lockup that is shorter can be the emulator waiting for a processor of a busy machine.
const LOCKUP_SECONDS: u64 = 60;

/// Messages of a kernel that cannot be relied on any more.
const FATAL: [&str; 6] = [
    "Kernel panic",
    "Oops:",
    "BUG: unable to handle",
    "kernel BUG at",
    "blocked for more than",
    "self-detected stall",
];

/// Why a test was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hang {
    /// It took too long.
    OverTime(Duration),
    /// The host's server was silent for so long.
    Silent(Duration),
    /// The host's kernel printed this.
    Kernel(String),
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hang::OverTime(limit) => write!(f, "no result within {} s", limit.as_secs()),
            Hang::Silent(silence) => {
                write!(f, "the test host was silent for {} s", silence.as_secs())
            }
            Hang::Kernel(line) => write!(f, "the test host's kernel says: {line}"),
        }
    }
}

/// What is known of a running test at one moment.
#[derive(Debug, Default)]
pub(crate) struct Sight<'a> {
    /// How long it has run.
    pub(crate) ran: Duration,
    /// How long ago the host's server was heard; zero without a host.
    pub(crate) silence: Duration,
    /// Hosts beside it are silent, too: that is the machine, which may go on.
    pub(crate) all_silent: bool,
    /// New lines of the host's console.
    pub(crate) console: &'a [String],
}

/// Why a test that may take `limit` is to be given up now, if it is. The kernel's own words come first.
pub(crate) fn hang(sight: &Sight<'_>, limit: Duration, limits: &Limits) -> Option<Hang> {
    if let Some(line) = sight.console.iter().find(|line| is_fatal(line)) {
        return Some(Hang::Kernel(line.trim().to_owned()));
    }
    if sight.silence > limits.silence && !sight.all_silent {
        return Some(Hang::Silent(sight.silence));
    }
    (sight.ran > limit).then_some(Hang::OverTime(limit))
}

/// Whether a line of a kernel's console says that the kernel hangs or is broken.
fn is_fatal(line: &str) -> bool {
    let stuck = line
        .contains("soft lockup")
        .then(|| line.split_once("stuck for ")?.1.split('s').next())
        .flatten()
        .and_then(|seconds| seconds.parse::<u64>().ok());
    stuck.is_some_and(|seconds| seconds >= LOCKUP_SECONDS)
        || FATAL.iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ran: u64, silence: u64, console: &[&str]) -> Option<Hang> {
        let console: Vec<String> = console.iter().map(|line| (*line).to_owned()).collect();
        let sight = Sight {
            ran: Duration::from_secs(ran),
            silence: Duration::from_secs(silence),
            all_silent: false,
            console: &console,
        };
        hang(
            &sight,
            Limits::USUAL.of(Duration::from_secs(10)),
            &Limits::USUAL,
        )
    }

    #[test]
    fn a_test_that_makes_progress_goes_on() {
        let console = ["tun: Universal TUN/TAP device driver, 1.6"];
        assert_eq!(seen(299, 119, &console), None);
    }

    #[test]
    fn a_test_over_its_limit_is_given_up() {
        let limit = Duration::from_secs(300);
        assert_eq!(seen(301, 0, &[]), Some(Hang::OverTime(limit)));
        let usual = Limits::USUAL;
        assert_eq!(usual.of(Duration::from_secs(100)), Duration::from_secs(600));
        assert_eq!(usual.of(Duration::from_secs(9999)), usual.most);
    }

    #[test]
    fn hosts_that_are_silent_together_are_given_up_when_their_tests_are_over_their_limits() {
        let limit = Duration::from_secs(300);
        let seen = |ran| {
            let sight = Sight {
                ran: Duration::from_secs(ran),
                silence: Duration::from_secs(200),
                all_silent: true,
                console: &[],
            };
            hang(&sight, limit, &Limits::USUAL)
        };
        assert_eq!(seen(299), None);
        assert_eq!(seen(301), Some(Hang::OverTime(limit)));
    }

    #[test]
    fn a_silent_host_is_given_up_before_the_test_is_over_its_limit() {
        let silence = Duration::from_secs(121);
        assert_eq!(seen(130, 121, &[]), Some(Hang::Silent(silence)));
    }

    #[test]
    fn a_kernel_that_is_stuck_or_broken_is_given_up_at_once() {
        for line in [
            "[  812.3] watchdog: BUG: soft lockup - CPU#0 stuck for 332s! [save0:9871]",
            "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
            "[  363.1] INFO: task cp:812 blocked for more than 120 seconds.",
            "[   10.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
        ] {
            assert_eq!(seen(1, 0, &[line]), Some(Hang::Kernel(line.to_owned())));
        }
        let short = "watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [hull-vmm:1]";
        assert_eq!(seen(1, 0, &[short]), None);
    }
}
