//! The names of each address of the network, from the folder of its leases.
//!
//! A lease is a file called like the address. Its first line is the name of the sandbox's interface on the host, by which
//! the sandbox is known on its other networks; each further line is a name of the sandbox, or `alias=name`: what it alone
//! calls another.
//! Its sandbox holds a lock on it as long as it lives. The folder is read again when its modification time has changed,
//! which is looked at for each query: nothing polls, and no message is needed.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RawDir, SeekFrom, flock, fstat, openat, seek};
use rustix::io::Errno;

use super::name::Name;

/// The longest lease that is read, in bytes, and the most names of it that count.
const MAX_LEASE: usize = 64 << 10;
const MAX_NAMES: usize = 1024;
/// How a lease is opened: as `filters::NET` has it.
const LEASE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// Of two changes within a tick of the kernel's clock the second does not show in the time: a folder that changed less
/// than this before it was read is read again.
const TICK: Duration = Duration::from_millis(50);

/// The names of a network, at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    addresses: HashMap<Name, Vec<Ipv4Addr>>,
    /// The first name of each address.
    names: HashMap<Ipv4Addr, Name>,
    /// What each address calls others.
    links: HashMap<Ipv4Addr, Vec<(Name, Name)>>,
    /// Which sandbox has each address.
    sandboxes: HashMap<Ipv4Addr, Sandbox>,
}

/// A sandbox, as the name of any of its interfaces on the host says it: what all of them begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sandbox(String);

impl Sandbox {
    /// How much that is, in bytes: 15 are a whole name, of which the last one tells a sandbox's interfaces apart.
    const LEN: usize = 14;

    fn of(interface: &str) -> Option<Sandbox> {
        interface.get(..Self::LEN).map(|it| Sandbox(it.to_owned()))
    }
}

impl Names {
    /// Adds what a lease says. What is no name is left out.
    pub fn add(&mut self, address: Ipv4Addr, lease: &str) {
        let mut lines = lease.lines();
        if let Some(sandbox) = lines.next().and_then(Sandbox::of) {
            self.sandboxes.insert(address, sandbox);
        }
        for line in lines.take(MAX_NAMES) {
            if let Some((alias, name)) = line.split_once('=') {
                if let (Some(alias), Some(name)) = (Name::parse(alias), Name::parse(name)) {
                    self.links.entry(address).or_default().push((alias, name));
                }
                continue;
            }
            let Some(name) = Name::parse(line) else {
                continue;
            };
            self.names.entry(address).or_insert_with(|| name.clone());
            let addresses = self.addresses.entry(name).or_default();
            // Two names of one lease may differ in case alone.
            if addresses.last() != Some(&address) {
                addresses.push(address);
            }
        }
    }

    /// The addresses of a name.
    pub(super) fn addresses(&self, name: &Name) -> &[Ipv4Addr] {
        self.addresses.get(name).map_or(&[], Vec::as_slice)
    }

    /// What the holder of an address calls by another name.
    pub(super) fn linked(&self, address: Ipv4Addr, alias: &Name) -> Option<&Name> {
        let links = self.links.get(&address)?;
        links.iter().find(|(it, _)| it == alias).map(|(_, it)| it)
    }

    /// The sandbox that has an address.
    pub(super) fn sandbox(&self, address: Ipv4Addr) -> Option<&Sandbox> {
        self.sandboxes.get(&address)
    }

    /// The addresses that a sandbox has.
    pub(super) fn addresses_of(&self, sandbox: &Sandbox) -> impl Iterator<Item = Ipv4Addr> {
        let all = self.sandboxes.iter();
        all.filter_map(move |(address, it)| (it == sandbox).then_some(*address))
    }

    /// The name of an address: the first that its lease says.
    pub(super) fn name(&self, address: Ipv4Addr) -> Option<&Name> {
        self.names.get(&address)
    }
}

/// The folder of leases.
#[derive(Debug)]
pub struct Leases {
    folder: OwnedFd,
    names: Names,
    /// Modification time of the folder when it was read, if a change since would show in it.
    read: Option<(i64, u64)>,
}

impl Leases {
    /// Those in the folder that this descriptor, perhaps one of O_PATH, refers to.
    pub fn open(folder: impl AsFd) -> io::Result<Leases> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Leases::of(openat(folder, ".", flags, Mode::empty())?))
    }

    /// Those in a folder that is open to be read: what has been confined opens none.
    pub fn of(folder: OwnedFd) -> Leases {
        Leases {
            folder,
            names: Names::default(),
            read: None,
        }
    }

    /// The names as they are now.
    pub fn names(&mut self) -> io::Result<&Names> {
        let now = SystemTime::now();
        let stat = fstat(&self.folder)?;
        let changed = (stat.st_mtime, stat.st_mtime_nsec);
        if self.read != Some(changed) {
            self.names = self.read_all()?;
            self.read = is_settled(changed, now).then_some(changed);
        }
        Ok(&self.names)
    }

    /// Whether the sandbox that has this address lives. If that cannot be found out, it does: a wrong address is better
    /// than a wrong "there is none".
    pub fn is_alive(&self, address: Ipv4Addr) -> bool {
        let lease = match openat(&self.folder, address.to_string(), LEASE, Mode::empty()) {
            Ok(lease) => lease,
            Err(errno) => return errno != Errno::NOENT,
        };
        // A lock that is got goes at once, with the descriptor.
        flock(&lease, FlockOperation::NonBlockingLockShared).is_err()
    }

    fn read_all(&self) -> io::Result<Names> {
        let mut found = Vec::new();
        seek(&self.folder, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&self.folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_str().ok();
            found.extend(name.and_then(|name| name.parse::<Ipv4Addr>().ok()));
        }
        // The order of a folder is any.
        found.sort_unstable();
        let mut names = Names::default();
        for address in found {
            match self.read_lease(address) {
                Ok(lease) => names.add(address, &lease),
                // Released meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    tracing::warn!(%address, %errno, "a lease cannot be read: its names are unknown");
                }
            }
        }
        Ok(names)
    }

    fn read_lease(&self, address: Ipv4Addr) -> Result<String, Errno> {
        let lease = openat(&self.folder, address.to_string(), LEASE, Mode::empty())?;
        let mut bytes = vec![0; MAX_LEASE];
        let mut len = 0;
        while len < MAX_LEASE {
            match rustix::io::retry_on_intr(|| rustix::io::read(&lease, &mut bytes[len..]))? {
                0 => break,
                more => len += more,
            }
        }
        Ok(String::from_utf8_lossy(&bytes[..len]).into_owned())
    }
}

/// Whether what changes from now on has another time than this.
fn is_settled((seconds, nanoseconds): (i64, u64), now: SystemTime) -> bool {
    let Ok(since_1970) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        return false;
    };
    let changed = u64::try_from(seconds).map(Duration::from_secs);
    changed.is_ok_and(|changed| changed + Duration::from_nanos(nanoseconds) + TICK < since_1970)
}

/// A folder of leases by its path.
pub fn open_folder(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, 0, last)
    }

    /// A lease whose sandbox lives as long as the value.
    fn lease(folder: &Path, last: u8, text: &str) -> File {
        let new = folder.join(".new");
        fs::write(&new, text).unwrap();
        let file = File::open(&new).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::rename(new, folder.join(address(last).to_string())).unwrap();
        file
    }

    fn leases(folder: &Path) -> Leases {
        Leases::open(open_folder(folder).unwrap()).unwrap()
    }

    #[test]
    fn the_first_line_is_no_name_and_the_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let _held = [
            lease(folder.path(), 3, "hullport\nWeb\n0123abcd\n\na b\n"),
            lease(folder.path(), 2, "hullport\ndb\nweb\nWEB"),
        ];
        for other in ["last", ".web", "10.213.0", "010.213.0.9"] {
            fs::write(folder.path().join(other), "hullport\nother").unwrap();
        }
        let mut leases = leases(folder.path());
        let names = leases.names().unwrap();
        assert_eq!(names.addresses(&name("web")), [address(2), address(3)]);
        assert_eq!(names.addresses(&name("0123abcd")), [address(3)]);
        assert!(names.addresses(&name("hullport")).is_empty());
        assert!(names.addresses(&name("other")).is_empty());
        assert_eq!(names.name(address(2)), Some(&name("db")));
        assert_eq!(names.name(address(9)), None);
    }

    #[test]
    fn what_comes_and_goes_is_seen_at_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let mut leases = leases(folder.path());
        let mut is_there = |text: &str| !leases.names().unwrap().addresses(&name(text)).is_empty();
        // Faster than the clock of the file system ticks.
        for round in 0..100 {
            let text = format!("p\nname-{round}");
            let _held = lease(folder.path(), 2, &text);
            assert!(is_there(&format!("name-{round}")));
            fs::remove_file(folder.path().join("10.213.0.2")).unwrap();
            assert!(!is_there(&format!("name-{round}")));
        }
        // Read once, when it has not changed for a while.
        std::thread::sleep(2 * TICK);
        assert!(!is_there("late"));
        let _held = lease(folder.path(), 2, "p\nlate");
        assert!(is_there("late"));
    }

    #[test]
    fn a_lease_that_nobody_holds_is_dead_and_can_be_taken() {
        let folder = tempfile::tempdir().unwrap();
        let held = lease(folder.path(), 2, "p\nweb");
        let leases = leases(folder.path());
        assert!(leases.is_alive(address(2)));
        drop(held);
        assert!(!leases.is_alive(address(2)));
        let file = File::open(folder.path().join("10.213.0.2")).unwrap();
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!leases.is_alive(address(3)));
    }

    #[test]
    fn a_time_counts_once_the_clock_has_left_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert!(is_settled((999, 0), now));
        assert!(!is_settled((999, 999_000_000), now));
        assert!(!is_settled((1001, 0), now));
        assert!(!is_settled((-1, 0), SystemTime::UNIX_EPOCH));
    }
}
