//! `hull-native` as the monitor starts it: two descriptors, layers that are files, and a writable directory.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use protocol::agent::{
    Done, ExitStatus, Failure, FromAgent, Hello, Layer, Mount, ProcessId, Request, Root, Stdio,
    Stream, TOKEN_LEN, ToAgent, Writable,
};
use protocol::frame;
use sys::packet;

use crate::host::{WAKE, create, erofs_images};

/// hull-native and its two connections.
struct Native {
    child: Child,
    control: UnixStream,
    offers: OwnedFd,
    seq: u64,
}

impl Native {
    fn start(folder: &Path) -> Native {
        let (control, theirs) = UnixStream::pair().unwrap();
        let (offers, their_offers) = packet::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull-native"));
        command.arg(folder);
        let numbers = [theirs.as_raw_fd(), their_offers.as_raw_fd()];
        // SAFETY: dup2 may be called between fork and exec; the copies are not close-on-exec. Neither is in the other's
        // place: they are moved out of the way first.
        #[expect(unsafe_code, reason = "the program gets its descriptors by number")]
        unsafe {
            command.pre_exec(move || {
                let aside = numbers.map(|number| libc::fcntl(number, libc::F_DUPFD, 10));
                libc::dup2(aside[0], 3);
                libc::dup2(aside[1], 4);
                Ok(())
            })
        };
        let child = command.spawn().unwrap();
        let mut native = Native {
            child,
            control,
            offers,
            seq: 0,
        };
        let hello: Hello = frame::read(&mut native.control).unwrap();
        assert_eq!(hello.build, protocol::BUILD);
        native.ask(Request::Wake(WAKE)).unwrap();
        native
    }

    fn ask(&mut self, request: Request) -> Result<Done, Failure> {
        self.seq += 1;
        let seq = self.seq;
        frame::write(&mut self.control, &ToAgent { seq, request }).unwrap();
        match frame::read(&mut self.control).unwrap() {
            FromAgent::Reply { seq: of, result } if of == seq => result,
            other => panic!("{other:?}"),
        }
    }

    /// Offers a stream; its other end.
    fn offer(&self, port: u32) -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let offer = format!("{{\"port\":{port}}}");
        packet::send(&self.offers, offer.as_bytes(), &[theirs.as_fd()]).unwrap();
        let token = [port as u8; TOKEN_LEN];
        (Stream { port, token }, ours)
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs root"]
fn a_native_container_keeps_its_writes_until_they_are_to_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sandbox");
    let writable = folder.join("writable");
    let layers = erofs_images(dir.path()).map(|path| Layer::File {
        path: path.to_str().unwrap().to_owned(),
    });
    let name = format!("native-{}", std::process::id());
    let mount = || {
        Request::Mount(Mount {
            container: name.clone(),
            root: Root::Layers {
                layers: layers.to_vec(),
                writable: Writable::Directory {
                    path: writable.to_str().unwrap().to_owned(),
                },
            },
        })
    };
    let delete = |writable| Request::Delete {
        container: name.clone(),
        writable,
    };
    for run in 1..=2 {
        let mut native = Native::start(&folder);
        native.ask(mount()).unwrap();
        let (stream, mut out) = native.offer(2000 + run);
        let stdio = Stdio::Pipes {
            stdin: None,
            stdout: Some(stream),
            stderr: None,
        };
        let script = "echo x >> /etc/which; wc -l < /etc/which; exit 3";
        let request = create(&name, &["sh", "-c", script], stdio);
        native.ask(Request::Create(Box::new(request))).unwrap();
        let container = name.clone();
        native.ask(Request::Start { container }).unwrap();
        let mut token = [0; TOKEN_LEN];
        out.read_exact(&mut token).unwrap();
        assert_eq!(token, [(2000 + run) as u8; TOKEN_LEN]);
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim(), (1 + run).to_string());
        let exited: FromAgent = frame::read(&mut native.control).unwrap();
        let expected = FromAgent::Exited {
            process: ProcessId::first(&name),
            status: ExitStatus::Code(3),
            oom_killed: false,
        };
        assert_eq!(exited, expected);
        native.ask(delete(run == 2)).unwrap();
        // What is on the disk is there in any case; what overlayfs keeps for itself may be in memory, where the folder's
        // file system cannot hold a writable layer.
        assert_eq!(writable.exists(), run == 1);
    }
}
