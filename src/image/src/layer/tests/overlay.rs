//! Whiteouts as the kernel's overlayfs sees them.

use std::collections::BTreeSet;
use std::path::Path;

use super::gnu_tar::{Mounted, mount_layer};
use super::*;

fn tree(root: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            // A whiteout that shows would be listed and not be there.
            if path.symlink_metadata().unwrap().is_dir() {
                pending.push(path.clone());
            }
            all.insert(
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    all
}

#[test]
#[ignore = "needs root"]
fn overlayfs_merges_layers_as_the_image_specification_says() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let mut lower = Archive::default();
    for path in [
        "keep/a",
        "keep/b",
        "gone/x",
        "emptied/x",
        "emptied/deep/y",
        "renewed/x",
        "file",
        "link/x",
    ] {
        lower.add(E {
            path,
            data: b"lower",
            ..E::FILE
        });
    }
    let mut upper = Archive::default();
    upper.add(E {
        path: "keep/",
        mode: 0o700,
        ..E::DIR
    });
    upper.add(E {
        path: "keep/.wh.a",
        ..E::FILE
    });
    upper.add(E {
        path: "keep/c",
        ..E::FILE
    });
    upper.add(E {
        path: ".wh.gone",
        ..E::FILE
    });
    upper.add(E {
        path: "emptied/new",
        ..E::FILE
    });
    upper.add(E {
        path: "emptied/.wh.x",
        ..E::FILE
    });
    upper.add(E {
        path: "emptied/deep/.wh.y",
        ..E::FILE
    });
    upper.add(E {
        path: "emptied/.wh..wh..opq",
        ..E::FILE
    });
    upper.add(E {
        path: ".wh.renewed",
        ..E::FILE
    });
    upper.add(E {
        path: "renewed/z",
        ..E::FILE
    });
    upper.add(E {
        path: "file",
        ..E::DIR
    });
    upper.add(E {
        path: "link",
        link: "keep",
        ..E::SYMLINK
    });
    let lower = mount_layer(dir, "lower", &lower.finish());
    let upper = mount_layer(dir, "upper", &upper.finish());
    let layers = format!("ro,lowerdir={}:{}", upper.0.display(), lower.0.display());
    let merged = Mounted::new(
        dir.join("merged"),
        &["-t", "overlay", "overlay", "-o", &layers],
    );
    let expected = [
        "keep",
        "keep/b",
        "keep/c",
        "emptied",
        "emptied/new",
        "emptied/deep",
        "renewed",
        "renewed/z",
        "file",
        "link",
    ];
    assert_eq!(tree(&merged.0), expected.map(str::to_owned).into());
    assert_eq!(std::fs::read(merged.0.join("keep/b")).unwrap(), b"lower");
    drop(merged);
}
