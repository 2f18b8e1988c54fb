//! Moving bytes between a container's stream and its connection to the host, with back pressure both ways.
//!
//! Between a pipe and a socket the kernel moves them (splice): the pipe is the buffer, and there is none of ours. A
//! terminal is no pipe, so a small buffer stands between.
//!
//! ```text
//!            readable?          writable?
//! wait From -----------> move -----------> ... wait To when `to` is full, wait From when `from` is empty
//!                          |
//!                          '-- end of `from`: finish `to`, done
//!                          '-- `to` is gone: output is thrown away, so that the container goes on; input ends
//! ```

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{SpliceFlags, splice};

/// Moves in one turn before other events get theirs.
const MOVES_IN_A_TURN: u32 = 16;
/// Bytes of a splice: a pipe holds no more unless it was enlarged.
const SPLICE_LEN: usize = 1 << 20;
/// Bytes of a terminal's buffer: as much as the kernel holds for one.
const BUFFER_LEN: usize = 4096;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the host to the container.
    Input,
    /// From the container to the host.
    Output,
}

/// What a pump waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    From,
    To,
}

/// One direction of one stream.
#[derive(Debug)]
pub(crate) struct Pump {
    from: OwnedFd,
    to: OwnedFd,
    direction: Direction,
    buffer: Option<Buffer>,
    /// Takes what `to` does not want any more.
    null: Option<OwnedFd>,
    watched: [bool; 2],
}

/// Bytes read and not yet written.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8; BUFFER_LEN]>,
    start: usize,
    end: usize,
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
        Pump {
            from,
            to,
            direction,
            buffer: None,
            null: None,
            watched: [false; 2],
        }
    }

    /// Between a terminal and a socket, both non-blocking on our side.
    pub(crate) fn copying(from: OwnedFd, to: OwnedFd, direction: Direction) -> Pump {
        let buffer = Buffer {
            bytes: Box::new([0; BUFFER_LEN]),
            start: 0,
            end: 0,
        };
        Pump {
            buffer: Some(buffer),
            ..Pump::splicing(from, to, direction)
        }
    }

    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&mut self) -> Turn {
        for _ in 0..MOVES_IN_A_TURN {
            match self.step() {
                Ok(Step::Moved) => {}
                Ok(Step::Blocked(side)) => return Turn::Wait(side),
                Ok(Step::End) => {
                    self.finish();
                    return Turn::Done;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Turn::Wait(self.blocked_side()),
                Err(
                    Errno::PIPE | Errno::CONNRESET | Errno::IO | Errno::NOTCONN | Errno::SHUTDOWN,
                ) if self.direction == Direction::Output && self.throw_away() => {}
                // The other end is gone, or the descriptor is of no use: either way it is over.
                Err(_) => {
                    self.finish();
                    return Turn::Done;
                }
            }
        }
        Turn::Wait(self.blocked_side())
    }

    fn step(&mut self) -> Result<Step, Errno> {
        let to = self.null.as_ref().unwrap_or(&self.to);
        let Some(buffer) = &mut self.buffer else {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            return match splice(&self.from, None, to, None, SPLICE_LEN, flags)? {
                0 => Ok(Step::End),
                _ => Ok(Step::Moved),
            };
        };
        if buffer.start == buffer.end {
            let len = match rustix::io::read(&self.from, buffer.bytes.as_mut_slice()) {
                Err(Errno::AGAIN) => return Ok(Step::Blocked(Side::From)),
                // No process has the terminal open any more.
                Err(Errno::IO) => return Ok(Step::End),
                result => result?,
            };
            if len == 0 {
                return Ok(Step::End);
            }
            (buffer.start, buffer.end) = (0, len);
        }
        match rustix::io::write(to, &buffer.bytes[buffer.start..buffer.end]) {
            Err(Errno::AGAIN) => return Ok(Step::Blocked(Side::To)),
            result => buffer.start += result?,
        }
        Ok(Step::Moved)
    }

    /// A splice that would block does not say on what. If there is something to read, it is the other side.
    fn blocked_side(&self) -> Side {
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(1..) => Side::To,
            _ => Side::From,
        }
    }

    /// The host does not want the output any more. True unless it is thrown away already.
    fn throw_away(&mut self) -> bool {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty());
        self.null.is_none() && null.map(|null| self.null = Some(null)).is_ok()
    }

    /// Tells the host that this was all.
    fn finish(&self) {
        if self.direction == Direction::Output {
            // It fails only when the host has gone, which is as good.
            let _ = shutdown(&self.to, Shutdown::Write);
        }
    }

    /// Wakes the loop once, with `key` (the side in its lowest bit), when a side is ready.
    pub(crate) fn watch(&mut self, epoll: &OwnedFd, key: u64, side: Side) -> io::Result<()> {
        let (fd, flags) = match side {
            Side::From => (&self.from, epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
            Side::To => (&self.to, epoll::EventFlags::OUT),
        };
        let data = epoll::EventData::new_u64(key);
        let flags = flags | epoll::EventFlags::ONESHOT;
        if std::mem::replace(&mut self.watched[side as usize], true) {
            epoll::modify(epoll, fd, data, flags)?;
        } else {
            epoll::add(epoll, fd, data, flags)?;
        }
        Ok(())
    }

    /// Takes both sides out of the loop: a descriptor that has duplicates does not leave it by being closed.
    pub(crate) fn unwatch(&self, epoll: &OwnedFd) {
        for (fd, watched) in [&self.from, &self.to].into_iter().zip(self.watched) {
            if watched {
                // Not there any more is what is wanted.
                let _ = epoll::delete(epoll, fd);
            }
        }
    }
}

enum Step {
    Moved,
    Blocked(Side),
    End,
}
