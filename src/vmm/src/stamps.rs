//! When each stage of the boot was reached, taken on any thread without a lock; and the guest's exit code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use devices::legacy::ControlEvents;
use protocol::timeline::{Nanos, Timeline, mark};
use protocol::vmm::End;
use sys::clock::monotonic_ns;

use crate::ends::Ends;
use crate::snapshot::Saver;

/// A moment that is stamped once. CLOCK_MONOTONIC is never 0 while a process runs.
#[derive(Debug, Default)]
pub struct Stamp(AtomicU64);

impl Stamp {
    /// Now, unless it was stamped before.
    pub fn set(&self) {
        if self.0.load(Ordering::Relaxed) == 0 {
            // The loser of a race would have stamped the same moment.
            let _ =
                self.0
                    .compare_exchange(0, monotonic_ns(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<Nanos> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&at| at != 0)
    }
}

/// The stamps that hull-vmm takes.
#[derive(Debug, Default)]
pub struct Stamps {
    /// hull-vmm entered main.
    pub vmm_started: Stamp,
    /// T1.
    pub first_run: Stamp,
    /// T2.
    pub first_virtio: Stamp,
    agent_started: Stamp,
    exec: Stamp,
    /// The code that the guest wrote last, with bit 32 set.
    exit_code: AtomicU64,
}

const CODE_WRITTEN: u64 = 1 << 32;

impl Stamps {
    /// What is known so far.
    pub fn timeline(&self) -> Timeline {
        Timeline {
            vmm_started: self.vmm_started.get(),
            first_run: self.first_run.get(),
            first_virtio: self.first_virtio.get(),
            agent_started: self.agent_started.get(),
            exec: self.exec.get(),
            ..Timeline::default()
        }
    }

    /// The code with which the guest wants to end, if it has written one.
    pub fn exit_code(&self) -> Option<u32> {
        let written = self.exit_code.load(Ordering::SeqCst);
        (written & CODE_WRITTEN != 0).then_some(written as u32)
    }
}

/// The control device's listener: stamps what the guest marks.
pub struct Listener {
    /// The stamps.
    pub stamps: Arc<Stamps>,
    /// Of a VM that ends by being saved, as soon as its guest is ready.
    pub to_be_saved: Option<(Arc<Saver>, Ends)>,
}

impl ControlEvents for Listener {
    fn mark(&mut self, mark: u32) {
        match mark {
            mark::AGENT_STARTED => self.stamps.agent_started.set(),
            mark::EXEC => self.stamps.exec.set(),
            mark::REHEARSAL => {
                if let Some((saver, _)) = &self.to_be_saved {
                    saver.rehearsal_begins();
                }
            }
            mark::READY => {
                if let Some((_, ends)) = &self.to_be_saved {
                    ends.reach(End::Saved);
                }
            }
            _ => {}
        }
    }

    fn exit_code(&mut self, code: u32) {
        self.stamps
            .exit_code
            .store(CODE_WRITTEN | u64::from(code), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_stamped_once() {
        let stamps = Arc::new(Stamps::default());
        assert_eq!(stamps.timeline(), Timeline::default());
        let mut listener = Listener {
            stamps: stamps.clone(),
            to_be_saved: None,
        };
        listener.mark(mark::EXEC);
        let first = stamps.timeline().exec;
        assert!(first.is_some());
        std::thread::sleep(std::time::Duration::from_millis(1));
        listener.mark(mark::EXEC);
        listener.mark(77);
        assert_eq!(stamps.timeline().exec, first);
    }

    #[test]
    fn a_code_of_zero_is_a_code() {
        let stamps = Arc::new(Stamps::default());
        assert_eq!(stamps.exit_code(), None);
        let mut listener = Listener {
            stamps: stamps.clone(),
            to_be_saved: None,
        };
        listener.exit_code(0);
        assert_eq!(stamps.exit_code(), Some(0));
    }
}
