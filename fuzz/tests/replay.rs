//! Everything that was kept runs through its target, on any compiler and without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use hull_fuzz::TARGETS;

/// Where inputs are kept: written by hand, found by fuzzing, and found to fail once.
const KEPT: [&str; 3] = ["seeds", "corpus", "regressions"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One test, for targets count this process's threads and descriptors.
#[test]
fn what_is_kept_is_whole_and_passes() {
    every_target_has_a_program_and_a_seed();
    seeds_are_those_that_are_written();
    what_is_kept_stays_small();
    everything_that_was_kept_still_passes();
}

fn everything_that_was_kept_still_passes() {
    let mut count = 0;
    for (name, target) in TARGETS {
        for kept in KEPT {
            for file in files(&root().join(kept).join(name)) {
                // The last one named is the one that fails.
                println!("{}", file.display());
                target(&fs::read(&file).unwrap());
                count += 1;
            }
        }
    }
    println!("{count} inputs");
    assert!(count > TARGETS.len());
}

fn seeds_are_those_that_are_written() {
    for (target, seeds) in hull_fuzz::seeds::all() {
        let folder = root().join("seeds").join(target);
        let kept: Vec<_> = files(&folder)
            .iter()
            .map(|file| fs::read(file).unwrap())
            .collect();
        assert!(
            kept == seeds,
            "{target}: `cargo run --no-default-features --bin seeds` in fuzz/"
        );
    }
}

fn every_target_has_a_program_and_a_seed() {
    let programs = files(&root().join("fuzz_targets"));
    let names: Vec<_> = programs
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    let mut expected: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for name in expected {
        assert!(
            !files(&root().join("seeds").join(name)).is_empty(),
            "{name} has no seed"
        );
    }
}

fn what_is_kept_stays_small() {
    let bytes = |folder: &str| -> u64 {
        TARGETS
            .iter()
            .flat_map(|(name, _)| files(&root().join(folder).join(name)))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    };
    let total: u64 = KEPT.iter().map(|folder| bytes(folder)).sum();
    assert!(total < 2 << 20, "{total} bytes");
}
