//! The kernel's view of a converted layer against GNU tar's own extraction of the same tar.

use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::*;

/// A mounted file system, unmounted at the end.
pub(super) struct Mounted(pub(super) PathBuf);

impl Mounted {
    pub(super) fn new(at: PathBuf, args: &[&str]) -> Mounted {
        std::fs::create_dir(&at).unwrap();
        run(Command::new("mount").args(args).arg(&at));
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(
            status.is_ok_and(|s| s.success()) || std::thread::panicking(),
            "cannot unmount {:?}",
            self.0
        );
    }
}

pub(super) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Converts a tar and mounts the image; by way of a loop device, which every kernel with EROFS
/// allows.
pub(super) fn mount_layer(dir: &Path, name: &str, tar: &[u8]) -> Mounted {
    let image = dir.join(format!("{name}.erofs"));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&image)
        .unwrap();
    convert(tar, &file, &LowerLayers::none(), &Limits::default()).unwrap();
    fsck(&file);
    Mounted::new(
        dir.join(name),
        &["-t", "erofs", "-o", "ro,loop", image.to_str().unwrap()],
    )
}

/// What lstat, readlink, listxattr and read say of everything below a directory. Link counts of
/// directories and sizes of directories are each file system's own.
fn listing(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut pending = vec![root.to_owned()];
    // Inode numbers differ; what must agree is which names share one.
    let mut first_names = std::collections::HashMap::new();
    while let Some(path) = pending.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let mut names = Vec::new();
        let mut content = String::new();
        if meta.is_dir() {
            names = std::fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect();
            names.sort();
            names.reverse();
        } else if meta.is_symlink() {
            content = format!("-> {:?}", path.read_link().unwrap());
        } else if meta.is_file() {
            content = format!("{} bytes, sum {}", meta.len(), sum(&path));
        } else {
            content = format!("device {}", meta.rdev());
        }
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let first = first_names
            .entry(meta.ino())
            .or_insert_with(|| name.clone());
        all.push(format!(
            "{name:?} = {first:?} {:o} {}:{} {}.{:09} links {links} {content} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&path),
        ));
        pending.extend(names);
    }
    all
}

fn sum(path: &Path) -> u64 {
    let data = std::fs::read(path).unwrap();
    data.iter().fold(0, |sum: u64, &byte| {
        (sum.rotate_left(7) ^ u64::from(byte)).wrapping_mul(31)
    })
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 65536];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (
                String::from_utf8_lossy(name).into_owned(),
                value[..len].to_vec(),
            )
        })
        .collect();
    all.sort();
    all
}

/// A tree with one of everything.
fn make_tree(root: &Path) {
    let write = |name: &str, data: &[u8]| std::fs::write(root.join(name), data).unwrap();
    let node = |name: &str, kind: FileType, device: u64| {
        rustix::fs::mknodat(
            CWD,
            root.join(name),
            kind,
            Mode::from_raw_mode(0o640),
            device,
        )
        .unwrap();
    };
    std::fs::create_dir_all(root.join("dir/below")).unwrap();
    for (name, len) in [
        ("empty", 0),
        ("one", 1),
        ("block", 4096),
        ("block-and", 4097),
        ("large", 3 << 20),
    ] {
        write(
            name,
            &(0..len)
                .map(|i| (i * 7 % 255 + 1) as u8)
                .collect::<Vec<_>>(),
        );
    }
    for i in 0..3000 {
        write(&format!("dir/name number {i}"), b"");
    }
    let long = "n".repeat(255);
    std::fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    write(&format!("{long}/{long}/{long}"), b"deep");
    std::fs::hard_link(root.join("one"), root.join("dir/one again")).unwrap();
    std::fs::hard_link(root.join("one"), root.join("a third")).unwrap();
    symlink("../nowhere", root.join("dir/link")).unwrap();
    symlink("x/".repeat(2000), root.join("long link")).unwrap();
    std::fs::hard_link(root.join("dir/link"), root.join("same link")).unwrap();
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node(
        "disk",
        FileType::BlockDevice,
        rustix::fs::makedev(259, 70_000),
    );
    node("pipe", FileType::Fifo, 0);
    // A sparse file: data at its start, in its middle and at its end.
    let sparse = File::create(root.join("sparse")).unwrap();
    for at in [0, 1 << 20, (4 << 20) - 5] {
        sparse.write_all_at(b"data!", at).unwrap();
    }
    let empty = File::create(root.join("only a hole")).unwrap();
    empty.set_len(6 << 20).unwrap();
    let set = |name: &str, xattr: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), xattr, value, XattrFlags::empty()).unwrap();
    };
    set("one", "user.text", b"value");
    set("one", "user.binary", b"\0\xff=\n");
    set("dir", "trusted.thing", &[7; 3000]);
    // VFS_CAP_REVISION_2, cap_net_raw=ep.
    set(
        "block",
        "security.capability",
        b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    for (name, uid, gid, mode) in [
        ("one", 1000, 100, 0o4755),
        ("dir", 70_000, 0, 0o3777),
        ("large", u32::MAX - 1, 5, 0),
        ("sparse", 0, 65_536, 0o2611),
    ] {
        std::os::unix::fs::lchown(root.join(name), Some(uid), Some(gid)).unwrap();
        rustix::fs::chmod(root.join(name), Mode::from_raw_mode(mode)).unwrap();
    }
    for (name, seconds, nanoseconds) in [
        ("one", -1_000, 1),
        ("dir", 1, 999_999_999),
        ("dir/link", 5_000_000_000, 7),
        ("", 1_600_000_000, 0),
    ] {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn the_kernel_shows_a_layer_as_gnu_tar_extracts_it() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--xattrs", "--xattrs-include=*"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &[
            "--format=posix",
            "--sparse",
            "--sparse-version=1.0",
            "--xattrs",
            "--xattrs-include=*",
        ],
    ];
    for (i, format) in formats.iter().enumerate() {
        let tar = dir.join(format!("{i}.tar"));
        run(Command::new("tar")
            .arg("-C")
            .arg(&tree)
            .args(*format)
            .arg("-cf")
            .arg(&tar)
            .arg("."));
        let extracted = dir.join(format!("{i}.extracted"));
        std::fs::create_dir(&extracted).unwrap();
        let xattrs = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"];
        run(Command::new("tar")
            .arg("-C")
            .arg(&extracted)
            .args(xattrs)
            .arg(&tar));
        let mounted = mount_layer(dir, &format!("{i}"), &std::fs::read(&tar).unwrap());
        let (ours, theirs) = (listing(&mounted.0), listing(&extracted));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{format:?}");
        }
        assert_eq!(ours.len(), theirs.len(), "{format:?}");
        if format.contains(&"--xattrs") {
            // In this format tar loses nothing, so the original tree can be compared too.
            assert_eq!(ours, listing(&tree));
        }
        std::fs::remove_file(&tar).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn the_kernel_finds_every_name_of_a_large_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let mut archive = Archive::default();
    for i in 0..100_000 {
        archive.add(E {
            path: &format!("dir/{i:x}"),
            ..E::FIFO
        });
    }
    let mounted = mount_layer(temporary.path(), "large", &archive.finish());
    assert_eq!(
        std::fs::read_dir(mounted.0.join("dir")).unwrap().count(),
        100_000
    );
    for i in (0..100_000).step_by(37) {
        assert!(
            mounted
                .0
                .join(format!("dir/{i:x}"))
                .symlink_metadata()
                .unwrap()
                .file_type()
                .is_fifo()
        );
    }
    assert!(mounted.0.join("dir/xyz").symlink_metadata().is_err());
}

#[test]
#[ignore = "needs root"]
fn the_kernel_reads_files_beyond_4_gib_and_holes_of_terabytes() {
    const TIB: u64 = 1 << 40;
    let temporary = tempfile::tempdir().unwrap();
    let mut archive = Archive::default();
    archive.gnu_sparse("huge", 7 * TIB, &[(5 << 30, 4), (6 * TIB, 4)], b"fivesixt");
    archive.gnu_sparse("hole", 9 * TIB, &[], b"");
    let mounted = mount_layer(temporary.path(), "huge", &archive.finish());
    let read = |name: &str, at| {
        let mut bytes = [0xaa; 4];
        File::open(mounted.0.join(name))
            .unwrap()
            .read_exact_at(&mut bytes, at)
            .unwrap();
        bytes
    };
    assert_eq!(mounted.0.join("huge").metadata().unwrap().len(), 7 * TIB);
    assert_eq!(&read("huge", 5 << 30), b"five");
    assert_eq!(&read("huge", 6 * TIB), b"sixt");
    assert_eq!(read("huge", 6 * TIB + 4096), [0; 4]);
    assert_eq!(read("hole", 9 * TIB - 4), [0; 4]);
}

#[test]
#[ignore = "needs root"]
fn the_kernel_reads_xattrs_that_span_blocks() {
    let temporary = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..60_000u32).map(|i| (i % 253) as u8).collect();
    let mut archive = Archive::default();
    let small: &[u8] = b"small";
    let pax = [
        ("SCHILY.xattr.user.a", small),
        ("SCHILY.xattr.user.big", &big),
        ("SCHILY.xattr.user.z", small),
    ];
    archive.add(E {
        path: "file",
        data: b"x",
        pax: &pax,
        ..E::FILE
    });
    archive.add(E {
        path: "dir",
        pax: &pax,
        ..E::DIR
    });
    archive.add(E {
        path: "link",
        link: "file",
        pax: &pax[1..2],
        ..E::SYMLINK
    });
    let mounted = mount_layer(temporary.path(), "xattrs", &archive.finish());
    for name in ["file", "dir"] {
        let expected = [("user.a", small), ("user.big", &big), ("user.z", small)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_vec()));
        assert_eq!(xattrs(&mounted.0.join(name)), expected, "{name}");
    }
    assert_eq!(
        mounted.0.join("link").read_link().unwrap(),
        Path::new("file")
    );
}
