//! Pausing, limits and the end, by the cgroup.

use container::cgroup::{Events, Removal, State};
use container::{Progress, Resources};
use rustix::event::{PollFd, PollFlags, poll};

use crate::Test;
use crate::driver::{Container, exec_request, request, wait};
use crate::fixture::{Bundle, cgroup2};

pub(crate) const TESTS: &[Test] = &[
    ("a_paused_container_stands_still_until_it_is_resumed", pause),
    ("limits_are_updated_and_others_left", update),
    ("a_container_out_of_memory_is_seen", out_of_memory),
    (
        "exec_finds_a_place_among_the_containers_own_cgroups",
        own_cgroups,
    ),
    ("a_signal_to_all_reaches_each_process", signal_to_all),
    ("a_cgroup_is_removed_once_it_is_empty", removal),
];

fn has(controller: &str) -> bool {
    let controllers = std::fs::read_to_string(cgroup2().join("cgroup.controllers")).unwrap();
    controllers
        .split_whitespace()
        .any(|name| name == controller)
}

/// Waits for a state, woken by its changes alone.
fn wait_for(events: &mut Events, is_there: impl Fn(State) -> bool) {
    while !is_there(events.state().unwrap()) {
        poll(&mut [PollFd::new(&*events, PollFlags::PRI)], None).unwrap();
    }
}

fn pause() {
    let (container, _bundle) = Container::sleeping();
    let cgroup = container.joinable().cgroup();
    let mut events = cgroup.events().unwrap();
    assert_eq!(
        events.state().unwrap(),
        State {
            populated: true,
            frozen: false
        }
    );
    cgroup.freeze().unwrap();
    wait_for(&mut events, |state| state.frozen);
    // What is executed now is frozen with the others; the caller does not wait for it.
    let mut starting = container::exec(
        container.joinable(),
        exec_request(&container.document("exit 3")),
    )
    .unwrap();
    for _ in 0..100 {
        starting = match starting.advance() {
            Progress::Pending(starting) => starting,
            other => panic!("{other:?}"),
        };
    }
    cgroup.thaw().unwrap();
    wait_for(&mut events, |state| !state.frozen);
    assert_eq!(wait(&starting.wait().unwrap().pidfd), 3);
}

fn update() {
    let (container, _bundle) = Container::sleeping();
    let cgroup = container.joinable().cgroup();
    let update = |json: &str| cgroup.update(&Resources::from_json(json.as_bytes()).unwrap());
    assert!(update(r#"{"devices":[{"allow":true}]}"#).is_err());
    update("{}").unwrap();
    if has("pids") && has("memory") {
        update(r#"{"pids":{"limit":33},"memory":{"limit":67108864}}"#).unwrap();
        update(r#"{"memory":{"swap":67108864}}"#).unwrap();
        let usage = cgroup.usage();
        assert_eq!(usage.processes_limit, Some(33));
        assert_eq!(usage.memory_limit_bytes, Some(67_108_864));
    } else {
        let error = update(r#"{"pids":{"limit":33}}"#).unwrap_err();
        assert_eq!(error.to_string(), "cannot set the limit pids");
    }
    let usage = cgroup.usage();
    assert!(usage.cpu_us >= usage.cpu_user_us);
    assert!(usage.cpu_us > 0);
}

fn out_of_memory() {
    if !has("memory") {
        return;
    }
    let bundle = Bundle::new("tail -c 100000000 /dev/zero").set(
        "/linux/resources/memory",
        serde_json::json!({ "limit": 20 << 20, "swap": 20 << 20 }),
    );
    let container = Container::start(&bundle);
    assert_eq!(wait(&container.running.pidfd), 128 + 9);
    assert_eq!(container.joinable().cgroup().usage().oom_kills, 1);
}

fn own_cgroups() {
    let (container, _bundle) = Container::sleeping();
    let path = container.cgroup();
    let controllers = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap();
    let Some(controller) = controllers.split_whitespace().next() else {
        return;
    };
    std::fs::create_dir_all(path.join("init/below")).unwrap();
    let pid = container.running.pid.as_raw_pid().to_string();
    std::fs::write(path.join("init/below/cgroup.procs"), pid).unwrap();
    std::fs::write(
        path.join("cgroup.subtree_control"),
        format!("+{controller}"),
    )
    .unwrap();
    // Seen through the container's cgroup namespace.
    let out = container.exec("grep ^0: /proc/self/cgroup").out;
    assert_eq!(out, "0::/init/below\n");
    assert_eq!(
        container.joinable().cgroup().pids().unwrap(),
        [container.running.pid]
    );
}

fn signal_to_all() {
    let bundle = Bundle::new("trap 'exit 5' USR1; sleep 1000 & wait");
    let container = Container::start(&bundle);
    let cgroup = container.joinable().cgroup();
    while cgroup.pids().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    // SIGRTMIN of the kernel ends sleep; the first process has no default action.
    cgroup.signal(32).unwrap();
    cgroup.signal(libc::SIGUSR1).unwrap();
    let code = wait(&container.running.pidfd);
    assert!(code == 5 || code == 0, "{code}");
}

fn removal() {
    let bundle = Bundle::new("exec sleep 1000");
    let request = request(&bundle);
    let path = request.cgroup.clone();
    let container = Container::of(request, &bundle);
    let cgroup = container.joinable().cgroup();
    assert_eq!(cgroup.try_remove().unwrap(), Removal::StillPopulated);
    let mut events = cgroup.events().unwrap();
    cgroup.kill().unwrap();
    wait_for(&mut events, |state| !state.populated);
    assert_eq!(wait(&container.running.pidfd), 128 + 9);
    assert_eq!(cgroup.try_remove().unwrap(), Removal::Removed);
    assert!(!path.exists());
    assert_eq!(cgroup.try_remove().unwrap(), Removal::Removed);
    assert_eq!(events.state().unwrap(), State::default());
}
