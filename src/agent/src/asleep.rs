//! An agent that is set up and knows nothing yet that only its own VM may know.
//!
//! ```text
//! Asleep::new     the guest's own: loop, signals, disks
//!      |          (a VM may be saved here, and begin many times)
//! connected: requests are refused, but for Wake and Shutdown
//!      | Wake done
//!      v
//! Server          everything else
//! ```
//!
//! Invariant: nothing here or before draws a random number, which all VMs of one snapshot would share. So the crate has no
//! `HashMap`, whose keys the standard library draws when the first one is made.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use protocol::agent::{Done, FromAgent, Request};
use protocol::frame;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use sys::signalfd::SignalFd;

use crate::connection::Connection;
use crate::disks::Disks;
use crate::failure::Refusal;
use crate::poll::Poll;
use crate::server::Server;
use crate::{Broken, End, Rehearsal, Surroundings, WakeUp, rehearsal, roots};

/// An agent without a connection.
pub struct Asleep {
    pub(crate) place: Surroundings,
    pub(crate) poll: Poll,
    pub(crate) signals: SignalFd,
    pub(crate) disks: Disks,
}

/// Where the requests before the waking have led.
#[derive(Debug)]
pub(crate) enum Turn {
    /// More are needed.
    Wait,
    /// The machine has woken. What came behind that is still to be taken.
    Awake,
    /// There will be no more.
    Over(End),
}

impl Asleep {
    /// Makes and finds whatever needs no connection.
    ///
    /// From here on, every child of this process is reaped by the agent.
    pub fn new(mut place: Surroundings) -> Result<Asleep, Broken> {
        roots::make_targets(&place.run_dir)
            .map_err(|refusal| io::Error::other(protocol::chain(&refusal)))?;
        Ok(Asleep {
            disks: Disks::find(place.layer_device.take()),
            place,
            poll: Poll::new()?,
            signals: SignalFd::new(&[libc::SIGCHLD])?,
        })
    }

    /// Makes a container of the programs below `root`, runs it and removes it: for a VM that is to be saved.
    pub fn rehearse(&self, root: &Path) -> Result<(), Rehearsal> {
        rehearsal::rehearse(&self.place, root)
    }

    /// Serves requests that come over `control` until the end, and leaves no process and no mount.
    pub fn serve(self, control: OwnedFd) -> Result<End, Broken> {
        let mut connection = Connection::new(control)?;
        loop {
            match turn(&mut connection, &self.place.wake) {
                Ok(Turn::Awake) => return Server::new(self, connection)?.serve(),
                Ok(Turn::Over(end)) => return Ok(end),
                Ok(Turn::Wait) => wait(&connection)?,
                Err(error) => return Ok(End::ControlLost(error)),
            }
        }
    }
}

/// Takes what has come, up to a request that wakes the machine.
pub(crate) fn turn(connection: &mut Connection, wake: &WakeUp) -> Result<Turn, frame::Error> {
    connection.flush()?;
    while let Some(message) = connection.next()? {
        let result = match message.request {
            Request::Wake(own) => wake(&own).map_err(Refusal::from),
            Request::Shutdown { code } => return Ok(Turn::Over(End::Shutdown(code))),
            _ => Err(Refusal::Asleep),
        };
        let is_awake = result.is_ok();
        connection.send(&FromAgent::Reply {
            seq: message.seq,
            result: result.map(|()| Done::Ok).map_err(Into::into),
        });
        connection.flush()?;
        if is_awake {
            return Ok(Turn::Awake);
        }
    }
    Ok(Turn::Wait)
}

/// Waits for a request, or for room to send what is unsent.
fn wait(connection: &Connection) -> io::Result<()> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, !connection.is_congested());
    flags.set(PollFlags::OUT, connection.has_unsent());
    match poll(&mut [PollFd::new(connection, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
