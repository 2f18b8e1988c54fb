//! Layers and overlayfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use container::rootfs::{self, Upper};

/// Unmounts at the end of a test, however it ends.
struct Mounted(Vec<PathBuf>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = rootfs::unmount(path);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_hundred_and_thirty_layers_lie_on_top_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    // Some of them by paths that are longer than fsconfig takes.
    let long = "long".repeat(40);
    let layers: Vec<PathBuf> = (0..130)
        .map(|number| match number % 2 {
            0 => path(&format!("layers/{number}")),
            _ => path(&format!("{long}/{long}/{number}")),
        })
        .collect();
    for (number, layer) in layers.iter().enumerate() {
        std::fs::write(layer.join("top"), number.to_string()).unwrap();
        std::fs::write(layer.join(format!("own-{number}")), "").unwrap();
    }
    let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let (upper, work, target) = (
        path(&format!("{long}/{long}/upper")),
        path(&format!("{long}/{long}/work")),
        path("target"),
    );
    rootfs::overlay(
        &layers,
        Some(Upper {
            upper: &upper,
            work: &work,
        }),
        &target,
    )
    .unwrap();
    let _mounted = Mounted(vec![target.clone()]);
    assert_eq!(std::fs::read_to_string(target.join("top")).unwrap(), "129");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 131);
    std::fs::write(target.join("top"), "written").unwrap();
    assert_eq!(
        std::fs::read_to_string(upper.join("top")).unwrap(),
        "written"
    );
}

#[test]
#[ignore = "needs root"]
fn a_root_without_anything_for_its_writes_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let (source, one, two, target) = (
        dir.path().join("source"),
        dir.path().join("one"),
        dir.path().join("two"),
        dir.path().join("target"),
    );
    for path in [&source, &one, &two, &target] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(source.join("file"), "layer").unwrap();
    assert!(
        Command::new("mkfs.erofs")
            .arg("--quiet")
            .args([&image, &source])
            .status()
            .unwrap()
            .success()
    );
    let mut mounted = Mounted(Vec::new());
    for layer in [&one, &two] {
        rootfs::mount_erofs(&image, layer).unwrap();
        mounted.0.push(layer.clone());
    }
    for layers in [&[one.as_path()][..], &[one.as_path(), two.as_path()]] {
        rootfs::overlay(layers, None, &target).unwrap();
        assert_eq!(
            std::fs::read_to_string(target.join("file")).unwrap(),
            "layer"
        );
        assert!(std::fs::write(target.join("new"), "").is_err());
        rootfs::unmount(&target).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_not_a_layer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    std::fs::write(&image, vec![0; 8192]).unwrap();
    let error = rootfs::mount_erofs(&image, dir.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot mount erofs of {}", image.display())),
        "{error}"
    );
    let missing = Path::new("/not/there");
    let error = rootfs::overlay(&[missing, missing], None, dir.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("/not/there"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn the_root_has_the_attributes_of_the_highest_layer_that_states_them() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const IMPLIED: &str = "trusted.overlay.hull.implied";
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str, mode: u32, owner: u32| {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        path
    };
    let (low, middle) = (folder("low", 0o700, 1), folder("middle", 0o1555, 1000));
    let (high, upper) = (folder("high", 0o755, 0), folder("upper", 0o755, 0));
    rustix::fs::setxattr(&high, IMPLIED, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let layers = [low.as_path(), &middle, &high];
    let (work, target) = (folder("work", 0o755, 0), folder("target", 0o755, 0));
    let root = || {
        rootfs::copy_root(&layers, IMPLIED, &upper).unwrap();
        let (upper, work) = (upper.as_path(), work.as_path());
        rootfs::overlay(&layers, Some(Upper { upper, work }), &target).unwrap();
        let mounted = Mounted(vec![target.clone()]);
        let root = target.metadata().unwrap();
        (mounted, root.mode() & 0o7777, root.uid(), root.gid())
    };
    let (mounted, mode, uid, gid) = root();
    assert_eq!((mode, uid, gid), (0o1555, 1000, 1000));
    // What the container makes of it is there when it is mounted again.
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o711)).unwrap();
    drop(mounted);
    let (_mounted, mode, uid, _) = root();
    assert_eq!((mode, uid), (0o711, 1000));
}
