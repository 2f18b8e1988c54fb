//! Escape drills from inside a container, with Docker's defaults and with --privileged: what reaches the agent, the kernel's
//! own interfaces or the host, and what must come of it. `tests/src/bin/drill.rs` is the attacker.

use std::path::Path;

use anyhow::{Result, ensure};
use tests::Hull;

/// An image with the drills and the libraries that they need.
fn with_drills() -> Result<Hull> {
    let hull = Hull::new()?;
    hull.import_program(Path::new(env!("CARGO_BIN_EXE_drill")), "drills")?;
    Ok(hull)
}

/// Runs drills in one container and compares each outcome.
fn expect(hull: &Hull, options: &[&str], expected: &[(&str, &[&str])]) -> Result<()> {
    let names = expected.iter().map(|(name, _)| *name);
    let command = ["run", "--rm", "--network", "none"]
        .into_iter()
        .chain(options.iter().copied());
    let command = command.chain(["drills", "/drill"]).chain(names);
    let outcome = hull.run(command)?.expect_code(0);
    let mut wrong = Vec::new();
    for ((name, allowed), line) in expected.iter().zip(outcome.stdout().lines()) {
        println!("{line}");
        let right = line
            .strip_prefix(&format!("{name}: "))
            .is_some_and(|outcome| allowed.contains(&outcome));
        if !right {
            wrong.push(format!("{line} instead of {allowed:?}"));
        }
    }
    ensure!(
        outcome.stdout().lines().count() == expected.len(),
        "{}",
        outcome.stdout()
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Refused by seccomp or for want of a capability.
const NO: &[&str] = &["EPERM"];

#[test]
fn a_container_reaches_neither_the_agent_nor_what_docker_hides() -> Result<()> {
    let hull = with_drills()?;
    let expected: &[(&str, &[&str])] = &[
        ("vsock", &["EAFNOSUPPORT"]),
        ("vsock high bits", &["EAFNOSUPPORT"]),
        ("vsock x32", &["EAFNOSUPPORT"]),
        // The guest's kernel has no 32-bit system calls.
        ("vsock int80", &["signal 11"]),
        ("vsock pair", &["EOPNOTSUPP"]),
        ("vsock io_uring", NO),
        ("alg", NO),
        ("io_uring", NO),
        ("unshare user", NO),
        ("unshare mount", NO),
        ("clone user", NO),
        ("mount", NO),
        ("remount proc", NO),
        ("keyctl", NO),
        ("bpf", NO),
        ("perf", NO),
        ("userfaultfd", NO),
        ("kexec", NO),
        ("module", NO),
        ("reboot", NO),
        ("handles", NO),
        ("swap", NO),
        ("settime", NO),
        ("iopl", NO),
        ("ioperm", NO),
        ("sysrq", &["EROFS", "ENOENT"]),
        ("core_pattern", &["EROFS"]),
        ("modprobe", &["EROFS", "ENOENT"]),
        ("sysctl", &["EROFS"]),
        ("kcore", &["empty", "ENOENT"]),
        ("mem", &["ENOENT"]),
        ("mknod mem", NO),
        ("mknod port", NO),
        ("mknod fuse", NO),
        ("mknod disk", NO),
        ("cgroup", &["EROFS"]),
        ("release_agent", &["EROFS", "ENOENT", "EACCES"]),
        ("uevent_helper", &["EROFS", "ENOENT"]),
        ("agent", &["0 agents, PID 1 is drill"]),
        ("chroot", &["the same root"]),
        ("own image", &["the image's"]),
    ];
    expect(&hull, &[], expected)?;
    // Capabilities alone do not open what the profile keeps shut without them, nor the vsock.
    let expected: &[(&str, &[&str])] = &[
        ("vsock", &["EAFNOSUPPORT"]),
        ("io_uring", NO),
        ("kexec", NO),
        ("mknod mem", NO),
        ("mknod disk", NO),
        ("core_pattern", &["EROFS"]),
    ];
    expect(&hull, &["--cap-add", "ALL"], expected)?;
    hull.expect_nothing_left()
}

#[test]
fn a_privileged_container_owns_its_guest_and_nothing_else() -> Result<()> {
    let hull = with_drills()?;
    let expected: &[(&str, &[&str])] = &[
        ("mount", &["done"]),
        ("unshare user", &["done"]),
        ("sysctl", &["done"]),
        ("mknod disk", &["done"]),
        ("cgroup", &["done"]),
        // The prologue stands before every profile, and before none.
        ("vsock", &["EAFNOSUPPORT"]),
        ("vsock high bits", &["EAFNOSUPPORT"]),
        ("vsock x32", &["EAFNOSUPPORT"]),
        ("vsock int80", &["signal 11"]),
        // It does not see what io_uring does. The host's answer stands: no port is open to a second caller.
        ("vsock io_uring", &["ECONNRESET"]),
    ];
    expect(&hull, &["--privileged"], expected)?;
    let ended = hull.run([
        "run",
        "--rm",
        "--privileged",
        "--network",
        "none",
        "drills",
        "/drill",
        "end the machine",
    ])?;
    let ended = ended.expect_code(125);
    ensure!(
        ended.stderr().contains("ended the VM with code 77"),
        "{}",
        ended.stderr()
    );
    hull.run([
        "run",
        "--rm",
        "--network",
        "none",
        "drills",
        "/drill",
        "agent",
    ])?
    .expect_code(0);
    hull.expect_nothing_left()
}

#[test]
fn privileges_are_not_given_on_the_host() -> Result<()> {
    let hull = Hull::new()?;
    let refused = hull
        .run([
            "run",
            "--rm",
            "--isolation",
            "native",
            "--privileged",
            "demo",
            "true",
        ])?
        .expect_code(125);
    ensure!(
        refused
            .stderr()
            .contains("would hand this host to the container")
    );
    Ok(())
}

#[test]
fn the_program_behind_a_native_container_is_a_copy_that_cannot_be_written() -> Result<()> {
    let hull = Hull::new()?;
    // With CAP_SYS_PTRACE its file can be named and opened, whatever the process says of itself.
    let script = "readlink /proc/1/exe; head -c 4 /proc/1/exe | tail -c 3; echo; \
                  (echo changed >/proc/1/exe) 2>/dev/null && echo written || echo refused";
    let outcome = hull.run([
        "run",
        "--rm",
        "--isolation",
        "native",
        "--network",
        "none",
        "--init",
        "--cap-add",
        "SYS_PTRACE",
        "demo",
        "sh",
        "-c",
        script,
    ])?;
    let said = outcome.expect_code(0).stdout();
    let lines: Vec<&str> = said.lines().collect();
    ensure!(
        matches!(lines[..], [exe, "ELF", "refused"] if exe.starts_with("/memfd:hull-native")),
        "{said}"
    );
    hull.expect_nothing_left()
}
