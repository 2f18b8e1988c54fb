//! `hull bench network`: bytes and connections between containers and a server of the host's, and between two containers:
//! VMs of root's on a bridge and an ordinary user's VMs on a hull-net, beside native containers on a bridge.
//!
//! Each pair of containers does the same steps, one pair after the other, as often as asked. Times are read in the container
//! (/proc/uptime, to 10 ms).

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::is_root;
use crate::sample::succeed;
use crate::steps::{self, Times};

/// What networks and containers are called, in part.
const PREFIX: &str = "hull-bench-network";
/// The steps; the script follows.
const STEPS: [&str; 4] = ["send", "receive", "connect", "to a neighbour"];
/// Where a neighbour listens.
const PORT: u16 = 9;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) mib: u32,
    pub(crate) connections: u32,
    pub(crate) runs: u32,
    /// The ordinary user.
    pub(crate) user: u32,
}

/// What is compared, the first with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Native,
    Bridge,
    User,
}

const KINDS: [Kind; 3] = [Kind::Native, Kind::Bridge, Kind::User];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Bridge => "bridge",
            Self::User => "user",
        }
    }

    fn network(self) -> String {
        format!("{PREFIX}-{}", self.name())
    }

    /// The pair, of which the second is asked and the first does the steps.
    fn containers(self) -> [String; 2] {
        ["", "-neighbour"].map(|end| format!("{PREFIX}-{}{end}", self.name()))
    }
}

/// A hull for each user.
struct Hulls<'a> {
    options: Options,
    /// The ordinary user's root of state.
    root: &'a Path,
}

impl Hulls<'_> {
    fn of(&self, kind: Kind) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        if kind == Kind::User {
            let user = self.options.user;
            command.env("HULL_ROOT", self.root).uid(user).gid(user);
        }
        Ok(command)
    }

    fn start(&self, kind: Kind) -> Result<()> {
        succeed(self.of(kind)?.args(["network", "create", &kind.network()]))?;
        for container in kind.containers() {
            let mut command = self.of(kind)?;
            command.args([
                "run",
                "-d",
                "--network",
                &kind.network(),
                "--name",
                &container,
            ]);
            if kind == Kind::Native {
                command.args(["--isolation", "native"]);
            }
            // A listener without input would end the connection from its side at once.
            let listen = format!("while :; do nc -l -p {PORT} -e sh -c 'cat > /dev/null'; done");
            succeed(command.args(["demo", "sh", "-c", &listen]))?;
        }
        Ok(())
    }

    fn stop(&self, kind: Kind) -> Result<()> {
        succeed(self.of(kind)?.args(["rm", "-f"]).args(kind.containers()))?;
        succeed(
            self.of(kind)?
                .args(["network", "rm", "-f", &kind.network()]),
        )
    }
}

/// Measures and prints; removes its containers and networks in any case.
pub(crate) fn run(options: Options) -> Result<()> {
    ensure!(
        is_root(),
        "native containers and bridges are for root: run it as root"
    );
    let root = std::env::temp_dir().join(format!("{PREFIX}-{}", std::process::id()));
    std::fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
    std::os::unix::fs::chown(&root, Some(options.user), Some(options.user))?;
    let hulls = Hulls {
        options,
        root: &root,
    };
    let measured = measure(&hulls);
    // What was not made is not there to be removed.
    let left = KINDS.map(|kind| hulls.stop(kind));
    let removed = std::fs::remove_dir_all(&root).context("a root of state is left");
    measured?;
    left.into_iter().collect::<Result<Vec<()>>>()?;
    removed
}

fn measure(hulls: &Hulls<'_>) -> Result<()> {
    let options = hulls.options;
    let address = primary()?;
    let sink = serve(address, |mut stream| {
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })?;
    let source = serve(address, move |mut stream| {
        let zeros = vec![0; 1 << 20];
        (0..options.mib).try_for_each(|_| stream.write_all(&zeros))
    })?;
    for kind in KINDS {
        hulls.start(kind)?;
    }
    let mut times = Times::<3>::new(&STEPS);
    for _ in 0..options.runs {
        for (number, kind) in KINDS.into_iter().enumerate() {
            let script = script(options, kind, sink, source);
            let [container, _] = kind.containers();
            let mut exec = hulls.of(kind)?;
            exec.args(["exec", &container, "sh", "-c", &script]);
            times.take(number, &container, &mut exec)?;
        }
    }
    println!(
        "\n{} MiB each way, {} connections: medians of {} runs, in ms; in native times",
        options.mib, options.connections, options.runs
    );
    times.print(["native", "VM on a bridge", "user's VM"]);
    Ok(())
}

/// Does the steps, and tells the time before the first and after each.
fn script(options: Options, kind: Kind, sink: SocketAddr, source: SocketAddr) -> String {
    let Options {
        mib, connections, ..
    } = options;
    let [_, neighbour] = kind.containers();
    let send = |to: &str, port: u16| {
        format!(
            "dd if=/dev/zero bs=64k count={} 2> /dev/null | nc {to} {port}",
            mib * 16
        )
    };
    let host = sink.ip().to_string();
    let steps: [String; STEPS.len()] = [
        send(&host, sink.port()),
        format!("nc {host} {} < /dev/null | cat > /dev/null", source.port()),
        format!(
            "i=0; while [ $i -lt {connections} ]; do nc {host} {} < /dev/null; i=$((i+1)); done",
            sink.port()
        ),
        send(&neighbour, PORT),
    ];
    steps::script("", &steps, "")
}

/// The address by which this machine reaches others, where containers of every kind reach it.
fn primary() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: 192.0.2.0/24 is for documents (RFC 5737).
    socket
        .connect("192.0.2.1:9")
        .context("this machine has no way out, and so no address for a server")?;
    Ok(socket.local_addr()?.ip())
}

/// Serves each client at this address for as long as the program runs.
fn serve(
    address: IpAddr,
    answer: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + Copy + 'static,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    thread::Builder::new().spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes early is seen in its own step.
            let _ = answer(stream);
        }
    })?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_tells_the_time_before_and_after_each_step() {
        let options = Options {
            mib: 3,
            connections: 7,
            runs: 1,
            user: 1,
        };
        let at = "192.0.2.1:80".parse().unwrap();
        let script = script(options, Kind::Bridge, at, at);
        assert_eq!(script.matches("/proc/uptime").count(), STEPS.len() + 1);
        assert!(script.contains("-lt 7 ]") && script.contains("count=48"));
        assert!(script.contains("nc hull-bench-network-bridge-neighbour 9"));
    }
}
