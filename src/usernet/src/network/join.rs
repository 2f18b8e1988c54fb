//! What sandboxes say on their connections.

use std::os::fd::OwnedFd;
use std::time::Instant;

use protocol::BUILD;
use protocol::net::{
    Descriptor, FromSwitch, ListeningPort, MAX_ADJACENT, MAX_PACKET_LEN, MAX_PORTS,
    MAX_PORTS_PER_PACKET, ToSwitch,
};
use rustix::io::Errno;
use sys::packet::{self, Descriptors};

use super::Network;
use crate::dns::Leases;
use crate::frame::Mac;
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// Why a sandbox is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("its packet is not one of the protocol's")]
    Message(#[from] serde_json::Error),
    #[error("it is of build {theirs}, hull-net of {BUILD}: install both from one build")]
    Build { theirs: String },
    #[error("its message came without its descriptor")]
    Descriptor,
    #[error("it has joined already")]
    Twice,
    #[error("it has ports or other networks and has not joined")]
    Ports,
    #[error("it has more ports, or other networks, than there can be")]
    TooMany,
    #[error("{0:?} cannot be a member's address")]
    Mac(Mac),
    #[error("{0} is not an address for members of the network")]
    Address(std::net::Ipv4Addr),
    #[error("another member has the address {address} or {mac:?}")]
    Taken {
        address: std::net::Ipv4Addr,
        mac: Mac,
    },
    #[error("its sockets cannot be served")]
    Socket(#[from] std::io::Error),
}

impl Network {
    /// A sandbox has said something, or has gone.
    pub(super) fn member_says(&mut self, poller: &Poller, now: Instant, number: u64) {
        let Some(connection) = self.members.connection(number) else {
            return;
        };
        let mut buffer = [0; MAX_PACKET_LEN];
        let received = match packet::receive(connection, &mut buffer) {
            Ok(received) => received,
            Err(packet::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return;
            }
            Err(_) => return self.leave(poller, number),
        };
        if received.len == 0 {
            return self.leave(poller, number);
        }
        let descriptors = Descriptors::new(received.descriptors);
        let answer = match self.take(poller, now, number, &buffer[..received.len], descriptors) {
            Ok(()) => FromSwitch::Joined,
            Err(refusal) => FromSwitch::Refused {
                message: format!(
                    "the sandbox cannot join the network: {}",
                    protocol::chain(&refusal)
                ),
            },
        };
        let told = self.members.connection(number).map(|connection| {
            let bytes = serde_json::to_vec(&answer).map_err(std::io::Error::from)?;
            packet::write(connection, &bytes)
        });
        // One that does not take its answer is gone, or will be.
        if answer != FromSwitch::Joined || !matches!(told, Some(Ok(()))) {
            self.leave(poller, number);
        }
    }

    fn take(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        message: &[u8],
        mut descriptors: Descriptors,
    ) -> Result<(), Refusal> {
        let joined = self.members.get(number).is_some();
        let ports = match serde_json::from_slice(message)? {
            ToSwitch::Join {
                build,
                wire,
                mac,
                address,
                ports,
            } => {
                if build != BUILD {
                    return Err(Refusal::Build { theirs: build });
                }
                if joined {
                    return Err(Refusal::Twice);
                }
                let wire = descriptor(&mut descriptors, wire)?;
                sys::nonblocking::set_nonblocking(&wire)?;
                self.join(poller, now, number, Mac(mac), address, wire)?;
                ports
            }
            ToSwitch::Adjacent { adjacent } if joined => {
                let leases = descriptor(&mut descriptors, adjacent.leases)?;
                let part = crate::control::part_of(adjacent, Leases::of(leases));
                if self.adjacent.len() >= MAX_ADJACENT {
                    return Err(Refusal::TooMany);
                }
                self.adjacent.push(part);
                return Ok(());
            }
            ToSwitch::Ports { ports } if joined => ports,
            ToSwitch::Ports { .. } | ToSwitch::Adjacent { .. } => return Err(Refusal::Ports),
        };
        if ports.len() > MAX_PORTS_PER_PACKET || self.ports.of(number) + ports.len() > MAX_PORTS {
            return Err(Refusal::TooMany);
        }
        for ListeningPort {
            socket,
            transport,
            container_port,
        } in ports
        {
            let socket = descriptor(&mut descriptors, socket)?;
            sys::nonblocking::set_nonblocking(&socket)?;
            self.ports
                .add(poller, number, socket, transport, container_port)?;
        }
        Ok(())
    }

    fn join(
        &mut self,
        poller: &Poller,
        now: Instant,
        number: u64,
        mac: Mac,
        address: std::net::Ipv4Addr,
        wire: OwnedFd,
    ) -> Result<(), Refusal> {
        if mac.is_multicast() || mac == self.common.mac || mac == Mac([0; 6]) {
            return Err(Refusal::Mac(mac));
        }
        let policy = &self.common.policy;
        if !policy.contains(address) || address == policy.gateway {
            return Err(Refusal::Address(address));
        }
        // As much as the host allows: a frame of 64 KiB has to fit, and several are better.
        match rustix::net::sockopt::set_socket_send_buffer_size(&wire, WIRE_BUFFER) {
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(Refusal::Socket(errno.into())),
        }
        poller.add(&wire, Key::Wire(number).number(), Interest::Read)?;
        match self.members.join(now, number, mac, address, wire) {
            true => Ok(()),
            false => Err(Refusal::Taken { address, mac }),
        }
    }
}

/// Bytes of frames on their way to a member.
const WIRE_BUFFER: usize = 1 << 20;

fn descriptor(
    descriptors: &mut Descriptors,
    Descriptor(index): Descriptor,
) -> Result<OwnedFd, Refusal> {
    descriptors.take(index).ok_or(Refusal::Descriptor)
}
