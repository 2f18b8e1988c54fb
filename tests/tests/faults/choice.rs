//! Which calls of a command are disturbed.

use std::env;

use tests::inject::{Effect, Fault};

use super::Case;
use super::ground::Outcome;
use super::kinds::{KINDS, Kind};

/// Places that the full sweep visits one by one, for each kind and effect.
const ALL_UP_TO: u64 = 40;

/// Chooses places: all of few, some of many, the same for the same seed.
pub(crate) struct Choice {
    setting: String,
    state: u64,
}

impl Choice {
    pub(crate) fn new() -> Choice {
        let setting = env::var("HULL_FAULTS").unwrap_or_default();
        Choice {
            state: setting.parse().unwrap_or(1),
            setting,
        }
    }

    /// What to disturb in a command that makes such calls when nothing is wrong.
    pub(crate) fn faults(
        &mut self,
        case: &Case,
        quiet: &Outcome,
        most: usize,
    ) -> Vec<(&'static Kind, Fault)> {
        let mut all = Vec::new();
        for program in case.programs {
            let counts = quiet.traced.calls.get(*program);
            for kind in &KINDS {
                let counts = kind.calls.iter().filter_map(|call| counts?.get(call));
                let count = counts.sum::<u64>();
                for &effect in kind.effects {
                    for nth in self.places(program, kind, count, effect) {
                        let fault = Fault {
                            program: (*program).to_owned(),
                            calls: kind.calls.to_vec(),
                            nth,
                            effect,
                        };
                        all.push((kind, fault));
                    }
                }
            }
        }
        while self.setting != "full" && all.len() > most {
            let one = self.below(all.len() as u64);
            all.remove(one as usize);
        }
        all
    }

    fn places(&mut self, program: &str, kind: &Kind, count: u64, effect: Effect) -> Vec<u64> {
        if count == 0 {
            return Vec::new();
        }
        if let [of, name, nth] = self.setting.split(' ').collect::<Vec<_>>()[..] {
            let chosen = nth
                .parse()
                .ok()
                .filter(|_| of == program && name == kind.name);
            return chosen.into_iter().collect();
        }
        let full = self.setting == "full";
        let mut places: Vec<u64> = match (full, effect) {
            // From the first on, all are short.
            (_, Effect::Short(_)) => vec![1],
            (true, _) => (1..=count.min(ALL_UP_TO)).collect(),
            (false, _) => vec![self.below(count) + 1],
        };
        if full && count > ALL_UP_TO && !matches!(effect, Effect::Short(_)) {
            places.extend((0..ALL_UP_TO).map(|_| self.below(count) + 1));
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// A number below `bound` (xorshift64*).
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}
