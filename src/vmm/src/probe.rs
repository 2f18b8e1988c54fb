//! Whether this KVM can run a stock kernel: found out by running a few of the instructions that one uses.
//!
//! Some KVMs run guests only partly on the processor and emulate the rest; the emulator stops at what it does not know.
//! The payload begins in long mode, tries each instruction that the processor claims to have, and writes its result to a
//! port. It asks only for what CPUID offers, so that a processor without an instruction is not taken for a broken KVM.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arch::registers::Entry;
use arch::{layout, tables};
use kvm_bindings::kvm_cpuid_entry2;
use memory::{Bytes, GuestAddress, Ram};

use crate::bus::Bus;
use crate::ends::Ends;
use crate::kvm::System;
use crate::stamps::Stamps;
use crate::vcpu::{Gate, Running, Shared, Start, Vcpu};

/// Memory of the probe's VM.
const RAM_BYTES: u64 = 4 << 20;
/// Zeros that the payload works on: aligned for every instruction.
const SCRATCH: u32 = 0x20_0000;
/// The port that results are written to; the PC's diagnostic port.
const PORT: u8 = 0x80;
/// The payload's last result.
const DONE: u8 = 0x5a;

/// How long the payload may take. It takes some milliseconds where it is emulated twice.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It ran the payload.
    BootsStockKernel,
    /// It did not, for this reason.
    CannotBoot(String),
    /// There is no KVM, for this reason.
    NoKvm(String),
}

impl Finding {
    /// One line of JSON: `{"kvm":true,"boots_stock_kernel":false,"reason":"…"}`.
    pub fn to_json(&self) -> String {
        let (kvm, boots, reason) = match self {
            Self::BootsStockKernel => (true, true, ""),
            Self::CannotBoot(reason) => (true, false, reason.as_str()),
            Self::NoKvm(reason) => (false, false, reason.as_str()),
        };
        serde_json::json!({ "kvm": kvm, "boots_stock_kernel": boots, "reason": reason }).to_string()
    }
}

/// Runs the payload on `kvm`.
pub fn run(kvm: OwnedFd) -> Finding {
    let system = match System::new(kvm) {
        Ok(system) => system,
        Err(error) => return Finding::NoKvm(protocol::chain(&error)),
    };
    match try_payload(&system) {
        Ok(()) => Finding::BootsStockKernel,
        Err(reason) => Finding::CannotBoot(reason),
    }
}

fn try_payload(system: &System) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| protocol::chain(error);
    let supported = system.supported_cpuid().map_err(|error| text(&error))?;
    let (code, expected) = payload(&supported);
    let ram = Ram::new(&layout::ram(RAM_BYTES)).map_err(|error| text(&error))?;
    let tables = [tables::gdt(), tables::identity_map()];
    for (at, bytes) in tables
        .iter()
        .map(|placed| (placed.at, &placed.bytes))
        .chain([(GuestAddress(layout::KERNEL_START), &code)])
    {
        ram.memory()
            .write_slice(bytes, at)
            .map_err(|error| text(&error))?;
    }
    let vm = system
        .create_vm(&ram, 1, false)
        .map_err(|error| text(&error))?;
    let of = arch::cpuid::Vcpu {
        index: 0,
        count: 1,
        tsc_deadline: system.has_tsc_deadline(),
    };
    let vcpu = Vcpu::new(&vm, of, &supported).map_err(|error| text(&error))?;
    Start::At(Entry::Linux64(layout::KERNEL_START))
        .set(std::slice::from_ref(&vcpu))
        .map_err(|error| text(&error))?;

    let stamps = Arc::new(Stamps::default());
    let results = Results::default();
    let mut bus = Bus::new(stamps.clone());
    let ends = Ends::new().map_err(|error| text(&error))?;
    bus.add_chip(
        PORT.into(),
        1,
        Box::new(Witness {
            results: results.clone(),
            ends: ends.clone(),
        }),
    );
    let bus = Arc::new(bus);
    let shared = Shared {
        bus,
        ends: ends.clone(),
        stamps,
        saver: None,
    };
    crate::vcpu::install_handler().map_err(|error| text(&error))?;
    let gate = Gate::default();
    gate.open();
    let running = vcpu.start(&shared, &gate).map_err(|error| text(&error))?;
    wait(&ends, &running)?;
    let seen = results
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    if seen == expected {
        return Ok(());
    }
    Err(match ends.get() {
        Some(protocol::vmm::End::VcpuError { message, .. }) => message.clone(),
        Some(protocol::vmm::End::TripleFault) => {
            "an instruction that CPUID offers faults".to_owned()
        }
        _ => format!("instructions gave wrong results: {seen:x?} instead of {expected:x?}"),
    })
}

/// Waits for the payload to end, in one way or another.
fn wait(ends: &Ends, running: &Running) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while ends.get().is_none() {
        if Instant::now() > deadline {
            ends.reach(protocol::vmm::End::Stopped);
            running.kick();
            return Err(format!(
                "a few instructions did not end in {} s",
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

type Results = Arc<std::sync::Mutex<Vec<u8>>>;

/// The chip at the port: keeps results, and ends the VM at the last.
struct Witness {
    results: Results,
    ends: Ends,
}

impl devices::legacy::Chip for Witness {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _offset: u16, data: &[u8]) {
        self.results
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .extend(data);
        if data == [DONE] {
            self.ends.reach(protocol::vmm::End::Stopped);
        }
    }
}

/// The code and what it writes. It begins with the state of [`Entry::Linux64`].
fn payload(supported: &[kvm_cpuid_entry2]) -> (Vec<u8>, Vec<u8>) {
    let leaf = |function, index| {
        let is = |entry: &&kvm_cpuid_entry2| entry.function == function && entry.index == index;
        supported.iter().find(is).copied().unwrap_or_default()
    };
    let (features, extended) = (leaf(1, 0).ecx, leaf(7, 0).ebx);
    let mut code = Vec::new();
    let mut expected = Vec::new();
    let mut attempt = |instructions: &[u8], result| {
        code.extend(instructions);
        code.extend([0xe6, PORT]); // out PORT, al
        expected.push(result);
    };
    if extended & 1 << 8 != 0 {
        // BMI2: in the kernel's own decompressor.
        attempt(
            &[
                0xbb, 0x03, 0, 0, 0, // mov ebx, 3
                0xb9, 0x04, 0, 0, 0, // mov ecx, 4
                0xc4, 0xe2, 0x71, 0xf7, 0xc3, // shlx eax, ebx, ecx
            ],
            0x30,
        );
    }
    if features & 1 << 13 != 0 {
        // CMPXCHG16B: in the slab allocator.
        let [a, b, c, d] = SCRATCH.to_le_bytes();
        attempt(
            &[
                0xbe, a, b, c, d, // mov esi, SCRATCH
                0x31, 0xc0, 0x31, 0xd2, // xor eax, eax; xor edx, edx
                0xbb, 0x07, 0, 0, 0, // mov ebx, 7
                0x31, 0xc9, // xor ecx, ecx
                0x48, 0x0f, 0xc7, 0x0e, // cmpxchg16b [rsi]
                0x8a, 0x06, // mov al, [rsi]
            ],
            7,
        );
    }
    if features & 1 << 26 != 0 {
        // XSAVE: at every context switch. The area is all zeros. XCR0 is left as the vCPU begins with it: a KVM below which
        // XSETBV is not intercepted (QEMU's emulated SVM) would leave what is written here to the host itself.
        let [a, b, c, d] = (SCRATCH + 0x1000).to_le_bytes();
        attempt(
            &[
                0x0f, 0x20, 0xe0, // mov rax, cr4
                0x0d, 0, 0, 0x04, 0, // or eax, OSXSAVE
                0x0f, 0x22, 0xe0, // mov cr4, rax
                0x31, 0xc9, 0x31, 0xd2, // xor ecx, ecx; xor edx, edx
                0xb8, 0x01, 0, 0, 0, // mov eax, 1: the x87 state
                0xbe, a, b, c, d, // mov esi, SCRATCH + 0x1000
                0x0f, 0xae, 0x2e, // xrstor [rsi]
                0xb0, 0x26, // mov al, 0x26
            ],
            0x26,
        );
    }
    attempt(&[0xb0, DONE], DONE);
    code.push(0xf4); // hlt
    (code, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_processor_offers_is_tried() {
        let (code, expected) = payload(&[]);
        assert_eq!(code, [0xb0, DONE, 0xe6, PORT, 0xf4]);
        assert_eq!(expected, [DONE]);
        let all = [
            kvm_cpuid_entry2 {
                function: 1,
                ecx: u32::MAX,
                ..Default::default()
            },
            kvm_cpuid_entry2 {
                function: 7,
                ebx: u32::MAX,
                ..Default::default()
            },
        ];
        assert_eq!(payload(&all).1, [0x30, 7, 0x26, DONE]);
    }

    #[test]
    fn a_finding_is_one_line_of_json() {
        assert_eq!(
            Finding::CannotBoot("no".into()).to_json(),
            r#"{"boots_stock_kernel":false,"kvm":true,"reason":"no"}"#
        );
    }
}
