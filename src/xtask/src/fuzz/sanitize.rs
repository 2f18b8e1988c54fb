//! Undefined behaviour, looked for in unit tests: AddressSanitizer watches what touches raw memory, Miri interprets what
//! makes no system calls that it does not know.

use std::process::Command;

use anyhow::{Result, bail};

use super::{TRIPLE, folder};
use crate::paths;
use crate::step::{run, succeeds};

/// Crates with `unsafe` code of their own, and the devices, which drive it with what a guest says.
const WATCHED: [&str; 4] = ["devices", "memory", "sys", "vmm"];
/// What Miri can run, by parts of tests' names: no mapped files, no epoll, no processes, and no properties that are tried
/// on hundreds of cases.
const INTERPRETED: [(&str, &[&str]); 4] = [
    ("protocol", &[]),
    ("arch", &[]),
    (
        "memory",
        &[
            "bytes_are_taken",
            "the_end_can_be_split",
            "a_run_has_a_largest",
            "zeros_fill",
        ],
    ),
    (
        "image",
        &[
            "reference",
            "digest",
            "manifest",
            "erofs::format",
            "layer::pax",
            "layer::path",
            "layer::header",
            "challenges_are_read",
            "numbers_in_base_256",
        ],
    ),
];

/// Unit tests of [`WATCHED`] on the stable compiler, with AddressSanitizer in our code and in others'.
pub(super) fn address() -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(paths::checkout());
    cargo.args(["test", "--quiet", "--lib", "--target", TRIPLE]);
    cargo.args(WATCHED.iter().flat_map(|name| ["--package", name]));
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("RUSTFLAGS", "-Zsanitizer=address");
    // As in the fuzzers: SQLite's static variables.
    cargo.env("ASAN_OPTIONS", "detect_odr_violation=0");
    cargo.env("CARGO_TARGET_DIR", folder().join("address"));
    run(&mut cargo)
}

/// Unit tests of [`INTERPRETED`] in Miri, which only the nightly compiler has.
pub(super) fn miri() -> Result<()> {
    if !succeeds(Command::new("cargo").args(["+nightly", "miri", "--version"])) {
        bail!(
            "Miri is not installed: `rustup toolchain install nightly --component miri,rust-src`, \
             where static.rust-lang.org can be reached"
        );
    }
    for (package, filters) in INTERPRETED {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(paths::checkout());
        cargo.args([
            "+nightly",
            "miri",
            "test",
            "--quiet",
            "--lib",
            "--package",
            package,
        ]);
        cargo.arg("--").args(filters);
        // Tests read their own files, and a property is tried less often: Miri is a thousand times slower.
        cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation");
        cargo.env("PROPTEST_CASES", "2");
        cargo.env("CARGO_TARGET_DIR", folder().join("miri"));
        run(&mut cargo)?;
    }
    Ok(())
}
