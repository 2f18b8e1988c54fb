//! Owners and modes that are kept in records, as the guest and as the host see them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::guest::{Attr, Body, Done, Set};
use super::{Shared, flags, is_root};
use crate::abi::{Opcode, fattr};

const NAME: &str = "user.hull.owner";
const NOBODY: u32 = 65534;
/// Somebody in the guest, and on the host.
const USER: u32 = 4321;
const GROUP: u32 = 8765;

/// Who owns a file, and its mode.
type Seen = (u32, u32, u32);

fn seen(attr: &Attr) -> Seen {
    (attr.uid, attr.gid, attr.mode & 0o7777)
}

fn on_host(path: &Path) -> Seen {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

fn changed(path: &Path) -> (i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// The server's user on the host, with a mode.
fn own(mode: u32) -> Seen {
    let user = rustix::process::geteuid().as_raw();
    (user, rustix::process::getegid().as_raw(), mode)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

impl Shared {
    fn look(&mut self, name: &str) -> Done<Seen> {
        let entry = self.guest.lookup(self.root, name)?;
        let attr = self.guest.getattr(entry.node)?;
        assert_eq!(seen(&entry.attr), seen(&attr));
        Ok(seen(&attr))
    }

    fn change(&mut self, name: &str, set: Set) -> Done<Seen> {
        let node = self.guest.lookup(self.root, name)?.node;
        self.guest.setattr(node, set).map(|attr| seen(&attr))
    }

    fn record(&self, name: &str) -> Option<String> {
        let mut value = [0; 100];
        let len = getxattr(self.path(name), NAME, &mut value).ok()?;
        Some(String::from_utf8(value[..len].to_vec()).unwrap())
    }
}

#[test]
fn the_users_own_files_are_roots_and_those_of_others_nobodys() {
    let mut shared = Shared::recorded(|path| {
        fs::write(path.join("own"), "").unwrap();
        set_mode(&path.join("own"), 0o640);
        fs::create_dir(path.join("directory")).unwrap();
        set_mode(&path.join("directory"), 0o1711);
        if is_root() {
            let theirs = path.join("theirs");
            fs::write(&theirs, "").unwrap();
            // What others record of their files is not believed.
            setxattr(&theirs, NAME, b"1:0:0:4755", XattrFlags::empty()).unwrap();
            chown(&theirs, Some(USER), Some(GROUP)).unwrap();
            set_mode(&theirs, 0o604);
            fs::write(path.join("group"), "").unwrap();
            chown(path.join("group"), None, Some(GROUP)).unwrap();
            set_mode(&path.join("group"), 0o664);
        }
    });
    assert_eq!(shared.look("own"), Ok((0, 0, 0o640)));
    assert_eq!(shared.look("directory"), Ok((0, 0, 0o1711)));
    assert_eq!(shared.record("own"), None);
    if is_root() {
        assert_eq!(shared.look("theirs"), Ok((NOBODY, NOBODY, 0o604)));
        assert_eq!(shared.look("group"), Ok((0, NOBODY, 0o664)));
        let before = on_host(&shared.path("theirs"));
        for set in [Set::owner(0, 0), Set::mode(0o777)] {
            assert_eq!(shared.change("theirs", set), Err(Errno::PERM));
        }
        let as_it_is = shared.change("theirs", Set::owner(NOBODY, NOBODY));
        assert_eq!(as_it_is, Ok((NOBODY, NOBODY, 0o604)));
        assert_eq!(on_host(&shared.path("theirs")), before);
    }
}

#[test]
fn what_is_set_is_seen_and_the_hosts_user_keeps_access() {
    let mut shared = Shared::recorded(|path| {
        fs::write(path.join("f"), "data").unwrap();
        set_mode(&path.join("f"), 0o444);
        fs::create_dir(path.join("d")).unwrap();
        set_mode(&path.join("d"), 0o755);
    });
    // name, change, as the guest sees it, the mode on the host
    let file = |mode| {
        (
            "f",
            Set::mode(mode),
            (USER, GROUP, mode),
            mode & 0o777 | 0o600,
        )
    };
    let directory = |mode| ("d", Set::mode(mode), (USER, 7, mode), mode & 0o777 | 0o700);
    let table = [
        ("f", Set::owner(USER, GROUP), (USER, GROUP, 0o444), 0o644),
        file(0),
        file(0o600),
        file(0o4755),
        file(0o7777),
        file(0o044),
        ("d", Set::owner(USER, 7), (USER, 7, 0o755), 0o755),
        directory(0),
        directory(0o1777),
        directory(0o2750),
        directory(0o7000),
    ];
    for (name, set, guests, hosts) in table {
        assert_eq!(shared.change(name, set), Ok(guests), "{name} {set:?}");
        assert_eq!(shared.look(name), Ok(guests), "{name} {set:?}");
        assert_eq!(on_host(&shared.path(name)), own(hosts), "{name} {set:?}");
        shared.guest.server.nodes.clear();
        shared.root = shared.guest.lookup(1, "s").unwrap().node;
        assert_eq!(shared.look(name), Ok(guests), "{name}, looked up anew");
    }
    // It is served, whatever its mode.
    let node = shared.guest.lookup(shared.root, "f").unwrap().node;
    shared.guest.setattr(node, Set::mode(0)).unwrap();
    let mut open = shared.guest.open(node, flags::RDWR).unwrap();
    open.file.write_all(b"more").unwrap();
    let node = shared.guest.lookup(shared.root, "d").unwrap().node;
    shared
        .guest
        .create(node, "inner", flags::RDWR, 0o600)
        .unwrap();
    assert!(shared.path("d/inner").exists());
}

#[test]
fn only_one_of_owner_and_group_is_changed_as_asked() {
    let mut shared = Shared::recorded(|path| fs::write(path.join("f"), "").unwrap());
    let user = Set {
        valid: fattr::UID,
        uid: USER,
        ..Set::default()
    };
    let group = Set {
        valid: fattr::GID,
        gid: GROUP,
        ..Set::default()
    };
    shared.change("f", Set::mode(0o6755)).unwrap();
    // As chown(2) does, for root too.
    assert_eq!(shared.change("f", user), Ok((USER, 0, 0o755)));
    assert_eq!(shared.change("f", group), Ok((USER, GROUP, 0o755)));
    let invalid = shared.change("f", Set::owner(u32::MAX, 0));
    assert_eq!(invalid, Err(Errno::INVAL));
    assert_eq!(shared.record("f").unwrap(), "1:4321:8765:0755");
    // There is no record where the file says it by itself.
    assert_eq!(shared.change("f", Set::owner(0, 0)), Ok((0, 0, 0o755)));
    assert_eq!(shared.record("f"), None);
}

#[test]
fn what_is_made_belongs_to_its_maker() {
    for (uid, gid) in [(0, 0), (USER, GROUP)] {
        let mut shared = Shared::recorded(|_| ());
        (shared.guest.uid, shared.guest.gid) = (uid, gid);
        let root = shared.root;
        for mode in [0, 0o200, 0o444, 0o644, 0o755, 0o1640, 0o4755] {
            let how = flags::RDONLY | flags::CREAT | flags::EXCL;
            let name = format!("created-{mode:o}");
            let (entry, open) = shared.guest.create(root, &name, how, mode).unwrap();
            assert_eq!(seen(&entry.attr), (uid, gid, mode));
            assert!(open.file.write_at(b"x", 0).is_err(), "it is open as asked");
            assert_eq!(on_host(&shared.path(&name)), own(mode & 0o777 | 0o600));
            assert_eq!(shared.look(&name), Ok((uid, gid, mode)));
            let again = shared.guest.create(root, &name, how, mode);
            assert_eq!(again.unwrap_err(), Errno::EXIST);
            let name = format!("node-{mode:o}");
            let entry = shared
                .guest
                .mknod(root, &name, 0o100_000 | mode, 0)
                .unwrap();
            assert_eq!(seen(&entry.attr), (uid, gid, mode));
            let again = shared.guest.mknod(root, &name, 0o100_000 | mode, 0);
            assert_eq!(again, Err(Errno::EXIST));
            let name = format!("directory-{mode:o}");
            let entry = shared.guest.mkdir(root, &name, mode).unwrap();
            assert_eq!(seen(&entry.attr), (uid, gid, mode));
            assert_eq!(on_host(&shared.path(&name)), own(mode & 0o777 | 0o700));
            assert_eq!(shared.guest.mkdir(root, &name, mode), Err(Errno::EXIST));
        }
        let (unnamed, _open) = shared.guest.tmpfile(root, flags::RDWR).unwrap();
        assert_eq!((unnamed.attr.uid, unnamed.attr.gid), (uid, gid));
        let linked = shared.guest.link(unnamed.node, root, "linked").unwrap();
        assert_eq!(seen(&linked.attr), seen(&unnamed.attr));
        assert_eq!(on_host(&shared.path("linked")).0, own(0).0);
        let appended = shared
            .guest
            .create(root, "log", flags::WRONLY | flags::APPEND, 0o600);
        let (_, open) = appended.unwrap();
        for text in [b"one", b"two"] {
            open.file.write_at(text, 0).unwrap();
        }
        assert_eq!(fs::read(shared.path("log")).unwrap(), b"onetwo");
    }
}

#[test]
fn makers_without_a_number_make_nothing() {
    let mut shared = Shared::recorded(|_| ());
    let root = shared.root;
    (shared.guest.uid, shared.guest.gid) = (u32::MAX, 0);
    assert_eq!(shared.guest.mkdir(root, "d", 0o755), Err(Errno::PERM));
    let created = shared.guest.create(root, "f", flags::RDWR, 0o644);
    assert_eq!(created.unwrap_err(), Errno::PERM);
    assert_eq!(fs::read_dir(shared.path("")).unwrap().count(), 0);
}

#[test]
fn in_a_set_group_id_directory_the_group_is_the_directorys() {
    let mut shared = Shared::recorded(|_| ());
    let directory = shared.guest.mkdir(shared.root, "d", 0o755).unwrap().node;
    shared.guest.setattr(directory, Set::owner(5, 777)).unwrap();
    shared.guest.setattr(directory, Set::mode(0o2775)).unwrap();
    (shared.guest.uid, shared.guest.gid) = (USER, GROUP);
    let (file, _) = shared
        .guest
        .create(directory, "f", flags::RDWR, 0o644)
        .unwrap();
    assert_eq!(seen(&file.attr), (USER, 777, 0o644));
    let inner = shared.guest.mkdir(directory, "inner", 0o750).unwrap();
    assert_eq!(seen(&inner.attr), (USER, 777, 0o2750));
    assert_eq!(on_host(&shared.path("d/inner")), own(0o750));
}

#[test]
fn set_id_bits_hold_for_what_they_were_set_on() {
    let mut shared = Shared::recorded(|path| {
        for name in ["size", "cut", "written", "allocated", "touched", "host"] {
            fs::write(path.join(name), "program").unwrap();
        }
    });
    for name in ["size", "cut", "written", "allocated", "touched", "host"] {
        let (seen, node) = {
            let node = shared.guest.lookup(shared.root, name).unwrap().node;
            (shared.change(name, Set::mode(0o6755)), node)
        };
        assert_eq!(seen, Ok((0, 0, 0o6755)), "{name}");
        let mut left = 0o755;
        match name {
            "size" => drop(shared.guest.setattr(node, Set::size(3)).unwrap()),
            "cut" => drop(
                shared
                    .guest
                    .open(node, flags::WRONLY | flags::TRUNC)
                    .unwrap(),
            ),
            "allocated" => {
                let open = shared.guest.open(node, flags::WRONLY).unwrap();
                let body = Body::new().u64(open.fh).u64(0).u64(4096).u32(0).u32(0);
                shared.guest.call(Opcode::FALLOCATE, node, body).unwrap();
            }
            "touched" => {
                let times = Set {
                    valid: fattr::MTIME,
                    mtime: (1_000_000_000, 7),
                    ..Set::default()
                };
                shared.guest.setattr(node, times).unwrap();
                left = 0o6755;
            }
            _ => {
                // By hull-vmm, or by the host, later than in the tick in which they were set.
                let meta = fs::metadata(shared.path(name)).unwrap();
                let set_at = (meta.ctime(), meta.ctime_nsec());
                while changed(&shared.path(name)) <= set_at {
                    let file = File::options().write(true).open(shared.path(name)).unwrap();
                    file.write_at(b"x", 0).unwrap();
                }
            }
        }
        assert_eq!(shared.look(name), Ok((0, 0, left)), "{name}");
        assert_eq!(on_host(&shared.path(name)), own(0o755), "{name}");
    }
}

#[test]
fn a_mode_that_the_host_changes_counts_and_the_owner_stays() {
    let mut shared = Shared::recorded(|path| fs::write(path.join("f"), "").unwrap());
    shared.change("f", Set::owner(USER, GROUP)).unwrap();
    shared.change("f", Set::mode(0o4400)).unwrap();
    set_mode(&shared.path("f"), 0o755);
    assert_eq!(shared.look("f"), Ok((USER, GROUP, 0o755)));
    set_mode(&shared.path("f"), 0o000);
    // What cannot be read on the host shows what can be seen, and is as it was when it can be read.
    assert_eq!(shared.look("f"), Ok((0, 0, 0)));
    let group = Set {
        valid: fattr::GID,
        gid: 1,
        ..Set::default()
    };
    assert_eq!(shared.change("f", group), Ok((USER, 1, 0)));
    assert_eq!(on_host(&shared.path("f")), own(0o600));
}

#[test]
fn what_holds_no_record_is_roots_and_stays_so() {
    let mut shared = Shared::recorded(|_| ());
    (shared.guest.uid, shared.guest.gid) = (USER, GROUP);
    let root = shared.root;
    shared.guest.symlink(root, "link", "../secret").unwrap();
    shared.guest.mknod(root, "fifo", 0o010_640, 0).unwrap();
    shared.guest.mknod(root, "socket", 0o140_755, 0).unwrap();
    let before = on_host(&shared.outer.path().join("secret"));
    for (name, mode) in [("link", 0o777), ("fifo", 0o640), ("socket", 0o755)] {
        assert_eq!(shared.look(name), Ok((0, 0, mode)), "{name}");
        let changed = shared.change(name, Set::owner(USER, GROUP));
        assert_eq!(changed, Ok((0, 0, mode)), "{name}");
    }
    assert_eq!(shared.change("fifo", Set::mode(0o7602)), Ok((0, 0, 0o602)));
    let of_link = shared.change("link", Set::mode(0o600));
    assert_eq!(of_link, Err(Errno::OPNOTSUPP));
    assert_eq!(on_host(&shared.outer.path().join("secret")), before);
    let device = shared.guest.mknod(root, "null", 0o020_666, 0x103);
    assert_eq!(device, Err(Errno::PERM));
}

#[test]
fn records_that_cannot_be_read_are_an_error_and_never_a_guess() {
    let mut shared = Shared::recorded(|path| {
        fs::write(path.join("f"), "").unwrap();
        fs::create_dir(path.join("d")).unwrap();
    });
    let long = vec![b'1'; 1000];
    for name in ["f", "d"] {
        let node = shared.guest.lookup(shared.root, name).unwrap().node;
        let nodes = shared.guest.server.nodes.count();
        for bad in [
            &b""[..],
            b"1",
            b"2:0:0:0644",
            b"1:0:0:0644\0",
            b"root",
            &long,
        ] {
            setxattr(shared.path(name), NAME, bad, XattrFlags::empty()).unwrap();
            assert_eq!(shared.look(name), Err(Errno::IO));
            assert_eq!(shared.guest.getattr(node), Err(Errno::IO));
            for set in [Set::owner(1, 1), Set::mode(0o600)] {
                assert_eq!(shared.guest.setattr(node, set), Err(Errno::IO));
            }
            let mut kept = vec![0; 1100];
            let len = getxattr(shared.path(name), NAME, &mut kept[..]).unwrap();
            assert_eq!(&kept[..len], bad);
        }
        if name == "d" {
            assert_eq!(shared.guest.mkdir(node, "x", 0o755), Err(Errno::IO));
        }
        assert_eq!(shared.guest.server.nodes.count(), nodes);
        let listed = shared.guest.list(shared.root, true).unwrap();
        assert!(listed.iter().any(|entry| entry.name == name));
        removexattr(shared.path(name), NAME).unwrap();
        shared.look(name).unwrap();
    }
}

#[test]
fn records_are_hidden_from_guests_however_owners_are_kept() {
    for mut shared in [Shared::recorded(|_| ()), Shared::new()] {
        fs::write(shared.path("f"), "").unwrap();
        setxattr(shared.path("f"), NAME, b"1:1:2:0600", XattrFlags::empty()).unwrap();
        setxattr(shared.path("f"), "user.other", b"x", XattrFlags::empty()).unwrap();
        let node = shared.guest.lookup(shared.root, "f").unwrap().node;
        for name in [NAME, "user.hull.", "user.hull.later"] {
            let set = Body::new().u32(10).u32(0).u64(0);
            let set = set.string(name).bytes(b"1:0:0:4755");
            let set = shared.guest.call(Opcode::SETXATTR, node, set);
            assert_eq!(set, Err(Errno::PERM), "{name}");
            for size in [0, 100] {
                let get = Body::new().u32(size).u32(0).string(name);
                let get = shared.guest.call(Opcode::GETXATTR, node, get);
                assert_eq!(get, Err(Errno::NODATA), "{name}");
            }
            let remove = Body::new().string(name);
            let removed = shared.guest.call(Opcode::REMOVEXATTR, node, remove);
            assert_eq!(removed, Err(Errno::NODATA), "{name}");
        }
        let list = Body::new().u32(100).u32(0);
        let listed = shared.guest.call(Opcode::LISTXATTR, node, list).unwrap();
        assert_eq!(listed, b"user.other\0");
        assert_eq!(shared.record("f").unwrap(), "1:1:2:0600");
    }
}
