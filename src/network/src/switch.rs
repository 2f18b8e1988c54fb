//! A network of an ordinary user's: one hull-net, which is its switch, its gateway and its DNS server.
//!
//! ```text
//!  first sandbox --join_switch--> hull-net, launched; it listens in the network's folder
//!  each warden ----connection---> ToSwitch::Join: the other end of its VM's wire, its address, the sockets of its ports
//!  a warden ends: the connection closes, and the sandbox has left
//!  hull-net ends: its members' wardens see it, the first starts another, and each joins that with the wire that it kept
//! ```
//!
//! A sandbox joins under the network's lock: hull-net, which the last to leave ends under that lock, lives meanwhile.
//! What ends with a hull-net is every connection through it; addresses, ports and wires stay.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::net::{
    Descriptor, FromSwitch, ListeningPort, MAX_PACKET_LEN, MAX_PORTS_PER_PACKET, ToSwitch,
};
use protocol::record::Published;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::net::sockopt::set_socket_send_buffer_size;

use crate::attach::{self, Claim};
use crate::error::Error;
use crate::lease::Lease;
use crate::net::{self, Launch, Launched, Part};
use crate::ports::Held;
use crate::routes::Routes;
use crate::state::{Lock, State};
use crate::{Adjacent, Interface, Network, subnet};

/// How long hull-net may take to answer: it only looks at what it is given.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be under way on a wire, in bytes: as much as the kernel lets an ordinary user have (net.core.wmem_max).
const WIRE_BUFFER: usize = 4 << 20;

/// A sandbox's place on a network that is a hull-net.
#[derive(Debug)]
pub struct SwitchAttachment {
    /// For the sandbox's VM: a SOCK_SEQPACKET socket, non-blocking; packets as a tap's, with a vnet header of 12 bytes
    /// and all offloads.
    pub wire: OwnedFd,
    /// What the sandbox's end of the wire is to be.
    pub interface: Interface,
    /// To be kept as long as the sandbox lives, then released.
    pub lease: Lease,
}

/// What makes a sandbox a member of a hull-net.
#[derive(Debug)]
pub(crate) struct Member {
    /// The network's name.
    domain: String,
    interface: Interface,
    /// hull-net's end of the wire. It is kept, so that the VM does not see the end of a hull-net.
    wire: OwnedFd,
    /// It is one for as long as this is open.
    connection: Option<OwnedFd>,
    /// What else its sandbox is on.
    adjacent: Vec<Adjacent>,
}

impl Member {
    pub(crate) fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Says which networks its sandbox is on besides, now and whenever it joins another hull-net.
    pub(crate) fn tell_adjacent(&mut self, adjacent: Vec<Adjacent>) -> Result<(), Error> {
        self.adjacent = adjacent;
        match &self.connection {
            Some(connection) => tell_adjacent(connection, &self.adjacent),
            None => Ok(()),
        }
    }
}

impl Network {
    /// Gives the sandbox `id` an address and a wire to the hull-net of the network, which is called `domain`. `launch`
    /// starts one and gives its number, unless one lives.
    ///
    /// # Errors
    /// Addresses or ports that are not to be had; hull-net cannot be started, or refuses the sandbox.
    pub fn join_switch(
        &self,
        id: &str,
        claim: &Claim<'_>,
        domain: &str,
        launch: impl FnOnce(&Launch<'_>) -> Launched,
    ) -> Result<SwitchAttachment, Error> {
        let (mut lease, ((wire, member), interface)) = self.join(id, claim, |plug| {
            let (wire, theirs) = wire().map_err(Error::Talk)?;
            let mut member = Member {
                domain: domain.to_owned(),
                interface: plug.interface,
                wire: theirs,
                connection: None,
                adjacent: Vec::new(),
            };
            self.become_member(&mut member, plug.state, plug.ports, launch)?;
            Ok((wire, member))
        })?;
        lease.keep(member);
        Ok(SwitchAttachment {
            wire,
            interface,
            lease,
        })
    }

    /// Makes a sandbox a member again whose hull-net has ended.
    pub(crate) fn join_again(
        &self,
        member: &mut Member,
        ports: &Held,
        launch: impl FnOnce(&Launch<'_>) -> Launched,
    ) -> Result<(), Error> {
        let _lock = Lock::take(&self.dir)?;
        let state = State::load(&self.dir)?.ok_or(Error::Gone)?;
        self.become_member(member, &state, ports, launch)
    }

    /// To be called under the network's lock.
    fn become_member(
        &self,
        member: &mut Member,
        state: &State,
        ports: &Held,
        launch: impl FnOnce(&Launch<'_>) -> Launched,
    ) -> Result<(), Error> {
        let State { internal, mtu, .. } = *state;
        let mac = attach::mac(state.gateway());
        let part = Part::Switch { mac, mtu, internal };
        net::ensure(
            &self.dir,
            crate::wanted(&member.domain, state, part),
            launch,
        )?;
        let connection = sys::packet::connect_in(&self.dir, net::MEMBERS).map_err(Error::Talk)?;
        let all: Vec<_> = ports.published().iter().zip(ports.sockets()).collect();
        let mut parts = all.chunks(MAX_PORTS_PER_PACKET);
        let mut descriptors = vec![member.wire.as_fd()];
        let join = ToSwitch::Join {
            build: protocol::BUILD.to_owned(),
            wire: Descriptor(0),
            mac: member.interface.mac,
            address: member.interface.address,
            ports: listening(parts.next().unwrap_or_default(), &mut descriptors),
        };
        ask(&connection, &join, &descriptors)?;
        for part in parts {
            let mut descriptors = Vec::new();
            let ports = listening(part, &mut descriptors);
            ask(&connection, &ToSwitch::Ports { ports }, &descriptors)?;
        }
        tell_adjacent(&connection, &member.adjacent)?;
        member.connection = Some(connection);
        Ok(())
    }
}

/// What is remembered of the network, chosen for the first sandbox. There is nothing on the host to make.
pub(crate) fn ensure(network: &Network, lock: &Lock) -> Result<State, Error> {
    if let Some(state) = State::load(&network.dir)? {
        return Ok(state);
    }
    let state = match &network.definition {
        None => {
            let taken = Routes::read()?.networks;
            State::of(subnet::choose(&taken).ok_or(Error::NoFreeSubnet)?)
        }
        Some(definition) => {
            let own = State::of(definition.subnet);
            State {
                gateway: Some(definition.gateway),
                range: definition.ip_range,
                internal: definition.internal,
                mtu: definition.mtu.unwrap_or(own.mtu),
                ..own
            }
        }
    };
    state.store(&network.dir, lock)?;
    Ok(state)
}

/// Ends the network's hull-net, and forgets its addresses.
pub(crate) fn remove(network: &Network, lock: &Lock) -> Result<(), Error> {
    net::end(&network.dir)?;
    State::remove(&network.dir, lock)
}

fn tell_adjacent(connection: &OwnedFd, all: &[Adjacent]) -> Result<(), Error> {
    for one in all {
        if let Some(beside) = one.beside()? {
            let leases = readable(&net::leases_of(&beside.dir)?).map_err(Error::Talk)?;
            let adjacent = beside.adjacent;
            ask(
                connection,
                &ToSwitch::Adjacent { adjacent },
                &[leases.as_fd()],
            )?;
        }
    }
    Ok(())
}

/// The same folder, open to be read: a hull-net that serves opens none.
fn readable(folder: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(folder, ".", flags, Mode::empty())?)
}

fn wire() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = sys::packet::pair()?;
    for end in [&ours, &theirs] {
        sys::nonblocking::set_nonblocking(end)?;
        set_socket_send_buffer_size(end, WIRE_BUFFER)?;
    }
    Ok((ours, theirs))
}

fn listening<'a>(
    held: &[(&Published, &'a OwnedFd)],
    descriptors: &mut Vec<BorrowedFd<'a>>,
) -> Vec<ListeningPort> {
    let mut ports = Vec::new();
    for &(published, socket) in held {
        ports.push(ListeningPort {
            socket: Descriptor(descriptors.len() as u32),
            transport: published.port.transport,
            container_port: published.port.number,
        });
        descriptors.push(socket.as_fd());
    }
    ports
}

fn ask(member: &OwnedFd, request: &ToSwitch, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
    let told = serde_json::to_vec(request)
        .map_err(io::Error::from)
        .and_then(|bytes| sys::packet::send(member, &bytes, descriptors))
        .and_then(|()| answer(member));
    match told.map_err(Error::Talk)? {
        FromSwitch::Joined => Ok(()),
        FromSwitch::Refused { message } => Err(Error::Refused(message)),
    }
}

fn answer(member: &OwnedFd) -> io::Result<FromSwitch> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    let mut ready = [PollFd::new(member, PollFlags::IN)];
    rustix::io::retry_on_intr(|| {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()));
        poll(&mut ready, left.ok().as_ref())
    })?;
    if ready[0].revents().is_empty() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = [0; MAX_PACKET_LEN];
    let packet = sys::packet::receive(member, &mut buffer).map_err(io::Error::other)?;
    match packet.len {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => Ok(serde_json::from_slice(&buffer[..len])?),
    }
}
