//! What images are made of, and what is loaded into guests.

use super::Seeds;
use crate::tar;

pub(super) fn all() -> Seeds {
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
            tar::entry("x", b'1', b"", "empty"),
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
            "record",
            vec![
                // Some text, ten zeros, and 4096 bytes of the image from its first file on.
                [
                    &[0, 17, 16, 0, 0, 0, 7][..],
                    b"literal",
                    &[2, 10, 1, 0, 0x80, 0x20],
                ]
                .concat(),
                // A copy from one block before where it is expected, beyond the image's end.
                vec![0, 0, 16, 0, 0, 1, 0xff, 0x3f, 0x80, 0x80, 0x04],
                // The beginning of a whole one.
                b"\x01HULLTAR1\x03\0\0\0\0\0\0\0".to_vec(),
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
