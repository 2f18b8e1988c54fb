//! Seeds: for each target some inputs that reach far, written in the coding that it reads. `src/bin/seeds.rs` puts them
//! into `fuzz/seeds`.

use crate::guest::op;
use crate::tar;

/// An input that grows.
#[derive(Default, Clone)]
struct Seed(Vec<u8>);

impl Seed {
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A device's own first bytes, and a driver that takes every feature and the largest queues.
    fn driver(first: &[u8]) -> Self {
        Self::default()
            .bytes(first)
            .bytes(&[0xff, 0xff, 0xff, 0xff, 0])
    }

    fn op(self, code: u8, fields: &[u8]) -> Self {
        self.bytes(&[code]).bytes(fields)
    }

    /// A chain of a readable piece, room, and a piece across the border of two regions.
    fn chain(self, code: u8, queue: u8) -> Self {
        self.op(code, &[queue, 3])
            .bytes(&[0, 5])
            .bytes(b"hello")
            .bytes(&[3, 0x40, 0])
            .bytes(&[7, 0x10])
            .bytes(&[0x20])
            .op(op::KICK, &[queue])
    }

    fn broken(self, queue: u8) -> Self {
        // A loop, an index outside of the table, and an available index that is impossible.
        self.op(op::DESCRIPTOR, &[queue, 0])
            .bytes(&[0, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0])
            .op(op::DESCRIPTOR, &[queue, 1])
            .bytes(&[0, 0x80, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0xff, 0xff])
            .op(op::AVAILABLE, &[queue, 1, 0])
            .op(op::KICK, &[queue])
            .op(op::AVAILABLE, &[queue, 0, 0x80])
            .op(op::KICK, &[queue])
            .op(op::READ, &[0x70, 0])
            .op(op::BRING_UP, &[0xff, 0xff, 0xff, 0xff, 2])
    }

    fn saved(self) -> Self {
        self.op(op::SAVE, &[0])
            .op(op::SAVE, &[1, 0, 9])
            .bytes(&7u64.to_le_bytes())
    }
}

/// All seeds, by target.
pub fn all() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut all = devices();
    all.extend(images());
    all.extend(documents());
    all
}

fn devices() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let queues = |first: &[u8], queue: u8| {
        [
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .chain(op::INDIRECT, queue),
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .broken(queue)
                .chain(op::CHAIN, queue),
            Seed::driver(first)
                .chain(op::CHAIN, queue)
                .saved()
                .chain(op::CHAIN, queue),
        ]
    };
    let request = |kind: u8, sector: u16| {
        let [low, high] = sector.to_le_bytes();
        vec![kind, low, high]
    };
    let range = |sector: u64, sectors: u32, flags: u32| {
        [
            &sector.to_le_bytes()[..],
            &sectors.to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    };
    let mut blk: Vec<Seed> = queues(&[0], 0).into();
    for kind in [0, 1] {
        let seed = Seed::driver(&[kind])
            .op(op::REQUEST, &[&request(1, 3)[..], &[0, 4]].concat())
            .op(op::REQUEST, &[&request(0, 3)[..], &[0, 4]].concat())
            .op(op::REQUEST, &[&request(4, 0)[..], &[0]].concat())
            .op(op::REQUEST, &[&request(8, 0)[..], &[20, 0]].concat())
            .op(
                op::REQUEST,
                &[&request(11, 0)[..], &[16], &range(1, 2, 0)].concat(),
            )
            .op(
                op::REQUEST,
                &[&request(13, 0)[..], &[16], &range(5, 9, 1)].concat(),
            )
            .op(op::HOST, &[0])
            .op(op::REQUEST, &[&request(0, 0x3f)[..], &[0, 0x20]].concat())
            .op(
                op::REQUEST,
                &[&request(0x80, 0)[..], &[0xff; 8], &[0, 2]].concat(),
            );
        blk.push(seed);
    }
    let mut net: Vec<Seed> = queues(&[1], 1).into();
    net.push(
        Seed::driver(&[1])
            .op(op::BUFFERS, &[0, 8, 0, 6])
            .op(op::HOST, &[1, 0x40, 0])
            .op(op::HOST, &[1, 0, 0x30])
            .op(op::HOST, &[2, 100, 0, 20])
            .op(op::BUFFERS, &[0, 40, 50, 0])
            .op(op::REQUEST, &[1, 1, 200, 0])
            .op(op::HOST, &[0])
            .op(op::HOST, &[4, 2])
            .op(op::REQUEST, &[1, 1, 200, 0]),
    );
    let packet =
        |op: u8, payload: &[u8]| [&[0, op, 1, 0, payload.len() as u8][..], payload].concat();
    let mut vsock: Vec<Seed> = queues(&[], 1).into();
    vsock.push(
        Seed::driver(&[])
            .op(op::BUFFERS, &[0, 16, 0, 16])
            .op(op::REQUEST, &packet(1, b""))
            .op(op::REQUEST, &packet(5, b"data"))
            .op(op::HOST, &[1, 0])
            .op(op::HOST, &[2, 0, 0, 16])
            .op(op::REQUEST, &packet(7, b""))
            .op(op::REQUEST, &packet(6, b""))
            .op(op::HOST, &[5, 0])
            .op(op::REQUEST, &[8, 4, 1, 0, 0, 3]),
    );
    vsock.push(
        Seed::driver(&[])
            .op(op::BUFFERS, &[0, 16, 0, 16])
            .op(op::BUFFERS, &[2, 2, 4, 0])
            .op(op::REQUEST, &packet(1, b""))
            .op(op::SAVE, &[0])
            .op(op::HOST, &[0, 1])
            .op(op::REQUEST, &packet(3, b""))
            .op(op::HOST, &[6, 0]),
    );
    let rng: Vec<Seed> = queues(&[], 0).into();
    let mut console: Vec<Seed> = queues(&[], 1).into();
    console.push(
        Seed::driver(&[])
            .op(op::CHAIN, &[1, 1, 0, 4, b'a', b'\n', b'b', b'\n'])
            .op(op::KICK, &[1])
            .op(op::HOST, &[9, 0]),
    );
    let mut mmio: Vec<Seed> = queues(&[], 0).into();
    mmio.push(
        Seed::driver(&[])
            .op(op::WRITE, &[0x70 / 4, 0, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 3, 0, 0, 0])
            .op(op::WRITE, &[0x24 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x20 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 11, 0, 0, 0])
            .op(op::WRITE, &[0x30 / 4, 2, 0, 0, 0])
            .op(op::WRITE, &[0x38 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x90 / 4, 0, 0x10, 0, 0])
            .op(op::WRITE, &[0x44 / 4, 1, 0, 0, 0])
            .op(op::WRITE, &[0x70 / 4, 15, 0, 0, 0])
            .op(op::ACCESS, &[0, 1, 1, 2, 3])
            .op(op::READ, &[0xfc, 0]),
    );
    let seeds = |seeds: Vec<Seed>| seeds.into_iter().map(|seed| seed.0).collect();
    vec![
        ("blk", seeds(blk)),
        ("net", seeds(net)),
        ("vsock", seeds(vsock)),
        ("rng", seeds(rng)),
        ("console", seeds(console)),
        ("mmio", seeds(mmio)),
        (
            "bus",
            vec![vec![
                1, 3, 0x80, 1, 0, b'x', 0, 5, 9, 4, 0xfe, 0x15, 4, 1, 0, 0, 0, 0x34, 0, 0x20, 0, 0,
                0, 0, 0, 0, 0, 0,
            ]],
        ),
        (
            "segments",
            vec![vec![
                0, 0, 0, 9, 1, 0, 1, 200, 5, 7, 0, 7, 3, 0, 4, 2, 0, 2, 1, 0, 3, 100, 0, 6, 50, 0,
            ]],
        ),
    ]
}

fn images() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let pax = |records: &[(&str, &str)]| {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut len = rest.len() + 1;
            while len != rest.len() + len.to_string().len() {
                len += 1;
            }
            text += &format!("{len}{rest}");
        }
        tar::entry("pax", b'x', text.as_bytes(), "")
    };
    let end = vec![0; 1024];
    let layers: Vec<Vec<u8>> = [
        [
            tar::entry("a/b", b'0', b"data", ""),
            tar::entry("c", b'1', b"", "a/b"),
            tar::entry("l", b'2', b"", "../x"),
        ]
        .concat(),
        [
            tar::entry("d/.wh.file", b'0', b"", ""),
            tar::entry("d/e/.wh..wh..opq", b'0', b"", ""),
            tar::entry("dev", b'3', b"", ""),
            tar::entry("x", b'1', b"", "d/file"),
        ]
        .concat(),
        [
            pax(&[
                ("path", "long/name"),
                ("SCHILY.xattr.user.a", "b"),
                ("mtime", "1.5"),
            ]),
            tar::entry("short", b'0', &[7; 600], ""),
        ]
        .concat(),
        [
            tar::entry("././@LongLink", b'L', b"a/very/long/name\0", ""),
            tar::entry("short", b'0', b"x", ""),
            tar::entry("p", b'6', b"", ""),
        ]
        .concat(),
        [
            pax(&[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.realsize", "100000"),
            ]),
            tar::entry(
                "s",
                b'0',
                &[&b"1\n8192\n5\n"[..], &[0; 503], b"12345"].concat(),
                "",
            ),
        ]
        .concat(),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, tar)| [&[if i == 1 { 2 } else { 4 }][..], &tar, &end].concat())
    .collect();
    let document = |place: u8, text: &str| {
        [
            &[place][..],
            &(text.len() as u16).to_le_bytes(),
            text.as_bytes(),
        ]
        .concat()
    };
    let diff = format!("sha256:{}", "0".repeat(64));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["x"]}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}},"history":[]}}"#
    );
    let oci = [
        &[0][..],
        &document(0, r#"{"imageLayoutVersion":"1.0.0"}"#),
        &document(1, r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"@2","size":#2,"platform":{"os":"linux","architecture":"amd64"},"annotations":{"io.containerd.image.name":"docker.io/library/a:b"}}]}"#),
        &document(5, r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"@3","size":#3},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"@4","size":#4}]}"#),
        &document(5, &config),
        &document(5, "layer"),
    ]
    .concat();
    let docker = [
        &[0][..],
        &document(
            2,
            r#"[{"Config":"config.json","RepoTags":["a/b:c"],"Layers":["a/layer.tar"]}]"#,
        ),
        &document(3, &config),
        &document(4, "layer"),
    ]
    .concat();
    let manifest = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"DIGEST","size":7},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"DIGEST","size":9}]}"#.replace("DIGEST", &diff);
    let index = r#"{"schemaVersion":2,"manifests":[{"digest":"DIGEST","size":1,"platform":{"os":"linux","architecture":"amd64","variant":"v2"}},{"digest":"DIGEST","size":1,"platform":{"os":"unknown","architecture":"unknown"}}]}"#.replace("DIGEST", &diff);
    let tagged = |kind: u8, text: &str| [&[kind][..], text.as_bytes()].concat();
    let gzip = {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&[b'z'; 3000]).expect("into memory");
        encoder.finish().expect("into memory")
    };
    let zstd = zstd::stream::encode_all(&[b'z'; 3000][..], 1).expect("into memory");
    vec![
        ("layer", layers),
        (
            "erofs",
            vec![
                vec![0, 4, 0, 4, 1, 2, 3, 4],
                vec![0, 2, 0x20, 0x10, 9, 9],
                vec![0],
            ],
        ),
        (
            "archive",
            vec![
                oci,
                docker,
                [
                    &[1][..],
                    &tar::entry("manifest.json", b'0', b"[]", ""),
                    &end,
                ]
                .concat(),
            ],
        ),
        (
            "manifest",
            vec![tagged(0, &manifest), tagged(0, &index), tagged(1, &config)],
        ),
        (
            "unpack",
            vec![gzip, zstd, b"BZh9".to_vec(), b"plain".to_vec()],
        ),
        ("kernel", vec![vmlinux(), bzimage()]),
        (
            "initramfs",
            vec![
                [&[0, 0, 0, 0x10, 0, 4, 0][..], b"070701data"].concat(),
                [&[0, 0, 0, 0, 1, 0, 0][..], b"\x1f\x8b\x08rest"].concat(),
            ],
        ),
    ]
}

/// A vmlinux with one segment of two pages at 2 MiB and a note that names its entry.
fn vmlinux() -> Vec<u8> {
    let mut bytes = vec![0; 0x300];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &2u16.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(24, &0x20_0000u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &2u16.to_le_bytes());
    for (index, [kind, offset, address, file, memory]) in [
        [1, 0x1000, 0x20_0000, 0x2010, 0x5000],
        [4, 0x200, 0, 20, 20],
    ]
    .into_iter()
    .enumerate()
    {
        let at = 64 + index * 56;
        put(at, &(kind as u32).to_le_bytes());
        for (field, value) in [
            (8, offset),
            (16, address),
            (24, address),
            (32, file),
            (40, memory),
        ] {
            put(at + field, &u64::to_le_bytes(value));
        }
    }
    put(0x200, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
    put(0x20c, b"Xen\0\x10\0\x20\0");
    [&32u16.to_le_bytes()[..], &bytes].concat()
}

/// A bzImage's setup header (Linux, Documentation/arch/x86/boot.rst), and no more of it than is looked at.
fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &[3, 0]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    [&64u16.to_le_bytes()[..], &bytes].concat()
}

fn documents() -> Vec<(&'static str, Vec<Vec<u8>>)> {
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
    let exited = r#"{"type":"exited","container":"c","status":{"code":3},"oom_killed":false}"#;
    let mut frame = vec![3];
    for message in [reply, failed, exited] {
        frame.extend((message.len() as u32).to_le_bytes());
        frame.extend(message.as_bytes());
    }
    let start = r#"{"type":"start","build":"BUILD","kvm":0,"memory_mib":64,"vcpus":1,"kernel":1,"initramfs":2,"cmdline":"","console":3,"disks":[{"serial":"layers","read_only":true,"extents":[{"file":4,"len_bytes":4096}],"align_bytes":512}],"nets":[{"tap":5,"mac":[2,0,0,0,0,1],"mtu":1500,"offload":false}],"vsock":{"guest_cid":3},"rng":true}"#;
    let requests = [
        r#"{"seq":1,"request":{"mount":{"container":"c","layers":[{"offset_bytes":0,"len_bytes":4096}],"writable":{"type":"disk","serial":"scratch"}}}}"#,
        r#"{"seq":2,"request":{"create":{"container":"c","spec":{"process":{"cwd":"/"}},"user":null,"seccomp":[1,2],"init":true,"stdio":{"type":"pipes","stdin":null,"stdout":{"port":1025,"token":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},"stderr":null},"etc":{"hosts":"x","hostname":null,"resolv_conf":null},"interface":null}}}"#,
        r#"{"seq":3,"request":{"start":{"container":"c"}}}"#,
        r#"{"seq":4,"request":{"shutdown":{"code":0}}}"#,
    ];
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
                .collect(),
        ),
        (
            "to_vmm",
            vec![
                tagged(6, start),
                tagged(1, r#"{"type":"offer_stream","port":1024,"stream":0}"#),
                tagged(0, r#"{"type":"stop"}"#),
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
