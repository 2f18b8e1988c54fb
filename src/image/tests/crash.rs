//! The process is killed, or the disk is full, at every point of a pull or an import: what is
//! served afterwards is whole, and a retry succeeds.
//!
//! The work is done by a child: this test's own program, started again with [`ROLE`] set.

mod support;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::store::{DeleteOptions, Deletion, Error as StoreError};
use image::{Cause, Error, Reference, Source, Store};
use support::images::{Packing, TestImage, layer, noise, tar};
use support::server::Server;
use support::{chain, files, quick, skip};

/// The child's task: `pull` or `import`.
const ROLE: &str = "HULL_TEST_ROLE";
/// The store's folder.
const ROOT: &str = "HULL_TEST_ROOT";
/// The reference to pull, or the archive to import.
const WHAT: &str = "HULL_TEST_WHAT";
/// The exit code of a child that found the disk full.
const FULL: i32 = 28;

#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let what = std::env::var(WHAT).unwrap();
    let work = || match role.as_str() {
        "pull" => {
            let store = Store::open(&root)?;
            store.pull(&what.parse().unwrap(), &quick(), &()).map(drop)
        }
        _ => {
            let store = Store::open(&root)?;
            let name: Reference = "app".parse().unwrap();
            store
                .import(Source::Path(Path::new(&what)), Some(&name), &())
                .map(drop)
        }
    };
    let code = match work() {
        Ok(()) => 0,
        Err(error) if is_full(&error) => {
            assert!(error.help().unwrap().contains("free some space"));
            println!("{}", chain(&error));
            FULL
        }
        Err(error) => {
            println!("{}", chain(&error));
            1
        }
    };
    std::process::exit(code);
}

fn is_full(error: &Error) -> bool {
    let error = match (error, error.cause()) {
        (Error::Store(error), _) | (_, Some(Cause::Store(error))) => error,
        _ => return false,
    };
    matches!(
        error,
        StoreError::DiskFull { .. } | StoreError::TooLittleSpace { .. }
    )
}

fn child_command(wrapper: &[&str], role: &str, root: &Path, what: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = wrapper.iter().map(AsRef::as_ref).collect();
    words.push(own.as_os_str());
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command
        .env(ROLE, role)
        .env(ROOT, root)
        .env(WHAT, what)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Three layers, the uppermost with a hard link into the lowest.
fn sample() -> TestImage {
    let mut linked = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o644);
    linked.append_link(&mut header, "copy", "noise").unwrap();
    TestImage::new(vec![
        layer(tar(&[("noise", &noise(1, 300_000))]), Packing::Gzip),
        layer(tar(&[("more", &noise(2, 300_000))]), Packing::None),
        layer(linked.into_inner().unwrap(), Packing::Zstd),
    ])
}

/// What must hold after any interruption.
fn check(root: &Path, image: &TestImage) {
    let store = Store::open(root).unwrap();
    for found in store.images().unwrap() {
        assert_eq!(found.id, image.id());
        let found = store.find(&found.id.hex()).unwrap().unwrap();
        assert_eq!(found.layers.len(), image.layers.len());
        for layer in &found.layers {
            let file = std::fs::File::open(&layer.path).unwrap();
            let reader = image::erofs::Reader::open(file).unwrap();
            assert_eq!(reader.image_bytes(), layer.size_bytes);
        }
        // What is here can leave again: every layer's tar is rebuilt and verified.
        store
            .save(&[&found.id.hex()], &mut std::io::sink(), &())
            .unwrap();
    }
    assert_eq!(files(root, "tmp"), [""; 0]);
    store.repair().unwrap();
    assert_eq!(files(root, "locks"), [""; 0]);
}

fn finish(role: &str, root: &Path, what: &str, image: &TestImage) {
    let status = child_command(&[], role, root, what).status().unwrap();
    assert!(status.success(), "{status}");
    check(root, image);
    let store = Store::open(root).unwrap();
    assert_eq!(store.images().unwrap().len(), 1);
    assert_eq!(files(root, "layers").len(), image.layers.len());
    assert_eq!(files(root, "partial"), [""; 0]);
}

/// The two jobs, ready to be done by children.
fn jobs(folder: &Path, image: &TestImage, server: &Server) -> [(&'static str, String); 2] {
    server.put_image("app", "latest", image);
    let archive = folder.join("app.tar");
    std::fs::write(&archive, image.docker_archive(&[])).unwrap();
    [
        ("pull", format!("{}/app", server.host())),
        ("import", archive.to_str().unwrap().to_owned()),
    ]
}

#[test]
fn a_kill_at_any_time_leaves_a_store_that_is_whole() {
    let (folder, image, server) = (tempfile::tempdir().unwrap(), sample(), Server::honest());
    for (role, what) in jobs(folder.path(), &image, &server) {
        // How long it takes undisturbed, to spread the kills over.
        let started = Instant::now();
        finish(
            role,
            &folder.path().join(format!("{role}-whole")),
            &what,
            &image,
        );
        let whole = started.elapsed();
        let root = folder.path().join(role);
        for step in 0..12 {
            let mut child = child_command(&[], role, &root, &what).spawn().unwrap();
            std::thread::sleep(whole * step / 12);
            child.kill().unwrap();
            child.wait().unwrap();
            check(&root, &image);
        }
        finish(role, &root, &what, &image);
    }
}

#[test]
fn a_kill_at_every_change_of_the_disk_leaves_a_store_that_is_whole() {
    let (folder, image, server) = (tempfile::tempdir().unwrap(), sample(), Server::honest());
    if Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return skip("strace is not installed");
    }
    let calls = [
        "rename,renameat,renameat2",
        "unlink,unlinkat",
        "fsync,fdatasync",
        "pwrite64",
        "fchmod",
        "ftruncate",
    ];
    for (role, what) in jobs(folder.path(), &image, &server) {
        let mut kills = 0;
        for calls in calls {
            // Counted by thread: the nth call of any thread kills them all.
            for when in 1..200 {
                let root = folder.path().join(format!("{role}-{calls}-{when}"));
                let trace = format!("trace={calls}");
                let inject = format!("inject={calls}:signal=KILL:when={when}");
                let wrapper = [
                    "strace",
                    "-f",
                    "-qq",
                    "-o",
                    "/dev/null",
                    "-e",
                    &trace,
                    "-e",
                    &inject,
                ];
                let mut command = child_command(&wrapper, role, &root, &what);
                let status = command.status().unwrap();
                let killed = status.signal() == Some(9) || status.code() == Some(137);
                if status.success() {
                    break;
                }
                if !killed {
                    return skip(&format!("strace cannot trace here: {status}"));
                }
                kills += 1;
                check(&root, &image);
                finish(role, &root, &what, &image);
                std::fs::remove_dir_all(&root).unwrap();
                // Every write of the database is alike after the first dozens.
                if when >= 24 {
                    break;
                }
            }
        }
        assert!(kills > 20, "{kills}");
    }
}

#[test]
fn a_limit_on_file_sizes_is_a_full_disk() {
    let (folder, image, server) = (tempfile::tempdir().unwrap(), sample(), Server::honest());
    for (role, what) in jobs(folder.path(), &image, &server) {
        for kilobytes in [100, 200, 296] {
            let root = folder.path().join(format!("{role}-{kilobytes}"));
            drop(Store::open(&root).unwrap());
            // Blocks of 1 KiB in bash; the signal is ignored so that the call fails instead.
            let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"");
            let status = child_command(&["bash", "-c", &script, "-"], role, &root, &what)
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(FULL), "{role} {kilobytes}");
            check(&root, &image);
            finish(role, &root, &what, &image);
        }
    }
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, kilobytes: u32) -> Tmpfs {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={kilobytes}k");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(path)
            .status();
        assert!(status.unwrap().success());
        Tmpfs(path.to_owned())
    }

    fn grow(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a child that another test is just starting may have its files open for a moment.
        let status = Command::new("umount")
            .arg("-l")
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_at_any_point_leaves_a_store_that_is_whole() {
    let (folder, image, server) = (tempfile::tempdir().unwrap(), sample(), Server::honest());
    for (role, what) in jobs(folder.path(), &image, &server) {
        let mut full = 0;
        for kilobytes in (40..2400).step_by(80) {
            let disk = Tmpfs::mount(
                &folder.path().join(format!("{role}-{kilobytes}")),
                kilobytes,
            );
            let root = disk.0.join("store");
            let status = child_command(&[], role, &root, &what).status().unwrap();
            match status.code() {
                Some(0) => break,
                Some(FULL) => full += 1,
                other => panic!("{role} {kilobytes}: {other:?}"),
            }
            disk.grow();
            check(&root, &image);
            finish(role, &root, &what, &image);
        }
        assert!(full > 5, "{full}");
    }
}

#[test]
#[ignore = "needs root"]
fn an_image_can_be_removed_from_a_full_disk() {
    let (folder, image, server) = (tempfile::tempdir().unwrap(), sample(), Server::honest());
    let disk = Tmpfs::mount(&folder.path().join("disk"), 8 << 10);
    let root = disk.0.join("store");
    for (role, what) in jobs(folder.path(), &image, &server) {
        finish(role, &root, &what, &image);
        let filler = disk.0.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let store = Store::open(&root).unwrap();
        let deleted = store.delete(&image.id().hex(), &DeleteOptions::default());
        assert!(
            deleted
                .unwrap()
                .deletions
                .contains(&Deletion::Deleted(image.id()))
        );
        assert_eq!(files(&root, "layers"), [""; 0]);
        std::fs::remove_file(filler).unwrap();
    }
}

#[test]
fn a_killed_pull_is_taken_up_where_it_was() {
    let (folder, server) = (
        tempfile::tempdir().unwrap(),
        Server::start(|request, mut reply| {
            if request.path.contains("/blobs/") && reply.body.len() > 1 << 20 {
                reply.drip = Some((64 << 10, Duration::from_millis(20)));
            }
            reply
        }),
    );
    let image = TestImage::new(vec![layer(
        tar(&[("noise", &noise(1, 8 << 20))]),
        Packing::None,
    )]);
    server.put_image("app", "latest", &image);
    let (root, what) = (
        folder.path().join("store"),
        format!("{}/app", server.host()),
    );
    let mut command = child_command(&[], "pull", &root, &what);
    let mut child = command.process_group(0).spawn().unwrap();
    let partial = root.join("partial").join(image.layers[0].digest().hex());
    let started = Instant::now();
    while std::fs::metadata(&partial).map_or(0, |file| file.len()) < 1 << 20 {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    finish("pull", &root, &what, &image);
    let requests = server.requests(&image.layers[0].digest().to_string());
    let from = requests[1]
        .header("range")
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap();
    assert!(from.strip_suffix('-').unwrap().parse::<u64>().unwrap() >= 1 << 20);
}
