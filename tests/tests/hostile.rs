//! A guest whose root is hostile, on hull's own kernel: `hostile-init` in the agent's place. Whatever it does, `hull run` ends
//! with a word about it, nothing is left behind, and other containers run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tests::Hull;

/// More than any of these may take: a guest that stays is not waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// hull's parts, with an initramfs of ours in place of the agent's.
struct Parts {
    folder: tempfile::TempDir,
}

impl Parts {
    fn new(plan: &str) -> Result<Parts> {
        let folder = tempfile::tempdir()?;
        for part in fs::read_dir(installed()?)? {
            let part = part?;
            std::os::unix::fs::symlink(part.path(), folder.path().join(part.file_name()))?;
        }
        let initramfs = folder.path().join("initramfs.cpio");
        fs::remove_file(&initramfs)?;
        fs::write(&initramfs, archive(plan)?)?;
        Ok(Parts { folder })
    }
}

/// Where the `hull` on the PATH has its parts.
fn installed() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("PATH is not set")?;
    let hull = std::env::split_paths(&path)
        .map(|folder| folder.join("hull"))
        .find(|program| program.exists())
        .context("hull is not on the PATH")?;
    let hull = fs::canonicalize(hull)?;
    let prefix = hull.parent().and_then(Path::parent);
    Ok(prefix
        .context("hull is not in a bin folder")?
        .join("libexec/hull"))
}

/// An initramfs with hostile-init and the libraries that it needs (cpio "newc": Documentation/driver-api/early-userspace).
fn archive(plan: &str) -> Result<Vec<u8>> {
    let init = Path::new(env!("CARGO_BIN_EXE_hostile-init"));
    let libraries = Command::new("ldd").arg(init).output()?;
    let text = String::from_utf8(libraries.stdout)?;
    let mut archive = Vec::new();
    let mut folders = vec!["dev".to_owned()];
    let mut files = vec![("init".to_owned(), fs::read(init)?)];
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let mut folder = String::new();
        for name in Path::new(path).parent().into_iter().flatten().skip(1) {
            folder = format!("{folder}/{}", name.to_string_lossy());
            folders.push(folder[1..].to_owned());
        }
        files.push((path[1..].to_owned(), fs::read(path)?));
    }
    files.push(("plan".to_owned(), plan.into()));
    for folder in folders {
        member(&mut archive, &folder, 0o040_755, (0, 0), &[]);
    }
    member(&mut archive, "dev/console", 0o020_600, (5, 1), &[]);
    for (name, data) in files {
        member(&mut archive, &name, 0o100_755, (0, 0), &data);
    }
    member(&mut archive, "TRAILER!!!", 0, (0, 0), &[]);
    Ok(archive)
}

fn member(archive: &mut Vec<u8>, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
    let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
    let inode = archive.len() as u32;
    let fields = [
        inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
    ];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Runs a container in a guest with this plan: its exit code and what hull said.
fn attacked(hull: &Hull, plan: &str) -> Result<(Option<i32>, String)> {
    let parts = Parts::new(plan)?;
    let said = parts.folder.path().join("said");
    let mut child = hull
        .command("run --boot kernel --network none demo true".split(' '))
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
    let mut beside = hull.start(["run", "--network", "none", "-i", "demo", "cat"])?;
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
