//! VMs that begin from a template: made once, used by all, and done without when it is damaged or cannot be made.

use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tests::{Hull, Outcome, Running, USER, wait_until};

/// What is said when a VM boots its kernel against its will.
const INSTEAD: &str = "boots its kernel instead";

/// Names of the templates, and of those in the making, which begin with a dot.
fn templates(hull: &Hull) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(hull.root().join("templates"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != ".lock");
    Ok(names)
}

/// Runs `hull run OPTIONS demo sh -c SCRIPT` to a good end; what it printed, and what was measured.
fn run(hull: &Hull, options: &str, script: &str) -> Result<(Outcome, Value)> {
    let options = format!("run --rm --timing=json {options} demo sh -c");
    let outcome = hull.run(options.split_whitespace().chain([script]))?;
    let outcome = outcome.expect_code(0);
    let measured = measured(&outcome.stderr())?;
    Ok((outcome, measured))
}

fn measured(stderr: &str) -> Result<Value> {
    let last = stderr.lines().last().context("a line")?;
    serde_json::from_str(last).with_context(|| stderr.to_owned())
}

/// What hull itself said.
fn said(outcome: &Outcome) -> Vec<String> {
    let stderr = outcome.stderr();
    let lines = stderr.lines().filter(|line| line.starts_with("hull: "));
    lines.map(str::to_owned).collect()
}

/// Makes the template of `--network none`.
fn make(hull: &Hull) -> Result<()> {
    let (outcome, measured) = run(hull, "--network none", "echo made")?;
    assert_eq!(outcome.stdout(), "made");
    assert_eq!(said(&outcome), [""; 0]);
    ensure!(measured["timeline_ns"]["template_made"].is_u64());
    assert_eq!(templates(hull)?.len(), 1);
    Ok(())
}

#[test]
fn the_first_run_makes_a_template_and_all_begin_there() -> Result<()> {
    let hull = Hull::new()?;
    make(&hull)?;
    let made = templates(&hull)?;
    let state = File::open(hull.root().join("templates").join(&made[0]).join("state"))?;
    let state: Value = serde_json::from_reader(state)?;
    let rehearsed = state["written_soon"].as_array().context("a list")?;
    ensure!(!rehearsed.is_empty(), "the agent did not rehearse");
    let (outcome, measured) = run(&hull, "--network none", "echo again")?;
    assert_eq!(outcome.stdout(), "again");
    assert_eq!(measured["boot"], "template");
    let stages = &measured["timeline_ns"];
    for absent in ["template_made", "t2_first_virtio", "t3_agent_started"] {
        ensure!(stages[absent].is_null(), "{absent}: {measured}");
    }
    for there in ["t1_first_run", "t4_hello", "t5_exec", "t6_first_output"] {
        ensure!(stages[there].is_u64(), "{there}: {measured}");
    }
    let (_, measured) = run(&hull, "--network none --boot kernel", "echo booted")?;
    assert_eq!(measured["boot"], "kernel");
    ensure!(measured["timeline_ns"]["t3_agent_started"].is_u64());
    assert_eq!(templates(&hull)?, made);
    hull.expect_nothing_left()
}

#[test]
fn vms_from_one_template_share_no_secret_and_no_address() -> Result<()> {
    const SCRIPT: &str = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; \
        head -c16 /dev/urandom | od -An -tx1; cat /sys/class/net/eth0/address; cat";
    let hull = Hull::new()?;
    hull.run(["run", "--rm", "demo", "true"])?.expect_code(0);
    let start = || hull.start(["run", "--rm", "-i", "demo", "sh", "-c", SCRIPT]);
    let lines = |running: &mut Running| (0..4).map(|_| running.line()).collect::<Result<Vec<_>>>();
    let (mut one, mut other) = (start()?, start()?);
    for (ours, theirs) in lines(&mut one)?.iter().zip(lines(&mut other)?) {
        ensure!(ours.len() >= 17, "{ours:?}");
        assert_ne!(*ours, theirs);
    }
    for running in [one, other] {
        assert_eq!(running.code()?, Some(0));
    }
    assert_eq!(templates(&hull)?.len(), 1);
    hull.expect_nothing_left()
}

#[test]
fn a_vm_from_an_old_template_knows_the_time() -> Result<()> {
    let hull = Hull::new()?;
    make(&hull)?;
    thread::sleep(Duration::from_secs(3));
    let now = || -> Result<u64> { Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()) };
    let mut running = hull.start([
        "run",
        "--rm",
        "--network",
        "none",
        "-i",
        "demo",
        "sh",
        "-c",
        "read x; date +%s",
    ])?;
    let mut stdin = running.child.stdin.take().context("a pipe")?;
    // It has begun, and waits.
    thread::sleep(Duration::from_secs(5));
    let before = now()?;
    stdin.write_all(b"\n")?;
    let mut line = String::new();
    running.stdout.read_line(&mut line)?;
    let (inside, after) = (line.trim().parse::<u64>()?, now()?);
    ensure!(
        before <= inside + 2 && inside <= after + 2,
        "{before} {inside} {after}"
    );
    drop(stdin);
    assert_eq!(running.code()?, Some(0));
    hull.expect_nothing_left()
}

#[test]
fn eight_at_once_need_one_template() -> Result<()> {
    let hull = Hull::new()?;
    hull.run(["images"])?.expect_code(0);
    thread::scope(|scope| {
        let all: Vec<_> = (0..8)
            .map(|number| {
                let number = number.to_string();
                let hull = &hull;
                scope.spawn(move || run(hull, "--network none", &format!("echo {number}")))
            })
            .collect();
        for (number, one) in all.into_iter().enumerate() {
            let (outcome, _) = one.join().expect("no panic")?;
            assert_eq!(outcome.stdout(), number.to_string());
            ensure!(!outcome.stderr().contains(INSTEAD), "{}", outcome.stderr());
        }
        Ok(())
    })?;
    assert_eq!(templates(&hull)?.len(), 1);
    let (_, measured) = run(&hull, "--network none", "echo later")?;
    assert_eq!(measured["boot"], "template");
    hull.expect_nothing_left()
}

#[test]
fn another_shape_has_another_template() -> Result<()> {
    const SCRIPT: &str = "nproc; cat /sys/fs/cgroup/memory.max; touch /a && echo written; :";
    let hull = Hull::new()?;
    make(&hull)?;
    for (options, expected) in [
        ("-m 64m", "1\n67108864\nwritten"),
        ("--cpus 2", "2\n536870912\nwritten"),
        ("--read-only", "1\n536870912"),
    ] {
        for made in [true, false] {
            let (outcome, measured) = run(&hull, &format!("--network none {options}"), SCRIPT)?;
            assert_eq!(outcome.stdout(), expected, "{options}");
            assert_eq!(measured["boot"], "template", "{options}");
            assert_eq!(measured["timeline_ns"]["template_made"].is_u64(), made);
        }
    }
    // A fraction of a processor is the host's affair, and the container's limit.
    let (_, measured) = run(&hull, "--network none --cpus 0.5", "true")?;
    ensure!(measured["timeline_ns"]["template_made"].is_null());
    assert_eq!(templates(&hull)?.len(), 4);
    hull.expect_nothing_left()
}

#[test]
fn a_damaged_template_is_removed_and_told() -> Result<()> {
    let hull = Hull::new()?;
    type Damage = fn(&File) -> std::io::Result<()>;
    let damages: [(&str, Damage); 3] = [
        ("state", |mut file| file.write_all(b"{\"build\": 7, ")),
        ("state", |file| file.set_len(0)),
        ("memory", |file| file.set_len(4096)),
    ];
    for (name, damage) in damages {
        make(&hull)?;
        let path = hull.root().join("templates").join(&templates(&hull)?[0]);
        damage(&File::options().write(true).open(path.join(name))?)?;
        let (outcome, measured) = run(&hull, "--network none", "echo all the same")?;
        assert_eq!(outcome.stdout(), "all the same");
        assert_eq!(measured["boot"], "kernel");
        let said = said(&outcome);
        ensure!(said.len() == 1, "{said:?}");
        ensure!(said[0].starts_with("hull: the template") && said[0].contains(INSTEAD));
        ensure!(templates(&hull)?.is_empty());
    }
    // One of strangers, too.
    make(&hull)?;
    let path = hull.root().join("templates").join(&templates(&hull)?[0]);
    fs::set_permissions(path.join("memory"), fs::Permissions::from_mode(0o666))?;
    let (outcome, _) = run(&hull, "--network none", "true")?;
    ensure!(
        outcome.stderr().contains("others may write it"),
        "{}",
        outcome.stderr()
    );
    hull.expect_nothing_left()
}

/// A run that is just making its template.
fn making(hull: &Hull) -> Result<Running> {
    hull.run(["images"])?.expect_code(0);
    let running = hull.start(["run", "--rm", "--network", "none", "demo", "echo", "never"])?;
    wait_until("a VM is there, to be saved", || {
        let begun = templates(hull).is_ok_and(|names| !names.is_empty());
        Ok(begun && hull.process("hull-vmm").is_ok())
    })?;
    ensure!(templates(hull)?[0].starts_with('.'));
    Ok(running)
}

#[test]
fn what_the_killed_leave_of_a_template_is_swept() -> Result<()> {
    let hull = Hull::new()?;
    let mut running = making(&hull)?;
    // The monitor first: it would clean up, were it to see the others die.
    for process in hull.sandbox_processes()? {
        // It may have died of the others' deaths.
        let _ = kill_process(process, Signal::KILL);
    }
    running.child.kill()?;
    running.child.wait()?;
    let left = templates(&hull)?;
    ensure!(left.len() == 1 && left[0].starts_with('.'), "{left:?}");
    make(&hull)?;
    ensure!(!templates(&hull)?.contains(&left[0]));
    // The container was made and never started: it stays until it is removed.
    hull.run(["container", "prune", "-f"])?.expect_code(0);
    hull.expect_nothing_left()
}

#[test]
fn whoever_gives_up_while_a_template_is_made_leaves_nothing_of_it() -> Result<()> {
    let hull = Hull::new()?;
    for signal in [Signal::INT, Signal::KILL] {
        let mut running = making(&hull)?;
        running.signal(signal)?;
        running.child.wait()?;
        hull.expect_nothing_left()?;
        // The monitor may have finished it, for the next one.
        ensure!(templates(&hull)?.iter().all(|name| !name.starts_with('.')));
        fs::remove_dir_all(hull.root().join("templates"))?;
    }
    let running = making(&hull)?;
    kill_process(hull.process("hull-monitor")?, Signal::TERM)?;
    assert_eq!(running.code()?, Some(125));
    hull.expect_nothing_left()?;
    ensure!(templates(&hull)?.is_empty());
    Ok(())
}

#[test]
fn a_disk_too_small_for_a_template_is_told_and_the_container_runs() -> Result<()> {
    // Too small for the kernel, and for what it touches.
    for size in ["size=16m", "size=30m"] {
        let hull = Hull::new()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size, "tmpfs"])
            .arg(hull.root())
            .status()?;
        ensure!(mounted.success());
        let result = on_a_small_disk(&hull).context(size);
        let unmounted = Command::new("umount").arg(hull.root()).status()?;
        result?;
        ensure!(unmounted.success());
    }
    Ok(())
}

fn on_a_small_disk(hull: &Hull) -> Result<()> {
    for _ in 0..2 {
        let (outcome, measured) = run(hull, "--network none", "echo small")?;
        assert_eq!(outcome.stdout(), "small");
        assert_eq!(measured["boot"], "kernel");
        let said = said(&outcome);
        println!("{said:?}");
        ensure!(said.len() == 1, "{said:?}");
        ensure!(said[0].contains(INSTEAD) && said[0].contains("are free"));
        ensure!(templates(hull)?.is_empty());
    }
    hull.expect_nothing_left()
}

#[test]
fn an_ordinary_user_has_templates_of_their_own() -> Result<()> {
    let hull = Hull::of_user()?;
    for made in [true, false] {
        let mut command = hull.command(["run", "--rm", "--timing=json", "demo", "echo", "mine"]);
        let output = command.output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "mine\n");
        let measured = measured(&String::from_utf8_lossy(&output.stderr))?;
        assert_eq!(measured["boot"], "template");
        assert_eq!(measured["timeline_ns"]["template_made"].is_u64(), made);
    }
    let template = hull.root().join("templates").join(&templates(&hull)?[0]);
    for file in [template.join("state"), template.join("memory"), template] {
        let metadata = fs::metadata(file)?;
        assert_eq!((metadata.uid(), metadata.mode() & 0o077), (USER, 0));
    }
    hull.expect_nothing_left()
}

#[test]
fn ways_to_begin_that_contradict_each_other_are_refused() -> Result<()> {
    let hull = Hull::new()?;
    for (options, expected) in [
        (
            "--isolation native --boot kernel",
            "--boot has no meaning with --isolation native",
        ),
        (
            "--boot template --console",
            "--console boots a kernel; leave out --boot template",
        ),
        (
            "--boot template --kernel /etc/passwd",
            "--kernel boots a kernel; leave out --boot template",
        ),
    ] {
        let words = format!("run --rm {options} demo true");
        let outcome = hull.run(words.split_whitespace())?.expect_code(125);
        ensure!(outcome.stderr().contains(expected), "{}", outcome.stderr());
    }
    Ok(())
}
