//! The main loop of a fake hull-vmm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use event_manager::EventManager;

use crate::virtio::{Reactor, Subscriber};

pub(crate) struct MainLoop {
    reactor: Reactor,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    thread_id: rustix::thread::Pid,
}

impl MainLoop {
    pub(crate) fn new() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let thread = {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let mut manager = EventManager::<Subscriber>::new().unwrap();
                let thread_id = rustix::thread::gettid();
                sender.send((manager.remote_endpoint(), thread_id)).unwrap();
                while !ended.load(Ordering::Acquire) {
                    manager.run().unwrap();
                }
            })
        };
        let (reactor, thread_id) = receiver.recv().unwrap();
        Self {
            reactor: Arc::new(reactor),
            ended,
            thread: Some(thread),
            thread_id,
        }
    }

    /// What the loop has cost so far, in ticks of 10 ms.
    pub(crate) fn processor_time(&self) -> Duration {
        let path = format!("/proc/self/task/{}/stat", self.thread_id.as_raw_nonzero());
        let stat = std::fs::read_to_string(path).unwrap();
        // proc(5): the fields behind the name; utime and stime are numbers 14 and 15.
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(10 * ticks)
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
