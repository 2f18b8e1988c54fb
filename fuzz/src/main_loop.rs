//! The main loop of a fake hull-vmm, and a thread beside it.
//!
//! A target's own thread is the loop: what devices do there is waited for by running it until nothing is ready, without a
//! switch between threads. Only a start, a stop, a save and a restore, during which a transport waits for the loop, are
//! done by another thread, a "vCPU", while the loop runs.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use devices::virtio::{Reactor, Subscriber};
use event_manager::EventManager;

/// The most turns until the loop is taken to be at rest: a device that never rests only gets as many.
const MAX_TURNS: usize = 64;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    static LOOP: RefCell<(EventManager<Subscriber>, Reactor)> = RefCell::new({
        let manager = EventManager::new().expect("an epoll");
        let reactor = Arc::new(manager.remote_endpoint());
        (manager, reactor)
    });
}

/// The loop, as devices see it.
pub fn reactor() -> Reactor {
    LOOP.with_borrow(|(_, reactor)| reactor.clone())
}

/// Makes loop and thread, so that they are there before anybody counts.
pub fn begin() {
    beside(|| ());
}

/// Runs the loop until nothing is ready.
pub fn settle() {
    LOOP.with_borrow_mut(|(manager, _)| {
        for _ in 0..MAX_TURNS {
            if manager.run_with_timeout(0).expect("an epoll") == 0 {
                return;
            }
        }
    });
}

/// Has the other thread do something that may wait for the loop, which runs meanwhile.
pub fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let reactor = reactor();
    let (sender, receiver) = channel();
    let job = Box::new(move || {
        // Nobody waits for it when the loop's thread has panicked.
        let _ = sender.send(work());
        let _ = reactor.kick();
    });
    vcpu(job);
    LOOP.with_borrow_mut(|(manager, _)| {
        loop {
            match receiver.try_recv() {
                Ok(done) => return done,
                Err(TryRecvError::Empty) => manager.run().map(drop).expect("an epoll"),
                Err(TryRecvError::Disconnected) => panic!("the other thread has panicked"),
            }
        }
    })
}

/// Gives work to the other thread, one of a process.
fn vcpu(work: Work) {
    static JOBS: OnceLock<Mutex<Sender<Work>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver): (_, Receiver<Work>) = channel();
        std::thread::spawn(move || receiver.into_iter().for_each(|work| work()));
        Mutex::new(sender)
    });
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(work)
        .expect("the other thread lives");
}
