//! What is known of a container from what commands have reported: nothing that was reported done may be undone
//! (docs/lifecycle.md, "What is durable when").

use super::plan::{Act, Policy, Victim};

/// Something that is so, is not so, or may be either since a process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
    Unknown,
}

/// What is known of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) exists: Known,
    pub(super) runs: Known,
    pub(super) policy: Policy,
}

/// How an act went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// It reported success.
    pub(super) acknowledged: bool,
    /// A process that was killed.
    pub(super) struck: Option<Victim>,
    /// The kill came after the command had ended.
    pub(super) late: bool,
}

impl Known {
    /// Whether what is seen contradicts it.
    pub(super) fn contradicts(self, seen: bool) -> bool {
        match self {
            Known::Yes => !seen,
            Known::No => seen,
            Known::Unknown => false,
        }
    }
}

impl From<bool> for Known {
    fn from(seen: bool) -> Known {
        match seen {
            true => Known::Yes,
            false => Known::No,
        }
    }
}

impl Belief {
    /// No container yet.
    pub(super) fn absent(policy: Policy) -> Belief {
        Belief {
            exists: Known::No,
            runs: Known::No,
            policy,
        }
    }

    /// Whether an undisturbed command must succeed (or must fail); `None` if either is right.
    pub(super) fn verdict(&self, act: Act) -> Option<bool> {
        let known = |known| match known {
            Known::Yes => Some(true),
            Known::No => Some(false),
            Known::Unknown => None,
        };
        match act {
            Act::Create | Act::Run => known(self.exists).map(|exists| !exists),
            Act::Start | Act::Restart | Act::Stop | Act::Logs => known(self.exists),
            Act::Exec | Act::Kill => known(self.runs),
            Act::Remove => match self.exists {
                Known::Yes => known(self.runs).map(|runs| !runs),
                Known::No => Some(false),
                Known::Unknown => None,
            },
            Act::RemoveByForce => (self.exists == Known::Yes).then_some(true),
            Act::Prune => Some(true),
        }
    }

    /// What is known after an act on this container; `Prune` is one on all.
    pub(super) fn after(mut self, act: Act, done: Done) -> Belief {
        let in_flight = done.struck.is_some() && !done.late;
        if done.acknowledged {
            self.acknowledge(act);
        } else if in_flight {
            self.doubt(act);
        }
        match done.struck {
            None | Some(Victim::Command) => {}
            // What a command starts, or starts again, may have come after the kill.
            Some(_) if in_flight && matches!(act, Act::Run | Act::Start | Act::Restart) => {
                self.runs = Known::Unknown;
            }
            Some(Victim::Warden) => self.runs = Known::No,
            // It was stopped, or the policy applies to its end.
            Some(Victim::Speaker | Victim::Machine) => match self.policy {
                Policy::No => self.runs = Known::No,
                _ if in_flight => self.runs = Known::Unknown,
                _ => {}
            },
        }
        self
    }

    fn acknowledge(&mut self, act: Act) {
        match act {
            Act::Create => (self.exists, self.runs) = (Known::Yes, Known::No),
            Act::Run | Act::Start | Act::Restart => {
                (self.exists, self.runs) = (Known::Yes, Known::Yes);
            }
            // Killed by its user: no policy applies.
            Act::Stop | Act::Kill => self.runs = Known::No,
            Act::Remove | Act::RemoveByForce => (self.exists, self.runs) = (Known::No, Known::No),
            Act::Prune if self.runs == Known::No => self.exists = Known::No,
            Act::Prune if self.runs == Known::Unknown => self.exists = Known::Unknown,
            Act::Exec | Act::Logs | Act::Prune => {}
        }
    }

    /// A command was killed, or lost its monitor: it may have done all, a part, or nothing of its work.
    fn doubt(&mut self, act: Act) {
        match act {
            Act::Create => self.exists = Known::Unknown,
            Act::Run => (self.exists, self.runs) = (Known::Unknown, Known::Unknown),
            Act::Start | Act::Restart | Act::Stop | Act::Kill => self.runs = Known::Unknown,
            Act::Remove => self.exists = Known::Unknown,
            Act::RemoveByForce => (self.exists, self.runs) = (Known::Unknown, Known::Unknown),
            Act::Prune if self.runs != Known::Yes => self.exists = Known::Unknown,
            Act::Exec | Act::Logs | Act::Prune => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Belief = Belief {
        exists: Known::Yes,
        runs: Known::Yes,
        policy: Policy::Always,
    };

    fn done(acknowledged: bool, struck: Option<Victim>, late: bool) -> Done {
        Done {
            acknowledged,
            struck,
            late,
        }
    }

    #[test]
    fn what_was_acknowledged_is_known_and_what_was_killed_is_not() {
        let absent = Belief::absent(Policy::No);
        let created = absent.after(Act::Create, done(true, None, false));
        assert_eq!((created.exists, created.runs), (Known::Yes, Known::No));
        let perhaps = absent.after(Act::Run, done(false, Some(Victim::Command), false));
        assert_eq!(
            (perhaps.exists, perhaps.runs),
            (Known::Unknown, Known::Unknown)
        );
        let stopped = RUNNING.after(Act::Stop, done(true, None, false));
        assert_eq!(stopped.runs, Known::No);
    }

    #[test]
    fn a_killed_warden_ends_a_container_and_a_killed_machine_its_policy_brings_back() {
        let after = |victim| {
            RUNNING
                .after(Act::Exec, done(true, Some(victim), true))
                .runs
        };
        assert_eq!(after(Victim::Warden), Known::No);
        assert_eq!(after(Victim::Machine), Known::Yes);
        assert_eq!(after(Victim::Command), Known::Yes);
    }

    #[test]
    fn a_command_that_nothing_disturbed_has_one_right_answer() {
        assert_eq!(RUNNING.verdict(Act::Remove), Some(false));
        assert_eq!(RUNNING.verdict(Act::Exec), Some(true));
        let absent = Belief::absent(Policy::No);
        assert_eq!(absent.verdict(Act::Start), Some(false));
        assert_eq!(absent.verdict(Act::Create), Some(true));
    }
}
