use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The reply and the closing of a flight.
fn finished(actions: &[Action]) -> (Flight, Vec<u8>) {
    let [Action::Close(flight), Action::Reply(_, message)] = actions else {
        panic!("an end: {actions:?}");
    };
    (*flight, message.clone())
}

#[test]
fn what_is_not_the_networks_goes_to_the_first_upstream_as_it_came() {
    let mut network = Network::with_upstreams(2);
    for name in ["example.org", "single", "unknown.backend"] {
        let message = with_edns(query(7, name, 99), 4096);
        let (flight, to, transport, sent) = opened(&network.ask(&message));
        assert_eq!((to, transport), (upstream(1), Transport::Udp));
        assert_eq!((u16_at(&sent, 0), &sent[2..]), (0xbeef, &message[2..]));
        // Truncation and whatever else the answer has come back.
        let answer = answer_to(&sent, 0x0200, 300);
        let actions = network.dns.answer(network.now, flight, &answer);
        let (closed, reply) = finished(&actions);
        assert_eq!((closed, u16_at(&reply, 0)), (flight, 7));
        assert_eq!(reply[2..], answer[2..]);
    }
    assert_eq!(network.dns.deadline(), None);
}

#[test]
fn a_connection_is_asked_by_a_connection() {
    let mut network = Network::with_upstreams(1);
    let message = query(7, "example.org", wire::A);
    let client = Client::Tcp(3, host(9));
    let Outcome::Actions(actions) = network.dns.message(network.now, client, &message) else {
        panic!("a query");
    };
    let (flight, _, transport, sent) = opened(&actions);
    assert_eq!(transport, Transport::Tcp);
    let actions = network
        .dns
        .answer(network.now, flight, &answer_to(&sent, 0, 60_000));
    assert_eq!(finished(&actions).1.len(), message.len() + 60_000);
    let silence = network
        .dns
        .message(network.now, client, &answer_to(&message, 0, 0));
    assert_eq!(silence, Outcome::Silence);
}

#[test]
fn without_upstreams_there_is_no_other_name() {
    let mut network = Network::with_upstreams(0);
    assert_eq!(network.look_up("example.org"), Err(3));
}

#[test]
fn an_upstream_that_is_silent_is_followed_by_the_next_and_asked_last_for_a_while() {
    let mut network = Network::with_upstreams(2);
    let message = query(7, "example.org", wire::A);
    let (flight, to, _, _) = opened(&network.ask(&message));
    assert_eq!(to, upstream(1));
    assert_eq!(network.dns.deadline(), Some(network.now + 2 * SECOND));
    assert_eq!(network.dns.expire(network.now + SECOND), []);
    network.now += 2 * SECOND;
    let (same, to, _, sent) = opened(&network.dns.expire(network.now));
    assert_eq!((same, to), (flight, upstream(2)));
    let actions = network
        .dns
        .answer(network.now, flight, &answer_to(&sent, 0, 0));
    finished(&actions);
    let (flight, to, ..) = opened(&network.ask(&message));
    assert_eq!(to, upstream(2));
    // Both are silent: the first counts as alive again by then, or is at least asked.
    network.now += 5 * SECOND;
    let (_, to, ..) = opened(&network.dns.expire(network.now));
    assert_eq!(to, upstream(1));
    network.now += 5 * SECOND;
    let (closed, reply) = finished(&network.dns.expire(network.now));
    assert_eq!((closed, reply[3] & 0xf), (flight, 2));
    assert_eq!(reply[12..], message[12..]);
    network.now += 60 * SECOND;
    let (_, to, ..) = opened(&network.ask(&message));
    assert_eq!(to, upstream(1));
}

#[test]
fn an_upstream_that_answers_others_is_not_dead_for_one_slow_name() {
    let mut network = Network::with_upstreams(2);
    opened(&network.ask(&query(7, "slow.example", wire::A)));
    network.now += SECOND;
    let (quick, _, _, sent) = opened(&network.ask(&query(8, "quick.example", wire::A)));
    finished(
        &network
            .dns
            .answer(network.now, quick, &answer_to(&sent, 0, 0)),
    );
    network.now += SECOND;
    let (_, to, ..) = opened(&network.dns.expire(network.now));
    assert_eq!(to, upstream(2));
    let (_, to, ..) = opened(&network.ask(&query(9, "next.example", wire::A)));
    assert_eq!(to, upstream(1));
}

#[test]
fn a_refusal_is_the_answer_if_no_upstream_has_a_better_one() {
    let mut network = Network::with_upstreams(2);
    let message = query(7, "example.org", wire::A);
    for (second, expected) in [(0, 0), (3, 3), (2, 2), (5, 5)] {
        let (flight, _, _, sent) = opened(&network.ask(&message));
        let actions = network
            .dns
            .answer(network.now, flight, &answer_to(&sent, 5, 0));
        let (_, to, _, sent) = opened(&actions);
        assert_eq!(to, upstream(2));
        let answer = answer_to(&sent, second, 0);
        let (_, reply) = finished(&network.dns.answer(network.now, flight, &answer));
        assert_eq!(u16::from(reply[3] & 0xf), expected);
    }
    let (flight, _, _, sent) = opened(&network.ask(&message));
    opened(
        &network
            .dns
            .answer(network.now, flight, &answer_to(&sent, 5, 0)),
    );
    let (_, reply) = finished(&network.dns.failed(network.now, flight));
    assert_eq!((u16_at(&reply, 0), reply[3] & 0xf), (7, 5));
}

#[test]
fn forged_answers_change_nothing() {
    let mut network = Network::with_upstreams(1);
    let (flight, _, _, sent) = opened(&network.ask(&query(7, "example.org", wire::A)));
    let mut other_id = answer_to(&sent, 0, 0);
    other_id[0] ^= 1;
    let other_name = answer_to(&query(0xbeef, "example.com", wire::A), 0, 0);
    for forged in [&other_id[..], &other_name, &sent, b"", &sent[..13]] {
        assert_eq!(network.dns.answer(network.now, flight, forged), []);
    }
    let answer = answer_to(&sent, 0, 0);
    finished(&network.dns.answer(network.now, flight, &answer));
    assert_eq!(network.dns.answer(network.now, flight, &answer), []);
    assert_eq!(network.dns.failed(network.now, flight), []);
}

#[test]
fn a_client_that_asks_again_is_answered_once() {
    let mut network = Network::with_upstreams(1);
    let message = query(7, "example.org", wire::A);
    opened(&network.ask(&message));
    assert_eq!(network.ask(&message), []);
    opened(&network.ask(&query(8, "example.org", wire::A)));
}

#[test]
fn a_connection_that_is_gone_takes_its_queries_along() {
    let mut network = Network::with_upstreams(1);
    let message = query(7, "example.org", wire::A);
    let client = Client::Tcp(3, host(9));
    let Outcome::Actions(actions) = network.dns.message(network.now, client, &message) else {
        panic!("a query");
    };
    let (flight, ..) = opened(&actions);
    assert_eq!(network.dns.forget(4), []);
    assert_eq!(network.dns.forget(3), [Action::Close(flight)]);
    assert_eq!(network.dns.deadline(), None);
}

#[test]
fn other_classes_are_the_upstreams() {
    let mut network = Network::with_upstreams(1);
    let _web = network.lease(2, &["web"]);
    let mut chaos = query(7, "web", 16);
    let class = chaos.len() - 1;
    chaos[class] = 3;
    opened(&network.ask(&chaos));
}
