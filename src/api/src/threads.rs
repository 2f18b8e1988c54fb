//! Threads of what may last: followers, waits, attachments.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Failure;

/// The most of them: each is a client's connection.
const MAX_THREADS: usize = 4096;
/// Enough for every follower's buffers; only what is touched is used.
const STACK_BYTES: usize = 512 << 10;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Counts a thread for as long as it lives.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs something on a thread of this name (at most 15 bytes are shown).
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let busy =
        |why: String| Failure::new(503, format!("hull serve cannot take another stream: {why}"));
    let counted = Counted;
    if RUNNING.fetch_add(1, Ordering::AcqRel) >= MAX_THREADS {
        return Err(busy(format!("{MAX_THREADS} are open")));
    }
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES);
    let run = move || {
        let _counted = counted;
        work();
    };
    thread
        .spawn(run)
        .map(drop)
        .map_err(|error| busy(error.to_string()))
}
