//! Pumps in the loop.
//!
//! Invariant: a pump that cannot be waited for is retired, so that nothing waits for its end; what waits for the ends
//! of a process's streams looks at the process's list after every turn of the loop.

use std::io;

use protocol::agent::ProcessId;

use crate::poll::Number;
use crate::pump::{Pump, Turn};
use crate::server::{Server, Source};

impl Server {
    /// Puts a process's pumps to work. If one cannot be waited for, all are retired.
    pub(crate) fn add_pumps(&mut self, id: &ProcessId, pumps: Vec<Pump>) -> io::Result<()> {
        let mut result = Ok(());
        for pump in pumps {
            let number = self.poll.number();
            result = result.and(pump.register(&self.poll, number));
            self.sources.insert(number, Source::Pump(id.clone(), pump));
            if let Some(process) = self.processes.get_mut(id) {
                process.pumps.push(number);
            }
            if result.is_ok() {
                self.pump(number);
            }
        }
        if result.is_err() {
            let process = self.processes.get_mut(id);
            let pumps = process.map(|process| process.pumps.clone());
            for number in pumps.unwrap_or_default() {
                self.retire(number);
            }
        }
        result
    }

    /// Gives a pump its turn.
    pub(crate) fn pump(&mut self, number: Number) {
        let Some(Source::Pump(_, pump)) = self.sources.get_mut(&number) else {
            return;
        };
        let is_over = match pump.turn() {
            Turn::Wait(side) => pump.watch(&self.poll, number, side).is_err(),
            Turn::Done => true,
        };
        if is_over {
            self.retire(number);
        }
    }

    /// Ends a pump: its stream ends with it.
    pub(crate) fn retire(&mut self, number: Number) {
        if let Some(Source::Pump(id, pump)) = self.sources.remove(&number) {
            pump.unregister(&self.poll);
            if let Some(process) = self.processes.get_mut(&id) {
                process.pumps.retain(|pump| *pump != number);
            }
        }
    }

    /// Ends the input of a process that has exited, and its output once it is sent.
    pub(crate) fn drain(&mut self, pumps: &[Number]) {
        for &number in pumps {
            let Some(Source::Pump(_, pump)) = self.sources.get_mut(&number) else {
                continue;
            };
            if pump.is_output() {
                pump.drain();
                self.pump(number);
            } else {
                self.retire(number);
            }
        }
    }
}
