//! ICMP echo: a ping socket of the host's for each identifier of a member's. Where the host lets this user have none
//! (net.ipv4.ping_group_range), echoes to others are not answered.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use super::members::{Members, ipv4};
use super::timers::{Armed, Timers};
use super::{Common, sockets};
use crate::frame::Echo;
use crate::poller::{Interest, Poller};
use crate::serve::Key;

/// The most identifiers of one member at a time: the one that was used last the longest ago goes for another.
const MAX_PER_MEMBER: usize = 16;
/// How long an answer is waited for.
const IDLE: Duration = Duration::from_secs(30);
/// Answers that are taken from a socket at a turn.
const TURN: usize = 16;

#[derive(Debug)]
struct Ping {
    socket: OwnedFd,
    member: u64,
    id: u16,
    used: Instant,
    armed: Armed,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pings {
    limit: usize,
    all: BTreeMap<u64, Ping>,
    next: u64,
}

impl Pings {
    pub(super) fn new(limit: usize) -> Pings {
        Pings {
            limit,
            all: BTreeMap::new(),
            next: 0,
        }
    }

    /// Sends a member's echo.
    pub(super) fn send(
        &mut self,
        poller: &Poller,
        now: Instant,
        timers: &mut Timers,
        member: u64,
        to: Ipv4Addr,
        echo: &Echo<'_>,
    ) {
        let own = self.all.iter().filter(|(_, it)| it.member == member);
        let own: Vec<(Instant, u64, u16)> =
            own.map(|(number, it)| (it.used, *number, it.id)).collect();
        let number = match own.iter().find(|(_, _, id)| *id == echo.id) {
            Some((_, number, _)) => *number,
            None => {
                if own.len() >= MAX_PER_MEMBER || self.all.len() >= self.limit {
                    let Some((_, oldest, _)) = own.iter().min() else {
                        return;
                    };
                    self.remove(timers, *oldest);
                }
                match self.open(poller, now, timers, member, echo.id) {
                    Some(number) => number,
                    None => return,
                }
            }
        };
        if let Some(ping) = self.all.get_mut(&number) {
            ping.used = now;
            // The kernel puts its own identifier there, and the checksum.
            let request = [&echo.request_header(), echo.data].concat();
            let _ = sendto(
                &ping.socket,
                &request,
                SendFlags::DONTWAIT,
                &SocketAddrV4::new(to, 0),
            );
        }
    }

    fn open(
        &mut self,
        poller: &Poller,
        now: Instant,
        timers: &mut Timers,
        member: u64,
        id: u16,
    ) -> Option<u64> {
        let socket = sockets::ping().ok()?;
        let number = self.next;
        let key = Key::Ping(number);
        poller.add(&socket, key.number(), Interest::Read).ok()?;
        self.next += 1;
        let mut armed = None;
        timers.arm(&mut armed, now + IDLE, key);
        let ping = Ping {
            socket,
            member,
            id,
            used: now,
            armed,
        };
        self.all.insert(number, ping);
        Some(number)
    }

    /// An answer has come.
    pub(super) fn ready(
        &mut self,
        poller: &Poller,
        common: &Common,
        members: &mut Members,
        number: u64,
        buffer: &mut [u8],
    ) {
        let Some(ping) = self.all.get(&number) else {
            return;
        };
        for _ in 0..TURN {
            let (len, from) = match recvfrom(&ping.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((len, _, from)) => (len, from.map(SocketAddr::try_from)),
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            if let Some(from) = from.and_then(Result::ok).and_then(ipv4)
                && let Some(echo) = Echo::reply(&buffer[..len])
            {
                let echo = Echo {
                    id: ping.id,
                    ..echo
                };
                members.send_echo(poller, common, ping.member, *from.ip(), &echo);
            }
        }
    }

    /// A socket's time may be over.
    pub(super) fn expire(&mut self, now: Instant, timers: &mut Timers, number: u64) {
        let Some(ping) = self.all.get_mut(&number) else {
            return;
        };
        ping.armed = None;
        if ping.used + IDLE <= now {
            return self.remove(timers, number);
        }
        timers.arm(&mut ping.armed, ping.used + IDLE, Key::Ping(number));
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, timers: &mut Timers, member: u64) {
        let theirs = self.all.iter().filter(|(_, it)| it.member == member);
        let numbers: Vec<u64> = theirs.map(|(number, _)| *number).collect();
        for number in numbers {
            self.remove(timers, number);
        }
    }

    fn remove(&mut self, timers: &mut Timers, number: u64) {
        if let Some(ping) = self.all.remove(&number) {
            timers.cancel(ping.armed, Key::Ping(number));
        }
    }
}
