//! The resolvers that are asked, and which of them answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a resolver that did not answer is asked after the others.
const PENALTY: Duration = Duration::from_secs(30);

/// The resolvers, in the order of the host's configuration.
#[derive(Debug)]
pub(super) struct Upstreams(Vec<Upstream>);

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    /// When it last answered.
    answered: Option<Instant>,
    /// Until when it counts as dead.
    dead_until: Option<Instant>,
}

impl Upstreams {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        let upstreams = addresses.into_iter().map(|address| Upstream {
            address,
            answered: None,
            dead_until: None,
        });
        Self(upstreams.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn address(&self, number: usize) -> SocketAddr {
        self.0[number].address
    }

    /// The numbers of all, the next one to be asked last: those that count as dead come after the others.
    pub(super) fn reversed_order(&self, now: Instant) -> Vec<usize> {
        let is_dead = |number: &usize| self.0[*number].dead_until.is_some_and(|until| now < until);
        let (dead, alive): (Vec<_>, Vec<_>) = (0..self.0.len()).rev().partition(is_dead);
        [dead, alive].concat()
    }

    pub(super) fn has_answered(&mut self, number: usize, now: Instant) {
        self.0[number].answered = Some(now);
        self.0[number].dead_until = None;
    }

    /// It has not answered what it was asked at `asked`. One that has answered anything since lives: what it was asked
    /// is slow elsewhere.
    pub(super) fn has_failed(&mut self, number: usize, asked: Instant, now: Instant) {
        let upstream = &mut self.0[number];
        if upstream.answered.is_none_or(|answered| answered < asked) {
            upstream.dead_until = Some(now + PENALTY);
        }
    }
}
