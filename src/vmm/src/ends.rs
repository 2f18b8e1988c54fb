//! Why the VM has ended: the first cause counts.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock};

use protocol::vmm::End;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The end of one VM, shared by everything that may cause or await it.
#[derive(Debug, Clone)]
pub struct Ends(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    first: OnceLock<End>,
    reached: EventFd,
}

impl Ends {
    /// A VM that has not ended.
    pub fn new() -> io::Result<Self> {
        let reached = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Inner {
            first: OnceLock::new(),
            reached,
        })))
    }

    /// The VM has ended for this reason, if it has not for another.
    pub fn reach(&self, end: End) {
        if self.0.first.set(end).is_ok() {
            // The counter is 0: the write cannot fail.
            let _ = self.0.reached.write(1);
        }
    }

    /// Why the VM has ended, if it has.
    pub fn get(&self) -> Option<&End> {
        self.0.first.get()
    }
}

/// Readable once the VM has ended.
impl AsRawFd for Ends {
    fn as_raw_fd(&self) -> RawFd {
        self.0.reached.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts() {
        let ends = Ends::new().unwrap();
        assert_eq!(ends.get(), None);
        ends.reach(End::Code { code: 3 });
        ends.clone().reach(End::TripleFault);
        assert_eq!(ends.get(), Some(&End::Code { code: 3 }));
        assert_eq!(ends.0.reached.read().unwrap(), 1);
    }
}
