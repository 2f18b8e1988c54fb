//! The main loop of a fake hull-vmm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use event_manager::EventManager;

use crate::virtio::{Reactor, Subscriber};

pub(crate) struct MainLoop {
    reactor: Reactor,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MainLoop {
    pub(crate) fn new() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let thread = {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let mut manager = EventManager::<Subscriber>::new().unwrap();
                sender.send(manager.remote_endpoint()).unwrap();
                while !ended.load(Ordering::Acquire) {
                    manager.run().unwrap();
                }
            })
        };
        Self {
            reactor: Arc::new(receiver.recv().unwrap()),
            ended,
            thread: Some(thread),
        }
    }

    pub(crate) fn reactor(&self) -> Reactor {
        self.reactor.clone()
    }
}

impl Drop for MainLoop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.reactor.kick().unwrap();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the main loop panicked");
        }
    }
}
