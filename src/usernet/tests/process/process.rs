//! A hull-net that was started, and the network that it serves: loopback addresses, a folder of leases.

use std::fs::{self, File};
use std::io::{PipeReader, pipe};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};

use protocol::net::{
    CONTROL_FD, Descriptor, DnsServer, FromNet, MAX_PACKET_LEN, Names, ToNet, WORDS_FD,
};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::process::{Resource, getrlimit, setrlimit};
use sys::packet;
use sys::spawn::Inherit;

pub(crate) struct Process {
    child: Child,
    control: Option<OwnedFd>,
    words: PipeReader,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    resolvers: Vec<SocketAddr>,
    subnet: (Ipv4Addr, u8),
}

impl Process {
    /// The network `backend`, which is all of loopback's, with these upstreams.
    pub(crate) fn start(resolvers: &[SocketAddr]) -> Process {
        Process::start_in(resolvers, Ipv4Addr::new(127, 0, 0, 0), 8)
    }

    pub(crate) fn start_in(resolvers: &[SocketAddr], network: Ipv4Addr, prefix_len: u8) -> Process {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("leases")).unwrap();
        // Any port that is free for both.
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = loop {
            match UdpSocket::bind(listener.local_addr().unwrap()) {
                Ok(datagrams) => break datagrams,
                Err(_) => listener = TcpListener::bind("127.0.0.1:0").unwrap(),
            }
        };
        let address = listener.local_addr().unwrap();
        let (child, control, words) = launch();
        let process = Process {
            child,
            control: Some(control),
            words,
            folder,
            address,
            resolvers: resolvers.to_vec(),
            subnet: (network, prefix_len),
        };
        let answer = process.tell(protocol::BUILD, &listener, &datagrams);
        assert_eq!(answer, FromNet::Ready);
        process
    }

    /// Why a network is not served.
    pub(crate) fn refusal(build: &str) -> String {
        let mut process = Process::start(&[]);
        process.kill();
        let (listener, datagrams) = process.bind();
        (process.child, process.control, process.words) = {
            let (child, control, words) = launch();
            (child, Some(control), words)
        };
        let FromNet::Refused { message } = process.tell(build, &listener, &datagrams) else {
            panic!("it is served");
        };
        assert_eq!(process.child.wait().unwrap().code(), Some(1));
        message
    }

    fn tell(&self, build: &str, listener: &TcpListener, datagrams: &UdpSocket) -> FromNet {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let leases = openat(CWD, self.leases(), flags, Mode::empty()).unwrap();
        let lock = File::create(self.folder.path().join("dns.lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let start = ToNet::Start {
            build: build.to_owned(),
            dns: DnsServer {
                adjacent: Vec::new(),
                datagrams: Descriptor(0),
                listener: Descriptor(1),
                names: Names {
                    leases: Descriptor(2),
                    network: self.subnet.0,
                    prefix_len: self.subnet.1,
                    gateway: Ipv4Addr::LOCALHOST,
                    domain: "backend".to_owned(),
                    resolvers: self.resolvers.clone(),
                },
            },
            locks: vec![Descriptor(3)],
        };
        let descriptors = [
            datagrams.as_fd(),
            listener.as_fd(),
            leases.as_fd(),
            lock.as_fd(),
        ];
        let control = self.control.as_ref().unwrap();
        let bytes = serde_json::to_vec(&start).unwrap();
        packet::send(control, &bytes, &descriptors).unwrap();
        let mut buffer = [0; MAX_PACKET_LEN];
        let answer = packet::receive(control, &mut buffer).unwrap();
        if answer.len == 0 {
            let words = sys::last_words::read(&self.words);
            panic!("hull-net has ended: {words:?}");
        }
        serde_json::from_slice(&buffer[..answer.len]).unwrap()
    }

    fn bind(&self) -> (TcpListener, UdpSocket) {
        let listener = TcpListener::bind(self.address).unwrap();
        (listener, UdpSocket::bind(self.address).unwrap())
    }

    /// Another one in the place of the one that was killed.
    pub(crate) fn start_again(&mut self) {
        let (listener, datagrams) = self.bind();
        let (child, control, words) = launch();
        (self.child, self.words) = (child, words);
        self.control = Some(control);
        let answer = self.tell(protocol::BUILD, &listener, &datagrams);
        assert_eq!(answer, FromNet::Ready);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The warden goes.
    pub(crate) fn hang_up(&mut self) {
        self.control = None;
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.folder.path().join("leases")
    }

    /// A sandbox at 127.0.0.`last` that lives as long as the value.
    pub(crate) fn lease(&self, last: u8, names: &[&str]) -> File {
        let new = self.leases().join(".new");
        fs::write(&new, format!("hullport\n{}\n", names.join("\n"))).unwrap();
        let file = File::open(&new).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::rename(new, self.leases().join(format!("127.0.0.{last}"))).unwrap();
        file
    }

    pub(crate) fn lock_is_free(&self) -> bool {
        let lock = File::open(self.folder.path().join("dns.lock")).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    /// What /proc says of it.
    pub(crate) fn status(&self) -> String {
        fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What a test that fails wants to know: a call that was refused, or a panic.
        if let Ok(Some(words)) = sys::last_words::read(&self.words) {
            eprintln!("hull-net ended: {words:?}");
        }
    }
}

/// A hull-net that waits to be told what to serve; its control socket and its last words.
pub(crate) fn launch() -> (Child, OwnedFd, PipeReader) {
    // Its jail gives it more descriptors than a shell has, and the tests have the other ends of them.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let (control, its_control) = packet::pair().unwrap();
    let (words, its_words) = pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-net"));
    let inherit = Inherit {
        descriptors: &[
            (its_control.as_fd(), CONTROL_FD),
            (its_words.as_fd(), WORDS_FD),
        ],
        dies_with_parent: true,
        ..Inherit::default()
    };
    let child = sys::spawn::spawn(&mut command, &inherit).unwrap();
    (child, control, words)
}
