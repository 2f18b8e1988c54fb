//! Addresses in use: a file each, locked by the monitor of the sandbox that has the address.
//!
//! ```text
//!  no file --take--> file, locked --forget--> no file
//!                        |                       ^
//!                        +-- the monitor dies:   |
//!                            file, not locked ---+ dead(), forget
//! ```
//! Files are made and removed only under the network's [`Lock`](crate::state::Lock); the lock on a file says only
//! whether its sandbox lives.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::Network;
use crate::error::Error;
use crate::subnet::Subnet;

/// Longest content of a lease's file that is read: a name of an interface.
const MAX_CONTENT: u64 = 64;

/// An address that a sandbox has. It is free again when this is released, or at the latest when the process ends.
#[derive(Debug)]
#[must_use = "dropping a lease frees its address and leaves the rest to the next sweep"]
pub struct Lease {
    held: Held,
    network: Network,
}

impl Lease {
    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.held.address
    }

    /// The name of the sandbox's interface on the host.
    pub fn port(&self) -> &str {
        &self.held.port
    }

    /// Gives the address back. The last one also removes the bridge and what belongs to it. The sandbox's VM should be
    /// gone: its tap is removed from the bridge with it.
    pub fn release(self) -> Result<(), Error> {
        let Self { held, network } = self;
        network.release(held)
    }
}

/// A locked lease file.
#[derive(Debug)]
pub(crate) struct Held {
    address: Ipv4Addr,
    port: String,
    path: PathBuf,
    /// The lock is on this.
    _file: File,
}

impl Held {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    pub(crate) fn on(self, network: Network) -> Lease {
        Lease {
            held: self,
            network,
        }
    }

    /// Removes the file, and with it the lease.
    pub(crate) fn forget(self) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file(&self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// All leases of a network.
pub(crate) struct Leases {
    dir: PathBuf,
}

impl Leases {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("leases"),
        }
    }

    /// Takes a free address of the subnet for a sandbox whose interface on the host is called `port`.
    ///
    /// Addresses go round: one that was given back is used again as late as possible, so that no peer takes the new
    /// sandbox for the old one.
    pub(crate) fn take(&self, subnet: &Subnet, port: &str) -> Result<Held, Error> {
        let last = self.last(subnet);
        let (before, after): (Vec<_>, Vec<_>) = subnet
            .addresses()
            .partition(|&address| Some(address) <= last);
        let count = before.len() + after.len();
        for address in after.into_iter().chain(before) {
            let path = self.path(address);
            let opened = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(Error::file(&path))?,
            };
            let filled = lock(&file).and_then(|()| (&file).write_all(port.as_bytes()));
            let held = Held {
                address,
                port: port.to_owned(),
                path,
                _file: file,
            };
            let filled = filled.map_err(Error::file(&held.path));
            if let Err(error) = filled.and_then(|()| self.remember_last(address)) {
                // What cannot be removed is dead, and buried by the next.
                let _ = held.forget();
                return Err(error);
            }
            return Ok(held);
        }
        Err(Error::NoFreeAddress(count as u32))
    }

    /// The leases whose sandboxes have died without giving them back; locked, so that they are the caller's.
    pub(crate) fn dead(&self) -> Result<Vec<Held>, Error> {
        let mut dead = Vec::new();
        for (address, path) in self.files()? {
            let mut file = File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(Error::file(&path))?;
            match lock(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(Error::file(&path)(error)),
            }
            let mut port = String::new();
            file.rewind()
                .and_then(|()| (&file).take(MAX_CONTENT).read_to_string(&mut port))
                .map_err(Error::file(&path))?;
            dead.push(Held {
                address,
                port,
                path,
                _file: file,
            });
        }
        Ok(dead)
    }

    /// How many addresses are leased.
    pub(crate) fn count(&self) -> Result<usize, Error> {
        Ok(self.files()?.len())
    }

    fn files(&self) -> Result<Vec<(Ipv4Addr, PathBuf)>, Error> {
        let entries = std::fs::read_dir(&self.dir).map_err(Error::file(&self.dir))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::file(&self.dir))?;
            // Other files are not leases.
            if let Some(address) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                files.push((address, entry.path()));
            }
        }
        Ok(files)
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join(address.to_string())
    }

    /// The address that was taken last, if it is known.
    fn last(&self, subnet: &Subnet) -> Option<Ipv4Addr> {
        let text = std::fs::read_to_string(self.dir.join("last")).ok()?;
        text.parse()
            .ok()
            .filter(|&address| subnet.contains(address))
    }

    fn remember_last(&self, address: Ipv4Addr) -> Result<(), Error> {
        let path = self.dir.join("last");
        std::fs::write(&path, address.to_string()).map_err(Error::file(&path))
    }
}

fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    fn leases() -> (tempfile::TempDir, Leases, Subnet) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        let leases = Leases::new(dir.path());
        let network = Ipv4Addr::new(10, 213, 0, 0);
        (
            dir,
            leases,
            Subnet {
                network,
                prefix_len: 29,
            },
        )
    }

    #[test]
    fn addresses_are_given_once_and_go_round() {
        let (_dir, leases, subnet) = leases();
        let last_byte = |held: &Held| held.address().octets()[3];
        let all: Vec<_> = (0..5)
            .map(|_| leases.take(&subnet, "hullx").unwrap())
            .collect();
        assert_eq!(
            all.iter().map(last_byte).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6]
        );
        assert!(matches!(
            leases.take(&subnet, "hullx"),
            Err(Error::NoFreeAddress(5))
        ));
        let mut all = all.into_iter();
        all.next().unwrap().forget().unwrap();
        let third = all.nth(1).unwrap();
        third.forget().unwrap();
        assert_eq!(last_byte(&leases.take(&subnet, "hullx").unwrap()), 2);
        assert_eq!(last_byte(&leases.take(&subnet, "hullx").unwrap()), 4);
    }

    #[test]
    fn a_lease_that_was_never_written_is_dead_and_has_no_interface() {
        let (dir, leases, _) = leases();
        File::create(dir.path().join("leases/10.213.0.2")).unwrap();
        let dead = leases.dead().unwrap();
        assert_eq!((dead.len(), dead[0].port()), (1, ""));
        let interfaces = sys::interface::Interfaces::open().unwrap();
        crate::port_gone(&interfaces, dead[0].port()).unwrap();
    }

    #[test]
    fn a_lease_that_nobody_holds_is_dead_and_keeps_its_address_until_it_is_forgotten() {
        let (_dir, leases, subnet) = leases();
        let held = leases.take(&subnet, "hullone").unwrap();
        assert!(leases.dead().unwrap().is_empty());
        assert_eq!(leases.count().unwrap(), 1);
        drop(held);
        let dead = leases.dead().unwrap();
        assert_eq!((dead.len(), dead[0].port()), (1, "hullone"));
        for held in dead {
            held.forget().unwrap();
        }
        assert_eq!(leases.count().unwrap(), 0);
    }
}
