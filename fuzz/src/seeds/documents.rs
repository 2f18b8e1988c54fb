//! Documents, messages and words.

use super::Seeds;

pub(super) fn all() -> Seeds {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let framed = |first: &[u8], documents: &[&str]| {
        let mut seed = first.to_vec();
        for document in documents {
            seed.push(2);
            seed.extend((document.len() as u16).to_le_bytes());
            seed.extend(document.as_bytes());
        }
        seed
    };
    let reply = r#"{"type":"reply","seq":1,"result":{"Ok":{"type":"started","pid":7}}}"#;
    let failed = r#"{"type":"reply","seq":2,"result":{"Err":{"kind":"other","message":"no"}}}"#;
    let exited = r#"{"type":"exited","process":{"container":"c","exec":null},"status":{"code":3},"oom_killed":false}"#;
    let mut frame = vec![3];
    for message in [reply, failed, exited] {
        frame.extend((message.len() as u32).to_le_bytes());
        frame.extend(message.as_bytes());
    }
    let start = r#"{"type":"start","build":"BUILD","kvm":0,"memory_mib":64,"vcpus":1,"boot":{"type":"kernel","image":1,"initramfs":2,"cmdline":"","save_to":{"state":6,"memory":7}},"console":3,"disks":[{"serial":"layers","read_only":true,"extents":[{"file":4,"len_bytes":4096}],"align_bytes":512,"min_len_bytes":1048576}],"nets":[{"descriptor":5,"wire":"plain","mac":[2,0,0,0,0,1],"mtu":1500}],"vsock":{"guest_cid":3},"rng":true}"#;
    let requests = [
        r#"{"seq":1,"request":{"mount":{"container":"c","root":{"type":"layers","layers":[{"type":"extent","offset_bytes":0,"len_bytes":4096}],"writable":{"type":"disk","serial":"scratch"}}}}}"#,
        r#"{"seq":2,"request":{"create":{"container":"c","spec":{"process":{"cwd":"/"}},"user":null,"seccomp":[1,2],"init":true,"stdio":{"type":"pipes","stdin":null,"stdout":{"port":1025,"token":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},"stderr":null},"etc":{"hosts":"x","hostname":null,"resolv_conf":null},"network":{"type":"none"},"volumes":["/data"]}}}"#,
        r#"{"seq":3,"request":{"start":{"container":"c"}}}"#,
        r#"{"seq":4,"request":{"shutdown":{"code":0}}}"#,
        r#"{"seq":5,"request":{"wake":{"realtime_ns":1800000000000000000,"entropy":[9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9]}}}"#,
    ];
    // A file of one byte in the ustar format; the target puts the checksum right.
    let mut archive = vec![0; 1024];
    archive[..4].copy_from_slice(b"file");
    archive[100..107].copy_from_slice(b"0000644");
    archive[124..135].copy_from_slice(b"00000000001");
    archive[156] = b'0';
    archive[257..265].copy_from_slice(b"ustar\x0000");
    archive[512] = b'x';
    let spec = r#"{"ociVersion":"1.2.0","root":{"path":"r","readonly":true},"process":{"user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3]},"args":["sh"],"env":["A=b"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"]},"rlimits":[{"type":"RLIMIT_NOFILE","hard":9,"soft":5}],"noNewPrivileges":true,"oomScoreAdj":5},"hostname":"h","mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","ro","rbind","size=1m"]}],"linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":10}],"sysctl":{"net.ipv4.ip_forward":"1"},"namespaces":[{"type":"pid"},{"type":"network"},{"type":"mount"},{"type":"uts"}],"devices":[{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":438}],"resources":{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":-1,"access":"r"}],"memory":{"limit":1000,"swap":2000},"cpu":{"shares":512,"quota":5000,"period":10000,"cpus":"0-1"},"pids":{"limit":5},"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":1,"minor":2,"rate":3}]},"hugepageLimits":[{"pageSize":"2MB","limit":4}],"unified":{"memory.high":"1"}},"rootfsPropagation":"rslave","maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]}}"#;
    let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"]}],"syscalls":[{"names":["read","socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}],"includes":{"caps":["CAP_SYS_ADMIN"],"minKernel":"4.8"},"excludes":{"arches":["s390"]}}]}"#;
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/x\n";
    let account = [
        &[7][..],
        b"web:adm",
        &(passwd.len() as u16).to_le_bytes(),
        passwd.as_bytes(),
        b"adm:x:4:web,root\nweb:x:34:\n",
    ]
    .concat();
    let state =
        r#"{"subnet":{"network":"10.213.0.0","prefix_len":20},"mtu":1500,"forwarding":["eth0"]}"#;
    let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\nwlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
    let tagged = |kind: u8, text: &str| [&[kind][..], text.as_bytes()].concat();
    vec![
        ("frame", vec![frame]),
        ("untar", vec![archive]),
        (
            "from_agent",
            vec![
                framed(&[0, 1], &[reply, failed, exited]),
                [&[1][..], &[0; 16]].concat(),
            ],
        ),
        (
            "to_agent",
            requests
                .iter()
                .map(|request| framed(&[], &[request]))
                .chain([framed(&[], &[requests[0], requests[4], requests[0]])])
                .collect(),
        ),
        (
            "to_vmm",
            vec![
                tagged(6, start),
                tagged(1, r#"{"type":"offer_stream","port":1024,"stream":0}"#),
                tagged(0, r#"{"type":"stop"}"#),
                tagged(
                    1,
                    r#"{"type":"add_extents","request":7,"disk":"layers","extents":[{"offset_bytes":2097152,"extent":{"file":0,"len_bytes":4096}}]}"#,
                ),
                tagged(1, r#"{"type":"serve_fs","socket":0}"#),
            ],
        ),
        (
            "from_vmm",
            vec![
                tagged(0, r#"{"type":"running"}"#),
                tagged(
                    0,
                    r#"{"type":"ended","end":{"type":"vcpu_error","vcpu":1,"message":"m"},"report":{"timeline":{},"kvm_stats":{},"user_exits":{},"guest_memory":[],"kernel_memory":[]}}"#,
                ),
                tagged(
                    0,
                    r#"{"type":"report","timeline":{},"kvm_stats":{"exits":7},"user_exits":{"hlt":1},"guest_memory":[[4096,8192]],"kernel_memory":[[0,140737488355328]]}"#,
                ),
                [
                    &[1, 2, 0, 0, 0, 41, 0, 0, 0, 0, 0, 0, 0][..],
                    b"vcpu0",
                    &[0; 240],
                ]
                .concat(),
                [&[1, 1, 0, 0, 0, 99, 0, 0, 0, 1, 0, 0, 0][..], &[0; 244]].concat(),
                [
                    &[1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
                    b"\x1b[2J\n",
                    &[b'x'; 240],
                ]
                .concat(),
                tagged(0, r#"{"type":"added","request":7}"#),
                tagged(0, r#"{"type":"stream_failed","port":1024,"message":"m"}"#),
                tagged(
                    0,
                    r#"{"type":"refused","request":7,"message":"m\u001b[2J"}"#,
                ),
            ],
        ),
        (
            "guest_console",
            texts(&[
                "[ 0.1] Kernel panic - not syncing: x\r\n\x1b[2J\u{9b}1m\n",
                "\u{202e}abc\n",
            ]),
        ),
        (
            "reference",
            texts(&[
                "nginx:1.27",
                "localhost:5000/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "[::1]:5000/x",
                "docker.io/library/a_b__c.d-e:T.1",
            ]),
        ),
        (
            "registry",
            texts(&[
                "Bearer realm=\"https://a/t\",service=\"s\",scope=\"x \\\"y\", Basic realm=z\n//cdn.example/z?a#b\nhttp://u:p@proxy:3128\nhttps://proxy\n.example,10.0.0.0/8,[::1],*.a:80,*",
                "Negotiate\n/blobs/x\n",
            ]),
        ),
        (
            "docker_config",
            texts(&[
                r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"},"ghcr.io":{"identitytoken":"x"}}}"#,
                r#"{"credsStore":"x","credHelpers":{"ghcr.io":"y"}}"#,
            ]),
        ),
        (
            "spec",
            texts(&[spec, r#"{"process":{"cwd":"/","args":["a"]}}"#]),
        ),
        ("passwd", vec![account]),
        (
            "seccomp",
            texts(&[profile, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#]),
        ),
        (
            "state",
            vec![
                tagged(0, state),
                tagged(0, &state.replace("10.213.0.0", "255.255.255.255")),
                tagged(0, &state.replace("eth0", r#"x\" }\n"#)),
                [&[1, 4][..], b"hull", &[8], b"10.0.0.9", b"x"].concat(),
                tagged(2, route),
                tagged(
                    2,
                    r#"{"nftables":[{"rule":{"comment":"hullx","handle":7}}]}"#,
                ),
            ],
        ),
        (
            "resolv_conf",
            texts(&[
                "nameserver 127.0.0.53\nnameserver 10.0.0.1\noptions edns0\n",
                "search lan\nnameserver fe80::1%eth0\n",
            ]),
        ),
    ]
}
