//! The text of the systemd unit, and its file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use engine::install;

use super::Scope;

/// The unit's name.
pub(super) const NAME: &str = "hull.service";
/// The unit, as the Debian package has it.
const TEMPLATE: &str = include_str!("../../../../resources/systemd/hull.service");
/// What of the template is different in other installations.
const PROGRAM: &str = "/usr/bin/hull";
const SYSTEM_TARGET: &str = "WantedBy=multi-user.target";
const USER_TARGET: &str = "WantedBy=default.target";
const MOUNTS: &str = "RequiresMountsFor=/var/lib/hull\n";
const SERVICE: &str = "[Service]\n";
/// The first line of a unit that hull wrote.
const MARK: &str = "# Written by `hull system install`; `hull system uninstall` removes it.\n";

/// A unit that starts this hull's containers.
#[derive(Debug)]
pub(super) struct Unit {
    /// What the file holds, without [`MARK`].
    pub(super) text: String,
    /// What it runs, as a shell has it.
    pub(super) command: String,
}

impl Unit {
    /// For the running program and the state that it works on.
    pub(super) fn of_this_hull(scope: Scope) -> anyhow::Result<Unit> {
        let program = std::env::current_exe().context("cannot find hull's own program")?;
        let parts = std::env::var_os(install::PARTS_VARIABLE).map(PathBuf::from);
        Unit::new(scope, &program, &install::state_root()?, parts)
    }

    fn new(
        scope: Scope,
        program: &Path,
        root: &Path,
        parts: Option<PathBuf>,
    ) -> anyhow::Result<Unit> {
        let mut settings = Vec::new();
        if scope == Scope::User || root != Path::new(install::SYSTEM_ROOT) {
            settings.push((install::ROOT_VARIABLE, root.to_owned()));
        }
        settings.extend(parts.map(|parts| (install::PARTS_VARIABLE, parts)));
        let mounts = format!("RequiresMountsFor={}\n", quoted(root, "")?);
        let mut text = TEMPLATE
            .replace(PROGRAM, &quoted(program, "")?)
            .replace(MOUNTS, &mounts);
        if scope == Scope::User {
            // A user's manager has neither network targets nor a multi-user one.
            text = text.replace(SYSTEM_TARGET, USER_TARGET).replace(
                "Wants=network-online.target\nAfter=network-online.target\n",
                "",
            );
        }
        let mut lines = SERVICE.to_owned();
        let mut command = String::new();
        for (name, value) in &settings {
            lines += &format!("Environment={}\n", quoted(value, &format!("{name}="))?);
            command += &format!("{name}='{}' ", value.display());
        }
        Ok(Unit {
            text: text.replace(SERVICE, &lines),
            command: format!("{command}{} system start", program.display()),
        })
    }

    /// Whether the file at `path` is this unit.
    pub(super) fn is_at(&self, path: &Path) -> anyhow::Result<bool> {
        Ok(read(path)?.is_some_and(|text| text == self.text))
    }

    /// Writes it to its folder, in the place of what hull wrote earlier.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(NAME);
        if path.exists() && !is_ours(&path)? {
            bail!(
                "{} was not written by hull: remove it, or put what it adds into {}.d",
                path.display(),
                path.display()
            );
        }
        let failed = || format!("cannot write {}", path.display());
        std::fs::create_dir_all(folder).with_context(failed)?;
        let file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)
            .with_context(failed)?;
        std::fs::write(file.path(), format!("{MARK}{}", self.text)).with_context(failed)?;
        file.persist(&path).with_context(failed)?;
        Ok(())
    }
}

/// Whether hull wrote the unit at `path`.
pub(super) fn is_ours(path: &Path) -> anyhow::Result<bool> {
    Ok(read(path)?.is_some_and(|text| text.starts_with(MARK)))
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A path, after `prefix`, as one word of a unit file (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers").
fn quoted(path: &Path, prefix: &str) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    let Some(text) = text else {
        bail!(
            "{} cannot be written in a unit: it is not plain text",
            path.display()
        );
    };
    let text = format!("{prefix}{text}").replace('%', "%%");
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=%@:,~".contains(c);
    Ok(match text.chars().all(is_plain) {
        true => text,
        false => format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(scope: Scope, program: &str, root: &str) -> Unit {
        Unit::new(scope, Path::new(program), Path::new(root), None).unwrap()
    }

    #[test]
    fn the_packaged_unit_is_that_of_an_installation_in_usr() {
        assert_eq!(
            unit(Scope::System, PROGRAM, install::SYSTEM_ROOT).text,
            TEMPLATE
        );
    }

    #[test]
    fn a_unit_names_its_program_and_its_state() {
        let unit = unit(Scope::System, "/opt/hull 2/bin/hull", "/srv/100%");
        assert!(
            unit.text.contains(
                "RequiresMountsFor=/srv/100%%\n\n[Service]\nEnvironment=HULL_ROOT=/srv/100%%\n"
            ) && unit
                .text
                .contains("\nExecStart=-\"/opt/hull 2/bin/hull\" system start\n"),
            "{}",
            unit.text
        );
        assert_eq!(
            unit.command,
            "HULL_ROOT='/srv/100%' /opt/hull 2/bin/hull system start"
        );
    }

    #[test]
    fn a_users_unit_waits_for_nothing_that_a_users_manager_lacks() {
        let text = unit(Scope::User, "/home/u/hull", "/home/u/s").text;
        assert!(
            !text.contains("network-online") && !text.contains("multi-user"),
            "{text}"
        );
        assert!(
            text.ends_with("[Install]\nWantedBy=default.target\n"),
            "{text}"
        );
    }

    #[test]
    fn a_unit_of_somebody_elses_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user").join(NAME);
        let unit = unit(Scope::User, PROGRAM, "/home/u/s");
        for _ in 0..2 {
            unit.write(path.parent().unwrap()).unwrap();
            assert!(is_ours(&path).unwrap());
        }
        std::fs::write(&path, "[Unit]\n").unwrap();
        let error = unit.write(path.parent().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("was not written by hull"),
            "{error}"
        );
        assert!(!is_ours(&path).unwrap() && !is_ours(&folder.path().join("none")).unwrap());
    }

    #[test]
    fn a_path_that_no_unit_can_hold_is_refused() {
        assert!(quoted(Path::new("/a\nExecStart=/bin/evil"), "").is_err());
        assert_eq!(quoted(Path::new("/a\"b\\c"), "").unwrap(), r#""/a\"b\\c""#);
    }
}
