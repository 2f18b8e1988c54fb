//! The one way to start a thread.
//!
//! Every thread has a name and a small stack. The jail will install the thread's seccomp filter here, before `work`
//! runs: that is why nothing else in hull-vmm calls `std::thread`.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Stack of a thread, in bytes. Only the pages that are touched count; the rest bounds a runaway recursion.
const STACK_BYTES: usize = 256 << 10;

/// Starts a thread called `name` (the kernel shows its first 15 bytes) that runs `work`.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_carries_its_name_and_gives_its_result() {
        let thread = spawn("vcpu7", || std::thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(thread.join().unwrap().as_deref(), Some("vcpu7"));
    }
}
