//! The process of a network: hull-net. Of a bridge it answers the names; of an ordinary user's network it is all.
//!
//! ```text
//!  no hull-net --ensure: sockets made, launched--> hull-net, locks dns.lock
//!     ^                                                 |      |
//!     '------------- killed, or ended by itself --------'      '-- of a bridge: other resolvers, another build: ensure
//!     '------------- end: the network is taken down ----'          ends it and starts another
//! ```
//!
//! Files in the network's folder: `dns.lock`, locked (flock) by the hull-net that lives; `dns.json`, which says what it
//! was started with and its number; `members`, the socket by which sandboxes join a switch. All are used under the
//! network's lock alone, but for connections. hull-net has no descriptor that can write to them, so that one in a
//! container's hands cannot name another process to be killed.
//!
//! A bridge's sockets are bound to its interface: what does not come by it is not heard, and nothing is sent but by it,
//! so that the host itself is not answered. A switch goes on with the resolvers that it was started with for as long as
//! it has members: they would lose their connections with it.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::net::{Adjacent, Descriptor, DnsServer, MAX_ADJACENT, MAX_MEMBERS, Names, Switch};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use sys::interface::Interfaces;
use sys::mount::{AsUserError, Attributes, Tree};

use crate::Host;
use crate::subnet::Subnet;

/// The port that resolvers ask.
const PORT: u16 = 53;
/// What the socket for datagrams holds, in bytes: bursts of a few thousand queries.
const RECEIVE_BUFFER: usize = 4 << 20;
/// MOUNT_ATTR_* of what hull-net gets of the folder of leases (mount_setattr(2)).
const READ_ONLY: u64 = 0x1 | 0x2 | 0x4 | 0x8;

/// Why a network has no hull-net.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error("could not access {path}, by which a network has one hull-net")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder of leases cannot be shown to hull-net.
    #[error("could not make a mount of {path} for the network's hull-net")]
    Mount {
        /// Which.
        path: PathBuf,
        /// Why.
        source: AsUserError,
    },
    /// The address is another process's.
    #[error(
        "another DNS server of this host has port {PORT} of {0}, where the network's is to be: keep it from \
         listening on every address (dnsmasq: bind-dynamic; unbound, named: their lists of interfaces)"
    )]
    AddressInUse(Ipv4Addr),
    /// A socket could not be made.
    #[error("could not listen on port {PORT} of {address} for the network's DNS")]
    Socket {
        /// The gateway.
        address: Ipv4Addr,
        /// Why.
        source: io::Error,
    },
    /// The one that runs could not be ended.
    #[error("could not end the network's hull-net, process {pid}")]
    End {
        /// Its number.
        pid: i32,
        /// Why.
        source: io::Error,
    },
    /// A hull-net lives of which the number is unknown.
    #[error(
        "{0} is missing or damaged, which says which process is the network's hull-net: end that process"
    )]
    Damaged(PathBuf),
    /// hull-net was not started.
    #[error("could not start the network's hull-net")]
    Launch(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a hull-net is to know and to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    /// The network's name.
    pub(crate) domain: String,
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) resolvers: Vec<SocketAddr>,
    pub(crate) part: Part<'a>,
}

/// What of its network it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The DNS server of this bridge, which knows the names of these networks as well.
    Names {
        bridge: &'a str,
        adjacent: Vec<Beside>,
    },
    /// All.
    Switch {
        mac: [u8; 6],
        mtu: u16,
        internal: bool,
    },
}

/// A network beside, and its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Its descriptor is of no meaning yet.
    pub(crate) adjacent: Adjacent,
    pub(crate) dir: PathBuf,
}

/// What a hull-net serves. The numbers of descriptors in it are places in [`Launch::descriptors`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Service {
    /// The names of a bridge.
    Names(DnsServer),
    /// A network.
    Switch {
        /// What its DNS server says.
        names: Names,
        /// What else it is.
        switch: Switch,
    },
}

/// A hull-net that is to be started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What it serves.
    pub service: Service,
    /// Its descriptors.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// The place among them of what it has to hold for as long as it lives.
    pub lock: Descriptor,
}

/// For how a hull-net is started; its number.
pub(crate) type Launched = Result<Pid, Box<dyn std::error::Error + Send + Sync>>;

/// What a hull-net was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    pid: i32,
    build: String,
    /// Earlier versions wrote another word.
    #[serde(default)]
    service: Option<Service>,
}

/// Places of descriptors.
const LEASES: Descriptor = Descriptor(0);
const LOCKED: Descriptor = Descriptor(1);
const FIRST: Descriptor = Descriptor(2);
const SECOND: Descriptor = Descriptor(3);
/// Of the first network beside; the others follow.
const BESIDE: u32 = 4;

impl Wanted<'_> {
    fn service(&self) -> Service {
        let names = Names {
            leases: LEASES,
            network: self.subnet.network,
            prefix_len: self.subnet.prefix_len,
            gateway: self.gateway,
            domain: self.domain.clone(),
            resolvers: self.resolvers.clone(),
        };
        match &self.part {
            Part::Names { adjacent, .. } => Service::Names(DnsServer {
                datagrams: FIRST,
                listener: SECOND,
                names,
                adjacent: (BESIDE..)
                    .zip(adjacent)
                    .map(|(number, beside)| Adjacent {
                        leases: Descriptor(number),
                        ..beside.adjacent.clone()
                    })
                    .collect(),
            }),
            Part::Switch { mac, mtu, internal } => Service::Switch {
                names,
                switch: Switch {
                    members: FIRST,
                    mac: *mac,
                    mtu: *mtu,
                    internal: *internal,
                },
            },
        }
    }

    /// Whether a hull-net with this record may go on.
    fn is_served_by(&self, record: &Record) -> bool {
        match (self.service(), &record.service) {
            (Service::Names(wanted), Some(Service::Names(known))) => {
                let has = |one: &Adjacent| known.adjacent.iter().any(|it| it.id == one.id);
                known.names == wanted.names
                    && wanted.adjacent.iter().all(has)
                    && record.build == protocol::BUILD
            }
            (Service::Switch { .. }, known) => matches!(known, Some(Service::Switch { .. })),
            _ => false,
        }
    }

    /// Keeps what the one before knew of networks beside: other members are on those.
    fn add_adjacent_of(&mut self, record: &Record, dir: &Path) {
        let (Part::Names { adjacent, .. }, Some(Service::Names(known))) =
            (&mut self.part, &record.service)
        else {
            return;
        };
        for one in &known.adjacent {
            let is_known = adjacent.iter().any(|it| it.adjacent.id == one.id);
            let dir = dir.with_file_name(&one.id);
            if !is_known && crate::names::is_id(&one.id) && dir.is_dir() {
                adjacent.push(Beside {
                    adjacent: one.clone(),
                    dir,
                });
            }
        }
        adjacent.truncate(MAX_ADJACENT);
    }
}

/// Has a hull-net be what is wanted, unless one is. To be called under the network's lock, with the bridge in place if it
/// has one.
pub(crate) fn ensure(
    dir: &Path,
    mut wanted: Wanted<'_>,
    launch: impl FnOnce(&Launch<'_>) -> Launched,
) -> Result<(), Error> {
    let lock = match try_lock(dir)? {
        Some(lock) => lock,
        None => {
            if let Some(record) = record(dir)? {
                if wanted.is_served_by(&record) {
                    return Ok(());
                }
                wanted.add_adjacent_of(&record, dir);
            }
            end(dir)?;
            try_lock(dir)?.ok_or_else(|| file(dir, LOCK)(Errno::AGAIN.into()))?
        }
    };
    let sockets: Vec<OwnedFd> = match &wanted.part {
        Part::Names { bridge, .. } => {
            let (datagrams, listener) = sockets(wanted.gateway, bridge)?;
            vec![datagrams.into(), listener.into()]
        }
        Part::Switch { .. } => {
            let backlog = MAX_MEMBERS as i32;
            let listener = sys::packet::listen_in(dir, MEMBERS, backlog);
            vec![listener.map_err(file(dir, MEMBERS))?]
        }
    };
    let leases = leases_of(dir)?;
    let mut beside = Vec::new();
    if let Part::Names { adjacent, .. } = &wanted.part {
        for one in adjacent {
            beside.push(leases_of(&one.dir)?);
        }
    }
    let mut descriptors = vec![leases.as_fd(), lock.as_fd()];
    descriptors.extend(sockets.iter().chain(&beside).map(AsFd::as_fd));
    let service = wanted.service();
    let pid = launch(&Launch {
        service: service.clone(),
        descriptors: &descriptors,
        lock: LOCKED,
    });
    let record = Record {
        pid: pid.map_err(Error::Launch)?.as_raw_pid(),
        build: protocol::BUILD.to_owned(),
        service: Some(service),
    };
    store(dir, &record).inspect_err(|_| kill_quietly(record.pid))
}

/// Ends the hull-net of a network, if there is one. To be called under the network's lock.
pub(crate) fn end(dir: &Path) -> Result<(), Error> {
    let path = dir.join(LOCK);
    if !path.try_exists().map_err(file(dir, LOCK))? {
        return Ok(());
    }
    match record(dir)? {
        Some(Record { pid, .. }) => {
            kill(dir, pid).map_err(|source| Error::End { pid, source })?;
        }
        None if try_lock(dir)?.is_none() => return Err(Error::Damaged(dir.join(RECORD))),
        None => {}
    }
    for name in [RECORD, LOCK, MEMBERS] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file(dir, name)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

const LOCK: &str = "dns.lock";
const RECORD: &str = "dns.json";
/// The socket by which sandboxes join a switch.
pub(crate) const MEMBERS: &str = "members";

/// Kills the process of that number if it is the hull-net that lives, and returns when it has ended.
fn kill(dir: &Path, pid: i32) -> io::Result<()> {
    let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // The number was hull-net's for as long as the lock has been held. If it is held now, the process that was opened
    // before is hull-net; if it is free, hull-net is gone, and the number may be another's.
    if try_lock(dir).map_err(io::Error::other)?.is_some() {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, None))?;
    Ok(())
}

/// Of one that was just started, whose number nothing else can have yet.
fn kill_quietly(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// The lock, for reading alone; `None` while a hull-net has it.
fn try_lock(dir: &Path) -> Result<Option<OwnedFd>, Error> {
    let failed = |errno: Errno| file(dir, LOCK)(errno.into());
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let lock = rustix::fs::open(dir.join(LOCK), flags, mode).map_err(failed)?;
    let taken =
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::NonBlockingLockExclusive));
    match taken {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(errno)),
    }
}

/// What the hull-net that lives was started with. A record that cannot be read is none.
fn record(dir: &Path) -> Result<Option<Record>, Error> {
    match std::fs::read(dir.join(RECORD)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(dir, RECORD)(error)),
    }
}

fn store(dir: &Path, record: &Record) -> Result<(), Error> {
    let new = dir.join(".dns.json");
    let written = serde_json::to_vec(record)
        .map_err(io::Error::from)
        .and_then(|bytes| std::fs::write(&new, bytes))
        .and_then(|()| std::fs::rename(&new, dir.join(RECORD)));
    written.map_err(file(dir, RECORD))
}

/// Sockets at the gateway, of the bridge's interface.
fn sockets(address: Ipv4Addr, bridge: &str) -> Result<(UdpSocket, TcpListener), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse(address),
        _ => Error::Socket { address, source },
    };
    let place = SocketAddrV4::new(address, PORT);
    let datagrams = UdpSocket::bind(place).map_err(failed)?;
    let listener = TcpListener::bind(place).map_err(failed)?;
    for socket in [datagrams.as_fd(), listener.as_fd()] {
        Interfaces::bind_socket(socket, bridge).map_err(failed)?;
    }
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&datagrams, RECEIVE_BUFFER)
        .map_err(|errno| failed(errno.into()))?;
    Ok((datagrams, listener))
}

/// The leases of the network with this folder, for a hull-net.
pub(crate) fn leases_of(dir: &Path) -> Result<OwnedFd, Error> {
    detached(&dir.join("leases"))
}

/// A read-only mount of the folder of leases that has no parent. Any user may read what is in it who has it.
fn detached(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |source| Error::Mount {
        path: path.to_owned(),
        source,
    };
    open_to_readers(path).map_err(|error| failed(error.into()))?;
    // The user's folder may be reached by links.
    let path = &path.canonicalize().map_err(|error| failed(error.into()))?;
    let attributes = Attributes {
        set: READ_ONLY,
        // MS_PRIVATE.
        propagation: 1 << 18,
        ..Attributes::default()
    };
    let tree = Tree {
        path,
        recursive: false,
        changes: &[(attributes, false)],
    };
    match Host::of_this_user() {
        Host::Bridge => sys::mount::detached(tree).map_err(|error| failed(error.into())),
        Host::Switch => sys::mount::detached_as_user(tree).map_err(failed),
    }
}

/// hull-net has a user of its own: it needs the right to search the folder, which lies in one that root alone may
/// enter.
fn open_to_readers(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = File::open(path)?;
    folder.set_permissions(std::fs::Permissions::from_mode(0o755))
}

fn file(dir: &Path, name: &str) -> impl Fn(io::Error) -> Error + use<> {
    let path = dir.join(name);
    move |source| Error::File {
        path: path.clone(),
        source,
    }
}
