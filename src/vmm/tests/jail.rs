//! The jail of a running hull-vmm, read from /proc; and what its host forbids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, sink};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use monitor::users::{FIRST, PAIRS};
use protocol::vmm::{DiskConfig, DiskExtent, End, ToVmm};

#[path = "fixture/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod fixture;
#[path = "fixture/jailed.rs"]
mod jailed;
#[path = "fixture/payload.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod payload;

use fixture::{Plan, Vm};
use jailed::Words;
use payload::Code;

/// A VM of two vCPUs and two disks that spins, in a jail.
struct Jailed {
    vm: Vm,
    words: Words,
    pid: u32,
}

fn start(command: &mut Command) -> Jailed {
    let spin = Code::new().raw(&[0xeb, 0xfe]); // jmp $
    let mut plan = Plan::new(spin.kernel().unwrap()).unwrap();
    plan.config.vcpus = 2;
    plan.config.rng = true;
    plan.with_vsock().with_fs(false);
    for (serial, read_only) in [("layers", true), ("scratch", false)] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let extents = vec![DiskExtent {
            file: plan.pass(file),
            len_bytes: 1 << 20,
        }];
        plan.config.disks.push(DiskConfig {
            serial: serial.into(),
            read_only,
            extents,
            align_bytes: 512,
            min_len_bytes: 0,
        });
    }
    let mut vm = plan.start_by(command, sink()).unwrap();
    let mut words = Words::of(vm.child());
    let pid = words.expect("pid").parse().unwrap();
    while vm.report().unwrap().timeline.first_run.is_none() {
        std::thread::yield_now();
    }
    Jailed { vm, words, pid }
}

impl Jailed {
    fn file(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.pid);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn threads(&self) -> Vec<String> {
        let folder = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        folder
            .map(|entry| format!("task/{}", entry.unwrap().file_name().to_string_lossy()))
            .collect()
    }

    /// The fields of a `status` file.
    fn status(&self, of: &str) -> BTreeMap<String, String> {
        let text = self.file(&format!("{of}/status"));
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    fn stop(mut self) {
        self.vm.send(&ToVmm::Stop, &[]).unwrap();
        assert_eq!(self.vm.wait().unwrap().end, Ok(End::Stopped));
        let ended = self.words.expect("ended");
        assert!(ended.contains("exit_status: 0"), "{ended}");
        assert_eq!(self.words.expect("words"), "");
    }
}

fn namespaces(pid: &str) -> BTreeMap<String, String> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .map(|kind| {
            let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            (kind.to_owned(), link.to_string_lossy().into_owned())
        })
        .into()
}

/// What must hold of every thread, whichever user started it.
fn assert_powerless(jailed: &Jailed, user: u32) {
    let threads = jailed.threads();
    assert!(threads.len() >= 5, "{threads:?}");
    for thread in threads {
        let status = jailed.status(&thread);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {thread}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{thread}");
        assert_eq!(status["Seccomp"], "2", "{thread}");
        let ids: Vec<_> = status["Uid"].split_whitespace().collect();
        assert_eq!(ids, vec![user.to_string(); 4], "{thread}");
    }
}

fn assert_walled_in(jailed: &Jailed) {
    let (ours, theirs) = (namespaces("self"), namespaces(&jailed.pid.to_string()));
    for (kind, namespace) in &theirs {
        assert_ne!(namespace, &ours[kind]);
    }
    // One mount, read-only, with nothing in it.
    let mounts = jailed.file("mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
    assert!(mounts.contains(" - tmpfs "), "{mounts}");
    let root = format!("/proc/{}/root", jailed.pid);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let error = fs::write(format!("{root}/x"), "").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(jailed.file("net/dev").lines().count(), 3, "only loopback");
}

#[test]
#[ignore = "needs root"]
fn a_running_hull_vmm_holds_nothing_but_what_it_was_given() {
    let jailed = start(&mut jailed::jailer("hull-vmm"));
    let status = jailed.status(".");
    let user: u32 = status["Uid"]
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((FIRST..FIRST + 2 * PAIRS).contains(&user), "{user}");
    assert_eq!(status["Groups"], "");
    assert_eq!(status["NSpid"].split_whitespace().last(), Some("1"));
    assert_powerless(&jailed, user);
    assert_walled_in(&jailed);
    assert_eq!(jailed.file("environ"), "");

    let names: BTreeSet<_> = jailed
        .threads()
        .iter()
        .map(|thread| jailed.file(&format!("{thread}/comm")).trim_end().to_owned())
        // KVM's own, where it has one: it runs no code of ours.
        .filter(|name| !name.starts_with("kvm-nx-lpage"))
        .collect();
    let expected = [
        "blk-layers",
        "blk-scratch",
        "fs",
        "hull-vmm",
        "vcpu0",
        "vcpu1",
    ];
    assert_eq!(names, BTreeSet::from(expected.map(str::to_owned)));

    assert_limited(&jailed);
    let limits = jailed.file("limits");
    assert!(
        limits.contains("Max processes             128                  128 "),
        "{limits}"
    );
    jailed.stop();
}

/// The limits that every hull-vmm has.
fn assert_limited(jailed: &Jailed) {
    let limits = jailed.file("limits");
    // 4096 and those of shares, unless the host's own are fewer.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = files.maximum.unwrap_or(u64::MAX).min(4096 + (64 << 10));
    let files = format!("Max open files            {files:<20} {files:<20} ");
    for line in [
        "Max core file size        1                    1 ",
        "Max locked memory         0                    0 ",
        // That of its disk.
        "Max file size             1048576              1048576 ",
        &files,
        "Max msgqueue size         0                    0 ",
        "Max realtime priority     0                    0 ",
    ] {
        assert!(limits.contains(line), "{line} is not in\n{limits}");
    }
}

#[test]
#[ignore = "needs root"]
fn every_descriptor_is_accounted_for() {
    let jailed = start(&mut jailed::jailer("hull-vmm"));
    assert_every_descriptor_accounted_for(&jailed);
    jailed.stop();
}

fn assert_every_descriptor_accounted_for(jailed: &Jailed) {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", jailed.pid)).unwrap() {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap();
        let target = target.to_string_lossy();
        let number = entry.file_name().into_string().unwrap();
        let kind = match &*target {
            "/dev/null" => "null",
            target if target.starts_with("socket:") => "socket",
            target if target.starts_with("pipe:") => "pipe",
            target if target.ends_with("(deleted)") => "disk or kernel",
            target if target.starts_with("anon_inode:kvm-vcpu:") => "vcpu",
            target => target.trim_start_matches("anon_inode:"),
        };
        match number.as_str() {
            "0" | "1" | "2" => assert_eq!(kind, "null"),
            "3" => assert_eq!(kind, "socket"),
            "4" => assert_eq!(kind, "pipe"),
            _ => {}
        }
        *found.entry(kind.to_owned()).or_default() += 1;
    }
    let mut count = |kind: &str| found.remove(kind).unwrap_or_default();
    assert_eq!(count("null"), 3);
    assert_eq!(count("socket"), 1, "control");
    assert_eq!(count("pipe"), 2, "last words and console");
    assert_eq!(count("disk or kernel"), 2, "the kernel's file is closed");
    assert_eq!(count("kvm-vm"), 1);
    assert_eq!(count("vcpu"), 2);
    // The event loop's and one for each disk's thread; counters of devices; statistics. Nothing that has a name.
    for harmless in ["[eventpoll]", "[eventfd]"] {
        assert!(count(harmless) > 0);
    }
    found.retain(|kind, _| !kind.starts_with("kvm-") && !kind.starts_with("[kvm-"));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
#[ignore = "needs root"]
fn each_vm_has_a_user_of_its_own() {
    let jails = [(); 3].map(|()| start(&mut jailed::jailer("hull-vmm")));
    let users: BTreeSet<_> = jails
        .iter()
        .map(|jailed| jailed.status(".")["Uid"].clone())
        .collect();
    assert_eq!(users.len(), 3, "{users:?}");
    jails.into_iter().for_each(Jailed::stop);
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_gets_the_same_jail_but_for_the_user() {
    const USER: u32 = 54321;
    let jailed = start(jailed::jailer("hull-vmm").uid(USER).gid(USER));
    assert_powerless(&jailed, USER);
    assert_walled_in(&jailed);
    // Counted in its own namespace, on a kernel that does.
    let limits = jailed.file("limits");
    assert!(
        limits.contains("Max processes             128 "),
        "{limits}"
    );
    jailed.stop();
}

#[test]
#[ignore = "needs root"]
fn hull_vmm_dies_with_its_monitor() {
    let mut jailed = start(&mut jailed::jailer("hull-vmm"));
    jailed.vm.child().kill().unwrap();
    jailed.vm.child().wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let path = format!("/proc/{}/status", jailed.pid);
    while fs::read_to_string(&path).is_ok_and(|status| !status.contains("State:\tZ")) {
        assert!(Instant::now() < deadline, "it lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs root"]
fn a_jail_that_cannot_be_made_says_at_which_step() {
    let (_ours, theirs) = sys::packet::pair().unwrap();
    let inherit = sys::spawn::Inherit {
        descriptors: &[(theirs.as_fd(), protocol::vmm::CONTROL_FD)],
        ..Default::default()
    };
    let mut command = Command::new(jailed::programs().join("jailer"));
    command.arg("/etc/passwd").stdout(Stdio::piped());
    let mut child = sys::spawn::spawn(&mut command, &inherit).unwrap();
    let mut words = Words::of(&mut child);
    words.expect("pid");
    assert!(words.expect("ended").contains("exit_status: 71"));
    let said = words.expect("words");
    assert!(
        said.starts_with("its jail could not execute its program: Permission denied"),
        "{said}"
    );
    child.wait().unwrap();
}

/// A jailer that runs in a user namespace in which no other can be made: as root of it, or as this ordinary user.
fn where_user_namespaces_are_forbidden(user: Option<u32>, policy: &str) -> Command {
    let jailer = jailed::jailer("hull-vmm");
    let mut command = Command::new("unshare");
    let mut become_user = "";
    match user {
        None => _ = command.args(["--user", "--map-root-user"]),
        Some(user) => {
            // Its capabilities in the namespace, which it owns, are kept only to forbid others.
            command.args(["--user", "--keep-caps"]);
            command.args([format!("--map-user={user}"), format!("--map-group={user}")]);
            command.uid(user).gid(user);
            become_user = "setpriv --ambient-caps=-all --inh-caps=-all";
        }
    }
    command.args(["sh", "-c"]).arg(format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec {become_user} {} {} {policy}",
        jailer.get_program().display(),
        jailer.get_args().next().unwrap().display(),
    ));
    command.stdout(Stdio::piped());
    command
}

fn assert_refused_without_user_namespaces(user: Option<u32>) {
    let (_socket, theirs) = sys::packet::pair().unwrap();
    let inherit = sys::spawn::Inherit {
        descriptors: &[(theirs.as_fd(), protocol::vmm::CONTROL_FD)],
        ..Default::default()
    };
    let mut command = where_user_namespaces_are_forbidden(user, "");
    let mut child = sys::spawn::spawn(&mut command, &inherit).unwrap();
    let refused = Words::of(&mut child).expect("refused");
    assert!(
        refused.contains("does not allow user namespaces"),
        "{refused}"
    );
    assert!(
        refused.contains("set HULL_JAIL=no-user-namespace"),
        "{refused}"
    );
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root"]
fn without_user_namespaces_hull_refuses_unless_told_otherwise() {
    assert_refused_without_user_namespaces(None);
    let jailed = start(&mut where_user_namespaces_are_forbidden(
        None,
        "no-user-namespace",
    ));
    let status = jailed.status(".");
    assert_eq!(status["CapEff"], "0000000000000000");
    assert_eq!(status["Seccomp"], "2");
    assert_eq!(jailed.file("mountinfo").lines().count(), 1);
    assert_eq!(status["NSpid"].split_whitespace().last(), Some("1"));
    jailed.stop();
}

#[test]
#[ignore = "needs root"]
fn an_ordinary_user_without_user_namespaces_is_refused_or_keeps_what_needs_none() {
    const USER: u32 = 65534;
    assert_refused_without_user_namespaces(Some(USER));
    let jailed = start(&mut where_user_namespaces_are_forbidden(
        Some(USER),
        "no-user-namespace",
    ));
    for thread in jailed.threads() {
        let status = jailed.status(&thread);
        // The bounding set is not this user's to empty; no_new_privs leaves it without meaning.
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status[set], "0000000000000000", "{set} of {thread}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{thread}");
        assert_eq!(status["Seccomp"], "2", "{thread}");
        let user = USER.to_string();
        assert!(
            status["Uid"].split_whitespace().all(|id| id == user),
            "{thread}: {status:?}"
        );
    }
    assert_every_descriptor_accounted_for(&jailed);
    assert_limited(&jailed);
    assert_eq!(jailed.file("environ"), "");
    // What it does without: docs/jail.md says so.
    let (ours, mut theirs) = (namespaces("self"), namespaces(&jailed.pid.to_string()));
    theirs.insert("user".to_owned(), ours["user"].clone());
    assert_eq!(theirs, ours);
    jailed.stop();
}
