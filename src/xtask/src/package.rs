//! `cargo xtask package`: a Debian package and an archive of the installation in cargo's target folder.
//!
//! ```text
//! hull_VERSION_amd64.deb       /usr/bin, /usr/libexec/hull, /usr/share, /usr/lib/systemd/system/hull.service
//! hull-VERSION-x86_64.tar.gz   hull-VERSION/{bin, libexec, share}: an installation that runs from anywhere
//! ```
//!
//! The same installation and the same SOURCE_DATE_EPOCH give the same bytes; without the variable, the time is the last
//! commit's; `--twice` packs twice and compares. The archive has no unit, which would have to name the place that it is
//! unpacked at: `hull system install` writes one. Deliberately absent: signatures.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host::{self, Host};
use crate::step::{first_line, output, run, step};
use crate::{deb, dist, kernel, paths};

/// hull's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The packages whose programs are shipped.
const SHIPPED: [&str; 6] = ["hull", "vmm", "monitor", "fs", "usernet", "agent"];
/// The sparse files that dpkg cannot unpack, and the archive that they are shipped in: see resources/package/postinst.
const SPARSE: [&str; 2] = ["scratch.ext4", "scratch-growing.ext4"];
const SPARSE_ARCHIVE: &str = "scratch.tar";

/// The systemd unit that starts containers at boot.
const UNIT: &str = "hull.service";

/// The two packages.
struct Made {
    deb: PathBuf,
    archive: PathBuf,
}

/// Builds the installation and packs it; with `try_it`, installs the Debian package in a test host that does not see the
/// checkout, and runs a container there.
///
/// # Errors
/// Nothing of the packages is left when one cannot be made.
pub(crate) fn package(try_it: bool, twice: bool) -> Result<()> {
    if try_it {
        host::start::require()?;
    }
    dist::build(false)?;
    let folder = paths::target().join("package");
    let epoch = epoch()?;
    let made = step("packages", || make(&folder, &epoch))?;
    if twice {
        step("the same packages again", || again(&made, &epoch))?;
    }
    println!("{}\n{}", made.deb.display(), made.archive.display());
    if try_it {
        step("the package in a test host", || tried(&made.deb))?;
    }
    Ok(())
}

/// Packs a second time, elsewhere and a while later, and compares.
fn again(made: &Made, epoch: &str) -> Result<()> {
    let folder = tempfile::tempdir_in(paths::target())?;
    let second = make(folder.path(), epoch)?;
    for (first, second) in [(&made.deb, &second.deb), (&made.archive, &second.archive)] {
        if fs::read(first)? != fs::read(second)? {
            bail!("{} is another one each time", first.display());
        }
    }
    Ok(())
}

fn make(folder: &Path, epoch: &str) -> Result<Made> {
    fs::create_dir_all(folder)?;
    let scratch = tempfile::tempdir_in(folder)?;
    let documents = scratch.path().join("doc");
    write_documents(&documents)?;

    let deb = folder.join(format!("hull_{VERSION}_amd64.deb"));
    let made = scratch.path().join("deb");
    debian(&scratch.path().join("root"), &documents, epoch, &made)?;
    fs::rename(&made, &deb)?;

    let archive = folder.join(format!("hull-{VERSION}-x86_64.tar.gz"));
    let made = scratch.path().join("archive");
    plain(scratch.path(), &documents, epoch, &made)?;
    fs::rename(&made, &archive)?;
    Ok(Made { deb, archive })
}

/// The time of everything in the packages, in seconds since 1970.
fn epoch() -> Result<String> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        if epoch.parse::<u64>().is_err() {
            bail!("SOURCE_DATE_EPOCH is {epoch:?}: a number of seconds since 1970 is wanted");
        }
        return Ok(epoch);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(paths::checkout());
    first_line(&mut git).context("set SOURCE_DATE_EPOCH where there is no git checkout")
}

/// Writes the licences, and the notices that they require.
fn write_documents(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    let pinned = fs::read_to_string(paths::resource("kernel/source"))?;
    let kernel = ["package = ", "version = "].map(|key| {
        let value = pinned.lines().find_map(|line| line.strip_prefix(key));
        value.unwrap_or("(see resources/kernel/source)")
    });
    let copyright = fs::read_to_string(paths::resource("package/copyright"))?
        .replace("@KERNEL_SOURCE@", &kernel.join(" "))
        .replace("@BUSYBOX@", &deb::version_of("busybox-static")?);
    fs::write(folder.join("copyright"), copyright)?;
    fs::write(folder.join("crates"), crates()?)?;
    copy(&paths::checkout().join("LICENSE"), &folder.join("LICENSE"))?;
    let config = kernel::kernel()?.folder.join("config");
    copy(&config, &folder.join("kernel-config"))
}

/// Third-party crates that are linked in, with version and licence, one a line.
fn crates() -> Result<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["tree", "--edges", "normal", "--prefix", "none"])
        .args([
            "--target",
            "x86_64-unknown-linux-gnu",
            "--format",
            "{p} {l}",
        ])
        .current_dir(paths::checkout());
    for package in SHIPPED {
        cargo.args(["--package", package]);
    }
    let tree = output(&mut cargo)?;
    Ok(foreign(&String::from_utf8_lossy(&tree)))
}

/// The lines of `cargo tree` that are not of this workspace, each once.
fn foreign(tree: &str) -> String {
    let lines: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty() && !line.contains(" (/"))
        .collect();
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

/// Makes a Debian package of a tree that is laid out at `root`.
fn debian(root: &Path, documents: &Path, epoch: &str, deb: &Path) -> Result<()> {
    let usr = root.join("usr");
    let control = root.join("DEBIAN");
    fs::create_dir_all(&control)?;
    for folder in ["bin", "share"] {
        copy_folder(&paths::dist().join(folder), &usr.join(folder))?;
    }
    copy_folder(&paths::libexec(), &usr.join("libexec/hull"))?;
    compress(&usr.join("share/man/man1"))?;
    let units = usr.join("lib/systemd/system");
    fs::create_dir_all(&units)?;
    copy(
        &paths::resource(&format!("systemd/{UNIT}")),
        &units.join(UNIT),
    )?;
    copy_folder(documents, &usr.join("share/doc/hull"))?;
    for file in SPARSE {
        fs::remove_file(usr.join("libexec/hull").join(file))?;
    }
    let archive = usr.join("libexec/hull").join(SPARSE_ARCHIVE);
    run(tar(&paths::libexec(), epoch)
        .arg("-cf")
        .arg(archive)
        .args(SPARSE))?;
    for script in ["postinst", "prerm", "postrm"] {
        let from = paths::resource("package").join(script);
        copy(&from, &control.join(script))?;
    }
    let text = control_file(&libraries(root)?, kib(&usr)?);
    fs::write(control.join("control"), text)?;
    set_modes(root)?;
    output(
        Command::new("dpkg-deb")
            // One thread: with several, xz cuts its blocks otherwise.
            .args(["--root-owner-group", "--threads-max=1", "-Zxz", "--build"])
            .args([root, deb])
            .env("SOURCE_DATE_EPOCH", epoch),
    )?;
    Ok(())
}

/// Packs the installation, with its documents, as `hull-VERSION`.
fn plain(scratch: &Path, documents: &Path, epoch: &str, archive: &Path) -> Result<()> {
    let name = format!("hull-{VERSION}");
    let root = scratch.join(&name);
    for folder in ["bin", "libexec", "share"] {
        copy_folder(&paths::dist().join(folder), &root.join(folder))?;
    }
    copy_folder(documents, &root.join("share/doc/hull"))?;
    set_modes(&root)?;
    let mut tar = tar(scratch, epoch);
    tar.arg("--use-compress-program=gzip -n -9").arg("-cf");
    run(tar.arg(archive).arg(name))
}

/// GNU tar in `folder`, for archives that depend on names and contents alone. Its own format is the one that it writes
/// sparse files in without its process number.
fn tar(folder: &Path, epoch: &str) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--sparse", "--format=gnu", "--sort=name", "--numeric-owner"])
        .args(["--owner=0", "--group=0", &format!("--mtime=@{epoch}")])
        .arg("-C")
        .arg(folder);
    tar
}

fn control_file(libraries: &str, kib: u64) -> String {
    format!(
        "Package: hull\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: hull's authors <hull@localhost>\n\
         Installed-Size: {kib}\nDepends: {libraries}\nRecommends: nftables, iproute2\nSection: admin\n\
         Priority: optional\nDescription: containers, each in a virtual machine of its own\n \
         hull types like Docker, isolates like a hypervisor and starts like a process: each container gets a\n \
         minimal Linux guest in a KVM microVM, with a jailed monitor between it and the host.\n"
    )
}

/// The Debian packages whose libraries the programs need, as a Depends field has them.
fn libraries(root: &Path) -> Result<String> {
    // dpkg-shlibdeps reads a source package's control file, of which only the name matters.
    let source = tempfile::tempdir()?;
    fs::create_dir(source.path().join("debian"))?;
    let control = "Source: hull\n\nPackage: hull\nArchitecture: amd64\n";
    fs::write(source.path().join("debian/control"), control)?;
    let line = first_line(
        Command::new("dpkg-shlibdeps")
            .arg("-O")
            .arg(root.join("usr/bin/hull"))
            .current_dir(source.path()),
    )?;
    line.strip_prefix("shlibs:Depends=")
        .map(str::to_owned)
        .with_context(|| format!("dpkg-shlibdeps prints {line:?}"))
}

/// Compresses the files of a folder, as Debian has its manual pages.
fn compress(folder: &Path) -> Result<()> {
    let mut gzip = Command::new("gzip");
    gzip.args(["-n", "-9"]);
    for entry in fs::read_dir(folder)? {
        gzip.arg(entry?.path());
    }
    run(&mut gzip)
}

/// The size of a folder, in KiB.
fn kib(folder: &Path) -> Result<u64> {
    let line = first_line(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(folder),
    )?;
    let size = line
        .split_whitespace()
        .next()
        .and_then(|size| size.parse().ok());
    size.with_context(|| format!("du prints {line:?}"))
}

/// Copies a folder with its contents, keeping files sparse; does nothing if there is no such folder.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    run(Command::new("cp")
        .args(["-R", "--preserve=mode", "--sparse=always"])
        .arg(from.join("."))
        .arg(to))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {}", from.display()))
        .map(drop)
}

/// Sets modes that do not depend on the builder's umask.
fn set_modes(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            set_modes(&entry.path())?;
        } else if kind.is_file() {
            let is_program = entry.metadata()?.permissions().mode() & 0o100 != 0;
            let mode = if is_program { 0o755 } else { 0o644 };
            fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
        }
    }
    Ok(fs::set_permissions(folder, Permissions::from_mode(0o755))?)
}

/// Installs the package in a test host in which the checkout, cargo's target folder and the cache are hidden.
fn tried(deb: &Path) -> Result<()> {
    let script = paths::resource("package/try.sh");
    let hidden = [
        paths::checkout().to_path_buf(),
        paths::target(),
        paths::cache()?,
    ];
    let words = [
        "env",
        "-i",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
    ];
    let files = [&script, deb].into_iter();
    let mut argv: Vec<String> = words.map(str::to_owned).to_vec();
    for path in files.chain(hidden.iter().map(PathBuf::as_path)) {
        argv.push(path.to_str().context("a path is not UTF-8")?.to_owned());
    }
    match Host::start(&host::kernel())?.run(&argv)? {
        0 => Ok(()),
        code => bail!("the package does not work in a test host: code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_listed_once_and_ours_not_at_all() {
        let tree = "hull v0.1.0 (/work/hull) Apache-2.0\nlibc v0.2.1 MIT OR Apache-2.0\n\
            libc v0.2.1 MIT OR Apache-2.0 (*)\n\nanyhow v1.0.1 MIT\n";
        let expected = "anyhow v1.0.1 MIT\nlibc v0.2.1 MIT OR Apache-2.0\n";
        assert_eq!(foreign(tree), expected);
    }

    #[test]
    fn modes_are_of_programs_files_and_folders_alone() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("bin");
        fs::create_dir(&inner).unwrap();
        for (name, mode) in [("program", 0o700), ("text", 0o600)] {
            fs::write(inner.join(name), "").unwrap();
            fs::set_permissions(inner.join(name), Permissions::from_mode(mode)).unwrap();
        }
        set_modes(folder.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&inner), 0o755);
        assert_eq!(mode(&inner.join("program")), 0o755);
        assert_eq!(mode(&inner.join("text")), 0o644);
    }
}
