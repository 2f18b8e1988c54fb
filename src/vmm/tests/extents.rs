//! Layers that are added to the layer device of a running VM.

use std::fs::File;
use std::io::{Write, sink};
use std::os::fd::OwnedFd;
use std::process::Command;

use protocol::vmm::{
    Descriptor, DiskConfig, DiskExtent, End, FromVmm, MAX_DESCRIPTORS, MAX_EXTENTS, PlacedExtent,
    ToVmm,
};
use rustix::process::{Resource, Rlimit, setrlimit};

#[path = "fixture/mod.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod fixture;
#[path = "fixture/jailed.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod jailed;
#[path = "fixture/payload.rs"]
#[expect(dead_code, reason = "shared with other tests, which use the rest")]
mod payload;

use fixture::{Plan, Vm};
use payload::{Code, block};

const ALIGN_BYTES: u64 = 2 << 20;
/// Where the guest of these tests looks: in the second possible place of a layer.
const LOOKED_AT: u64 = ALIGN_BYTES;
const CODE: u32 = 0x1234_5678;

fn layer(code: u32) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&code.to_le_bytes()).unwrap();
    file.set_len(4096).unwrap();
    file
}

/// A guest that ends with the code that it finds in the layer device, once there is one. Beside the layer device, it has
/// a writable disk.
fn start(command: &mut Command) -> Vm {
    let guest = block::read_until_not_zero(Code::new(), (LOOKED_AT / 512) as u32)
        .code_from_eax()
        .reset();
    let mut plan = Plan::new(guest.kernel().unwrap()).unwrap();
    let mut disk = |serial: &str, code, min_len_bytes| {
        let extents = vec![DiskExtent {
            file: plan.pass(layer(code)),
            len_bytes: 4096,
        }];
        plan.config.disks.push(DiskConfig {
            serial: serial.into(),
            read_only: serial == "layers",
            extents,
            align_bytes: ALIGN_BYTES,
            min_len_bytes,
        });
    };
    disk("layers", 1, 1 << 40);
    disk("scratch", 2, 0);
    let vm = plan.start_by(command, sink()).unwrap();
    while vm.report().unwrap().timeline.first_virtio.is_none() {
        std::thread::yield_now();
    }
    vm
}

/// A request for extents at these places, and its descriptors.
fn request(request: u32, disk: &str, places: &[u64]) -> (ToVmm, Vec<OwnedFd>) {
    let extents = places.iter().enumerate().map(|(index, &offset_bytes)| {
        let extent = DiskExtent {
            file: Descriptor(index as u32),
            len_bytes: 4096,
        };
        PlacedExtent {
            offset_bytes,
            extent,
        }
    });
    let message = ToVmm::AddExtents {
        request,
        disk: disk.into(),
        extents: extents.collect(),
    };
    (message, places.iter().map(|_| layer(CODE).into()).collect())
}

fn send(vm: &Vm, (message, descriptors): (ToVmm, Vec<OwnedFd>)) {
    vm.send(&message, &descriptors).unwrap();
}

fn assert_added(vm: &Vm, number: u32) {
    match vm.receive().unwrap() {
        FromVmm::Added { request } => assert_eq!(request, number),
        other => panic!("{other:?}"),
    }
}

fn assert_refused(vm: &Vm, number: u32, with: &str) {
    match vm.receive().unwrap() {
        FromVmm::Refused { request, message } => {
            assert_eq!(request, number);
            assert!(message.contains(with), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

fn a_layer_enters_by(command: &mut Command) {
    let vm = start(command);
    send(&vm, request(1, "layers", &[2 * LOOKED_AT, LOOKED_AT]));
    assert_added(&vm, 1);
    let outcome = vm.wait().unwrap();
    assert_eq!(outcome.end, Ok(End::Code { code: CODE }), "{outcome:?}");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_running_guest_reads_a_layer_that_was_added() {
    a_layer_enters_by(&mut Command::new(env!("CARGO_BIN_EXE_hull-vmm")));
}

#[test]
#[ignore = "needs root and /dev/kvm"]
fn a_layer_can_be_added_in_the_jail() {
    a_layer_enters_by(&mut jailed::jailer("hull-vmm"));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn what_is_refused_is_named_and_the_vm_goes_on() {
    let vm = start(&mut Command::new(env!("CARGO_BIN_EXE_hull-vmm")));
    let further = 5 * ALIGN_BYTES;
    send(&vm, request(1, "scratch", &[further]));
    assert_refused(&vm, 1, "read-only disks only");
    send(&vm, request(2, "other", &[further]));
    assert_refused(&vm, 2, "there is no disk other");
    send(&vm, request(3, "layers", &[0]));
    assert_refused(
        &vm,
        3,
        "disk layers did not get more extents: an extent at byte 0 overlaps",
    );
    send(&vm, request(4, "layers", &[further, 1 << 40]));
    assert_refused(&vm, 4, "does not fit a disk of 1099511627776");
    send(&vm, request(5, "layers", &[512]));
    assert_refused(&vm, 5, "not a multiple of 2097152");
    let (message, mut descriptors) = request(6, "layers", &[further, 2 * further]);
    descriptors.pop();
    send(&vm, (message, descriptors));
    assert_refused(&vm, 6, "descriptor 1 did not come");
    let (message, _) = request(7, "layers", &[further]);
    send(&vm, (message, vec![std::io::pipe().unwrap().0.into()]));
    assert_refused(&vm, 7, "neither a regular file nor a block device");
    // Nothing of all that was taken: the places are free.
    send(
        &vm,
        request(8, "layers", &[further, 2 * further, LOOKED_AT]),
    );
    assert_added(&vm, 8);
    assert_eq!(vm.wait().unwrap().end, Ok(End::Code { code: CODE }));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn more_layers_than_a_packet_carries_come_in_several() {
    // A descriptor for each, and the machine's own: what the jail gives.
    let limits = Rlimit {
        current: Some(4096),
        maximum: Some(4096),
    };
    setrlimit(Resource::Nofile, limits).unwrap();
    let vm = start(&mut Command::new(env!("CARGO_BIN_EXE_hull-vmm")));
    // All but the one that it began with, sent without waiting for an answer.
    let places: Vec<_> = (10..10 + MAX_EXTENTS as u64 - 1)
        .map(|place| place * ALIGN_BYTES)
        .collect();
    let mut number = 0;
    for part in places.chunks(MAX_DESCRIPTORS) {
        number += 1;
        send(&vm, request(number, "layers", part));
    }
    (1..=number).for_each(|number| assert_added(&vm, number));
    send(&vm, request(9, "layers", &[LOOKED_AT]));
    assert_refused(&vm, 9, "at most 1024 extents");
    vm.send(&ToVmm::Stop, &[]).unwrap();
    assert_eq!(vm.wait().unwrap().end, Ok(End::Stopped));
}
