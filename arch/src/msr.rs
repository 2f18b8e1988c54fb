//! Model-specific registers that differ from their value at reset.

/// A register and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// IA32_MISC_ENABLE (SDM vol. 4, 2.1); bit 0: fast string operations.
const MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// IA32_MTRR_DEF_TYPE (SDM vol. 3, 12.11.2.1); bit 11: MTRRs are on; 6: write-back.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// What firmware would have set on every vCPU: fast strings, and all memory write-back but for what the kernel maps
/// otherwise.
pub const AT_RESET: [Msr; 2] = [
    Msr {
        index: MISC_ENABLE,
        value: MISC_ENABLE_FAST_STRING,
    },
    Msr {
        index: MTRR_DEF_TYPE,
        value: MTRR_ENABLE | MTRR_WRITE_BACK,
    },
];
