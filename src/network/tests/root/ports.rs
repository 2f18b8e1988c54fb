//! Published ports: who reaches them, by which addresses, and as whom.

use std::io::Read;
use std::net::{IpAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::Child;
use std::time::Duration;

use network::NativeAttachment;
use protocol::record::{Port, Publish, Published, Transport};

use super::*;

/// A container's port and where its servers listen.
const HTTP: u16 = 80;

/// A network namespace in the place of a native container, with a server that says who its client is.
pub(super) struct Container {
    pub(super) attachment: NativeAttachment,
    process: Process,
}

/// TCP: says its name and the client's address. UDP: echoes behind them.
const SERVER: &str = "
import socket, sys, threading
name, port = sys.argv[1], int(sys.argv[2])
tcp = socket.create_server(('', port), reuse_port=False)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('', port))
def echo():
    while True:
        text, peer = udp.recvfrom(2048)
        udp.sendto((name + ' ' + peer[0] + ' ').encode() + text, peer)
threading.Thread(target=echo, daemon=True).start()
print('ready', flush=True)
while True:
    peer, address = tcp.accept()
    peer.sendall((name + ' ' + address[0]).encode())
    peer.close()
";

impl Container {
    pub(super) fn new(network: &Network, number: u32, claim: &Claim<'_>) -> Container {
        let attachment = network.attach_native(&id(number), claim).unwrap();
        let mut process = Command::new("unshare")
            .args([
                "-n",
                "sh",
                "-c",
                "echo; read -r _; exec python3 -c \"$0\" \"$@\"",
                SERVER,
            ])
            .args([format!("c{number:x}"), HTTP.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        output.next();
        let pid = process.id().to_string();
        ip(&["link", "set", &attachment.name, "netns", &pid]);
        let container = Container {
            attachment,
            process: Process(process),
        };
        let interface = &container.attachment.interface;
        let mut script = format!(
            "ip link set lo up && ip link set {name} up && ip addr add {address}/{prefix_len} dev {name}",
            name = container.attachment.name,
            address = interface.address,
            prefix_len = interface.prefix_len,
        );
        if let Some(gateway) = interface.gateway {
            script += &format!(" && ip route add default via {gateway}");
        }
        assert_eq!(container.inside(&script), "");
        let mut input = container.process.0.stdin.as_ref().unwrap();
        input.write_all(b"go\n").unwrap();
        assert_eq!(output.next().unwrap().unwrap(), "ready");
        container
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.attachment.interface.address
    }

    fn published(&self) -> &[Published] {
        self.attachment.lease.ports()
    }

    /// What a script prints in its namespace.
    pub(super) fn inside(&self, script: &str) -> String {
        let done = Command::new("nsenter")
            .args([
                "-t",
                &self.process.0.id().to_string(),
                "-n",
                "bash",
                "-c",
                script,
            ])
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// What a server says to it, or nothing.
    pub(super) fn asks(&self, address: Ipv4Addr, port: u16) -> String {
        self.inside(&format!(
            "timeout 2 bash -c 'cat < /dev/tcp/{address}/{port}' 2>/dev/null"
        ))
    }

    pub(super) fn leave(self) {
        let Container {
            attachment,
            process,
        } = self;
        drop(process);
        attachment.lease.release().unwrap();
    }
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn publish(transport: Transport, host_address: Option<Ipv4Addr>) -> Publish {
    Publish {
        port: Port {
            number: HTTP,
            transport,
        },
        host_address,
        host_ports: None,
    }
}

/// What a server says to the host, or nothing.
pub(super) fn ask(address: Ipv4Addr, port: u16) -> String {
    let address = SocketAddrV4::new(address, port).into();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else {
        return String::new();
    };
    let mut text = String::new();
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let _ = stream.read_to_string(&mut text);
    text
}

fn ask_by_udp(address: Ipv4Addr, port: u16) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.send_to(b"?", (address, port)).unwrap();
    let mut buffer = [0; 64];
    let Ok((len, from)) = socket.recv_from(&mut buffer) else {
        return String::new();
    };
    assert_eq!((from.ip(), from.port()), (IpAddr::V4(address), port));
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

/// A machine outside: a namespace behind a pair of its own.
struct Outside;

impl Outside {
    const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    fn new() -> Outside {
        let _ = Command::new("ip")
            .args(["netns", "del", "hulloutside"])
            .output();
        for line in [
            "netns add hulloutside",
            "link add hulltestx type veth peer name up netns hulloutside",
            "addr add 198.51.100.1/24 dev hulltestx",
            "link set hulltestx up",
            "-n hulloutside addr add 198.51.100.2/24 dev up",
            "-n hulloutside link set dev up up",
            "-n hulloutside route add default via 198.51.100.1",
        ] {
            ip(&line.split(' ').collect::<Vec<_>>());
        }
        // As on a host whose uplink it is.
        std::fs::write("/proc/sys/net/ipv4/conf/hulltestx/forwarding", "1").unwrap();
        Outside
    }

    fn asks(&self, address: Ipv4Addr, port: u16) -> String {
        let script = format!("timeout 2 bash -c 'cat < /dev/tcp/{address}/{port}' 2>/dev/null");
        let done = Command::new("ip")
            .args(["netns", "exec", "hulloutside", "bash", "-c", &script])
            .output()
            .unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    /// Sends the host's packets for this address this way, whatever address that is.
    fn route(&self, to: &str) {
        let line = format!("-n hulloutside route add {to} via {}", Outside::HOST);
        ip(&line.split(' ').collect::<Vec<_>>());
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        ip(&["netns", "del", "hulloutside"]);
    }
}

#[test]
#[ignore = "needs root"]
fn a_published_port_is_reached_by_every_address_of_the_host_and_only_by_them() {
    let host = Host::new(20);
    let outside = Outside::new();
    let wanted = [
        publish(Transport::Tcp, None),
        publish(Transport::Udp, None),
        publish(Transport::Tcp, Some(Ipv4Addr::LOCALHOST)),
        publish(Transport::Tcp, Some(Outside::HOST)),
    ];
    let claim = Claim {
        publish: &wanted,
        ..Claim::default()
    };
    let web = Container::new(&host.network(), 0x200, &claim);
    let other = Container::new(&host.network(), 0x201, &Claim::default());
    let gateway = web.attachment.interface.gateway.unwrap();
    let [any, local, one, udp]: [Published; 4] = web.published().try_into().unwrap();
    assert_eq!(any.host_address, Ipv4Addr::UNSPECIFIED);
    assert_eq!(
        (local.host_address, one.host_address),
        (Ipv4Addr::LOCALHOST, Outside::HOST)
    );
    let any = any.host_port;

    // From outside, as the one it is.
    let as_itself = format!("c200 {}", Outside::OWN);
    assert_eq!(outside.asks(Outside::HOST, any), as_itself);
    assert_eq!(outside.asks(Outside::HOST, one.host_port), as_itself);
    assert_eq!(outside.asks(Outside::HOST, local.host_port), "");
    // Not around the host's ports, nor to its loopback addresses.
    outside.route("127.0.0.0/8");
    assert_eq!(outside.asks(web.address(), HTTP), "");
    for port in [any, local.host_port] {
        assert_eq!(outside.asks(Ipv4Addr::LOCALHOST, port), "");
    }

    // From the host.
    let by_loopback = format!("c200 {gateway}");
    assert_eq!(ask(Ipv4Addr::LOCALHOST, any), by_loopback);
    assert_eq!(ask(Ipv4Addr::new(127, 9, 9, 9), any), by_loopback);
    assert_eq!(ask(Ipv4Addr::LOCALHOST, local.host_port), by_loopback);
    assert_eq!(ask(Outside::HOST, local.host_port), "");
    assert_eq!(ask(gateway, any), by_loopback);
    assert_eq!(
        ask(Outside::HOST, one.host_port),
        format!("c200 {}", Outside::HOST)
    );
    assert_eq!(
        ask_by_udp(Ipv4Addr::LOCALHOST, udp.host_port),
        format!("{by_loopback} ?")
    );
    assert_eq!(
        ask_by_udp(Outside::HOST, udp.host_port),
        format!("c200 {} ?", Outside::HOST)
    );

    // From itself and from its neighbour, by the host's addresses and by its own.
    for container in [&web, &other] {
        for address in [gateway, Outside::HOST] {
            assert_eq!(container.asks(address, any), by_loopback);
        }
        assert_eq!(container.asks(Outside::HOST, one.host_port), by_loopback);
    }
    assert_eq!(
        other.asks(web.address(), HTTP),
        format!("c200 {}", other.address())
    );

    // The port is taken, for us and for others.
    let again = Publish {
        host_ports: Some((any, any)),
        ..wanted[0]
    };
    let claim = Claim {
        publish: &[again],
        ..Claim::default()
    };
    let refused = host.network().attach(&id(0x202), &claim).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("Bind for 0.0.0.0:{any} failed: port is already allocated")
    );
    assert!(TcpListener::bind((Outside::HOST, any)).is_err());

    let neighbour = other.address();
    web.leave();
    assert_eq!(ask(Ipv4Addr::LOCALHOST, any), "");
    let listener = TcpListener::bind((Outside::HOST, any)).unwrap();
    drop(listener);
    assert!(!host.rules().unwrap().contains(&format!(". {any} :")));
    assert_eq!(ask(neighbour, HTTP), format!("c201 {gateway}"));
    other.leave();
    host.expect_nothing_left();
}

/// A guest whose packets for the host's loopback addresses are given to the bridge, which routes them.
#[test]
#[ignore = "needs root"]
fn a_container_never_reaches_the_hosts_loopback() {
    let host = Host::new(21);
    let wanted = [publish(Transport::Tcp, None)];
    let claim = Claim {
        publish: &wanted,
        ..Claim::default()
    };
    let guest = Container::new(&host.network(), 0x210, &claim);
    let gateway = guest.attachment.interface.gateway.unwrap();
    assert_eq!(
        ask(Ipv4Addr::LOCALHOST, guest.published()[0].host_port),
        format!("c210 {gateway}")
    );
    // What a service of the host's hears on its loopback, and on all addresses.
    let private = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let open = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for socket in [&private, &open] {
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
    }
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let script = format!(
        "name=$(ls /sys/class/net | grep -v lo); echo 1 > /proc/sys/net/ipv4/conf/$name/route_localnet
         ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 table local; ip route del local 127.0.0.1 table local
         ip route add 127.0.0.0/8 via {gateway} src {address}; ip route get 127.0.0.1 | head -1
         for to in 127.0.0.1 127.0.0.53; do echo $to > /dev/udp/$to/{open}; echo $to > /dev/udp/$to/{private}; done
         timeout 1 bash -c 'cat < /dev/tcp/127.0.0.1/{tcp} && echo connected'; timeout 1 bash -c 'cat < /dev/tcp/127.0.0.1/{published}'",
        address = guest.address(),
        private = port(&private),
        open = port(&open),
        tcp = tcp.local_addr().unwrap().port(),
        published = guest.published()[0].host_port,
    );
    let route = guest.inside(&script);
    assert!(
        route.starts_with(&format!("127.0.0.1 via {gateway}")),
        "the attack is none: {route}"
    );
    assert_eq!(route.lines().count(), 1, "{route}");
    let mut buffer = [0; 64];
    for socket in [&private, &open] {
        let heard = socket.recv_from(&mut buffer);
        assert!(heard.is_err(), "the host's loopback was reached: {heard:?}");
    }
    // The host's other addresses are reached: the attack fails for the address alone.
    guest.inside(&format!("echo hello > /dev/udp/{gateway}/{}", port(&open)));
    assert_eq!(
        open.recv_from(&mut buffer).unwrap().1.ip(),
        IpAddr::V4(guest.address())
    );
    guest.leave();
    host.expect_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn ports_of_a_killed_holder_lead_nowhere_and_those_of_the_living_come_back_with_the_table() {
    let host = Host::new(22);
    let wanted = [publish(Transport::Tcp, None)];
    let claim = Claim {
        publish: &wanted,
        ..Claim::default()
    };
    let web = Container::new(&host.network(), 0x220, &claim);
    let port = web.published()[0].host_port;
    // Its monitor is killed: what is dropped here is what the kernel takes away.
    let dead = host.network().attach(&id(0x221), &claim).unwrap();
    let dead_port = dead.lease.ports()[0].host_port;
    drop(dead);
    assert!(
        host.rules()
            .unwrap()
            .contains(&format!("tcp . {dead_port} :"))
    );
    host.network().sweep().unwrap();
    let rules = host.rules().unwrap();
    assert!(!rules.contains(&format!(". {dead_port} :")), "{rules}");
    assert!(rules.contains(&format!("tcp . {port} :")), "{rules}");

    // Somebody flushes the rules; the next attach finds the bridge as an earlier version would have left it.
    let remembered = host.dir.path().join("network/bridge.json");
    let text = std::fs::read_to_string(&remembered).unwrap();
    std::fs::write(&remembered, text.replace("\"rules\":1", "\"rules\":0")).unwrap();
    let status = Command::new("nft")
        .args(["delete", "table", "ip", &host.bridge])
        .status();
    assert!(status.unwrap().success());
    let next = host
        .network()
        .attach(&id(0x222), &Claim::default())
        .unwrap();
    let gateway = next.interface.gateway.unwrap();
    assert_eq!(ask(gateway, port), format!("c220 {gateway}"));
    next.lease.release().unwrap();
    web.leave();
    host.expect_nothing_left();
}
