//! Devices, kernel parameters, namespaces, platform and isolation: what of a container touches its machine.

use engine::options::{Device, DeviceAccess, Ipc, Isolation, Network};

use super::absolute;

/// Why a value is none, or none that a container of hull's can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a device.
    #[error(
        "{0:?} is not a device: an absolute path, perhaps the path inside, perhaps rights of r, w and m, with colons between"
    )]
    Device(String),
    /// A device by the name of the Container Device Interface.
    #[error(
        "{0:?} names a device of the Container Device Interface, which hull does not have; name its path"
    )]
    Cdi(String),
    /// Not a parameter.
    #[error("{0:?} is not a kernel parameter: NAME=VALUE, as in net.core.somaxconn=1024")]
    Sysctl(String),
    /// Not an isolation.
    #[error("{0:?} is not an isolation: vm, pod:NAME or native")]
    Isolation(String),
    /// Not an option of the writable layer.
    #[error(
        "{0:?} is not an option of the writable layer that hull has: size=SIZE, as in size=10g"
    )]
    Storage(String),
    /// Not a network.
    #[error(
        "{0:?} is not a network: none, bridge or the name of one of your own (hull network ls); what goes with it are options \
         of the container (--ip, --mac-address, --network-alias) or follow it: name=NETWORK,alias=NAME,ip=ADDRESS"
    )]
    Network(String),
    /// The host's network.
    #[error(
        "--network host would be this host's network, which a VM has no part in; use bridge, which reaches it through NAT"
    )]
    HostNetwork,
    /// Another platform.
    #[error("hull runs linux/amd64 only, not {0:?}: a VM has the processor of its host")]
    Platform(String),
    /// A namespace of the host's.
    #[error(
        "{option} host: a container in a VM cannot share that with this host, and a native one keeps its own; leave it out"
    )]
    Host {
        /// The option.
        option: &'static str,
    },
    /// A namespace of another container's.
    #[error(
        "{option} {value}: containers share that in a pod; see `hull pod create --help` and --isolation pod:NAME"
    )]
    OfContainer {
        /// The option.
        option: &'static str,
        /// Which container.
        value: String,
    },
    /// A namespace that there is not.
    #[error("{option} {value:?} is not known; it may be {known}, or left out")]
    Namespace {
        /// The option.
        option: &'static str,
        /// What was written.
        value: String,
        /// What may be written.
        known: &'static str,
    },
}

/// `PATH[:INSIDE][:RIGHTS]`
pub fn device(text: &str) -> Result<Device, Error> {
    let error = || Error::Device(text.to_owned());
    if !text.starts_with('/') && text.contains('=') {
        return Err(Error::Cdi(text.to_owned()));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (machine, inside, access) = match parts[..] {
        [path] => (path, path, DeviceAccess::ALL),
        [path, word] => match rights(word) {
            Some(access) => (path, path, access),
            None => (path, word, DeviceAccess::ALL),
        },
        [path, inside, word] => (path, inside, rights(word).ok_or_else(error)?),
        _ => return Err(error()),
    };
    Ok(Device {
        machine_path: absolute(machine).ok_or_else(error)?,
        container_path: absolute(inside).ok_or_else(error)?,
        access,
    })
}

/// Letters of r, w and m, each at most once.
fn rights(word: &str) -> Option<DeviceAccess> {
    let has = |letter| word.matches(letter).count() == 1;
    let access = DeviceAccess {
        read: has('r'),
        write: has('w'),
        mknod: has('m'),
    };
    let count = [access.read, access.write, access.mknod];
    let count = count.into_iter().filter(|given| *given).count();
    (count == word.len() && count > 0).then_some(access)
}

/// `NAME=VALUE`
pub fn sysctl(text: &str) -> Result<(String, String), Error> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Error::Sysctl(text.to_owned())),
    }
}

/// An isolation; an empty word and `default` are Docker's for the default.
pub fn isolation(text: &str) -> Result<Isolation, Error> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "default" | "vm", "") if !text.ends_with(':') => Ok(Isolation::Vm),
        ("native", "") if !text.ends_with(':') => Ok(Isolation::Native),
        ("pod", name) if !name.is_empty() => Ok(Isolation::Pod(name.to_owned())),
        _ => Err(Error::Isolation(text.to_owned())),
    }
}

/// `size=SIZE`
pub fn storage(text: &str) -> Result<u64, Error> {
    let size = text.split_once('=').filter(|(name, _)| *name == "size");
    size.and_then(|(_, size)| super::size(size).ok())
        .ok_or_else(|| Error::Storage(text.to_owned()))
}

/// A network; an empty word and `default` are Docker's for the default.
pub fn network(text: &str) -> Result<Option<Network>, Error> {
    match text {
        "" | "default" => Ok(None),
        "none" => Ok(Some(Network::None)),
        "bridge" => Ok(Some(Network::Bridge)),
        "host" => Err(Error::HostNetwork),
        _ => match text.strip_prefix("container:") {
            Some(_) => Err(Error::OfContainer {
                option: "--network",
                value: text.to_owned(),
            }),
            None if engine::networks::is_name(text) => Ok(Some(Network::Named(text.to_owned()))),
            None => Err(Error::Network(text.to_owned())),
        },
    }
}

/// `--platform`: the one that there is, in any of its spellings.
pub fn platform(text: &str) -> Result<String, Error> {
    match text.to_ascii_lowercase().as_str() {
        "" | "linux" | "amd64" | "x86_64" | "x86-64" | "linux/amd64" | "linux/x86_64"
        | "linux/x86-64" | "linux/amd64/v1" => Ok("linux/amd64".to_owned()),
        _ => Err(Error::Platform(text.to_owned())),
    }
}

/// `--ipc`
pub fn ipc(text: &str) -> Result<Ipc, Error> {
    match text {
        "" | "private" => Ok(Ipc::Private),
        "none" => Ok(Ipc::WithoutShm),
        _ => Err(namespace("--ipc", text, "private or none")),
    }
}

/// `--pid`
pub fn pid(text: &str) -> Result<(), Error> {
    own("--pid", text, &[], "left empty")
}

/// `--uts`
pub fn uts(text: &str) -> Result<(), Error> {
    own("--uts", text, &[], "left empty")
}

/// `--cgroupns`
pub fn cgroupns(text: &str) -> Result<(), Error> {
    own("--cgroupns", text, &["private"], "private")
}

/// `--userns`: `host` is Docker's word for no user namespace of the container's own, which is what it has here.
pub fn userns(text: &str) -> Result<(), Error> {
    own("--userns", text, &["host"], "host")
}

/// A namespace that every container has of its own, so that there is nothing to choose.
fn own(option: &'static str, text: &str, names: &[&str], known: &'static str) -> Result<(), Error> {
    if text.is_empty() || names.contains(&text) {
        return Ok(());
    }
    Err(namespace(option, text, known))
}

fn namespace(option: &'static str, text: &str, known: &'static str) -> Error {
    if text == "host" {
        Error::Host { option }
    } else if text == "shareable" || text.starts_with("container:") {
        Error::OfContainer {
            option,
            value: text.to_owned(),
        }
    } else {
        Error::Namespace {
            option,
            value: text.to_owned(),
            known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_path_inside_and_rights() {
        let of = |text: &str| {
            let device = device(text).unwrap();
            let access = device.access;
            (
                device.machine_path,
                device.container_path,
                [access.read, access.write, access.mknod],
            )
        };
        let expect =
            |machine: &str, inside: &str, access| (machine.to_owned(), inside.to_owned(), access);
        let fuse = "/dev/fuse";
        assert_eq!(of(fuse), expect(fuse, fuse, [true; 3]));
        assert_eq!(of("/dev/fuse:rw"), expect(fuse, fuse, [true, true, false]));
        assert_eq!(of("/dev/fuse:/dev/x"), expect(fuse, "/dev/x", [true; 3]));
        assert_eq!(
            of("/dev/fuse:/dev/x:r"),
            expect(fuse, "/dev/x", [true, false, false])
        );
        for bad in [
            "",
            "fuse",
            "/dev/a:",
            "/dev/a:q",
            "/dev/a:/dev/b:q",
            "/dev/a:/dev/b:rr",
            "/a:/b:r:w",
            "/dev/../a",
        ] {
            assert_eq!(device(bad), Err(Error::Device(bad.into())));
        }
        let name = "nvidia.com/gpu=all";
        assert_eq!(device(name), Err(Error::Cdi(name.into())));
    }

    #[test]
    fn a_kernel_parameter_has_a_name_and_a_value() {
        assert_eq!(
            sysctl("net.ipv4.ip_local_port_range=1 2"),
            Ok(("net.ipv4.ip_local_port_range".into(), "1 2".into()))
        );
        for bad in ["", "a.b", "=x"] {
            assert_eq!(sysctl(bad), Err(Error::Sysctl(bad.into())));
        }
    }

    #[test]
    fn isolations_are_three() {
        assert_eq!(isolation("vm"), Ok(Isolation::Vm));
        assert_eq!(isolation(""), Ok(Isolation::Vm));
        assert_eq!(isolation("native"), Ok(Isolation::Native));
        assert_eq!(isolation("pod:web"), Ok(Isolation::Pod("web".into())));
        for bad in ["pod", "pod:", "vm:x", "vm:", "hyperv", "VM"] {
            assert_eq!(isolation(bad), Err(Error::Isolation(bad.into())));
        }
    }

    #[test]
    fn the_writable_layer_has_a_size() {
        assert_eq!(storage("size=10g"), Ok(10 << 30));
        for wrong in [
            "",
            "size",
            "size=",
            "size=0",
            "size=much",
            "dm.basesize=10g",
        ] {
            assert_eq!(storage(wrong), Err(Error::Storage(wrong.to_owned())));
        }
    }

    #[test]
    fn a_network_is_none_the_bridge_or_ones_own() {
        assert_eq!(network("bridge"), Ok(Some(Network::Bridge)));
        assert_eq!(network("default"), Ok(None));
        assert_eq!(network("host"), Err(Error::HostNetwork));
        assert_eq!(network("mine"), Ok(Some(Network::Named("mine".into()))));
        for bad in ["a/b", "name=mine,ip=10.0.0.2"] {
            assert_eq!(network(bad), Err(Error::Network(bad.into())));
        }
        assert!(matches!(
            network("container:x"),
            Err(Error::OfContainer { .. })
        ));
    }

    #[test]
    fn namespaces_that_cannot_be_shared_say_so() {
        assert_eq!(ipc("private"), Ok(Ipc::Private));
        assert_eq!(ipc("none"), Ok(Ipc::WithoutShm));
        assert_eq!(userns("host"), Ok(()));
        assert_eq!(cgroupns("private"), Ok(()));
        assert_eq!(uts(""), Ok(()));
        assert_eq!(ipc("host"), Err(Error::Host { option: "--ipc" }));
        assert_eq!(pid("host"), Err(Error::Host { option: "--pid" }));
        assert!(matches!(pid("container:x"), Err(Error::OfContainer { .. })));
        assert!(matches!(uts("x"), Err(Error::Namespace { .. })));
    }

    #[test]
    fn the_platform_is_the_host_s() {
        for fine in ["", "linux/amd64", "amd64", "linux", "linux/x86_64"] {
            assert!(platform(fine).is_ok(), "{fine}");
        }
        for bad in ["linux/arm64", "windows/amd64", "linux/amd64/v3", "x/y"] {
            assert_eq!(platform(bad), Err(Error::Platform(bad.into())));
        }
    }
}
