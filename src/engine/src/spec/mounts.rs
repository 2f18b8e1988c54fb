//! What is mounted in a container, and the image's volumes.
//!
//! ```text
//! the built-in document's mounts, tmpfs, and what of the host's is mounted --> the document's mounts
//! ```
//!
//! Invariant: a mount comes after those that its target lies in, whatever the order of the options, so that none hides
//! another.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use oci_spec::image::Config;
use oci_spec::runtime::{Mount, Spec};
use protocol::record::{self, GUEST_SHARES, GUEST_SOCKETS, Submounts};

use super::privileges;
use crate::options::mounts::Source;
use crate::options::{Ipc, Isolation, Options, Tmpfs};

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
pub(super) fn of(
    options: &Options,
    shared: &[record::Mount],
    mut mounts: Vec<Mount>,
) -> Result<Vec<Mount>, Error> {
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
    for tmpfs in options.tmpfs.iter().cloned().chain(mounted_tmpfs(options)) {
        refuse_tmpfs(&tmpfs)?;
        mounts.retain(|mount| !is_at(mount, &tmpfs.path));
        mounts.push(tmpfs_mount(&tmpfs));
    }
    let places: BTreeSet<&Path> = shared
        .iter()
        .map(|share| share.destination.as_ref())
        .collect();
    mounts.retain(|mount| !places.contains(mount.destination().as_path()));
    mounts.extend(
        shared
            .iter()
            .map(|share| bind_mount(share, &options.isolation)),
    );
    // Stable: those of one depth stay in their order.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

/// The temporary file systems of `--mount`.
fn mounted_tmpfs(options: &Options) -> impl Iterator<Item = Tmpfs> {
    options.mounts.iter().filter_map(|mount| {
        let Source::Tmpfs { size_bytes, mode } = mount.source else {
            return None;
        };
        let size = size_bytes.map(|bytes| format!("size={bytes}"));
        let mode = mode.map(|mode| format!("mode={mode:o}"));
        let read_only = mount.read_only.then(|| "ro".to_owned());
        Some(Tmpfs {
            path: mount.target.clone(),
            options: size.into_iter().chain(mode).chain(read_only).collect(),
        })
    })
}

/// The bind mount of what of the host's is mounted. Its source is a path of the machine that the container is in.
fn bind_mount(share: &record::Mount, isolation: &Isolation) -> Mount {
    let source = match isolation {
        Isolation::Native => share.path.clone(),
        Isolation::Vm | Isolation::Pod(_) => {
            let of_its_kind = match share.socket {
                None => GUEST_SHARES,
                Some(_) => GUEST_SOCKETS,
            };
            Path::new(of_its_kind).join(&share.share)
        }
    };
    let bind = match share.submounts {
        Submounts::Hidden => "bind",
        Submounts::Alike | Submounts::AsTheyAre => "rbind",
    };
    let access = match (share.read_only, share.submounts) {
        (false, _) => None,
        (true, Submounts::Alike) => Some("rro"),
        (true, _) => Some("ro"),
    };
    let words = [bind, "rprivate"].into_iter().chain(access);
    let mut mount = Mount::default();
    mount
        .set_destination(share.destination.clone().into())
        .set_typ(Some("bind".into()))
        .set_source(Some(source))
        .set_options(Some(words.map(str::to_owned).collect()));
    mount
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
mod tests;
