//! What a container is made of: users, files, limits, capabilities, system calls.

use anyhow::Result;
use tests::Hull;

#[test]
fn users_are_looked_up_inside_and_hold_no_capabilities() -> Result<()> {
    let hull = Hull::new()?;
    let script = "id -un; id -gn; pwd; echo $HOME $A; grep CapEff /proc/self/status";
    let outcome = hull
        .run_script(&["-u", "demo", "-w", "/made/here", "-e", "A=b c"], script)?
        .expect_code(0);
    assert_eq!(
        outcome.stdout(),
        "demo\ndemo\n/made/here\n/home/demo b c\nCapEff:\t0000000000000000"
    );
    let outcome = hull
        .run([
            "run",
            "--rm",
            "--network",
            "none",
            "-u",
            "nobody2",
            "demo",
            "id",
        ])?
        .expect_code(125);
    assert!(
        outcome.stderr().contains("cannot find the user nobody2"),
        "{}",
        outcome.stderr()
    );
    Ok(())
}

#[test]
fn the_root_is_writable_or_not_and_tmpfs_is_there() -> Result<()> {
    let hull = Hull::new()?;
    let script = "touch /a 2>/dev/null && echo written; grep ' /x ' /proc/mounts | cut -d' ' -f3,4; touch /x/b && echo x";
    let tmpfs = "/x:size=1m";
    let outcome = hull.run_script(&["--tmpfs", tmpfs], script)?.expect_code(0);
    let text = outcome.stdout();
    assert!(
        text.starts_with("written\ntmpfs rw,nosuid,nodev,noexec") && text.ends_with("\nx"),
        "{text}"
    );
    let outcome = hull
        .run_script(&["--read-only", "--tmpfs", tmpfs], script)?
        .expect_code(0);
    assert!(
        outcome.stdout().starts_with("tmpfs rw"),
        "{}",
        outcome.stdout()
    );
    Ok(())
}

#[test]
fn capabilities_ulimits_and_privileges_are_as_asked_for() -> Result<()> {
    let hull = Hull::new()?;
    let script = "grep -E 'CapBnd|NoNewPrivs' /proc/self/status; ulimit -n; ulimit -Hn; hostname; \
                  cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; nproc";
    let options = "run --rm --network none --cap-drop ALL --cap-add KILL --ulimit nofile=100:200 -m 100m --cpus 1.5 \
                   --security-opt no-new-privileges --hostname web demo sh -c";
    let outcome = hull
        .run(options.split_whitespace().chain([script]))?
        .expect_code(0);
    assert_eq!(
        outcome.stdout(),
        "CapBnd:\t0000000000000020\nNoNewPrivs:\t1\n100\n200\nweb\n104857600\n150000 100000\n2"
    );
    Ok(())
}

#[test]
fn thirty_two_processors_are_the_most_and_each_runs_a_program() -> Result<()> {
    let hull = Hull::new()?;
    // Field 39 of /proc/self/stat (proc(5)) is the processor that reads it.
    let script = "nproc; for i in $(seq 0 31); do \
                  taskset $(printf %x $((1 << i))) sed 's/.*) //' /proc/self/stat | cut -d' ' -f37; done";
    let options = "run --rm --network none --cpus 32 demo sh -c";
    let outcome = hull
        .run(options.split_whitespace().chain([script]))?
        .expect_code(0);
    let expected: Vec<String> = [32]
        .into_iter()
        .chain(0..32)
        .map(|n| n.to_string())
        .collect();
    assert_eq!(outcome.stdout(), expected.join("\n"));
    Ok(())
}

#[test]
fn a_container_that_exceeds_its_memory_is_killed_and_told_so() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run([
            "run",
            "--rm",
            "--network",
            "none",
            "-m",
            "32m",
            "demo",
            "tail",
            "/dev/zero",
        ])?
        .expect_code(137);
    assert!(
        outcome.stderr().contains("ran out of memory"),
        "{}",
        outcome.stderr()
    );
    Ok(())
}

#[test]
fn system_calls_are_filtered_by_the_profile_that_was_named() -> Result<()> {
    let hull = Hull::new()?;
    let script = "grep Seccomp: /proc/self/status; mkdir /made && echo made";
    let run = |security: Option<&str>| {
        let mut words = vec![
            "run".to_owned(),
            "--rm".into(),
            "--network".into(),
            "none".into(),
        ];
        words.extend(security.map(|security| format!("--security-opt=seccomp={security}")));
        words.extend(["demo", "sh", "-c", script].map(str::to_owned));
        hull.run(words)
    };
    assert_eq!(run(None)?.expect_code(0).stdout(), "Seccomp:\t2\nmade");
    // Even unconfined there is a filter: containers may not open AF_VSOCK.
    assert_eq!(
        run(Some("unconfined"))?.expect_code(0).stdout(),
        "Seccomp:\t2\nmade"
    );
    let profile = hull.root().join("profile.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}"#;
    std::fs::write(&profile, text)?;
    let outcome = run(Some(&profile.display().to_string()))?.expect_code(1);
    assert_eq!(outcome.stdout(), "Seccomp:\t2");
    assert!(
        outcome.stderr().contains("No space left"),
        "{}",
        outcome.stderr()
    );
    Ok(())
}

#[test]
fn the_bridge_gives_an_address_names_and_a_way_out() -> Result<()> {
    let hull = Hull::new()?;
    let script = "ip -4 -o addr show eth0 | grep -c inet; grep -c nameserver /etc/resolv.conf; \
                  ping -c1 -W5 $(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p') > /dev/null && echo reached; \
                  grep -c $(hostname) /etc/hosts";
    let outcome = hull
        .run([
            "run",
            "--rm",
            "--network",
            "bridge",
            "demo",
            "sh",
            "-c",
            script,
        ])?
        .expect_code(0);
    let text = outcome.stdout();
    assert!(
        text.starts_with("1\n") && text.ends_with("reached\n1"),
        "{text}"
    );
    hull.expect_nothing_left()
}

#[test]
fn a_native_container_is_the_same_container() -> Result<()> {
    let hull = Hull::new()?;
    let script = "id -un; touch /a && echo written; cat /sys/fs/cgroup/memory.max; hostname; ls /proc | grep -c '^1$'; exit 3";
    for isolation in ["vm", "native"] {
        let options = format!("--isolation {isolation} -m 64m -h web -u demo --tmpfs /x");
        let options: Vec<&str> = options.split(' ').collect();
        let outcome = hull.run_script(&options, script)?.expect_code(3);
        assert_eq!(outcome.stdout(), "demo\n67108864\nweb\n1", "{isolation}");
    }
    hull.expect_nothing_left()
}

#[test]
fn a_native_container_whose_monitor_is_killed_leaves_nothing() -> Result<()> {
    let hull = Hull::new()?;
    let script = "echo ready; sleep 1000";
    let running = hull.start_ready(&["--isolation", "native"], script)?;
    let processes = hull.sandbox_processes()?;
    tests::wait_until("it sleeps", || Ok(hull.process("sleep").is_ok()))?;
    let sleeping = hull.process("sleep")?;
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeping.as_raw_pid()))?;
    let cgroup = format!("/sys/fs/cgroup{}", cgroup.trim().trim_start_matches("0::"));
    assert!(cgroup.starts_with("/sys/fs/cgroup/hull/"), "{cgroup}");
    rustix::process::kill_process(processes[0], rustix::process::Signal::KILL)?;
    assert_eq!(running.code()?, Some(125));
    tests::wait_until("its processes are gone", || {
        Ok(!processes.iter().any(|pid| tests::is_alive(*pid)))
    })?;
    assert!(
        !std::path::Path::new(&cgroup).exists(),
        "{cgroup} is still there"
    );
    hull.expect_nothing_left()
}
