//! hull-net in its jail, as a warden starts it: what it has of the host, and that it belongs to its network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use monitor::users::{FIRST, PAIRS};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const MUSL: &str = "x86_64-unknown-linux-musl";

/// The programs, static and without debug assertions: their filters are those that users get.
fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // target/debug/deps/resolver-0123
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        let folder = target.join(MUSL).join("debug");
        // In the test host, where nothing can be written: as the same tests have built them outside of it.
        if rustix::fs::access(target, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS)
        {
            return folder;
        }
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--target", MUSL])
            .args(["--config", "profile.dev.debug-assertions=false"])
            .args(["--package", "usernet"])
            .args(["--package", "monitor", "--features", "monitor/drill"])
            .args(["--bin", "hull-net", "--bin", "jailer"])
            .arg("--target-dir")
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "the static programs could not be built");
        folder
    })
}

/// A network of a test's own: 10.230.N.0/24.
struct Host {
    folder: tempfile::TempDir,
    number: u8,
}

/// What stands in for a warden.
struct Warden {
    child: Child,
    stdin: Option<ChildStdin>,
    said: String,
}

impl Host {
    fn new(number: u8) -> Host {
        Host {
            folder: tempfile::tempdir().unwrap(),
            number,
        }
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 230, self.number, last)
    }

    fn network(&self) -> PathBuf {
        let mut networks = fs::read_dir(self.folder.path().join("networks")).unwrap();
        networks.next().unwrap().unwrap().path()
    }

    fn warden(&self, id: &str, program: &Path) -> Warden {
        let mut child = Command::new(programs().join("jailer"))
            .arg("names")
            .arg(self.folder.path())
            .args([&format!("{}/24", self.address(0)), id])
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        Warden {
            stdin: child.stdin.take(),
            said: said.trim().to_owned(),
            child,
        }
    }

    /// A warden, and the bridge.
    fn started(&self, id: &str) -> (Warden, String) {
        let warden = self.warden(id, &programs().join("hull-net"));
        let bridge = warden.said.strip_prefix("bridge ");
        let bridge = bridge.unwrap_or_else(|| panic!("{}", warden.said));
        let bridge = bridge.to_owned();
        (warden, bridge)
    }

    /// The number of the hull-net.
    fn server(&self) -> Pid {
        let record = fs::read(self.network().join("dns.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        Pid::from_raw(record["pid"].as_i64().unwrap() as i32).unwrap()
    }

    /// A sandbox with a name, at an address that no other has, which lives as long as the value.
    fn lease(&self, address: Ipv4Addr, name: &str) -> File {
        let leases = self.network().join("leases");
        fs::write(leases.join(".test"), format!("hullx\n{name}\n")).unwrap();
        let file = File::open(leases.join(".test")).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::rename(leases.join(".test"), leases.join(address.to_string())).unwrap();
        file
    }
}

impl Warden {
    fn leave(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // A test that fails leaves nothing: the network is left as if the sandbox had ended.
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// A container: a network namespace with an interface on the bridge, at the network's address 99.
struct Container {
    name: String,
    gateway: Ipv4Addr,
}

impl Container {
    fn on(host: &Host, bridge: &str) -> Container {
        let name = format!("hulltest{}", host.number);
        let address = host.address(99);
        for line in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("link set {name} master {bridge} up"),
            format!("-n {name} addr add {address}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(status.success(), "ip {line}");
        }
        Container {
            name,
            gateway: host.address(1),
        }
    }

    /// What the server at the gateway says of a name: the last four bytes, or the response code.
    fn look_up(&self, name: &str) -> Result<Ipv4Addr, u8> {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
        query.extend(name.as_bytes());
        query.extend([0, 0, 1, 0, 1]);
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        let gateway = self.gateway;
        let asking = std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((gateway, 53)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            socket.send(&query).unwrap();
            let mut answer = [0; 512];
            let len = socket.recv(&mut answer).unwrap();
            answer[..len].to_vec()
        });
        let answer = asking.join().unwrap();
        match answer[3] & 0xf {
            0 => Ok(<[u8; 4]>::try_from(&answer[answer.len() - 4..])
                .unwrap()
                .into()),
            rcode => Err(rcode),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn status(pid: Pid) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn is_gone(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    !state.is_ok_and(|state| !state.contains(") Z "))
}

#[test]
#[ignore = "needs root"]
fn it_has_no_rights_and_nothing_of_the_host_but_its_network() {
    let host = Host::new(30);
    let (warden, bridge) = host.started("3000000000000000");
    let pid = host.server();
    let status = status(pid);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((&*status["NoNewPrivs"], &*status["Seccomp"]), ("1", "2"));
    assert_eq!((&*status["Threads"], &*status["Groups"]), ("1", ""));
    let user: u32 = status["Uid"].split('\t').next().unwrap().parse().unwrap();
    assert!((FIRST..FIRST + 2 * PAIRS).contains(&user), "{user}");
    assert_eq!(status["Uid"], vec![user.to_string(); 4].join("\t"));
    assert_eq!(status["Gid"], status["Uid"]);
    for kind in ["mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let shared = of(&pid.to_string()) == of("self");
        assert_eq!(shared, kind == "net", "{kind}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "an empty root");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|link| link.to_string_lossy().into_owned())
        .map(|link| match link.split_once(':') {
            Some((kind, _)) => kind.to_owned(),
            None => link,
        })
        .collect();
    open.sort();
    open.dedup();
    let lock = host.network().join("dns.lock").display().to_string();
    // A detached mount is its own root.
    let expected = [
        "/",
        "/dev/null",
        "/run/hull/users",
        "anon_inode",
        "pipe",
        "socket",
    ];
    let mut expected: Vec<String> = expected.map(str::to_owned).into();
    expected.push(lock);
    expected.sort();
    assert_eq!(open, expected);
    assert_eq!(Container::on(&host, &bridge).look_up("nobody"), Err(3));
    warden.leave();
    assert!(is_gone(pid));
}

#[test]
#[ignore = "needs root"]
fn it_outlives_the_warden_that_started_it_and_goes_with_the_last() {
    let host = Host::new(31);
    let (first, bridge) = host.started("3100000000000000");
    let (second, same) = host.started("3101000000000000");
    assert_eq!(bridge, same);
    let pid = host.server();
    let web = host.address(200);
    let container = Container::on(&host, &bridge);
    let held = host.lease(web, "web");
    assert_eq!(container.look_up("web"), Ok(web));
    first.kill();
    assert_eq!(container.look_up("Web"), Ok(web));
    drop(held);
    assert_eq!(container.look_up("web"), Err(3));
    // A third sweeps what the first and the name's holder left.
    let (third, _) = host.started("3102000000000000");
    assert_eq!(host.server(), pid);
    second.leave();
    assert!(!is_gone(pid));
    third.leave();
    assert!(is_gone(pid));
    assert!(!host.network().join("dns.json").exists());
}

/// Lifecycle H32.
#[test]
#[ignore = "needs root"]
fn one_that_was_killed_is_followed_by_another_at_the_next_start() {
    let host = Host::new(32);
    let (first, bridge) = host.started("3200000000000000");
    let pid = host.server();
    kill_process(pid, Signal::KILL).unwrap();
    while !is_gone(pid) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (second, _) = host.started("3201000000000000");
    assert_ne!(host.server(), pid);
    assert_eq!(Container::on(&host, &bridge).look_up("nobody"), Err(3));
    first.leave();
    second.leave();
}

#[test]
#[ignore = "needs root"]
fn why_there_is_none_is_said() {
    let host = Host::new(33);
    let missing = host.warden("3300000000000000", Path::new("/nowhere/hull-net"));
    let expected = "refused could not start the network's hull-net: cannot open /nowhere/hull-net";
    assert!(missing.said.starts_with(expected), "{}", missing.said);
    let wrong = host.warden("3301000000000000", Path::new("/etc/passwd"));
    let expected = "its jail could not execute its program";
    assert!(wrong.said.contains(expected), "{}", wrong.said);
    missing.leave();
    wrong.leave();
}
