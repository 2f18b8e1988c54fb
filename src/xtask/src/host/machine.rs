//! The emulated machine itself: its files, QEMU and virtiofsd, and the wait until it serves.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::artifacts::{Artifacts, LOAD, artifacts};
use super::start;
use crate::cpio::Archive;
use crate::kernel::hex;
use crate::paths;
use crate::step::output;

/// The host's first program.
const INIT: &str = include_str!("../../../../resources/host/init");
/// Where the host listens, in the network that QEMU makes for it.
pub(crate) const SERVER_PORT: u16 = 7070;
/// The host's own disk: sparse, so this is a limit.
const DISK_BYTES: u64 = 64 << 30;
/// The emulated processor: a small one with nested paging, and without AVX, as TCG's SVM does not intercept XSETBV: KVM
/// would not learn of the AVX state that a guest has switched on.
const CPU: &str = "EPYC,+svm,+npt,-avx,-avx2,-f16c,-fma";
/// Memory of a host, taken from the machine as it is touched; HULL_HOST_MEMORY_MIB replaces it.
const MEMORY_MIB: u32 = 6144;
/// An emulated boot takes seconds, or two minutes on a busy machine; one that takes this long has failed.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Attempts at a start: another program may take the port before QEMU does, and a boot can fail in the emulator itself
/// (QEMU 7.2 with threads, while the kernel patches its own text).
const ATTEMPTS: usize = 3;

/// The address of a host's server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    /// The secret that every connection opens with.
    pub(crate) token: String,
}

/// The server's configuration, which it reads from the host's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The secret.
    pub(crate) token: String,
    /// Port of the starter on 10.0.2.2, which is told when the server listens.
    pub(crate) ready_port: u16,
    /// Where the installation is at this moment, and where it is copied to for each command.
    pub(crate) dist: PathBuf,
}

/// A running machine. It ends when this is dropped, or when its starter dies, unless it was left running.
pub(crate) struct Machine {
    qemu: Option<Child>,
    _folder: Option<tempfile::TempDir>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut qemu) = self.qemu.take() {
            // Errors mean that it has ended on its own; wait reaps it in either case.
            qemu.kill().ok();
            qemu.wait().ok();
        }
    }
}

impl Machine {
    /// Boots a machine whose files lie in `folder`, with a kernel as [`artifacts`] has it, and waits until it serves. Its disk
    /// is the file at `disk`, made when missing, or one that goes with it.
    pub(crate) fn start(
        folder: &Path,
        keep: bool,
        kernel: &str,
        disk: Option<&Path>,
    ) -> Result<(Machine, Endpoint)> {
        start::require()?;
        let artifacts = artifacts(kernel)?;
        let start = Instant::now();
        eprintln!(
            "==> starting the test host (emulated, Linux {}, with KVM of its own)",
            artifacts.release
        );
        let results = super::folder().join("results");
        for folder in [folder, &results, &paths::dist()] {
            fs::create_dir_all(folder)?;
        }
        let mut attempt = 1;
        let started = loop {
            match boot(folder, &artifacts, keep, disk) {
                Err(error) if attempt < ATTEMPTS && start::is_worth_another(&error) => {
                    eprintln!("    {error:#}\n    trying again");
                    attempt += 1;
                }
                started => break started?,
            }
        };
        eprintln!(
            "    starting the test host: {:.1} s",
            start.elapsed().as_secs_f64()
        );
        Ok(started)
    }

    /// Lets the machine outlive us.
    pub(crate) fn leave_running(mut self) {
        self.qemu = None;
    }

    /// Waits until it has powered itself off.
    pub(crate) fn wait(mut self) -> Result<()> {
        if let Some(mut qemu) = self.qemu.take() {
            qemu.wait().context("cannot wait for QEMU")?;
        }
        Ok(())
    }

    /// Gives the machine its folder, which goes with it.
    pub(crate) fn owning(mut self, folder: tempfile::TempDir) -> Machine {
        self._folder = Some(folder);
        self
    }
}

fn boot(
    folder: &Path,
    artifacts: &Artifacts,
    keep: bool,
    disk: Option<&Path>,
) -> Result<(Machine, Endpoint)> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = hex(&random);
    let ready = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let endpoint = Endpoint {
        port,
        token: token.clone(),
    };
    let state = State {
        token: token.clone(),
        ready_port: ready.local_addr()?.port(),
        dist: Path::new("/run/lower").join(paths::dist().strip_prefix("/")?),
    };
    secret(&folder.join("state.json"), &serde_json::to_string(&state)?)?;
    let endpoint_path = folder.join("endpoint.json");
    secret(&endpoint_path, &serde_json::to_string(&endpoint)?)?;
    place_disk(disk, &folder.join("disk"))?;
    initramfs(folder, artifacts)?;
    share(folder, "root", Path::new("/"), true)?;
    share(folder, "results", &super::folder().join("results"), false)?;

    let mut command = if keep {
        Command::new("qemu-system-x86_64")
    } else {
        // The kernel kills it when the thread that starts it ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        command
    };
    command
        .args(qemu_arguments(port))
        .arg("-kernel")
        .arg(&artifacts.kernel)
        // QEMU's options take no comma in a path: it finds its files from where it is.
        .current_dir(folder);
    // QEMU holds this lock until it ends, also after our own end: see `kept`.
    let lock = File::open(&endpoint_path)?;
    flock(&lock, FlockOperation::LockExclusive)?;
    fcntl_setfd(lock.as_fd(), FdFlags::empty())?;
    let errors = File::create(folder.join("qemu.log"))?;
    let qemu = command
        .stdin(Stdio::null())
        .stdout(errors.try_clone()?)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    drop(lock);
    let pid = Pid::from_child(&qemu);
    let machine = Machine {
        qemu: Some(qemu),
        _folder: None,
    };
    wait_until_ready(folder, &ready, &token, pid)?;
    // All of these are open by now, and not opened again.
    for name in [
        "disk",
        "initramfs",
        "root.socket",
        "results.socket",
        "state.json",
    ] {
        fs::remove_file(folder.join(name))?;
    }
    Ok((machine, endpoint))
}

/// One emulated processor: with two, a guest that moves between them crashes (triple fault) or hangs in about one of fifty boots.
/// That was seen in 2 of 100 runs that were free to move and in none of 90 that were held to a processor. But QEMU is told of a
/// second that could come: for one alone it makes `lock` and `xchg` plain loads and stores, the kernel's barriers between its
/// virtqueues and virtiofsd are none, and an interrupt is lost in some hours of load: all that waits for a file waits for ever.
fn qemu_arguments(port: u16) -> Vec<String> {
    let memory = memory_mib();
    let arguments = format!(
        "-machine q35,memory-backend=memory -accel tcg,thread=multi -cpu {CPU} -smp 1,maxcpus=2 -m {memory} \
         -object memory-backend-memfd,id=memory,size={memory}M,share=on \
         -nodefaults -display none -no-reboot -device virtio-rng-pci -initrd initramfs -serial file:console -monitor unix:monitor.socket,server=on,wait=off \
         -chardev socket,id=root,path=root.socket -device vhost-user-fs-pci,chardev=root,tag=root \
         -chardev socket,id=results,path=results.socket -device vhost-user-fs-pci,chardev=results,tag=results \
         -drive if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file=disk -device virtio-blk-pci,drive=disk \
         -netdev user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{SERVER_PORT} -device virtio-net-pci,netdev=net,romfile="
    );
    let mut arguments: Vec<String> = arguments.split_whitespace().map(str::to_string).collect();
    arguments.push("-append".to_string());
    arguments.push("console=ttyS0 quiet panic=-1 tsc=reliable".to_string());
    arguments
}

/// Memory of an emulated machine, in MiB.
pub(crate) fn memory_mib() -> u32 {
    env::var("HULL_HOST_MEMORY_MIB")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(MEMORY_MIB)
}

/// Writes a file that only its owner can read.
fn secret(path: &Path, text: &str) -> Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// Puts a machine's disk where QEMU finds it: a new one, or another name of the one that is kept.
fn place_disk(kept: Option<&Path>, path: &Path) -> Result<()> {
    let Some(kept) = kept else {
        return make_disk(path);
    };
    if !kept.exists() {
        make_disk(kept)?;
    }
    if path.exists() {
        // Of an earlier attempt.
        fs::remove_file(path)?;
    }
    fs::hard_link(kept, path).with_context(|| format!("cannot use the disk {}", kept.display()))
}

/// A sparse disk with an empty ext4 file system.
fn make_disk(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(0)?;
    file.set_len(DISK_BYTES)?;
    output(
        Command::new("/usr/sbin/mkfs.ext4")
            .args(["-q", "-F", "-O", "^has_journal", "-E"])
            .arg("assume_storage_prezeroed=1")
            .arg(path),
    )?;
    Ok(())
}

/// The host's initramfs and, behind it, an archive with what is different each time.
fn initramfs(folder: &Path, artifacts: &Artifacts) -> Result<()> {
    let values: [(&str, &Path); 6] = [
        ("CHECKOUT", paths::checkout()),
        ("TARGET", &paths::target()),
        ("CACHE", &paths::cache()?),
        ("MODULES", &artifacts.modules),
        ("XTASK", &env::current_exe()?),
        ("STATE", &folder.join("state.json")),
    ];
    let mut text = format!("RELEASE={}\nLOAD='{LOAD}'\n", artifacts.release);
    for (name, path) in values {
        let path = path.to_str().context("a path is not UTF-8")?;
        text.push_str(&format!("{name}='{}'\n", path.replace('\'', r"'\''")));
    }
    let mut bytes = fs::read(&artifacts.initramfs)?;
    let mut archive = Archive::new(&mut bytes);
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("host.env", 0o644, text.as_bytes())?;
    archive.finish()?;
    fs::write(folder.join("initramfs"), bytes)?;
    Ok(())
}

/// Starts a virtiofsd on a listening socket, which it inherits, so that QEMU can connect at once. It ends with QEMU.
fn share(folder: &Path, name: &str, source: &Path, read_only: bool) -> Result<()> {
    let path = folder.join(format!("{name}.socket"));
    if path.exists() {
        fs::remove_file(&path)?;
    }
    // A socket's path has at most 107 bytes (unix(7)); the folder's may have more.
    let within = File::open(folder)?;
    let short = format!("/proc/self/fd/{}/{name}.socket", within.as_raw_fd());
    let listener = UnixListener::bind(short)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    fcntl_setfd(listener.as_fd(), FdFlags::empty())?;
    // virtiofsd 7.2 cannot refuse writes itself: it gets a view of the machine that does.
    let read_only = if read_only {
        "mount -o remount,bind,ro / && "
    } else {
        ""
    };
    let script = format!("{read_only}exec /usr/lib/qemu/virtiofsd \"$@\"");
    let log = File::create(folder.join(format!("{name}.log")))?;
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "virtiofsd"])
        .arg(format!("--fd={}", listener.as_raw_fd()))
        .args(["-o", "cache=always", "-o", "sandbox=chroot"])
        // Where it is: its options take no comma in a path.
        .args(["-o", "source=."])
        .current_dir(source)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot run unshare")?;
    Ok(())
}

/// Waits until the server reports that it is ready.
///
/// # Errors
/// QEMU ends, or the limit is reached, before that.
fn wait_until_ready(folder: &Path, ready: &TcpListener, token: &str, qemu: Pid) -> Result<()> {
    let qemu = pidfd_open(qemu, PidfdFlags::empty())?;
    let limit = Instant::now() + START_LIMIT;
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        let mut fds = [
            PollFd::new(ready, PollFlags::IN),
            PollFd::new(&qemu, PollFlags::IN),
        ];
        if poll(&mut fds, Some(&left.try_into()?))? == 0 {
            return Err(start::failure(folder, "it does not answer"));
        }
        if fds[1].revents().contains(PollFlags::IN) {
            return Err(start::failure(folder, "QEMU has ended"));
        }
        let (stream, _) = ready.accept()?;
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut said = String::new();
        // Anything else comes from a stranger on this port.
        if stream.take(64).read_to_string(&mut said).is_ok() && said == token {
            return Ok(());
        }
    }
}
