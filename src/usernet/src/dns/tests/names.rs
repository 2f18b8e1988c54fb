use super::*;

#[test]
fn containers_are_found_by_every_name_and_in_the_networks_domain() {
    let mut network = Network::with_upstreams(0);
    let _web = network.lease(2, &["web", "0123456789ab", "www"]);
    for name in [
        "web",
        "WEB",
        "0123456789ab",
        "www",
        "web.backend",
        "Www.BackEnd",
    ] {
        assert_eq!(network.look_up(name), Ok(vec![2]), "{name}");
    }
    for name in ["hullport", "we", "web.other", "web.backend.x", "x.web"] {
        assert_eq!(network.look_up(name), Err(3), "{name}");
    }
}

#[test]
fn several_holders_of_an_alias_have_their_turns() {
    let mut network = Network::with_upstreams(0);
    let mut held: Vec<_> = (2..5)
        .map(|last| network.lease(last, &[&format!("web-{last}"), "web"]))
        .collect();
    let answers: Vec<_> = (0..4).map(|_| network.look_up("web").unwrap()).collect();
    assert_eq!(answers, [[2, 3, 4], [3, 4, 2], [4, 2, 3], [2, 3, 4]]);
    // The middle one dies without a word.
    drop(held.remove(1));
    assert_eq!(network.look_up("web-3"), Err(3));
    assert_eq!(network.look_up("web"), Ok(vec![4, 2]));
}

#[test]
fn the_dead_and_the_removed_are_not_answered() {
    let mut network = Network::with_upstreams(0);
    let web = network.lease(2, &["web"]);
    let db = network.lease(3, &["db"]);
    assert_eq!(network.look_up("web"), Ok(vec![2]));
    drop(web);
    assert_eq!(network.look_up("web"), Err(3));
    assert_eq!(network.look_up("db"), Ok(vec![3]));
    fs::remove_file(network.folder.path().join("10.213.0.3")).unwrap();
    assert_eq!(network.look_up("db"), Err(3));
    drop(db);
    // A container that has another name from now on.
    let _new = network.lease(3, &["new"]);
    assert_eq!(
        (network.look_up("db"), network.look_up("new")),
        (Err(3), Ok(vec![3]))
    );
}

#[test]
fn the_host_is_the_gateway() {
    let mut network = Network::with_upstreams(0);
    for name in ["host.docker.internal", "Host.Hull.Internal"] {
        assert_eq!(network.look_up(name), Ok(vec![1]), "{name}");
    }
    assert_eq!(network.look_up("docker.internal"), Err(3));
}

#[test]
fn other_records_of_a_known_name_are_none_and_not_an_unknown_name() {
    let mut network = Network::with_upstreams(1);
    let _web = network.lease(2, &["web"]);
    // AAAA, MX, HTTPS.
    for kind in [28, 15, 65] {
        let reply = network.reply(&query(1, "web", kind));
        assert_eq!((u16_at(&reply, 2), u16_at(&reply, 6)), (0x8580, 0));
    }
    let any = query(1, "web", wire::ANY);
    let reply = network.reply(&any);
    assert_eq!(addresses(&reply, any.len() - 12), [host(2)]);
}

#[test]
fn addresses_have_names_and_those_of_the_subnet_are_no_one_elses() {
    let mut network = Network::with_upstreams(1);
    let _web = network.lease(2, &["web", "0123456789ab"]);
    let mut pointer = |name: &str| {
        let message = query(1, name, wire::PTR);
        let reply = network.reply(&message);
        let data = reply[message.len()..].get(12..).map(<[u8]>::to_vec);
        (reply[3] & 0xf, data)
    };
    let (rcode, data) = pointer("2.0.213.10.in-addr.arpa");
    assert_eq!(
        (rcode, data.unwrap()),
        (0, b"\x03web\x07backend\0".to_vec())
    );
    let (rcode, data) = pointer("1.0.213.10.in-addr.arpa");
    let expected = b"\x04host\x06docker\x08internal\0".to_vec();
    assert_eq!((rcode, data.unwrap()), (0, expected));
    assert_eq!(pointer("77.0.213.10.in-addr.arpa"), (3, None));
    // Another network's.
    let actions = network.ask(&query(1, "1.2.0.192.in-addr.arpa", wire::PTR));
    opened(&actions);
}

#[test]
fn a_large_answer_comes_whole_by_a_connection() {
    let mut network = Network::with_upstreams(0);
    let _held: Vec<_> = (10..110)
        .map(|last| network.lease(last, &["web"]))
        .collect();
    let message = query(1, "web", wire::A);
    let reply = network.reply(&message);
    assert_eq!(u16_at(&reply, 2) & 0x0200, 0x0200);
    let Outcome::Actions(actions) =
        network
            .dns
            .message(network.now, Client::Tcp(5, host(9)), &message)
    else {
        panic!("an answer");
    };
    let [Action::Reply(Client::Tcp(5, _), whole)] = &actions[..] else {
        panic!("an answer: {actions:?}");
    };
    assert_eq!((u16_at(whole, 2) & 0x0200, u16_at(whole, 6)), (0, 100));
}

#[test]
fn who_is_not_on_the_network_is_not_answered() {
    let mut network = Network::with_upstreams(1);
    let _web = network.lease(2, &["web"]);
    let stranger = SocketAddrV4::new(Ipv4Addr::new(10, 213, 1, 9), 1000);
    let message = query(1, "web", wire::A);
    assert_eq!(network.dns.datagram(network.now, stranger, &message), []);
    assert!(!network.dns.serves(*stranger.ip()) && network.dns.serves(host(255)));
}

/// A lease in this folder, held as long as the value lives.
fn lease_in(folder: &std::path::Path, address: &str, text: &str) -> File {
    let new = folder.join(".new");
    fs::write(&new, text).unwrap();
    let file = File::open(&new).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    fs::rename(new, folder.join(address)).unwrap();
    file
}

#[test]
fn names_of_an_adjacent_network_are_told_to_those_who_are_on_it() {
    let mut network = Network::with_upstreams(0);
    let beside = tempfile::tempdir().unwrap();
    let leases = Leases::open(open_folder(beside.path()).unwrap()).unwrap();
    let (subnet, gateway) = (
        (Ipv4Addr::new(10, 214, 0, 0), 24),
        Ipv4Addr::new(10, 214, 0, 1),
    );
    let part = Part::new("b".into(), leases, Name::parse("back"), subnet, gateway);
    assert!(network.dns.add_adjacent(part));
    let own = network.folder.path().to_owned();
    let _web = lease_in(&own, "10.213.0.8", "hull0000000000a\nweb\n");
    let _client = lease_in(&own, "10.213.0.9", "hull0123456789a\nme\n");
    let _db = lease_in(beside.path(), "10.214.0.5", "hull9999999999a\ndb\nweb\n");
    // Its sandbox is not on the other network yet.
    assert_eq!(network.look_up("db"), Err(3));
    let there = lease_in(
        beside.path(),
        "10.214.0.6",
        "hull0123456789g\nme-there\npostgres=db\n",
    );
    assert_eq!(
        network.look_up("postgres"),
        Ok(vec![5]),
        "a link over there"
    );
    assert_eq!(network.look_up("db"), Ok(vec![5]));
    assert_eq!(network.look_up("db.back"), Ok(vec![5]));
    assert_eq!(
        network.look_up("web"),
        Ok(vec![8]),
        "its own network's first"
    );
    // It has left, or died without a word.
    drop(there);
    assert_eq!(network.look_up("db"), Err(3));
}

#[test]
fn a_link_is_a_name_for_its_holder_alone() {
    let mut network = Network::with_upstreams(0);
    let own = network.folder.path().to_owned();
    let _db = lease_in(&own, "10.213.0.5", "hull9999999999a\ndb\n");
    let other = lease_in(&own, "10.213.0.7", "hull0000000000a\nother\npostgres=db\n");
    assert_eq!(network.look_up("postgres"), Err(3));
    let _client = lease_in(
        &own,
        "10.213.0.9",
        "hull0123456789a\nme\npostgres=db\nother=nosuch\n=\na b=db\n",
    );
    assert_eq!(network.look_up("postgres"), Ok(vec![5]));
    // What it calls so is what it means, there or not.
    assert_eq!(network.look_up("other"), Err(3));
    drop(other);
}
