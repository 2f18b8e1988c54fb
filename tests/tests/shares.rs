//! Directories of the host in VMs: what each side writes, the other reads; what a guest does to them stays inside them; and
//! nothing of hull-fs is left.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tests::{Hull, wait_until};

struct Shared {
    hull: Hull,
    folder: TempDir,
}

impl Shared {
    fn new() -> Result<Shared> {
        Ok(Shared {
            hull: Hull::new()?,
            folder: tempfile::tempdir()?,
        })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What a script prints that has the directory at /s.
    fn script(&self, script: &str) -> Result<String> {
        let volume = format!("{}:/s", self.folder.path().display());
        let ran = self.hull.run_script(&["-v", &volume], script)?;
        Ok(ran.expect_code(0).stdout())
    }

    /// A container that sleeps, with the directory at /s.
    fn sleeper(&self) -> Result<()> {
        let volume = format!("{}:/s", self.folder.path().display());
        let run = ["run", "-d", "--network", "none", "--name", "box", "-v"];
        let words = run.into_iter().chain([&*volume, "demo", "sleep", "1000"]);
        self.hull.run(words)?.expect_code(0);
        Ok(())
    }

    fn exec(&self, script: &str) -> Result<String> {
        let ran = self.hull.run(["exec", "box", "sh", "-c", script])?;
        Ok(ran.expect_code(0).stdout())
    }
}

#[test]
fn files_of_either_side_are_the_others_with_owner_mode_and_kind() -> Result<()> {
    let shared = Shared::new()?;
    fs::write(shared.path("from-host"), "host")?;
    fs::set_permissions(shared.path("from-host"), PermissionsExt::from_mode(0o640))?;
    std::os::unix::fs::chown(shared.path("from-host"), Some(1234), Some(5678))?;
    let script = "cd /s && stat -c '%u %g %a %s' from-host && cat from-host && echo \
         && echo guest > from-guest && chmod 4750 from-guest && chown 77:88 from-guest \
         && mkdir -m 1777 dir && ln -s from-guest link && ln from-guest hard && mkfifo fifo \
         && stat -c '%h' hard && readlink link && cat link && mv hard dir/moved && rm from-host && ls";
    let printed = shared.script(script)?;
    assert_eq!(
        printed,
        "1234 5678 640 4\nhost\n2\nfrom-guest\nguest\ndir\nfifo\nfrom-guest\nlink"
    );
    let guest = fs::metadata(shared.path("from-guest"))?;
    assert_eq!((guest.uid(), guest.gid(), guest.nlink()), (77, 88, 2));
    assert_eq!(fs::metadata(shared.path("dir"))?.mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(shared.path("link"))?, Path::new("from-guest"));
    assert_eq!(fs::read(shared.path("dir/moved"))?, b"guest\n");
    ensure!(!shared.path("from-host").exists());
    shared.hull.expect_nothing_left()
}

#[test]
fn what_the_host_changes_is_seen_at_once_and_the_other_way_round() -> Result<()> {
    let shared = Shared::new()?;
    fs::write(shared.path("file"), "one")?;
    shared.sleeper()?;
    assert_eq!(shared.exec("cat /s/file; ls /s")?, "onefile");
    for round in 0..5 {
        // The same length within the same second, and by a new file of the name, as editors do it.
        fs::write(shared.path("file"), format!("{round}aa"))?;
        assert_eq!(shared.exec("cat /s/file")?, format!("{round}aa"));
        fs::write(shared.path("new"), format!("{round}bb"))?;
        fs::rename(shared.path("new"), shared.path("file"))?;
        assert_eq!(shared.exec("cat /s/file; ls /s")?, format!("{round}bbfile"));
        // As git does it: made by one side, removed by the other.
        fs::write(shared.path("index.lock"), "")?;
        shared.exec("test -e /s/index.lock && rm /s/index.lock")?;
        ensure!(!shared.path("index.lock").exists());
        shared.exec("set -C; : > /s/index.lock")?;
        fs::remove_file(shared.path("index.lock"))?;
        shared.exec("! test -e /s/index.lock")?;
        shared.exec(&format!("echo {round}guest > /s/file"))?;
        assert_eq!(
            fs::read_to_string(shared.path("file"))?,
            format!("{round}guest\n")
        );
    }
    shared.hull.run(["rm", "-f", "box"])?.expect_code(0);
    shared.hull.expect_nothing_left()
}

#[test]
fn large_files_and_many_small_ones_come_whole() -> Result<()> {
    let shared = Shared::new()?;
    let script = "cd /s && dd if=/dev/urandom of=big bs=1M count=8 2>&- && dd if=/dev/zero of=sparse bs=1 count=1 seek=1G 2>&- \
         && sha256sum big | cut -d' ' -f1 && mkdir many && cd many && i=0 \
         && while [ $i -lt 500 ]; do echo $i > f$i; i=$((i+1)); done && ls | wc -l && cat f499 && rm -rf /s/many/f1* && ls | wc -l";
    let printed = shared.script(script)?;
    let [hash, all, last, left]: [&str; 4] = printed
        .lines()
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|lines| anyhow::anyhow!("{lines:?}"))?;
    assert_eq!((all, last, left), ("500", "499", "389"));
    let sum = std::process::Command::new("sha256sum")
        .arg(shared.path("big"))
        .output()?;
    ensure!(
        sum.stdout.starts_with(hash.as_bytes()),
        "the host reads something else"
    );
    let sparse = fs::metadata(shared.path("sparse"))?;
    assert_eq!(sparse.len(), (1 << 30) + 1);
    ensure!(sparse.blocks() < 64, "a hole is stored");
    assert_eq!(fs::read_dir(shared.path("many"))?.count(), 389);
    // The other way.
    let read = shared.script("sha256sum < /s/big | cut -d' ' -f1; cat /s/many/* | wc -l")?;
    assert_eq!(read, format!("{hash}\n389"));
    shared.hull.expect_nothing_left()
}

#[test]
fn links_lead_nowhere_on_the_host_and_nothing_beside_the_share_is_there() -> Result<()> {
    let shared = Shared::new()?;
    fs::create_dir(shared.path("in"))?;
    fs::write(shared.path("secret"), "of the host")?;
    symlink("../secret", shared.path("in/up"))?;
    symlink(shared.path("secret"), shared.path("in/absolute"))?;
    symlink("/etc", shared.path("in/etc"))?;
    let volume = format!("{}:/s", shared.path("in").display());
    let script = "cat /s/up /s/absolute; ls /s/..; cat /s/etc/hostname; mknod /s/disk b 8 0; echo $?; ls -A /s/../hull";
    let ran = shared
        .hull
        .run_script(&["-v", &volume, "--hostname", "guest"], script)?;
    let printed = ran.stdout() + &ran.stderr();
    ensure!(
        !printed.contains("of the host") && !printed.contains("secret\n"),
        "{printed}"
    );
    ensure!(
        printed.contains("guest\n") && printed.contains("\n1"),
        "{printed}"
    );
    // A single file comes without its neighbours, and stays the file that it was.
    let file = format!("{}:/etc/one", shared.path("secret").display());
    let ran = shared.hull.run_script(
        &["-v", &file],
        "cat /etc/one && echo changed > /etc/one && ls /hull 2>&1",
    )?;
    ensure!(ran.stdout().starts_with("of the host"), "{ran:?}");
    assert_eq!(fs::read_to_string(shared.path("secret"))?, "changed\n");
    shared.hull.expect_nothing_left()
}

#[test]
fn a_read_only_share_is_refused_every_change() -> Result<()> {
    let shared = Shared::new()?;
    fs::write(shared.path("file"), "kept")?;
    let volume = format!("{}:/s:ro", shared.folder.path().display());
    // A guest's root may call its own side writable: the host's is not.
    let script = "mount -o remount,rw /s; cd /s; for what in 'touch x' 'rm file' 'mkdir d' 'mv file x' 'chmod 777 file' \
         'ln file x' 'ln -s a x'; do $what 2>&- && echo \"$what works\"; done; echo more >> file; cat file";
    let ran = shared
        .hull
        .run_script(&["--privileged", "-v", &volume], script)?;
    assert_eq!(ran.expect_code(0).stdout(), "kept");
    assert_eq!(fs::read_dir(shared.folder.path())?.count(), 1);
    assert_eq!(fs::read_to_string(shared.path("file"))?, "kept");
    shared.hull.expect_nothing_left()
}

#[test]
fn what_is_mapped_is_written_and_an_open_file_outlives_its_name() -> Result<()> {
    let shared = Shared::new()?;
    fs::write(shared.path("file"), vec![b'.'; 10_000])?;
    shared.sleeper()?;
    shared.exec("exec 3<>/s/file; rm /s/file; echo begun >&3; exec 4</proc/self/fd/3; head -c 6 <&4; exec 3>&- 4>&-")?;
    ensure!(!shared.path("file").exists());
    // A growing file of the host's, followed in the guest.
    fs::write(shared.path("log"), "")?;
    shared.exec("tail -n +1 -f /s/log > /tmp/seen 2>&1 &")?;
    let log = fs::OpenOptions::new()
        .write(true)
        .open(shared.path("log"))?;
    log.write_all_at(b"first\n", 0)?;
    wait_until("tail has seen the line", || {
        Ok(shared.exec("cat /tmp/seen")? == "first")
    })?;
    log.write_all_at(b"second\n", 6)?;
    wait_until("tail has seen both", || {
        Ok(shared.exec("cat /tmp/seen")? == "first\nsecond")
    })?;
    shared.hull.run(["rm", "-f", "box"])?.expect_code(0);
    shared.hull.expect_nothing_left()
}

#[test]
fn a_vm_ends_with_its_hull_fs_and_says_so_and_a_policy_brings_both_back() -> Result<()> {
    let shared = Shared::new()?;
    shared.sleeper()?;
    kill_process(shared.hull.process("hull-fs")?, Signal::KILL)?;
    assert_eq!(
        shared.hull.run(["wait", "box"])?.expect_code(0).stdout(),
        "137"
    );
    let error = shared
        .hull
        .run(["inspect", "-f", "{{.State.Error}}", "box"])?;
    let error = error.expect_code(0).stdout();
    ensure!(error.contains("shared directories"), "{error}");
    shared.hull.run(["start", "box"])?.expect_code(0);
    shared.exec("echo again > /s/file")?;
    assert_eq!(fs::read_to_string(shared.path("file"))?, "again\n");
    shared
        .hull
        .run(["update", "--restart", "always", "box"])?
        .expect_code(0);
    kill_process(shared.hull.process("hull-fs")?, Signal::KILL)?;
    wait_until("it is started again", || {
        let state = shared.hull.run([
            "inspect",
            "-f",
            "{{.RestartCount}} {{.State.Status}}",
            "box",
        ])?;
        Ok(state.stdout() == "1 running")
    })?;
    assert_eq!(shared.exec("cat /s/file")?, "again");
    // Killed hard, it leaves nothing.
    kill_process(shared.hull.warden_and_speaker()?[0], Signal::KILL)?;
    shared.hull.run(["rm", "-f", "box"])?.expect_code(0);
    shared.hull.expect_nothing_left()
}

#[test]
fn hull_fs_is_in_a_jail() -> Result<()> {
    let shared = Shared::new()?;
    shared.sleeper()?;
    let pid = shared.hull.process("hull-fs")?.as_raw_pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).context(name.to_owned())
    };
    assert_eq!(field("Seccomp:")?, "2");
    assert_eq!(field("NoNewPrivs:")?, "1");
    // CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(field(set)?, 16)?, 0b1100_1011, "{set}");
    }
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&pid.to_string())?, of("self")?, "{namespace}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/"))?.count(), 0);
    shared.hull.run(["rm", "-f", "box"])?.expect_code(0);
    shared.hull.expect_nothing_left()
}
