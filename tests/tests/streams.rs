//! Standard streams: apart, binary-safe, to their ends.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::Result;
use tests::Hull;

/// 64 MiB that do not compress and do not repeat.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(64 << 20);
    while bytes.len() < 64 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn sha256(bytes: &[u8]) -> Result<String> {
    use std::io::Write;
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().expect("a pipe").write_all(bytes)?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?
        .split(' ')
        .next()
        .unwrap_or("")
        .into())
}

#[test]
fn sixty_four_mebibytes_go_in_and_come_out_unchanged() -> Result<()> {
    let hull = Hull::new()?;
    let noise = noise();
    let expected = sha256(&noise)?;
    let script = "tee /tmp/copy | sha256sum | cut -d' ' -f1 >&2; cat /tmp/copy";
    let outcome = hull
        .run_with_input(
            [
                "run",
                "--rm",
                "-i",
                "--network",
                "none",
                "demo",
                "sh",
                "-c",
                script,
            ],
            &noise,
        )?
        .expect_code(0);
    assert_eq!(outcome.stderr().lines().last(), Some(&*expected));
    assert!(
        outcome.stdout_bytes() == noise,
        "the output differs from the input"
    );
    Ok(())
}

#[test]
fn output_and_error_output_do_not_mix() -> Result<()> {
    let hull = Hull::new()?;
    let script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done";
    let outcome = hull.run_script(&[], script)?.expect_code(0);
    assert_eq!(outcome.stdout(), "out 1\nout 2\nout 3");
    let errors: Vec<String> = outcome
        .stderr()
        .lines()
        .filter(|line| line.starts_with("err"))
        .map(str::to_owned)
        .collect();
    assert_eq!(errors, ["err 1", "err 2", "err 3"]);
    Ok(())
}

#[test]
fn without_i_standard_input_is_empty() -> Result<()> {
    let hull = Hull::new()?;
    let outcome = hull
        .run_with_input(
            [
                "run",
                "--rm",
                "--network",
                "none",
                "demo",
                "sh",
                "-c",
                "wc -c",
            ],
            b"not for you",
        )?
        .expect_code(0);
    assert_eq!(outcome.stdout(), "0");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_the_container() -> Result<()> {
    let hull = Hull::new()?;
    let mut running = hull.start(["run", "--rm", "--network", "none", "demo", "yes"])?;
    assert_eq!(running.line()?, "y");
    let tests::Running { child, stdout } = running;
    drop(stdout);
    let code = child.wait_with_output()?.status.code();
    assert_eq!(code, Some(128 + 13));
    hull.expect_nothing_left()
}

#[test]
fn a_slow_reader_loses_nothing() -> Result<()> {
    let hull = Hull::new()?;
    let mut running = hull.start([
        "run",
        "--rm",
        "--network",
        "none",
        "demo",
        "seq",
        "1",
        "200000",
    ])?;
    // Everything is written and the container has ended long before it is read.
    std::thread::sleep(std::time::Duration::from_secs(15));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut running.stdout, &mut text)?;
    let mut expected = String::new();
    for n in 1..=200_000 {
        writeln!(expected, "{n}")?;
    }
    assert!(
        text == expected,
        "{} bytes instead of {}",
        text.len(),
        expected.len()
    );
    assert_eq!(running.code()?, Some(0));
    Ok(())
}
