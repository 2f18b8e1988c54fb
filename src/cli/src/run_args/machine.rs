//! What of a container touches its machine: isolation, devices, mounts, namespaces, kernel.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use engine::options::{Boot, Device, Ipc, Isolation, Options, Tmpfs};

use ::values::environment;
use ::values::machine as values;

/// The default of `--isolation`, for a shell.
const ISOLATION_VARIABLE: &str = "HULL_ISOLATION";

/// The machine and the container's place in it.
#[derive(Debug, Args)]
pub(super) struct MachineArgs {
    /// What stands between the container and the host: vm, pod:NAME or native [default: vm, or HULL_ISOLATION]
    #[arg(long, value_name = "KIND", value_parser = values::isolation)]
    isolation: Option<Isolation>,
    /// Mount the container's root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = ::values::tmpfs)]
    tmpfs: Vec<Tmpfs>,
    /// Add a device of the VM, such as /dev/fuse or /dev/net/tun
    #[arg(long, value_name = "PATH[:INSIDE][:rwm]", value_parser = values::device)]
    device: Vec<Device>,
    /// Set a parameter of the kernel, which is the VM's own
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::sysctl)]
    sysctl: Vec<(String, String)>,
    /// IPC namespace: private, or none for one without /dev/shm [default: private]
    #[arg(long, value_name = "MODE", value_parser = values::ipc)]
    ipc: Option<Ipc>,
    /// PID namespace: always the container's own, or its pod's
    #[arg(long, value_name = "MODE", value_parser = values::pid, hide = true)]
    pid: Option<()>,
    /// UTS namespace: always the container's own
    #[arg(long, value_name = "MODE", value_parser = values::uts, hide = true)]
    uts: Option<()>,
    /// Cgroup namespace: always private
    #[arg(long, value_name = "MODE", value_parser = values::cgroupns, hide = true)]
    cgroupns: Option<()>,
    /// User namespace: always the machine's
    #[arg(long, value_name = "MODE", value_parser = values::userns, hide = true)]
    userns: Option<()>,
    /// How the VM begins: from a template, which the first run of its shape makes, or by booting a kernel
    /// [default: template, but kernel with --kernel or --console]
    #[arg(long, value_enum, value_name = "WAY")]
    boot: Option<BootWay>,
    /// Boot this guest kernel (vmlinux or bzImage)
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Show the guest kernel's log on standard error
    #[arg(long)]
    console: bool,
}

/// A way to begin.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum BootWay {
    /// Where a VM of this shape was saved
    Template,
    /// With a kernel
    Kernel,
}

/// What [`ISOLATION_VARIABLE`] says; `variable` looks the environment up.
pub(crate) fn default_isolation(
    variable: impl Fn(&str) -> Result<Option<String>, environment::Error>,
) -> anyhow::Result<Isolation> {
    let text = variable(ISOLATION_VARIABLE)?.unwrap_or_default();
    values::isolation(&text).context(ISOLATION_VARIABLE)
}

impl MachineArgs {
    /// `variable` looks the environment up.
    pub(super) fn set(
        self,
        options: &mut Options,
        variable: impl Fn(&str) -> Result<Option<String>, environment::Error>,
    ) -> anyhow::Result<()> {
        options.isolation = match self.isolation {
            Some(isolation) => isolation,
            None => default_isolation(variable)?,
        };
        options.read_only = self.read_only;
        options.tmpfs = self.tmpfs;
        options.devices = self.device;
        options.sysctls = self.sysctl.into_iter().collect();
        options.ipc = self.ipc.unwrap_or_default();
        options.boot = self.boot.map(|way| match way {
            BootWay::Template => Boot::Template,
            BootWay::Kernel => Boot::Kernel,
        });
        options.kernel = self.kernel;
        options.console = self.console;
        Ok(())
    }
}
