//! A 16550 that only sends (National Semiconductor PC16550D): the console of a kernel's first lines, and of foreign
//! kernels. Input is deliberately absent: nothing ever arrives.

use vmm_sys_util::eventfd::EventFd;

use super::Chip;
use crate::output::Output;

// Registers, from the first port (PC16550D, table 8.2). The first two are the divisor's while DLAB is set.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_IDENTIFICATION: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

/// Interrupt when the transmitter is empty.
const IER_TRANSMITTER_EMPTY: u8 = 1 << 1;
const IER_MASK: u8 = 0x0f;
const IIR_NONE: u8 = 0x01;
const IIR_TRANSMITTER_EMPTY: u8 = 0x02;
/// The FIFOs are on.
const IIR_FIFO: u8 = 0xc0;
const LCR_DIVISOR_ACCESS: u8 = 1 << 7;
const MCR_LOOP: u8 = 1 << 4;
const MCR_MASK: u8 = 0x1f;
/// Transmitter holding register and shift register are empty: always.
const LSR_EMPTY: u8 = 0x60;
/// Carrier, ring, data set ready, clear to send: a line that is up.
const MSR_UP: u8 = 0xb0;

/// The chip.
pub struct Serial {
    output: Output,
    interrupt: EventFd,
    interrupt_enable: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// The transmitter has become empty since the guest last asked why it was interrupted.
    empty_pending: bool,
}

impl Serial {
    /// A port that sends to `output`; `interrupt` is written when it interrupts.
    pub fn new(output: Output, interrupt: EventFd) -> Self {
        Self {
            output,
            interrupt,
            interrupt_enable: 0,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            divisor: [12, 0], // 9600 baud
            empty_pending: false,
        }
    }

    fn divisor_access(&self) -> bool {
        self.line_control & LCR_DIVISOR_ACCESS != 0
    }

    /// Interrupts for the empty transmitter, if the guest has enabled that.
    fn transmitter_empty(&mut self) {
        if self.interrupt_enable & IER_TRANSMITTER_EMPTY != 0 {
            self.empty_pending = true;
            // Fails only when the counter is full, and then the interrupt is pending anyway.
            let _ = self.interrupt.write(1);
        }
    }
}

impl Chip for Serial {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        let [byte] = data else {
            data.fill(0xff);
            return;
        };
        *byte = match offset {
            DATA | INTERRUPT_ENABLE if self.divisor_access() => self.divisor[offset as usize],
            DATA => 0,
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_IDENTIFICATION => {
                IIR_FIFO
                    | match std::mem::take(&mut self.empty_pending) {
                        true => IIR_TRANSMITTER_EMPTY,
                        false => IIR_NONE,
                    }
            }
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => LSR_EMPTY,
            // In loop mode the outputs (DTR, RTS, OUT1, OUT2) come back as inputs.
            MODEM_STATUS if self.modem_control & MCR_LOOP != 0 => {
                let outputs = self.modem_control;
                (outputs & 0x01) << 5 | (outputs & 0x02) << 3 | (outputs & 0x0c) << 4
            }
            MODEM_STATUS => MSR_UP,
            SCRATCH => self.scratch,
            _ => 0xff,
        };
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let &[byte] = data else {
            return;
        };
        match offset {
            DATA | INTERRUPT_ENABLE if self.divisor_access() => {
                self.divisor[offset as usize] = byte;
            }
            DATA => {
                if self.modem_control & MCR_LOOP == 0 {
                    self.output.write(&[byte]);
                }
                self.transmitter_empty();
            }
            INTERRUPT_ENABLE => {
                self.interrupt_enable = byte & IER_MASK;
                self.transmitter_empty();
            }
            LINE_CONTROL => self.line_control = byte,
            MODEM_CONTROL => self.modem_control = byte & MCR_MASK,
            SCRATCH => self.scratch = byte,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn serial() -> (Serial, EventFd, io::PipeReader) {
        let (reader, writer) = std::io::pipe().unwrap();
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let output = Output::new(Some(writer.into())).unwrap();
        (
            Serial::new(output, interrupt.try_clone().unwrap()),
            interrupt,
            reader,
        )
    }

    use std::io;

    fn read(serial: &mut Serial, offset: u16) -> u8 {
        let mut byte = [0];
        serial.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn what_is_sent_arrives_and_the_divisor_does_not() {
        let (mut serial, _, mut reader) = serial();
        serial.write(LINE_CONTROL, &[LCR_DIVISOR_ACCESS]);
        serial.write(DATA, b"#");
        serial.write(LINE_CONTROL, &[3]);
        for byte in b"hi\n" {
            assert_eq!(read(&mut serial, LINE_STATUS) & 0x20, 0x20);
            serial.write(DATA, &[*byte]);
        }
        let mut seen = [0; 8];
        assert_eq!(reader.read(&mut seen).unwrap(), 3);
        assert_eq!(&seen[..3], b"hi\n");
    }

    #[test]
    fn a_driver_that_sends_by_interrupt_gets_one_for_each_byte() {
        let (mut serial, interrupt, _reader) = serial();
        serial.write(DATA, b"a");
        assert!(interrupt.read().is_err());
        serial.write(INTERRUPT_ENABLE, &[IER_TRANSMITTER_EMPTY]);
        assert_eq!(interrupt.read().unwrap(), 1);
        assert_eq!(
            read(&mut serial, INTERRUPT_IDENTIFICATION) & 0x0f,
            IIR_TRANSMITTER_EMPTY
        );
        assert_eq!(read(&mut serial, INTERRUPT_IDENTIFICATION) & 0x0f, IIR_NONE);
        serial.write(DATA, b"b");
        assert_eq!(interrupt.read().unwrap(), 1);
    }

    #[test]
    fn the_loop_back_that_linux_probes_with_comes_back() {
        let (mut serial, _, _reader) = serial();
        serial.write(MODEM_CONTROL, &[MCR_LOOP | 0x0a]);
        assert_eq!(read(&mut serial, MODEM_STATUS) & 0xf0, 0x90);
    }
}
