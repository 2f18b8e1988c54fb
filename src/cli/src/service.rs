//! `system install`, `uninstall` and `start`: containers that start with the host, by a systemd unit.
//!
//! Invariants: there is one text of the unit, resources/systemd/hull.service, which the Debian package ships as it is; a file
//! that hull has not written is neither replaced nor removed. Deliberately absent: other init systems, which are told what
//! to run.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;
use engine::Engine;

use crate::{complain, out};

mod unit;

use unit::{NAME, Unit};

/// Where the Debian package puts its units; below it, `system` and `user`.
const PACKAGED: &str = "/usr/lib/systemd";
/// There while systemd runs (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// A file for each user whose units start at boot, and not at a login (logind).
const LINGERING: &str = "/var/lib/systemd/linger";

/// Start containers at boot: write and enable a systemd unit
#[derive(Debug, Args)]
#[command(
    after_help = "The unit runs 'hull system start' at each boot, for the state that this command sees (HULL_ROOT). \
                  Root's is a unit of the system, another user's one of the user."
)]
pub(crate) struct InstallArgs {
    /// Print the unit instead
    #[arg(long)]
    print: bool,
}

/// Start no containers at boot: disable and remove the systemd unit
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {}

/// Start what is to run whenever this host does
#[derive(Debug, Args)]
#[command(
    after_help = "Containers with --restart always are started; those with unless-stopped, unless the user has stopped \
                  them; those with on-failure, if they ended with a failure, as by a power cut. A systemd unit runs \
                  this at boot: see 'hull system install'."
)]
pub(crate) struct StartArgs {}

/// Whose systemd it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    System,
    User,
}

impl Scope {
    fn of_this_user() -> Scope {
        match rustix::process::geteuid().is_root() {
            true => Scope::System,
            false => Scope::User,
        }
    }

    /// Where an administrator's or a user's own units lie.
    fn folder(self) -> anyhow::Result<PathBuf> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        match self {
            Scope::System => Ok("/etc/systemd/system".into()),
            Scope::User => variable("XDG_CONFIG_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| Some(variable("HOME")?.join(".config")))
                .map(|path| path.join("systemd/user"))
                .context("neither XDG_CONFIG_HOME nor HOME is set: there is no place for a unit"),
        }
    }

    fn packaged(self) -> PathBuf {
        let folder = match self {
            Scope::System => "system",
            Scope::User => "user",
        };
        Path::new(PACKAGED).join(folder).join(NAME)
    }

    /// `systemctl`, as the user would type it.
    fn systemctl(self, words: &str) -> String {
        match self {
            Scope::System => format!("systemctl {words}"),
            Scope::User => format!("systemctl --user {words}"),
        }
    }

    fn run_systemctl(self, words: &str) -> anyhow::Result<()> {
        let line = self.systemctl(words);
        let status = Command::new("systemctl")
            .args(line.split(' ').skip(1))
            .status()
            .with_context(|| format!("cannot run `{line}`"))?;
        match status.success() {
            true => Ok(()),
            false => bail!("`{line}` ended with {status}"),
        }
    }
}

/// `hull system install`.
pub(crate) fn install(args: InstallArgs) -> anyhow::Result<u8> {
    let scope = Scope::of_this_user();
    let unit = Unit::of_this_hull(scope)?;
    if args.print {
        out(&unit.text)?;
        return Ok(0);
    }
    let folder = scope.folder()?;
    let path = folder.join(NAME);
    let packaged = scope.packaged();
    let is_packaged = unit.is_at(&packaged)? && !path.exists();
    if is_packaged {
        out(&format!(
            "{} of the package is the unit\n",
            packaged.display()
        ))?;
    } else {
        unit.write(&folder)?;
        out(&format!("Wrote {}\n", path.display()))?;
    }
    if !Path::new(BOOTED).exists() {
        out(&format!(
            "systemd does not run here, so the unit is not enabled. Where it runs: {}\nAnother init system is to run at boot: \
             {}\n",
            scope.systemctl(&format!("enable {NAME}")),
            unit.command
        ))?;
        return Ok(0);
    }
    scope.run_systemctl("daemon-reload")?;
    scope.run_systemctl(&format!("enable {NAME}"))?;
    out(&format!(
        "Enabled {NAME}: containers with a restart policy start at boot\n"
    ))?;
    if scope == Scope::User && !lingers() {
        out(
            "Your units start at your first login, and end with your last session. To start them at boot: loginctl enable-linger\n",
        )?;
    }
    Ok(0)
}

/// Whether this user's units run without a session.
fn lingers() -> bool {
    let user = std::env::var_os("USER").unwrap_or_default();
    !user.is_empty() && Path::new(LINGERING).join(user).exists()
}

/// `hull system uninstall`.
pub(crate) fn uninstall(_: UninstallArgs) -> anyhow::Result<u8> {
    let scope = Scope::of_this_user();
    let path = scope.folder()?.join(NAME);
    let has_systemd = Path::new(BOOTED).exists();
    let is_packaged = scope.packaged().exists();
    if !path.exists() && !is_packaged {
        out(&format!("There is no {}\n", path.display()))?;
        return Ok(0);
    }
    if path.exists() && !unit::is_ours(&path)? {
        bail!("{} was not written by hull: it stays", path.display());
    }
    if has_systemd {
        // What runs goes on: the unit is only not started again.
        scope.run_systemctl(&format!("disable {NAME}"))?;
        out(&format!("Disabled {NAME}\n"))?;
    } else if is_packaged {
        out(&format!(
            "systemd does not run here, so the unit of the package is not disabled. Where it runs: {}\n",
            scope.systemctl(&format!("disable {NAME}"))
        ))?;
    }
    match std::fs::remove_file(&path) {
        Ok(()) => out(&format!("Removed {}\n", path.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
    }
    if has_systemd {
        scope.run_systemctl("daemon-reload")?;
    }
    Ok(0)
}

/// `hull system start`.
pub(crate) fn start(_: StartArgs) -> anyhow::Result<u8> {
    let outcome = Engine::find()?.system_start()?;
    for name in &outcome.started {
        out(&format!("{name}\n"))?;
    }
    let mut code = 0;
    for (name, error) in outcome.failed {
        code = 1;
        complain(&anyhow::Error::from(error).context(format!("cannot start {name}")));
    }
    Ok(code)
}
