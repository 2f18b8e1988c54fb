//! Leases against a set: no address is had twice, none is lost, and stale ones are found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use protocol::subnet::Subnet;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// A sandbox starts.
    Take,
    /// One of those that live ends in good order.
    Forget(usize),
    /// One of them dies.
    Die(usize),
    /// The next process sweeps.
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => Just(Step::Take),
        2 => any::<usize>().prop_map(Step::Forget),
        2 => any::<usize>().prop_map(Step::Die),
        1 => Just(Step::Sweep),
    ]
}

/// Addresses and their holders: `None` is dead.
type Model = BTreeMap<Ipv4Addr, Option<String>>;

/// The address that comes next when they go round.
fn next(state: &State, model: &Model, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let free: Vec<_> = state
        .addresses()
        .filter(|address| !model.contains_key(address))
        .collect();
    let after = free.iter().find(|&&address| Some(address) > last);
    after.or(free.first()).copied()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leases_are_what_a_set_says(
        prefix_len in 27..=30u8,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        let leases = Leases::new(dir.path());
        let network = Ipv4Addr::new(10, 213, 7, 0);
        let state = State::of(Subnet { network, prefix_len });
        let (mut model, mut last) = (Model::new(), None);
        let mut held: Vec<Held> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Step::Take => {
                    let port = format!("hull{number}");
                    let taken = leases.take(&state, &port, &[], None);
                    match next(&state, &model, last) {
                        Some(address) => {
                            let taken = taken.unwrap();
                            prop_assert_eq!(taken.address(), address);
                            prop_assert!(state.subnet.contains(address) && address != state.gateway());
                            model.insert(address, Some(port));
                            last = Some(address);
                            held.push(taken);
                        }
                        None => prop_assert!(matches!(taken, Err(Error::NoFreeAddress(_)))),
                    }
                }
                Step::Forget(which) if !held.is_empty() => {
                    let gone = held.swap_remove(which % held.len());
                    model.remove(&gone.address());
                    gone.forget().unwrap();
                }
                Step::Die(which) if !held.is_empty() => {
                    let gone = held.swap_remove(which % held.len());
                    model.insert(gone.address(), None);
                }
                Step::Sweep => {
                    let mut dead: Vec<_> = leases.dead().unwrap();
                    dead.sort_by_key(Held::address);
                    let found: Vec<_> = dead.iter().map(Held::address).collect();
                    let expected: Vec<_> = model
                        .iter()
                        .filter(|(_, port)| port.is_none())
                        .map(|(&address, _)| address)
                        .collect();
                    prop_assert_eq!(found, expected);
                    for held in dead {
                        model.remove(&held.address());
                        held.forget().unwrap();
                    }
                }
                Step::Forget(_) | Step::Die(_) => {}
            }
            prop_assert_eq!(leases.count().unwrap(), model.len());
            for held in &held {
                prop_assert_eq!(model[&held.address()].as_deref(), Some(held.port()));
            }
        }
    }
}
