//! What is mounted, what is hidden, what cannot be written.

use serde_json::json;

use crate::fixture::Bundle;

/// The options of a mount, from inside.
fn mounted(bundle: &Bundle, target: &str) -> String {
    let out = bundle.run().ok();
    let line = out
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(target));
    line.unwrap_or_else(|| panic!("{target} is not mounted: {out}"))
        .to_owned()
}

#[test]
#[ignore = "needs root"]
fn dockers_mounts_have_their_options() {
    let bundle = Bundle::new("cat /proc/mounts");
    for (target, kind, options) in [
        (
            "/proc",
            "proc",
            &["rw", "nosuid", "nodev", "noexec", "relatime"][..],
        ),
        (
            "/dev",
            "tmpfs",
            &["rw", "nosuid", "size=65536k", "mode=755"],
        ),
        (
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"],
        ),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
        (
            "/sys/fs/cgroup",
            "cgroup2",
            &["ro", "nosuid", "nodev", "noexec"],
        ),
        ("/dev/mqueue", "mqueue", &["rw", "nosuid"]),
        (
            "/dev/shm",
            "tmpfs",
            &["rw", "nosuid", "nodev", "noexec", "size=65536k"],
        ),
    ] {
        let line = mounted(&bundle, target);
        let fields: Vec<&str> = line.split(' ').collect();
        assert_eq!(fields[2], kind, "{line}");
        for option in options {
            assert!(
                fields[3].split(',').any(|found| found == *option),
                "{option} in {line}"
            );
        }
    }
    assert!(
        !mounted(&bundle, "/dev").contains("relatime"),
        "strictatime"
    );
}

#[test]
#[ignore = "needs root"]
fn devices_are_there_and_are_the_only_ones() {
    let script = "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' $d; done; \
                  readlink fd; readlink stdin; readlink ptmx; ls /dev; echo x > null; head -c 2 zero | wc -c; echo hi > /dev/stderr";
    let run = Bundle::new(script).run();
    assert_eq!(
        run.out,
        "null character special file 1:3 666\nzero character special file 1:5 666\n\
         full character special file 1:7 666\nrandom character special file 1:8 666\n\
         urandom character special file 1:9 666\ntty character special file 5:0 666\n\
         /proc/self/fd\n/proc/self/fd/0\npts/ptmx\n\
         fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n2\n"
    );
    assert_eq!(run.err, "hi\n");
}

#[test]
#[ignore = "needs root"]
fn further_devices_are_made_as_the_document_says() {
    let mut bundle = Bundle::new("stat -c '%F %t:%T %a %u:%g' /dev/net/tun /dev/mine");
    bundle.config["linux"]["devices"] = json!([
        { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 5, "gid": 6 },
        { "path": "/dev/mine", "type": "p" },
    ]);
    assert_eq!(
        bundle.run().ok(),
        "character special file a:c8 600 5:6\nfifo 0:0 666 0:0\n"
    );
}

#[test]
#[ignore = "needs root"]
fn masked_paths_are_empty_and_read_only_ones_cannot_be_written() {
    let script = "cat /proc/uptime | wc -c; ls -A /masked; touch /masked/x 2>&1; cat /masked-file | wc -c; \
                  echo 1 > /proc/sys/kernel/hostname; touch /frozen/x 2>&1; touch /frozen/below/x 2>&1; touch /thawed";
    let bundle = Bundle::new(script)
        .set("/linux/maskedPaths/-", json!("/proc/uptime"))
        .set("/linux/maskedPaths/-", json!("/masked"))
        .set("/linux/maskedPaths/-", json!("/masked-file"))
        .set("/linux/maskedPaths/-", json!("/not/there"))
        .set("/linux/readonlyPaths/-", json!("/frozen"))
        .set(
            "/mounts/-",
            json!({ "destination": "/frozen/below", "type": "tmpfs", "source": "tmpfs" }),
        );
    std::fs::create_dir(bundle.root().join("masked")).unwrap();
    bundle.write("masked/secret", "secret");
    bundle.write("masked-file", "secret");
    std::fs::create_dir(bundle.root().join("frozen")).unwrap();
    let run = bundle.run();
    let ro = "Read-only file system";
    assert_eq!(
        run.out,
        format!(
            "0\ntouch: /masked/x: {ro}\n0\ntouch: /frozen/x: {ro}\ntouch: /frozen/below/x: {ro}\n"
        )
    );
    assert!(
        run.err.contains("/proc/sys/kernel/hostname: Read-only"),
        "{}",
        run.err
    );
}

#[test]
#[ignore = "needs root"]
fn a_read_only_root_can_be_written_only_where_something_is_mounted() {
    let mut bundle = Bundle::new("touch /x 2>&1; touch /etc/x 2>&1; touch /tmp/x && touch /dev/shm/x && echo fine")
        .set("/mounts/-", json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }));
    bundle.config["root"]["readonly"] = json!(true);
    assert_eq!(
        bundle.run().out,
        "touch: /x: Read-only file system\ntouch: /etc/x: Read-only file system\nfine\n"
    );
}

#[test]
#[ignore = "needs root"]
fn bind_mounts_bring_directories_and_files_in() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "from outside").unwrap();
    let path = |name: &str| outside.path().join(name).display().to_string();
    let script = "cat /in/file; echo; cat /etc/deep/er/one; echo; touch /in/new && touch /ro/x 2>&1; cat /proc/mounts | grep /ro";
    let bundle = Bundle::new(script)
        .set("/mounts/-", json!({ "destination": "/in", "type": "bind", "source": path(""), "options": ["rbind", "rw"] }))
        .set("/mounts/-", json!({ "destination": "/ro", "source": path(""), "options": ["bind", "ro", "nosuid", "noexec"] }))
        .set("/mounts/-", json!({ "destination": "/etc/deep/er/one", "type": "none", "source": path("file"), "options": ["bind"] }));
    let out = bundle.run().out;
    assert!(
        out.starts_with("from outside\nfrom outside\ntouch: /ro/x: Read-only file system\n"),
        "{out}"
    );
    assert!(out.contains("ro,nosuid,noexec"), "{out}");
    assert!(outside.path().join("new").exists());
}

#[test]
#[ignore = "needs root"]
fn what_cannot_be_mounted_says_what_and_why() {
    let error = |mount| Bundle::new("").set("/mounts/-", mount).run().err;
    assert_eq!(
        error(
            json!({ "destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["sise=1m"] })
        ),
        "run-bundle: cannot use the mount option sise of tmpfs on /x (tmpfs: Unknown parameter 'sise'): Invalid argument (os error 22)\n"
    );
    assert_eq!(
        error(json!({ "destination": "/x", "type": "nofs", "source": "x" })),
        "run-bundle: cannot mount nofs on /x: No such device (os error 19)\n"
    );
    assert_eq!(
        error(
            json!({ "destination": "/x", "type": "bind", "source": "/not/there", "options": ["bind"] })
        ),
        "run-bundle: cannot bind-mount /not/there on /x: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        error(json!({ "destination": "x", "type": "tmpfs" })),
        "run-bundle: cannot mount x: it must be an absolute path inside the container\n"
    );
}

#[test]
#[ignore = "needs root"]
fn nothing_mounted_inside_is_seen_outside() {
    let bundle = Bundle::new("mount -t tmpfs inside /tmp && grep -c inside /proc/mounts; exit 0");
    let mut bundle = bundle;
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap()
            .push(json!("CAP_SYS_ADMIN"));
    }
    // The fixture looks at the outside's mounts after each run.
    assert_eq!(bundle.run().ok(), "1\n");
}

#[test]
#[ignore = "needs root"]
fn the_files_of_etc_are_ours() {
    let bundle =
        Bundle::new("cat /etc/hosts /etc/resolv.conf; echo more >> /etc/hosts && cat /etc/hosts")
            .option("--hosts", "127.0.0.1 localhost\n")
            .option("--resolv-conf", "nameserver 10.0.0.1\n");
    bundle.write("etc/hosts", "the image's own");
    let out = bundle.run().ok();
    assert_eq!(
        out,
        "127.0.0.1 localhost\nnameserver 10.0.0.1\n127.0.0.1 localhost\nmore\n"
    );
    assert_eq!(
        std::fs::read_to_string(bundle.root().join("etc/hosts")).unwrap(),
        "the image's own"
    );
}

#[test]
#[ignore = "needs root"]
fn mounts_are_made_parents_first_in_whatever_order_they_are_listed() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "of the bind mount").unwrap();
    let bundle = Bundle::new("cat /a/b/bound/file; touch /a/b/x /a/x; grep -c ' /a' /proc/mounts")
        .set("/mounts/-", json!({ "destination": "/a/b/bound", "type": "bind", "source": outside.path(), "options": ["bind"] }))
        .set("/mounts/-", json!({ "destination": "/a/b", "type": "tmpfs", "source": "tmpfs" }))
        .set("/mounts/-", json!({ "destination": "/a", "type": "tmpfs", "source": "tmpfs" }));
    assert_eq!(bundle.run().ok(), "of the bind mount3\n");
}

#[test]
#[ignore = "needs root"]
fn proc_and_sys_are_not_mounted_over() {
    let outside = tempfile::tempdir().unwrap();
    let error = |mount| {
        let bundle = Bundle::new("").set("/mounts/-", mount);
        std::os::unix::fs::symlink("proc", bundle.root().join("link")).unwrap();
        bundle.run().err
    };
    let own = "only the kernel's own file system of this name can be mounted there\n";
    assert_eq!(
        error(json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" })),
        format!("run-bundle: cannot mount tmpfs on /proc: {own}")
    );
    let bind = |place: &str| json!({ "destination": place, "type": "bind", "source": outside.path(), "options": ["rbind"] });
    assert_eq!(
        error(bind("/proc")),
        format!("run-bundle: cannot mount on /proc: {own}")
    );
    let inside = "nothing can be mounted over the kernel's files in /proc\n";
    assert_eq!(
        error(bind("/proc/self")),
        format!("run-bundle: cannot mount bind on /proc/self: {inside}")
    );
    assert_eq!(
        error(bind("/link/sys")),
        format!("run-bundle: cannot mount on /link/sys: {inside}")
    );
    // Allowed: a file of others for the machine's numbers, and the outside's own /proc.
    let numbers = outside.path().join("numbers");
    std::fs::write(&numbers, "mine").unwrap();
    let bundle = Bundle::new("cat /proc/uptime").set(
        "/mounts/-",
        json!({ "destination": "/proc/uptime", "type": "bind", "source": numbers, "options": ["bind"] }),
    );
    assert_eq!(bundle.run().ok(), "mine");
    let bundle = Bundle::new("cat /proc/self/comm").set(
        "/mounts/-",
        json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] }),
    );
    assert_eq!(bundle.run().ok(), "cat\n");
}

#[test]
#[ignore = "needs root"]
fn a_file_of_etc_that_the_document_mounts_is_the_documents() {
    let outside = tempfile::tempdir().unwrap();
    let hosts = outside.path().join("hosts");
    std::fs::write(&hosts, "theirs").unwrap();
    let bundle = Bundle::new("cat /etc/hosts").option("--hosts", "ours").set(
        "/mounts/-",
        json!({ "destination": "/etc/hosts", "type": "bind", "source": hosts, "options": ["bind"] }),
    );
    assert_eq!(bundle.run().ok(), "theirs");
}

#[test]
#[ignore = "needs root"]
fn volumes_are_writable_and_keep_the_images_content() {
    let script = "cat /data/sub/file; stat -c '%a %u' /data /data/sub/file; readlink /data/link; touch /data/new /made/x                   && echo written; touch /etc/x 2>&1; echo x > /mine/x && cat /mine/x";
    for read_only in [false, true] {
        let outside = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::new(script)
            .option("--volume", "/data")
            .option("--volume", "/made")
            .option("--volume", "/mine")
            .set("/mounts/-", json!({ "destination": "/mine", "type": "bind", "source": outside.path(), "options": ["bind"] }));
        bundle.config["root"]["readonly"] = json!(read_only);
        std::fs::create_dir_all(bundle.root().join("data/sub")).unwrap();
        bundle.write("data/sub/file", "kept\n");
        std::os::unix::fs::symlink("sub/file", bundle.root().join("data/link")).unwrap();
        bundle.own_directory("data", 33, 0o1777);
        let refused = match read_only {
            true => "touch: /etc/x: Read-only file system\n",
            false => "",
        };
        assert_eq!(
            bundle.run().ok(),
            format!("kept\n1777 33\n644 0\nsub/file\nwritten\n{refused}x\n")
        );
        assert_eq!(bundle.root().join("data/new").exists(), !read_only);
        assert!(outside.path().join("x").exists(), "what is mounted stays");
    }
    let run = Bundle::new("").option("--volume", "/etc/passwd").run();
    assert!(
        run.err.contains("cannot provide the volume /etc/passwd"),
        "{}",
        run.err
    );
    let run = Bundle::new("").option("--volume", "data").run();
    assert_eq!(
        run.err,
        "run-bundle: cannot provide the volume data: it must be an absolute path inside the container\n"
    );
}

/// A bind mount of a directory beside the bundle's root.
fn shared(bundle: Bundle, source: &std::path::Path, option: &str) -> Bundle {
    let mount = json!({ "destination": "/data", "type": "bind", "source": source, "options": ["rbind", option] });
    bundle.set("/mounts/-", mount)
}

#[test]
#[ignore = "needs root"]
fn an_empty_share_gets_the_image_s_content_even_if_it_is_read_only_inside() {
    let bundle = Bundle::new("cat /data/file; stat -c %a:%u /data; touch /data/new 2>&1");
    let volume = bundle.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    bundle.own_directory("data", 33, 0o750);
    bundle.write("data/file", "of the image\n");
    let bundle = shared(bundle, &volume, "rro").option("--fill", "/data");
    let run = bundle.run();
    assert_eq!(
        run.out,
        "of the image\n750:33\ntouch: /data/new: Read-only file system\n"
    );
    let content = std::fs::read_to_string(volume.join("file")).unwrap();
    assert_eq!(content, "of the image\n");
}

#[test]
#[ignore = "needs root"]
fn a_share_that_is_not_to_be_filled_hides_the_image_s_content() {
    let bundle = Bundle::new("ls -A /data; touch /data/new");
    let volume = bundle.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::create_dir(bundle.root().join("data")).unwrap();
    bundle.write("data/file", "hidden");
    let bundle = shared(bundle, &volume, "rw").option("--share", "/data");
    assert_eq!(bundle.run().ok(), "");
    assert!(volume.join("new").exists());
}

#[test]
#[ignore = "needs root"]
fn a_share_whose_path_has_become_a_symlink_is_refused() {
    let bundle = Bundle::new("ls /data");
    let link = bundle.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    for source in [link.clone(), link.join("ssl")] {
        let bundle = shared(Bundle::new("ls /data"), &source, "rw").option("--share", "/data");
        let run = bundle.run();
        assert!(
            run.err.contains("has become a symbolic link"),
            "{}",
            run.err
        );
    }
}

#[test]
#[ignore = "needs root"]
fn a_directory_is_not_mounted_over_a_file_nor_a_file_over_a_directory() {
    for (source, image) in [("/etc", "file"), ("/etc/passwd", "directory")] {
        let bundle = Bundle::new("true");
        match image {
            "file" => bundle.write("data", ""),
            _ => std::fs::create_dir(bundle.root().join("data")).unwrap(),
        }
        let run = shared(bundle, source.as_ref(), "rw").run();
        assert!(run.err.contains("one is a directory"), "{}", run.err);
    }
}
