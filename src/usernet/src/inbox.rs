//! Datagrams that have come and wait for their turn: each client has a queue of its own, and the queues take turns.
//!
//! The socket's buffer is one for all, and the kernel drops what does not fit, whosever it is. So it is emptied at
//! once, which takes one call a datagram, and what is too much is dropped here: from the client that has the most.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

/// The most datagrams that wait; each is as long as a query may be at most.
const MAX_WAITING: usize = 4096;
/// The most of one client: it may look up some hundred names at once.
const MAX_PER_CLIENT: usize = 512;

/// Sender and message.
pub(crate) type Datagram = (SocketAddrV4, Vec<u8>);

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queues: BTreeMap<Ipv4Addr, VecDeque<Datagram>>,
    waiting: usize,
    /// The client that had the last turn.
    last: Option<Ipv4Addr>,
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Takes a datagram in, or drops one.
    pub(crate) fn push(&mut self, from: SocketAddrV4, message: Vec<u8>) {
        let own = self.queues.get(from.ip()).map_or(0, VecDeque::len);
        if own >= MAX_PER_CLIENT {
            return;
        }
        if self.waiting >= MAX_WAITING {
            let most = self.queues.iter().max_by_key(|(_, queue)| queue.len());
            match most.map(|(client, queue)| (*client, queue.len())) {
                Some((client, count)) if count > own + 1 => drop(self.take_from(client)),
                _ => return,
            }
        }
        let queue = self.queues.entry(*from.ip()).or_default();
        queue.push_back((from, message));
        self.waiting += 1;
    }

    /// The next client's oldest.
    pub(crate) fn pop(&mut self) -> Option<Datagram> {
        let after = match self.last {
            Some(Ipv4Addr::BROADCAST) | None => Ipv4Addr::UNSPECIFIED,
            Some(last) => Ipv4Addr::from_bits(last.to_bits() + 1),
        };
        let next = self.queues.range(after..).next();
        let (&client, _) = next.or_else(|| self.queues.iter().next())?;
        self.last = Some(client);
        self.take_from(client)
    }

    /// The oldest of a client.
    fn take_from(&mut self, client: Ipv4Addr) -> Option<Datagram> {
        let queue = self.queues.get_mut(&client)?;
        let datagram = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&client);
        }
        self.waiting -= usize::from(datagram.is_some());
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 213, 0, last), 1000)
    }

    fn order(inbox: &mut Inbox) -> Vec<(u8, u8)> {
        let popped = std::iter::from_fn(|| inbox.pop());
        popped
            .map(|(from, message)| (from.ip().octets()[3], message[0]))
            .collect()
    }

    #[test]
    fn clients_take_turns_each_in_its_order() {
        let mut inbox = Inbox::default();
        assert!(inbox.is_empty());
        for (from, message) in [(2, 1), (2, 2), (2, 3), (4, 4), (3, 5), (3, 6)] {
            inbox.push(client(from), vec![message]);
        }
        let expected = [(2, 1), (3, 5), (4, 4), (2, 2), (3, 6), (2, 3)];
        assert_eq!(order(&mut inbox), expected);
        assert!(inbox.is_empty());
        inbox.push(SocketAddrV4::new(Ipv4Addr::BROADCAST, 1), vec![1]);
        inbox.push(client(2), vec![2]);
        // It was 2's turn, and after the last comes the first.
        assert_eq!(order(&mut inbox), [(255, 1), (2, 2)]);
    }

    #[test]
    fn a_flood_costs_the_flooders_alone() {
        let mut inbox = Inbox::default();
        for _ in 0..MAX_PER_CLIENT + 10 {
            inbox.push(client(2), vec![0]);
        }
        assert_eq!(order(&mut inbox).len(), MAX_PER_CLIENT);
        for from in 2..20 {
            for _ in 0..MAX_PER_CLIENT {
                inbox.push(client(from), vec![0]);
            }
        }
        for message in 1..=100 {
            inbox.push(client(200), vec![message]);
        }
        let order = order(&mut inbox);
        assert_eq!(order.len(), MAX_WAITING);
        let kept = order.iter().filter(|(from, _)| *from == 200);
        assert_eq!(kept.count(), 100);
        // Not behind everything that came before it.
        let first = order.iter().position(|(from, _)| *from == 200);
        assert!(first.is_some_and(|first| first < 20));
    }
}
