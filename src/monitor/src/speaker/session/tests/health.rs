//! Health checks: when they are made, and what their results add up to.

use protocol::record::{HealthCheck, HealthStatus};

use super::*;

fn checked(start_period_ms: u64) -> World {
    let mut config = config(ID, RestartPolicy::No);
    config.health = Some(HealthCheck {
        command: vec!["check".into()],
        document: r#"{"args":["check"]}"#.into(),
        interval_ms: 1000,
        timeout_ms: 500,
        start_period_ms,
        start_interval_ms: 100,
        retries: 2,
    });
    let mut world = World::of(setting(Some(config)));
    world.session.agent_hello();
    world.client(1);
    world.ask(1, 1, start(ID));
    world.settle();
    world
}

/// The check that is due is made, writes something and ends with this code; the status that it leads to.
fn check(world: &mut World, number: u32, code: u8) -> HealthStatus {
    world.settle();
    let process = ProcessId::exec(ID, format!("health-{number}"));
    world.session.captured(&process, b"looked");
    world.exits(process.clone(), ExitStatus::Code(code));
    world.outputs_end(&process);
    let status = world.health.clone().expect("a result");
    world.settle();
    status.status
}

#[test]
fn as_many_failures_as_retries_make_it_unhealthy_and_one_success_healthy() {
    let mut w = checked(0);
    let mut statuses = Vec::new();
    for (number, code) in [(1, 1), (2, 1), (3, 0), (4, 1)] {
        w.wait(Duration::from_millis(1000));
        statuses.push(check(&mut w, number, code));
    }
    use HealthStatus::{Healthy, Starting, Unhealthy};
    assert_eq!(statuses, [Starting, Unhealthy, Healthy, Healthy]);
    let health = w.health.clone().unwrap();
    assert_eq!((health.failing_streak, health.log.len()), (1, 4));
    assert_eq!(health.log[3].output, "looked");
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let mut w = checked(10_000);
    for number in 1..=5 {
        w.wait(Duration::from_millis(100));
        assert_eq!(check(&mut w, number, 1), HealthStatus::Starting);
    }
    assert_eq!(w.health.clone().unwrap().failing_streak, 0);
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_has_failed() {
    let mut w = checked(0);
    w.wait(Duration::from_millis(1000));
    w.settle();
    w.wait(Duration::from_millis(499));
    assert!(!w.saw("agent Signal 9"));
    w.wait(Duration::from_millis(1));
    assert!(w.saw("agent Signal 9"));
    assert_eq!(check(&mut w, 1, 137), HealthStatus::Starting);
    let last = w.health.clone().unwrap().log.pop().unwrap();
    assert_eq!(last.exit_code, -1);
    assert_eq!(last.output, "Health check exceeded timeout (0.5s)");
}

#[test]
fn checks_end_with_their_container() {
    let mut w = checked(0);
    w.ends(0, Next::Stay);
    w.wait(Duration::from_secs(10));
    assert_eq!(w.count("agent Exec"), 0);
}
