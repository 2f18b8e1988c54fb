use super::*;
use crate::capabilities;

/// Runs a program as the kernel would, on one call.
fn verdict(program: &[u8], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&nr.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (i, arg) in args.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
    }
    let (mut pc, mut a) = (0usize, 0u32);
    loop {
        let i = &program[pc * 8..pc * 8 + 8];
        let (code, yes, no) = (
            u16::from_ne_bytes([i[0], i[1]]),
            i[2] as usize,
            i[3] as usize,
        );
        let k = u32::from_ne_bytes([i[4], i[5], i[6], i[7]]);
        pc += 1;
        let mut jump = |taken: bool| pc += if taken { yes } else { no };
        match code {
            0x20 => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().unwrap()),
            0x54 => a &= k,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            0x05 => pc += k as usize,
            0x06 => return k,
            other => panic!("instruction {other:#x} at {}", pc - 1),
        }
    }
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const VSOCK_REFUSED: u32 = 0x0005_0000 | libc::EAFNOSUPPORT as u32;

fn default_program() -> Vec<u8> {
    compile(
        &Seccomp::Default,
        &capabilities::effective(&[], &[]).unwrap(),
        None,
    )
    .unwrap()
}

#[test]
fn vsock_sockets_are_refused_by_every_profile_on_every_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
    let programs = [
        default_program(),
        compile(&Seccomp::Unconfined, &[], None).unwrap(),
        compile(&Seccomp::File(file), &[], None).unwrap(),
    ];
    for program in &programs {
        let vsock = [40, 1, 0, 0, 0, 0];
        let inet = [2, 1, 0, 0, 0, 0];
        assert_eq!(verdict(program, X86_64, 41, vsock), VSOCK_REFUSED);
        // The kernel takes the domain as an int: the upper half says nothing.
        assert_eq!(
            verdict(program, X86_64, 41, [40 | 1 << 40, 1, 0, 0, 0, 0]),
            VSOCK_REFUSED
        );
        assert_eq!(
            verdict(program, X86_64, 41 | 0x4000_0000, vsock),
            VSOCK_REFUSED
        );
        assert_eq!(verdict(program, I386, 359, vsock), VSOCK_REFUSED);
        assert_eq!(
            verdict(program, I386, 102, [1, 0, 0, 0, 0, 0]),
            0x0005_0000 | 38
        );
        assert_eq!(verdict(program, X86_64, 41, inet), ALLOW);
        assert_eq!(
            verdict(program, X86_64, libc::SYS_read as u32, [0; 6]),
            ALLOW
        );
    }
}

#[test]
fn the_default_profile_follows_the_capabilities() {
    let mount_bpf = |caps: &[String]| {
        let program = compile(&Seccomp::Default, caps, None).unwrap();
        verdict(&program, X86_64, libc::SYS_bpf as u32, [0; 6])
    };
    assert_ne!(
        mount_bpf(&capabilities::effective(&[], &[]).unwrap()),
        ALLOW
    );
    assert_eq!(
        mount_bpf(&capabilities::effective(&["SYS_ADMIN".into()], &[]).unwrap()),
        ALLOW
    );
    let program = default_program();
    assert_ne!(
        verdict(&program, X86_64, libc::SYS_io_uring_setup as u32, [0; 6]),
        ALLOW
    );
    assert_ne!(
        verdict(&program, X86_64, libc::SYS_kexec_load as u32, [0; 6]),
        ALLOW
    );
}

#[test]
fn a_profile_of_the_user_s_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls":
        [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
         {"name": "kill", "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}"#;
    std::fs::write(&file, text).unwrap();
    let program = compile(&Seccomp::File(file), &[], None).unwrap();
    assert_eq!(
        verdict(&program, X86_64, libc::SYS_mkdir as u32, [0; 6]),
        0x0005_0005
    );
    assert_eq!(
        verdict(&program, X86_64, libc::SYS_kill as u32, [1, 9, 0, 0, 0, 0]),
        0x8000_0000
    );
    assert_eq!(
        verdict(&program, X86_64, libc::SYS_kill as u32, [1, 15, 0, 0, 0, 0]),
        ALLOW
    );
}

#[test]
fn a_bad_profile_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    let compiled = |text: &str| {
        std::fs::write(&file, text).unwrap();
        compile(&Seccomp::File(file.clone()), &[], None)
    };
    assert!(matches!(compiled("{"), Err(Error::Malformed { .. })));
    assert!(matches!(
        compiled(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#),
        Err(Error::Unsupported(_))
    ));
    assert!(matches!(
        compile(&Seccomp::File("/nonexistent".into()), &[], None),
        Err(Error::Read { .. })
    ));
}

#[test]
fn a_compiled_default_is_kept_and_found_again() {
    let cache = tempfile::tempdir().unwrap();
    let first = compile(&Seccomp::Default, &[], Some(cache.path())).unwrap();
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    assert_eq!(
        compile(&Seccomp::Default, &[], Some(cache.path())).unwrap(),
        first
    );
}

const REFUSED: u32 = 0x0005_0000 | libc::EPERM as u32;
const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS as u32;

#[test]
fn what_docker_keeps_from_containers_is_refused() {
    let program = default_program();
    let verdict =
        |call: libc::c_long, first| verdict(&program, X86_64, call as u32, [first, 0, 0, 0, 0, 0]);
    for call in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_pivot_root,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_reboot,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_open_by_handle_at,
        libc::SYS_swapon,
    ] {
        assert_eq!(verdict(call, 0), REFUSED, "{call}");
    }
    assert_eq!(
        verdict(libc::SYS_clone, libc::CLONE_NEWUSER as u64),
        REFUSED
    );
    assert_eq!(verdict(libc::SYS_clone, libc::SIGCHLD as u64), ALLOW);
    assert_eq!(verdict(libc::SYS_clone3, 0), UNKNOWN);
    assert_eq!(verdict(libc::SYS_socket, libc::AF_ALG as u64), REFUSED);
    for family in [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
    ] {
        assert_eq!(verdict(libc::SYS_socket, family as u64), ALLOW, "{family}");
    }
}

#[test]
fn calls_newer_than_libseccomp_are_decided_by_the_profile_or_unknown() {
    let call = |program: &[u8], number| verdict(program, X86_64, number, [0; 6]);
    let program = default_program();
    let (fchmodat2, statmount, lsm_set_self_attr, later) = (452, 457, 460, 600);
    assert_eq!(call(&program, fchmodat2), ALLOW);
    assert_eq!(call(&program, statmount), ALLOW);
    assert_eq!(call(&program, lsm_set_self_attr), UNKNOWN);
    assert_eq!(call(&program, later), UNKNOWN);
    assert_eq!(verdict(&program, I386, fchmodat2, [0; 6]), ALLOW);
    let admin = capabilities::effective(&["SYS_ADMIN".into()], &[]).unwrap();
    let program = compile(&Seccomp::Default, &admin, None).unwrap();
    assert_eq!(call(&program, lsm_set_self_attr), ALLOW);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["fchmodat2"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
    std::fs::write(&file, text).unwrap();
    let program = compile(&Seccomp::File(file), &[], None).unwrap();
    assert_eq!(call(&program, fchmodat2), 0x8000_0000);
    assert_eq!(call(&program, later), ALLOW);
}
