//! The legacy chips and what lies beside them: every port, every width.

use std::sync::Arc;

use arch::layout::VIRTIO_MMIO;
use devices::legacy::{Control, ControlEvents, I8042, Serial};
use devices::output::Output;
use vmm::bus::Bus;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::input::Input;

struct Silent;

impl ControlEvents for Silent {
    fn mark(&mut self, _: u32) {}
    fn exit_code(&mut self, _: u32) {}
}

/// Runs an input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut bus = Bus::new(Arc::default());
    let output = Output::new(None).expect("no descriptor");
    let interrupt = EventFd::new(EFD_NONBLOCK).expect("a descriptor");
    bus.add_chip(0x3f8, 8, Box::new(Serial::new(output, interrupt)));
    bus.add_chip(0x60, 5, Box::new(I8042::new(|| {})));
    bus.add_chip(0x700, 12, Box::new(Control::new(Silent)));
    while let Some(code) = input.op() {
        let width = 1 << (code >> 1 & 3);
        let port = match code >> 3 & 3 {
            0 => 0x3f8 + u16::from(input.u8() % 9),
            1 => 0x60 + u16::from(input.u8() % 6),
            2 => 0x700 + u16::from(input.u8() % 13),
            _ => input.u16(),
        };
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..width];
        match code & 0x21 {
            0 => bus.port_read(port, bytes),
            1 => {
                let given = input.bytes(width);
                bytes[..given.len()].copy_from_slice(given);
                bus.port_write(port, bytes);
            }
            0x20 => bus.mmio_read(VIRTIO_MMIO.wrapping_add(input.u64()), bytes),
            _ => bus.mmio_write(VIRTIO_MMIO.wrapping_add(input.u64()), bytes),
        }
    }
    let counts = bus.counts();
    assert!(counts.len() < 70, "a guest can make the table grow");
}
