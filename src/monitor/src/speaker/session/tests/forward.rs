//! Connections of containers to sockets of the host's.

use protocol::fs::Cache;
use protocol::record::{Mount, MountSource, SocketNode, Submounts};

use super::*;

/// The mount of a socket.
fn socket(share: &str) -> Mount {
    Mount {
        source: MountSource::Bind {
            named: "/run/host.sock".into(),
            make: false,
        },
        share: share.into(),
        path: "/run/host.sock".into(),
        destination: "/host.sock".into(),
        read_only: false,
        submounts: Submounts::Alike,
        single_file: true,
        socket: Some(SocketNode {
            uid: 0,
            gid: 0,
            mode: 0o660,
        }),
        cache: Cache::Shared,
        fill: false,
        mode: String::new(),
    }
}

/// A container that runs, with a socket.
fn with_socket(writes: Writes) -> World {
    let mut config = config(ID, RestartPolicy::No);
    config.run.mounts = vec![socket("docker")];
    let mut setting = setting(Some(config));
    setting.writes = writes;
    let mut world = World::of(setting);
    world.session.agent_hello();
    world.client(1);
    world.ask(1, 1, start(ID));
    world.settle();
    world.warden.clear();
    world
}

fn connect(world: &mut World, socket: &str, connection: u64) {
    let socket = socket.to_owned();
    world
        .session
        .agent_said(FromAgent::Connected { socket, connection });
    world.act();
}

/// What the agent was told last of a connection.
fn forwarded(world: &World) -> Option<(u64, Option<u32>)> {
    world
        .agent
        .iter()
        .rev()
        .find_map(|(_, request)| match request {
            ToAgent::Forward { connection, port } => Some((*connection, *port)),
            _ => None,
        })
}

/// Lifecycle H35.
#[test]
fn a_connection_is_offered_before_the_agent_is_told_its_port() {
    let mut w = with_socket(Writes::Disk { bytes: None });
    connect(&mut w, "docker", 5);
    let connect = ToWarden::Connect {
        socket: "docker".into(),
        connection: 5,
    };
    assert_eq!(w.warden, [connect]);
    assert_eq!(forwarded(&w), None);
    w.session.reached(5, true);
    w.act();
    let (connection, port) = forwarded(&w).unwrap();
    let offered = format!("join {connection} at {}", port.unwrap());
    let at = |line: &str| w.log.iter().position(|logged| logged == line);
    assert!(at(&offered) < at("agent Forward"), "{:?}", w.log);
    // No answer counts twice.
    let count = w.agent.len();
    w.session.reached(5, true);
    w.act();
    assert_eq!(w.agent.len(), count);
}

#[test]
fn a_socket_that_cannot_be_reached_closes_the_connection() {
    let mut w = with_socket(Writes::Disk { bytes: None });
    connect(&mut w, "docker", 1);
    w.session.reached(1, false);
    w.act();
    assert_eq!(forwarded(&w), Some((1, None)));
    assert!(!w.log.iter().any(|line| line.starts_with("join")));
}

#[test]
fn a_guest_reaches_no_socket_but_its_containers() {
    for (writes, name) in [
        (Writes::Disk { bytes: None }, "other"),
        (Writes::Disk { bytes: None }, "/run/host.sock"),
        // Natively the socket itself is in the container.
        (Writes::Folder("/w".into()), "docker"),
    ] {
        let mut w = with_socket(writes);
        connect(&mut w, name, 1);
        assert_eq!(forwarded(&w), Some((1, None)), "{name}");
        assert!(w.warden.is_empty(), "{name}: {:?}", w.warden);
    }
}

#[test]
fn a_guest_has_no_more_than_so_many_connections_on_their_way() {
    let mut w = with_socket(Writes::Disk { bytes: None });
    for connection in 0..1000 {
        connect(&mut w, "docker", connection);
    }
    assert_eq!(w.warden.len(), 128);
    // Nor one under the number of another.
    w.session.reached(0, true);
    connect(&mut w, "docker", 1);
    assert_eq!(w.warden.len(), 128);
    connect(&mut w, "docker", 1000);
    assert_eq!(w.warden.len(), 129);
}
