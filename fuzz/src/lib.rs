//! What is fuzzed: a function for each target, from bytes to nothing. A target that panics, overflows, reads what it must
//! not, hangs or grows has found something.
//!
//! The functions are plain ones, so that a stable test (`tests/replay.rs`) runs everything that was kept through them; the
//! programs in `fuzz_targets/` put libFuzzer behind them. See README.md.

pub mod archive;
pub mod blk;
pub mod bus;
pub mod dns;
pub mod documents;
pub mod erofs;
pub mod frames;
pub mod guest;
pub mod input;
pub mod kernel;
pub mod layer;
pub mod main_loop;
pub mod mmio;
pub mod net;
pub mod places;
pub mod record;
pub mod registry;
pub mod seccomp;
pub mod seeds;
pub mod segments;
pub mod shares;
pub mod simple;
pub mod tar;
pub mod threads;
pub mod virtiofs;
pub mod vsock;
pub mod wire;

use std::fs::File;

/// A target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; each has a program of its name in `fuzz_targets/`.
pub const TARGETS: &[Target] = &[
    // A guest's devices.
    ("blk", blk::run),
    ("net", net::run),
    ("vsock", vsock::run),
    ("virtiofs", virtiofs::run),
    ("rng", simple::rng),
    ("console", simple::console),
    ("mmio", mmio::run),
    ("bus", bus::run),
    ("segments", segments::run),
    ("fs", shares::run),
    // What is loaded into one.
    ("kernel", kernel::kernel),
    ("initramfs", kernel::initramfs),
    // What processes say to each other.
    ("frame", wire::frame),
    ("from_agent", wire::from_agent),
    ("to_agent", wire::to_agent),
    ("untar", wire::untar),
    ("to_vmm", wire::to_vmm),
    ("from_vmm", wire::from_vmm),
    ("guest_console", wire::guest_console),
    // Images.
    ("layer", layer::run),
    ("erofs", erofs::run),
    ("record", record::run),
    ("archive", archive::run),
    ("manifest", documents::manifest),
    ("reference", documents::reference),
    ("unpack", documents::unpack),
    ("registry", registry::headers),
    ("docker_config", registry::docker_config),
    // Networks.
    ("dns", dns::run),
    ("frames", frames::run),
    // Containers, and what lies on the host.
    ("spec", documents::spec),
    ("passwd", places::passwd),
    ("seccomp", seccomp::run),
    ("state", places::state),
    ("resolv_conf", documents::resolv_conf),
];

/// A file in memory.
pub fn memfd() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("fuzz", flags)
        .expect("room in memory")
        .into()
}

/// A file in memory with these bytes.
pub fn file_of(bytes: &[u8]) -> File {
    use std::os::unix::fs::FileExt;
    let file = memfd();
    file.write_all_at(bytes, 0).expect("room in memory");
    file
}
