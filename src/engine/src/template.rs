//! Which template a VM begins from: everything that a saved VM depends on, as one value, hashed as a whole.
//!
//! Invariant: two VMs with the same key are, up to the moment when their agents are ready, the same; what differs from
//! container to container (layers, addresses, the container itself) comes later. How templates are made and kept is the
//! the monitor's business.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::record::Vm;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::layout::Layout;

/// Another value with each boot of the host: what was saved holds for this processor's microcode, this kernel's KVM and
/// this machine's clock only.
const HOST_BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Bytes of the key's two hashes. The first only tells builds and boots apart, of which there are few.
const ORIGIN_LEN: usize = 6;
const SHAPE_LEN: usize = 16;

/// Where a template comes from: one of another origin is never used.
#[derive(Debug, Serialize)]
struct Origin<'a> {
    /// [`protocol::BUILD`].
    build: &'a str,
    host_boot: String,
}

/// What a VM is until its agent is ready.
#[derive(Debug, Serialize)]
struct Shape<'a> {
    monitor: FileIdentity,
    vmm: FileIdentity,
    kernel: FileIdentity,
    initramfs: FileIdentity,
    cmdline: &'a str,
    memory_mib: u32,
    vcpus: u8,
    /// It has a writable disk, whose length is the same in every VM of this monitor's.
    writable: bool,
    /// Network cards, whose MTU and offloads are the same in every VM of this monitor's.
    cards: u8,
}

/// A file's content, without reading it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct FileIdentity {
    dev: u64,
    ino: u64,
    len_bytes: u64,
    mtime_ns: i128,
}

impl FileIdentity {
    fn of(path: &Path) -> io::Result<FileIdentity> {
        let metadata = fs::metadata(path)?;
        Ok(FileIdentity {
            dev: metadata.dev(),
            ino: metadata.ino(),
            len_bytes: metadata.len(),
            mtime_ns: i128::from(metadata.mtime()) * 1_000_000_000
                + i128::from(metadata.mtime_nsec()),
        })
    }
}

/// The folder, in the state `root`, of the template for this VM, made or not. `monitor` is the program that starts it.
pub fn path(root: &Path, monitor: &Path, vm: &Vm) -> io::Result<PathBuf> {
    // Every field is named: one that a template depends on is not forgotten when it is added.
    let Vm {
        program,
        kernel,
        initramfs,
        cmdline,
        memory_mib,
        vcpus,
        cards,
        scratch,
        // The guest does not see these, or not before its template.
        fs: _,
        scratch_bytes: _,
        cpu_milli: _,
        cpu_shares: _,
        jail: _,
        template: _,
        show_console: _,
    } = vm;
    let origin = Origin {
        build: protocol::BUILD,
        host_boot: fs::read_to_string(HOST_BOOT)?,
    };
    let shape = Shape {
        monitor: FileIdentity::of(monitor)?,
        vmm: FileIdentity::of(program)?,
        kernel: FileIdentity::of(kernel)?,
        initramfs: FileIdentity::of(initramfs)?,
        cmdline,
        memory_mib: *memory_mib,
        vcpus: *vcpus,
        writable: scratch.is_some(),
        cards: *cards,
    };
    let key = format!(
        "{}-{}",
        hash(&origin, ORIGIN_LEN)?,
        hash(&shape, SHAPE_LEN)?
    );
    Ok(Layout::new(root).templates().join(key))
}

/// The first bytes of a value's hash, as text.
fn hash(value: &impl Serialize, len: usize) -> io::Result<String> {
    let digest = Sha256::digest(serde_json::to_vec(value)?);
    Ok(digest[..len].iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use protocol::record::JailPolicy;

    use super::*;

    fn vm(folder: &Path) -> Vm {
        let file = |name: &str| {
            let path = folder.join(name);
            if !path.exists() {
                fs::write(&path, name).unwrap();
            }
            path
        };
        Vm {
            program: file("hull-vmm"),
            fs: None,
            kernel: file("vmlinux"),
            initramfs: file("initramfs.cpio"),
            cmdline: "quiet".into(),
            memory_mib: 568,
            vcpus: 1,
            cards: 1,
            cpu_milli: None,
            cpu_shares: None,
            jail: JailPolicy::Full,
            scratch: Some(file("scratch.ext4")),
            scratch_bytes: None,
            template: None,
            show_console: false,
        }
    }

    #[test]
    fn the_same_vm_has_the_same_template_and_another_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hull-monitor");
        fs::write(&program, "").unwrap();
        let key = |vm: &Vm| path(Path::new("/root"), &program, vm).unwrap();
        let first = key(&vm(folder.path()));
        assert_eq!(first, key(&vm(folder.path())));
        assert_eq!(first.parent(), Some(Path::new("/root/templates")));
        let mut all = vec![first];
        let changes: [fn(&mut Vm); 8] = [
            |vm| vm.cards = 0,
            |vm| vm.cards = 4,
            |vm| vm.memory_mib += 2,
            |vm| vm.vcpus += 1,
            |vm| vm.scratch = None,
            |vm| vm.cmdline.push('x'),
            |vm| vm.initramfs = vm.kernel.clone(),
            |vm| fs::write(&vm.kernel, "another").unwrap(),
        ];
        for change in changes {
            let mut other = vm(folder.path());
            change(&mut other);
            all.push(key(&other));
        }
        let fraction = Vm {
            cpu_milli: Some(500),
            ..vm(folder.path())
        };
        assert_eq!(all.last(), Some(&key(&fraction)));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_vm_whose_parts_are_not_there_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nothing");
        assert!(path(Path::new("/root"), &nowhere, &vm(folder.path())).is_err());
    }
}
