//! Kernel parameters, through the container's own /proc: those of its own namespaces, and any where the machine is its
//! own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::error::{Attempt, Cause, Error, Refusal, Step};
use crate::inside::Root;
use crate::namespaces::Namespaces;

/// Refuses parameters that do not belong to a namespace that the container has of its own: they would change the
/// machine, which it must not unless the machine is its own.
pub(crate) fn check(
    parameters: &BTreeMap<String, String>,
    namespaces: &Namespaces,
    own_machine: bool,
) -> Result<(), Error> {
    for name in parameters.keys() {
        let name = name.replace('/', ".");
        let own = match name.as_str() {
            "kernel.domainname" | "kernel.hostname" => namespaces.has(libc::CLONE_NEWUTS),
            "kernel.msgmax"
            | "kernel.msgmnb"
            | "kernel.msgmni"
            | "kernel.sem"
            | "kernel.shmall"
            | "kernel.shmmax"
            | "kernel.shmmni"
            | "kernel.shm_rmid_forced" => namespaces.has(libc::CLONE_NEWIPC),
            name if name.starts_with("fs.mqueue.") => namespaces.has(libc::CLONE_NEWIPC),
            name if name.starts_with("net.") => namespaces.has(libc::CLONE_NEWNET),
            name if name.starts_with("user.") => namespaces.has(libc::CLONE_NEWUSER),
            _ => own_machine,
        };
        if !own || name.contains("..") {
            return Err(Refusal::NotNamespaced).at(Step::Sysctl, name);
        }
    }
    Ok(())
}

/// Writes the parameters, inside.
pub(crate) fn write(root: &Root, parameters: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in parameters {
        let path = PathBuf::from(format!("/proc/sys/{}", path_of(name)));
        let write = || -> Result<(), Cause> {
            let file = root.get_without_symlinks(&path, OFlags::WRONLY)?;
            rustix::io::write(file, value.as_bytes())?;
            Ok(())
        };
        write().at(Step::Sysctl, name)?;
    }
    Ok(())
}

/// As sysctl(8): whichever of `.` and `/` comes first separates; the other one is part of a name (`eth0.1`).
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_file() {
        assert_eq!(path_of("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }
}
