//! A full disk: what cannot be kept is told, what was kept stays, and nothing hangs. The state lies on a small file system.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use tests::{Hull, wait_until};

const MIB: usize = 1 << 20;

/// Fills what is left of a store's disk, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn of(hull: &Hull) -> Result<Filler> {
        let filler = Filler(hull.root().join("filler"));
        let mut file = File::create(&filler.0)?;
        for step in [MIB, 4096, 1] {
            loop {
                match file.write(&vec![0; step]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // A test that has failed already is not to fail twice.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `hull run -d --isolation native --network none --name NAME demo sh -c SCRIPT`.
fn detached(hull: &Hull, name: &str, script: &str) -> Result<()> {
    let words = format!("run -d --isolation native --network none --name {name} demo sh -c");
    hull.run(words.split(' ').chain([script]))?.expect_code(0);
    Ok(())
}

fn ok(hull: &Hull, line: &str) -> Result<String> {
    Ok(hull.run(line.split(' '))?.expect_code(0).stdout())
}

#[test]
fn a_log_on_a_full_disk_holds_nothing_up_and_tells_what_it_lacks() -> Result<()> {
    let hull = Hull::on_disk_of(64 * MIB)?;
    let script = "trap 'go=1' USR1; trap 'echo late; exit 3' USR2; echo up; \
        until [ $go ]; do sleep 0.1; done; seq 1 300000; sleep 77777 & wait; wait";
    detached(&hull, "talk", script)?;
    wait_until("it is up", || Ok(ok(&hull, "logs talk")? == "up"))?;
    let full = Filler::of(&hull)?;
    ok(&hull, "kill -s USR1 talk")?;
    // It has written two megabytes, and goes on.
    wait_until("it has written", || {
        let processes = ok(&hull, "top talk")?;
        Ok(processes
            .lines()
            .any(|line| line.trim_end().ends_with("sleep 77777")))
    })?;
    assert_eq!(
        ok(&hull, "ps --format {{.Names}}:{{.State}}")?,
        "talk:running"
    );
    drop(full);
    ok(&hull, "kill -s USR2 talk")?;
    assert_eq!(ok(&hull, "wait talk")?, "3");
    let logged = hull.run(["logs", "talk"])?.expect_code(0);
    let (out, err) = (logged.stdout(), logged.stderr());
    ensure!(out.starts_with("up\n"), "{:.200}", out);
    // What was on its way when there was room again is in it.
    ensure!(out.lines().count() < 300_000, "nothing was dropped");
    ensure!(out.ends_with("\nlate"), "the log does not go on");
    ensure!(
        err.contains("lines of output were not logged"),
        "{err:.400}"
    );
    hull.run(["rm", "talk"])?.expect_code(0);
    hull.expect_nothing_left()
}

#[test]
fn an_exit_on_a_full_disk_is_recorded_when_there_is_room() -> Result<()> {
    let hull = Hull::on_disk_of(64 * MIB)?;
    detached(
        &hull,
        "ends",
        "trap 'exit 7' USR1; echo up; while :; do sleep 0.1; done",
    )?;
    wait_until("it is up", || Ok(ok(&hull, "logs ends")? == "up"))?;
    let full = Filler::of(&hull)?;
    ok(&hull, "kill -s USR1 ends")?;
    let waiting = hull.start(["wait", "ends"])?;
    wait_until("its first process has ended", || {
        Ok(hull.run(["top", "ends"])?.code() != Some(0))
    })?;
    drop(full);
    let waited = waiting.child.wait_with_output()?;
    ensure!(waited.status.success(), "{waited:?}");
    assert_eq!(ok(&hull, "wait ends")?, "7");
    hull.run(["rm", "ends"])?.expect_code(0);
    hull.expect_nothing_left()
}

#[test]
fn an_image_that_does_not_fit_is_refused_and_the_store_stays_whole() -> Result<()> {
    let hull = Hull::on_disk_of(32 * MIB)?;
    ok(
        &hull,
        "create -q --isolation native --network none --name kept demo true",
    )?;
    let other = Hull::new()?;
    let folder = tempfile::tempdir()?;
    let random = folder.path().join("random");
    let mut bytes = vec![0u8; 40 * MIB];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    std::fs::write(&random, bytes)?;
    let (tar, saved) = (folder.path().join("x.tar"), folder.path().join("saved.tar"));
    let mut archive = tar::Builder::new(File::create(&tar)?);
    archive.append_path_with_name(&random, "random")?;
    archive.finish()?;
    let (tar, saved) = (tar.display().to_string(), saved.display().to_string());
    other.run(["import", &tar, "big:1"])?.expect_code(0);
    other.run(["save", "-o", &saved, "big:1"])?.expect_code(0);

    for words in [["load", "-i", &saved], ["import", &tar, "big:1"]] {
        let refused = hull.run(words)?.expect_code(1);
        let text = refused.stderr();
        ensure!(
            text.contains("no space left for") && text.contains("bytes are free"),
            "{text}"
        );
    }
    // What was there is there, and there is room again for what fits.
    assert_eq!(
        ok(&hull, "images --format {{.Repository}}:{{.Tag}}")?,
        "demo:latest"
    );
    ok(&hull, "start -a kept")?;
    ok(&hull, "tag demo again")?;
    ok(&hull, "rm kept")?;
    hull.expect_nothing_left()
}

#[test]
fn a_commit_that_does_not_fit_is_refused_and_the_container_and_the_store_stay_whole() -> Result<()>
{
    let hull = Hull::on_disk_of(96 * MIB)?;
    let script = "head -c 20000000 /dev/urandom > /data; sha256sum /data; sleep 77777";
    detached(&hull, "kept", script)?;
    wait_until("it has written", || {
        Ok(ok(&hull, "logs kept")?.contains("/data"))
    })?;
    let sum = ok(&hull, "logs kept")?;
    let images = "images --format {{.Repository}}:{{.Tag}}";

    let refused = || -> Result<()> {
        let _full = Filler::of(&hull)?;
        let text = hull
            .run(["commit", "kept", "copy:1"])?
            .expect_code(1)
            .stderr();
        ensure!(text.to_lowercase().contains("no space left"), "{text}");
        assert_eq!(ok(&hull, images)?, "demo:latest");
        Ok(())
    };
    refused()?;
    // With room: without, its end would not be recorded, nor told.
    ok(&hull, "kill kept")?;
    ok(&hull, "wait kept")?;
    refused()?;

    ok(&hull, "commit kept copy:1")?;
    let again = "run --rm --isolation native --network none copy:1 sha256sum /data";
    assert_eq!(ok(&hull, again)?, sum);
    ok(&hull, "rm kept")?;
    hull.expect_nothing_left()
}

/// Needs a KVM that can boot Linux, as every test without `--isolation native` here.
#[test]
fn a_vm_cannot_take_the_last_of_the_disk_that_holds_the_state() -> Result<()> {
    const DISK: usize = 256 * MIB;
    let hull = Hull::on_disk_of(DISK)?;
    // The VM's template, before there is no room for one.
    ok(&hull, "run --rm --network none demo true")?;
    let fill = "dd if=/dev/zero of=/big bs=1M count=300 conv=fsync; echo $?";
    let words = "run --name greedy --network none demo sh -c".split(' ');
    let filled = hull.run(words.chain([fill]))?;
    let code = filled.stdout();
    ensure!(code.ends_with('1'), "{code} {}", filled.stderr());
    let left = rustix::fs::statvfs(hull.root())?;
    let left = left.f_bavail * left.f_frsize;
    ensure!(left > (DISK as u64) / 32, "{left} bytes are left");
    // There is room for records, and for what is to go.
    assert_eq!(ok(&hull, "ps -a --format {{.Names}}")?, "greedy");
    detached(&hull, "other", "echo up")?;
    ok(&hull, "wait other")?;
    assert_eq!(ok(&hull, "logs other")?, "up");
    ok(&hull, "rm greedy other")?;
    hull.expect_nothing_left()
}

#[test]
fn a_writable_layer_has_the_size_that_was_asked_for() -> Result<()> {
    let hull = Hull::new()?;
    let script = "df -m / | tail -1; dd if=/dev/zero of=/big bs=1M count=300; echo $?; rm /big; \
        touch /small && echo still";
    let words = "run --name sized --network none --storage-opt size=256m demo sh -c".split(' ');
    let ran = hull.run(words.chain([script]))?.expect_code(0);
    let (out, err) = (ran.stdout(), ran.stderr());
    let lines: Vec<&str> = out.lines().collect();
    let mib: u64 = lines[0]
        .split_whitespace()
        .nth(1)
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    ensure!((200..=256).contains(&mib), "{out}");
    assert_eq!(lines[1..], ["1", "still"], "{out} {err}");
    ensure!(err.contains("No space left on device"), "{err}");
    // It is a property of the layer: it is there at the next start too.
    ok(&hull, "start sized")?;
    ok(&hull, "wait sized")?;
    let logged = ok(&hull, "logs sized")?;
    assert_eq!(logged.matches("still").count(), 2, "{logged}");
    let size = "{{index .HostConfig.StorageOpt \"size\"}}";
    let inspected = hull.run(["inspect", "--format", size, "sized"])?;
    assert_eq!(inspected.expect_code(0).stdout(), "268435456");
    ok(&hull, "rm sized")?;
    hull.expect_nothing_left()
}
