use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A client's query number `id`.
fn ask(network: &mut Network, last: u8, id: u16) -> Vec<Action> {
    let message = query(id, "example.org", wire::A);
    network
        .dns
        .datagram(network.now, client(last, id), &message)
}

#[test]
fn a_flood_of_one_client_ends_at_its_share() {
    let mut network = Network::with_upstreams(1);
    for id in 0..forward::MAX_PER_CLIENT as u16 {
        opened(&ask(&mut network, 2, id));
    }
    let reply = reply(ask(&mut network, 2, 1000));
    assert_eq!((u16_at(&reply, 0), reply[3] & 0xf), (1000, 2));
    opened(&ask(&mut network, 3, 1));
}

#[test]
fn when_all_places_are_taken_others_get_those_of_the_greediest() {
    let mut network = Network::with_upstreams(1);
    for last in 2..6 {
        for id in 0..forward::MAX_PER_CLIENT as u16 {
            opened(&ask(&mut network, last, id));
        }
    }
    for id in 0..100 {
        let actions = ask(&mut network, 9, id);
        let [
            Action::Close(_),
            Action::Reply(Client::Udp(victim), refusal),
            Action::Open { .. },
        ] = &actions[..]
        else {
            panic!("a place is made: {actions:?}");
        };
        assert!((2..6).contains(&victim.ip().octets()[3]));
        assert_eq!(refusal[3] & 0xf, 2);
    }
    // One of the greedy, with a place of its own free, does not get another greedy one's.
    let refusal = reply(ask(&mut network, 2, 2000));
    assert_eq!(refusal[3] & 0xf, 2);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, u16, bool),
    Answer(usize, u16),
    Fail(usize),
    Wait(u64),
    Forget(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (2u8..7, 0u16..400, any::<bool>()).prop_map(|(a, b, c)| Step::Ask(a, b, c)),
        3 => (any::<usize>(), 0u16..6).prop_map(|(a, b)| Step::Answer(a, b)),
        1 => any::<usize>().prop_map(Step::Fail),
        1 => (0u64..3000).prop_map(Step::Wait),
        1 => (0u64..40).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..200)
}

/// What the loop would know: the flights with a socket, and the clients that wait.
#[derive(Default)]
struct World {
    open: BTreeMap<Flight, Vec<u8>>,
    waiting: BTreeSet<(String, u16)>,
}

impl World {
    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open {
                    flight, message, ..
                } => drop(self.open.insert(flight, message)),
                Action::Close(flight) => {
                    assert!(self.open.remove(&flight).is_some(), "closed twice");
                }
                Action::Reply(client, message) => {
                    let id = u16_at(&message, 0);
                    let waited = self.waiting.remove(&(format!("{client:?}"), id));
                    assert!(waited, "answered without a query");
                }
            }
        }
    }

    fn nth(&self, number: usize) -> Option<(Flight, Vec<u8>)> {
        let count = self.open.len().max(1);
        let (flight, message) = self.open.iter().nth(number % count)?;
        Some((*flight, message.clone()))
    }
}

proptest! {
    /// Every query is answered once, in any order of events; nothing is held for one that has been.
    #[test]
    fn every_query_is_answered_once(steps in steps(), upstreams in 1u8..4) {
        let mut network = Network::with_upstreams(upstreams);
        let mut world = World::default();
        for step in steps {
            let actions = match step {
                Step::Ask(last, id, by_udp) => {
                    let client = match by_udp {
                        true => Client::Udp(client(last, 5)),
                        false => Client::Tcp(u64::from(id) % 40, host(last)),
                    };
                    world.waiting.insert((format!("{client:?}"), id));
                    let message = query(id, "example.org", wire::A);
                    match network.dns.message(network.now, client, &message) {
                        Outcome::Actions(actions) => actions,
                        Outcome::Silence => panic!("a query"),
                    }
                }
                Step::Answer(number, rcode) => match world.nth(number) {
                    Some((flight, sent)) => {
                        network.dns.answer(network.now, flight, &answer_to(&sent, rcode, 0))
                    }
                    None => continue,
                },
                Step::Fail(number) => match world.nth(number) {
                    Some((flight, _)) => network.dns.failed(network.now, flight),
                    None => continue,
                },
                Step::Wait(ms) => {
                    network.now += Duration::from_millis(ms);
                    network.dns.expire(network.now)
                }
                Step::Forget(connection) => {
                    let prefix = format!("Tcp({connection}, ");
                    world.waiting.retain(|(client, _)| !client.starts_with(&prefix));
                    network.dns.forget(connection)
                }
            };
            world.act(actions);
            prop_assert_eq!(network.dns.deadline().is_some(), !world.open.is_empty());
        }
        while let Some(deadline) = network.dns.deadline() {
            network.now = deadline;
            let actions = network.dns.expire(deadline);
            prop_assert!(!actions.is_empty());
            world.act(actions);
        }
        prop_assert!(world.open.is_empty() && world.waiting.is_empty());
    }
}
