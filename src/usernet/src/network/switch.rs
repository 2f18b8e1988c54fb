//! Whom a member's frame is for.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::frame::{Frame, Mac, Payload};

/// Who is on the network, by address.
#[derive(Debug, Default)]
pub struct Table {
    macs: HashMap<Mac, u64>,
    addresses: HashMap<Ipv4Addr, u64>,
}

impl Table {
    /// Adds a member. `false` if another one has one of its addresses.
    pub fn insert(&mut self, number: u64, (mac, address): (Mac, Ipv4Addr)) -> bool {
        if self.macs.contains_key(&mac) || self.addresses.contains_key(&address) {
            return false;
        }
        self.macs.insert(mac, number);
        self.addresses.insert(address, number);
        true
    }

    /// Removes a member.
    pub fn remove(&mut self, (mac, address): (Mac, Ipv4Addr)) {
        self.macs.remove(&mac);
        self.addresses.remove(&address);
    }

    /// The member with this IP address.
    pub fn at(&self, address: Ipv4Addr) -> Option<u64> {
        self.addresses.get(&address).copied()
    }
}

/// What is to be done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It says to be from someone else: dropped, and counted.
    Dishonest,
    /// Nobody has that address.
    Unknown,
    /// The gateway's address is asked for, by this one.
    Arp((Mac, Ipv4Addr)),
    /// It is for the gateway.
    Gateway,
    /// It is for this member.
    Member(u64),
    /// It is for all others.
    Everyone,
}

/// The verdict on a frame of the member with the addresses `from`, where the gateway has `gateway`. A question for an
/// address goes to whoever has it alone, so that the most frequent broadcast costs no more than any other frame.
pub fn verdict(
    frame: &Frame<'_>,
    from: (Mac, Ipv4Addr),
    gateway: (Mac, Ipv4Addr),
    table: &Table,
) -> Verdict {
    let sender = match &frame.payload {
        Payload::Arp(arp) if arp.sender.0 != frame.source => return Verdict::Dishonest,
        Payload::Arp(arp) => arp.sender.1,
        Payload::Ipv4(ip) => ip.source,
    };
    if (frame.source, sender) != from {
        return Verdict::Dishonest;
    }
    if let Payload::Arp(arp) = &frame.payload
        && arp.is_request
    {
        if arp.target == gateway.1 {
            return Verdict::Arp(arp.sender);
        }
        return match table.at(arp.target) {
            Some(number) if arp.target != from.1 => Verdict::Member(number),
            _ => Verdict::Unknown,
        };
    }
    if frame.destination == gateway.0 {
        return match frame.payload {
            Payload::Ipv4(_) => Verdict::Gateway,
            Payload::Arp(_) => Verdict::Unknown,
        };
    }
    if frame.destination.is_multicast() {
        return match frame.payload {
            Payload::Ipv4(_) => Verdict::Everyone,
            // An announcement that was not asked for: a member's addresses do not change.
            Payload::Arp(_) => Verdict::Unknown,
        };
    }
    match table.macs.get(&frame.destination) {
        Some(number) if frame.destination != from.0 => Verdict::Member(*number),
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Arp, Virtio};

    const GATEWAY: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 1, 0, 1));
    const A: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 1, 0, 2));
    const B: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 3]), Ipv4Addr::new(10, 1, 0, 3));
    const NOBODY: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(10, 1, 0, 9));

    fn table() -> Table {
        let mut table = Table::default();
        assert!(table.insert(7, A) && table.insert(8, B));
        table
    }

    fn of_a(source: (Mac, Ipv4Addr), destination: Mac, arp: Option<Arp>) -> Verdict {
        let payload = match arp {
            Some(arp) => Payload::Arp(arp),
            None => Payload::Ipv4(crate::frame::Ipv4 {
                source: source.1,
                destination: Ipv4Addr::BROADCAST,
                protocol: 17,
                fragment: None,
                header: &[],
                payload: &[],
            }),
        };
        let frame = Frame {
            virtio: Virtio::default(),
            destination,
            source: source.0,
            payload,
        };
        verdict(&frame, A, GATEWAY, &table())
    }

    fn question(sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Option<Arp> {
        Some(Arp {
            is_request: true,
            sender,
            target,
        })
    }

    #[test]
    fn frames_go_to_whom_they_are_for() {
        assert_eq!(of_a(A, B.0, None), Verdict::Member(8));
        assert_eq!(of_a(A, GATEWAY.0, None), Verdict::Gateway);
        assert_eq!(of_a(A, Mac::BROADCAST, None), Verdict::Everyone);
        assert_eq!(of_a(A, NOBODY.0, None), Verdict::Unknown);
        assert_eq!(of_a(A, A.0, None), Verdict::Unknown);
    }

    #[test]
    fn questions_go_to_whoever_has_the_address() {
        let ask = |target| of_a(A, Mac::BROADCAST, question(A, target));
        assert_eq!(ask(GATEWAY.1), Verdict::Arp(A));
        assert_eq!(ask(B.1), Verdict::Member(8));
        assert_eq!(ask(A.1), Verdict::Unknown);
        assert_eq!(ask(NOBODY.1), Verdict::Unknown);
    }

    #[test]
    fn frames_in_the_name_of_another_are_dishonest() {
        for source in [B, GATEWAY, (A.0, B.1), (B.0, A.1), (A.0, GATEWAY.1)] {
            assert_eq!(of_a(source, B.0, None), Verdict::Dishonest, "{source:?}");
            let asked = of_a(source, Mac::BROADCAST, question(source, B.1));
            assert_eq!(asked, Verdict::Dishonest, "{source:?}");
            // The Ethernet header is right, and what ARP says is not.
            let answer = Arp {
                is_request: false,
                sender: source,
                target: B.1,
            };
            assert_eq!(of_a(A, B.0, Some(answer)), Verdict::Dishonest, "{source:?}");
        }
    }

    #[test]
    fn an_address_is_one_members() {
        let mut table = table();
        assert!(!table.insert(9, (A.0, NOBODY.1)));
        assert!(!table.insert(9, (NOBODY.0, A.1)));
        assert!(table.insert(9, NOBODY));
        table.remove(A);
        assert!(table.insert(10, A));
        assert_eq!(table.at(A.1), Some(10));
    }
}
