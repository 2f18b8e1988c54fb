//! The conversation with the warden: what is served.

use std::os::fd::OwnedFd;

use protocol::net::{Descriptor, DnsServer, FromNet, MAX_PACKET_LEN, MAX_RESOLVERS, ToNet};
use protocol::{BUILD, chain};
use sys::packet::{self, Descriptors};

use crate::confine;
use crate::dns::{Dns, Forwarder, Leases, Name, Zone};
use crate::serve::Server;

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
    /// A network without a bridge.
    #[error("hull-net cannot be a switch yet")]
    Unserved,
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
    let ToNet::Start { build, dns, locks } = serde_json::from_slice(&buffer[..received.len])?
    else {
        return Err(Error::Unserved);
    };
    if build != BUILD {
        return Err(Error::Build { theirs: build });
    }
    let mut descriptors = Descriptors::new(received.descriptors);
    let locks = locks.into_iter().map(|lock| take(&mut descriptors, lock));
    let locks = locks.collect::<Result<Vec<_>, _>>()?;
    let server = serve_dns(dns, &mut descriptors)?;
    // Nothing that a client has sent has been read yet.
    confine::install_filter().map_err(Error::SetUp)?;
    Ok((server, locks))
}

fn serve_dns(dns: DnsServer, descriptors: &mut Descriptors) -> Result<Server, Error> {
    let names = dns.names;
    if names.resolvers.len() > MAX_RESOLVERS {
        return Err(Error::Resolvers(names.resolvers.len()));
    }
    let domain = Name::parse(&names.domain);
    let leases = Leases::open(take(descriptors, names.leases)?).map_err(Error::Leases)?;
    let subnet = (names.network, names.prefix_len);
    let zone = Zone::new(leases, domain, subnet, names.gateway);
    let forwarder = Forwarder::new(names.resolvers, random);
    let datagrams = take(descriptors, dns.datagrams)?;
    let listener = take(descriptors, dns.listener)?;
    for socket in [&datagrams, &listener] {
        sys::nonblocking::set_nonblocking(socket).map_err(Error::SetUp)?;
    }
    Server::new(Dns::new(zone, forwarder), datagrams, listener).map_err(Error::SetUp)
}

/// An identifier that cannot be guessed (RFC 5452, 9.2).
fn random() -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    sys::random::fill(&mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

fn take(descriptors: &mut Descriptors, Descriptor(index): Descriptor) -> Result<OwnedFd, Error> {
    descriptors.take(index).ok_or(Error::Descriptor)
}

fn send(socket: &OwnedFd, message: &FromNet) -> Result<(), Error> {
    let bytes = serde_json::to_vec(message)?;
    packet::write(socket, &bytes).map_err(Error::Send)
}
