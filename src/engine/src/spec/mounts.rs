//! What is mounted in a container, and the image's volumes.
//!
//! Invariant: a mount comes after those that its target lies in, whatever the order of the options, so that none hides
//! another.

use std::path::{Component, Path};

use oci_spec::image::Config;
use oci_spec::runtime::{Mount, Spec};

use super::privileges;
use crate::options::{Ipc, Options, Tmpfs};

/// Options of a tmpfs that take no value: mount(8) and the OCI specification ("Linux mount options").
const FLAGS: [&str; 31] = [
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "dirsync",
    "lazytime",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "symfollow",
    "nosymfollow",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "defaults",
    "async",
];
/// What is so without them.
const WITHOUT_EFFECT: [&str; 2] = ["defaults", "async"];
/// Those that take a number, perhaps with a unit: tmpfs(5).
const SIZES: [&str; 3] = ["size", "nr_blocks", "nr_inodes"];

/// Why something cannot be mounted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel's own file systems.
    #[error(
        "cannot mount a tmpfs at {0}: /proc shows the container's processes, and what is inside it stays visible"
    )]
    InsideProc(String),
    /// An option that tmpfs does not have.
    #[error(
        "--tmpfs {path} has the option {option:?}, which a tmpfs does not take; it takes size=, mode=, uid=, gid=, nr_inodes=, nr_blocks= and flags such as ro, exec, noatime"
    )]
    TmpfsOption {
        /// Where it is to be mounted.
        path: String,
        /// The option.
        option: String,
    },
    /// A volume whose place depends on where one is.
    #[error(
        "the image's volume {0:?} is not an absolute path below /; the image cannot be run as it is"
    )]
    RelativeVolume(String),
}

/// The mounts of a container: those of the built-in document, changed as the options say.
pub(super) fn of(options: &Options, mut mounts: Vec<Mount>) -> Result<Vec<Mount>, Error> {
    if options.ipc == Ipc::WithoutShm {
        mounts.retain(|mount| !is_at(mount, "/dev/shm"));
    }
    if let Some(bytes) = options.shm_size_bytes {
        for mount in mounts.iter_mut().filter(|mount| is_at(mount, "/dev/shm")) {
            let mut words = mount.options().clone().unwrap_or_default();
            words.retain(|word| !word.starts_with("size="));
            words.push(format!("size={bytes}"));
            mount.set_options(Some(words));
        }
    }
    if options.privileged {
        privileges::of_mounts(&mut mounts);
    }
    for tmpfs in &options.tmpfs {
        refuse_tmpfs(tmpfs)?;
        mounts.retain(|mount| !is_at(mount, &tmpfs.path));
        mounts.push(tmpfs_mount(tmpfs));
    }
    // Stable: those of one depth stay in their order.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn is_at(mount: &Mount, path: &str) -> bool {
    mount.destination() == Path::new(path)
}

fn refuse_tmpfs(tmpfs: &Tmpfs) -> Result<(), Error> {
    if Path::new(&tmpfs.path).starts_with("/proc") {
        return Err(Error::InsideProc(tmpfs.path.clone()));
    }
    match tmpfs.options.iter().find(|option| !is_tmpfs_option(option)) {
        None => Ok(()),
        Some(option) => Err(Error::TmpfsOption {
            path: tmpfs.path.clone(),
            option: option.clone(),
        }),
    }
}

fn is_tmpfs_option(option: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match option.split_once('=') {
        None => FLAGS.contains(&option),
        Some(("mode", value)) => {
            digits(value) && u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777)
        }
        Some(("uid" | "gid", value)) => digits(value) && value.parse::<u32>().is_ok(),
        Some(("mpol", value)) => !value.is_empty(),
        Some((name, value)) if SIZES.contains(&name) => {
            let units: &[char] = match name {
                "size" => &['k', 'm', 'g', 't', 'K', 'M', 'G', 'T', '%'],
                _ => &['k', 'm', 'g', 't', 'K', 'M', 'G', 'T'],
            };
            digits(value.strip_suffix(units).unwrap_or(value))
        }
        Some(_) => false,
    }
}

/// Docker's options for a tmpfs of the user's, which come last and so win.
fn tmpfs_mount(tmpfs: &Tmpfs) -> Mount {
    let opposite = |option: &str| match option {
        "exec" => "noexec".to_owned(),
        "suid" => "nosuid".to_owned(),
        "dev" => "nodev".to_owned(),
        other => other.to_owned(),
    };
    let overridden: Vec<String> = tmpfs
        .options
        .iter()
        .map(|option| opposite(option))
        .collect();
    // In the place of /dev it holds the container's devices.
    let defaults: &[&str] = match tmpfs.path.as_str() {
        "/dev" => &["nosuid", "noexec"],
        _ => &["nosuid", "nodev", "noexec"],
    };
    let mut options: Vec<String> = defaults
        .iter()
        .filter(|default| !overridden.iter().any(|option| option == *default))
        .map(|default| (*default).to_owned())
        .collect();
    let given = tmpfs.options.iter();
    options.extend(
        given
            .filter(|option| !WITHOUT_EFFECT.contains(&option.as_str()))
            .cloned(),
    );
    let mut mount = Mount::default();
    mount
        .set_destination(tmpfs.path.clone().into())
        .set_typ(Some("tmpfs".into()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(options));
    mount
}

/// The image's volumes, as absolute paths without empty or dot components, each once.
pub(crate) fn image_volumes(image: Option<&Config>) -> Result<Vec<String>, Error> {
    let named = image.and_then(|config| config.volumes().as_ref());
    let mut volumes = named
        .into_iter()
        .flatten()
        .map(|path| clean(path).ok_or_else(|| Error::RelativeVolume(path.clone())))
        .collect::<Result<Vec<_>, _>>()?;
    volumes.sort();
    volumes.dedup();
    Ok(volumes)
}

/// Those of the image's volumes that nothing is mounted on, parents first.
pub(crate) fn volumes(document: &Spec, image: Option<&Config>) -> Result<Vec<String>, Error> {
    let mounts = document.mounts().as_deref().unwrap_or_default();
    let mut volumes = image_volumes(image)?;
    volumes.retain(|path| !mounts.iter().any(|mount| is_at(mount, path)));
    Ok(volumes)
}

/// An absolute path below the root, in its shortest form; a `..` takes back the component before it.
fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::Prefix(_) => return None,
        }
    }
    (path.starts_with('/') && !parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tmpfs(path: &str, options: &[&str]) -> Tmpfs {
        Tmpfs {
            path: path.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn targets(mounts: &[Mount]) -> Vec<String> {
        let target = |mount: &Mount| mount.destination().display().to_string();
        mounts.iter().map(target).collect()
    }

    fn with(tmpfs: &[Tmpfs]) -> Result<Vec<Mount>, Error> {
        let options = Options {
            tmpfs: tmpfs.to_vec(),
            ..Options::default()
        };
        of(&options, Vec::new())
    }

    #[test]
    fn a_tmpfs_is_noexec_unless_the_user_says_exec() {
        let mount = tmpfs_mount(&tmpfs("/x", &["exec", "size=1m", "defaults"]));
        assert_eq!(
            mount.options().clone().unwrap(),
            words(&["nosuid", "nodev", "exec", "size=1m"])
        );
    }

    #[test]
    fn parents_are_mounted_first_whatever_the_order_of_the_options() {
        let mounts = with(&[
            tmpfs("/a/b/c", &[]),
            tmpfs("/z", &[]),
            tmpfs("/a/b", &[]),
            tmpfs("/a", &[]),
        ]);
        assert_eq!(targets(&mounts.unwrap()), ["/z", "/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn nothing_is_mounted_in_proc() {
        for path in ["/proc", "/proc/sys/net"] {
            assert_eq!(
                with(&[tmpfs(path, &[])]),
                Err(Error::InsideProc(path.into()))
            );
        }
        assert!(with(&[tmpfs("/process", &[])]).is_ok());
    }

    #[test]
    fn options_of_a_tmpfs_are_known() {
        for option in [
            "ro",
            "size=64m",
            "size=50%",
            "size=65536",
            "mode=1777",
            "mode=0700",
            "uid=1000",
            "nr_inodes=10k",
            "mpol=local",
        ] {
            assert!(with(&[tmpfs("/x", &[option])]).is_ok(), "{option}");
        }
        for option in [
            "bind",
            "size",
            "size=",
            "size=64mb",
            "size=-1",
            "mode=888",
            "mode=+7",
            "uid=root",
            "nr_inodes=5%",
            "Size=1m",
            "x=y",
        ] {
            let refused = with(&[tmpfs("/x", &[option])]);
            assert!(
                matches!(refused, Err(Error::TmpfsOption { .. })),
                "{option}"
            );
        }
    }

    #[test]
    fn shared_memory_has_the_size_that_is_asked_for_or_is_not_there() {
        let shm = || {
            let mut mount = tmpfs_mount(&tmpfs("/dev/shm", &["mode=1777", "size=65536k"]));
            mount.set_source(Some("shm".into()));
            vec![mount]
        };
        let options = Options {
            shm_size_bytes: Some(1 << 30),
            ..Options::default()
        };
        let mounts = of(&options, shm()).unwrap();
        let sizes: Vec<_> = mounts[0]
            .options()
            .iter()
            .flatten()
            .filter(|word| word.starts_with("size="))
            .collect();
        assert_eq!(sizes, ["size=1073741824"]);
        let options = Options {
            ipc: Ipc::WithoutShm,
            ..Options::default()
        };
        assert!(of(&options, shm()).unwrap().is_empty());
    }

    #[test]
    fn the_image_s_volumes_are_absolute_and_nothing_is_mounted_on_them() {
        let config = |volumes: &str| -> Config {
            serde_json::from_str(&format!(r#"{{"Volumes": {volumes}}}"#)).unwrap()
        };
        let image =
            config(r#"{"/data/": {}, "/var//lib/./x": {}, "/a/../cache": {}, "/data": {}}"#);
        let paths = ["/cache", "/data", "/var/lib/x"];
        assert_eq!(image_volumes(Some(&image)).unwrap(), paths);
        let mut document = Spec::default();
        document.set_mounts(Some(with(&[tmpfs("/cache", &[])]).unwrap()));
        assert_eq!(volumes(&document, Some(&image)).unwrap(), &paths[1..]);
        for bad in ["data", "/", ""] {
            let image = config(&format!(r#"{{"{bad}": {{}}}}"#));
            assert_eq!(
                image_volumes(Some(&image)),
                Err(Error::RelativeVolume(bad.into()))
            );
        }
    }
}
