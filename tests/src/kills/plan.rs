//! What a round does and which process it kills when: all of it follows from the seed and the round's number.

use std::fmt;

/// Acts of a round after each container has been made.
const ACTS: usize = 6;
/// Of 100 acts, so many are disturbed by a kill.
const KILLS_PERCENT: u64 = 70;

/// What is done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Create,
    Run,
    Start,
    Exec,
    Logs,
    Stop,
    Kill,
    Restart,
    Remove,
    RemoveByForce,
    Prune,
}

/// Which process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// `hull` itself.
    Command,
    /// The monitor's process that has rights.
    Warden,
    /// The monitor's process that talks to the guest.
    Speaker,
    /// hull-vmm, or hull-native.
    Machine,
}

/// A kill: after this share of the time that the act takes undisturbed. From 1000 on the act is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blow {
    pub(super) victim: Victim,
    pub(super) at_permille: u32,
}

/// An act on the container of this index, and a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) act: Act,
    pub(super) container: usize,
    pub(super) blow: Option<Blow>,
}

/// A container's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

/// A round: it begins and ends without a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) policies: [Policy; 2],
    pub(super) steps: Vec<Step>,
}

/// Numbers that follow from a seed (xorshift64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, round: u64) -> Random {
        let mut random = Random((seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        // The first numbers of seeds that are close are close.
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// What a container would be if nothing was killed: acts are chosen by it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Absent,
    Stopped,
    Running,
}

impl Plan {
    /// The plan of a round.
    pub(super) fn new(seed: u64, round: u64) -> Plan {
        let mut random = Random::new(seed, round);
        let any = [
            Policy::No,
            Policy::OnFailure,
            Policy::Always,
            Policy::UnlessStopped,
        ];
        let policies = [Policy::No, random.of(&any)];
        let mut expected = [Expected::Absent; 2];
        let containers = [0, 1].into_iter();
        let more: Vec<usize> = (0..ACTS).map(|_| random.below(2) as usize).collect();
        let steps = containers
            .chain(more)
            .map(|container| {
                let act = choose(&mut random, expected[container]);
                expect(&mut expected, container, act);
                let blow = (random.below(100) < KILLS_PERCENT).then(|| blow(&mut random, act));
                Step {
                    act,
                    container,
                    blow,
                }
            })
            .collect();
        Plan { policies, steps }
    }

    /// The same without kills and with every act, to learn how long they take.
    pub(super) fn undisturbed() -> Plan {
        use Act::{
            Create, Exec, Kill, Logs, Prune, Remove, RemoveByForce, Restart, Run, Start, Stop,
        };
        let first = [
            Create, Start, Exec, Logs, Restart, Stop, Start, Kill, Remove,
        ];
        let second = [Run, Stop, Prune, Run, RemoveByForce];
        let steps = |container: usize, acts: &[Act]| -> Vec<Step> {
            let step = |act: &Act| Step {
                act: *act,
                container,
                blow: None,
            };
            acts.iter().map(step).collect()
        };
        Plan {
            policies: [Policy::No; 2],
            steps: [steps(0, &first), steps(1, &second)].concat(),
        }
    }
}

fn choose(random: &mut Random, expected: Expected) -> Act {
    match expected {
        Expected::Absent => random.of(&[Act::Create, Act::Run, Act::Run]),
        Expected::Stopped => {
            random.of(&[Act::Start, Act::Start, Act::Logs, Act::Remove, Act::Prune])
        }
        Expected::Running => random.of(&[
            Act::Exec,
            Act::Exec,
            Act::Exec,
            Act::Logs,
            Act::Stop,
            Act::Stop,
            Act::Kill,
            Act::Restart,
            Act::RemoveByForce,
        ]),
    }
}

fn expect(expected: &mut [Expected; 2], container: usize, act: Act) {
    match act {
        Act::Create | Act::Stop | Act::Kill => expected[container] = Expected::Stopped,
        Act::Run | Act::Start | Act::Restart => expected[container] = Expected::Running,
        Act::Remove | Act::RemoveByForce => expected[container] = Expected::Absent,
        Act::Exec | Act::Logs => {}
        Act::Prune => {
            for one in expected {
                if *one == Expected::Stopped {
                    *one = Expected::Absent;
                }
            }
        }
    }
}

fn blow(random: &mut Random, act: Act) -> Blow {
    let victim = match act {
        // Nothing else takes part.
        Act::Create | Act::Remove | Act::Prune => Victim::Command,
        _ => random.of(&[
            Victim::Command,
            Victim::Command,
            Victim::Warden,
            Victim::Speaker,
            Victim::Machine,
        ]),
    };
    let latest = match victim {
        Victim::Command => 1000,
        // Some are killed when nothing is asked of them.
        Victim::Warden | Victim::Speaker | Victim::Machine => 1300,
    };
    Blow {
        victim,
        at_permille: random.below(latest) as u32,
    }
}

impl Policy {
    /// As it is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Policy::No => "no",
            Policy::OnFailure => "on-failure",
            Policy::Always => "always",
            Policy::UnlessStopped => "unless-stopped",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of container {}", self.act, self.container)?;
        match self.blow {
            None => Ok(()),
            Some(Blow {
                victim,
                at_permille,
            }) => {
                write!(f, ", {victim:?} killed at {at_permille} of 1000")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_number() {
        assert_eq!(Plan::new(7, 3), Plan::new(7, 3));
        assert_ne!(Plan::new(7, 3), Plan::new(7, 4));
        assert_ne!(Plan::new(7, 3), Plan::new(8, 3));
    }

    #[test]
    fn every_act_and_every_victim_comes_up() {
        let steps: Vec<Step> = (0..100)
            .flat_map(|round| Plan::new(1, round).steps)
            .collect();
        for step in &Plan::undisturbed().steps {
            assert!(steps.iter().any(|other| other.act == step.act), "{step}");
        }
        let killed = |victim| {
            let of = |step: &&Step| step.blow.is_some_and(|blow| blow.victim == victim);
            steps.iter().filter(of).count()
        };
        for victim in [
            Victim::Command,
            Victim::Warden,
            Victim::Speaker,
            Victim::Machine,
        ] {
            assert!(killed(victim) > 50, "{victim:?}: {}", killed(victim));
        }
    }
}
