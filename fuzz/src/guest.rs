//! A hostile guest: memory of its own, one device behind the mmio transport, and operations from an input.
//!
//! The guest first brings the device up as a driver would, so that most inputs reach its queues; from then on the
//! input says what happens: register accesses of any kind, chains well-formed and not, whole resets, saves and
//! restores, and what the host does meanwhile. After each operation the device's work is waited for, so that an input
//! gives the same coverage each time.
//!
//! Checked at the end, for every device: the device can be reset and brought up again, and no descriptor is left.

use std::sync::Arc;

use devices::virtio::Device;
use devices::virtio::mmio::registers::*;
use devices::virtio::mmio::{Mmio, State};
use memory::{Bytes, GuestAddress, GuestMemoryMmap, Memory};

use crate::input::Input;
use crate::{main_loop, threads};

/// Where one region of guest memory ends and the next begins; and where the second one ends.
pub const BORDER: u64 = 0x18000;
/// Bytes of guest memory.
pub const MEMORY: u64 = 2 * BORDER;
/// Where buffers begin; the queues lie below.
const BUFFERS: u64 = 0x8000;
const FIRST_QUEUE: u64 = 0x1000;
const QUEUE_BYTES: u64 = 0x2000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x1400;
/// The most operations of an input: an end to its running time.
const MAX_OPS: usize = 96;
/// The most pieces of a chain that one operation makes.
const MAX_PIECES: u8 = 12;
/// The longest piece that one operation fills with bytes of its own.
const MAX_LEN: u64 = 0x6000;

// Flags of a descriptor (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Operations, by their codes modulo [`OPS`].
pub mod op {
    /// queue, count, pieces: a chain.
    pub const CHAIN: u8 = 0;
    /// queue: a notification.
    pub const KICK: u8 = 1;
    /// address, bytes: into memory.
    pub const POKE: u8 = 2;
    /// offset, value: a register.
    pub const WRITE: u8 = 3;
    /// offset, length.
    pub const READ: u8 = 4;
    /// features, sizes: a reset, and all that a driver does.
    pub const BRING_UP: u8 = 5;
    /// What the host does.
    pub const HOST: u8 = 6;
    /// Save, perhaps change the state, restore.
    pub const SAVE: u8 = 7;
    /// queue, index: the available index.
    pub const AVAILABLE: u8 = 8;
    /// queue, index, 16 bytes: a descriptor as it is.
    pub const DESCRIPTOR: u8 = 9;
    /// queue, count, pieces: a chain in an indirect table.
    pub const INDIRECT: u8 = 10;
    /// A request of the device's own kind, and a notification.
    pub const REQUEST: u8 = 11;
    /// queue, count, length: writable buffers, and a notification.
    pub const BUFFERS: u8 = 12;
    /// offset, width, bytes: an access of any width.
    pub const ACCESS: u8 = 13;
}
/// Those of which the device cannot hear.
const SILENT: [u8; 6] = [
    op::CHAIN,
    op::INDIRECT,
    op::POKE,
    op::READ,
    op::AVAILABLE,
    op::DESCRIPTOR,
];
/// Number of operations.
pub const OPS: u8 = 14;

/// A request as its driver would make it.
#[derive(Default)]
pub struct Request {
    /// To which queue.
    pub queue: usize,
    /// What the device reads, in pieces.
    pub readable: Vec<Vec<u8>>,
    /// How much it may write, in pieces.
    pub writable: Vec<u32>,
}

/// The host's side of a device.
pub trait Host {
    /// A device, new or after a restore.
    fn device(&mut self) -> Box<dyn Device>;
    /// What the host does.
    fn act(&mut self, input: &mut Input<'_>) {
        let _ = input;
    }
    /// A request.
    fn request(&mut self, input: &mut Input<'_>) -> Request {
        let len = input.u16().into();
        Request {
            queue: input.u8().into(),
            readable: vec![input.short().to_vec()],
            writable: vec![len],
        }
    }
    /// Waits until the device has done what there was to do.
    fn settle(&mut self) {
        main_loop::settle(2);
    }
    /// What must hold after everything.
    fn check(&mut self) {}
}

/// Runs an input against a device.
pub fn drive(host: &mut impl Host, input: &mut Input<'_>) {
    threads::survive_broken_pipes();
    main_loop::reactor();
    let before = (threads::count(), descriptors());
    {
        let mut guest = Guest::new(host.device());
        guest.bring_up(input);
        for _ in 0..MAX_OPS {
            let Some(code) = input.op() else { break };
            let code = code % OPS;
            guest.perform(code, host, input);
            if !SILENT.contains(&code) {
                host.settle();
            }
        }
        guest.finish(host);
    }
    threads::wait_until_gone(before.0);
    host.check();
    assert_eq!(descriptors(), before.1, "descriptors are left behind");
}

/// Number of open descriptors, but for those that a host opens and keeps until its own end.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

struct Guest {
    memory: Memory,
    transport: Option<Mmio>,
    queues: Vec<Queue>,
    next_buffer: u64,
}

#[derive(Clone, Copy)]
struct Queue {
    base: u64,
    size: u16,
    next_descriptor: u16,
    available: u16,
}

#[derive(Clone, Copy)]
struct Piece {
    address: u64,
    len: u32,
    flags: u16,
}

impl Guest {
    fn new(device: Box<dyn Device>) -> Self {
        let ranges = [
            (GuestAddress(0), BORDER as usize),
            (GuestAddress(BORDER), BORDER as usize),
        ];
        let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("some pages"));
        let queues = (0..device.queue_max_sizes().len() as u64)
            .map(|index| Queue {
                base: FIRST_QUEUE + index * QUEUE_BYTES,
                size: device.queue_max_sizes()[index as usize],
                next_descriptor: 0,
                available: 0,
            })
            .collect();
        let mut guest = Self {
            memory,
            transport: None,
            queues,
            next_buffer: BUFFERS,
        };
        guest.transport = Some(guest.plug_in(device));
        guest
    }

    fn plug_in(&self, device: Box<dyn Device>) -> Mmio {
        Mmio::new(device, self.memory.clone(), main_loop::reactor()).expect("some descriptors")
    }

    fn transport(&mut self) -> &mut Mmio {
        self.transport.as_mut().expect("there is always one")
    }

    fn register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.transport().read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.transport().write(offset, &value.to_le_bytes());
    }

    /// All that a driver does from reset to DRIVER_OK: some features, sizes from 1 up to the largest.
    fn bring_up(&mut self, input: &mut Input<'_>) {
        let (mask, shrink) = (input.u32(), input.u8());
        self.set(STATUS, 0);
        self.set(STATUS, STATUS_ACKNOWLEDGE);
        self.set(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        self.set(DEVICE_FEATURES_SEL, 0);
        let offered = self.register(DEVICE_FEATURES);
        self.set(DRIVER_FEATURES_SEL, 0);
        self.set(DRIVER_FEATURES, offered & mask);
        self.set(DRIVER_FEATURES_SEL, 1);
        self.set(DRIVER_FEATURES, (VERSION_1 >> 32) as u32);
        let ready = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        self.set(STATUS, ready);
        for index in 0..self.queues.len() {
            self.set(QUEUE_SEL, index as u32);
            let size = self.register(QUEUE_NUM_MAX) >> (shrink & 7).min(6);
            let queue = &mut self.queues[index];
            queue.size = size.max(1) as u16;
            (queue.next_descriptor, queue.available) = (0, 0);
            let (base, size) = (queue.base, queue.size);
            // An index that is left from before would be a broken queue.
            self.poke(base + AVAILABLE, &[0; 4]);
            self.poke(base + USED, &[0; 4]);
            self.set(QUEUE_NUM, size.into());
            self.set(QUEUE_DESC_LOW, base as u32);
            self.set(QUEUE_DRIVER_LOW, (base + AVAILABLE) as u32);
            self.set(QUEUE_DEVICE_LOW, (base + USED) as u32);
            self.set(QUEUE_READY, 1);
        }
        self.set(STATUS, ready | STATUS_DRIVER_OK);
    }

    fn perform(&mut self, code: u8, host: &mut impl Host, input: &mut Input<'_>) {
        match code {
            op::CHAIN | op::INDIRECT => {
                let queue = self.queue(input);
                let count = input.u8() % MAX_PIECES;
                let pieces: Vec<_> = (0..count).map(|_| self.piece(input)).collect();
                self.add(queue, &pieces, code == op::INDIRECT);
            }
            op::KICK => {
                let queue = input.u8();
                self.set(QUEUE_NOTIFY, queue.into());
            }
            op::POKE => {
                let address = u64::from(input.u32()) % (MEMORY + 0x100);
                let bytes = input.short();
                self.poke(address, bytes);
            }
            op::WRITE => {
                let offset = u64::from(input.u8()) * 4;
                let value = input.u32();
                self.set(offset, value);
            }
            op::READ | op::ACCESS => {
                let offset = u64::from(input.u16()) % 0x1000;
                let mut bytes = input.bytes(1 << (code & 3)).to_vec();
                if code == op::READ {
                    bytes.resize(8, 0);
                    self.transport().read(offset, &mut bytes);
                } else {
                    self.transport().write(offset, &bytes);
                }
            }
            op::BRING_UP => self.bring_up(input),
            op::HOST => host.act(input),
            op::SAVE => self.save(host, input),
            op::AVAILABLE => {
                let queue = self.queue(input);
                let index = input.u16();
                self.queues[queue].available = index;
                self.poke(
                    self.queues[queue].base + AVAILABLE + 2,
                    &index.to_le_bytes(),
                );
            }
            op::DESCRIPTOR => {
                let queue = self.queue(input);
                let index = u64::from(input.u8());
                let address = self.queues[queue].base + 16 * index;
                self.poke(address, input.bytes(16));
            }
            op::REQUEST => {
                let request = host.request(input);
                self.submit(&request);
            }
            _ => {
                let queue = self.queue(input);
                let (count, len) = (input.u8() % 64, input.u16().into());
                for _ in 0..count {
                    let address = self.alloc(len);
                    let len = len as u32;
                    self.add(
                        queue,
                        &[Piece {
                            address,
                            len,
                            flags: WRITE,
                        }],
                        false,
                    );
                }
                self.set(QUEUE_NOTIFY, queue as u32);
            }
        }
    }

    fn queue(&self, input: &mut Input<'_>) -> usize {
        usize::from(input.u8()) % self.queues.len()
    }

    /// Guest memory, used again and again.
    fn alloc(&mut self, len: u64) -> u64 {
        let len = len.min(MAX_LEN);
        if self.next_buffer + len > MEMORY {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += len;
        address
    }

    fn poke(&mut self, address: u64, bytes: &[u8]) {
        // What lies outside of memory is not written: a guest's own affair.
        let _ = self.memory.write(bytes, GuestAddress(address));
    }

    /// A piece of a chain: bytes of the input's, room, or anything.
    fn piece(&mut self, input: &mut Input<'_>) -> Piece {
        let kind = input.u8();
        let flags =
            if kind & 1 != 0 { WRITE } else { 0 } | if kind & 0x40 != 0 { INDIRECT } else { 0 };
        let (address, len) = match kind >> 1 & 3 {
            0 => {
                let bytes = input.short();
                let address = self.alloc(bytes.len() as u64);
                self.poke(address, bytes);
                (address, bytes.len() as u32)
            }
            1 => {
                let len = input.u16();
                (self.alloc(len.into()), len.into())
            }
            2 => (u64::from(input.u32()) << ((kind >> 3 & 7) * 4), input.u32()),
            _ => (BORDER - u64::from(input.u8()), input.u8().into()),
        };
        Piece {
            address,
            len,
            flags,
        }
    }

    fn add(&mut self, queue: usize, pieces: &[Piece], indirect: bool) {
        if indirect {
            let table = self.alloc(16 * pieces.len() as u64);
            for (i, piece) in pieces.iter().enumerate() {
                let next = (i + 1 < pieces.len()).then_some(i as u16 + 1);
                self.poke(table + 16 * i as u64, &descriptor(*piece, next));
            }
            let table = Piece {
                address: table,
                len: 16 * pieces.len() as u32,
                flags: INDIRECT,
            };
            return self.add(queue, &[table], false);
        }
        let Queue { base, size, .. } = self.queues[queue];
        let head = self.queues[queue].next_descriptor % size;
        for (i, piece) in pieces.iter().enumerate() {
            let index = self.queues[queue].next_descriptor % size;
            let following = self.queues[queue].next_descriptor.wrapping_add(1);
            self.queues[queue].next_descriptor = following;
            let next = (i + 1 < pieces.len()).then_some(following % size);
            self.poke(base + 16 * u64::from(index), &descriptor(*piece, next));
        }
        let available = self.queues[queue].available;
        let slot = base + AVAILABLE + 4 + 2 * u64::from(available % size);
        self.poke(slot, &head.to_le_bytes());
        let available = available.wrapping_add(1);
        self.queues[queue].available = available;
        self.poke(base + AVAILABLE + 2, &available.to_le_bytes());
    }

    fn submit(&mut self, request: &Request) {
        let queue = request.queue % self.queues.len();
        let mut pieces = Vec::new();
        for bytes in &request.readable {
            let address = self.alloc(bytes.len() as u64);
            self.poke(address, bytes);
            pieces.push(Piece {
                address,
                len: bytes.len() as u32,
                flags: 0,
            });
        }
        for &len in &request.writable {
            pieces.push(Piece {
                address: self.alloc(len.into()),
                len,
                flags: WRITE,
            });
        }
        self.add(queue, &pieces, false);
        self.set(QUEUE_NOTIFY, queue as u32);
    }

    /// Saves the transport and restores it with another device, its state as it was or as the input has it.
    fn save(&mut self, host: &mut impl Host, input: &mut Input<'_>) {
        let transport = self.transport.take().expect("there is always one");
        let (mut state, device) = transport.save();
        drop(device);
        change(&mut state, input);
        let mut restored = self.plug_in(host.device());
        match restored.restore(&state) {
            Ok(()) => {
                self.transport = Some(restored);
                let mut bytes = [0; 4];
                self.transport().read(STATUS, &mut bytes);
            }
            // Whoever cannot restore makes the device anew.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                drop(restored);
                self.transport = Some(self.plug_in(host.device()));
            }
        }
    }

    /// Whatever has happened, a reset helps.
    fn finish(mut self, host: &mut impl Host) {
        host.settle();
        assert_eq!(self.register(INTERRUPT_STATUS) & !3, 0);
        self.bring_up(&mut Input::new(&[0xff, 0xff, 0xff, 0xff]));
        let done = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
        assert_eq!(self.register(STATUS), done, "the device does not come back");
        self.set(STATUS, 0);
        assert_eq!(self.register(STATUS), 0);
        host.settle();
    }
}

/// Changes some of a saved state, or nothing.
fn change(state: &mut State, input: &mut Input<'_>) {
    for _ in 0..input.u8() % 4 {
        let queue = usize::from(input.u8()) % state.queues.len();
        let which = input.u8() % 12;
        let value = input.u64();
        let queue = &mut state.queues[queue];
        match which {
            0 => state.status = value as u32,
            1 => state.driver_features = value,
            2 => state.selects = [value as u32; 3],
            3 => state.interrupt_status = value as u32 & 3,
            4 => queue.size = value as u32,
            5 => queue.ready = value & 1 != 0,
            6 => queue.descriptors = value,
            7 => queue.available = value,
            8 => queue.used = value,
            9 => queue.next_available = value as u16,
            10 => queue.next_used = value as u16,
            _ => state.config_generation = value as u32,
        }
    }
}

fn descriptor(piece: Piece, next: Option<u16>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&piece.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&piece.len.to_le_bytes());
    let flags = piece.flags | if next.is_some() { NEXT } else { 0 };
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.unwrap_or(0).to_le_bytes());
    bytes
}
