//! Waiting for threads that cannot be asked.

use std::fs;
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sys::sigset::Set;

/// Has a write to what nobody reads fail, here and in every thread that begins later, instead of ending the process: so
/// do programs with Rust's own main, as hull's are; those with libFuzzer's have to say so.
pub fn survive_broken_pipes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        Set::of(&[Signal::PIPE.as_raw()])
            .block_only()
            .expect("a signal can be blocked");
    });
}

/// Number of this process's threads.
pub fn count() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Waits until there are no more threads than `count`: what a thread holds goes with it, after its owner.
pub fn wait_until_gone(count: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while self::count() > count {
        assert!(Instant::now() < deadline, "a thread outlives its device");
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Waits until every other thread of this process sleeps. A thread that was woken counts as awake at once.
pub fn wait_until_asleep() {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    while !others_sleep(&own) {
        // Looking costs more than the work that is waited for.
        std::thread::sleep(Duration::from_micros(20));
    }
}

fn others_sleep(own: &str) -> bool {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return true;
    };
    tasks.flatten().all(|task| {
        if task.file_name().to_str() == Some(own) {
            return true;
        }
        // A thread that is gone is not awake. The state follows the name, which is in parentheses (proc_pid_stat(5)).
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else {
            return true;
        };
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        !matches!(state, Some('R' | 'D'))
    })
}

/// Sets PATH for the rest of this process.
#[expect(unsafe_code, reason = "the environment is one for all threads")]
pub fn set_path(path: &str) {
    // SAFETY: Rust's own accesses to the environment exclude each other, and no target calls C code that reads it
    // while another one runs: a fuzzing process runs one target, the replay one target at a time.
    unsafe { std::env::set_var("PATH", path) };
}
