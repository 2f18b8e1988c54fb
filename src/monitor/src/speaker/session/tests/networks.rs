//! Networks that come and go under a sandbox's only container (lifecycle H37, H38).

use std::net::Ipv4Addr;

use protocol::agent::{EtcFiles, Failure, FailureKind, Interface, Network};

use super::*;

fn interface(slot: u8) -> Interface {
    Interface {
        mac: [2, 0, 0, 0, 0, slot],
        address: Ipv4Addr::new(10, slot, 0, 7),
        prefix_len: 16,
        gateway: Some(Ipv4Addr::new(10, slot, 0, 1)),
        mtu: 1500,
        slot,
        is_way_out: slot == 0,
    }
}

fn etc(resolver: &str) -> EtcFiles {
    EtcFiles {
        hosts: Some("127.0.0.1\tlocalhost\n".into()),
        hostname: None,
        resolv_conf: Some(format!("nameserver {resolver}\n")),
    }
}

/// A container on one network, which client 1 can speak of.
fn with_network() -> World {
    let mut config = config(ID, RestartPolicy::No);
    config.run.network = true;
    config.run.own_names = vec!["web".into()];
    config.run.etc = etc("10.0.0.1");
    let mut setting = setting(Some(config));
    setting.interfaces = vec![interface(0)];
    let mut world = World::of(setting);
    world.session.agent_hello();
    world.client(1);
    world
}

fn networks() -> Request {
    Request::Networks {
        container: ID.to_owned(),
    }
}

impl World {
    /// The warden brings the sandbox to what its record says.
    fn warden_attaches(&mut self, result: Result<Vec<Interface>, Failure>) {
        assert!(matches!(self.warden.remove(0), ToWarden::Networks { .. }));
        let result = result.map(|interfaces| (interfaces, etc("10.1.0.1")));
        self.session.networks_changed(ID, result);
        self.act();
    }
}

#[test]
fn a_container_that_runs_gets_its_interfaces_before_the_client_is_told() {
    let mut world = with_network();
    world.ask(1, 1, start(ID));
    world.settle();
    world.told.clear();
    world.ask(1, 2, networks());
    world.warden_attaches(Ok(vec![interface(0), interface(1)]));
    assert!(world.told.is_empty());
    let [(_, ToAgent::Networks(asked))] = &*world.agent else {
        panic!("{:?}", world.agent);
    };
    assert_eq!(asked.interfaces, [interface(0), interface(1)]);
    let hosts = |files: &EtcFiles| files.hosts.clone().unwrap();
    assert!(!hosts(&asked.before).contains("10.1.0.7"));
    assert!(hosts(&asked.after).ends_with("10.0.0.7\tweb\n10.1.0.7\tweb\n"));
    assert_ne!(asked.before.resolv_conf, asked.after.resolv_conf);
    world.agent_replies();
    assert_eq!(world.told, ["1/2: done"]);
    // The next change is one to what is there by now.
    world.ask(1, 3, networks());
    world.warden_attaches(Ok(vec![interface(1)]));
    let [(_, ToAgent::Networks(asked))] = &*world.agent else {
        panic!("{:?}", world.agent);
    };
    assert!(hosts(&asked.before).contains("10.1.0.7"));
    assert!(!hosts(&asked.after).contains("10.0.0.7"));
}

#[test]
fn a_container_that_is_being_made_is_changed_behind_that() {
    let mut world = with_network();
    world.ask(1, 1, start(ID));
    while !world.saw("agent Create") {
        world.agent_replies();
    }
    world.ask(1, 2, networks());
    world.warden_attaches(Ok(Vec::new()));
    let order: Vec<String> = world.agent.iter().map(|(_, it)| name(it)).collect();
    assert_eq!(order, ["Wake", "Mount", "Create", "Start", "Networks"]);
    world.settle();
    // That it runs is recorded before it is told.
    world.told.sort();
    assert_eq!(world.told, ["1/1: started 7", "1/2: done"]);
}

#[test]
fn a_container_that_does_not_run_is_made_with_what_there_is_by_then() {
    let mut world = with_network();
    world.ask(1, 1, networks());
    world.warden_attaches(Ok(vec![interface(1)]));
    assert_eq!(world.told, ["1/1: done"]);
    world.ask(1, 2, start(ID));
    while !world.saw("agent Create") {
        world.agent_replies();
    }
    let created = world.agent.iter().find_map(|(_, request)| match request {
        ToAgent::Create(create) => Some(create),
        _ => None,
    });
    let created = created.unwrap();
    let interfaces = vec![interface(1)];
    assert_eq!(created.network, Network::Own { interfaces });
    assert!(
        created
            .etc
            .hosts
            .as_ref()
            .unwrap()
            .contains("10.1.0.7\tweb")
    );
}

#[test]
fn what_the_warden_cannot_attach_is_told_to_those_who_asked_in_their_order() {
    let mut world = with_network();
    world.client(2);
    world.ask(1, 1, networks());
    world.ask(2, 1, networks());
    let failure = Failure::new(FailureKind::Other, "no address is free");
    world.warden_attaches(Err(failure));
    world.warden_attaches(Ok(vec![interface(0)]));
    assert_eq!(world.told, ["1/1: Other: no address is free", "2/1: done"]);
    assert!(world.agent.iter().all(|(_, it)| name(it) != "Networks"));
}

#[test]
fn the_networks_of_a_pod_are_its_own() {
    let mut world = World::of(setting(None));
    world.session.agent_hello();
    world.client(1);
    world.ask(1, 1, start("a"));
    world.settle();
    world.told.clear();
    let container = "a".to_owned();
    world.ask(1, 2, Request::Networks { container });
    assert!(world.told[0].starts_with("1/2: Invalid: the networks of a pod"));
    assert!(world.warden.is_empty());
}
