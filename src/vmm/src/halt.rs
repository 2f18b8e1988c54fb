//! Finding out that a guest has halted for good.
//!
//! With the interrupt chip in KVM a halted vCPU never leaves it, so a guest that halts with interrupts off (a power-off
//! without ACPI) would stay for ever, and KVM does not report it. So whenever the main loop has had nothing to do for [`IDLE`], the
//! first vCPU is asked whether it will ever run again, and the others only if it will not. It costs a living guest one
//! exit in that time, and one that is busy with its devices nothing.

use std::time::Duration;

use protocol::vmm::End;

use crate::vcpu::Running;

/// How long the main loop has nothing to do before a vCPU is asked.
const IDLE: Duration = Duration::from_secs(2);
/// How long an answer takes.
const ANSWER: Duration = Duration::from_millis(20);

/// How far the vCPUs have been asked.
#[derive(Debug, Default)]
pub struct Watch {
    /// How many were asked, from the first on.
    asked: usize,
}

impl Watch {
    /// How long to wait for events before [`Watch::idle`], in milliseconds.
    pub fn timeout_ms(&self) -> i32 {
        let timeout = if self.asked == 0 { IDLE } else { ANSWER };
        timeout.as_millis() as i32
    }

    /// Something has happened: the guest is alive.
    pub fn busy(&mut self) {
        self.asked = 0;
    }

    /// Nothing has happened for [`Watch::timeout_ms`]. Gives the end if every vCPU is dead.
    pub fn idle(&mut self, vcpus: &[Running]) -> Option<End> {
        let asked = &vcpus[..self.asked.min(vcpus.len())];
        if !asked.iter().all(|vcpu| vcpu.is_dead() == Some(true)) {
            self.asked = 0;
            return None;
        }
        match vcpus.get(asked.len()) {
            Some(next) => {
                next.ask_for_life();
                self.asked += 1;
                None
            }
            None => Some(End::Halted),
        }
    }
}
