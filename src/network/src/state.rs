//! What is remembered of the bridge, and the lock under which it is changed.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::subnet::Subnet;

/// Lengths of the prefix of a bridge's network: [`Subnet::choose`] takes 20.
const MIN_PREFIX: u8 = 16;
const MAX_PREFIX: u8 = 30;

/// What is remembered of the bridge. It is written before anything is changed, so that a later command can change it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) subnet: Subnet,
    /// The bridge's address; the subnet's first one if it is not said.
    #[serde(default)]
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The part of the subnet that addresses are given from; all of it if it is not said.
    #[serde(default)]
    pub(crate) range: Option<Subnet>,
    /// There is no way out.
    #[serde(default)]
    pub(crate) internal: bool,
    pub(crate) mtu: u16,
    /// Interfaces whose forwarding was off before the bridge was made.
    pub(crate) forwarding: Vec<String>,
    /// [`crate::firewall::EDITION`] of the rules that are in place.
    #[serde(default)]
    pub(crate) rules: u32,
}

impl State {
    /// A bridge's with these addresses.
    pub(crate) fn of(subnet: Subnet) -> State {
        State {
            subnet,
            gateway: None,
            range: None,
            internal: false,
            mtu: 1500,
            forwarding: Vec::new(),
            rules: 0,
        }
    }

    /// The bridge's own address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway.unwrap_or_else(|| self.subnet.gateway())
    }

    /// Addresses for sandboxes: the range's, but for the network's, the gateway's and the broadcast address.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let (range, gateway) = (self.range.unwrap_or(self.subnet), self.gateway());
        let all = self.subnet.addresses();
        all.filter(move |address| range.contains(*address) && *address != gateway)
    }

    /// What was remembered, if the bridge is there or was not removed properly.
    pub(crate) fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let path = file(dir);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .and_then(State::checked)
                .map(Some)
                .map_err(|source| Error::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    /// Remembers, all or nothing.
    pub(crate) fn store(&self, dir: &Path, _lock: &Lock) -> Result<(), Error> {
        let path = file(dir);
        // What could not be read again is not written.
        let bytes = State::checked(self.clone())
            .and_then(|state| serde_json::to_vec(&state))
            .map_err(|source| Error::Damaged {
                path: path.clone(),
                source,
            })?;
        let new = path.with_extension("new");
        File::create(&new)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(Error::file(&path))
    }

    /// The state, if it can be a bridge's: its names become paths and rules, its network a loop over addresses.
    fn checked(self) -> Result<Self, serde_json::Error> {
        let wrong = |what: &str| Err(serde::de::Error::custom(what));
        let Subnet {
            network,
            prefix_len,
        } = self.subnet;
        if !(MIN_PREFIX..=MAX_PREFIX).contains(&prefix_len)
            || network.to_bits() & !self.subnet.mask() != 0
        {
            return wrong("its network is not one that a bridge can have");
        }
        let is_inside = |range: &Subnet| self.subnet.holds(range);
        if !self.subnet.contains(self.gateway()) || !self.range.iter().all(is_inside) {
            return wrong("its gateway or its range is not of its network");
        }
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '"' | '\\');
        let is_name = |name: &String| {
            (1..=sys::tap::MAX_NAME_LEN).contains(&name.len())
                && name.chars().all(plain)
                && !matches!(name.as_str(), "." | "..")
        };
        if !self.forwarding.iter().all(is_name) {
            return wrong("it names an interface that cannot be");
        }
        Ok(self)
    }

    /// Forgets.
    pub(crate) fn remove(dir: &Path, _lock: &Lock) -> Result<(), Error> {
        let path = file(dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&path)(error)),
            _ => Ok(()),
        }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("bridge.json")
}

/// The right to change the bridge and the leases. It ends with the process at the latest.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if it is not there, and waits for the lock, which is held for milliseconds.
    pub(crate) fn take(dir: &Path) -> Result<Self, Error> {
        let leases = dir.join("leases");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&leases)
            .map_err(Error::file(&leases))?;
        let path = dir.join("lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::file(&path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::file(&path)(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_remembered_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        let subnet = Subnet {
            network: Ipv4Addr::new(10, 213, 0, 0),
            prefix_len: 20,
        };
        let state = State {
            forwarding: vec!["eth0".to_owned()],
            ..State::of(subnet)
        };
        state.store(dir.path(), &lock).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
        State::remove(dir.path(), &lock).unwrap();
        State::remove(dir.path(), &lock).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_state_that_no_bridge_can_have_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let load = |network: &str, prefix_len: u8, name: &str| {
            let text = format!(
                r#"{{"subnet":{{"network":"{network}","prefix_len":{prefix_len}}},"mtu":1500,"forwarding":["{name}"]}}"#
            );
            std::fs::write(dir.path().join("bridge.json"), text).unwrap();
            State::load(dir.path())
        };
        assert!(load("10.213.0.0", 20, "eth0").is_ok());
        for (network, prefix_len) in [
            ("255.255.255.255", 32),
            ("0.0.0.0", 0),
            ("10.213.0.1", 20),
            ("10.0.0.0", 200),
        ] {
            assert!(load(network, prefix_len, "eth0").is_err(), "{network}");
        }
        for more in [
            r#","gateway":"10.214.0.1""#,
            r#","range":{"network":"10.0.0.0","prefix_len":8}"#,
        ] {
            let text = format!(
                r#"{{"subnet":{{"network":"10.213.0.0","prefix_len":20}},"mtu":1500,"forwarding":[]{more}}}"#
            );
            std::fs::write(dir.path().join("bridge.json"), text).unwrap();
            assert!(State::load(dir.path()).is_err(), "{more}");
        }
        for name in [
            "",
            "..",
            "../../x",
            "a b",
            "sixteen-letters-",
            "a\\\"b",
            "a{",
        ] {
            let result = load("10.213.0.0", 20, name);
            assert_eq!(result.is_ok(), name == "a{", "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_reported_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bridge.json"), "{").unwrap();
        let error = State::load(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("bridge.json is damaged"),
            "{error}"
        );
    }
}
