//! Networks of ordinary users: names, the outside, published ports, and what is left of them. How hull-net treats a hostile
//! guest is tested in `src/usernet`.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Hull, USER, is_alive, wait_until};

/// A server that says who asks.
const SERVER: &str = "while :; do nc -l -p 80 -e sh -c \
    'netstat -tn | sed -En \"s/.*:80 +[:f]*([0-9.]+):.*(ESTABLISHED|CLOSE_WAIT).*/\\\\1/p\"'; done";
/// Prints a container's own address.
const OWN: &str = "ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'";
/// How long a server in a busy emulated machine may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs words and returns what they print, without the last newline.
fn done(hull: &Hull, words: &str) -> Result<String> {
    Ok(hull.run(words.split(' '))?.expect_code(0).stdout())
}

/// Runs a script in a container.
fn exec(hull: &Hull, name: &str, script: &str) -> Result<String> {
    let ran = hull.run(["exec", name, "sh", "-c", script])?;
    Ok(ran.expect_code(0).stdout())
}

/// The address by which this machine reaches others.
fn primary() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket
        .connect("192.0.2.1:9")
        .context("this machine has no way out")?;
    Ok(socket.local_addr()?.ip())
}

/// What the server at a port of the host's says.
fn ask(at: SocketAddr) -> Result<String> {
    let mut text = String::new();
    wait_until("the server answers", || {
        text.clear();
        let Ok(mut stream) = TcpStream::connect_timeout(&at, Duration::from_secs(5)) else {
            return Ok(false);
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream.read_to_string(&mut text).is_ok() && !text.is_empty())
    })?;
    Ok(text.trim_end().to_owned())
}

/// The hull-net of the only network.
fn hull_net() -> Result<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let folder: PathBuf = entry.path();
        let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let number = entry.file_name().to_string_lossy().parse().ok();
        if name.trim_end() == "hull-net" && status.contains(&format!("Uid:\t{USER}\t")) {
            found.extend(number.and_then(Pid::from_raw));
        }
    }
    ensure!(found.len() == 1, "not one hull-net but {found:?}");
    Ok(found[0])
}

/// A server of the host's that takes all that comes, and answers with its length and sum.
fn outside(address: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    std::thread::spawn(move || -> Result<()> {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            let sum: u64 = bytes.iter().copied().map(u64::from).sum();
            writeln!(stream, "{} {sum}", bytes.len())?;
        }
        Ok(())
    });
    Ok(at)
}

#[test]
fn a_users_containers_know_each_other_reach_out_and_are_reached() -> Result<()> {
    let hull = Hull::of_user()?;
    let host = primary()?;
    done(&hull, "network create app")?;
    let serve = "run -d --name web --network app --network-alias www -p 0.0.0.0::80 demo sh -c";
    hull.run(serve.split(' ').chain([SERVER]))?.expect_code(0);
    done(&hull, "run -d --name other --network app demo sleep 77777")?;

    // Each other, by name and alias, whole frames and large ones.
    let address = exec(&hull, "other", OWN)?;
    for name in ["web", "www"] {
        let asked = format!("echo | nc -w 20 {name} 80");
        assert_eq!(exec(&hull, "other", &asked)?, address);
    }
    // The outside, both ways with an end each.
    let at = outside(host)?;
    let (ip, port) = (at.ip(), at.port());
    let sent = format!("head -c 3000000 /dev/zero | tr '\\0' 'b' | nc -w 50 {ip} {port}");
    let sum = 3_000_000 * u64::from(b'b');
    assert_eq!(exec(&hull, "other", &sent)?, format!("3000000 {sum}"));
    // What nothing listens to is refused, at once, and so is what only this machine reaches.
    let closed = TcpListener::bind((host, 0))?.local_addr()?.port();
    let refused = |to: &str, port: u16| {
        let script = format!("nc -w 30 {to} {port} < /dev/null 2>&1; echo $?");
        exec(&hull, "other", &script)
    };
    for (to, port) in [(&*ip.to_string(), closed), ("169.254.169.254", 80)] {
        let said = refused(to, port)?;
        ensure!(said.contains("refused") && said.ends_with('1'), "{said}");
    }
    // In by a published port: the server sees the client's own address.
    let published: SocketAddr = done(&hull, "port web 80")?.parse()?;
    assert_eq!(ask((host, published.port()).into())?, host.to_string());

    // A hull-net that is killed is followed by another, with the same addresses and ports.
    let first = hull_net()?;
    kill_process(first, Signal::KILL)?;
    wait_until("another hull-net", || {
        Ok(hull_net().is_ok_and(|next| next != first))
    })?;
    assert_eq!(ask((host, published.port()).into())?, host.to_string());
    assert_eq!(exec(&hull, "other", "echo | nc -w 20 web 80")?, address);
    let last = hull_net()?;

    let busy = hull.run(["network", "rm", "app"])?.expect_code(1).stderr();
    ensure!(busy.contains("has active endpoints"), "{busy}");
    done(&hull, "rm -f web other")?;
    wait_until("hull-net ends with its network", || Ok(!is_alive(last)))?;
    done(&hull, "network rm app")?;
    ensure!(TcpStream::connect((host, published.port())).is_err());
    hull.expect_nothing_left()
}

#[test]
fn a_users_ports_are_told_of_when_they_cannot_be_had() -> Result<()> {
    let hull = Hull::of_user()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    for (publish, expected) in [
        (format!("127.0.0.1:{port}:80"), "port is already allocated"),
        ("127.0.0.1:80:80".to_owned(), "ip_unprivileged_port_start"),
    ] {
        let refused = hull.run(["run", "--rm", "-p", &publish, "demo", "true"])?;
        let said = refused.expect_code(125).stderr();
        ensure!(said.contains(expected), "{said}");
    }
    hull.expect_nothing_left()
}
