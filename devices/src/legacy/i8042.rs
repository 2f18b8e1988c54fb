//! The keyboard controller, as far as a reset needs it: no keyboard, no mouse.
//!
//! Linux probes it by reading the status until the input buffer is empty, which it always is here.

use super::Chip;

/// Data port.
const DATA: u16 = 0;
/// Command and status port.
const COMMAND: u16 = 4;
/// "Pulse output lines", with line 0 (reset) low (IBM PC/AT Technical Reference, 8042 commands F0-FF).
const RESET: u8 = 0xfe;
/// Nothing to read, ready to be written.
const STATUS_IDLE: u8 = 0;

/// The chip; `reset` is called when the guest pulses the reset line.
pub struct I8042<F> {
    reset: F,
}

impl<F: FnMut() + Send> I8042<F> {
    /// A controller that calls `reset` for its reset line.
    pub fn new(reset: F) -> Self {
        Self { reset }
    }
}

impl<F: FnMut() + Send> Chip for I8042<F> {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        data.fill(match offset {
            DATA => 0,
            COMMAND => STATUS_IDLE,
            _ => 0xff,
        });
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        if offset == COMMAND && data == [RESET] {
            (self.reset)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let mut resets = 0;
        let mut chip = I8042::new(|| resets += 1);
        chip.write(COMMAND, &[0xfd]);
        chip.write(DATA, &[RESET]);
        chip.write(COMMAND, &[RESET, 0]);
        let mut status = [0xff];
        chip.read(COMMAND, &mut status);
        assert_eq!(status, [0]);
        chip.write(COMMAND, &[RESET]);
        assert_eq!(resets, 1);
    }
}
