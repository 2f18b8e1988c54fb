//! `--device`: devices of the container's machine, which is the VM, or natively the host.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::options::{Device, DeviceAccess, Isolation, Options};

/// The guest kernel's devices that a container may be given (resources/kernel/config): path, type, numbers, mode.
/// /dev/vsock is deliberately absent: no container may dial the host.
const OF_VM: [(&str, LinuxDeviceType, i64, i64, u32); 12] = [
    ("/dev/null", LinuxDeviceType::C, 1, 3, 0o666),
    ("/dev/zero", LinuxDeviceType::C, 1, 5, 0o666),
    ("/dev/full", LinuxDeviceType::C, 1, 7, 0o666),
    ("/dev/random", LinuxDeviceType::C, 1, 8, 0o666),
    ("/dev/urandom", LinuxDeviceType::C, 1, 9, 0o666),
    ("/dev/kmsg", LinuxDeviceType::C, 1, 11, 0o644),
    ("/dev/tty", LinuxDeviceType::C, 5, 0, 0o666),
    ("/dev/fuse", LinuxDeviceType::C, 10, 229, 0o666),
    ("/dev/net/tun", LinuxDeviceType::C, 10, 200, 0o666),
    ("/dev/loop-control", LinuxDeviceType::C, 10, 237, 0o660),
    ("/dev/loop0", LinuxDeviceType::B, 7, 0, 0o660),
    ("/dev/loop1", LinuxDeviceType::B, 7, 1, 0o660),
];

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not in the VM.
    #[error("--device {0}: a container in a VM can be given the VM's devices, not the host's: {devices}; --isolation native has the host's", devices = OF_VM.map(|device| device.0).join(", "))]
    NotInVm(String),
    /// Not on the host.
    #[error("--device {path}: cannot be looked at")]
    NotOnHost {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another kind of file.
    #[error("--device {0}: it is not a device")]
    NotADevice(String),
}

/// Nodes to make and rules that allow their use.
pub(super) fn of(options: &Options) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>), Error> {
    let mut nodes = Vec::new();
    let mut rules = Vec::new();
    for device in &options.devices {
        let node = match options.isolation {
            Isolation::Vm | Isolation::Pod(_) => of_vm(device)?,
            Isolation::Native => of_host(device)?,
        };
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(node.typ()))
            .set_major(Some(node.major()))
            .set_minor(Some(node.minor()))
            .set_access(Some(access(device.access)));
        rules.push(rule);
        // The last of a path wins.
        nodes.retain(|known: &LinuxDevice| known.path() != node.path());
        nodes.push(node);
    }
    Ok((nodes, rules))
}

fn of_vm(device: &Device) -> Result<LinuxDevice, Error> {
    let known = OF_VM.iter().find(|known| known.0 == device.machine_path);
    let &(_, typ, major, minor, mode) =
        known.ok_or_else(|| Error::NotInVm(device.machine_path.clone()))?;
    Ok(node(device, typ, (major, minor), mode, (0, 0)))
}

fn of_host(device: &Device) -> Result<LinuxDevice, Error> {
    let path = &device.machine_path;
    let metadata = std::fs::metadata(path).map_err(|source| Error::NotOnHost {
        path: path.clone(),
        source,
    })?;
    let kind = metadata.file_type();
    let typ = if kind.is_char_device() {
        LinuxDeviceType::C
    } else if kind.is_block_device() {
        LinuxDeviceType::B
    } else {
        return Err(Error::NotADevice(path.clone()));
    };
    let number = metadata.rdev();
    let numbers = (
        i64::from(rustix::fs::major(number)),
        i64::from(rustix::fs::minor(number)),
    );
    let owner = (metadata.uid(), metadata.gid());
    Ok(node(device, typ, numbers, metadata.mode() & 0o7777, owner))
}

fn node(
    device: &Device,
    typ: LinuxDeviceType,
    (major, minor): (i64, i64),
    mode: u32,
    (uid, gid): (u32, u32),
) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(device.container_path.clone().into())
        .set_typ(typ)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(Some(mode))
        .set_uid(Some(uid))
        .set_gid(Some(gid));
    node
}

fn access(access: DeviceAccess) -> String {
    let letters = [(access.read, 'r'), (access.write, 'w'), (access.mknod, 'm')];
    let given = letters.into_iter().filter(|(given, _)| *given);
    given.map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(path: &str, inside: &str) -> Device {
        Device {
            machine_path: path.into(),
            container_path: inside.into(),
            access: DeviceAccess {
                mknod: false,
                ..DeviceAccess::ALL
            },
        }
    }

    fn options(isolation: Isolation, devices: Vec<Device>) -> Options {
        Options {
            isolation,
            devices,
            ..Options::default()
        }
    }

    #[test]
    fn a_device_of_the_vm_is_made_and_allowed() {
        let options = options(Isolation::Vm, vec![device("/dev/fuse", "/dev/mine")]);
        let (nodes, rules) = of(&options).unwrap();
        assert_eq!(nodes[0].path().display().to_string(), "/dev/mine");
        assert_eq!((nodes[0].major(), nodes[0].minor()), (10, 229));
        assert_eq!(rules[0].access().as_deref(), Some("rw"));
        assert!(rules[0].allow());
    }

    #[test]
    fn a_device_of_the_host_is_not_in_a_vm() {
        let options = options(Isolation::Vm, vec![device("/dev/kvm", "/dev/kvm")]);
        let message = of(&options).unwrap_err().to_string();
        assert!(message.contains("/dev/fuse, /dev/net/tun"), "{message}");
    }

    #[test]
    fn a_native_container_gets_the_host_s_node() {
        let native = options(Isolation::Native, vec![device("/dev/null", "/dev/null")]);
        let (nodes, _) = of(&native).unwrap();
        assert_eq!((nodes[0].major(), nodes[0].minor()), (1, 3));
        for (path, found) in [
            ("/etc/passwd", "not a device"),
            ("/nope", "cannot be looked at"),
        ] {
            let native = options(Isolation::Native, vec![device(path, path)]);
            let message = of(&native).unwrap_err().to_string();
            assert!(message.contains(found), "{message}");
        }
    }
}
