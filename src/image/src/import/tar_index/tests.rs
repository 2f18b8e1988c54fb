use std::io::Write;

use super::*;

fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn entry(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, b'0', contents.len() as u64, "");
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn index(parts: &[Vec<u8>]) -> Result<Verdict, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&parts.concat()).unwrap();
    TarIndex::read(&file).unwrap()
}

fn archive(parts: &[Vec<u8>]) -> TarIndex {
    match index(parts).unwrap() {
        Verdict::Archive(index) => index,
        Verdict::RootFs => panic!("taken for a root file system"),
    }
}

#[test]
fn files_are_found_where_they_are() {
    let found = archive(&[
        entry("./manifest.json", b"[]"),
        entry("a/b", &[7; 600]),
        entry("c", b""),
    ]);
    assert_eq!(found.find("manifest.json"), Some((512, 2)));
    assert_eq!(found.find("a/b"), Some((1536, 600)));
    assert_eq!(found.find("a/./b"), Some((1536, 600)));
    assert_eq!(found.find("a"), None);
}

#[test]
fn long_names_and_pax_sizes_are_understood() {
    let long = "x".repeat(120);
    let mut gnu = header("././@LongLink", b'L', 121, "");
    gnu.extend(long.as_bytes());
    gnu.resize(1024, 0);
    let record = format!("120 path={}\n", "y".repeat(110));
    let mut extended = header("pax", b'x', 120, "");
    extended.extend(record.as_bytes());
    extended.resize(1024, 0);
    let found = archive(&[
        entry("oci-layout", b""),
        gnu,
        entry("short", b"1"),
        extended,
        entry("short", b"22"),
    ]);
    assert!(found.find(&long).is_some_and(|(_, size)| size == 1));
    assert!(
        found
            .find(&"y".repeat(110))
            .is_some_and(|(_, size)| size == 2)
    );
}

#[test]
fn links_lead_to_files_inside_only() {
    let link = |name: &str, target: &str| header(name, b'2', 0, target);
    let found = archive(&[
        entry("manifest.json", b""),
        entry("a/layer.tar", b"1"),
        link("b/layer.tar", "../a/layer.tar"),
        link("c/layer.tar", "../../etc/passwd"),
        link("d/layer.tar", "/etc/passwd"),
        link("e/layer.tar", "../b/layer.tar"),
    ]);
    assert_eq!(found.find("b/layer.tar"), found.find("a/layer.tar"));
    for name in [
        "c/layer.tar",
        "d/layer.tar",
        "e/layer.tar",
        "../a/layer.tar",
    ] {
        assert_eq!(found.find(name), None, "{name}");
    }
}

#[test]
fn hostile_and_broken_tars_are_refused() {
    let first = || entry("manifest.json", b"");
    assert!(matches!(
        index(&[entry("../x", b"")]),
        Err(Error::UnsafeName { .. })
    ));
    assert!(matches!(
        index(&[first(), entry("/etc/x", b"")]),
        Err(Error::UnsafeName { .. })
    ));
    assert!(matches!(index(&[vec![1; 512]]), Err(Error::NotAnImage)));
    assert!(matches!(index(&[]), Err(Error::NotAnImage)));
    assert!(matches!(
        index(&[first(), vec![1; 512]]),
        Err(Error::Malformed { offset: 512 })
    ));
    assert!(matches!(
        index(&[first(), vec![0; 100]]),
        Err(Error::Malformed { .. })
    ));
    let beyond = header("x", b'0', 1 << 30, "");
    assert!(matches!(
        index(&[first(), beyond]),
        Err(Error::Malformed { .. })
    ));
    let mut long = header("x", b'L', 1 << 20, "");
    long.resize(512 + (1 << 20), b'a');
    assert!(matches!(index(&[long]), Err(Error::HeaderTooLarge { .. })));
}

#[test]
fn a_root_file_system_is_told_from_an_archive() {
    let parts = [entry("manifest.json", b""), entry("etc/passwd", b"")];
    assert!(matches!(index(&parts), Ok(Verdict::RootFs)));
    assert!(matches!(index(&[entry("hello", b"")]), Ok(Verdict::RootFs)));
    let head = |parts: &[Vec<u8>]| begins_archive(&parts.concat());
    assert!(head(&[entry("blobs/sha256/x", b"")]).unwrap());
    assert!(head(&[header("./", b'5', 0, ""), entry("./oci-layout", b"")]).unwrap());
    assert!(head(&[entry(&format!("{}.json", "a".repeat(64)), b"")]).unwrap());
    assert!(!head(&[header("./", b'5', 0, ""), header("./bin/", b'5', 0, "")]).unwrap());
    assert!(head(&[vec![3; 512]]).is_err());
    assert!(head(&[vec![]]).is_err());
}

#[test]
fn numbers_in_base_256_are_read_at_any_width_and_never_overflow() {
    let wide = [&[0x80][..], &[0; 9], &[1, 2]].concat();
    assert_eq!(number(&wide), Some(0x102));
    assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(0x102));
    assert_eq!(number(&[0xff; 8]), None);
    assert_eq!(number(&[0xff; 12]), None);
    assert_eq!(number(&[&[0x80][..], &[0xff; 11]].concat()), None);
}

#[test]
fn a_checksum_in_base_256_is_a_wrong_one() {
    let mut block = header("manifest.json", b'0', 0, "");
    block[148] = 0x80;
    assert!(matches!(index(&[block]), Err(Error::NotAnImage)));
}
