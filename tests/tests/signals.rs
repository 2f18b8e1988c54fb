//! Signals and deaths: they reach the container, and nothing is left behind.

use std::process::Command;

use anyhow::Result;
use rustix::process::{Signal, kill_process};
use tests::{Hull, is_alive, wait_until};

const TRAPS: &str = "trap 'echo got TERM; exit 5' TERM; trap 'echo got USR1' USR1; echo ready; \
                     while :; do sleep 0.1; done";

#[test]
fn signals_are_passed_on_and_the_handler_decides() -> Result<()> {
    let hull = Hull::new()?;
    let mut running = hull.start_ready(&[], TRAPS)?;
    running.signal(Signal::USR1)?;
    assert_eq!(running.line()?, "got USR1");
    running.signal(Signal::TERM)?;
    assert_eq!(running.line()?, "got TERM");
    assert_eq!(running.code()?, Some(5));
    hull.expect_nothing_left()
}

#[test]
fn with_an_init_a_signal_ends_what_handles_none() -> Result<()> {
    let hull = Hull::new()?;
    let script = "echo ready; exec sleep 1000";
    let running = hull.start_ready(&["--init"], script)?;
    running.signal(Signal::TERM)?;
    assert_eq!(running.code()?, Some(128 + 15));
    hull.expect_nothing_left()
}

#[test]
fn the_third_interrupt_ends_what_ignores_them() -> Result<()> {
    let hull = Hull::new()?;
    let script = "trap '' INT; echo ready; while :; do sleep 0.1; done";
    let running = hull.start_ready(&[], script)?;
    for _ in 0..3 {
        running.signal(Signal::INT)?;
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(running.code()?, Some(128 + 2));
    hull.expect_nothing_left()
}

#[test]
fn an_interrupt_during_the_boot_leaves_nothing() -> Result<()> {
    let hull = Hull::new()?;
    hull.run(["images"])?.expect_code(0);
    let running = hull.start(["run", "--rm", "--network", "none", "demo", "echo", "never"])?;
    wait_until("a VM is there", || Ok(hull.process("hull-vmm").is_ok()))?;
    running.signal(Signal::INT)?;
    assert_eq!(running.code()?, Some(128 + 2));
    hull.expect_nothing_left()
}

#[test]
fn a_client_that_is_killed_leaves_its_container_running() -> Result<()> {
    let hull = Hull::new()?;
    let script = "echo ready; while :; do sleep 0.1; done";
    let mut running = hull.start_ready(&["--name", "web"], script)?;
    running.child.kill()?;
    running.child.wait()?;
    let still = hull
        .run(["exec", "web", "echo", "still here"])?
        .expect_code(0);
    assert_eq!(still.stdout(), "still here");
    hull.run(["rm", "-f", "web"])?.expect_code(0);
    hull.expect_nothing_left()?;
    // Its name is free again.
    hull.run([
        "run",
        "--rm",
        "--name",
        "web",
        "--network",
        "none",
        "demo",
        "true",
    ])?
    .expect_code(0);
    Ok(())
}

#[test]
fn a_monitor_that_is_killed_takes_its_vm_along_and_the_next_command_cleans_up() -> Result<()> {
    let hull = Hull::new()?;
    let running = hull.start_ready(&[], "echo ready; sleep 1000")?;
    let vmm = hull.process("hull-vmm")?;
    kill_process(hull.process("hull-monitor")?, Signal::KILL)?;
    assert_eq!(running.code()?, Some(125));
    wait_until("hull-vmm is gone", || Ok(!is_alive(vmm)))?;
    hull.run(["images"])?.expect_code(0);
    hull.expect_nothing_left()
}

#[test]
fn a_vm_that_is_killed_is_reported_and_nothing_stays() -> Result<()> {
    let hull = Hull::new()?;
    let running = hull.start_ready(&[], "echo ready; sleep 1000")?;
    kill_process(hull.process("hull-vmm")?, Signal::KILL)?;
    assert_eq!(running.code()?, Some(125));
    hull.expect_nothing_left()
}

#[test]
fn nohup_keeps_a_hangup_away() -> Result<()> {
    let hull = Hull::new()?;
    let root = hull.root().display();
    let script = format!(
        "trap '' HUP; export HULL_ROOT={root}; \
         hull run --rm --network none demo sh -c 'echo ready; sleep 3; echo done' & \
         child=$!; sleep 1; kill -HUP $child; wait $child"
    );
    let output = Command::new("sh").args(["-c", &script]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("ready\ndone\n"), "{text}");
    Ok(())
}
