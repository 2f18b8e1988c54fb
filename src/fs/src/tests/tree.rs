//! A directory as a whole, to be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything below a directory by path: mode, links, and a file's content or a link's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<PathBuf, (u32, u64, Vec<u8>)>);

impl Tree {
    pub(super) fn of(root: &Path) -> Self {
        let mut tree = BTreeMap::new();
        add(root, Path::new(""), &mut tree);
        Self(tree)
    }
}

fn add(root: &Path, path: &Path, tree: &mut BTreeMap<PathBuf, (u32, u64, Vec<u8>)>) {
    for entry in fs::read_dir(root.join(path)).unwrap() {
        let path = path.join(entry.unwrap().file_name());
        let whole = root.join(&path);
        let meta = fs::symlink_metadata(&whole).unwrap();
        let content = if meta.is_symlink() {
            fs::read_link(&whole)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(&whole).unwrap()
        } else {
            Vec::new()
        };
        // A directory's links are counted differently from file system to file system.
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        tree.insert(path.clone(), (meta.mode(), links, content));
        if meta.is_dir() {
            add(root, &path, tree);
        }
    }
}
