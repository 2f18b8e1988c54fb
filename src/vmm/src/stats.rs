//! KVM's binary statistics (KVM documentation, 4.133 KVM_GET_STATS_FD).
//!
//! A KVM without them gives none: they are for people, and no reason to refuse a VM.

#![expect(unsafe_code, reason = "KVM_GET_STATS_FD has no wrapper in kvm-ioctls")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use kvm_bindings::{KVM_STATS_TYPE_CUMULATIVE, KVM_STATS_TYPE_MASK, KVMIO};

/// _IO(KVMIO, 0xce) (include/uapi/linux/kvm.h).
const KVM_GET_STATS_FD: std::os::raw::c_ulong = (KVMIO as std::os::raw::c_ulong) << 8 | 0xce;

const HEADER_LEN: usize = 24;
/// Length of a descriptor without the name behind it.
const DESCRIPTOR_LEN: usize = 16;
/// The most that is read of either block: KVM has some sixty statistics.
const MAX_BLOCK: usize = 256 << 10;

/// The statistics of a VM or a vCPU; any thread may read them while it runs.
#[derive(Debug)]
pub struct Stats {
    file: File,
}

impl Stats {
    /// The statistics of what `of` is: a VM's or a vCPU's descriptor.
    pub fn new(of: &impl AsRawFd) -> Option<Self> {
        // SAFETY: the ioctl takes no argument and gives a new descriptor or an error.
        let fd = unsafe { vmm_sys_util::ioctl::ioctl(of, KVM_GET_STATS_FD) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor is new and has no other owner.
        let file = unsafe { File::from_raw_fd(fd) };
        Some(Self { file })
    }

    /// Adds every counter that is not zero to `counts`, by KVM's names.
    pub fn add_to(&self, counts: &mut BTreeMap<String, u64>) -> io::Result<()> {
        let mut header = [0; HEADER_LEN];
        self.file.read_exact_at(&mut header, 0)?;
        let field = |index: usize| word(&header, index * 4) as usize;
        let (name_len, count, descriptors, data) = (field(1), field(2), field(4), field(5));
        let each = DESCRIPTOR_LEN + name_len;
        let mut bytes = vec![0; (each * count).min(MAX_BLOCK)];
        self.file.read_exact_at(&mut bytes, descriptors as u64)?;
        for descriptor in bytes.chunks_exact(each) {
            if word(descriptor, 0) & KVM_STATS_TYPE_MASK != KVM_STATS_TYPE_CUMULATIVE {
                continue;
            }
            let mut value = [0; 8];
            let at = data as u64 + u64::from(word(descriptor, 8));
            self.file.read_exact_at(&mut value, at)?;
            let value = u64::from_ne_bytes(value);
            let name = &descriptor[DESCRIPTOR_LEN..];
            let end = name
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(name.len());
            if value != 0 {
                let name = String::from_utf8_lossy(&name[..end]).into_owned();
                let sum: &mut u64 = counts.entry(name).or_default();
                *sum = sum.saturating_add(value);
            }
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
