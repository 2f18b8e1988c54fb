//! `--sysctl`: which kernel parameters a container may set.
//!
//! A container in a VM of its own has the kernel to itself, so it may set any; others may set those of their own
//! namespaces, as in Docker.

use std::collections::BTreeMap;

use crate::options::{Isolation, Options};

/// Parameters of the IPC namespace, which every container has of its own (ipc_namespaces(7)).
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Why a parameter cannot be set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No parameter is called that.
    #[error("--sysctl {0:?} is not the name of a kernel parameter, such as net.core.somaxconn")]
    Name(String),
    /// The host's.
    #[error(
        "--sysctl {0} would change this host for everything on it; a container in a VM, which is the default, has a kernel of its own to change"
    )]
    OfHost(String),
    /// The pod's kernel.
    #[error(
        "--sysctl {0} would change the kernel that the pod's containers share; a container in a VM of its own can have it"
    )]
    OfPod(String),
    /// The pod's network.
    #[error(
        "--sysctl {0} belongs to the network that the pod's containers share; a container in a VM of its own can have it"
    )]
    OfPodNetwork(String),
}

/// The parameters that the options ask for, by name with dots.
pub(super) fn of(options: &Options) -> Result<BTreeMap<String, String>, Error> {
    for name in options.sysctls.keys() {
        if !is_name(name) {
            return Err(Error::Name(name.clone()));
        }
        let of_ipc = OF_IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
        let of_network = name.starts_with("net.");
        match options.isolation {
            Isolation::Vm => {}
            _ if of_ipc => {}
            Isolation::Native if of_network => {}
            Isolation::Native => return Err(Error::OfHost(name.clone())),
            Isolation::Pod(_) if of_network => return Err(Error::OfPodNetwork(name.clone())),
            Isolation::Pod(_) => return Err(Error::OfPod(name.clone())),
        }
    }
    Ok(options.sysctls.clone())
}

/// Whether it leads to a file below /proc/sys: at least two components, none of them empty. A slash is part of a
/// component, as in `net.ipv4.conf.eth0/1.forwarding`.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('.');
    let known =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'@');
    name.contains('.') && parts.all(|part| !part.is_empty() && part.bytes().all(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, isolation: Isolation) -> Result<BTreeMap<String, String>, Error> {
        of(&Options {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            isolation,
            ..Options::default()
        })
    }

    #[test]
    fn a_container_with_a_kernel_of_its_own_sets_any_parameter() {
        for name in [
            "vm.max_map_count",
            "net.core.somaxconn",
            "kernel.shmmax",
            "kernel.panic",
        ] {
            assert!(set(name, Isolation::Vm).is_ok(), "{name}");
        }
    }

    #[test]
    fn others_set_those_of_their_namespaces() {
        let pod = || Isolation::Pod("p".into());
        for isolation in [Isolation::Native, pod()] {
            assert!(set("kernel.shmmax", isolation.clone()).is_ok());
            assert!(set("fs.mqueue.msg_max", isolation).is_ok());
        }
        assert!(set("net.core.somaxconn", Isolation::Native).is_ok());
        let name = "net.core.somaxconn";
        assert_eq!(set(name, pod()), Err(Error::OfPodNetwork(name.into())));
        let name = "vm.max_map_count";
        assert_eq!(
            set(name, Isolation::Native),
            Err(Error::OfHost(name.into()))
        );
        assert_eq!(set(name, pod()), Err(Error::OfPod(name.into())));
    }

    #[test]
    fn a_name_leads_below_proc_sys() {
        for name in [
            "",
            "kernel",
            "..",
            "a..b",
            ".a",
            "a.",
            "net.ipv4.a b",
            "net.\0",
        ] {
            assert_eq!(set(name, Isolation::Vm), Err(Error::Name(name.into())));
        }
        assert!(set("net.ipv4.conf.eth0/1.forwarding", Isolation::Vm).is_ok());
    }
}
