//! Moving bytes between a container's stream and its connection to the host, with back pressure both ways.
//!
//! Between a pipe and a socket the kernel moves them (splice): the pipe is the buffer, and there is none of ours. Terminals
//! and sockets are no pipes, so a small buffer stands between.
//!
//! ```text
//!            readable?          writable?
//! wait From -----------> move -----------> ... wait To when `to` is full, wait From when `from` is empty
//!                          |
//!                          '-- end of `from`: finish `to`, done
//!                          '-- `to` is gone: output is thrown away, so that the container goes on; all else ends
//! ```
//!
//! [`Pump::drain`] ends an output whose process has exited: what is in the pipe at that moment is sent, and no more, even
//! if another process holds the pipe open and goes on writing (lifecycle H15).

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{SpliceFlags, splice};

use crate::poll::{EventFlags, Number, Poll, Side};

/// Moves in one turn before other events get theirs.
const MOVES_IN_A_TURN: u32 = 16;
/// Bytes of a splice: a pipe holds no more unless it was enlarged.
const SPLICE_LEN: usize = 1 << 20;
/// Bytes of a terminal's buffer: as much as the kernel holds for one.
const BUFFER_LEN: usize = 4096;
/// Bytes of a connection's buffer, in each direction.
const RELAY_LEN: usize = 16 << 10;
/// More bytes than the kernel holds of a terminal's output: a flip buffer of 8 KiB and a line discipline's of 4 KiB.
const TERMINAL_HOLDS: u64 = 64 << 10;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the host to the container.
    Input,
    /// From the container to the host.
    Output,
}

/// One direction of one stream.
#[derive(Debug)]
pub(crate) struct Pump {
    from: OwnedFd,
    to: OwnedFd,
    /// `None` between two connections.
    direction: Option<Direction>,
    buffer: Option<Buffer>,
    /// Takes what `to` does not want any more.
    null: Option<OwnedFd>,
    /// Bytes of `from` that are still to be moved, once its process has exited.
    remaining: Option<u64>,
}

/// Bytes read and not yet written.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn of(len: usize) -> Buffer {
        Buffer {
            bytes: vec![0; len].into(),
            start: 0,
            end: 0,
        }
    }
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Come back when this side is ready.
    Wait(Side),
    /// Nothing will be moved any more.
    Done,
}

impl Pump {
    /// Between a pipe and a socket, both non-blocking on our side.
    pub(crate) fn splicing(from: OwnedFd, to: OwnedFd, direction: Direction) -> Pump {
        Pump::new(from, to, Some(direction), None)
    }

    /// Between a terminal and a socket, both non-blocking on our side.
    pub(crate) fn copying(from: OwnedFd, to: OwnedFd, direction: Direction) -> Pump {
        Pump::new(from, to, Some(direction), Some(Buffer::of(BUFFER_LEN)))
    }

    /// Between two sockets, both non-blocking on our side.
    pub(crate) fn relaying(from: OwnedFd, to: OwnedFd) -> Pump {
        Pump::new(from, to, None, Some(Buffer::of(RELAY_LEN)))
    }

    fn new(
        from: OwnedFd,
        to: OwnedFd,
        direction: Option<Direction>,
        buffer: Option<Buffer>,
    ) -> Pump {
        Pump {
            from,
            to,
            direction,
            buffer,
            null: None,
            remaining: None,
        }
    }

    pub(crate) fn is_output(&self) -> bool {
        self.direction == Some(Direction::Output)
    }

    /// The process has exited: moves what it has written and then ends.
    pub(crate) fn drain(&mut self) {
        let len = match self.buffer {
            None => rustix::io::ioctl_fionread(&self.from).unwrap_or(0),
            // The count of a terminal leaves out what is on its way to the master; polling it does not.
            Some(_) => TERMINAL_HOLDS,
        };
        self.remaining = Some(len);
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&mut self) -> Turn {
        for _ in 0..MOVES_IN_A_TURN {
            match self.step() {
                Ok(Step::Moved) => {}
                Ok(Step::Blocked(side)) => return self.blocked(side),
                Ok(Step::End) => return self.finish(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.blocked(self.blocked_side()),
                Err(
                    Errno::PIPE | Errno::CONNRESET | Errno::IO | Errno::NOTCONN | Errno::SHUTDOWN,
                ) if self.is_output() && self.throw_away() => {}
                // The other end is gone, or the descriptor cannot be used: nothing will be moved any more.
                Err(_) => return self.finish(),
            }
        }
        self.blocked(self.blocked_side())
    }

    fn step(&mut self) -> Result<Step, Errno> {
        let to = self.null.as_ref().unwrap_or(&self.to);
        let Some(buffer) = &mut self.buffer else {
            let len = self
                .remaining
                .unwrap_or(SPLICE_LEN as u64)
                .min(SPLICE_LEN as u64);
            if len == 0 {
                return Ok(Step::End);
            }
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            return match splice(&self.from, None, to, None, len as usize, flags)? {
                0 => Ok(Step::End),
                moved => {
                    if let Some(remaining) = &mut self.remaining {
                        *remaining = remaining.saturating_sub(moved as u64);
                    }
                    Ok(Step::Moved)
                }
            };
        };
        if buffer.start == buffer.end {
            if self.remaining == Some(0) {
                return Ok(Step::End);
            }
            let len = match rustix::io::read(&self.from, &mut buffer.bytes[..]) {
                Err(Errno::AGAIN) => return Ok(Step::Blocked(Side::From)),
                // No process has the terminal open any more.
                Err(Errno::IO) => return Ok(Step::End),
                result => result?,
            };
            if len == 0 {
                return Ok(Step::End);
            }
            (buffer.start, buffer.end) = (0, len);
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(len as u64);
            }
        }
        match rustix::io::write(to, &buffer.bytes[buffer.start..buffer.end]) {
            Err(Errno::AGAIN) => return Ok(Step::Blocked(Side::To)),
            result => buffer.start += result?,
        }
        Ok(Step::Moved)
    }

    /// What to do when a side is not ready: an output whose process has exited ends when there is nothing to read.
    fn blocked(&self, side: Side) -> Turn {
        if side == Side::From && self.remaining.is_some() {
            return self.finish();
        }
        Turn::Wait(side)
    }

    /// A splice that would block does not say on what. If there is something to read, it is the other side.
    fn blocked_side(&self) -> Side {
        if self
            .buffer
            .as_ref()
            .is_some_and(|buffer| buffer.start < buffer.end)
        {
            return Side::To;
        }
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(1..) => Side::To,
            _ => Side::From,
        }
    }

    /// Throws the output away from now on, since the host does not take it. False if it is thrown away already.
    fn throw_away(&mut self) -> bool {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty());
        self.null.is_none() && null.map(|null| self.null = Some(null)).is_ok()
    }

    /// Tells the other side that this was all.
    fn finish(&self) -> Turn {
        // It fails only when that has gone, which needs no telling.
        if self.direction != Some(Direction::Input) {
            let _ = shutdown(&self.to, Shutdown::Write);
        }
        if self.direction.is_none() {
            // Whoever goes on writing learns that nobody reads.
            let _ = shutdown(&self.from, Shutdown::Read);
        }
        Turn::Done
    }

    /// Puts both sides into the set, so that [`Pump::watch`] has nothing to allocate that could fail while the process
    /// executes (lifecycle H18).
    pub(crate) fn register(&self, poll: &Poll, number: Number) -> io::Result<()> {
        poll.add(&self.from, number, Side::From, EventFlags::ONESHOT)?;
        poll.add(&self.to, number, Side::To, EventFlags::ONESHOT)
    }

    /// Wakes the loop once when a side is ready.
    pub(crate) fn watch(&self, poll: &Poll, number: Number, side: Side) -> io::Result<()> {
        let (fd, flags) = match side {
            Side::From => (&self.from, EventFlags::IN | EventFlags::RDHUP),
            Side::To => (&self.to, EventFlags::OUT),
        };
        poll.modify(fd, number, side, flags | EventFlags::ONESHOT)
    }

    /// Takes both sides out of the set.
    pub(crate) fn unregister(&self, poll: &Poll) {
        poll.delete(&self.from);
        poll.delete(&self.to);
    }
}

enum Step {
    Moved,
    Blocked(Side),
    End,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use rustix::pipe::{PipeFlags, pipe_with};
    use sys::nonblocking::set_nonblocking;

    use super::*;

    /// An output: where a process writes, the pump, and where the host reads.
    fn output() -> (File, Pump, File) {
        let (from, process) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (to, host) = sys::packet::stream_pair().unwrap();
        set_nonblocking(&to).unwrap();
        let pump = Pump::splicing(from, to, Direction::Output);
        (process.into(), pump, host.into())
    }

    #[test]
    fn an_output_waits_for_its_process_and_ends_with_the_last_writer() {
        let (mut process, mut pump, mut host) = output();
        assert_eq!(pump.turn(), Turn::Wait(Side::From));
        process.write_all(b"word").unwrap();
        assert_eq!(pump.turn(), Turn::Wait(Side::From));
        drop(process);
        assert_eq!(pump.turn(), Turn::Done);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
    }

    /// Lifecycle H15.
    #[test]
    fn a_drained_output_ends_with_what_was_there_though_a_writer_is_left() {
        let (mut process, mut pump, mut host) = output();
        process.write_all(b"before").unwrap();
        pump.drain();
        process.write_all(b"after").unwrap();
        assert_eq!(pump.turn(), Turn::Done);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before");
    }

    #[test]
    fn a_drained_output_waits_for_a_host_that_does_not_read() {
        let (mut process, mut pump, mut host) = output();
        let block = [7; 32 << 10];
        while pump.turn() == Turn::Wait(Side::From) {
            process.write_all(&block).unwrap();
        }
        pump.drain();
        assert_eq!(pump.turn(), Turn::Wait(Side::To));
        let mut count = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            if pump.turn() == Turn::Done {
                drop(pump);
                break;
            }
            count += host.read(&mut buffer).unwrap();
        }
        count += host.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(count % block.len(), 0, "nothing is lost");
    }

    #[test]
    fn output_for_a_host_that_is_gone_is_thrown_away() {
        let (mut process, mut pump, host) = output();
        drop(host);
        process.write_all(b"word").unwrap();
        assert_eq!(pump.turn(), Turn::Wait(Side::From));
        drop(process);
        assert_eq!(pump.turn(), Turn::Done);
    }

    /// A connection from a container to the host, and back: the two far ends, and the two directions.
    fn connection() -> (File, File, [Pump; 2]) {
        let (container, ours) = sys::packet::stream_pair().unwrap();
        let (theirs, host) = sys::packet::stream_pair().unwrap();
        for end in [&ours, &theirs] {
            set_nonblocking(end).unwrap();
        }
        let (from_host, to_container) = (theirs.try_clone().unwrap(), ours.try_clone().unwrap());
        let pumps = [
            Pump::relaying(ours, theirs),
            Pump::relaying(from_host, to_container),
        ];
        (container.into(), host.into(), pumps)
    }

    #[test]
    fn each_direction_of_a_connection_ends_on_its_own() {
        let (mut container, mut host, [mut there, mut back]) = connection();
        container.write_all(b"question").unwrap();
        shutdown(&container, Shutdown::Write).unwrap();
        assert_eq!(there.turn(), Turn::Done);
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        assert_eq!(back.turn(), Turn::Wait(Side::From));
        host.write_all(b"answer").unwrap();
        drop(host);
        assert_eq!(back.turn(), Turn::Done);
        let mut text = String::new();
        container.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn whoever_writes_to_a_connection_that_nobody_reads_learns_so() {
        let (mut container, host, [mut there, _back]) = connection();
        drop(host);
        container.write_all(b"lost").unwrap();
        assert_eq!(there.turn(), Turn::Done);
        let error = container.write_all(b"more").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
