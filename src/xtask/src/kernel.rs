//! `cargo xtask kernel`: the guest kernel from its pinned source and our fragment of a configuration, built once per
//! machine and kept in the cache under the hash of everything that goes into it.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::step::{first_line, output, run};
use crate::{deb, paths};

/// Part of the cache's key: raise it when the recipe below changes what is built.
const RECIPE: &str = "1";
/// Lines that a build prints, for the progress display.
const BUILD_LINES: usize = 1985;

/// Prefix of the folders that kernels are built in.
const SCRATCH: &str = ".build-";

/// A built kernel.
pub(crate) struct Kernel {
    /// Folder with vmlinux, bzImage, config, System.map and build-seconds.
    pub(crate) folder: PathBuf,
}

/// Where the source is: a tarball (with the hash that it must have, where one is given) or an unpacked tree.
enum Source {
    Tarball { path: PathBuf, sha256: String },
    Tree(PathBuf),
}

/// The guest kernel, from the cache or built now.
pub(crate) fn kernel() -> Result<Kernel> {
    let config = fs::read_to_string(paths::resource("kernel/config"))?;
    let pin = Pin::read()?;
    let key = pin.key(&config)?;
    let kernels = paths::cache()?.join("kernel");
    let folder = kernels.join(&key);
    if folder.exists() {
        return Ok(Kernel { folder });
    }
    fs::create_dir_all(&kernels)?;
    let lock = File::create(kernels.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if !folder.exists() {
        remove_abandoned(&kernels)?;
        build(&pin.source()?, &config, &kernels, &folder)?;
    }
    Ok(Kernel { folder })
}

fn build(source: &Source, config: &str, kernels: &Path, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let scratch = tempfile::Builder::new()
        .prefix(SCRATCH)
        .tempdir_in(kernels)?;
    let tree = unpack(source, scratch.path())?;
    let objects = scratch.path().join("objects");
    let fragment = scratch.path().join("fragment");
    fs::create_dir_all(&objects)?;
    fs::write(&fragment, config)?;
    let make = || {
        let mut make = Command::new("make");
        make.arg("-C")
            .arg(&tree)
            .arg(format!("O={}", objects.display()))
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
            .env("KBUILD_BUILD_USER", "hull")
            .env("KBUILD_BUILD_HOST", "hull");
        make
    };
    output(
        make()
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &fragment),
    )?;
    let made = fs::read_to_string(objects.join(".config"))?;
    refuse_ignored(config, &made)?;
    let jobs = thread::available_parallelism()?.get();
    compile(make().arg(format!("-j{jobs}")).args(["vmlinux", "bzImage"]))?;

    let result = scratch.path().join("result");
    fs::create_dir(&result)?;
    // Symbols and debugging sections are never loaded; the PVH note is, and stays.
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(objects.join("vmlinux"))
        .arg(result.join("vmlinux")))?;
    fs::copy(
        objects.join("arch/x86/boot/bzImage"),
        result.join("bzImage"),
    )?;
    fs::copy(objects.join("System.map"), result.join("System.map"))?;
    fs::write(result.join("config"), made)?;
    let seconds = start.elapsed().as_secs();
    fs::write(result.join("build-seconds"), format!("{seconds}\n"))?;
    fs::rename(&result, folder)
        .with_context(|| format!("cannot move the kernel to {}", folder.display()))
}

/// Removes what builds that were killed have left; no other build runs while the lock is held.
fn remove_abandoned(kernels: &Path) -> Result<()> {
    for entry in fs::read_dir(kernels)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(SCRATCH.as_bytes())
        {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn unpack(source: &Source, scratch: &Path) -> Result<PathBuf> {
    let (path, wanted) = match source {
        Source::Tree(tree) => return Ok(tree.clone()),
        Source::Tarball { path, sha256 } => (path, sha256),
    };
    let found = sha256_of(path)?;
    if found != *wanted {
        bail!(
            "{} has the SHA-256 {found}, not {wanted}: a damaged or foreign source",
            path.display()
        );
    }
    let tree = scratch.join("source");
    fs::create_dir(&tree)?;
    eprintln!("    unpacking {}", path.display());
    run(Command::new("tar")
        .args(["--strip-components=1", "-xf"])
        .arg(path)
        .arg("-C")
        .arg(&tree))?;
    Ok(tree)
}

/// Runs make, with one line of progress for every object on a terminal and for every tenth of the work elsewhere.
fn compile(make: &mut Command) -> Result<()> {
    let mut child = make
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run make")?;
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let terminal = std::io::stderr().is_terminal();
    let mut tenth = 0;
    for (count, line) in BufReader::new(stdout).lines().enumerate() {
        let line = line?;
        let percent = (count * 100 / BUILD_LINES).min(99);
        if terminal {
            let object = line.split_whitespace().last().unwrap_or_default();
            eprint!("\r\x1b[K    {percent:2} % {object:.60}");
        } else if percent / 10 > tenth {
            tenth = percent / 10;
            eprintln!("    {percent} %");
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
        std::io::stderr().flush()?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the kernel's build ended with {status}");
    }
    Ok(())
}

/// Fails when the resulting configuration lacks a line of the fragment: kconfig silently drops an option whose
/// dependencies are off.
fn refuse_ignored(fragment: &str, made: &str) -> Result<()> {
    let ignored: Vec<&str> = fragment.lines().filter(|line| !taken(line, made)).collect();
    if !ignored.is_empty() {
        bail!(
            "the kernel's configuration ignores these lines of resources/kernel/config: {}",
            ignored.join(", ")
        );
    }
    Ok(())
}

fn taken(line: &str, made: &str) -> bool {
    let off = line
        .strip_suffix("=n")
        .or_else(|| line.strip_prefix("# ")?.strip_suffix(" is not set"));
    match off {
        Some(name) => {
            let on = format!("{name}=");
            !made.lines().any(|made| made.starts_with(&on))
        }
        None => line.is_empty() || line.starts_with('#') || made.lines().any(|made| made == line),
    }
}

/// The contents of resources/kernel/source, or what the environment replaces it by.
struct Pin {
    fields: Vec<(String, String)>,
    instead: Option<PathBuf>,
}

impl Pin {
    fn read() -> Result<Pin> {
        let text = fs::read_to_string(paths::resource("kernel/source"))?;
        let fields = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" = "))
            .map(|(name, value)| (name.trim().to_string(), value.trim().to_string()))
            .collect();
        Ok(Pin {
            fields,
            instead: env::var_os("HULL_KERNEL_SOURCE").map(PathBuf::from),
        })
    }

    fn field(&self, name: &str) -> Result<&str> {
        self.fields
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .with_context(|| format!("resources/kernel/source has no line `{name} = …`"))
    }

    /// The hash of all that goes into a kernel: recipe, configuration, source and compiler.
    fn key(&self, config: &str) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(RECIPE);
        hash.update(config);
        match &self.instead {
            None => hash.update(self.field("sha256")?),
            Some(path) if path.is_dir() => {
                hash.update(path.as_os_str().as_encoded_bytes());
                hash.update(fs::read(path.join("Makefile"))?);
            }
            Some(path) => hash.update(sha256_of(path)?),
        }
        hash.update(first_line(Command::new("gcc").arg("--version"))?);
        hash.update(first_line(Command::new("ld").arg("--version"))?);
        Ok(hex(&hash.finalize())[..24].to_string())
    }

    fn source(&self) -> Result<Source> {
        if let Some(path) = &self.instead {
            if path.is_dir() {
                return Ok(Source::Tree(path.clone()));
            }
            let sha256 = match env::var("HULL_KERNEL_SHA256") {
                Ok(sha256) => sha256,
                Err(_) => sha256_of(path)?,
            };
            let path = path.clone();
            return Ok(Source::Tarball { path, sha256 });
        }
        let sha256 = self.field("sha256")?.to_string();
        let tarball = self.field("tarball")?;
        let installed = Path::new("/").join(tarball);
        if installed.exists() && sha256_of(&installed)? == sha256 {
            let path = installed;
            return Ok(Source::Tarball { path, sha256 });
        }
        let package = self.field("package")?;
        let content = deb::unpacked(package, Some(self.field("version")?))
            .or_else(|error| {
                eprintln!("    {error:#}; asking snapshot.debian.org");
                deb::from_url(package, self.field("version")?, self.field("snapshot")?)
            })
            .context(
                "no source for the guest kernel: set HULL_KERNEL_SOURCE to a tarball of kernel.org",
            )?;
        let path = content.join(tarball);
        Ok(Source::Tarball { path, sha256 })
    }
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_kconfig_dropped_is_refused() {
        let made = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_AB=y\n";
        let fragment = "# words\n\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\nCONFIG_D=n\n";
        assert!(refuse_ignored(fragment, made).is_ok());
        let error = refuse_ignored("CONFIG_A=y\nCONFIG_E=y", made).unwrap_err();
        assert!(error.to_string().ends_with("CONFIG_E=y"));
        assert!(refuse_ignored("# CONFIG_AB is not set", made).is_err());
        assert!(refuse_ignored("CONFIG_A=n", made).is_err());
    }
}
