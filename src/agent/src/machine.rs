//! The guest's machine, as far as the agent touches it: the control device and the reset line.

use protocol::timeline::control::{
    LEN, MAGIC, PORT, REG_EXIT, REG_MAGIC, REG_MARK, RESET, RESET_PORT,
};
use sys::ports::Ports;

const CONTROL: Ports = Ports::new(PORT, LEN);

/// Hull's machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine(());

impl Machine {
    /// Looks for the control device. On any other machine there is nothing behind its ports.
    pub(crate) fn detect() -> Option<Machine> {
        (CONTROL.read_u32(REG_MAGIC).ok()? == MAGIC).then_some(Machine(()))
    }

    /// Stamps the boot. A stamp that is missed is not worth a boot.
    pub(crate) fn mark(self, mark: u32) {
        let _ = CONTROL.write_u32(REG_MARK, mark);
    }

    /// Ends the machine with a code.
    pub(crate) fn end(self, code: u32) -> ! {
        // If these fail there is no way left to say so but the one that they would have taken.
        let _ = CONTROL.write_u32(REG_EXIT, code);
        let _ = Ports::new(RESET_PORT, 1).write_u8(0, RESET);
        loop {
            rustix::event::pause();
        }
    }
}
