//! The file system device, whose hull-fs lies, falls silent and goes. Checked: a file that was opened for reading alone is
//! as it was.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use devices::virtio::Device;
use devices::virtio::fs::{Fs, FsConfig, Handle, MAX_MESSAGE_LEN};
use sys::packet;

use crate::guest::{self, Host, Request};
use crate::input::Input;
use crate::{file_of, memfd, threads};

/// Few: a guest is to find the limit.
const MAX_OPEN_FILES: usize = 4;
/// What is in the file that no one may write.
const KEPT: [u8; 600] = [0x5a; 600];
/// The most replies that are held back: a stop waits for each of them.
const MAX_HELD_BACK: usize = 2;

const FORGET: u32 = 2;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const CREATE: u32 = 35;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const TMPFILE: u32 = 51;

struct Shares {
    read_only: File,
    writable: File,
    handle: Option<Handle>,
    /// hull-fs's end, while there is one.
    ours: Option<OwnedFd>,
    /// How the next replies are wrong, if they are.
    lies: VecDeque<u8>,
    held_back: Vec<Vec<u8>>,
    held_back_in_all: usize,
    /// Of the file that was opened last.
    opened: u64,
}

/// Runs an input.
pub fn run(data: &[u8]) {
    let kept = file_of(&KEPT);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let mut shares = Shares {
        read_only: File::open(path).expect("a descriptor"),
        writable: memfd(),
        handle: None,
        ours: None,
        lies: VecDeque::new(),
        held_back: Vec::new(),
        held_back_in_all: 0,
        opened: 0,
    };
    guest::drive(&mut shares, &mut Input::new(data));
    let mut bytes = [0; KEPT.len()];
    kept.read_exact_at(&mut bytes, 0)
        .expect("its length is as ever");
    assert_eq!(bytes, KEPT);
    assert_eq!(kept.metadata().expect("a file").len(), KEPT.len() as u64);
}

impl Shares {
    fn connect(&mut self) {
        let (theirs, ours) = packet::pair().expect("two sockets");
        rustix::io::ioctl_fionbio(&ours, true).expect("a socket");
        if let Some(handle) = &self.handle {
            handle.serve(theirs).expect("a socket");
        }
        self.held_back.clear();
        self.ours = Some(ours);
    }

    fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        if let Some(ours) = &self.ours {
            // Full, or gone.
            let _ = packet::send(ours, bytes, files);
        }
    }

    /// Answers what has come; whether anything has.
    fn answer(&mut self) -> bool {
        let mut buffer = vec![0; MAX_MESSAGE_LEN];
        let mut any = false;
        while let Some(ours) = &self.ours {
            match packet::receive(ours, &mut buffer) {
                Ok(request) if request.len > 0 => {
                    assert!(request.len >= 40 && request.descriptors.is_empty());
                    any = true;
                    self.reply(&buffer[..request.len]);
                }
                Ok(_) => self.ours = None,
                Err(_) => break,
            }
        }
        any
    }

    fn reply(&mut self, request: &[u8]) {
        let len = u32::from_le_bytes(request[..4].try_into().expect("four"));
        assert_eq!(len as usize, request.len());
        let opcode = u32::from_le_bytes(request[4..8].try_into().expect("four"));
        let unique = u64::from_le_bytes(request[8..16].try_into().expect("eight"));
        assert!(![READ, WRITE].contains(&opcode), "the device's own affair");
        if [FORGET, BATCH_FORGET].contains(&opcode) {
            return;
        }
        let mut payload = match opcode {
            CREATE | TMPFILE => vec![0; 128],
            _ => Vec::new(),
        };
        let opens = [OPEN, CREATE, TMPFILE].contains(&opcode);
        if opens {
            self.opened += 1;
            payload.extend([self.opened.to_le_bytes(), [0; 8]].concat());
        }
        // The device waits for these.
        let is_own = unique >> 63 == 1;
        let lie = match is_own {
            true => 0,
            false => self.lies.pop_front().unwrap_or(0),
        };
        let (mut len, mut error, mut unique) = (16 + payload.len() as u32, 0i32, unique);
        let file = match self.opened % 2 {
            0 => &self.writable,
            _ => &self.read_only,
        };
        let mut files = vec![file.as_fd(); usize::from(opens)];
        match lie % 12 {
            1 => (len, error, payload) = (16, -2, Vec::new()),
            2 => len += u32::from(lie),
            3 => payload.push(lie),
            4 => unique ^= u64::from(lie),
            5 => error = i32::from(lie) - 100,
            6 => files.push(file.as_fd()),
            7 => files.clear(),
            8 => {
                payload.resize(usize::from(lie) * 300, 0);
                len = 16 + payload.len() as u32;
            }
            9 if opens => payload[..8].fill(1),
            10 => (payload, len) = (vec![0; 128 + 16], 160),
            _ => {}
        }
        let reply = [
            &len.to_le_bytes()[..],
            &error.to_le_bytes(),
            &unique.to_le_bytes(),
            &payload,
        ]
        .concat();
        if lie % 12 == 11 && self.held_back_in_all < MAX_HELD_BACK {
            self.held_back_in_all += 1;
            self.held_back.push(reply);
        } else {
            self.send(&reply, &files);
        }
    }
}

impl Host for Shares {
    fn device(&mut self) -> Box<dyn Device> {
        let device = Fs::new(FsConfig {
            tag: "fuzz".into(),
            max_open_files: MAX_OPEN_FILES,
        })
        .expect("a legal tag");
        self.handle = Some(device.handle());
        self.connect();
        Box::new(device)
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => self.ours = None,
            1 => self.connect(),
            2 => {
                for reply in std::mem::take(&mut self.held_back).iter().rev() {
                    self.send(reply, &[]);
                }
            }
            3 => {
                let bytes = input.short();
                let files = vec![self.writable.as_fd(); usize::from(input.u8() % 4)];
                self.send(bytes, &files);
            }
            // Another state of the file under a guest that has it open.
            4 => {
                let len = input.u16().into();
                self.writable.set_len(len).expect("room in memory");
            }
            _ => self.lies.extend(input.short()),
        }
    }

    fn request(&mut self, input: &mut Input<'_>) -> Request {
        let (kind, unique) = (input.u8(), u64::from(input.u8()) * 2);
        let wild = kind & 0x20 != 0;
        let mut data = Vec::new();
        let mut room = 256;
        let (opcode, arguments) = match kind & 0x0f {
            0 => (INIT, vec![0; 64]),
            1 => (1, input.short().to_vec()),
            2 => (OPEN, vec![0; 8]),
            3 | 4 => {
                let handle = u64::from(input.u8());
                let (offset, size) = match wild {
                    true => (input.u64(), input.u32()),
                    false => (input.u16().into(), u32::from(input.u16()) % 0x2000),
                };
                let is_write = kind & 1 == 0;
                if is_write {
                    data = vec![0xa5; size.min(0x2000) as usize];
                } else {
                    room = 16 + size.min(0x2000);
                }
                let arguments = [handle, offset, size.into(), 0, 0].map(u64::to_le_bytes);
                (if is_write { WRITE } else { READ }, arguments.concat())
            }
            5 => (
                RELEASE,
                [u64::from(input.u8()), 0, 0].map(u64::to_le_bytes).concat(),
            ),
            6 => (FORGET, vec![1, 0, 0, 0, 0, 0, 0, 0]),
            7 => (CREATE, [&[0; 16], input.short()].concat()),
            8 => (DESTROY, Vec::new()),
            9 => (TMPFILE, vec![0; 18]),
            10 => (36, vec![0; 8]),
            11 => (1, vec![b'x'; input.u16().into()]),
            _ => (input.u32(), input.short().to_vec()),
        };
        if kind & 0x40 != 0 {
            room = input.u16().into();
        }
        let len = match kind & 0x80 {
            0 => (40 + arguments.len() + data.len()) as u32,
            _ => input.u32(),
        };
        let mut header = [len, opcode].map(u32::to_le_bytes).concat();
        header.extend(unique.to_le_bytes());
        header.extend([0; 24]);
        Request {
            queue: usize::from(kind & 0x10 == 0),
            readable: vec![header, arguments, data],
            writable: vec![16.min(room), room.saturating_sub(16)],
        }
    }

    /// The device's thread sleeps when it has done everything that hull-fs has not answered yet.
    fn settle(&mut self) {
        loop {
            threads::wait_until_asleep();
            if !self.answer() {
                return;
            }
        }
    }

    fn check(&mut self) {
        self.handle = None;
        self.ours = None;
    }
}
