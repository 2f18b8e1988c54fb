//! Values that are dropped half-way.

use container::sweep;

use crate::Test;
use crate::driver::{Container, exec_request, open_and_children, request};
use crate::fixture::Bundle;

pub(crate) const TESTS: &[Test] = &[
    ("what_is_dropped_is_killed_and_swept_away", dropped),
    ("a_failure_leaves_no_process_and_no_cgroup", failed),
    ("a_dropped_exec_leaves_the_container_alone", dropped_exec),
];

/// Sweeps until nothing is left.
fn sweep_all() {
    while sweep() > 0 {
        std::thread::yield_now();
    }
}

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
            other => drop(other),
        }
    }
    // Those that were executing by then are ours to end.
    container
        .joinable()
        .cgroup()
        .pids()
        .unwrap()
        .into_iter()
        .filter(|pid| *pid != container.running.pid)
        .for_each(|pid| _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    sweep_all();
    while rustix::process::waitpid(None, rustix::process::WaitOptions::NOHANG)
        .unwrap()
        .is_some()
    {}
    assert_eq!(open_and_children(), before);
    assert_eq!(container.exec("exit 4").code, 4);
}
