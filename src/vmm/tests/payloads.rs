//! Small guests on this machine's /dev/kvm, through hull-vmm as it is installed. They run where a stock kernel does not:
//! a few instructions each, none of them rare.

use std::fs::File;
use std::io::sink;
use std::path::Path;

use arch::layout::{self, virtio_mmio};
use devices::virtio::mmio::registers::*;
use protocol::timeline::control;
use protocol::vmm::{Descriptor, End, FromVmm, ToVmm};

#[path = "fixture/mod.rs"]
#[expect(dead_code, reason = "shared with the example, which uses the rest")]
mod fixture;
#[path = "fixture/payload.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod payload;

use fixture::{Outcome, Plan, Vm};
use payload::{Code, interrupt, rng};

fn start(code: &Code, change: impl FnOnce(&mut Plan)) -> Vm {
    let mut plan = Plan::new(code.kernel().unwrap()).unwrap();
    change(&mut plan);
    plan.start(Path::new(env!("CARGO_BIN_EXE_hull-vmm")), sink())
        .unwrap()
}

fn run(code: &Code, change: impl FnOnce(&mut Plan)) -> Outcome {
    start(code, change).wait().unwrap()
}

fn code(outcome: &Outcome) -> u32 {
    match &outcome.end {
        Ok(End::Code { code }) => *code,
        other => panic!(
            "the guest did not end with a code: {other:?}, {:?}",
            outcome.report
        ),
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn the_control_device_stamps_the_boot_and_carries_the_code() {
    let guest = Code::new()
        .eax(protocol::timeline::mark::AGENT_STARTED)
        .out_eax(control::PORT + control::REG_MARK)
        .in_eax(control::PORT + control::REG_MAGIC)
        .code_from_eax()
        .reset();
    let outcome = run(&guest, |_| ());
    assert_eq!(code(&outcome), control::MAGIC);
    let timeline = outcome.report.timeline;
    assert!(timeline.vmm_started < timeline.first_run);
    assert!(timeline.first_run < timeline.agent_started);
    assert_eq!(timeline.first_virtio, None);
    assert_eq!(outcome.report.user_exits["io_out 0x64"], 1);
    assert!(outcome.report.kernel_memory[0][1] > outcome.report.kernel_memory[0][0]);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_reset_without_a_code_is_the_guests_own() {
    assert_eq!(run(&Code::new().reset(), |_| ()).end, Ok(End::Reset));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_triple_fault_is_called_that() {
    // No interrupt table: ud2 faults thrice.
    assert_eq!(
        run(&Code::new().raw(&[0x0f, 0x0b]), |_| ()).end,
        Ok(End::TripleFault)
    );
}

#[test]
#[ignore = "needs /dev/kvm"]
fn the_serial_port_speaks_on_the_console() {
    let mut guest = Code::new().raw(&[0x66, 0xba, 0xf8, 0x03]); // mov dx, 0x3f8
    for &byte in b"hello\n" {
        guest = guest.raw(&[0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    assert_eq!(run(&guest.reset(), |_| ()).console, "hello\n");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn memory_mapped_registers_read_as_the_device_has_them() {
    let magic = virtio_mmio(0).0 as u32;
    let guest = Code::new().load(magic).code_from_eax().reset();
    let outcome = run(&guest, |plan| plan.config.rng = true);
    assert_eq!(code(&outcome), MAGIC);
    assert_eq!(outcome.report.user_exits["mmio_read rng"], 1);
    // No device answers: all ones.
    let guest = Code::new().load(0xd800_0000).code_from_eax().reset();
    assert_eq!(code(&run(&guest, |_| ())), u32::MAX);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn memory_goes_on_above_the_32_bit_hole() {
    // The page tables end at 4 GiB: one more directory maps 2 MiB from there. PML4 and PDPT are at 0x9000 and 0xa000.
    let guest = Code::new()
        .store(0xa000 + 4 * 8, 0x8_0000 | 3)
        .store(0xa000 + 4 * 8 + 4, 0)
        .store(0x8_0000, 0x83)
        .store(0x8_0004, 1)
        .raw(&[0x48, 0xbf]) // mov rdi, 4 GiB + 0x1234
        .raw(&0x1_0000_1234u64.to_le_bytes())
        .raw(&[0xc7, 0x07, 0x78, 0x56, 0, 0]) // mov dword [rdi], 0x5678
        .raw(&[0x8b, 0x07]) // mov eax, [rdi]
        .code_from_eax()
        .reset();
    let outcome = run(&guest, |plan| plan.config.memory_mib = 3 * 1024 + 32);
    assert_eq!(code(&outcome), 0x5678);
    assert_eq!(outcome.report.guest_memory.len(), 2);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn thirty_two_vcpus_are_told_apart_and_each_writes_its_mark() {
    const VCPUS: u32 = 32;
    const TRAMPOLINE: u32 = 0x8000;
    /// A word for each, by its APIC id; and at its beginning the first one's, which stays 0.
    const MARKS: u32 = 0x7_0000;
    // 16-bit code for all but the first.
    let trampoline = [
        0xb8, 0x00, 0x70, 0x8e, 0xd8, // mov ax, 0x7000; mov ds, ax
        0x66, 0xb8, 1, 0, 0, 0, 0x0f,
        0xa2, // mov eax, 1; cpuid: the APIC id is in EBX from bit 24 on
        0x66, 0xc1, 0xeb, 22, // shr ebx, 22
        0x81, 0xe3, 0xfc, 0x00, // and bx, 0xfc: four times the id
        0x89, 0x1f, // mov [bx], bx
        0xf4, 0xeb, 0xfd, // hlt; jmp $-1
        0, 0,
    ];
    let apic = layout::LOCAL_APIC as u32;
    let mut guest = Code::new();
    for (index, part) in trampoline.chunks(4).enumerate() {
        let word = u32::from_le_bytes(part.try_into().unwrap());
        guest = guest.store(TRAMPOLINE + 4 * index as u32, word);
    }
    guest = guest.store(apic + 0xf0, 0x1ff); // enable the APIC
    for id in 1..VCPUS {
        guest = guest
            .store(apic + 0x310, id << 24) // to this APIC id:
            .store(apic + 0x300, 0x4500) // INIT
            .store(apic + 0x310, id << 24)
            .store(apic + 0x300, 0x4600 | TRAMPOLINE >> 12); // start-up
    }
    for id in 1..VCPUS {
        guest = guest.wait_for(MARKS + 4 * id);
    }
    guest = guest.eax(0);
    for id in 0..VCPUS {
        guest = guest.edi(MARKS + 4 * id).raw(&[0x67, 0x03, 0x07]); // add eax, [edi]
    }
    let guest = guest.code_from_eax().reset();
    let outcome = run(&guest, |plan| plan.config.vcpus = VCPUS as u8);
    assert_eq!(code(&outcome), 4 * (1..VCPUS).sum::<u32>());
}

/// Drives the entropy device; `wait` ends when the buffer has come back.
fn fill_from_rng(begin: Code, wait: impl FnOnce(Code) -> Code) -> Code {
    let notify = virtio_mmio(0).0 as u32 + QUEUE_NOTIFY as u32;
    wait(rng::ask(begin).store(notify, 0))
        .load(rng::USED_LEN)
        .code_from_eax()
        .reset()
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_guest_drives_a_queue_from_end_to_end() {
    let guest = fill_from_rng(Code::new(), |guest| guest.wait_for(rng::USED_INDEX));
    let outcome = run(&guest, |plan| plan.config.rng = true);
    assert_eq!(code(&outcome), 16);
    assert!(outcome.report.timeline.first_virtio.is_some());
    // The notification went to the ioeventfd: no exit to user space beyond the register writes.
    let report = &outcome.report;
    assert_eq!(report.user_exits["mmio_write rng"], 11, "{report:?}");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn the_device_interrupts_through_its_irqfd() {
    let begin = interrupt::wired(Code::new());
    let guest = fill_from_rng(begin, |guest| guest.wait_for(interrupt::SEEN));
    let outcome = run(&guest, |plan| plan.config.rng = true);
    assert_eq!(code(&outcome), 16);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_running_guest_is_reported_on_and_stopped_at_once() {
    let spin = Code::new().raw(&[0xeb, 0xfe]); // jmp $
    let vm = start(&spin, |plan| plan.config.vcpus = 2);
    while vm.report().unwrap().timeline.first_run.is_none() {
        std::thread::yield_now();
    }
    let asked = std::time::Instant::now();
    vm.send(&ToVmm::Stop, &[]).unwrap();
    let outcome = vm.wait().unwrap();
    assert_eq!(outcome.end, Ok(End::Stopped));
    assert!(asked.elapsed().as_millis() < 500, "{:?}", asked.elapsed());
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_stream_that_is_not_taken_is_told_and_the_vm_goes_on() {
    let spin = Code::new().raw(&[0xeb, 0xfe]); // jmp $
    let vm = start(&spin, |plan| _ = plan.with_vsock());
    let offer = ToVmm::OfferStream {
        port: 7,
        stream: Descriptor(0),
    };
    for _ in 0..2 {
        let (_ours, theirs) = sys::packet::stream_pair().unwrap();
        vm.send(&offer, &[theirs]).unwrap();
    }
    vm.send(&offer, &[]).unwrap();
    let failure = || loop {
        if let FromVmm::StreamFailed { port, message } = vm.receive().unwrap() {
            assert_eq!(port, 7);
            break message;
        }
    };
    assert_eq!(failure(), "port 7 is offered already");
    assert!(failure().starts_with("descriptor 0 did not come"));
    assert!(vm.report().is_ok());
    vm.send(&ToVmm::Stop, &[]).unwrap();
    assert_eq!(vm.wait().unwrap().end, Ok(End::Stopped));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_guest_that_halts_for_good_is_noticed() {
    let halt = Code::new().raw(&[0xf4, 0xeb, 0xfd]); // hlt; jmp $-1
    assert_eq!(
        run(&halt, |plan| plan.config.vcpus = 2).end,
        Ok(End::Halted)
    );
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_guest_that_waits_for_an_interrupt_is_left_alone() {
    let wait = Code::new().raw(&[0xb0, 0xff, 0xe6, 0x21, 0xe6, 0xa1, 0xfb, 0xf4]); // mask the PICs; sti; hlt
    let vm = start(&wait, |_| ());
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(vm.report().is_ok());
    vm.send(&ToVmm::Stop, &[]).unwrap();
    assert_eq!(vm.wait().unwrap().end, Ok(End::Stopped));
}

/// Resident bytes of a process outside of these ranges.
fn resident_outside(id: u32, ranges: &[[u64; 2]]) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{id}/smaps")).unwrap();
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap();
        if let Some((start, _)) = first.split_once('-') {
            let start = u64::from_str_radix(start, 16).unwrap();
            inside = ranges
                .iter()
                .any(|range| (range[0]..range[1]).contains(&start));
        } else if first == "Rss:" && !inside {
            bytes += line
                .split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
                << 10;
        }
    }
    bytes
}

#[test]
#[ignore = "needs /dev/kvm"]
fn hull_vmm_itself_stays_small() {
    let spin = Code::new().raw(&[0xeb, 0xfe]); // jmp $
    let vm = start(&spin, |plan| {
        plan.config.memory_mib = 256;
        plan.config.rng = true;
        plan.with_vsock();
    });
    let report = vm.report().unwrap();
    let resident = resident_outside(vm.id(), &report.guest_memory);
    // The static release build is held to 3 MiB by `hull run --timing`; this one is neither.
    assert!(resident < 6 << 20, "{resident} bytes are resident");
    vm.send(&ToVmm::Stop, &[]).unwrap();
    assert_eq!(vm.wait().unwrap().end, Ok(End::Stopped));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn an_instruction_that_kvm_cannot_run_is_reported_with_its_place() {
    // Only a KVM that emulates fails here; one that runs the guest on the processor gets to the reset.
    let guest = Code::new()
        .edi(0x6_0000)
        .raw(&[0x31, 0xc0, 0x31, 0xd2]) // xor eax, eax; xor edx, edx
        .raw(&[0x48, 0x0f, 0xc7, 0x0f]) // cmpxchg16b [rdi]
        .reset();
    match run(&guest, |_| ()).end {
        Ok(End::Reset) => {}
        Ok(End::VcpuError { vcpu: 0, message }) => {
            assert!(message.contains("RIP 0x20000"), "{message}");
            assert!(message.contains("48 0f c7"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn what_cannot_be_built_is_said_in_one_line() {
    let failed = |change: fn(&mut Plan)| run(&Code::new().reset(), change).end.unwrap_err();
    let no_kernel = failed(|plan| plan.descriptors[1] = File::open("/etc/passwd").unwrap().into());
    assert_eq!(
        no_kernel,
        "the guest kernel could not be loaded: the file is neither a vmlinux nor a bzImage"
    );
    let no_kvm = failed(|plan| plan.descriptors[0] = File::open("/dev/null").unwrap().into());
    assert!(no_kvm.contains("not KVM"), "{no_kvm}");
    let small = failed(|plan| plan.config.memory_mib = 16);
    assert!(small.contains("16 MiB"), "{small}");
    let disks = failed(|plan| {
        for _ in 0..20 {
            plan.with_vsock();
            plan.config.disks.push(protocol::vmm::DiskConfig {
                serial: "x".into(),
                read_only: true,
                extents: Vec::new(),
                align_bytes: 512,
                min_len_bytes: 0,
            });
        }
    });
    assert!(disks.contains("19"), "{disks}");
}
