//! The conversation with the warden: what is served.

use std::os::fd::OwnedFd;

use protocol::net::{
    Adjacent, Descriptor, FromNet, MAX_PACKET_LEN, MAX_RESOLVERS, Names, Switch, ToNet,
};
use protocol::{BUILD, chain};
use rustix::process::Resource;
use sys::packet::{self, Descriptors};

use crate::confine;
use crate::dns::{Dns, Forwarder, Leases, Name, Part, Zone};
use crate::frame::Mac;
use crate::network::Config;
use crate::network::policy::Policy;
use crate::serve::{Front, Server};

/// The least MTU of a network: what IPv4 asks of every host (RFC 791, 3.1).
const MIN_MTU: u16 = 576;
/// Descriptors that are counted on where there is no limit (RLIMIT_NOFILE).
const MAX_DESCRIPTORS: usize = 1 << 16;
/// Bytes of memory that are counted on where the limit (RLIMIT_DATA) is beyond: half of them are for TCP's connections.
const MAX_MEMORY: usize = 1 << 30;

/// Why hull-net gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A packet that could not be received.
    #[error("the warden's socket cannot be read")]
    Receive(#[from] packet::Error),
    /// A packet that could not be sent.
    #[error("the warden's socket cannot be written")]
    Send(#[source] std::io::Error),
    /// The warden is gone before it has said what to do.
    #[error("the warden has said nothing")]
    Silence,
    /// A packet that is not the protocol's.
    #[error("the warden sent what is not a message of the protocol")]
    Message(#[from] serde_json::Error),
    /// The warden is of another build.
    #[error("the warden is of build {theirs}, hull-net of {BUILD}: install both from one build")]
    Build {
        /// What it said.
        theirs: String,
    },
    /// A packet came without a descriptor that it speaks of.
    #[error("a message of the warden's came without its descriptor")]
    Descriptor,
    /// What a network without a bridge cannot have.
    #[error("the network cannot have the MTU {mtu} with the gateway's MAC address {mac:?}")]
    Switch {
        /// Its longest packet.
        mtu: u16,
        /// The gateway's address.
        mac: Mac,
    },
    /// More resolvers than are asked.
    #[error("the network has {0} resolvers, of at most {MAX_RESOLVERS}")]
    Resolvers(usize),
    /// The folder of leases.
    #[error("the folder of leases cannot be read")]
    Leases(#[source] std::io::Error),
    /// Sockets or the filter.
    #[error("hull-net could not be set up")]
    SetUp(#[source] std::io::Error),
    /// The loop has ended.
    #[error("hull-net cannot wait for its sockets")]
    Serve(#[source] std::io::Error),
}

/// Takes what is to be served from the warden, and serves it for ever.
pub fn run(socket: OwnedFd) -> Result<std::convert::Infallible, Error> {
    let (server, locks) = match start(&socket) {
        Ok(started) => started,
        Err(error) => {
            // The warden reads it if it is there; the error is reported in any case.
            let message = chain(&error);
            let _ = send(&socket, &FromNet::Refused { message });
            return Err(error);
        }
    };
    send(&socket, &FromNet::Ready)?;
    drop(socket);
    let _held = locks;
    server.run().map_err(Error::Serve)
}

/// Everything but the serving. The descriptors that come back are to be kept.
fn start(socket: &OwnedFd) -> Result<(Server, Vec<OwnedFd>), Error> {
    let mut buffer = [0; MAX_PACKET_LEN];
    let received = packet::receive(socket, &mut buffer)?;
    if received.len == 0 {
        return Err(Error::Silence);
    }
    let message = serde_json::from_slice(&buffer[..received.len])?;
    let (ToNet::Start { build, .. } | ToNet::Switch { build, .. }) = &message;
    if build != BUILD {
        let theirs = build.clone();
        return Err(Error::Build { theirs });
    }
    let mut descriptors = Descriptors::new(received.descriptors);
    let (dns, front, locks) = match message {
        ToNet::Start { dns, locks, .. } => {
            let (datagrams, listener) = (dns.datagrams, dns.listener);
            let mut names = serve_names(dns.names, &mut descriptors)?;
            for adjacent in dns.adjacent {
                let leases = take(&mut descriptors, adjacent.leases)?;
                let leases = Leases::open(leases).map_err(Error::Leases)?;
                names.add_adjacent(part_of(adjacent, leases));
            }
            let datagrams = take_socket(&mut descriptors, datagrams)?;
            let listener = take_socket(&mut descriptors, listener)?;
            (names, Front::Bridge(datagrams, listener), locks)
        }
        ToNet::Switch {
            names,
            switch,
            locks,
            ..
        } => {
            let config = config(&names, switch, &mut descriptors)?;
            let names = serve_names(names, &mut descriptors)?;
            (names, Front::Switch(config), locks)
        }
    };
    let locks = locks.into_iter().map(|lock| take(&mut descriptors, lock));
    let locks = locks.collect::<Result<Vec<_>, _>>()?;
    let server = Server::new(dns, front).map_err(Error::SetUp)?;
    // Nothing that a client has sent has been read yet.
    confine::install_filter().map_err(Error::SetUp)?;
    Ok((server, locks))
}

fn serve_names(names: Names, descriptors: &mut Descriptors) -> Result<Dns, Error> {
    if names.resolvers.len() > MAX_RESOLVERS {
        return Err(Error::Resolvers(names.resolvers.len()));
    }
    let domain = Name::parse(&names.domain);
    let leases = Leases::open(take(descriptors, names.leases)?).map_err(Error::Leases)?;
    let subnet = (names.network, names.prefix_len);
    let zone = Zone::new(Part::new(
        String::new(),
        leases,
        domain,
        subnet,
        names.gateway,
    ));
    let forwarder = Forwarder::new(names.resolvers, random);
    Ok(Dns::new(zone, forwarder))
}

/// An adjacent network with these leases.
pub(crate) fn part_of(adjacent: Adjacent, leases: Leases) -> Part {
    Part::new(
        adjacent.id,
        leases,
        Name::parse(&adjacent.domain),
        (adjacent.network, adjacent.prefix_len),
        adjacent.gateway,
    )
}

fn config(names: &Names, switch: Switch, descriptors: &mut Descriptors) -> Result<Config, Error> {
    let (mtu, mac) = (switch.mtu, Mac(switch.mac));
    if mtu < MIN_MTU || mac.is_multicast() {
        return Err(Error::Switch { mtu, mac });
    }
    let limit = |resource| rustix::process::getrlimit(resource).current;
    let (files, memory) = (limit(Resource::Nofile), limit(Resource::Data));
    Ok(Config {
        members: take_socket(descriptors, switch.members)?,
        policy: Policy {
            gateway: names.gateway,
            network: names.network,
            prefix_len: names.prefix_len,
            internal: switch.internal,
        },
        mac,
        mtu,
        descriptors: files.map_or(MAX_DESCRIPTORS, |it| it as usize),
        memory: memory.map_or(MAX_MEMORY, |it| it as usize).min(MAX_MEMORY),
    })
}

/// An identifier that cannot be guessed (RFC 5452, 9.2).
fn random() -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    sys::random::fill(&mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

/// One that does not block.
fn take_socket(descriptors: &mut Descriptors, socket: Descriptor) -> Result<OwnedFd, Error> {
    let socket = take(descriptors, socket)?;
    sys::nonblocking::set_nonblocking(&socket).map_err(Error::SetUp)?;
    Ok(socket)
}

fn take(descriptors: &mut Descriptors, Descriptor(index): Descriptor) -> Result<OwnedFd, Error> {
    descriptors.take(index).ok_or(Error::Descriptor)
}

fn send(socket: &OwnedFd, message: &FromNet) -> Result<(), Error> {
    let bytes = serde_json::to_vec(message)?;
    packet::write(socket, &bytes).map_err(Error::Send)
}
