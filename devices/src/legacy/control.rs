//! hull's own control device: it takes the marks of a boot and the code with which the agent ends the VM.
//! Its registers are described in the `protocol` crate (`timeline::control`), which the agent shares.

use super::Chip;

/// Registers, from the device's first port; each is 32 bits wide.
const REG_MAGIC: u16 = 0;
const REG_MARK: u16 = 4;
const REG_EXIT: u16 = 8;
/// "HULL"
const MAGIC: u32 = 0x4c4c_5548;

/// What happens when the guest writes.
pub trait ControlEvents: Send {
    /// A mark was written: any value.
    fn mark(&mut self, mark: u32);
    /// The code of a reset that follows was written: any value.
    fn exit_code(&mut self, code: u32);
}

/// The device.
pub struct Control<E> {
    events: E,
}

impl<E: ControlEvents> Control<E> {
    /// A device that calls `events`.
    pub fn new(events: E) -> Self {
        Self { events }
    }
}

impl<E: ControlEvents> Chip for Control<E> {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        match (offset, data.len()) {
            (REG_MAGIC, 4) => data.copy_from_slice(&MAGIC.to_le_bytes()),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            REG_MARK => self.events.mark(value),
            REG_EXIT => self.events.exit_code(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    impl ControlEvents for Sender<(char, u32)> {
        fn mark(&mut self, mark: u32) {
            self.send(('m', mark)).unwrap();
        }
        fn exit_code(&mut self, code: u32) {
            self.send(('e', code)).unwrap();
        }
    }

    #[test]
    fn whole_registers_are_heard_and_nothing_else() {
        let (sender, seen) = channel();
        let mut control = Control::new(sender);
        control.write(REG_MARK, &1u32.to_le_bytes());
        control.write(REG_EXIT, &7u32.to_le_bytes());
        control.write(REG_EXIT, &[9]);
        control.write(REG_MAGIC, &[0; 4]);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [('m', 1), ('e', 7)]);
    }

    #[test]
    fn the_magic_reads_as_a_word() {
        let mut control = Control::new(channel().0);
        let mut word = [0; 4];
        control.read(REG_MAGIC, &mut word);
        assert_eq!(&word, b"HULL");
        let mut byte = [0];
        control.read(REG_MAGIC, &mut byte);
        assert_eq!(byte, [0xff]);
    }
}
