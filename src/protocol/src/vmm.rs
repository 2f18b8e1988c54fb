//! Monitor to hull-vmm, over the SOCK_SEQPACKET socket that hull-vmm inherits as descriptor [`CONTROL_FD`].
//!
//! One packet is one JSON document of at most [`MAX_PACKET_LEN`] bytes, with the descriptors that it speaks of as
//! SCM_RIGHTS. The first packet is [`ToVmm::Start`]. hull-vmm never opens a path and never makes a socket.
//! When the socket closes, the VM ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::timeline::Timeline;

/// The control socket's number in hull-vmm. Besides it, the standard streams and [`WORDS_FD`] it inherits nothing.
pub const CONTROL_FD: i32 = 3;
/// The number of the pipe to which hull-vmm writes when it ends against its will: a refused system call, a panic.
pub const WORDS_FD: i32 = 4;
/// The largest packet, in bytes.
pub const MAX_PACKET_LEN: usize = 64 << 10;
/// The most descriptors in one packet: the kernel's own limit (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 253;
/// Descriptors that a [`ToVmm::Start`] may carry besides one for each layer. Today there are at most eight: KVM, kernel,
/// initramfs, the two files of a snapshot, writable disk, console and tap.
const START_DESCRIPTORS: usize = 13;
/// The most layers of a VM that starts: one descriptor each in [`ToVmm::Start`].
pub const MAX_LAYERS: usize = MAX_DESCRIPTORS - START_DESCRIPTORS;
// Each is a partition of the layer device, of which Linux counts 255.
const _: () = assert!(MAX_LAYERS <= 255);
/// The most extents of a disk, those included that are added while the VM runs.
pub const MAX_EXTENTS: usize = 1024;
/// The most vCPUs of a VM.
pub const MAX_VCPUS: u8 = 32;
/// The least memory of a VM, in MiB.
pub const MIN_MEMORY_MIB: u32 = 32;

/// A descriptor that came with a packet: its index in the packet's SCM_RIGHTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor(pub u32);

/// What the monitor sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToVmm {
    /// Build and run the VM. Only as the first packet.
    Start(Box<VmConfig>),
    /// When the guest connects to this host port over vsock, it is joined to this end of a socketpair (SOCK_STREAM),
    /// once. May come before or after the guest's connection request: a request to a port that is not offered is
    /// reset. The end may already hold bytes, which the guest will read.
    OfferStream {
        /// Host port.
        port: u32,
        /// One end of a socketpair.
        stream: Descriptor,
    },
    /// Add extents to a read-only disk: all of them, or none. Answered with [`FromVmm::Added`] or [`FromVmm::Refused`];
    /// more than one packet carries are sent in several requests, which may follow each other unanswered.
    AddExtents {
        /// A number of the monitor's choice, which comes back with the answer.
        request: u32,
        /// The serial of the disk.
        disk: String,
        /// Extents in gaps of the disk, in any order.
        extents: Vec<PlacedExtent>,
    },
    /// Let a hull-fs serve the file system device ([`VmConfig::fs`]) over this socket. It takes the place of the one before,
    /// whatever its state: the guest's requests there fail, and all others until it mounts anew. Not answered: a socket that
    /// cannot be used is closed, which ends its hull-fs.
    ServeFs {
        /// hull-vmm's end of a socketpair (SOCK_SEQPACKET).
        socket: Descriptor,
    },
    /// Have a network card lead elsewhere, or nowhere: its link is down then, and what the guest sends is dropped. The guest is
    /// told of the change. Not answered: what cannot be used changes nothing.
    Plug {
        /// Which of [`VmConfig::nets`].
        slot: u8,
        /// Where its packets go, and what that leads to: the kind that the card was made for.
        wire: Option<(Descriptor, Wire)>,
    },
    /// Send a [`FromVmm::Report`].
    Report,
    /// End the VM now.
    Stop,
}

/// A whole VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfig {
    /// [`crate::BUILD`] of the monitor.
    pub build: String,
    /// /dev/kvm, opened for reading and writing.
    pub kvm: Descriptor,
    /// Guest memory.
    pub memory_mib: u32,
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// How it begins.
    pub boot: Boot,
    /// Where the guest's console output goes (a pipe or a file; written without blocking, what does not fit is dropped).
    /// Early serial output and the virtio console share it.
    pub console: Option<Descriptor>,
    /// Block devices, in the guest's order: vda, vdb, …
    pub disks: Vec<DiskConfig>,
    /// Network devices, in the guest's order.
    pub nets: Vec<NetConfig>,
    /// The vsock device.
    pub vsock: Option<VsockConfig>,
    /// The entropy device.
    pub rng: bool,
    /// The file system device, through which the guest gets at shared directories.
    pub fs: Option<FsConfig>,
}

/// How a VM begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Boot {
    /// With a kernel.
    Kernel(Kernel),
    /// Where another VM was saved ([`Kernel::save_to`]): one of this build, of the same size and with the same devices; their
    /// files may differ.
    Snapshot(Snapshot),
}

/// A kernel to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// vmlinux or bzImage.
    pub image: Descriptor,
    /// An initramfs, cpio or compressed cpio.
    pub initramfs: Option<Descriptor>,
    /// The kernel's command line, to which hull-vmm adds the virtio-mmio devices.
    pub cmdline: String,
    /// Two files, open for writing, an empty one and one as long as the memory: the VM is saved to them and ends with [`End::Saved`] when the guest writes
    /// [`crate::timeline::mark::READY`].
    pub save_to: Option<Snapshot>,
}

/// A saved VM: two files. It holds whatever was in the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// vCPUs, interrupt chip, clock and devices.
    pub state: Descriptor,
    /// The guest's memory, sparse. VMs that begin here map it copy-on-write: it must neither shrink nor change meanwhile.
    pub memory: Descriptor,
}

/// A block device: extents of files, and zeros between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// What the guest reads as the device's serial: at most 20 bytes of ASCII.
    pub serial: String,
    /// Refuse writes here, whatever the guest does; the files are opened read-only as well.
    pub read_only: bool,
    /// The extents, in order; each begins at the next multiple of `align_bytes`, gaps read as zeros.
    pub extents: Vec<DiskExtent>,
    /// A power of two, at least 512.
    pub align_bytes: u64,
    /// The device is at least so long: what no extent fills reads as zeros. A multiple of 512.
    pub min_len_bytes: u64,
}

/// A part of a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskExtent {
    /// A regular file or block device.
    pub file: Descriptor,
    /// Bytes of the file that are part of the device, from its start; a multiple of 512.
    pub len_bytes: u64,
}

/// An extent, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedExtent {
    /// Where it begins in the disk, in bytes: a multiple of [`DiskConfig::align_bytes`].
    pub offset_bytes: u64,
    /// What lies there; it ends inside the disk and overlaps no other extent.
    pub extent: DiskExtent,
}

/// What is at the other end of a network device's descriptor. Each packet has a header of 12 bytes (struct
/// virtio_net_hdr_v1), and no call blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// What takes and gives whole packets with checksums.
    Plain,
    /// A tap (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR), which is told what the guest's driver leaves to it.
    Tap,
    /// A SOCK_SEQPACKET socket to a hull-net, which takes TCP in pieces of up to 64 KiB without checksums, and gives it so.
    Switch,
}

/// The MAC address of a VM's network card of this number, until the sandbox's takes its place: locally administered and
/// unicast. The guest tells the cards apart by it.
pub fn card_mac(slot: u8) -> [u8; 6] {
    [0x02, 0x48, 0, 0, 0, slot]
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// Where its packets go; without it, nowhere until a [`ToVmm::Plug`].
    pub descriptor: Option<Descriptor>,
    /// What that leads to.
    pub wire: Wire,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// Largest packet, in bytes.
    pub mtu: u16,
}

/// The vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockConfig {
    /// The guest's context id, 3 or more.
    pub guest_cid: u32,
}

/// The file system device (virtio-fs). A hull-fs comes to it while the VM runs, with [`ToVmm::ServeFs`]; until then the guest's
/// attempts to mount are answered ENODEV.
///
/// hull-vmm holds a descriptor for each file that the guest has open there: its jail is to allow it
/// [`crate::fs::MAX_OPEN_FILES`] besides the 4096 that are enough for everything else (RLIMIT_NOFILE). Where it allows fewer, the
/// guest may open fewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsConfig {
    /// What the driver finds the device by: 1 to 36 bytes ([`crate::fs::TAG`]).
    pub tag: String,
    /// Some of its files may be written to: hull-vmm then sets itself no limit to the length of files (RLIMIT_FSIZE). Otherwise
    /// none that it writes may become longer than its largest writable disk, and a guest that tries ends its VM. No part of
    /// a VM's shape: one that begins from a snapshot may differ in it.
    pub unbounded_files: bool,
}

/// What hull-vmm sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromVmm {
    /// The VM's first vCPU is about to run.
    Running,
    /// The answer to [`ToVmm::Report`].
    Report(Report),
    /// The guest can read the extents of [`ToVmm::AddExtents`].
    Added {
        /// The number of the request.
        request: u32,
    },
    /// A request was not carried out, and nothing has changed.
    Refused {
        /// The number of the request.
        request: u32,
        /// What was attempted, on what, and why it failed.
        message: String,
    },
    /// A stream ended before everything that was sent on it had arrived, and its connection is reset. The other end
    /// reads an end of file: only this says that bytes are missing. The VM and its other streams go on.
    StreamFailed {
        /// The host port of [`ToVmm::OfferStream`].
        port: u32,
        /// Why.
        message: String,
    },
    /// The VM has ended; nothing follows.
    Ended {
        /// Why.
        end: End,
        /// As it was at the end.
        report: Report,
    },
    /// The VM could not be built; nothing follows.
    Failed {
        /// What was attempted, on what, and why it failed.
        message: String,
    },
}

/// Why a VM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum End {
    /// The agent wrote this code to the control device and reset the machine.
    Code {
        /// The agent's code.
        code: u32,
    },
    /// The guest reset itself without a code: its own reboot or, when the console shows one, a panic.
    Reset,
    /// Every vCPU has halted with interrupts off and nothing can wake it, or the guest powered off.
    Halted,
    /// A triple fault (KVM_EXIT_SHUTDOWN).
    TripleFault,
    /// A vCPU could not go on.
    VcpuError {
        /// Which one.
        vcpu: u8,
        /// What KVM said.
        message: String,
    },
    /// The monitor asked for it or is gone.
    Stopped,
    /// It was saved where [`Kernel::save_to`] says.
    Saved,
}

/// What hull-vmm knows of a VM.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The stamps that hull-vmm takes (T1, T2, T3, T5).
    pub timeline: Timeline,
    /// Exits by kind, summed over the vCPUs: KVM's binary statistics (KVM_GET_STATS_FD), those that are not zero.
    pub kvm_stats: BTreeMap<String, u64>,
    /// Exits that reached user space, by kind (`io_out 0x64`, `mmio_write blk`, `hlt`, …).
    pub user_exits: BTreeMap<String, u64>,
    /// Address ranges of hull-vmm that are guest memory: `[start, end)`.
    pub guest_memory: Vec<[u64; 2]>,
    /// The part of `guest_memory` that is mapped from the kernel's file, or from a snapshot's.
    pub kernel_memory: Vec<[u64; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_with_everything_a_vm_can_have_fits_one_packet() {
        let mut count = 0;
        let mut pass = || {
            count += 1;
            Descriptor(count - 1)
        };
        let kvm = pass();
        let kernel = Kernel {
            image: pass(),
            initramfs: Some(pass()),
            // The longest command line that Linux takes on x86 (COMMAND_LINE_SIZE).
            cmdline: "x".repeat(2048),
            save_to: Some(Snapshot {
                state: pass(),
                memory: pass(),
            }),
        };
        let mut disk = |extents: usize| DiskConfig {
            serial: "s".repeat(20),
            read_only: false,
            extents: (0..extents)
                .map(|_| DiskExtent {
                    file: pass(),
                    len_bytes: u64::MAX,
                })
                .collect(),
            align_bytes: u64::MAX,
            min_len_bytes: u64::MAX,
        };
        let disks = vec![disk(MAX_LAYERS), disk(1)];
        let config = VmConfig {
            build: crate::BUILD.to_owned(),
            kvm,
            memory_mib: u32::MAX,
            vcpus: MAX_VCPUS,
            boot: Boot::Kernel(kernel),
            disks,
            console: Some(pass()),
            nets: (0..4)
                .map(|slot| NetConfig {
                    descriptor: (slot == 0).then(&mut pass),
                    wire: Wire::Switch,
                    mac: [0xff; 6],
                    mtu: u16::MAX,
                })
                .collect(),
            vsock: Some(VsockConfig {
                guest_cid: u32::MAX,
            }),
            rng: false,
            fs: Some(FsConfig {
                tag: "t".repeat(36),
                unbounded_files: false,
            }),
        };
        let packet = serde_json::to_vec(&ToVmm::Start(Box::new(config))).unwrap();
        assert!(packet.len() <= MAX_PACKET_LEN, "{} bytes", packet.len());
        assert!(count as usize <= MAX_DESCRIPTORS, "{count} descriptors");
    }
}
