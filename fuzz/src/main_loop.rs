//! The main loop of a fake hull-vmm, on a thread of its own, one for all inputs.

use std::sync::mpsc;
use std::sync::{Arc, OnceLock};

use devices::virtio::{Reactor, Subscriber};
use event_manager::EventManager;

/// The loop, as devices see it.
pub fn reactor() -> Reactor {
    static REACTOR: OnceLock<Reactor> = OnceLock::new();
    REACTOR
        .get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let run = move || {
                let mut manager = EventManager::<Subscriber>::new().expect("an epoll");
                sender
                    .send(manager.remote_endpoint())
                    .expect("somebody waits for it");
                loop {
                    let turn = || manager.run().expect("an epoll");
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn)).is_err() {
                        // Whoever waits for the loop would wait for ever.
                        std::process::abort();
                    }
                }
            };
            std::thread::spawn(run);
            Arc::new(receiver.recv().expect("the loop begins"))
        })
        .clone()
}

/// Waits until the loop has seen what was ready, and what its work has made ready, so many times.
pub fn settle(turns: usize) {
    for _ in 0..turns {
        reactor()
            .call_blocking::<_, _, event_manager::Error>(|_| Ok(()))
            .expect("the loop lives");
    }
}
