//! The block device. Checked: nothing outside of the device's parts changes, and nothing at all if it is read-only.

use std::fs::File;
use std::os::unix::fs::FileExt;

use devices::virtio::Device;
use devices::virtio::block::{Block, BlockConfig, Error, Extent, Handle, PlacedExtent};

use crate::guest::{self, Host, Request};
use crate::input::Input;
use crate::memfd;

/// Bytes of each part, and of the file behind it.
const PART: u64 = 0x3000;
const FILE: u64 = 0x5000;
/// Files of which one is added to the device.
const MAX_ADDED: usize = 4;
/// Length of the device: room for a third part, whatever the alignment.
const DEVICE: u64 = 8 << 20;

struct Disk {
    files: Vec<File>,
    read_only: bool,
    align_bytes: u64,
    handle: Option<Handle>,
}

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    // The parts' files outlive each device: their number is the same before and after.
    let mut disk = Disk {
        files: vec![file(0), file(1)],
        read_only: kind & 1 != 0,
        align_bytes: [512, 0x1000, 0x20_0000, 0x4000][usize::from(kind >> 1 & 3)],
        handle: None,
    };
    for index in 0..MAX_ADDED {
        disk.files.push(file(index + 2));
    }
    guest::drive(&mut disk, &mut input);
}

fn file(index: usize) -> File {
    let file = memfd();
    file.write_all_at(&[index as u8 + 1; FILE as usize], 0)
        .expect("room in memory");
    file
}

impl Disk {
    fn extent(&self, index: usize) -> Extent {
        Extent {
            file: self.files[index].try_clone().expect("a descriptor"),
            len_bytes: PART,
        }
    }
}

impl Host for Disk {
    fn device(&mut self) -> Box<dyn Device> {
        let block = Block::new(BlockConfig {
            serial: "fuzz".into(),
            read_only: self.read_only,
            extents: vec![self.extent(0), self.extent(1)],
            align_bytes: self.align_bytes,
            min_len_bytes: DEVICE,
        })
        .expect("a legal disk");
        self.handle = Some(block.handle());
        Box::new(block)
    }

    fn act(&mut self, input: &mut Input<'_>) {
        let index = 2 + usize::from(input.u8()) % MAX_ADDED;
        // Once for each device: the check looks for each part in one place.
        if let Some(handle) = self.handle.take() {
            let third = PlacedExtent {
                offset_bytes: 2 * PART.next_multiple_of(self.align_bytes),
                extent: self.extent(index),
            };
            match handle.add(vec![third]) {
                Ok(()) => assert!(self.read_only),
                Err(error) => assert!(!self.read_only && matches!(error, Error::Writable)),
            }
        }
    }

    fn request(&mut self, input: &mut Input<'_>) -> Request {
        let (kind, sector) = (input.u8(), input.u16());
        let number = match kind & 0x0f {
            kind @ (0 | 1 | 4 | 8 | 11 | 13) => kind.into(),
            _ => input.u32(),
        };
        let sector = match kind & 0x80 {
            0 => u64::from(sector) % 0x40,
            _ => input.u64(),
        };
        let mut header = Vec::new();
        header.extend(number.to_le_bytes());
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        let mut readable = vec![header];
        let mut writable = Vec::new();
        match number {
            0 | 8 => writable.push(u32::from(input.u16()) % 0x3000),
            1 => readable.push(vec![0xa5; usize::from(input.u16()) % 0x3000]),
            _ => readable.push(input.short().to_vec()),
        }
        if kind & 0x40 == 0 {
            writable.push(1);
        }
        Request {
            queue: 0,
            readable,
            writable,
        }
    }

    /// The device's thread sleeps when it has done everything; so do all others of this process but this one.
    fn settle(&mut self) {
        crate::threads::wait_until_asleep();
    }

    fn check(&mut self) {
        self.handle = None;
        for (index, file) in self.files.iter().enumerate() {
            let mut bytes = vec![0; FILE as usize];
            file.read_exact_at(&mut bytes, 0)
                .expect("the file is as long as ever");
            let untouched = if self.read_only { 0 } else { PART as usize };
            let rest = &bytes[untouched..];
            assert!(
                rest.iter().all(|&byte| byte == index as u8 + 1),
                "bytes outside of the device changed"
            );
            assert_eq!(file.metadata().expect("a file").len(), FILE);
        }
    }
}
