//! The one way to start a thread.
//!
//! Every thread has a name and a small stack, and does first what the process has said that its threads are to do
//! ([`confine_with`]): in hull-vmm, to install the seccomp filter of its kind. That is why nothing else there calls
//! `std::thread`.

use std::io;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};

/// Stack of a thread, in bytes. Only the pages that are touched count; the rest bounds a runaway recursion.
const STACK_BYTES: usize = 256 << 10;

/// Confines the calling thread, given its name.
pub type Confine = fn(&str) -> io::Result<()>;

static CONFINE: OnceLock<Confine> = OnceLock::new();

/// Threads that were spawned and have not confined themselves yet, and what is notified when one has.
static UNCONFINED: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Has every thread that is spawned from now on call `confine` before its work; the process ends if that fails. Such a
/// thread lives as long as the process, its work done or not: a thread's end takes system calls that it is not to have.
/// It is not to be joined. Only the first call counts.
pub fn confine_with(confine: Confine) {
    let _ = CONFINE.set(confine);
}

/// Starts a thread called `name` (the kernel shows its first 15 bytes) that runs `work`.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
    let Some(confine) = CONFINE.get() else {
        return builder.spawn(work);
    };
    let name = name.to_owned();
    count_unconfined(1);
    let spawned = builder.spawn(move || {
        if let Err(error) = confine(&name) {
            panic!("the thread {name} cannot be confined: {error}");
        }
        count_unconfined(-1);
        drop(name);
        drop(work());
        loop {
            std::thread::park();
        }
    });
    if spawned.is_err() {
        count_unconfined(-1);
    }
    spawned
}

/// Returns when every thread that was spawned has confined itself.
pub fn wait_until_confined() {
    let (count, changed) = &UNCONFINED;
    let count = count.lock().unwrap_or_else(PoisonError::into_inner);
    drop(changed.wait_while(count, |count| *count > 0));
}

fn count_unconfined(change: isize) {
    let (count, changed) = &UNCONFINED;
    let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
    *count = count
        .checked_add_signed(change)
        .expect("a thread is counted before it is uncounted");
    changed.notify_all();
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
