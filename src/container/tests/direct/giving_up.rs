//! Values that are dropped half-way.

use crate::Test;
use crate::driver::{Container, exec_request, open_and_children, request, sweep_all, wait};
use crate::fixture::Bundle;

pub(crate) const TESTS: &[Test] = &[
    ("what_is_dropped_is_killed_and_swept_away", dropped),
    ("a_failure_leaves_no_process_and_no_cgroup", failed),
    ("a_dropped_exec_leaves_the_container_alone", dropped_exec),
];

fn dropped() {
    sweep_all();
    let bundle = Bundle::new("exec sleep 1000");
    let before = open_and_children();
    for step in 0..3 {
        let request = request(&bundle);
        let path = request.cgroup.clone();
        let building = container::create(request).unwrap();
        match step {
            0 => drop(building),
            1 => drop(building.wait().unwrap()),
            _ => drop(building.wait().unwrap().start()),
        }
        sweep_all();
        assert!(!path.exists(), "{step}");
        assert_eq!(open_and_children(), before, "{step}");
    }
}

fn failed() {
    sweep_all();
    let before = open_and_children();
    let mut bundle = Bundle::new("true");
    bundle.config["process"]["args"] = serde_json::json!(["nothing-like-it"]);
    let request = request(&bundle);
    let path = request.cgroup.clone();
    let created = container::create(request).unwrap().wait().unwrap();
    created.start().wait().unwrap_err();
    sweep_all();
    assert!(!path.exists());
    assert_eq!(open_and_children(), before);
}

fn dropped_exec() {
    let (container, _bundle) = Container::sleeping();
    let before = open_and_children();
    let request = || exec_request(&container.document("exec sleep 1000"));
    for _ in 0..20 {
        drop(container::exec(container.joinable(), request()).unwrap());
    }
    for _ in 0..20 {
        let starting = container::exec(container.joinable(), request()).unwrap();
        std::thread::yield_now();
        match starting.advance() {
            container::Progress::Failed(error) => panic!("{error}"),
            // Executed already, it is the caller's.
            container::Progress::Done(running) => {
                rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL)
                    .unwrap();
                wait(&running.pidfd);
            }
            container::Progress::Pending(starting) => drop(starting),
        }
    }
    sweep_all();
    assert_eq!(open_and_children(), before);
    let pids = container.joinable().cgroup().pids().unwrap();
    assert_eq!(pids, [container.running.pid]);
    assert_eq!(container.exec("exit 4").code, 4);
}
