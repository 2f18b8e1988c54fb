//! A VM saved and begun again: what of it is not memory.
//!
//! ```text
//!  guest writes READY -> End::Saved -> every vCPU leaves the guest and gives its registers to the [`Saver`]
//!                                          the last one: chips, clock, devices (stopped) -> state file
//!  Boot::Snapshot -> memory mapped, vCPUs and chips set -> vCPU 0, before it runs: devices started where they were
//! ```
//!
//! Memory is no part of it: a VM that is to be saved has its RAM in the snapshot's file from the start. A state is trusted
//! no more than a guest: KVM checks registers, the transports their queues. Only the build that made it can read it.

use std::fs::File;
use std::io::{self, Read, Write};

use devices::virtio::mmio;
use kvm_bindings::{kvm_clock_data, kvm_irqchip};
use protocol::vmm::VmConfig;
use serde::{Deserialize, Serialize};

mod saver;
mod vcpu;

pub use saver::Saver;
pub use vcpu::{VcpuState, restore};

/// The largest state file that is written or read, in bytes. JSON takes up to 40 KiB for a vCPU, of which there are at
/// most 32, and 30 bytes for each range of memory that is written soon.
pub const MAX_STATE_BYTES: u64 = 4 << 20;

/// Why a VM could not be saved or does not begin where it was saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("the snapshot's state cannot be read or written")]
    File(#[from] io::Error),
    /// Not a state, or one of another build.
    #[error("the snapshot's state is not one of this build's")]
    Json(#[from] serde_json::Error),
    /// One that could not be read again.
    #[error("the snapshot's state is {0} bytes long, and {MAX_STATE_BYTES} are read at most")]
    TooLarge(usize),
    /// A state of another build.
    #[error("the snapshot is of build {0}, and this is {ours}", ours = protocol::BUILD)]
    Build(String),
    /// A state of another VM.
    #[error("the snapshot is of a VM with {found} {what}, and this one has {wanted}")]
    Shape {
        /// What differs.
        what: &'static str,
        /// In the snapshot.
        found: u64,
        /// In the configuration.
        wanted: u64,
    },
    /// A vCPU was lost.
    #[error("not every vCPU has given its state")]
    Incomplete,
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] crate::kvm::Error),
    /// A device.
    #[error("virtio device {index} cannot go on where it was saved")]
    Device {
        /// Its window.
        index: usize,
        /// Why.
        #[source]
        source: mmio::RestoreError,
    },
}

/// Everything of a VM but its memory.
#[derive(Serialize, Deserialize)]
pub struct State {
    build: String,
    memory_mib: u32,
    /// In their order.
    pub vcpus: Vec<VcpuState>,
    /// The interrupt chip and the clock.
    pub chips: Chips,
    /// Memory that the guest is expected to write soon: addresses and lengths in bytes.
    pub written_soon: Vec<[u64; 2]>,
    /// The virtio devices' transports, in the order of their windows.
    pub devices: Vec<mmio::State>,
}

/// What KVM keeps for the whole VM.
#[derive(Serialize, Deserialize)]
pub struct Chips {
    /// The two PICs and the IOAPIC.
    pub irqchips: [kvm_irqchip; 3],
    /// The paravirtual clock.
    pub clock: kvm_clock_data,
}

impl State {
    /// Reads the state of a VM like `config`'s.
    pub fn read(file: File, config: &VmConfig) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        file.take(MAX_STATE_BYTES).read_to_end(&mut bytes)?;
        let state: Self = serde_json::from_slice(&bytes)?;
        if state.build != protocol::BUILD {
            return Err(Error::Build(state.build));
        }
        same(
            "MiB of memory",
            state.memory_mib.into(),
            config.memory_mib.into(),
        )?;
        same("vCPUs", state.vcpus.len() as u64, config.vcpus.into())?;
        Ok(state)
    }

    fn write(&self, mut file: &File) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() as u64 > MAX_STATE_BYTES {
            return Err(Error::TooLarge(bytes.len()));
        }
        Ok(file.write_all(&bytes)?)
    }
}

/// Refuses a snapshot that differs from the VM in a number.
pub fn same(what: &'static str, found: u64, wanted: u64) -> Result<(), Error> {
    match found == wanted {
        true => Ok(()),
        false => Err(Error::Shape {
            what,
            found,
            wanted,
        }),
    }
}

#[cfg(test)]
mod tests {
    use protocol::vmm::MAX_VCPUS;
    use serde_json::{from_value, json};

    use super::*;

    /// Bytes as JSON shows them at its longest.
    fn ones(len: usize) -> serde_json::Value {
        json!(vec![0xff; len])
    }

    fn largest() -> State {
        State {
            build: protocol::BUILD.to_owned(),
            memory_mib: u32::MAX,
            vcpus: (0..MAX_VCPUS).map(|_| VcpuState::largest()).collect(),
            chips: Chips {
                irqchips: [(); 3].map(|()| from_value(ones(520)).unwrap()),
                clock: from_value(ones(48)).unwrap(),
            },
            // Several times what the agent's rehearsal writes.
            written_soon: vec![[u64::MAX, u64::MAX]; 10_000],
            devices: Vec::new(),
        }
    }

    #[test]
    fn the_largest_vm_fits_a_state_file_but_not_the_least_limit_of_files() {
        let file = tempfile::tempfile().unwrap();
        largest().write(&file).unwrap();
        let len = file.metadata().unwrap().len();
        assert!(len > crate::confine::LEAST_FILE_BYTES, "{len} bytes");
        assert!(len < MAX_STATE_BYTES / 2, "{len} bytes");
    }

    #[test]
    fn a_state_that_could_not_be_read_again_is_not_written() {
        let file = tempfile::tempfile().unwrap();
        let mut state = largest();
        state.written_soon = vec![[u64::MAX, u64::MAX]; 100_000];
        assert!(matches!(state.write(&file), Err(Error::TooLarge(_))));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
