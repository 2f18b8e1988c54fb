//! Streams between hull-vmm's monitor and a guest with Linux: more of them at once than a container has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::vmm::{
    Boot, CONTROL_FD, Descriptor, End, FromVmm, Kernel, MAX_PACKET_LEN, ToVmm, VmConfig,
    VsockConfig, WORDS_FD,
};
use sys::spawn::Inherit;
use tests::initramfs;

const STREAMS: u32 = 200;
/// The guest's (`tests/src/bin/echo_init.rs`).
const FIRST_PORT: u32 = 5000;
/// No multiple of anything, and more than hull-vmm holds for a stream in this crowd.
const BYTES: usize = 100_003;
/// How long a stream may be silent in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What goes into this stream, and no other.
fn noise(port: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(port);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(BYTES).collect()
}

fn send(socket: &OwnedFd, message: &ToVmm, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = serde_json::to_vec(message)?;
    Ok(sys::packet::send(socket, &bytes, descriptors)?)
}

fn start(socket: &OwnedFd, console: BorrowedFd<'_>) -> Result<()> {
    let parts = initramfs::installed()?;
    let init = Path::new(env!("CARGO_BIN_EXE_echo-init"));
    let mut archive = tempfile::tempfile()?;
    archive.write_all(&initramfs::archive(init, &STREAMS.to_string())?)?;
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let kernel = File::open(parts.join("vmlinux"))?;
    let config = VmConfig {
        build: protocol::BUILD.to_owned(),
        kvm: Descriptor(0),
        memory_mib: 256,
        vcpus: 1,
        boot: Boot::Kernel(Kernel {
            image: Descriptor(1),
            initramfs: Some(Descriptor(2)),
            cmdline: "console=hvc0 reboot=k panic=-1".to_owned(),
            save_to: None,
        }),
        console: Some(Descriptor(3)),
        disks: Vec::new(),
        nets: Vec::new(),
        vsock: Some(VsockConfig { guest_cid: 3 }),
        rng: true,
        fs: None,
    };
    let descriptors = [kvm.as_fd(), kernel.as_fd(), archive.as_fd(), console];
    send(socket, &ToVmm::Start(Box::new(config)), &descriptors)
}

/// Sends noise while it reads, and fails unless the same comes back, to the end.
fn exchange(port: u32, stream: &UnixStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent = noise(port);
    let mut came_back = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| {
            (&mut &*stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        (&mut &*stream).read_to_end(&mut came_back)?;
        Ok(writer.join().expect("the writer does not panic")?)
    })?;
    ensure!(
        came_back == sent,
        "{} of {BYTES} bytes came back, or others",
        came_back.len()
    );
    Ok(())
}

#[test]
fn two_hundred_streams_at_once_carry_every_byte_both_ways() -> Result<()> {
    let (socket, control) = sys::packet::pair()?;
    let (words, their_words) = io::pipe()?;
    let (console, their_console) = io::pipe()?;
    let inherit = Inherit {
        descriptors: &[
            (control.as_fd(), CONTROL_FD),
            (their_words.as_fd(), WORDS_FD),
        ],
        ..Inherit::default()
    };
    let program = initramfs::installed()?.join("hull-vmm");
    let mut child = sys::spawn::spawn(&mut Command::new(program), &inherit)?;
    drop((control, their_words));
    start(&socket, their_console.as_fd())?;
    drop(their_console);
    let console = thread::spawn(|| io::read_to_string(console));

    let mut streams = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + STREAMS {
        let (ours, theirs) = sys::packet::stream_pair()?;
        let stream = Descriptor(0);
        send(
            &socket,
            &ToVmm::OfferStream { port, stream },
            &[theirs.as_fd()],
        )?;
        streams.push((port, UnixStream::from(ours)));
    }
    let exchanges: Vec<_> = streams
        .into_iter()
        .map(|(port, stream)| {
            thread::spawn(move || exchange(port, &stream).context(format!("port {port}")))
        })
        .collect();
    let exchanged: Result<()> = exchanges
        .into_iter()
        .try_for_each(|exchange| exchange.join().expect("an exchange does not panic"));
    if exchanged.is_err() {
        child.kill()?;
    }
    let mut buffer = vec![0; MAX_PACKET_LEN];
    let mut end = None;
    loop {
        let len = sys::packet::receive(&socket, &mut buffer)?.len;
        if len == 0 {
            break;
        }
        if let FromVmm::Ended { end: how, .. } = serde_json::from_slice(&buffer[..len])? {
            end = Some(how);
        }
    }
    let status = child.wait()?;
    let words = sys::last_words::read(&words)?;
    let console = console.join().expect("the reader does not panic")?;
    exchanged.context(console.clone())?;
    let expected = Some(End::Code { code: STREAMS });
    assert_eq!(end, expected, "{status}, {words:?}, {console}");
    Ok(())
}
