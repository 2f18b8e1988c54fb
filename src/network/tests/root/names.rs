//! A network's DNS server comes with the first that wants it, and goes with the last. In the place of hull-net, a shell that
//! holds what it is given; its own tests are in src/usernet.

use std::net::SocketAddr;

use network::{Claim, Error, Launch, Service};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sys::spawn::Inherit;

use super::*;

type Launched = Result<Pid, Box<dyn std::error::Error + Send + Sync>>;

/// A process that lives until it is killed. It is reaped by whatever reaps orphans, as hull-net is.
fn stand_in(launch: &Launch<'_>) -> Launched {
    let script = "sh -c 'echo $$; exec >&-; exec sleep 1000' & wait";
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::piped());
    let given = launch.descriptors.iter().zip(3..);
    let given: Vec<_> = given.map(|(fd, number)| (*fd, number)).collect();
    let inherit = Inherit {
        descriptors: &given,
        ..Inherit::default()
    };
    let mut child = sys::spawn::spawn(&mut command, &inherit)?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    Ok(Pid::from_raw(line.trim().parse()?).unwrap())
}

/// Serves the network; the number of the process, if one was started.
fn serve(host: &Host, domain: &str) -> Result<Option<Pid>, Error> {
    let mut started = None;
    host.network().serve_names(domain, &[], |launch| {
        let pid = stand_in(launch)?;
        started = Some(pid);
        Ok(pid)
    })?;
    Ok(started)
}

fn lives(pid: Pid) -> bool {
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    test_kill_process(pid).is_ok() && !state().is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
#[ignore = "needs root"]
fn one_server_is_started_and_goes_with_the_last() {
    let host = Host::new(20);
    let first = host
        .network()
        .attach(&id(0x200), &Claim::default())
        .unwrap();
    let second = host
        .network()
        .attach(&id(0x201), &Claim::default())
        .unwrap();
    let server = serve(&host, "backend").unwrap().expect("it is started");
    assert_eq!(
        serve(&host, "backend").unwrap(),
        None,
        "it is there already"
    );
    drop(first.tap);
    first.lease.release().unwrap();
    assert!(lives(server));
    drop(second.tap);
    second.lease.release().unwrap();
    assert!(!lives(server));
    host.expect_nothing_left();
    for file in ["dns.lock", "dns.json"] {
        assert!(!host.dir.path().join("network").join(file).exists());
    }
}

#[test]
#[ignore = "needs root"]
fn a_server_that_was_killed_or_knows_something_else_is_followed_by_another() {
    let host = Host::new(21);
    let attachment = host
        .network()
        .attach(&id(0x210), &Claim::default())
        .unwrap();
    let first = serve(&host, "backend").unwrap().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    while lives(first) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let second = serve(&host, "backend").unwrap().expect("another");
    let third = serve(&host, "frontend").unwrap().expect("another");
    assert!(!lives(second) && lives(third));
    // Killed with its holder, as a whole host's processes are.
    drop(attachment);
    host.network().sweep().unwrap();
    assert!(!lives(third));
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_server_gets_sockets_of_the_bridge_and_the_leases_to_read() {
    let host = Host::new(22);
    let attachment = host
        .network()
        .attach(&id(0x220), &Claim::default())
        .unwrap();
    let gateway = attachment.interface.gateway.unwrap();
    host.network()
        .serve_names("backend", &[], |launch| {
            let Service::Names(dns) = &launch.service else {
                panic!("a bridge has names alone: {:?}", launch.service);
            };
            let of = |number: protocol::net::Descriptor| launch.descriptors[number.0 as usize];
            for socket in [of(dns.datagrams), of(dns.listener)] {
                let name = rustix::net::getsockname(socket)?;
                assert_eq!(SocketAddr::try_from(name)?, (gateway, 53).into());
            }
            assert!(!dns.names.resolvers.is_empty());
            let leases = of(dns.names.leases);
            let address = attachment.interface.address.to_string();
            let open =
                |name: &str, flags| rustix::fs::openat(leases, name, flags, rustix::fs::Mode::RUSR);
            use rustix::fs::OFlags;
            open(&address, OFlags::RDONLY)?;
            let refused = open(&address, OFlags::WRONLY).unwrap_err();
            assert_eq!(refused, rustix::io::Errno::ROFS);
            // There is no way up: the parent is the folder itself.
            let (here, up) = (rustix::fs::fstat(leases)?, open("..", OFlags::RDONLY)?);
            assert_eq!(here.st_ino, rustix::fs::fstat(up)?.st_ino);
            stand_in(launch)
        })
        .unwrap();
    attachment.lease.release().unwrap();
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_port_that_another_server_has_is_named() {
    let host = Host::new(23);
    let attachment = host
        .network()
        .attach(&id(0x230), &Claim::default())
        .unwrap();
    let gateway = attachment.interface.gateway.unwrap();
    let other = std::net::UdpSocket::bind((gateway, 53)).unwrap();
    let error = serve(&host, "backend").unwrap_err().to_string();
    assert!(
        error.contains(&format!("has port 53 of {gateway}")),
        "{error}"
    );
    drop(other);
    assert!(serve(&host, "backend").unwrap().is_some());
    // Not started: nothing is left of the attempt.
    let failed = host
        .network()
        .serve_names("other", &[], |_| Err("no program".into()));
    assert!(failed.is_err());
    assert!(serve(&host, "other").unwrap().is_some());
    attachment.lease.release().unwrap();
    host.expect_nothing_left();
}
