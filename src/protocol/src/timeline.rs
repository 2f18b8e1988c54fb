//! The one clock of a boot: CLOCK_MONOTONIC of the host, in nanoseconds.

use serde::{Deserialize, Serialize};

/// A moment of the host's CLOCK_MONOTONIC, in nanoseconds.
pub type Nanos = u64;

/// When each stage of a boot was reached; `None` where it was not. See DESIGN.md, "Time".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// T0: `hull` starts.
    pub hull_started: Option<Nanos>,
    /// The template that the VM begins from was made for this very start: between T0 and T1.
    pub template_made: Option<Nanos>,
    /// `hull-vmm` entered main: between T0 and T1.
    pub vmm_started: Option<Nanos>,
    /// T1: first KVM_RUN.
    pub first_run: Option<Nanos>,
    /// T2: first virtio status write of the guest; there is none in a VM that began from a snapshot.
    pub first_virtio: Option<Nanos>,
    /// T3: the agent is PID 1; in a VM that began from a snapshot it is so from T1 on.
    pub agent_started: Option<Nanos>,
    /// T4: the agent's hello reached the host.
    pub hello: Option<Nanos>,
    /// T5: the container process has been executed.
    pub exec: Option<Nanos>,
    /// T6: its first byte of output reached the client.
    pub first_output: Option<Nanos>,
}

/// What the guest writes to the control device's mark register (a u32) to stamp the boot.
pub mod mark {
    /// The agent is PID 1 (T3).
    pub const AGENT_STARTED: u32 = 1;
    /// The first container's process has been executed (T5).
    pub const EXEC: u32 = 2;
    /// In a VM that is to be saved: what the guest writes from here to [`READY`], every VM that begins there is expected to
    /// write soon. Not stamped.
    pub const REHEARSAL: u32 = 4;
    /// The agent has set the guest up and not yet spoken to the host. A VM that is to be saved is saved here, and one that
    /// begins from a snapshot goes on behind it: not stamped.
    pub const READY: u32 = 3;
}

/// The control device: three 32-bit registers in I/O port space, which the agent reaches with `ioperm`.
///
/// It stamps the boot, carries the code with which the agent ends the VM, and exists only on hull's machines.
pub mod control {
    /// First I/O port of the device; 16 ports belong to it. Outside every range of the legacy PC.
    pub const PORT: u16 = 0x0d00;
    /// Number of ports.
    pub const LEN: u16 = 16;
    /// Read: [`MAGIC`]. Anything else means that this is not hull's machine.
    pub const REG_MAGIC: u16 = 0;
    /// Write: a [`super::mark`]; the first write of each value is stamped.
    pub const REG_MARK: u16 = 4;
    /// Write: the code with which the VM ends at the reset that follows.
    pub const REG_EXIT: u16 = 8;
    /// The agent's own code: the control connection closed before a shutdown was asked for.
    pub const CODE_CONTROL_LOST: u32 = 0xffff_0001;
    /// The agent's own code: it failed; the console says why.
    pub const CODE_AGENT_FAILED: u32 = 0xffff_0002;
    /// "HULL", little-endian.
    pub const MAGIC: u32 = 0x4c4c_5548;
    /// The i8042's command port, where [`RESET`] resets the machine.
    pub const RESET_PORT: u16 = 0x64;
    /// The i8042's "pulse the reset line" command.
    pub const RESET: u8 = 0xfe;
}
