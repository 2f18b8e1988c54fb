//! Images that try to reach outside.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::fixture::Bundle;

/// A directory outside that an image aims at, and whether it is still as it was.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Target {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "untouched").unwrap();
        Target(dir)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn is_untouched(&self) -> bool {
        let names: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names == ["file"]
            && std::fs::read_to_string(self.0.path().join("file")).unwrap() == "untouched"
    }
}

/// Replaces a directory of the image by a symlink.
fn link(bundle: &Bundle, path: &str, target: &str) {
    let path = bundle.root().join(path);
    let _ = std::fs::remove_dir_all(&path);
    symlink(target, path).unwrap();
}

#[test]
#[ignore = "needs root"]
fn dev_as_a_symlink_stays_inside() {
    let target = Target::new();
    let bundle = Bundle::new("echo x > /dev/null; ls -ld /dev/ | cut -c1; readlink /dev");
    link(&bundle, "dev", target.path());
    let run = bundle.run();
    assert_eq!(run.out, format!("d\n{}\n", target.path()), "{}", run.err);
    assert!(target.is_untouched());
}

#[test]
#[ignore = "needs root"]
fn proc_and_sys_must_not_be_symlinks() {
    // Masks and read-only paths would be made on something else.
    for name in ["proc", "sys"] {
        let target = Target::new();
        let bundle = Bundle::new("true");
        link(&bundle, name, target.path());
        let error = bundle.run().err;
        assert_eq!(
            error,
            format!(
                "run-bundle: cannot mount on /{name}: Too many levels of symbolic links (os error 40)\n"
            )
        );
        assert!(target.is_untouched());
    }
}

#[test]
#[ignore = "needs root"]
fn etc_files_as_symlinks_stay_inside() {
    let target = Target::new();
    for aim in [
        target.path().to_owned() + "/file",
        "../../../../../..".to_owned() + target.path() + "/file",
    ] {
        let bundle = Bundle::new("cat /etc/resolv.conf").option("--resolv-conf", "ours\n");
        symlink(aim, bundle.root().join("etc/resolv.conf")).unwrap();
        assert_eq!(bundle.run().ok(), "ours\n");
        assert!(target.is_untouched());
    }
    let bundle = Bundle::new("cat /etc/hosts; cat /elsewhere/hosts").option("--hosts", "ours\n");
    link(&bundle, "etc", "/elsewhere");
    assert_eq!(bundle.run().ok(), "ours\nours\n");
}

#[test]
#[ignore = "needs root"]
fn mount_targets_through_symlinks_stay_inside() {
    let target = Target::new();
    let bundle = Bundle::new("grep -c ' /tmp/.*/made ' /proc/mounts; touch /a/made/x").set(
        "/mounts/-",
        json!({ "destination": "/a/made", "type": "tmpfs", "source": "tmpfs" }),
    );
    symlink(target.path(), bundle.root().join("a")).unwrap();
    assert_eq!(bundle.run().ok(), "1\n");
    assert!(target.is_untouched());
}

#[test]
#[ignore = "needs root"]
fn masks_and_the_working_directory_through_symlinks_stay_inside() {
    let target = Target::new();
    let mut bundle = Bundle::new("pwd").set("/linux/maskedPaths/-", json!("/a/file"));
    symlink(target.path(), bundle.root().join("a")).unwrap();
    bundle.config["process"]["cwd"] = json!("/a/work");
    assert_eq!(bundle.run().ok(), format!("{}/work\n", target.path()));
    assert!(target.is_untouched());
}

#[test]
#[ignore = "needs root"]
fn no_descriptor_of_ours_is_a_way_out() {
    for number in 3..20 {
        let mut bundle = Bundle::new("pwd");
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert_eq!(bundle.run().code, 125, "{number}");
        let bundle = Bundle::new("").set(
            "/process/args",
            json!([format!("/proc/self/fd/{number}/bin/true")]),
        );
        assert_eq!(bundle.run().code, 127, "{number}");
    }
}

#[test]
#[ignore = "needs root"]
fn passwd_as_a_symlink_or_fifo_reads_nothing_outside() {
    let bundle = Bundle::new("id -u").option("--user", "daemon");
    std::fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    symlink(
        "../../../../../../etc/passwd",
        bundle.root().join("etc/passwd"),
    )
    .unwrap();
    // The outside's /etc/passwd has a daemon.
    assert_eq!(bundle.run().code, 125);
    std::fs::remove_file(bundle.root().join("etc/passwd")).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        bundle.root().join("etc/passwd"),
        rustix::fs::Mode::RWXU,
    )
    .unwrap();
    assert!(bundle.run().err.contains("it is not a regular file"));
}

#[test]
#[ignore = "needs root"]
fn a_null_device_that_is_none_masks_nothing_silently() {
    let mut bundle = Bundle::new("true");
    // No /dev of ours: the image's own "null" is a file.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.write("dev/null", "not null");
    let error = bundle.run().err;
    assert!(
        error.starts_with("run-bundle: cannot make the device /dev/null"),
        "{error}"
    );
}
