//! hull-fs as a process: its sockets, its threads with their seccomp filters, and its end.

use std::fs::{self, File};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command};

use protocol::fs::{
    CONTROL_FD, Descriptor, FromFs, LINKS_FD, MAX_MESSAGE_LEN, Ownership, ToFs, WORDS_FD,
};
use protocol::lease::{VALIDITY, Word};
use rustix::fs::{CWD, Mode, OFlags, openat};
use sys::packet;
use sys::spawn::Inherit;

/// A hull-fs that was started.
struct Process {
    child: Child,
    control: OwnedFd,
    fuse: OwnedFd,
    words: PipeReader,
    unique: u64,
    /// Who asks, in the guest.
    user: u32,
}

impl Process {
    /// One that was told to serve.
    fn serving() -> Self {
        Self::start(protocol::BUILD, "unlimited")
    }

    /// One of any build, with so many descriptors.
    fn start(build: &str, descriptors: &str) -> Self {
        Self::start_over(build, descriptors, Ownership::Host)
    }

    fn start_over(build: &str, descriptors: &str, ownership: Ownership) -> Self {
        let (control, its_control) = packet::pair().unwrap();
        let (fuse, its_fuse) = packet::pair().unwrap();
        let (words, its_words) = pipe().unwrap();
        // The links are those of the process that becomes hull-fs.
        let limit = match descriptors {
            "unlimited" => String::new(),
            number => format!("ulimit -n {number}; "),
        };
        let script = format!("{limit}exec {LINKS_FD}</proc/self/fd; exec \"$0\"");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_hull-fs")]);
        let inherit = Inherit {
            descriptors: &[
                (its_control.as_fd(), CONTROL_FD),
                (its_words.as_fd(), WORDS_FD),
            ],
            dies_with_parent: true,
            ..Inherit::default()
        };
        let child = sys::spawn::spawn(&mut command, &inherit).unwrap();
        let process = Self {
            child,
            control,
            fuse,
            words,
            unique: 0,
            user: rustix::process::geteuid().as_raw(),
        };
        let start = ToFs::Start {
            build: build.to_owned(),
            fuse: Descriptor(0),
            ownership,
        };
        process.tell(&start, &[its_fuse.as_fd()]);
        process
    }

    fn tell(&self, message: &ToFs, descriptors: &[BorrowedFd<'_>]) {
        let bytes = serde_json::to_vec(message).unwrap();
        packet::send(&self.control, &bytes, descriptors).unwrap();
    }

    fn share(&self, name: &str, path: &Path) -> FromFs {
        self.share_under(name, path, None)
    }

    fn share_under(&self, name: &str, path: &Path, lease: Option<&File>) -> FromFs {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).unwrap();
        let message = ToFs::Add {
            name: name.to_owned(),
            root: Descriptor(0),
            read_only: false,
            lease: lease.map(|_| Descriptor(1)),
        };
        let lease = lease.map(AsFd::as_fd);
        let descriptors: Vec<_> = [root.as_fd()].into_iter().chain(lease).collect();
        self.tell(&message, &descriptors);
        let mut buffer = [0; 4096];
        let answer = packet::receive(&self.control, &mut buffer).unwrap();
        serde_json::from_slice(&buffer[..answer.len]).unwrap()
    }

    fn send(&mut self, opcode: u32, node: u64, arguments: &[u8]) -> u64 {
        self.unique += 2;
        let mut request = Vec::new();
        request.extend((40 + arguments.len() as u32).to_le_bytes());
        request.extend(opcode.to_le_bytes());
        request.extend(self.unique.to_le_bytes());
        request.extend(node.to_le_bytes());
        request.extend(u32s(&[self.user, self.user, 1, 0]));
        request.extend(arguments);
        packet::send(&self.fuse, &request, &[]).unwrap();
        self.unique
    }

    fn receive(&self) -> (u64, i32, Vec<u8>, Option<File>) {
        let mut buffer = vec![0; MAX_MESSAGE_LEN];
        let mut packet = packet::receive(&self.fuse, &mut buffer).unwrap();
        if packet.len == 0 {
            let words = sys::last_words::read(&self.words);
            panic!("hull-fs has ended: {words:?}");
        }
        let file = packet.descriptors.pop().map(File::from);
        assert!(packet.descriptors.is_empty());
        let error = i32::from_le_bytes(buffer[4..8].try_into().unwrap());
        let unique = u64::from_le_bytes(buffer[8..16].try_into().unwrap());
        (unique, error, buffer[16..packet.len].to_vec(), file)
    }

    fn call(&mut self, opcode: u32, node: u64, arguments: &[u8]) -> (i32, Vec<u8>, Option<File>) {
        let sent = self.send(opcode, node, arguments);
        let (unique, error, payload, file) = self.receive();
        assert_eq!(unique, sent);
        (error, payload, file)
    }

    /// A call that succeeds.
    fn done(&mut self, opcode: u32, node: u64, arguments: &[u8]) -> Vec<u8> {
        let (error, payload, _file) = self.call(opcode, node, arguments);
        assert_eq!(error, 0, "of operation {opcode}");
        payload
    }

    /// Initialized, and the number of the share's root.
    fn begin(&mut self, path: &Path) -> u64 {
        let added = self.share("s", path);
        assert_eq!(added, FromFs::Added { name: "s".into() });
        self.done(INIT, 0, &u32s(&[7, 41, 4096, u32::MAX]));
        number(&self.done(LOOKUP, 1, b"s\0"))
    }

    fn wait(mut self) -> (Option<i32>, Option<sys::last_words::LastWords>) {
        let code = self.child.wait().unwrap().code();
        (code, sys::last_words::read(&self.words).unwrap())
    }
}

// `enum fuse_opcode` of linux/fuse.h.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const CREATE: u32 = 35;
const COPY_FILE_RANGE: u32 = 47;

fn u32s(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

/// `struct fuse_create_in` for reading and writing, with a name.
fn create(name: &str) -> Vec<u8> {
    [&u32s(&[0o102, 0o644, 0, 0]), name.as_bytes(), b"\0"].concat()
}

#[test]
fn a_file_is_made_and_its_descriptor_comes_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::serving();
    let root = process.begin(folder.path());
    let (error, payload, file) = process.call(CREATE, root, &create("f"));
    assert_eq!(error, 0);
    file.unwrap().write_all(b"data").unwrap();
    assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"data");
    let (node, fh) = (number(&payload), number(&payload[128..]));
    process.done(RELEASE, node, &u64s(&[fh, 0, 0]));
    let (error, _, file) = process.call(OPEN, node, &u32s(&[0, 0]));
    assert_eq!(error, 0);
    let mut text = String::new();
    file.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "data");
}

#[test]
fn what_a_lease_says_counts_from_the_next_reply_on_and_its_lock_goes_with_the_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lease");
    let say = |word: Word| fs::write(&path, word.to_bytes()).unwrap();
    say(Word::Alone);
    let lock = File::open(&path).unwrap();
    assert!(sys::range_lock::try_share(&lock, 7).unwrap());
    let mut process = Process::serving();
    let added = process.share_under("s", folder.path(), Some(&lock));
    drop(lock);
    assert_eq!(added, FromFs::Added { name: "s".into() });
    process.done(INIT, 0, &u32s(&[7, 41, 4096, u32::MAX]));
    let root = number(&process.done(LOOKUP, 1, b"s\0"));
    let shared = Word::Shared { forgotten_ns: 0 };
    for (word, valid) in [(Word::Alone, VALIDITY.as_secs()), (shared, 0)] {
        say(word);
        assert_eq!(number(&process.done(GETATTR, root, &u64s(&[0, 0]))), valid);
    }
    let file = File::options().write(true).open(&path).unwrap();
    let is_locked = || sys::range_lock::is_locked(&file, 1..=9).unwrap();
    assert!(is_locked());
    process.tell(&ToFs::Remove { name: "s".into() }, &[]);
    // Answered behind it.
    process.share("t", folder.path());
    assert!(!is_locked());
}

#[test]
fn every_operation_passes_the_filter_where_owners_are_the_hosts() {
    every_operation_passes(Ownership::Host);
}

#[test]
fn every_operation_passes_the_filter_where_owners_are_recorded() {
    every_operation_passes(Ownership::Recorded);
}

fn every_operation_passes(ownership: Ownership) {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start_over(protocol::BUILD, "unlimited", ownership);
    let root = process.begin(folder.path());
    let (_, payload, _) = process.call(CREATE, root, &create("f"));
    let (file, fh) = (number(&payload), number(&payload[128..]));
    let directory = number(&process.done(27, root, &u64s(&[0])));
    let listing = [u64s(&[directory, 0]), u32s(&[4096, 0]), u64s(&[0, 0])].concat();
    let setattr = |valid, mode, owner| {
        let head = [u32s(&[valid, 0]), u64s(&[0, 9, 0, 1, 1, 0])].concat();
        [head, u32s(&[0, 0, 0, mode, 0, owner, owner, 0])].concat()
    };
    let server = rustix::process::geteuid().as_raw();
    let owner = match ownership {
        Ownership::Host => server,
        Ownership::Recorded => 77,
    };
    let named = |numbers: &[u32], names: &[u8]| [&u32s(numbers), names].concat();
    let steps: Vec<(u32, u64, Vec<u8>)> = vec![
        (GETATTR, file, u64s(&[0, 0])),
        (4, file, setattr(0x1ff & !0x40, 0o2755, owner)),
        (6, root, b"link\0target\0".to_vec()),
        (8, root, named(&[0o010_644, 0, 0, 0], b"fifo\0")),
        (9, root, named(&[0o755, 0], b"dir\0")),
        (13, root, [&u64s(&[file]), &b"hard\0"[..]].concat()),
        (12, root, [&u64s(&[root]), &b"hard\0moved\0"[..]].concat()),
        (
            45,
            root,
            [&u64s(&[root, 2]), &b"moved\0fifo\0"[..]].concat(),
        ),
        (10, root, b"fifo\0".to_vec()),
        (11, root, b"dir\0".to_vec()),
        (17, root, Vec::new()),
        (FSYNC, file, u64s(&[fh, 0])),
        (FSYNC, file, u64s(&[fh, 1])),
        (21, file, named(&[1, 0, 0, 0], b"user.a\0v")),
        (22, file, named(&[0, 0], b"user.a\0")),
        (23, file, u32s(&[100, 0])),
        (24, file, b"user.a\0".to_vec()),
        (25, file, u64s(&[fh, 0, 0])),
        (28, root, listing.clone()),
        (44, root, listing),
        (30, root, u64s(&[directory, 0])),
        (29, root, u64s(&[directory, 0, 0])),
        (34, file, u32s(&[4, 0])),
        (43, file, u64s(&[fh, 0, 4096, 0])),
        (46, file, u64s(&[fh, 0, 4])),
        (47, file, u64s(&[fh, 0, file, fh, 2048, 9, 0])),
    ];
    for (opcode, node, arguments) in steps {
        let (error, _, _) = process.call(opcode, node, &arguments);
        // Where the folder's file system has no extended attributes.
        let lacks = (21..=24).contains(&opcode) && error == -95;
        assert!(error == 0 || lacks, "operation {opcode}: {error}");
    }
    let link = number(&process.done(LOOKUP, root, b"link\0"));
    assert_eq!(process.done(5, link, b""), b"target");
    let (error, _, temporary) = process.call(51, root, &create("/"));
    assert!(error == -95 || temporary.is_some(), "{error}");
    // These have no reply.
    process.send(2, link, &u64s(&[1]));
    process.send(42, 0, &[&u64s(&[1])[..], &u64s(&[file, 9])].concat());
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    process.user = 4321;
    process.done(9, root, &named(&[0o755, 0], b"theirs\0"));
    let made = fs::metadata(folder.path().join("theirs")).unwrap();
    let gives_away = server == 0 && ownership == Ownership::Host;
    assert_eq!(made.uid(), if gives_away { 4321 } else { server });
    process.done(38, 0, b"");
    process.tell(&ToFs::Remove { name: "s".into() }, &[]);
    let again = process.begin(folder.path());
    process.done(LOOKUP, again, b"f\0");
    drop(process.fuse);
    let code = process.child.wait().unwrap().code();
    assert_eq!(
        (code, sys::last_words::read(&process.words).unwrap()),
        (Some(0), None)
    );
}

#[test]
fn requests_in_flight_are_all_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::serving();
    let root = process.begin(folder.path());
    let (_, payload, _) = process.call(CREATE, root, &create("f"));
    let (file, fh) = (number(&payload), number(&payload[128..]));
    let mut sent = Vec::new();
    for _ in 0..60 {
        sent.push(process.send(FSYNC, file, &u64s(&[fh, 0])));
        sent.push(process.send(GETATTR, file, &u64s(&[0, 0])));
        sent.push(process.send(LOOKUP, root, b"f\0"));
    }
    let mut answered: Vec<u64> = sent
        .iter()
        .map(|_| {
            let (unique, error, _, _) = process.receive();
            assert_eq!(error, 0);
            unique
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, sent);
}

#[test]
fn what_is_slow_holds_up_none_that_is_quick() {
    const COPIES: usize = 24;
    const BYTES: u64 = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::serving();
    let root = process.begin(folder.path());
    let (_, payload, hole) = process.call(CREATE, root, &create("hole"));
    hole.unwrap().set_len(BYTES).unwrap();
    let (from, fh) = (number(&payload), number(&payload[128..]));
    let (_, payload, _) = process.call(CREATE, root, &create("copy"));
    let (to, fh_to) = (number(&payload), number(&payload[128..]));
    for _ in 0..COPIES {
        process.send(
            COPY_FILE_RANGE,
            from,
            &u64s(&[fh, 0, to, fh_to, 0, BYTES, 0]),
        );
    }
    let quick = process.send(GETATTR, root, &u64s(&[0, 0]));
    let order: Vec<u64> = (0..=COPIES).map(|_| process.receive().0).collect();
    let place = order.iter().position(|&unique| unique == quick).unwrap();
    // In the order in which they were sent it would be the last, or one of the threads' last.
    assert!(place < COPIES / 2, "answered as number {place}");
}

#[test]
fn a_server_without_descriptors_says_so_and_goes_on() {
    const ENFILE: i32 = -23;
    const EMFILE: i32 = -24;
    let folder = tempfile::tempdir().unwrap();
    for number in 0..60 {
        fs::write(folder.path().join(format!("f{number}")), "").unwrap();
    }
    let mut process = Process::start(protocol::BUILD, "60");
    let root = process.begin(folder.path());
    let mut nodes = Vec::new();
    for number in 0..60 {
        let name = format!("f{number}\0");
        match process.call(LOOKUP, root, name.as_bytes()) {
            (0, payload, _) => nodes.push(self::number(&payload)),
            (error, ..) => assert_eq!(error, ENFILE, "{name}"),
        }
    }
    // Half of them are for nodes, one of which is the share's root.
    assert_eq!(nodes.len(), 29);
    let mut errors: Vec<_> = (0..60)
        .map(|_| process.call(OPEN, nodes[0], &u32s(&[0, 0])).0)
        .collect();
    errors.dedup();
    assert_eq!(errors, [0, EMFILE]);
    process.send(2, nodes[1], &u64s(&[1]));
    // Another thread may come to it first.
    let found = (0..1000).any(|_| process.call(LOOKUP, root, b"f59\0").0 == 0);
    assert!(found, "what was forgotten is free again");
}

#[test]
fn shares_come_are_refused_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::serving();
    process.begin(folder.path());
    let FromFs::Refused { name, message } = process.share("s", folder.path()) else {
        panic!("a second share of that name");
    };
    assert_eq!((&*name, &*message), ("s", "there is a share s already"));
    let socket = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = process.share("t", &socket);
    assert!(matches!(refused, FromFs::Refused { .. }));
    process.tell(&ToFs::Remove { name: "s".into() }, &[]);
    let again = process.share("s", folder.path());
    assert_eq!(again, FromFs::Added { name: "s".into() });
    process.done(LOOKUP, 1, b"s\0");
}

#[test]
fn it_ends_with_the_socket_to_its_warden() {
    let mut process = Process::serving();
    let (other, _) = packet::pair().unwrap();
    drop(std::mem::replace(&mut process.control, other));
    assert_eq!(process.wait(), (Some(0), None));
}

#[test]
fn a_warden_of_another_build_is_refused() {
    assert_eq!(
        Process::start("another", "unlimited").wait(),
        (Some(1), None)
    );
}

#[test]
fn by_hand_it_says_that_it_is_started_by_hull() {
    let run = Command::new(env!("CARGO_BIN_EXE_hull-fs"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("started by hull"));
}
