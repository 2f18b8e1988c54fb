//! The jail of a VM that runs Linux, as `hull run` makes it: what /proc says of hull-vmm and of its monitor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Hull, Running, USER, is_alive, wait_until};

/// First of the users that root's VMs get (docs/jail.md).
const FIRST_USER: u32 = 2_000_000_000;
const SLEEPER: &str = "echo ready; exec sleep 1000";

fn start(hull: &Hull, options: &str) -> Result<Running> {
    let mut arguments: Vec<&str> = vec!["run", "--rm", "--init"];
    arguments.extend(options.split_whitespace());
    arguments.extend(["demo", "sh", "-c", SLEEPER]);
    let mut running = hull.start(arguments)?;
    assert_eq!(running.line()?, "ready");
    Ok(running)
}

fn stop(hull: &Hull, running: Running) -> Result<()> {
    running.signal(Signal::TERM)?;
    assert_eq!(running.code()?, Some(128 + 15));
    hull.expect_nothing_left()
}

fn proc(pid: Pid, name: &str) -> PathBuf {
    format!("/proc/{}/{name}", pid.as_raw_pid()).into()
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The fields of a `status` file.
fn status(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    let text = read(path)?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Ok(fields
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect())
}

/// No capability, no way to any, a filter; and this user.
fn expect_powerless(status: &BTreeMap<String, String>, user: u32) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}: {status:?}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
    let ids: Vec<&str> = status["Uid"].split_whitespace().collect();
    assert_eq!(ids, vec![user.to_string(); 4]);
}

fn user(status: &BTreeMap<String, String>) -> Result<u32> {
    let first = status["Uid"].split_whitespace().next();
    Ok(first.context("a user")?.parse()?)
}

/// The cgroup of the only VM.
fn vm_cgroup(hull: &Hull) -> Result<PathBuf> {
    let sandbox = hull.sandboxes()?.pop().context("a sandbox")?;
    Ok(cgroup2()?.join("hull").join(sandbox))
}

/// Both processes of the monitor: the warden, which was first, and the speaker, its child.
fn monitors(hull: &Hull) -> Result<(Pid, Pid)> {
    let mut found = Vec::new();
    for pid in hull.sandbox_processes()? {
        if read(proc(pid, "comm"))?.trim_end() == "hull-monitor" {
            found.push(pid);
        }
    }
    ensure!(found.len() == 2, "{} monitors", found.len());
    Ok((found[0], found[1]))
}

/// Every thread of a hull-vmm, its root, its namespaces.
fn expect_jailed(vmm: Pid, user: u32) -> Result<()> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(proc(vmm, "task"))? {
        let thread = entry?.path();
        let status = status(thread.join("status"))?;
        expect_powerless(&status, user);
        assert_eq!(status["CapBnd"], "0000000000000000");
        // KVM's own thread, where it has one, has its own number.
        names.insert(status["Name"].clone());
    }
    for name in ["hull-vmm", "vcpu0", "blk-layers", "blk-scratch"] {
        assert!(names.contains(name), "{names:?}");
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |who: &Path| fs::read_link(who.join("ns").join(kind));
        assert_ne!(of(&proc(vmm, ""))?, of(Path::new("/proc/self"))?, "{kind}");
    }
    assert_eq!(read(proc(vmm, "mountinfo"))?.lines().count(), 1);
    assert_eq!(fs::read_dir(proc(vmm, "root"))?.count(), 0);
    // Nothing that is open has a path but /dev/null and the image's layers.
    for entry in fs::read_dir(proc(vmm, "fd"))? {
        let target = fs::read_link(entry?.path())?;
        let target = target.to_string_lossy();
        let harmless = [
            "anon_inode:",
            "pipe:",
            "socket:",
            "/dev/null",
            "/dev/net/tun",
        ];
        assert!(
            harmless.iter().any(|kind| target.starts_with(kind))
                || target.ends_with(".erofs")
                || target.ends_with("(deleted)"),
            "{target} is open"
        );
    }
    Ok(())
}

#[test]
fn a_vm_of_roots_has_a_user_of_its_own_and_nothing_else() -> Result<()> {
    let hull = Hull::new()?;
    let running = start(&hull, "-m 64m --cpus 0.5")?;
    let vmm = hull.process("hull-vmm")?;
    let vmm_user = user(&status(proc(vmm, "status"))?)?;
    ensure!(vmm_user >= FIRST_USER, "{vmm_user}");
    expect_jailed(vmm, vmm_user)?;

    // What talks to the guest has another user, and can open nothing.
    let (warden, speaker) = monitors(&hull)?;
    expect_powerless(&status(proc(speaker, "status"))?, vmm_user + 1);
    assert_eq!(
        status(proc(speaker, "status"))?["PPid"],
        warden.as_raw_pid().to_string()
    );
    for entry in fs::read_dir(proc(speaker, "fd"))? {
        let target = fs::read_link(entry?.path())?;
        let target = target.to_string_lossy();
        // Besides, its container's log, and what is known of its health, in memory that the warden reads.
        let harmless = [
            "anon_inode:",
            "pipe:",
            "socket:",
            "/dev/null",
            "/memfd:health",
        ];
        assert!(
            harmless.iter().any(|kind| target.starts_with(kind)) || target.ends_with("-json.log"),
            "the speaker has {target}"
        );
    }

    // The host holds the VM to what was asked for, whatever the guest does.
    let cgroup = read(proc(vmm, "cgroup"))?;
    let folder = vm_cgroup(&hull)?;
    let path = format!("/{}", folder.strip_prefix(cgroup2()?)?.display());
    assert!(cgroup.contains(&path), "{cgroup}");
    let limit = |file: &str| read(folder.join(file)).map(|text| text.trim().to_owned());
    assert_eq!(limit("cpu.max")?, "50000 100000");
    let memory: u64 = limit("memory.max")?.parse()?;
    ensure!((100 << 20..400 << 20).contains(&memory), "{memory}");
    assert!(limit("pids.max")?.parse::<u32>()? < 64);
    stop(&hull, running)?;
    assert!(!folder.exists());
    Ok(())
}

fn cgroup2() -> Result<PathBuf> {
    let mounts = read("/proc/self/mounts")?;
    let mount = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, path, "cgroup2", ..] => Some(path.into()),
            _ => None,
        });
    mount.context("no cgroup v2 hierarchy is mounted")
}

#[test]
fn an_ordinary_users_vm_is_jailed_and_measured() -> Result<()> {
    let hull = Hull::of_user()?;
    let command = hull.command([
        "run", "--rm", "--timing", "--init", "demo", "sh", "-c", SLEEPER,
    ]);
    let mut running = Hull::start_command(command)?;
    assert_eq!(running.line()?, "ready");
    let vmm = hull.process("hull-vmm")?;
    expect_jailed(vmm, USER)?;
    let (_, speaker) = monitors(&hull)?;
    expect_powerless(&status(proc(speaker, "status"))?, USER);
    stop(&hull, running)
}

#[test]
fn what_talks_to_the_guest_is_missed_when_it_dies() -> Result<()> {
    let hull = Hull::new()?;
    let running = start(&hull, "--network none")?;
    let vmm = hull.process("hull-vmm")?;
    let (_, speaker) = monitors(&hull)?;
    kill_process(speaker, Signal::KILL)?;
    wait_until("hull-vmm has ended", || Ok(!is_alive(vmm)))?;
    assert_eq!(running.code()?, Some(125));
    hull.expect_nothing_left()
}

#[test]
fn nothing_outlives_the_warden() -> Result<()> {
    let hull = Hull::new()?;
    let running = start(&hull, "--network none")?;
    let vmm = hull.process("hull-vmm")?;
    let (warden, speaker) = monitors(&hull)?;
    kill_process(warden, Signal::KILL)?;
    wait_until("hull-vmm and the speaker have ended", || {
        Ok(!is_alive(vmm) && !is_alive(speaker))
    })?;
    assert_eq!(running.code()?, Some(125));
    Ok(())
}

#[test]
fn a_fraction_of_a_processor_is_held_by_the_host() -> Result<()> {
    // The guest's own cgroup holds the container; that the host counts periods too means that no guest can escape it.
    let hull = Hull::new()?;
    let mut running = hull.start([
        "run",
        "--rm",
        "--init",
        "--network",
        "none",
        "--cpus",
        "0.25",
        "demo",
        "sh",
        "-c",
        "echo ready; while :; do :; done",
    ])?;
    assert_eq!(running.line()?, "ready");
    let stat = vm_cgroup(&hull)?.join("cpu.stat");
    let periods = |text: &str| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix("nr_periods "))?
            .parse()
            .ok()
    };
    wait_until("the host counts the VM's periods", || {
        Ok(periods(&read(&stat)?).is_some_and(|periods| periods > 10))
    })?;
    stop(&hull, running)
}

const SLEEPING: [&str; 6] = ["run", "--rm", "demo", "sh", "-c", SLEEPER];

/// What is said when the cgroup that `of` makes of the VM's id is left no memory for a moment.
fn starve(hull: &Hull, mut command: Command, of: impl Fn(&str) -> PathBuf) -> Result<String> {
    command.stderr(Stdio::piped());
    let mut running = Hull::start_command(command)?;
    let stderr = running.child.stderr.take().context("stderr is a pipe")?;
    assert_eq!(running.line()?, "ready");
    // Which of several processes the kernel takes is not what is tested.
    let vmm = hull.process("hull-vmm")?;
    let mut others = hull.sandbox_processes()?;
    others.retain(|pid| *pid != vmm);
    others.push(Pid::from_child(&running.child));
    for pid in others {
        fs::write(proc(pid, "oom_score_adj"), "-1000")?;
    }
    let limit = of(&hull.sandboxes()?.pop().context("a sandbox")?).join("memory.max");
    fs::write(&limit, "0")?;
    // What was spared goes on; the VM's own cgroup may be gone by now.
    let _ = fs::write(&limit, "max");
    assert_eq!(running.code()?, Some(125));
    hull.expect_nothing_left()?;
    Ok(io::read_to_string(stderr)?)
}

#[test]
fn a_vm_that_meets_its_memory_limit_on_the_host_is_told_so() -> Result<()> {
    // The limit has room for all that a VM can use: only a lowered one is met.
    let hull = Hull::new()?;
    let hulls = cgroup2()?.join("hull");
    let said = starve(&hull, hull.command(SLEEPING), |id| hulls.join(id))?;
    assert!(said.contains("hull-vmm ended unexpectedly"), "{said}");
    assert!(said.contains("the memory limit of its cgroup"), "{said}");
    assert!(said.contains("give it more memory (-m)"), "{said}");
    Ok(())
}

#[test]
fn a_host_without_memory_is_told_from_a_vm_at_its_limit() -> Result<()> {
    // An ordinary user's cgroup, delegated as systemd does it, stands for the host: the VM's lies below it.
    const AS_USER: &str = "echo $$ > $0/cgroup.procs && exec setpriv --reuid=54321 --regid=54321 --clear-groups \"$@\"";
    let hull = Hull::of_user()?;
    let delegated = cgroup2()?.join("delegated");
    let own = delegated.join("own");
    fs::create_dir_all(&own)?;
    for above in [&cgroup2()?, &delegated] {
        fs::write(above.join("cgroup.subtree_control"), "+memory")?;
    }
    for path in [
        &delegated,
        &delegated.join("cgroup.procs"),
        &own,
        &own.join("cgroup.procs"),
    ] {
        chown(path, Some(USER), Some(USER))?;
    }
    let run = hull.command(SLEEPING);
    let mut command = Command::new("sh");
    command.args(["-c", AS_USER]).arg(&own);
    command.arg(run.get_program()).args(run.get_args());
    command.env("HULL_ROOT", hull.root());
    let said = starve(&hull, command, |id| {
        let limit = read(delegated.join(format!("hull-{id}/memory.max")));
        assert_ne!(limit.expect("the VM has a cgroup").trim(), "max");
        delegated.clone()
    })?;
    assert!(said.contains("the host had no memory left"), "{said}");
    fs::remove_dir(own)?;
    Ok(fs::remove_dir(delegated)?)
}
