//! Stamps the build: a hash of the protocol's own sources, so that two ends that disagree find out at their first message.

use std::hash::{DefaultHasher, Hash, Hasher};

fn main() {
    println!("cargo::rerun-if-changed=src");
    let mut hasher = DefaultHasher::new();
    let mut files: Vec<_> = std::fs::read_dir("src")
        .expect("the protocol crate has a src folder")
        .map(|entry| entry.expect("a readable folder entry").path())
        .collect();
    files.sort();
    for file in files {
        std::fs::read(&file)
            .expect("a readable source file")
            .hash(&mut hasher);
    }
    println!("cargo::rustc-env=HULL_BUILD={:016x}", hasher.finish());
}
