//! How a member's connection begins, or why it does not.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::flows::Tuple;
use super::policy::Route;
use super::{Around, Common, sockets};
use crate::frame::{
    IPV4_LEN, Ipv4, MAX_HEADERS, Outgoing, Segment, TCP_LEN, checksum, flag, protocol, tcp,
};

/// ICMP's codes of "destination unreachable" (RFC 792).
const NET_UNREACHABLE: u8 = 0;
const HOST_UNREACHABLE: u8 = 1;
const PROHIBITED: u8 = 13;

/// A socket to where a member's SYN goes, and the DNS server's end of it.
pub(super) fn open(common: &Common, tuple: Tuple) -> (Result<OwnedFd, Errno>, Option<OwnedFd>) {
    let to = match common.policy.route(tuple.remote) {
        Route::Refused => return (Err(Errno::CONNREFUSED), None),
        Route::Dns => {
            return match sys::packet::stream_pair() {
                Ok((ours, theirs)) => {
                    let ready = [&ours, &theirs].map(sys::nonblocking::set_nonblocking);
                    match ready.into_iter().all(|it| it.is_ok()) {
                        true => (Ok(ours), Some(theirs)),
                        false => (Err(Errno::CONNREFUSED), None),
                    }
                }
                Err(_) => (Err(Errno::CONNREFUSED), None),
            };
        }
        Route::Host(port) => match sockets::primary() {
            Some(own) => SocketAddrV4::new(own, port),
            None => return (Err(Errno::CONNREFUSED), None),
        },
        Route::Remote(to) => to,
    };
    (sockets::stream(to), None)
}

/// A SYN that is not served.
pub(super) struct Refused<'a> {
    pub(super) ip: &'a Ipv4<'a>,
    pub(super) segment: &'a Segment<'a>,
}

pub(super) fn fail(
    around: &mut Around<'_>,
    tuple: Tuple,
    errno: Errno,
    Refused { ip, segment }: Refused<'_>,
) {
    match code(errno) {
        Some(code) => {
            let Around {
                poller,
                common,
                members,
                ..
            } = around;
            members.send_unreachable(poller, common, tuple.member, code, ip);
        }
        None => reset(around, tuple, segment),
    }
}

/// What a member is told of a connection that cannot be made; `None` for a reset.
pub(super) fn code(errno: Errno) -> Option<u8> {
    match errno {
        Errno::NETUNREACH => Some(NET_UNREACHABLE),
        Errno::HOSTUNREACH | Errno::TIMEDOUT | Errno::HOSTDOWN => Some(HOST_UNREACHABLE),
        Errno::ACCESS | Errno::PERM => Some(PROHIBITED),
        _ => None,
    }
}

/// The header of a SYN that is not at hand any more, as far as an error's reader compares it.
pub(super) fn quoted_header(source: Ipv4Addr, destination: Ipv4Addr) -> [u8; IPV4_LEN] {
    let mut header = [0; IPV4_LEN];
    header[0] = 0x45;
    header[3] = (IPV4_LEN + TCP_LEN) as u8;
    header[8] = 64;
    header[9] = protocol::TCP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Answers a segment that belongs to nothing (RFC 9293, 3.10.7.1).
pub(super) fn reset(around: &mut Around<'_>, tuple: Tuple, segment: &Segment<'_>) {
    let Some(identity) = around.members.get(tuple.member).map(|it| it.identity()) else {
        return;
    };
    let counted = segment.payload.len() as u32
        + u32::from(segment.has(flag::SYN))
        + u32::from(segment.has(flag::FIN));
    let (seq, ack, flags) = match segment.has(flag::ACK) {
        true => (segment.ack, 0, flag::RST),
        false => (0, segment.seq.wrapping_add(counted), flag::RST | flag::ACK),
    };
    let outgoing = Outgoing {
        seq,
        ack,
        flags,
        window: 0,
        mss: 0,
        scale: None,
    };
    let link = around.common.link(tuple.remote, identity, tuple.port);
    let mut space = [0; MAX_HEADERS];
    let len = tcp(&mut space, &link, &outgoing, 0);
    around
        .members
        .post(around.poller, tuple.member, &[&space[..len]]);
}
