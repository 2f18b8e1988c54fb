//! Where mounts may go, and in which order.

use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::fstatfs;
use rustix::io::Errno;

use crate::error::{Attempt, Cause, Error, Refusal, Step};
use crate::spec;

/// linux/magic.h
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Sorts mounts so that each comes after those of its parent directories; others keep the document's order. A mount
/// above an earlier one would hide it. (The specification asks for the listed order. This differs from it only where a
/// document hides one of its own mounts by a later one.)
pub(crate) fn order(mounts: &mut Vec<spec::Mount>) {
    let mut ordered: Vec<(usize, PathBuf, spec::Mount)> = Vec::with_capacity(mounts.len());
    for mount in mounts.drain(..) {
        let place = clean(&mount.destination);
        let depth = place.components().count();
        // Paths are compared only where depths allow it: there may be a thousand mounts.
        let is_below = |other: &Path, others: usize| others > depth && other.starts_with(&place);
        let at = ordered
            .iter()
            .position(|(others, other, _)| is_below(other, *others));
        ordered.insert(at.unwrap_or(ordered.len()), (depth, place, mount));
    }
    mounts.extend(ordered.into_iter().map(|(.., mount)| mount));
}

/// Whether a mount is at exactly this path.
pub(crate) fn is_at(mount: &spec::Mount, path: &Path) -> bool {
    clean(&mount.destination) == clean(path)
}

/// Refuses destinations that the container or hull relies on.
pub(crate) fn check(mount: &spec::Mount) -> Result<(), Error> {
    let target = &mount.destination;
    let refuse = |refusal| {
        let kind = mount.kind.as_deref().unwrap_or("none");
        Err(refusal).at(Step::Mount, format_args!("{kind} on {}", target.display()))
    };
    if !target.is_absolute() {
        return Err(Refusal::NotAnAbsolutePath).at(Step::Mount, target.display());
    }
    let place = clean(target);
    let kind = match mount.kind.as_deref() {
        _ if is_bind(mount) => "bind",
        kind => kind.unwrap_or("none"),
    };
    let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
    if place == Path::new("/") {
        refuse(Refusal::OverRoot)
    } else if place == proc && !matches!(kind, "proc" | "bind")
        || place == sys && !matches!(kind, "sysfs" | "bind")
    {
        refuse(Refusal::KernelFileSystem)
    } else if place.starts_with(proc) && place != proc && !is_allowed_in_proc(&place) {
        refuse(Refusal::InsideProc)
    } else {
        Ok(())
    }
}

/// Files of /proc about the whole machine that LXCFS and the like replace by files about the container; as in runc.
const ALLOWED_IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

fn is_allowed_in_proc(place: &Path) -> bool {
    ALLOWED_IN_PROC.iter().any(|path| place == Path::new(path))
}

/// Refuses, once both are open, what [`check`] cannot see: a target that is inside /proc through a symlink, and a bind
/// mount of another file system over /proc.
pub(crate) fn check_target(
    destination: &Path,
    target: impl AsFd,
    mount: impl AsFd,
) -> Result<(), Cause> {
    let place = clean(destination);
    if is_proc(mount)? {
        Ok(())
    } else if place == Path::new("/proc") {
        Err(Refusal::KernelFileSystem.into())
    } else if is_proc(target)? && !is_allowed_in_proc(&place) {
        Err(Refusal::InsideProc.into())
    } else {
        Ok(())
    }
}

fn is_proc(file: impl AsFd) -> Result<bool, Errno> {
    Ok(fstatfs(file)?.f_type == PROC_SUPER_MAGIC)
}

/// Whether a mount shows what is mounted elsewhere.
pub(crate) fn is_bind(mount: &spec::Mount) -> bool {
    let is_bind_option = |option: &String| option == "bind" || option == "rbind";
    matches!(mount.kind.as_deref(), None | Some("bind" | "none"))
        || mount.options.iter().any(is_bind_option)
}

/// A path without `.`, `..` and repeated slashes, as it would be without symlinks.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => _ = clean.pop(),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(destination: &str, kind: &str) -> spec::Mount {
        let json = serde_json::json!({ "destination": destination, "type": kind, "source": "x" });
        serde_json::from_value(json).unwrap()
    }

    fn ordered(destinations: &[&str]) -> Vec<String> {
        let mut mounts = destinations
            .iter()
            .enumerate()
            .map(|(number, place)| mount(place, &number.to_string()))
            .collect();
        order(&mut mounts);
        mounts
            .iter()
            .map(|m| format!("{} {}", m.destination.display(), m.kind.as_ref().unwrap()))
            .collect()
    }

    #[test]
    fn parents_come_first_and_others_stay() {
        assert_eq!(
            ordered(&["/b/c/d", "/x", "/a", "/b", "/b/c", "/a/../b//e", "/bb"]),
            [
                "/b 3",
                "/b/c 4",
                "/b/c/d 0",
                "/x 1",
                "/a 2",
                "/a/../b//e 5",
                "/bb 6"
            ]
        );
        assert_eq!(ordered(&["/p", "/q", "/p"]), ["/p 0", "/q 1", "/p 2"]);
    }

    #[test]
    fn no_order_hides_a_mount_below_another() {
        // Every order of five places, of which three lie below each other.
        let places = ["/a", "/a/b", "/a/b/c", "/d", "/a/e"];
        let mut orders = vec![Vec::new()];
        for _ in 0..places.len() {
            let longer = |order: &Vec<&'static str>| {
                let rest = places.iter().filter(|place| !order.contains(place));
                rest.map(|place| [order.clone(), vec![*place]].concat())
                    .collect::<Vec<_>>()
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        assert_eq!(orders.len(), 120);
        for order in orders {
            let result = ordered(&order);
            let at = |place: &str| {
                result
                    .iter()
                    .position(|m| m.starts_with(&format!("{place} ")))
            };
            assert!(at("/a") < at("/a/b") && at("/a/b") < at("/a/b/c") && at("/a") < at("/a/e"));
        }
    }

    #[test]
    fn what_the_container_relies_on_is_not_mounted_over() {
        let refused = |place: &str, kind: &str| match check(&mount(place, kind)) {
            Ok(()) => None,
            Err(Error {
                cause: Cause::Refused(refusal),
                ..
            }) => Some(refusal),
            Err(error) => panic!("{error:?}"),
        };
        for (place, kind, expected) in [
            ("/proc", "proc", None),
            ("/proc", "bind", None),
            ("/proc/cpuinfo", "bind", None),
            ("/sys", "sysfs", None),
            ("/sys/fs/cgroup", "tmpfs", None),
            ("/process", "tmpfs", None),
            ("/proc", "tmpfs", Some(Refusal::KernelFileSystem)),
            ("/x/..//proc/", "tmpfs", Some(Refusal::KernelFileSystem)),
            ("/sys", "tmpfs", Some(Refusal::KernelFileSystem)),
            ("/proc/sys", "tmpfs", Some(Refusal::InsideProc)),
            ("/proc/self", "bind", Some(Refusal::InsideProc)),
            ("/", "tmpfs", Some(Refusal::OverRoot)),
            ("/x/..", "bind", Some(Refusal::OverRoot)),
            ("proc", "tmpfs", Some(Refusal::NotAnAbsolutePath)),
        ] {
            assert_eq!(refused(place, kind), expected, "{kind} on {place}");
        }
    }
}
