//! What the tables must never say, whatever is added to them.

use super::*;

/// Families without which the jail was designed: sockets made or connected, files opened, programs executed.
const NEVER: &[&str] = &[
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "setsockopt",
    "open",
    "openat",
    "openat2",
    "creat",
    "open_by_handle_at",
    "name_to_handle_at",
    "execve",
    "execveat",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "unshare",
    "setns",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "fsopen",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "userfaultfd",
    "perf_event_open",
    "prlimit64",
    "setrlimit",
    "kill",
    "pidfd_open",
    "pidfd_getfd",
    "memfd_create",
    "memfd_secret",
    "prctl",
    "arch_prctl",
    "seccomp",
    "setuid",
    "capset",
    "personality",
];

#[test]
fn nothing_has_a_call_of_the_forbidden_families() {
    for kind in KINDS {
        let names = names(kind);
        for never in NEVER {
            let excepted = [
                (MONITOR.name, "socketpair"),
                (FILES.name, "openat"),
                (NET.name, "openat"),
                (NET.name, "setsockopt"),
                (NET.name, "socketpair"),
                (NET.name, "accept4"),
                (NET.name, "socket"),
                (NET.name, "connect"),
            ];
            assert!(
                excepted.contains(&(kind.name, *never)) || !names.contains(never),
                "{} allows {never}",
                kind.name
            );
        }
    }
}

#[test]
fn the_speaker_pairs_unix_sockets_alone() {
    let all = MONITOR.calls.iter().copied().flatten();
    let pairs: Vec<_> = all.filter(|call| call.name == "SYS_socketpair").collect();
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].when, When::OneOf(0, &[1]));
}

#[test]
fn hull_net_has_sockets_of_the_internet_alone_and_opens_files_to_be_read() {
    const DOMAINS: &[u64] = &[2, 10];
    const TYPES: &[u64] = &[0x8_0801, 0x8_0802];
    let call = |name| {
        let mut all = NET.calls.iter().copied().flatten();
        let call = all.find(|call| call.name == name).unwrap();
        call.when
    };
    assert_eq!(
        call("SYS_socket"),
        When::EachOf(&[(0, DOMAINS), (1, TYPES)])
    );
    assert_eq!(call("SYS_openat"), When::OneOf(2, &[0xa_8800]));
    const STREAMS: &[(u8, &[u64])] = &[(0, &[1]), (1, &[0x8_0001])];
    assert_eq!(call("SYS_socketpair"), When::EachOf(STREAMS));
    assert_eq!(call("SYS_fcntl"), When::OneOf(1, &[3, 4]));
    assert_eq!(call("SYS_recvmsg"), When::OneOf(2, &[0x4000_0000]));
}

#[test]
fn hull_net_sets_no_option_that_moves_a_socket() {
    // SO_BINDTODEVICE, SO_MARK, IP_TRANSPARENT and their like are of none of these levels and names.
    let all = NET.calls.iter().copied().flatten();
    let set: Vec<_> = all
        .filter(|call| call.name == "SYS_setsockopt")
        .map(|call| call.when)
        .collect();
    let expected: [&'static [(u8, &'static [u64])]; 2] =
        [&[(1, &[1]), (2, &[7, 9, 13])], &[(1, &[6]), (2, &[1])]];
    assert_eq!(set, expected.map(When::EachOf));
}

#[test]
fn the_lists_are_shorter_than_firecrackers() {
    // Firecracker's published counts on x86-64: 50 for its main thread, 27 for a vCPU.
    assert!(names(&MAIN).len() < 50);
    assert!(names(&VCPU).len() < 27);
    assert!(names(&BLOCK).len() < 27);
    assert!(names(&FS).len() < 27);
}

#[test]
fn whatever_takes_a_command_has_its_commands_listed() {
    for kind in KINDS {
        for call in kind.calls.iter().copied().flatten().chain(kind.development) {
            let name = call.name.strip_prefix("SYS_").unwrap();
            if [
                "ioctl", "fcntl", "mmap", "mprotect", "madvise", "tkill", "tgkill",
            ]
            .contains(&name)
            {
                assert_ne!(call.when, When::Always, "{name} of {}", kind.name);
            }
        }
    }
}

#[test]
fn every_kind_has_a_program() {
    for kind in KINDS {
        let program = program(kind);
        assert!(!program.is_empty() && program.len().is_multiple_of(8));
        // It ends with what happens to everything else: SECCOMP_RET_TRAP.
        let last = &program[program.len() - 4..];
        assert_eq!(last, 0x0003_0000u32.to_ne_bytes());
    }
}

/// The table of `docs/jail.md` between its marks.
fn table() -> String {
    let mut table = String::from("| Thread | Calls | Which |\n|---|---|---|\n");
    for kind in KINDS {
        let mut calls: Vec<_> = kind.calls.iter().copied().flatten().collect();
        calls.sort_by_key(|call| call.name);
        let described: Vec<_> = calls.iter().map(|call| describe(call)).collect();
        let line = format!(
            "| {} | {} | {} |\n",
            kind.name,
            names(kind).len(),
            described.join(", ")
        );
        table.push_str(&line);
    }
    table
}

fn describe(call: &Call) -> String {
    let name = call.name.strip_prefix("SYS_").unwrap();
    match call.when {
        When::Always => format!("`{name}`"),
        When::OneOf(argument, values) => {
            let values: Vec<_> = values.iter().map(|value| format!("{value:#x}")).collect();
            format!("`{name}` (argument {argument}: {})", values.join(" or "))
        }
        When::EachOf(arguments) => {
            let conditions = arguments.iter().map(|(argument, values)| {
                let values: Vec<_> = values.iter().map(|value| format!("{value:#x}")).collect();
                format!("argument {argument}: {}", values.join(" or "))
            });
            format!("`{name}` ({})", conditions.collect::<Vec<_>>().join(", "))
        }
        When::Without(argument, bits) => {
            format!("`{name}` (argument {argument} without {bits:#x})")
        }
        When::PlainMemory(_) => format!("`{name}` (private, anonymous, not executable)"),
    }
}

#[test]
fn the_documentation_shows_the_tables_as_they_are() {
    const BEGIN: &str = "<!-- filters: begin -->\n";
    const END: &str = "<!-- filters: end -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/jail.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document
        .split_once(BEGIN)
        .expect("the mark before the table");
    let (shown, after) = rest.split_once(END).expect("the mark after the table");
    if std::env::var_os("HULL_UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
    } else {
        assert_eq!(shown, table(), "run this test with HULL_UPDATE_DOCS=1");
    }
}
