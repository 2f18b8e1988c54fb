//! Addresses in use: a file each, locked by the monitor of the sandbox that has the address.
//!
//! ```text
//!  no file --take--> file, locked --forget--> no file
//!                        |                       ^
//!                        +-- the monitor dies:   |
//!                            file, not locked ---+ dead(), forget
//!
//!  leases/10.213.0.2   hull0123456789a      the interface's name on the host
//!                      web                  each further line: a name of the sandbox for the network's DNS
//!                      0123456789ab
//!                      db=postgres         or what it alone calls another
//! ```
//! Files are made and removed only under the network's [`Lock`](crate::state::Lock); the lock on a file says only
//! whether its sandbox lives. A file is written and locked under another name (which begins with a dot) and then linked to
//! its address: whoever sees it sees all of it. Files of earlier versions have the first line alone.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::record::Published;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::net::{Launch, Launched};
use crate::ports::Held as Ports;
use crate::state::State;
use crate::switch::Member;
use crate::{Adjacent, Network};

/// Longest first line of a lease's file that is read: a name of an interface.
const MAX_CONTENT: u64 = 64;
/// A lease's file before it has its address.
const NEW: &str = ".new";
/// The longest name for the DNS, in bytes (RFC 1035, 2.3.4).
const MAX_NAME_LEN: usize = 253;

/// An address that a sandbox has. It is free again when this is released, or at the latest when the process ends.
#[derive(Debug)]
#[must_use = "dropping a lease frees its address and leaves the rest to the next sweep"]
pub struct Lease {
    held: Held,
    network: Network,
    ports: Ports,
    /// What makes it a member of its network, where that is a hull-net.
    member: Option<Member>,
}

impl Lease {
    /// Keeps it a member of its network's hull-net for as long as it has the address.
    pub(crate) fn keep(&mut self, member: Member) {
        self.member = Some(member);
    }

    /// Where its network is a hull-net: readable when that has ended.
    pub fn membership(&self) -> Option<BorrowedFd<'_>> {
        self.member.as_ref().and_then(Member::connection)
    }

    /// Where its network is a hull-net: says which networks its sandbox is on besides, so that it is told their names.
    pub fn tell_adjacent(&mut self, adjacent: Vec<Adjacent>) -> Result<(), Error> {
        match &mut self.member {
            Some(member) => member.tell_adjacent(adjacent),
            None => Ok(()),
        }
    }

    /// hull-net has ended: the sandbox is no member until it joins again.
    pub fn expelled(&mut self) {
        if let Some(member) = &mut self.member {
            member.disconnect();
        }
    }

    /// Joins again: another hull-net is started if no one has. The sandbox keeps its wire, its address and its ports.
    pub fn join_again(
        &mut self,
        launch: impl FnOnce(&Launch<'_>) -> Launched,
    ) -> Result<(), Error> {
        match &mut self.member {
            Some(member) => self.network.join_again(member, &self.ports, launch),
            None => Ok(()),
        }
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.held.address
    }

    /// The name of the sandbox's interface on the host.
    pub fn port(&self) -> &str {
        &self.held.port
    }

    /// The sandbox's ports that are reached by the host's addresses.
    pub fn ports(&self) -> &[Published] {
        self.ports.published()
    }

    /// Gives the address back. The last one also removes the bridge and what belongs to it. The sandbox's VM should be
    /// gone: its tap is removed from the bridge with it.
    pub fn release(self) -> Result<(), Error> {
        let Self {
            held,
            network,
            ports,
            member,
        } = self;
        drop(member);
        let released = network.release(held);
        // Last: the ports are free for others once nothing is sent to the sandbox any more.
        drop(ports);
        released
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

    pub(crate) fn on(self, network: Network, ports: Ports) -> Lease {
        Lease {
            held: self,
            network,
            ports,
            member: None,
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

    /// Takes an address for a sandbox whose interface on the host is called `port`: the one that is `wanted`, or a free one of
    /// the network's. `names` are the sandbox's for the DNS; what cannot be one is left out.
    ///
    /// Addresses go round: one that was given back is used again as late as possible, so that no peer takes the new
    /// sandbox for the old one.
    pub(crate) fn take(
        &self,
        state: &State,
        port: &str,
        names: &[String],
        wanted: Option<Ipv4Addr>,
    ) -> Result<Held, Error> {
        let (new, file) = self.write(port, names)?;
        let taken = match wanted {
            Some(address) => self.link(&new, address),
            None => self.link_free(&new, state),
        };
        let unlinked = std::fs::remove_file(&new).map_err(Error::file(&new));
        let Some(address) = taken? else {
            return Err(match wanted {
                Some(address) => Error::AddressInUse(address),
                None => Error::NoFreeAddress(state.addresses().count()),
            });
        };
        let held = Held {
            address,
            port: port.to_owned(),
            path: self.path(address),
            _file: file,
        };
        let remembered = match wanted {
            Some(_) => Ok(()),
            None => self.remember_last(address),
        };
        if let Err(error) = unlinked.and(remembered) {
            // What cannot be removed is dead, and buried by the next.
            let _ = held.forget();
            return Err(error);
        }
        Ok(held)
    }

    /// A lease's file, locked, that has no address yet.
    fn write(&self, port: &str, names: &[String]) -> Result<(PathBuf, File), Error> {
        let path = self.dir.join(NEW);
        // What a killed process left: it may be a lease's other name, so it is not written to.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file(&path)(error));
            }
            _ => {}
        }
        let mut text = port.to_owned();
        for name in names.iter().filter_map(|name| line(name)) {
            text.push('\n');
            text += &name;
        }
        let made = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let mut file = made.map_err(Error::file(&path))?;
        // The network's DNS server, another user's process, reads it, whatever the umask is.
        let readable = Permissions::from_mode(0o644);
        file.set_permissions(readable)
            .and_then(|()| lock(&file))
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(Error::file(&path))?;
        Ok((path, file))
    }

    fn link_free(&self, new: &Path, state: &State) -> Result<Option<Ipv4Addr>, Error> {
        let last = self.last(&state.subnet);
        let after = |address: &Ipv4Addr| Some(*address) > last;
        let later = state.addresses().filter(after);
        for address in later.chain(state.addresses().filter(|address| !after(address))) {
            if let Some(taken) = self.link(new, address)? {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Gives a lease's file its address; `None` if another one has it.
    fn link(&self, new: &Path, address: Ipv4Addr) -> Result<Option<Ipv4Addr>, Error> {
        let path = self.path(address);
        match std::fs::hard_link(new, &path) {
            Ok(()) => Ok(Some(address)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(Error::file(&path)(error)),
        }
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
            let mut content = Vec::new();
            file.rewind()
                .and_then(|()| (&file).take(MAX_CONTENT).read_to_end(&mut content))
                .map_err(Error::file(&path))?;
            let first = content.split(|byte| *byte == b'\n').next();
            let port = String::from_utf8_lossy(first.unwrap_or_default()).into_owned();
            dead.push(Held {
                address,
                port,
                path,
                _file: file,
            });
        }
        Ok(dead)
    }

    /// The addresses that are leased, each with the name of its holder's interface on the host.
    pub(crate) fn holders(&self) -> Result<Vec<(Ipv4Addr, String)>, Error> {
        let read = |(address, path): (Ipv4Addr, PathBuf)| {
            let text = std::fs::read_to_string(path).ok()?;
            Some((address, text.lines().next()?.to_owned()))
        };
        // One that cannot be read was given back meanwhile.
        Ok(self.files()?.into_iter().filter_map(read).collect())
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
    fn last(&self, subnet: &protocol::subnet::Subnet) -> Option<Ipv4Addr> {
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

/// A line of a lease: a name, or a name that its holder alone has for another.
fn line(name: &str) -> Option<String> {
    match name.split_once('=') {
        None => dns_name(name),
        Some((alias, name)) => Some(format!("{}={}", dns_name(alias)?, dns_name(name)?)),
    }
}

/// A name as the DNS has it, or `None` if it cannot have it.
fn dns_name(name: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(known);
    good.then(|| name.to_ascii_lowercase())
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

    fn leases() -> (tempfile::TempDir, Leases, State) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("leases")).unwrap();
        let leases = Leases::new(dir.path());
        (dir, leases, State::of("10.213.0.0/29".parse().unwrap()))
    }

    fn take(leases: &Leases, state: &State) -> Result<Held, Error> {
        leases.take(state, "hullx", &[], None)
    }

    #[test]
    fn addresses_are_given_once_and_go_round() {
        let (_dir, leases, state) = leases();
        let last_byte = |held: &Held| held.address().octets()[3];
        let all: Vec<_> = (0..5).map(|_| take(&leases, &state).unwrap()).collect();
        assert_eq!(
            all.iter().map(last_byte).collect::<Vec<_>>(),
            [2, 3, 4, 5, 6]
        );
        assert!(matches!(
            take(&leases, &state),
            Err(Error::NoFreeAddress(5))
        ));
        let mut all = all.into_iter();
        all.next().unwrap().forget().unwrap();
        let third = all.nth(1).unwrap();
        third.forget().unwrap();
        assert_eq!(last_byte(&take(&leases, &state).unwrap()), 2);
        assert_eq!(last_byte(&take(&leases, &state).unwrap()), 4);
    }

    #[test]
    fn a_lease_is_seen_with_all_of_its_names_or_not_at_all() {
        let (dir, leases, state) = leases();
        // Of a process that was killed at the worst moment: the other name of a lease.
        let first = take(&leases, &state).unwrap();
        let path = dir.path().join("leases");
        std::fs::hard_link(path.join("10.213.0.2"), path.join(".new")).unwrap();
        let names = [
            "Web",
            "0123456789ab",
            "",
            "a\nb",
            "x y",
            &"l".repeat(254),
            "web.lan",
        ];
        let second = leases
            .take(&state, "hulltwo", &names.map(str::to_owned), None)
            .unwrap();
        let read = |held: &Held| std::fs::read_to_string(path.join(held.address().to_string()));
        assert_eq!(read(&first).unwrap(), "hullx");
        assert_eq!(
            read(&second).unwrap(),
            "hulltwo\nweb\n0123456789ab\nweb.lan"
        );
        assert!(!path.join(".new").exists());
        let holders = leases.holders().unwrap();
        assert!(
            holders.contains(&(second.address(), "hulltwo".into())),
            "{holders:?}"
        );
        drop(second);
        assert_eq!(leases.dead().unwrap()[0].port(), "hulltwo");
    }

    #[test]
    fn an_address_that_is_wanted_is_given_once_and_others_come_from_the_range() {
        let (_dir, leases, mut state) = leases();
        let wanted = Some(Ipv4Addr::new(10, 213, 0, 6));
        let held = leases.take(&state, "hullx", &[], wanted).unwrap();
        assert_eq!(Some(held.address()), wanted);
        let refused = leases.take(&state, "hully", &[], wanted).unwrap_err();
        assert!(matches!(refused, Error::AddressInUse(_)), "{refused}");
        state.range = Some("10.213.0.4/30".parse().unwrap());
        let all: Vec<Held> = std::iter::from_fn(|| take(&leases, &state).ok()).collect();
        let given: Vec<u8> = all.iter().map(|held| held.address().octets()[3]).collect();
        assert_eq!(given, [4, 5]);
    }

    #[test]
    fn a_lease_that_was_never_written_is_dead_and_has_no_interface() {
        let (dir, leases, _) = leases();
        File::create(dir.path().join("leases/10.213.0.2")).unwrap();
        let dead = leases.dead().unwrap();
        assert_eq!((dead.len(), dead[0].port()), (1, ""));
        let interfaces = sys::interface::Interfaces::open().unwrap();
        crate::port_gone(&interfaces, dead[0].port(), "").unwrap();
    }

    #[test]
    fn a_lease_that_nobody_holds_is_dead_and_keeps_its_address_until_it_is_forgotten() {
        let (_dir, leases, state) = leases();
        let held = leases
            .take(&state, "hullone", &["Web".into(), "a b".into()], None)
            .unwrap();
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
