//! Mistakes and missing things, each with its message and Docker's code.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Result, ensure};
use tests::{Hull, Running};

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
    let outcome = hull
        .run(["run", "--rm", "--ip6=fd00::2", "demo", "true"])?
        .expect_code(125);
    let expected = "hull: --ip6 is not built yet; `hull run --help` lists what is";
    assert_eq!(outcome.stderr(), expected);
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
fn a_kernel_that_is_none_is_refused_and_gives_its_address_back() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run(["run", "--rm", "--kernel", "/etc/passwd", "demo", "true"])?
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

/// Where SQLite's user_version lies in a database's first page ("Database File Format", 1.3).
const USER_VERSION: u64 = 60;

#[test]
fn a_database_of_a_newer_hull_is_left_alone() -> Result<()> {
    let hull = Hull::new()?;
    let create = "create -q --isolation native --network none --name web demo true";
    hull.run(create.split(' '))?.expect_code(0);
    for (database, line, expected) in [
        ("hull.sqlite", "ps -a", "was made by a later hull"),
        ("images/images.db", "images", "this hull knows"),
    ] {
        let path = hull.root().join(database);
        let file = File::options().read(true).write(true).open(&path)?;
        let mut version = [0; 4];
        file.read_exact_at(&mut version, USER_VERSION)?;
        file.write_all_at(&99u32.to_be_bytes(), USER_VERSION)?;
        let before = std::fs::read(&path)?;
        let refused = hull.run(line.split(' '))?.expect_code(1);
        let text = refused.stderr();
        ensure!(text.contains(expected) && text.contains("99"), "{text}");
        ensure!(
            std::fs::read(&path)? == before,
            "{} was written",
            path.display()
        );
        file.write_all_at(&version, USER_VERSION)?;
        hull.run(line.split(' '))?.expect_code(0);
    }
    hull.run(["rm", "web"])?.expect_code(0);
    hull.expect_nothing_left()
}

/// The codes and errors of commands that were started at the same time.
fn race(hull: &Hull, line: &str, count: usize) -> Result<Vec<(Option<i32>, String)>> {
    let mut running = Vec::new();
    for _ in 0..count {
        let mut command = hull.command(line.split(' '));
        command.stderr(std::process::Stdio::piped());
        running.push(Hull::start_command(command)?);
    }
    let ended = |one: Running| {
        let output = one.child.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code(), error))
    };
    running.into_iter().map(ended).collect()
}

#[test]
fn of_commands_that_race_for_a_container_each_ends_as_one_after_the_other() -> Result<()> {
    let hull = Hull::new()?;
    for isolation in ["native", "vm"] {
        let create =
            format!("create -q --isolation {isolation} --network none --name web demo sleep 1000");
        let created = race(&hull, &create, 5)?;
        let (made, refused): (Vec<_>, Vec<_>) =
            created.into_iter().partition(|(code, _)| *code == Some(0));
        assert_eq!(made.len(), 1);
        for (code, error) in refused {
            assert_eq!(code, Some(1));
            ensure!(error.contains("name \"/web\" is already in use"), "{error}");
        }
        for verb in ["start", "start", "stop -t 0", "start", "rm -f"] {
            for (code, error) in race(&hull, &format!("{verb} web"), 4)? {
                ensure!(code == Some(0), "{isolation}: {verb}: {error}");
            }
        }
        let events = "events --since 1h --until 0s --filter container=web --format {{.Action}}";
        let events = hull.run(events.split(' '))?.expect_code(0).stdout();
        let count = |action: &str| events.lines().filter(|line| *line == action).count();
        let times = if isolation == "native" { 1 } else { 2 };
        assert_eq!(count("create"), times, "{events}");
        assert_eq!(count("start"), 2 * times, "{events}");
        assert_eq!(count("die"), 2 * times, "{events}");
        assert_eq!(count("destroy"), times, "{events}");
        hull.expect_nothing_left()?;
    }
    Ok(())
}
