//! What a test host needs of the machine, and what is shown when it does not start.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::paths;

/// Programs that a test host is made with.
const PROGRAMS: [&str; 4] = [
    "/usr/bin/qemu-system-x86_64",
    "/usr/lib/qemu/virtiofsd",
    "/usr/sbin/mkfs.ext4",
    "/usr/bin/setpriv",
];

/// Folders that the test host has of its own: see resources/host/init.
const ITS_OWN: [&str; 7] = [
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/tmp",
    "/var/lib/hull",
];

/// What the init script's own messages begin with.
const SAID_BY_INIT: &str = "test host: ";
/// What QEMU, virtiofsd and the kernel print at every start.
const NOISE: [&str; 5] = [
    "TCG doesn't support requested feature",
    "vhost-user",
    "virtio_loop: ",
    "fv_queue_",
    "Invalid ELF header magic",
];
/// Lines of each log that are shown at most.
const SHOWN: usize = 15;

/// Why a test host did not start.
#[derive(Debug, thiserror::Error)]
#[error("the test host did not start: {reason}{}", indented(.lines))]
pub(crate) struct Failure {
    reason: &'static str,
    lines: Vec<String>,
    /// Its init found something wrong, which will be wrong again.
    is_final: bool,
}

/// Checks that a test host can be started from this checkout by this user.
pub(crate) fn require() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the test host needs root: virtiofsd serves the machine's root file system to it");
    }
    for program in PROGRAMS {
        if !Path::new(program).exists() {
            bail!("the test host needs {program}; resources/setup.sh installs it");
        }
    }
    require_place("the checkout", paths::checkout())?;
    require_place("cargo's target folder", &paths::target())?;
    require_place("the cache (HULL_CACHE)", &paths::cache()?)
}

/// Refuses a folder that cannot be shown at its path in the host without hiding a folder of the host's own.
fn require_place(what: &str, folder: &Path) -> Result<()> {
    for own in ITS_OWN {
        if Path::new(own).starts_with(folder) {
            bail!(
                "{what} is {}: the test host needs {own} for itself; use a folder below it",
                folder.display()
            );
        }
    }
    Ok(())
}

/// The failure of a start whose logs lie in `folder`.
pub(super) fn failure(folder: &Path, reason: &'static str) -> anyhow::Error {
    // A log that was not written has nothing to show.
    let read = |name| fs::read(folder.join(name)).unwrap_or_default();
    let console = telling(&read("console"));
    let is_final = console.iter().any(|line| line.starts_with(SAID_BY_INIT));
    let lines = match is_final {
        true => console,
        false => ["qemu.log", "root.log", "console"]
            .iter()
            .flat_map(|name| {
                let lines = telling(&read(name)).into_iter();
                lines.map(move |line| format!("{name}: {line}"))
            })
            .collect(),
    };
    Failure {
        reason,
        lines,
        is_final,
    }
    .into()
}

/// Whether the same start may succeed when it is tried again.
pub(super) fn is_worth_another(error: &anyhow::Error) -> bool {
    let failure = error.downcast_ref::<Failure>();
    failure.is_some_and(|failure| !failure.is_final)
}

/// The last lines of a log, without those that are always there.
fn telling(log: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| !line.is_empty() && !NOISE.iter().any(|noise| line.contains(noise)))
        .collect();
    lines.drain(..lines.len().saturating_sub(SHOWN));
    lines
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_found_is_shown_alone_and_not_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let noise = "qemu: warning: TCG doesn't support requested feature: CPUID.01H\n".repeat(30);
        fs::write(folder.path().join("qemu.log"), noise).unwrap();
        let console = "mount: mounting a on b failed\ntest host: its start failed\n";
        fs::write(folder.path().join("console"), console).unwrap();
        let error = failure(folder.path(), "QEMU has ended");
        assert!(!is_worth_another(&error));
        let expected = "the test host did not start: QEMU has ended\n    mount: mounting a on b failed\n    \
            test host: its start failed";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_emulator_that_fails_is_tried_again_and_its_own_words_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = "warning: TCG doesn't support requested feature: x\nCould not set up host forwarding rule\n";
        fs::write(folder.path().join("qemu.log"), log).unwrap();
        let error = failure(folder.path(), "QEMU has ended");
        assert!(is_worth_another(&error));
        let text = error.to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.ends_with("qemu.log: Could not set up host forwarding rule"));
    }

    #[test]
    fn a_checkout_may_lie_below_a_folder_of_the_hosts_own_but_not_be_it() {
        for refused in ["/", "/var", "/tmp", "/var/lib/hull"] {
            assert!(
                require_place("it", Path::new(refused)).is_err(),
                "{refused}"
            );
        }
        for taken in ["/tmp/hull", "/var/lib/hull/hull", "/home/a b,c/hull"] {
            assert!(require_place("it", Path::new(taken)).is_ok(), "{taken}");
        }
    }
}
