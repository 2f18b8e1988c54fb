//! Stamps the build: a hash of the protocol's own sources, so that two ends that disagree find out at their first message.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=src");
    let mut hasher = DefaultHasher::new();
    let mut files = Vec::new();
    list(Path::new("src"), &mut files);
    files.sort();
    for file in files {
        std::fs::read(&file)
            .expect("a readable source file")
            .hash(&mut hasher);
    }
    println!("cargo::rustc-env=HULL_BUILD={:016x}", hasher.finish());
}

/// The files below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable source folder") {
        let path = entry.expect("a readable folder entry").path();
        match path.is_dir() {
            true => list(&path, files),
            false => files.push(path),
        }
    }
}
