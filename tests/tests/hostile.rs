//! A guest whose root is hostile, on hull's own kernel: `hostile-init` in the agent's place. Whatever it does, `hull run` ends
//! with a word about it, nothing is left behind, and other containers run.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tests::{Hull, initramfs};

/// More than any of these may take: a guest that stays is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// hull's parts, with an initramfs of ours in place of the agent's.
struct Parts {
    folder: tempfile::TempDir,
}

impl Parts {
    fn new(plan: &str) -> Result<Parts> {
        let folder = tempfile::tempdir()?;
        for part in fs::read_dir(initramfs::installed()?)? {
            let part = part?;
            std::os::unix::fs::symlink(part.path(), folder.path().join(part.file_name()))?;
        }
        let path = folder.path().join("initramfs.cpio");
        fs::remove_file(&path)?;
        let init = Path::new(env!("CARGO_BIN_EXE_hostile-init"));
        fs::write(&path, initramfs::archive(init, plan)?)?;
        Ok(Parts { folder })
    }
}

/// Runs a container in a guest with this plan: its exit code and what hull said.
fn attacked(hull: &Hull, plan: &str) -> Result<(Option<i32>, String)> {
    let parts = Parts::new(plan)?;
    let said = parts.folder.path().join("said");
    let mut child = hull
        .command("run --rm --boot kernel --network none demo true".split(' '))
        .env("HULL_LIBEXEC", parts.folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&said)?)
        .spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let text = String::from_utf8(fs::read(&said)?)?;
            println!("{plan}: {status} after {:?}: {text}", begun.elapsed());
            return Ok((status.code(), text));
        }
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            bail!("{plan}: hull waits for its guest");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What hull says at the end, and that it ends with its own code.
fn expect(plan: &str, words: &str) -> Result<()> {
    let hull = Hull::new()?;
    let (code, said) = attacked(&hull, plan)?;
    assert_eq!(code, Some(125), "{plan}: {said}");
    assert!(said.contains(words), "{plan}: {said}");
    assert!(!said.contains('\x1b'), "{plan}: {said:?}");
    assert!(said.len() < 16 << 10, "{plan}: {} bytes", said.len());
    hull.expect_nothing_left()
}

#[test]
fn a_guest_that_hangs_up_and_stays_is_ended() -> Result<()> {
    expect("hang up", "the guest agent is gone")
}

#[test]
fn a_guest_that_makes_noise_is_ended() -> Result<()> {
    expect("noise", "the guest agent sent something unintelligible")?;
    expect(
        "a frame that never ends",
        "the guest agent sent something unintelligible",
    )
}

#[test]
fn a_guest_that_lies_is_believed_in_nothing_that_matters() -> Result<()> {
    expect("lies", "a lie!!!")
}

#[test]
fn a_stream_without_its_token_ends_the_vm() -> Result<()> {
    expect("a wrong token", "token")
}

#[test]
fn no_port_but_the_one_that_is_offered_answers_and_that_one_once() -> Result<()> {
    expect("refusals", "code 4242")
}

#[test]
fn a_container_beside_a_hostile_guest_goes_on() -> Result<()> {
    let hull = Hull::new()?;
    let mut beside = hull.start(["run", "--rm", "--network", "none", "-i", "demo", "cat"])?;
    let (code, said) = attacked(&hull, "noise")?;
    assert_eq!(code, Some(125), "{said}");
    use std::io::{BufRead, Write};
    let mut stdin = beside.child.stdin.take().context("stdin is a pipe")?;
    stdin.write_all(b"still here\n")?;
    let mut line = String::new();
    beside.stdout.read_line(&mut line)?;
    assert_eq!(line, "still here\n");
    drop(stdin);
    assert!(beside.child.wait()?.success());
    hull.expect_nothing_left()
}
