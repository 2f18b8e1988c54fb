//! hull-net, which answers the names of a network, or is an ordinary user's: started by the warden of a sandbox that
//! finds its network without one.
//!
//! It is the network's and not the warden's: it stays when this sandbox ends, and is ended when the last one leaves
//! (`network::dns`). What it is given: the sockets and the folder of leases from there, and the lock on its user.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use network::{Adjacent, Launch, Network, Service};
use protocol::net::{Descriptor, FromNet, MAX_PACKET_LEN, ToNet};
use protocol::record::JailPolicy;
use rustix::process::{Pid, Signal, kill_process};

use crate::jail::{self, Apart};
use crate::process::is_ready;
use crate::users;

/// How long hull-net may take to answer: it only looks at what it is given.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no hull-net.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The installation has none.
    #[error(
        "hull-net, without which there is no network here, is not part of the installation that this sandbox was made with"
    )]
    NoProgram,
    /// No user of its own.
    #[error(transparent)]
    Users(#[from] users::Error),
    /// Its jail.
    #[error(transparent)]
    Jail(#[from] jail::Error),
    /// A message to hull-net, or from it.
    #[error("cannot talk to hull-net")]
    Talk(#[source] io::Error),
    /// What it said before its end.
    #[error("{0}")]
    Refused(String),
}

/// Has a hull-net answer the names of a network, on which this sandbox is already and which is called `domain`, and those of
/// the networks that it is on besides. This process has one thread only.
pub fn ensure(
    network: &Network,
    domain: &str,
    adjacent: &[Adjacent],
    program: Option<&Path>,
) -> Result<(), network::Error> {
    // A bridge is root's, which can do without user namespaces.
    network.serve_names(domain, adjacent, |launch| {
        Ok(start(program, JailPolicy::Full, launch)?)
    })
}

/// Starts one; its number. This process has one thread only.
pub(crate) fn start(
    program: Option<&Path>,
    policy: JailPolicy,
    launch: &Launch<'_>,
) -> Result<Pid, Error> {
    let program = program.ok_or(Error::NoProgram)?;
    let users = match rustix::process::geteuid().is_root() {
        true => users::take()?,
        false => None,
    };
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let user = users.as_ref().map_or(own, |it| (it.vmm(), it.vmm()));
    let (control, their_control) = sys::packet::pair().map_err(Error::Talk)?;
    let most = match &launch.service {
        Service::Names(_) => jail::NAMES,
        Service::Switch { .. } => jail::SWITCH,
    };
    let apart = jail::spawn_net(program, their_control, user, policy, most)?;
    let mut descriptors = launch.descriptors.to_vec();
    let mut locks = vec![launch.lock];
    if let Some(users) = &users {
        locks.push(Descriptor(descriptors.len() as u32));
        descriptors.push(users.lock());
    }
    let build = protocol::BUILD.to_owned();
    let start = match launch.service.clone() {
        Service::Names(dns) => ToNet::Start { build, dns, locks },
        Service::Switch { names, switch } => ToNet::Switch {
            build,
            names,
            switch,
            locks,
        },
    };
    let told = serde_json::to_vec(&start)
        .map_err(io::Error::from)
        .and_then(|bytes| sys::packet::send(&control, &bytes, &descriptors))
        .and_then(|()| answer(&control));
    let refusal = match told {
        Ok(FromNet::Ready) => return Ok(apart.pid),
        Ok(FromNet::Refused { message }) => Error::Refused(message),
        Err(error) => explain(&apart, error),
    };
    // Just started, its number cannot be another's yet.
    let _ = kill_process(apart.pid, Signal::KILL);
    Err(refusal)
}

fn answer(control: &OwnedFd) -> io::Result<FromNet> {
    if !is_ready(control, Instant::now() + ANSWER_TIMEOUT) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut buffer = [0; MAX_PACKET_LEN];
    let packet = sys::packet::receive(control, &mut buffer).map_err(io::Error::other)?;
    match packet.len {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => Ok(serde_json::from_slice(&buffer[..len])?),
    }
}

/// What it said before its end says more than that its socket is closed.
fn explain(apart: &Apart, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        return Error::Talk(error);
    }
    match jail::explain("hull-net", apart.words.as_fd()) {
        Ok(Some(words)) => Error::Refused(words),
        _ => Error::Talk(error),
    }
}
