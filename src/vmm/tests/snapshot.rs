//! Small guests on this machine's /dev/kvm that are saved, and begun again as often as one likes.

use std::fs::File;
use std::io::{self, Seek, sink};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use protocol::timeline::{control, mark};
use protocol::vmm::{Boot, Descriptor, End, Snapshot, ToVmm};
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

#[path = "fixture/mod.rs"]
#[expect(dead_code, reason = "shared with the example, which uses the rest")]
mod fixture;
#[path = "fixture/jailed.rs"]
#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod jailed;
#[path = "fixture/payload.rs"]
#[expect(dead_code, reason = "shared with the other tests, which use the rest")]
mod payload;

use fixture::{Outcome, Plan};
use payload::{Code, interrupt, rng, shares};

/// The two files of a snapshot.
struct Files {
    state: File,
    memory: File,
}

fn memory_file() -> File {
    memfd_create("snapshot", MemfdFlags::CLOEXEC)
        .unwrap()
        .into()
}

impl Files {
    fn new(memory_mib: u32) -> Self {
        let (state, memory) = (memory_file(), memory_file());
        memory.set_len(u64::from(memory_mib) << 20).unwrap();
        Self { state, memory }
    }

    /// The state, from its beginning.
    fn state(&self) -> io::Result<&File> {
        (&self.state).rewind()?;
        Ok(&self.state)
    }

    /// Passes both along, as if they had been opened just now.
    fn pass(&self, plan: &mut Plan) -> Snapshot {
        self.state().unwrap();
        let mut pass = |file: &File| plan.pass(OwnedFd::from(file.try_clone().unwrap()));
        Snapshot {
            state: pass(&self.state),
            memory: pass(&self.memory),
        }
    }
}

/// Saves the guest at READY; the plan as it was changed, the files, and how it ended.
fn save(code: &Code, change: impl Fn(&mut Plan)) -> (Files, Outcome) {
    let (files, plan) = to_save(code, change);
    (files, wait(plan))
}

fn to_save(code: &Code, change: impl Fn(&mut Plan)) -> (Files, Plan) {
    let mut plan = Plan::new(code.kernel().unwrap()).unwrap();
    change(&mut plan);
    let files = Files::new(plan.config.memory_mib);
    plan.kernel().save_to = Some(files.pass(&mut plan));
    (files, plan)
}

/// Begins where a guest was saved.
fn resume(files: &Files, change: impl Fn(&mut Plan)) -> Outcome {
    wait(to_resume(files, change))
}

fn to_resume(files: &Files, change: impl Fn(&mut Plan)) -> Plan {
    // The kernel is not asked for.
    let mut plan = Plan::new(tempfile::tempfile().unwrap()).unwrap();
    change(&mut plan);
    plan.config.boot = Boot::Snapshot(files.pass(&mut plan));
    plan
}

fn wait(plan: Plan) -> Outcome {
    wait_by(&mut Command::new(env!("CARGO_BIN_EXE_hull-vmm")), plan)
}

/// Stops the VM if it goes on for longer.
fn wait_at_most(plan: Plan, time: Duration) -> Outcome {
    let vm = plan
        .start(Path::new(env!("CARGO_BIN_EXE_hull-vmm")), sink())
        .unwrap();
    let socket = vm.socket().unwrap();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(time).is_err() {
            // If it has ended by now, that is as good.
            let _ = fixture::send(&socket, &ToVmm::Stop, &[]);
        }
    });
    let outcome = vm.wait().unwrap();
    let _ = ended.send(());
    watch.join().unwrap();
    outcome
}

fn wait_by(command: &mut Command, plan: Plan) -> Outcome {
    plan.start_by(command, sink())
        .and_then(fixture::Vm::wait)
        .unwrap()
}

/// Tells hull-vmm that the guest is ready.
fn ready(code: Code) -> Code {
    code.eax(mark::READY)
        .out_eax(control::PORT + control::REG_MARK)
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_guest_goes_on_behind_its_word_with_its_registers_and_memory_each_time() {
    const HERE: u32 = 0x7_0000;
    // ebx = 0x1200; after READY: [HERE] += 0x34; eax = [HERE] + ebx
    let guest = ready(Code::new().raw(&[0xbb, 0, 0x12, 0, 0]).store(HERE, 0))
        .edi(HERE)
        .raw(&[0x67, 0x83, 0x07, 0x34]) // add dword [edi], 0x34
        .load(HERE)
        .raw(&[0x01, 0xd8]) // add eax, ebx
        .code_from_eax()
        .reset();
    let (files, outcome) = save(&guest, |_| ());
    assert_eq!(outcome.end, Ok(End::Saved));
    for _ in 0..3 {
        let outcome = resume(&files, |_| ());
        assert_eq!(outcome.end, Ok(End::Code { code: 0x1234 }));
        assert!(!outcome.report.kernel_memory.is_empty());
    }
    // Without files to save to, READY says nothing.
    let mut plan = Plan::new(guest.kernel().unwrap()).unwrap();
    plan.config.rng = true;
    assert_eq!(wait(plan).end, Ok(End::Code { code: 0x1234 }));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_device_serves_what_was_in_its_queue_and_interrupts() {
    let guest = ready(rng::ask(interrupt::wired(Code::new())))
        .wait_for(interrupt::SEEN)
        .load(rng::USED_LEN)
        .code_from_eax()
        .reset();
    let with_rng = |plan: &mut Plan| {
        plan.config.rng = true;
        // Two regions.
        plan.config.memory_mib = 3 * 1024 + 32;
    };
    let (files, outcome) = save(&guest, with_rng);
    assert_eq!(outcome.end, Ok(End::Saved));
    for _ in 0..2 {
        let outcome = resume(&files, with_rng);
        assert_eq!(outcome.end, Ok(End::Code { code: rng::LEN }), "{outcome:?}");
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn what_a_rehearsal_wrote_is_noted_and_stays_each_guests_own() {
    const BEFORE: u32 = 0x7_0000;
    const WRITTEN: u32 = 0x7_5000;
    let mark = |code: Code, mark| code.eax(mark).out_eax(control::PORT + control::REG_MARK);
    let guest = mark(
        Code::new().store(BEFORE, 1).store(WRITTEN, 0),
        mark::REHEARSAL,
    );
    let guest = ready(guest.store(WRITTEN, 3))
        .edi(WRITTEN)
        .raw(&[0x67, 0x83, 0x07, 0x04]) // add dword [edi], 4
        .load(WRITTEN)
        .code_from_eax()
        .reset();
    let (files, outcome) = save(&guest, |_| ());
    assert_eq!(outcome.end, Ok(End::Saved));
    let state: Value = serde_json::from_reader(files.state().unwrap()).unwrap();
    let noted = state["written_soon"].as_array().unwrap();
    let is_noted = |address: u32| {
        noted.iter().any(|range| {
            let [at, len] = [0, 1].map(|index| range[index].as_u64().unwrap());
            (at..at + len).contains(&address.into())
        })
    };
    // A processor may have marked the page tables as used, besides.
    assert!(is_noted(WRITTEN) && !is_noted(BEFORE), "{noted:?}");
    assert!(noted.len() <= 2, "{noted:?}");
    for _ in 0..2 {
        let outcome = resume(&files, |_| ());
        assert_eq!(outcome.end, Ok(End::Code { code: 7 }));
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_hull_fs_comes_to_a_vm_that_began_from_a_snapshot() {
    const INIT: u32 = 26;
    const WORD: u32 = 77;
    // It has tried before it is saved, and been refused.
    let guest = shares::call(shares::start(Code::new()), INIT, &[7, 31, 0, 0]);
    let guest = shares::call_until_done(ready(guest), INIT, &[7, 31, 0, 0])
        .load(shares::PAYLOAD)
        .code_from_eax()
        .reset();
    let (files, outcome) = save(&guest, |plan| _ = plan.with_fs(false));
    assert_eq!(outcome.end, Ok(End::Saved));
    // What it may write to is no part of what was saved.
    let vm = to_resume(&files, |plan| _ = plan.with_fs(true))
        .start(Path::new(env!("CARGO_BIN_EXE_hull-vmm")), sink())
        .unwrap();
    let (ours, theirs) = sys::packet::pair().unwrap();
    let socket = Descriptor(0);
    vm.send(&ToVmm::ServeFs { socket }, &[theirs]).unwrap();
    let mut request = [0; 256];
    sys::packet::receive(&ours, &mut request).unwrap();
    let payload = WORD.to_le_bytes();
    let reply = [&20u64.to_le_bytes(), &request[8..16], &payload].concat();
    sys::packet::send(&ours, &reply, &[]).unwrap();
    let outcome = vm.wait().unwrap();
    assert_eq!(outcome.end, Ok(End::Code { code: WORD }), "{outcome:?}");
}

#[test]
#[ignore = "needs root and /dev/kvm"]
fn saving_and_beginning_again_work_in_the_jail() {
    let guest = ready(rng::ask(Code::new()))
        .wait_for(rng::USED_INDEX)
        .load(rng::USED_LEN)
        .code_from_eax()
        .reset();
    let with_devices = |plan: &mut Plan| {
        plan.config.rng = true;
        plan.config.vcpus = 2;
    };
    let (files, plan) = to_save(&guest, with_devices);
    let outcome = wait_by(&mut jailed::jailer("hull-vmm"), plan);
    assert_eq!(outcome.end, Ok(End::Saved));
    let plan = to_resume(&files, with_devices);
    let outcome = wait_by(&mut jailed::jailer("hull-vmm"), plan);
    assert_eq!(outcome.end, Ok(End::Code { code: rng::LEN }));
}

#[test]
#[ignore = "needs root and /dev/kvm"]
fn a_vm_of_32_vcpus_without_a_writable_disk_is_saved_in_the_jail() {
    let guest = ready(Code::new()).eax(9).code_from_eax().reset();
    let change = |plan: &mut Plan| {
        plan.config.vcpus = 32;
        // More than one state file's limit: the memory's file is not measured by it.
        plan.config.memory_mib = 64;
    };
    let (files, plan) = to_save(&guest, change);
    let outcome = wait_by(&mut jailed::jailer("hull-vmm"), plan);
    assert_eq!(outcome.end, Ok(End::Saved));
    println!("{} bytes", files.state().unwrap().metadata().unwrap().len());
    let outcome = resume(&files, change);
    assert_eq!(outcome.end, Ok(End::Code { code: 9 }));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_state_that_nobody_saved_is_refused_or_ends_its_own_vm() {
    let guest = ready(rng::ask(Code::new()))
        .wait_for(rng::USED_INDEX)
        .eax(9)
        .code_from_eax()
        .reset();
    let with_rng = |plan: &mut Plan| plan.config.rng = true;
    let (mut files, outcome) = save(&guest, with_rng);
    assert_eq!(outcome.end, Ok(End::Saved));
    let good: Value = serde_json::from_reader(files.state().unwrap()).unwrap();
    let far = json!(1u64 << 60);
    let all_ones = |len: usize| Value::from(vec![0xff; len]);
    // What is changed, to what, and whether the guest can do without.
    let changes = [
        ("/devices/0/queues/0/descriptors", far.clone(), false),
        ("/devices/0/queues/0/used", far.clone(), false),
        ("/devices/0/queues/0/size", json!(3), false),
        ("/devices/0/queues/0/next_available", json!(0x8000), false),
        ("/devices/0/status", json!(0xff), false),
        ("/devices/0/driver_features", json!(u64::MAX), false),
        ("/devices/0/device_id", json!(2), false),
        ("/devices/0/queues", json!([]), false),
        ("/vcpus/0/regs", all_ones(144), false),
        ("/vcpus/0/sregs", all_ones(312), false),
        ("/vcpus/0/xcrs", all_ones(392), false),
        ("/chips/irqchips/2", all_ones(520), false),
        ("/written_soon", json!([[far, 0x1000], [0, u64::MAX]]), true),
        ("/build", json!("another"), false),
        ("/vcpus", json!([]), false),
    ];
    for (path, value, is_harmless) in changes {
        let mut state = good.clone();
        *state.pointer_mut(path).expect(path) = value;
        files.state = memory_file();
        serde_json::to_writer(&files.state, &state).unwrap();
        let plan = to_resume(&files, with_rng);
        let outcome = wait_at_most(plan, Duration::from_secs(2));
        assert!(outcome.status.code().is_some(), "{path}: {outcome:?}");
        let went_well = outcome.end == Ok(End::Code { code: 9 });
        assert_eq!(went_well, is_harmless, "{path}: {outcome:?}");
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn another_vms_snapshot_is_refused_with_what_differs() {
    let guest = ready(Code::new()).reset();
    let (files, outcome) = save(&guest, |_| ());
    assert_eq!(outcome.end, Ok(End::Saved));
    let refused = |change: fn(&mut Plan)| resume(&files, change).end.unwrap_err();
    let message = refused(|plan| plan.config.vcpus = 2);
    assert!(message.contains("1 vCPUs, and this one has 2"), "{message}");
    let message = refused(|plan| plan.config.memory_mib = 64);
    assert!(message.contains("32 MiB of memory"), "{message}");
    let message = refused(|plan| plan.config.rng = true);
    assert!(message.contains("devices, and this one has"), "{message}");

    files.memory.set_len(1 << 20).unwrap();
    let message = refused(|_| ());
    assert!(
        message.contains("a saved memory has 1048576 bytes"),
        "{message}"
    );
    files.memory.set_len(32 << 20).unwrap();
    files.state.set_len(100).unwrap();
    let message = refused(|_| ());
    assert!(message.contains("not one of this build's"), "{message}");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_halted_second_vcpu_is_saved_as_well() {
    // Never started: it waits for its INIT, in the snapshot as before it.
    let guest = ready(Code::new()).eax(5).code_from_eax().reset();
    let (files, outcome) = save(&guest, |plan| plan.config.vcpus = 2);
    assert_eq!(outcome.end, Ok(End::Saved));
    let outcome = resume(&files, |plan| plan.config.vcpus = 2);
    assert_eq!(outcome.end, Ok(End::Code { code: 5 }));
}
