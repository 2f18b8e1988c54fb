//! What a flow works with, and its way to the guest.

use std::io::IoSlice;
use std::time::Instant;

use super::Common;
use super::members::Members;
use super::wire::Sent;
use crate::frame::{Link, MAX_HEADERS, Outgoing, tcp};
use crate::poller::Poller;
use crate::tcp::Wire;

/// The network around its flows, at one moment.
pub(super) struct Around<'a> {
    pub(super) poller: &'a Poller,
    pub(super) now: Instant,
    pub(super) common: &'a mut Common,
    pub(super) members: &'a mut Members,
}

impl Around<'_> {
    /// The way of the flow with this link.
    pub(super) fn way<'a>(&'a mut self, member: u64, link: &'a Link) -> Way<'a> {
        Way {
            poller: self.poller,
            members: self.members,
            member,
            link,
        }
    }
}

/// The way to a flow's member.
pub(super) struct Way<'a> {
    poller: &'a Poller,
    members: &'a mut Members,
    member: u64,
    link: &'a Link,
}

impl Wire for Way<'_> {
    fn send(&mut self, segment: &Outgoing, payload: [&[u8]; 2]) -> bool {
        let mut space = [0; MAX_HEADERS];
        let [first, second] = payload;
        let len = tcp(&mut space, self.link, segment, first.len() + second.len());
        let parts = [
            IoSlice::new(&space[..len]),
            IoSlice::new(first),
            IoSlice::new(second),
        ];
        let count = match (first.is_empty(), second.is_empty()) {
            (true, true) => 1,
            (_, true) => 2,
            _ => 3,
        };
        self.members.send(self.poller, self.member, &parts[..count]) == Sent::Done
    }
}
