//! Containers that outlive the commands that made them: docs/lifecycle.md from outside.

use anyhow::Result;
use rustix::process::{Signal, kill_process};
use tests::{Hull, wait_until};

const N: [&str; 2] = ["--network", "none"];
/// Says that it is up, and ends as it is told to.
const SERVER: &str = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done";

/// `hull WORDS…`, which must succeed; its output.
fn ok<const L: usize>(hull: &Hull, words: [&str; L]) -> Result<String> {
    Ok(hull.run(words)?.expect_code(0).stdout())
}

/// A container in the background; its identifier.
fn detached(hull: &Hull, options: &[&str], script: &str) -> Result<String> {
    let mut words = vec!["run", "-d"];
    words.extend(N);
    words.extend(options);
    words.extend(["demo", "sh", "-c", script]);
    Ok(hull.run(words)?.expect_code(0).stdout())
}

/// A member of a container's state.json.
fn state(hull: &Hull, id: &str, member: &str) -> Result<String> {
    let path = hull.root().join("containers").join(id).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    Ok(state[member].to_string())
}

/// What a container has logged.
fn logged(hull: &Hull, id: &str) -> Result<String> {
    let folder = hull.root().join("containers").join(id).join("log");
    let text = std::fs::read_to_string(folder.join(format!("{id}-json.log")))?;
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line)?;
            Ok(line["log"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn a_container_in_the_background_lives_ends_and_is_removed_as_it_is_told() -> Result<()> {
    let hull = Hull::new()?;
    let id = detached(&hull, &["--name", "web"], SERVER)?;
    assert_eq!(id.len(), 64);
    assert_eq!(state(&hull, &id, "status")?, "\"running\"");
    let inside = "echo out; echo err >&2; cat; exit 5";
    let exec = hull
        .run_with_input(["exec", "-i", "web", "sh", "-c", inside], b"typed")?
        .expect_code(5);
    assert_eq!(
        (exec.stdout(), exec.stderr()),
        ("out\ntyped".into(), "err".into())
    );
    hull.run(["exec", "web", "no-such-command"])?
        .expect_code(127);
    ok(&hull, ["pause", "web"])?;
    assert_eq!(state(&hull, &id, "status")?, "\"paused\"");
    hull.run(["exec", "web", "true"])?.expect_code(1);
    ok(&hull, ["unpause", "web"])?;
    ok(&hull, ["rename", "web", "site"])?;
    ok(&hull, ["stop", "site"])?;
    assert_eq!(ok(&hull, ["wait", "site"])?, "3");
    assert_eq!(logged(&hull, &id)?, "up\nbye\n");
    hull.run(["exec", "site", "true"])?.expect_code(1);
    // What it wrote is still there when it starts again.
    ok(&hull, ["start", "site"])?;
    ok(
        &hull,
        ["exec", "site", "sh", "-c", "echo kept > /kept; sync"],
    )?;
    ok(&hull, ["restart", "-t", "0", "site"])?;
    assert_eq!(ok(&hull, ["exec", "site", "cat", "/kept"])?, "kept");
    hull.run(["rm", "site"])?.expect_code(1);
    ok(&hull, ["kill", "site"])?;
    assert_eq!(ok(&hull, ["wait", "site"])?, "137");
    ok(&hull, ["rm", "site"])?;
    hull.expect_nothing_left()
}

#[test]
fn a_restart_policy_brings_back_whatever_was_killed() -> Result<()> {
    let hull = Hull::new()?;
    let id = detached(&hull, &["--name", "db", "--restart", "always"], SERVER)?;
    for (killed, restarts) in [("hull-vmm", "1"), ("hull-vmm", "2")] {
        kill_process(hull.process(killed)?, Signal::KILL)?;
        wait_until("it runs again", || {
            let running = state(&hull, &id, "status")? == "\"running\"";
            Ok(running && state(&hull, &id, "restarts")? == restarts)
        })?;
    }
    assert_eq!(ok(&hull, ["exec", "db", "echo", "alive"])?, "alive");
    // The first monitor is the warden: its death is reported by the next command that looks.
    kill_process(hull.process("hull-monitor")?, Signal::KILL)?;
    assert_eq!(ok(&hull, ["wait", "db"])?, "255");
    assert!(state(&hull, &id, "error")?.contains("its monitor was killed"));
    ok(&hull, ["start", "db"])?;
    ok(&hull, ["stop", "-t", "0", "db"])?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(state(&hull, &id, "status")?, "\"exited\"");
    ok(&hull, ["rm", "db"])?;
    hull.expect_nothing_left()
}

#[test]
fn a_shutdown_of_the_host_lets_containers_end_and_the_next_start_brings_them_back() -> Result<()> {
    let hull = Hull::new()?;
    let id = detached(
        &hull,
        &["--restart", "unless-stopped", "--stop-timeout", "2"],
        SERVER,
    )?;
    let stopped = detached(&hull, &["--restart", "unless-stopped"], SERVER)?;
    let none = detached(&hull, &[], SERVER)?;
    ok(&hull, ["stop", &stopped])?;
    // Longer than the time to stop: that counts from the signal.
    std::thread::sleep(std::time::Duration::from_secs(3));
    for monitor in hull.monitors()? {
        // One that has ended with another is not an error.
        let _ = kill_process(monitor, Signal::TERM);
    }
    wait_until("nothing runs", || Ok(hull.sandbox_processes()?.is_empty()))?;
    for id in [&id, &stopped, &none] {
        assert_eq!(state(&hull, id, "status")?, "\"exited\"");
        assert_eq!(state(&hull, id, "exit_code")?, "3");
    }
    let name = ok(&hull, ["inspect", "--format", "{{slice .Name 1}}", &id])?;
    assert_eq!(ok(&hull, ["system", "start"])?, name);
    assert_eq!(ok(&hull, ["ps", "-q", "--no-trunc"])?, id);
    assert_eq!(ok(&hull, ["exec", &id, "echo", "alive"])?, "alive");
    ok(&hull, ["rm", "-f", &id, &stopped, &none])?;
    hull.expect_nothing_left()
}

#[test]
fn on_failure_gives_up_after_as_many_restarts_as_it_was_told() -> Result<()> {
    let hull = Hull::new()?;
    let script = "echo run; exit 4";
    let id = detached(&hull, &["--restart", "on-failure:2"], script)?;
    wait_until("it has given up", || {
        Ok(state(&hull, &id, "status")? == "\"exited\"")
    })?;
    assert_eq!(state(&hull, &id, "exit_code")?, "4");
    assert_eq!(state(&hull, &id, "restarts")?, "2");
    assert_eq!(logged(&hull, &id)?, "run\nrun\nrun\n");
    Ok(())
}

#[test]
fn no_line_and_no_code_is_lost_of_short_containers_and_execs() -> Result<()> {
    let hull = Hull::new()?;
    for round in 0..5 {
        let script = format!("echo line {round}; exit {round}");
        let run = hull.run_script(&[], &script)?.expect_code(round);
        assert_eq!(run.stdout(), format!("line {round}"));
    }
    detached(&hull, &["--name", "web"], SERVER)?;
    for round in 0..20 {
        let script = format!("echo line {round}; exit {round}");
        let exec = hull
            .run(["exec", "web", "sh", "-c", &script])?
            .expect_code(round);
        assert_eq!(exec.stdout(), format!("line {round}"));
    }
    Ok(())
}

#[test]
fn clients_attach_and_leave_without_the_container_s_notice() -> Result<()> {
    let hull = Hull::new()?;
    let script = "while read line; do echo \"got $line\"; done; echo over";
    detached(&hull, &["-i", "--name", "echo"], script)?;
    let mut first = hull.start(["attach", "echo"])?;
    let mut second = hull.start(["attach", "--no-stdin", "echo"])?;
    first.type_line("one")?;
    assert_eq!(first.line()?, "got one");
    first.child.kill()?;
    first.child.wait()?;
    let mut third = hull.start(["attach", "echo"])?;
    third.type_line("two")?;
    assert_eq!(third.line()?, "got two");
    let mut line = second.line()?;
    if line == "got one" {
        line = second.line()?;
    }
    assert_eq!(line, "got two");
    Ok(())
}

#[test]
fn the_limits_of_a_container_host_hold_in_the_guest() -> Result<()> {
    let hull = Hull::new()?;
    let script =
        "cat /proc/sys/vm/max_map_count /proc/sys/vm/overcommit_memory; ulimit -Sn; ulimit -Hn";
    let limits = hull.run_script(&[], script)?.expect_code(0).stdout();
    let limits: Vec<&str> = limits.lines().collect();
    assert_eq!(limits, ["262144", "1", "1024", "524288"]);
    let script = "cat /proc/sys/net/core/somaxconn /proc/sys/vm/swappiness";
    let options = [
        "--sysctl",
        "net.core.somaxconn=777",
        "--sysctl",
        "vm.swappiness=7",
    ];
    let set = hull.run_script(&options, script)?.expect_code(0).stdout();
    assert_eq!(set, "777\n7");
    Ok(())
}

#[test]
fn arguments_as_long_as_execve_takes_reach_the_container() -> Result<()> {
    let hull = Hull::new()?;
    let long = "x".repeat(120_000);
    let mut words = vec![
        "run",
        "--rm",
        "--network",
        "none",
        "demo",
        "sh",
        "-c",
        "echo $#; echo ${#12}",
        "sh",
    ];
    words.extend(std::iter::repeat_n(long.as_str(), 12));
    let run = hull.run(words)?.expect_code(0);
    assert_eq!(run.stdout(), "12\n120000");
    Ok(())
}
