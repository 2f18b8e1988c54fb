//! Published ports and networks from outside: what is reached, what is refused, and what a `kill -9` leaves. Who is reached as
//! whom is tested in `src/network/tests/root`, and what a user types in `session/networks.session`.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use tests::{Hull, wait_until};

/// A server that greets one client after the other.
const SERVER: &str = "while :; do echo hello | nc -l -p 80; done";
/// How long a server in a busy emulated machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server at a published port says to the host.
fn ask(at: &str) -> Result<String> {
    let address: SocketAddr = at.parse().context("not an address")?;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return Ok(text);
            }
        }
        ensure!(Instant::now() < until, "{at} never answered");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs words and returns what they print.
fn done(hull: &Hull, words: &str) -> Result<String> {
    Ok(hull.run(words.split(' '))?.expect_code(0).stdout())
}

fn serve(hull: &Hull, options: &str, isolation: &str) -> Result<()> {
    let words = format!("run -d --isolation {isolation} {options} demo sh -c");
    hull.run(words.split(' ').chain([SERVER]))?.expect_code(0);
    Ok(())
}

fn a_killed_wardens_port_is_free_and_leads_nowhere(isolation: &str) -> Result<()> {
    let hull = Hull::new()?;
    serve(&hull, "--name web -p 127.0.0.1::80", isolation)?;
    let at = done(&hull, "port web 80")?;
    assert_eq!(ask(&at)?, "hello\n");
    // The speaker goes with it.
    let [warden, _] = hull.warden_and_speaker()?;
    kill_process(warden, Signal::KILL)?;
    wait_until("the warden is gone", || Ok(TcpListener::bind(&at).is_ok()))?;
    assert_eq!(
        done(&hull, "ps -a --format {{.Ports}}|{{.State}}")?,
        "|exited"
    );
    // The same port, for the next one: what the dead one left leads there no more.
    done(&hull, "rm -f web")?;
    let again = format!("--name next -p {at}:80");
    serve(&hull, &again, isolation)?;
    assert_eq!(ask(&at)?, "hello\n");
    done(&hull, "rm -f next")?;
    hull.expect_nothing_left()
}

#[test]
fn the_port_of_a_native_container_whose_warden_is_killed_is_free() -> Result<()> {
    a_killed_wardens_port_is_free_and_leads_nowhere("native")
}

#[test]
fn the_port_of_a_vm_whose_warden_is_killed_is_free() -> Result<()> {
    a_killed_wardens_port_is_free_and_leads_nowhere("vm")
}

#[test]
fn a_pod_publishes_the_ports_of_its_containers() -> Result<()> {
    let hull = Hull::new()?;
    done(&hull, "pod create -p 127.0.0.1::80 box")?;
    serve(&hull, "--name web", "pod:box")?;
    let at = done(&hull, "port web 80")?;
    assert_eq!(ask(&at)?, "hello\n");
    let refused = hull
        .run("run --isolation pod:box -p 81:81 demo true".split(' '))?
        .expect_code(125);
    ensure!(
        refused
            .stderr()
            .contains("--publish is decided by `hull pod create`")
    );
    done(&hull, "pod rm -f box")?;
    hull.expect_nothing_left()
}

#[test]
fn what_cannot_be_had_is_said() -> Result<()> {
    let hull = Hull::new()?;
    let said = |words: &str| -> Result<String> {
        let words = format!("run --rm --isolation native {words} demo true");
        Ok(hull.run(words.split(' '))?.expect_code(125).stderr())
    };
    for (words, message) in [
        ("-p 192.0.2.1:80:80", "Bind for 192.0.2.1:80/tcp failed"),
        ("-p [::1]:80:80", "carry IPv4 alone"),
        ("-p 80:80/sctp", "invalid proto: sctp"),
        ("--network none -p 80", "--publish needs a network"),
        ("--network nosuch", "network nosuch not found"),
        (
            "--ip 10.9.9.9",
            "user specified IP address is supported on user defined networks only",
        ),
        (
            "--network-alias x",
            "network-scoped alias is supported only",
        ),
        ("--network container:x", "containers share that in a pod"),
        ("--network host", "this host's network"),
        ("--link db", "--link needs a network of your own"),
    ] {
        let text = said(words)?;
        ensure!(text.contains(message), "{words}: {text}");
    }
    done(
        &hull,
        "network create --internal --subnet 10.250.3.0/24 closed",
    )?;
    let text = said("--network closed -p 80")?;
    ensure!(
        text.contains("ports cannot be published on the network closed"),
        "{text}"
    );
    let text = said("--network closed --ip 10.9.9.9")?;
    ensure!(
        text.contains("no configured subnet contains IP address 10.9.9.9"),
        "{text}"
    );
    // Removed between its container's making and start.
    done(
        &hull,
        "create --name late --isolation native --network closed demo true",
    )?;
    done(&hull, "network rm closed")?;
    let late = hull.run(["start", "late"])?.expect_code(1);
    ensure!(
        late.stderr().contains("network closed not found"),
        "{}",
        late.stderr()
    );
    done(&hull, "rm late")?;
    let connect = hull
        .run("network connect app web".split(' '))?
        .expect_code(1);
    ensure!(
        connect.stderr().contains("network app not found"),
        "{}",
        connect.stderr()
    );
    hull.expect_nothing_left()
}
