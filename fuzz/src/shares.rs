//! hull-fs: a guest's FUSE requests, over two shares in a folder in memory.
//!
//! Whatever a guest asks for, in whatever order: nothing beside its shares changes, nor anything in one that is read-only; a
//! descriptor comes with nothing but what opens a file, and is one of a regular file.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ::fs::{Links, Reply, Server};
use protocol::fs::{MAX_MESSAGE_LEN, Ownership};
use protocol::lease::Word;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::input::Input;
use crate::places;

/// `enum fuse_opcode` of linux/fuse.h: what is served, and some that is not.
const OPCODES: [u32; 40] = [
    1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
    34, 35, 38, 42, 43, 44, 45, 46, 47, 51, 15, 16, 50, 52,
];
const FALLOCATE: u32 = 43;
const COPY_FILE_RANGE: u32 = 47;
/// Those whose answer begins with a node, with a handle, and with both.
const ENTRIES: [u32; 5] = [1, 6, 8, 9, 13];
const OPENS: [u32; 2] = [14, 27];
const CREATES: [u32; 2] = [35, 51];
/// A small limit is reached.
const MOST_NODES: usize = 24;
/// Most steps of an input, and most numbers that are remembered.
const MAX_STEPS: usize = 200;

/// Everything below a folder but `except`: modes, owners, times and what is in it.
type Tree = BTreeMap<PathBuf, (u32, u32, u32, i64, Vec<u8>)>;

/// A guest that learns the numbers it is given.
struct Guest {
    server: Server,
    unique: u64,
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

/// The target. The first byte says how the share is shared; then follow steps: an operation, a node, how numbers that are
/// known are put into the arguments, which of them, and the arguments.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let read_only = kind & 1 != 0;
    let is_leased = kind & 2 != 0;
    let outer = places::folder().join("shares");
    populate(&outer);
    let except = if read_only { None } else { Some("share") };
    let before = tree(&outer, except);

    let ownership = match kind & 4 {
        0 => Ownership::Host,
        _ => Ownership::Recorded,
    };
    let server = Server::new(Links::of_proc(), MOST_NODES, ownership);
    let share = place(&outer.join("share"));
    let lease = is_leased.then(|| {
        let lease = fs::File::open(outer.join("lease"));
        lease.expect("it was made").into()
    });
    server.add("s", share, read_only, lease).expect("a share");
    let file = place(&outer.join("single"));
    server.add("f", file, true, None).expect("a share");
    let mut guest = Guest {
        server,
        unique: 0,
        nodes: vec![1, u64::MAX],
        handles: vec![0],
    };
    guest.ask(
        26,
        0,
        &[7, 38, 1 << 17, u32::MAX].map(u32::to_le_bytes).concat(),
    );
    guest.ask(1, 1, b"s\0");
    guest.ask(1, 1, b"f\0");
    for _ in 0..MAX_STEPS {
        let Some(op) = input.op() else {
            break;
        };
        let opcode = OPCODES[usize::from(op) % OPCODES.len()];
        let node = guest.nodes[usize::from(input.u8()) % guest.nodes.len()];
        let (how, which) = (input.u8(), input.u8());
        let mut body = input.short().to_vec();
        guest.put(how, which, &mut body);
        tame(opcode, &mut body);
        guest.ask(opcode, node, &body);
    }
    drop(guest);
    assert!(
        tree(&outer, except) == before,
        "something outside has changed"
    );
}

impl Guest {
    /// Puts numbers that are known where requests have them.
    fn put(&self, how: u8, which: u8, body: &mut Vec<u8>) {
        let which = usize::from(which);
        let node = self.nodes[which % self.nodes.len()].to_le_bytes();
        let handle = self.handles[which % self.handles.len()].to_le_bytes();
        for (bit, at, number) in [(0, 0, handle), (1, 0, node), (2, 16, node), (3, 24, handle)] {
            if how >> bit & 1 != 0 {
                body.resize(body.len().max(at + 8), 0);
                body[at..at + 8].copy_from_slice(&number);
            }
        }
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) {
        self.unique += 2;
        let mut request = Vec::new();
        request.extend((40 + body.len() as u32).to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(self.unique.to_le_bytes());
        request.extend(node.to_le_bytes());
        // Another user now and then.
        let user = [0, 4321][usize::from(self.unique % 8 == 0)];
        for number in [user, user, 1, 0] {
            request.extend(u32::to_le_bytes(number));
        }
        request.extend(body);
        let reply = self.server.handle(&request);
        let silent = [2, 42].contains(&opcode);
        assert_eq!(reply.is_none(), silent);
        if let Some(reply) = reply {
            self.learn(opcode, &reply);
        }
    }

    fn learn(&mut self, opcode: u32, reply: &Reply) {
        let bytes = &reply.bytes;
        assert!((16..=MAX_MESSAGE_LEN).contains(&bytes.len()));
        let len = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"));
        assert_eq!(len as usize, bytes.len());
        assert_eq!(number(bytes, 8), self.unique);
        let error = i32::from_le_bytes(bytes[4..8].try_into().expect("4 bytes"));
        assert!(error == 0 || (-4095..0).contains(&error) && bytes.len() == 16);
        let opens = error == 0 && (opcode == OPENS[0] || CREATES.contains(&opcode));
        assert_eq!(reply.descriptor().is_some(), opens);
        if let Some(file) = reply.descriptor() {
            let stat = rustix::fs::fstat(file).expect("an open file");
            assert_eq!(stat.st_mode & 0o170_000, 0o100_000);
        }
        if error != 0 {
            return;
        }
        if ENTRIES.contains(&opcode) || CREATES.contains(&opcode) {
            self.nodes.push(number(bytes, 16));
        }
        if OPENS.contains(&opcode) {
            self.handles.push(number(bytes, 16));
        } else if CREATES.contains(&opcode) {
            self.handles.push(number(bytes, 16 + 128));
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Keeps small what would take the machine's memory: what is allocated, and what is copied.
fn tame(opcode: u32, body: &mut [u8]) {
    let at = match opcode {
        FALLOCATE => 8,
        COPY_FILE_RANGE => 40,
        _ => return,
    };
    // Offset and length of the one, length of the other: 16 bits each.
    for field in body.get_mut(at..).unwrap_or_default().chunks_mut(8).take(2) {
        let kept = field.len().min(2);
        field[kept..].fill(0);
    }
}

/// Files of every kind, and links that lead out.
fn populate(outer: &Path) {
    clear(outer);
    let share = outer.join("share");
    fs::create_dir_all(share.join("d/e")).expect("room in memory");
    for folder in [&share, &share.join("d")] {
        // The other user may write there too.
        fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("it is ours");
    }
    for file in ["secret", "single", "share/a", "share/d/f"] {
        fs::write(outer.join(file), file).expect("room in memory");
    }
    fs::write(outer.join("lease"), Word::Alone.to_bytes()).expect("room in memory");
    for (name, target) in [
        ("out", "../secret"),
        ("up", ".."),
        ("top", "/"),
        ("d/l", "f"),
    ] {
        symlink(target, share.join(name)).expect("room in memory");
    }
}

/// Removes a folder, whatever a guest made of its modes.
fn clear(folder: &Path) {
    let Ok(meta) = fs::symlink_metadata(folder) else {
        return;
    };
    if !meta.is_dir() {
        return fs::remove_file(folder).expect("it is ours");
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("it is ours");
    for entry in fs::read_dir(folder).expect("it is ours") {
        clear(&entry.expect("an entry").path());
    }
    fs::remove_dir(folder).expect("it is empty");
}

fn tree(outer: &Path, except: Option<&str>) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(outer.join(&folder)).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            if except.is_some_and(|except| name == except) {
                continue;
            }
            let path = folder.join(name);
            let whole = outer.join(&path);
            let meta = fs::symlink_metadata(&whole).expect("it is there");
            let content = match &meta {
                meta if meta.is_file() => fs::read(&whole).expect("a file"),
                meta if meta.is_symlink() => {
                    let target = fs::read_link(&whole).expect("a link");
                    target.into_os_string().into_encoded_bytes()
                }
                _ => {
                    open.push(path.clone());
                    Vec::new()
                }
            };
            let (mode, mtime) = (meta.mode(), meta.mtime_nsec());
            tree.insert(path, (mode, meta.uid(), meta.gid(), mtime, content));
        }
    }
    tree
}

fn place(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).expect("it is there")
}
