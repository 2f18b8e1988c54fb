//! When something is to be looked at again. A time that has moved on is found out when the earlier one has come, so that
//! a flow that is busy changes nothing here.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::serve::Key;

/// The times: at most one of each key.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, u64)>);

/// The time of a key that is set: what owns the key keeps it.
pub(crate) type Armed = Option<Instant>;

impl Timers {
    /// Has `key` come at `at`, or earlier if that is set already.
    pub(crate) fn arm(&mut self, armed: &mut Armed, at: Instant, key: Key) {
        if armed.is_none_or(|armed| at < armed) {
            self.cancel(*armed, key);
            self.0.insert((at, key.number()));
            *armed = Some(at);
        }
    }

    /// It does not come any more.
    pub(crate) fn cancel(&mut self, armed: Armed, key: Key) {
        if let Some(armed) = armed {
            self.0.remove(&(armed, key.number()));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// One whose time has come: it is not set any more.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<Key> {
        let (_, key) = *self.0.first().filter(|(at, _)| *at <= now)?;
        self.0.pop_first();
        Some(Key::of(key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keys_come_once_at_their_earliest_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        let (mut one, mut two) = (None, None);
        timers.arm(&mut one, at(5), Key::Flow(1));
        timers.arm(&mut one, at(9), Key::Flow(1));
        timers.arm(&mut one, at(2), Key::Flow(1));
        timers.arm(&mut two, at(2), Key::Ping(1));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.expired(at(1)), None);
        let mut come = [timers.expired(at(9)), timers.expired(at(9))];
        come.sort_by_key(|key| key.map(Key::number));
        let mut expected = [Some(Key::Flow(1)), Some(Key::Ping(1))];
        expected.sort_by_key(|key| key.map(Key::number));
        assert_eq!(come, expected);
        assert_eq!(timers.expired(at(9)), None);
        let mut three = None;
        timers.arm(&mut three, at(3), Key::Flow(3));
        timers.cancel(three, Key::Flow(3));
        assert_eq!(timers.next(), None);
    }
}
