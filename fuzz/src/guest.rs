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
use memory::{GuestAddress, GuestMemoryMmap, Memory};

use crate::input::Input;
use crate::{main_loop, threads};

mod chains;

use chains::{Piece, Queue, WRITE};

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
/// The longest queue that has room below the next one's.
const MAX_QUEUE: u16 = 256;
/// The most operations of an input: an end to its running time.
const MAX_OPS: usize = 96;
/// The most pieces of a chain that one operation makes.
const MAX_PIECES: u8 = 12;
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
        main_loop::settle();
    }
    /// What must hold after everything.
    fn check(&mut self) {}
}

/// Runs an input against a device.
pub fn drive(host: &mut impl Host, input: &mut Input<'_>) {
    threads::survive_broken_pipes();
    main_loop::begin();
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
                size: device.queue_max_sizes()[index as usize].min(MAX_QUEUE),
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
        self.write(offset, &value.to_le_bytes());
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        if offset != STATUS {
            return self.transport().write(offset, bytes);
        }
        // The one register whose writing waits for the main loop.
        let mut transport = self.transport.take().expect("there is always one");
        let bytes = bytes.to_vec();
        self.transport = Some(main_loop::beside(move || {
            transport.write(STATUS, &bytes);
            transport
        }));
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
            let most = self.register(QUEUE_NUM_MAX).min(MAX_QUEUE.into());
            let size = most >> (shrink & 7).min(6);
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
                    self.write(offset, &bytes);
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

    /// Saves the transport and restores it with another device, its state as it was or as the input has it.
    fn save(&mut self, host: &mut impl Host, input: &mut Input<'_>) {
        let transport = self.transport.take().expect("there is always one");
        let mut state = main_loop::beside(|| transport.save().0);
        change(&mut state, input);
        let mut restored = self.plug_in(host.device());
        let (result, restored) = main_loop::beside(move || (restored.restore(&state), restored));
        self.transport = Some(match result {
            Ok(()) => restored,
            // Whoever cannot restore makes the device anew.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                drop(restored);
                self.plug_in(host.device())
            }
        });
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
