//! What a sandbox's containers share: a network namespace, a PID namespace and the mount of what the host shares, each made
//! when it is first wanted.

use std::os::fd::{AsFd, OwnedFd};

use container::Holder;
use protocol::agent::{Interface, Network, PidNamespace};
use protocol::fs::TAG;
use protocol::record::GUEST_SHARES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::Surroundings;
use crate::containers::Container;
use crate::failure::Refusal;

/// The namespaces of the sandbox.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    network: Option<OwnedFd>,
    processes: Option<Holder>,
    has_shares: bool,
}

impl Sandbox {
    /// Makes the network, with these interfaces.
    pub(crate) fn add_network(
        &mut self,
        place: &Surroundings,
        interfaces: &[Interface],
    ) -> Result<(), Refusal> {
        if self.network.is_some() {
            return Err(Refusal::NetworkExists);
        }
        let interfaces = found(interfaces, place);
        self.network = Some(container::network_namespace(&interfaces)?);
        Ok(())
    }

    /// The network of a container that is to be made.
    pub(crate) fn network(
        &mut self,
        wanted: &Network,
        container: &mut Container,
        place: &Surroundings,
    ) -> Result<container::Network, Refusal> {
        match wanted {
            Network::None => Ok(container::Network::Loopback),
            Network::Own { interfaces } => {
                if let Some((known, namespace)) = &container.network
                    && known == interfaces
                {
                    return Ok(container::Network::Join(copy(namespace)?));
                }
                container.network = None;
                Ok(container::Network::Interfaces(found(interfaces, place)))
            }
            Network::Sandbox => {
                let network = match self.network.take() {
                    Some(network) => network,
                    None => container::network_namespace(&[])?,
                };
                let network = self.network.insert(network);
                Ok(container::Network::Join(copy(network)?))
            }
        }
    }

    /// The PID namespace of a container that is to be made.
    pub(crate) fn processes(
        &mut self,
        wanted: PidNamespace,
    ) -> Result<container::PidNamespace, Refusal> {
        if wanted == PidNamespace::Own {
            return Ok(container::PidNamespace::Own);
        }
        let holder = match self.processes.take().filter(is_alive) {
            Some(holder) => holder,
            None => container::pid_namespace()?,
        };
        let holder = self.processes.insert(holder);
        Ok(container::PidNamespace::Join(copy(holder)?))
    }

    /// Mounts what the host shares, where the documents of containers look for it.
    pub(crate) fn mount_shares(&mut self) -> Result<(), Refusal> {
        if self.has_shares {
            return Ok(());
        }
        let failed = |source| Refusal::Shares(source);
        std::fs::create_dir_all(GUEST_SHARES).map_err(failed)?;
        mount(TAG, GUEST_SHARES, "virtiofs", MountFlags::NODEV, None)
            .map_err(|errno| failed(errno.into()))?;
        self.has_shares = true;
        Ok(())
    }

    /// Gives them up. Every process of the PID namespace is killed.
    pub(crate) fn end(&mut self) {
        if self.has_shares {
            // What is still in use goes with the machine.
            let _ = unmount(GUEST_SHARES, UnmountFlags::DETACH);
        }
        *self = Sandbox::default();
    }
}

fn copy(fd: impl AsFd) -> Result<OwnedFd, Refusal> {
    let copy = fd.as_fd().try_clone_to_owned();
    copy.map_err(Refusal::Namespace)
}

/// The namespace has not ended with its first process, which the kernel may have killed for want of memory.
fn is_alive(holder: &Holder) -> bool {
    let mut fds = [PollFd::new(holder, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// Gives the network namespace of a container that runs these interfaces.
pub(crate) fn change_network(
    container: &mut Container,
    interfaces: Vec<Interface>,
    place: &Surroundings,
) -> Result<(), Refusal> {
    let Some((known, namespace)) = &mut container.network else {
        return Err(Refusal::NoNetwork);
    };
    let (before, after) = (found(known, place), found(&interfaces, place));
    // Whatever comes of it: what was not changed is attempted again by the next change.
    *known = interfaces;
    Ok(container::change_interfaces(
        namespace.as_fd(),
        &before,
        &after,
    )?)
}

fn found(interfaces: &[Interface], place: &Surroundings) -> Vec<container::Interface> {
    let found = |interface: &Interface| container::Interface {
        which: (place.interface)(interface),
        slot: interface.slot,
        mac: interface.mac,
        address: interface.address,
        prefix_len: interface.prefix_len,
        gateway: interface.way_out(),
        mtu: interface.mtu,
    };
    interfaces.iter().map(found).collect()
}
