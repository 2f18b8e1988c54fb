//! Mistakes and missing things, each with its message and Docker's code.

use anyhow::Result;
use tests::Hull;

#[test]
fn what_cannot_be_executed_is_told_apart() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run(["run", "--rm", "--network", "none", "demo", "nosuch"])?
        .expect_code(127);
    assert!(
        outcome
            .stderr()
            .ends_with("hull: cannot execute nosuch: executable file not found in $PATH")
    );
    let outcome = hull
        .run(["run", "--rm", "--network", "none", "demo", "/etc/passwd"])?
        .expect_code(126);
    assert!(
        outcome
            .stderr()
            .contains("cannot execute /etc/passwd: Permission denied")
    );
    hull.expect_nothing_left()
}

#[test]
fn options_that_are_not_built_are_named() -> Result<()> {
    let hull = Hull::new()?;
    for (option, name) in [("-p=80:80", "--publish"), ("-v=/a:/b", "--volume")] {
        let outcome = hull
            .run(["run", "--rm", option, "demo", "true"])?
            .expect_code(125);
        let expected = format!("hull: {name} is not built yet; `hull run --help` lists what is");
        assert_eq!(outcome.stderr(), expected);
    }
    Ok(())
}

#[test]
fn bad_values_are_explained() -> Result<()> {
    let hull = Hull::new()?;
    for (words, expected) in [
        (
            vec!["-m", "1m", "demo"],
            "a memory limit of 1048576 bytes is too small: the least is 6 MiB",
        ),
        (vec!["-m", "lots", "demo"], "\"lots\" is not a size"),
        (
            vec!["--cpus", "64", "demo"],
            "--cpus asks for 64 vCPUs and a VM has at most 32",
        ),
        (
            vec!["--cap-add", "FLY", "demo"],
            "unknown capability \"FLY\"",
        ),
        (
            vec!["--name", "a/b", "demo"],
            "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        (
            vec!["-w", "here", "demo"],
            "the working directory \"here\" is not absolute",
        ),
        (
            vec!["--ulimit", "files=1", "demo"],
            "unknown ulimit \"files\"",
        ),
        (
            vec!["--security-opt", "seccomp=/nowhere", "demo"],
            "cannot read the seccomp profile /nowhere",
        ),
        (
            vec!["--kernel", "/nowhere", "demo"],
            "cannot use the kernel /nowhere",
        ),
    ] {
        let outcome = hull.run(["run"].into_iter().chain(words))?.expect_code(125);
        assert!(outcome.stderr().contains(expected), "{}", outcome.stderr());
    }
    Ok(())
}

#[test]
fn a_kernel_that_is_none_is_refused() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run([
            "run",
            "--rm",
            "--network",
            "none",
            "--kernel",
            "/etc/passwd",
            "demo",
            "true",
        ])?
        .expect_code(125);
    assert!(
        outcome.stderr().contains("cannot build the VM"),
        "{}",
        outcome.stderr()
    );
    hull.expect_nothing_left()
}

#[test]
fn an_image_that_is_not_here_is_not_fetched_when_told_so() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run(["run", "--rm", "--pull", "never", "nosuch:1", "true"])?
        .expect_code(125);
    assert!(
        outcome.stderr().contains("no image nosuch:1 here"),
        "{}",
        outcome.stderr()
    );
    let outcome = hull
        .run(["run", "--rm", "127.0.0.1:1/nosuch", "true"])?
        .expect_code(125);
    assert!(
        outcome.stderr().contains("127.0.0.1:1"),
        "{}",
        outcome.stderr()
    );
    Ok(())
}

#[test]
fn a_name_in_use_is_refused() -> Result<()> {
    let hull = Hull::new()?;
    let _running = hull.start_ready(&["--name", "web"], "echo ready; sleep 1000")?;
    let outcome = hull
        .run(["run", "--rm", "--name", "web", "demo", "true"])?
        .expect_code(125);
    assert!(
        outcome
            .stderr()
            .contains("The container name \"/web\" is already in use by container"),
        "{}",
        outcome.stderr()
    );
    hull.run(["rm", "-f", "web"])?.expect_code(0);
    hull.expect_nothing_left()
}
