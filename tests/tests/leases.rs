//! Volumes of several VMs and native containers: what one changes, the others see at their next look, from their start on;
//! and a volume that one VM alone uses is remembered there (docs/lifecycle.md, "Volumes: who may remember what").

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Hull, wait_until};

/// A store with containers on the volume "vol", which they have at /v.
struct Volume(Hull);

impl Volume {
    fn new() -> Result<Volume> {
        Ok(Volume(Hull::new()?))
    }

    fn words<'a>(name: &'a str, options: &[&'a str]) -> Vec<&'a str> {
        let run = ["run", "-d", "--network", "none", "--name", name];
        let image = ["demo", "sleep", "1000"];
        [&run[..], options, &image].concat()
    }

    fn start(&self, name: &str, options: &[&str]) -> Result<()> {
        self.0.run(Self::words(name, options))?.expect_code(0);
        Ok(())
    }

    fn exec(&self, name: &str, script: &str) -> Result<String> {
        let ran = self.0.run(["exec", name, "sh", "-c", script])?;
        Ok(ran.expect_code(0).stdout())
    }

    /// Whether the volume's user may remember, as its lease says.
    fn is_remembered(&self) -> Result<bool> {
        let path = self.0.root().join("volumes/vol/lease");
        let word = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(word.starts_with(b"alone"))
    }

    fn warden(&self, name: &str) -> Result<Pid> {
        let id = self.0.run(["inspect", "-f", "{{.Id}}", name])?;
        let id = id.expect_code(0).stdout();
        for entry in fs::read_dir("/proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let read = |what| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            let (words, name) = (read("cmdline"), read("comm"));
            let words = String::from_utf8_lossy(&words).into_owned();
            // The speaker, its child, has the same words and came later.
            if name.starts_with(b"hull-monitor") && words.contains(&id) {
                return Pid::from_raw(pid).context("a process has a number");
            }
        }
        anyhow::bail!("{name} has no warden")
    }

    /// Both see what the other makes, changes, renames and removes, at their next look.
    fn see_each_other(&self, one: &str, other: &str, rounds: u32) -> Result<()> {
        for round in 0..rounds {
            for (writer, reader) in [(one, other), (other, one)] {
                let tag = format!("{writer}{round}");
                // That it is not there, and what is there, is looked at first.
                self.exec(
                    reader,
                    "cd /v; ! test -e new; ! test -e moved; cat f 2>&-; ls -l >/dev/null",
                )?;
                self.exec(
                    writer,
                    &format!("cd /v; echo {tag} > new; echo {tag} > f; chmod 600 f"),
                )?;
                let seen = self.exec(reader, "cd /v; cat new f; stat -c %a f; ls")?;
                ensure!(
                    seen.starts_with(&format!("{tag}\n{tag}\n600\n")) && seen.contains("new"),
                    "{reader} sees {seen:?} in round {round}"
                );
                self.exec(writer, "cd /v; mv new moved; chmod 644 f")?;
                let seen = self.exec(reader, "cd /v; ! test -e new; cat moved; stat -c %a f")?;
                assert_eq!(seen, format!("{tag}\n644"), "{reader} in round {round}");
                self.exec(writer, "rm /v/moved")?;
                self.exec(reader, "! test -e /v/moved")?;
            }
        }
        Ok(())
    }

    fn end(&self, names: &[&str]) -> Result<()> {
        let words = [&["rm", "-f"][..], names].concat();
        self.0.run(words)?.expect_code(0);
        self.0.expect_nothing_left()
    }
}

/// lifecycle H27, H31
#[test]
fn a_second_vm_sees_what_the_first_wrote_and_each_what_the_other_does_and_the_last_remembers_again()
-> Result<()> {
    let volume = Volume::new()?;
    volume.start("one", &["-v", "vol:/v"])?;
    ensure!(volume.is_remembered()?);
    volume.exec(
        "one",
        "cd /v; echo first > f; mkdir d; ls -lR > /dev/null; ! test -e new",
    )?;
    ensure!(volume.is_remembered()?);
    volume.start("two", &["-v", "vol:/v"])?;
    ensure!(!volume.is_remembered()?);
    assert_eq!(volume.exec("two", "cat /v/f; ls /v")?, "first\nd\nf");
    // What the newcomer does first is seen at once: all that was remembered is forgotten.
    volume.exec("two", "echo second > /v/new; rmdir /v/d")?;
    assert_eq!(volume.exec("one", "cat /v/new; ls /v")?, "second\nf\nnew");
    volume.exec("one", "rm /v/new")?;
    volume.see_each_other("one", "two", 2)?;
    volume.0.run(["rm", "-f", "one"])?.expect_code(0);
    wait_until("the volume is remembered again", || volume.is_remembered())?;
    assert_eq!(volume.exec("two", "cat /v/f")?, "two1");
    volume.end(&["two"])
}

/// lifecycle H27
#[test]
fn a_native_container_and_a_mount_by_path_end_what_a_vm_remembers() -> Result<()> {
    let volume = Volume::new()?;
    volume.start("vm", &["-v", "vol:/v"])?;
    volume.exec("vm", "! test -e /v/new; ls -l /v")?;
    volume.start("native", &["--isolation", "native", "-v", "vol:/v"])?;
    ensure!(!volume.is_remembered()?);
    volume.see_each_other("vm", "native", 1)?;
    volume.0.run(["rm", "-f", "native"])?.expect_code(0);
    wait_until("the volume is remembered again", || volume.is_remembered())?;
    let path = fs::canonicalize(volume.0.root())?.join("volumes/vol/_data");
    let by_path = format!("{}:/v", path.display());
    volume.start("path", &["-v", &by_path])?;
    ensure!(!volume.is_remembered()?);
    volume.see_each_other("vm", "path", 1)?;
    volume.end(&["vm", "path"])
}

/// Read-only and writable, whole and in part, a volume is several shares of one VM, and its kernel takes them for several
/// file systems.
#[test]
fn what_one_vm_has_of_a_volume_twice_is_not_remembered() -> Result<()> {
    let volume = Volume::new()?;
    volume.start("box", &["-v", "vol:/v", "-v", "vol:/ro:ro"])?;
    ensure!(!volume.is_remembered()?);
    let script =
        "ls -l /ro; ! test -e /ro/f; echo x > /v/f; cat /ro/f; ls /ro; rm /v/f; ! test -e /ro/f";
    assert_eq!(volume.exec("box", script)?, "total 0\nx\nf");
    volume.end(&["box"])
}

/// lifecycle H28
#[test]
fn a_newcomer_starts_whatever_becomes_of_the_one_that_was_there() -> Result<()> {
    let volume = Volume::new()?;
    volume.start("one", &["-v", "vol:/v"])?;
    volume.exec("one", "echo kept > /v/f; ls -l /v > /dev/null")?;
    let warden = volume.warden("one")?;
    let begin = |name| -> Result<_> {
        let mut command = volume.0.command(Volume::words(name, &["-v", "vol:/v"]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command.spawn()?)
    };
    // It hangs, and then dies while another waits.
    kill_process(warden, Signal::STOP)?;
    let mut second = begin("two")?;
    let mut third = begin("three")?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    kill_process(warden, Signal::KILL)?;
    for child in [&mut second, &mut third] {
        let status = child.wait()?;
        ensure!(status.success(), "{status}");
    }
    assert_eq!(volume.exec("two", "cat /v/f")?, "kept");
    ensure!(!volume.is_remembered()?);
    volume.see_each_other("two", "three", 1)?;
    kill_process(volume.warden("two")?, Signal::KILL)?;
    wait_until("the volume is remembered again", || volume.is_remembered())?;
    volume.exec("three", "cat /v/f; echo on > /v/f")?;
    volume.end(&["one", "two", "three"])
}

/// lifecycle H29
#[test]
fn of_two_vms_that_start_at_once_neither_remembers() -> Result<()> {
    let volume = Volume::new()?;
    let both = ["one", "two"].map(|name| {
        let mut command = volume.0.command(Volume::words(name, &["-v", "vol:/v"]));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
    });
    for child in both {
        let status = child?.wait()?;
        ensure!(status.success(), "{status}");
    }
    ensure!(!volume.is_remembered()?);
    volume.see_each_other("one", "two", 1)?;
    volume.end(&["one", "two"])
}
