//! Elements of the network's maps: which port of the host leads to which sandbox.
//!
//! They come and go in the transaction of their sandbox's own rules, and what they are is remembered beside the leases, so
//! that they can be taken away when their holder was killed, and put back when the table is made anew:
//!
//! ```text
//!  ports/10.213.0.2   [{"port":{"number":80,"transport":"tcp"},"host_address":"0.0.0.0","host_port":8080}]
//! ```
//! The file is there before the elements are, and goes after them.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use protocol::record::Published;

use crate::error::Error;

/// The map for ports of one address of the host's, and the one for ports of all.
pub(crate) const ONE: &str = "published_at";
pub(crate) const ALL: &str = "published";
/// Declares the table and its maps where they are missing.
pub(crate) fn maps(bridge: &str) -> String {
    format!(
        "table ip {bridge} {{\n\
         \x20 map {ALL} {{\n\
         \x20   type inet_proto . inet_service : ipv4_addr . inet_service\n\
         \x20 }}\n\
         \x20 map {ONE} {{\n\
         \x20   type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service\n\
         \x20 }}\n\
         }}\n"
    )
}

/// Adds the elements of the sandbox with this address.
pub(crate) fn addition(bridge: &str, address: Ipv4Addr, ports: &[Published]) -> String {
    let lines = ports
        .iter()
        .map(|port| format!("add {}", element(bridge, address, port)));
    lines.collect()
}

/// Removes them, whether they are there or not.
pub(crate) fn removal(bridge: &str, address: Ipv4Addr, ports: &[Published]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let lines = ports.iter().map(|port| {
        let element = element(bridge, address, port);
        // nft deletes nothing that is not there, and has no objection to adding what is.
        format!("add {element}delete {element}")
    });
    maps(bridge) + &lines.collect::<String>()
}

fn element(bridge: &str, address: Ipv4Addr, published: &Published) -> String {
    let Published {
        port,
        host_address,
        host_port,
    } = published;
    let (map, at) = match host_address.is_unspecified() {
        true => (ALL, String::new()),
        false => (ONE, format!("{host_address} . ")),
    };
    let transport = port.transport.name();
    format!(
        "element ip {bridge} {map} {{ {at}{transport} . {host_port} : {address} . {} }}\n",
        port.number
    )
}

/// What is remembered of the elements.
pub(crate) struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// In the network's folder.
    pub(crate) fn new(dir: &Path) -> Memory {
        Memory {
            dir: dir.join("ports"),
        }
    }

    /// Remembers a sandbox's.
    pub(crate) fn store(&self, address: Ipv4Addr, ports: &[Published]) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir).map_err(Error::file(&self.dir))?;
        let path = self.path(address);
        let bytes = serde_json::to_vec(ports).map_err(|source| Error::Damaged {
            path: path.clone(),
            source,
        })?;
        std::fs::write(&path, bytes).map_err(Error::file(&path))
    }

    /// A sandbox's; none if it has none, or if a kill kept them from being written whole: there are no elements yet then.
    pub(crate) fn load(&self, address: Ipv4Addr) -> Result<Vec<Published>, Error> {
        let path = self.path(address);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    /// Every sandbox's.
    pub(crate) fn all(&self) -> Result<Vec<(Ipv4Addr, Vec<Published>)>, Error> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::file(&self.dir))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::file(&self.dir))?.file_name();
            if let Some(address) = name.to_str().and_then(|name| name.parse().ok()) {
                all.push((address, self.load(address)?));
            }
        }
        Ok(all)
    }

    /// Forgets a sandbox's.
    pub(crate) fn remove(&self, address: Ipv4Addr) -> Result<(), Error> {
        let path = self.path(address);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.dir.join(address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::record::{Port, Transport};

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 2);

    fn ports() -> [Published; 2] {
        let published = |transport, host_address| Published {
            port: Port {
                number: 80,
                transport,
            },
            host_address,
            host_port: 8080,
        };
        [
            published(Transport::Tcp, Ipv4Addr::UNSPECIFIED),
            published(Transport::Udp, Ipv4Addr::LOCALHOST),
        ]
    }

    #[test]
    fn elements_are_of_the_map_for_one_address_or_for_all() {
        assert_eq!(
            addition("hull0", GUEST, &ports()),
            "add element ip hull0 published { tcp . 8080 : 10.213.0.2 . 80 }\n\
             add element ip hull0 published_at { 127.0.0.1 . udp . 8080 : 10.213.0.2 . 80 }\n"
        );
        assert_eq!(removal("hull0", GUEST, &[]), "");
        let removal = removal("hull0", GUEST, &ports()[..1]);
        assert!(removal.starts_with("table ip hull0 {\n"), "{removal}");
        assert!(removal.ends_with(
            "add element ip hull0 published { tcp . 8080 : 10.213.0.2 . 80 }\n\
             delete element ip hull0 published { tcp . 8080 : 10.213.0.2 . 80 }\n"
        ));
    }

    #[test]
    fn elements_are_remembered_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Memory::new(dir.path());
        assert_eq!(memory.all().unwrap(), []);
        memory.store(GUEST, &[]).unwrap();
        assert_eq!(memory.load(GUEST).unwrap(), []);
        memory.store(GUEST, &ports()).unwrap();
        assert_eq!(memory.load(GUEST).unwrap(), ports());
        assert_eq!(memory.all().unwrap(), [(GUEST, ports().to_vec())]);
        std::fs::write(dir.path().join("ports/10.213.0.3"), "[{").unwrap();
        assert_eq!(memory.load(Ipv4Addr::new(10, 213, 0, 3)).unwrap(), []);
        memory.remove(GUEST).unwrap();
        memory.remove(GUEST).unwrap();
        assert_eq!(memory.load(GUEST).unwrap(), []);
    }
}
