//! What hull needs of a host, whether the host has it, and how to fix what is missing. Each check tries the thing itself.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::engine::chain;
use crate::install::{self, Installation};

/// Free space below which pulls will soon fail.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is there.
    Good,
    /// Something that is not always needed is missing.
    Limited,
    /// `hull run` cannot work.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// How to fix it.
    pub fix: Option<String>,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Good,
            detail: detail.into(),
            fix: None,
        }
    }

    fn bad(
        name: &'static str,
        status: Status,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check {
            name,
            status,
            detail: detail.into(),
            fix: Some(fix.into()),
        }
    }
}

/// Everything.
pub fn all() -> Vec<Check> {
    let mut checks = vec![parts()];
    let host = host();
    checks.extend(kvm_of(&host));
    checks.extend([jail(), limits(&host)]);
    match network::Host::of_this_user() {
        network::Host::Bridge => checks.extend([tun(), nft()]),
        network::Host::Switch => checks.push(hull_net()),
    }
    checks.extend([cgroup(&host), space()]);
    checks
}

/// What VMs need: KVM present, permitted, and able to boot a stock kernel.
pub fn kvm() -> Vec<Check> {
    kvm_of(&host())
}

/// What `hull-monitor doctor` prints: what a monitor finds of the host.
#[derive(Debug, Deserialize)]
struct Host {
    /// Why KVM cannot be used, if so.
    kvm: Option<String>,
    cgroup: Limits,
    cgroup2_mount: Option<PathBuf>,
}

/// Whether VMs get cgroups of their own.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Limits {
    /// They do, without these controllers.
    Cgroup { missing: Vec<String> },
    /// They do not.
    Reason(String),
}

/// What a monitor finds, or why it cannot be asked.
fn host() -> Result<Host, String> {
    let ask = || -> io::Result<Host> {
        let program = Installation::find()
            .and_then(|installation| installation.monitor())
            .map_err(io::Error::other)?;
        let output = Command::new(program)
            .arg("doctor")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    ask().map_err(|error| format!("could not be found out: {}", chain(&error)))
}

fn kvm_of(host: &Result<Host, String>) -> Vec<Check> {
    const NAME: &str = "kvm";
    let reason = match host {
        Ok(Host { kvm: None, .. }) => {
            return vec![
                Check::good(NAME, "/dev/kvm is there and may be opened"),
                boots(),
            ];
        }
        Ok(Host {
            kvm: Some(reason), ..
        }) => reason,
        Err(reason) => reason,
    };
    let fix = if Path::new("/dev/kvm").exists() {
        "`sudo usermod -aG kvm $USER`, then log in again"
    } else {
        "switch virtualization on in the firmware (VT-x, AMD-V), or nested virtualization on in the machine that this one \
         runs on, and `modprobe kvm_intel` or `kvm_amd`; without KVM: `cargo xtask host`"
    };
    vec![Check::bad(NAME, Status::Missing, reason, fix)]
}

/// What hull-vmm's probe prints.
#[derive(Debug, Deserialize)]
struct Probe {
    boots_stock_kernel: bool,
    #[serde(default)]
    reason: Option<String>,
}

/// Runs a payload with instructions of a stock kernel that an emulating KVM does not know.
fn boots() -> Check {
    const NAME: &str = "stock kernel";
    match probe() {
        Ok(Probe {
            boots_stock_kernel: true,
            ..
        }) => Check::good(NAME, "this KVM can boot one"),
        Ok(Probe { reason, .. }) => Check::bad(
            NAME,
            Status::Missing,
            format!(
                "this KVM cannot boot one: {}",
                reason.unwrap_or_else(|| "the probe failed".into())
            ),
            "use a machine with VT-x or AMD-V (nested will do), or the test host: `cargo xtask host -- COMMAND`",
        ),
        Err(error) => Check::bad(
            NAME,
            Status::Missing,
            format!("could not be tried: {error}"),
            "build hull with `cargo xtask build`",
        ),
    }
}

fn probe() -> io::Result<Probe> {
    let program = Installation::find()
        .and_then(|installation| installation.vmm())
        .map_err(io::Error::other)?;
    let output = Command::new(program)
        .arg("probe")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn parts() -> Check {
    const NAME: &str = "installation";
    let found = Installation::find().and_then(|installation| {
        installation.monitor()?;
        installation.vmm()?;
        installation.kernel()?;
        installation.initramfs()?;
        installation.scratch()?;
        installation.growing_scratch()?;
        Ok(())
    });
    match found {
        Ok(()) => Check::good(
            NAME,
            "hull-monitor, hull-vmm, guest kernel, initramfs and disk template are there",
        ),
        Err(error) => Check::bad(
            NAME,
            Status::Missing,
            error.to_string(),
            "build hull with `cargo xtask build`",
        ),
    }
}

/// The jail around hull-vmm.
fn jail() -> Check {
    const NAME: &str = "jail";
    if let Err(error) = sys::jail::try_namespaces() {
        return Check::bad(
            NAME,
            Status::Missing,
            chain(&error),
            "allow them: `sysctl user.max_user_namespaces=10000`, on Debian also kernel.unprivileged_userns_clone=1, on Ubuntu \
             kernel.apparmor_restrict_unprivileged_userns=0; or set HULL_JAIL=no-user-namespace for a weaker jail",
        );
    }
    const WALLS: &str = "namespaces of every kind, an empty root, no capabilities, seccomp";
    if rustix::process::geteuid().is_root() {
        Check::good(NAME, format!("{WALLS}, a user for each VM"))
    } else {
        Check::bad(
            NAME,
            Status::Limited,
            format!("{WALLS}; but VMs run as you, not as users of their own"),
            "run hull as root for a user for each VM",
        )
    }
}

/// The cgroup around hull-vmm.
fn limits(host: &Result<Host, String>) -> Check {
    const NAME: &str = "VM limits";
    const WITHOUT: &str = "a VM's memory and processors are limited by its size alone";
    let reason = match host.as_ref().map(|host| &host.cgroup) {
        Ok(Limits::Cgroup { missing }) if missing.is_empty() => {
            return Check::good(NAME, "each VM gets a cgroup with limits of its own");
        }
        Ok(Limits::Cgroup { missing }) => {
            return Check::bad(
                NAME,
                Status::Limited,
                format!("VMs' cgroups lack {}", missing.join(", ")),
                format!("boot with cgroup v2 alone (cgroup_no_v1=all); until then {WITHOUT}"),
            );
        }
        Ok(Limits::Reason(reason)) => reason,
        Err(reason) => reason,
    };
    Check::bad(
        NAME,
        Status::Limited,
        format!("VMs get no cgroup: {reason}"),
        format!(
            "run hull as root, or where systemd delegates: `systemd-run --user --scope hull …`; until then {WITHOUT}"
        ),
    )
}

/// An ordinary user's network.
fn hull_net() -> Check {
    const NAME: &str = "network";
    match Installation::find().and_then(|found| found.net()) {
        Ok(_) => Check::good(NAME, "hull-net: user-mode networks, without bridges"),
        Err(error) => Check::bad(
            NAME,
            Status::Limited,
            chain(&error),
            "install hull whole; without it there is --network none",
        ),
    }
}

fn tun() -> Check {
    const NAME: &str = "tun";
    const WITHOUT: &str = "without it there is --network none";
    let path = Path::new("/dev/net/tun");
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
    {
        Ok(_) => Check::good(NAME, "/dev/net/tun may be opened"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::bad(
            NAME,
            Status::Limited,
            "/dev/net/tun is not there",
            format!("`modprobe tun`; {WITHOUT}"),
        ),
        Err(error) => Check::bad(
            NAME,
            Status::Limited,
            format!("/dev/net/tun: {error}"),
            WITHOUT,
        ),
    }
}

fn nft() -> Check {
    const NAME: &str = "nftables";
    const WITHOUT: &str = "`apt-get install nftables`; without it there is --network none";
    let listed = Command::new("nft")
        .args(["-j", "list", "tables"])
        .stdin(Stdio::null())
        .output();
    match listed {
        Ok(output) if output.status.success() => match network::can_forbid_spoofing() {
            Ok(true) => Check::good(NAME, "nft works"),
            Ok(false) => Check::bad(
                NAME,
                Status::Limited,
                "the kernel has no ingress chains: containers on the bridge can use each other's addresses",
                "a kernel with NF_TABLES_NETDEV and NETFILTER_INGRESS; or --network none for containers that distrust each other",
            ),
            Err(error) => Check::bad(NAME, Status::Limited, error.to_string(), WITHOUT),
        },
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().next().unwrap_or("it failed").to_owned();
            Check::bad(
                NAME,
                Status::Limited,
                format!("nft: {first}"),
                "`modprobe nf_tables`; without it there is --network none",
            )
        }
        Err(error) => Check::bad(NAME, Status::Limited, format!("nft: {error}"), WITHOUT),
    }
}

fn cgroup(host: &Result<Host, String>) -> Check {
    const NAME: &str = "cgroup v2";
    match host
        .as_ref()
        .ok()
        .and_then(|host| host.cgroup2_mount.as_ref())
    {
        Some(path) => Check::good(NAME, format!("mounted at {}", path.display())),
        None => Check::bad(
            NAME,
            Status::Limited,
            "not mounted",
            "only --isolation native needs it: `mount -t cgroup2 none /sys/fs/cgroup/unified`",
        ),
    }
}

fn space() -> Check {
    const NAME: &str = "disk space";
    let root = match install::state_root() {
        Ok(root) => root,
        Err(error) => {
            return Check::bad(
                NAME,
                Status::Missing,
                error.to_string(),
                "set HULL_ROOT to a folder that you may write",
            );
        }
    };
    match rustix::fs::statvfs(&root) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{:.1} GB free for {}", free as f64 / 1e9, root.display());
            if free < LITTLE_SPACE_BYTES {
                Check::bad(
                    NAME,
                    Status::Limited,
                    detail,
                    "`hull rmi` what is not needed, or set HULL_ROOT to a larger disk",
                )
            } else {
                Check::good(NAME, detail)
            }
        }
        Err(error) => Check::bad(
            NAME,
            Status::Limited,
            format!("{}: {error}", root.display()),
            "check the disk",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_monitor_finds_is_understood_in_both_forms() {
        let parse = |text| Ok(serde_json::from_str::<Host>(text).unwrap());
        let good =
            parse(r#"{"kvm":null,"cgroup":{"missing":[]},"cgroup2_mount":"/sys/fs/cgroup"}"#);
        assert_eq!(limits(&good).status, Status::Good);
        assert_eq!(cgroup(&good).status, Status::Good);
        let bad = parse(r#"{"kvm":"no KVM","cgroup":"not root","cgroup2_mount":null}"#);
        assert_eq!(kvm_of(&bad)[0].detail, "no KVM");
        assert!(limits(&bad).detail.contains("not root"));
        assert_eq!(cgroup(&bad).status, Status::Limited);
    }

    #[test]
    fn a_monitor_that_cannot_be_asked_is_reported() {
        let unknown = Err("could not be found out".to_owned());
        assert_eq!(kvm_of(&unknown)[0].status, Status::Missing);
        assert!(limits(&unknown).detail.contains("could not be found out"));
    }
}
