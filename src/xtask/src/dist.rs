//! `cargo xtask build`: everything that hull consists of, laid out as an installation in cargo's target folder.
//!
//! ```text
//! dist/bin/hull
//! dist/libexec/hull/{hull-vmm, hull-monitor, hull-fs, hull-net, hull-native, hull-agent, vmlinux, bzImage,
//!                    initramfs.cpio, demo.tar, scratch.ext4}
//! dist/share/{bash-completion/completions/hull, zsh/vendor-completions/_hull, fish/vendor_completions.d/hull.fish}
//! dist/share/man/man1/*.1
//! ```
//!
//! `hull` finds its parts from its own place. Every file is replaced by a rename, so that running VMs keep theirs.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sys::sparse::next_data;

use crate::step::{first_line, output, run, step, succeeds};
use crate::{image, initramfs, kernel, paths, scratch};

/// What the VMM and the agent are built for: static, alone in an empty root.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// The agent is copied into every guest's memory: its dependencies, too, are built for size.
const FOR_SIZE: [&str; 4] = [
    "--config",
    "profile.release.opt-level='z'",
    "--config",
    "profile.release.lto='fat'",
];

/// Shells, and the files below `share` that hold their completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/hull"),
    ("zsh", "zsh/vendor-completions/_hull"),
    ("fish", "fish/vendor_completions.d/hull.fish"),
];

/// How often a start is timed, with a jail and without.
const STARTS: u32 = 100;

/// Builds what has changed.
pub(crate) fn build(debug: bool) -> Result<()> {
    require_musl()?;
    let profile = if debug { "debug" } else { "release" };
    let native = paths::target().join(profile);
    let musl = paths::target().join(MUSL).join(profile);
    let parts = paths::libexec();
    fs::create_dir_all(paths::dist().join("bin"))?;
    fs::create_dir_all(&parts)?;

    let kernel = step("guest kernel", kernel::kernel)?;
    install(&kernel.folder.join("vmlinux"), &parts.join("vmlinux"))?;
    install(&kernel.folder.join("bzImage"), &parts.join("bzImage"))?;
    step("demo image and scratch disk", || {
        replace(&parts.join("demo.tar"), image::write)?;
        replace(&parts.join("scratch.ext4"), scratch::write)?;
        replace(&parts.join("scratch-growing.ext4"), scratch::write_growing)
    })?;
    step("hull", || {
        cargo(debug, &["--package", "hull", "--bin", "hull"])
    })?;
    install(&native.join("hull"), &paths::dist().join("bin/hull"))?;
    let programs = [
        ("vmm", "hull-vmm"),
        ("monitor", "hull-monitor"),
        ("fs", "hull-fs"),
        ("usernet", "hull-net"),
        ("agent", "hull-native"),
    ];
    for (package, program) in programs {
        step(program, || {
            cargo(
                debug,
                &["--package", package, "--bin", program, "--target", MUSL],
            )
        })?;
        install_stripped(&musl.join(program), &parts.join(program))?;
    }
    let agent = parts.join("hull-agent");
    step("hull-agent", || {
        let arguments = [
            "--package",
            "agent",
            "--bin",
            "hull-agent",
            "--target",
            MUSL,
        ];
        let size = if debug { &[][..] } else { &FOR_SIZE[..] };
        cargo(debug, &[&arguments, size].concat())?;
        install_stripped(&musl.join("hull-agent"), &agent)?;
        replace(&parts.join("initramfs.cpio"), |path| {
            initramfs::write(&agent, path)
        })
    })?;
    completions()?;
    step("manual pages", manual)?;
    println!("{}", paths::dist().display());
    Ok(())
}

/// Builds the `hull` command alone and has it write the manual pages; the folder that holds them.
pub(crate) fn man() -> Result<PathBuf> {
    step("hull", || {
        cargo(false, &["--package", "hull", "--bin", "hull"])
    })?;
    let hull = paths::target().join("release/hull");
    fs::create_dir_all(paths::dist().join("bin"))?;
    install(&hull, &paths::dist().join("bin/hull"))?;
    manual()
}

/// What `hull completion SHELL` prints, where shells look for it.
fn completions() -> Result<()> {
    let hull = paths::dist().join("bin/hull");
    for (shell, file) in COMPLETIONS {
        let script = output(Command::new(&hull).args(["completion", shell]))?;
        let path = paths::dist().join("share").join(file);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        replace(&path, |made| Ok(fs::write(made, &script)?))?;
    }
    Ok(())
}

/// What `hull man` writes, where man(1) looks for it. Pages of commands that are gone go too.
fn manual() -> Result<PathBuf> {
    let pages = paths::dist().join("share/man/man1");
    if pages.exists() {
        fs::remove_dir_all(&pages)?;
    }
    run(Command::new(paths::dist().join("bin/hull"))
        .arg("man")
        .arg(&pages))?;
    Ok(pages)
}

/// Times the installed hull-vmm from its start to its first KVM_RUN, in its jail and without it, on this machine's KVM.
pub(crate) fn time_starts() -> Result<()> {
    let arguments = [
        "--package",
        "monitor",
        "--features",
        "monitor/drill",
        "--bin",
        "jailer",
        "--target",
        MUSL,
    ];
    cargo(false, &arguments)?;
    let parts = paths::libexec();
    run(
        Command::new(paths::target().join(MUSL).join("release/jailer"))
            .arg("cost")
            .args([parts.join("hull-vmm"), parts.join("vmlinux")])
            .arg(STARTS.to_string()),
    )
}

fn cargo(debug: bool, arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet"])
        .args(arguments)
        .current_dir(paths::checkout());
    if !debug {
        cargo.arg("--release");
    }
    run(&mut cargo)
}

/// Adds the musl target where rustup can, and says what is missing where it cannot.
fn require_musl() -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", MUSL]);
    if Path::new(&first_line(&mut rustc)?).is_dir() {
        return Ok(());
    }
    if !succeeds(Command::new("rustup").arg("--version")) {
        bail!(
            "Rust's {MUSL} target is missing and there is no rustup: install your Rust's package of it"
        );
    }
    step("Rust's musl target", || {
        run(Command::new("rustup").args(["target", "add", MUSL]))
    })
}

/// Copies a file when the copy would differ.
fn install(from: &Path, to: &Path) -> Result<()> {
    replace(to, |path| {
        fs::copy(from, path)
            .with_context(|| format!("cannot copy {}", from.display()))
            .map(drop)
    })
}

fn install_stripped(from: &Path, to: &Path) -> Result<()> {
    replace(to, |path| {
        output(Command::new("strip").arg("-o").arg(path).arg(from))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(())
    })
}

/// Makes a file beside `path` and puts it there in one step, unless the same bytes are there already: then the old one
/// stays, with its time.
fn replace(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    let scratch = tempfile::tempdir_in(folder)?;
    let made: PathBuf = scratch.path().join("made");
    make(&made)?;
    if path.exists() && same(&made, path)? {
        return Ok(());
    }
    fs::rename(&made, path).with_context(|| format!("cannot replace {}", path.display()))
}

/// Whether two files hold the same bytes, those in holes of sparse files aside: the files that have them come out of
/// recipes in which holes are zeros on both sides.
fn same(a: &Path, b: &Path) -> Result<bool> {
    let (left, right) = (File::open(a)?, File::open(b)?);
    let (left_meta, right_meta) = (left.metadata()?, right.metadata()?);
    if left_meta.len() != right_meta.len() || left_meta.mode() != right_meta.mode() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = ([0; 1 << 16], [0; 1 << 16]);
    let mut at = 0;
    while let Some((start, _)) = [next_data(&left, at)?, next_data(&right, at)?]
        .into_iter()
        .flatten()
        .min()
    {
        let count = left.read_at(&mut ours, start)?;
        right.read_exact_at(&mut theirs[..count], start)?;
        if ours[..count] != theirs[..count] {
            return Ok(false);
        }
        at = start + count as u64;
    }
    Ok(true)
}
