//! A hull-fs that comes to a running VM, and is played by the test.

use std::fs::File;
use std::io::sink;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::Command;

use protocol::vmm::{Descriptor, End, ToVmm};
use sys::packet;

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
use payload::{Code, shares};

// Opcodes of FUSE (Linux, include/uapi/linux/fuse.h).
const LOOKUP: u32 = 1;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const INIT: u32 = 26;

/// The handle of the one file that is opened.
const HANDLE: u32 = 5;
const WORD: u32 = 0x1234_5678;
/// Beyond what a VM without a writable disk may write to its own files.
const FAR: u32 = 64 << 20;

fn hull_vmm() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hull-vmm"))
}

fn start(command: &mut Command, guest: &Code, unbounded_files: bool) -> Vm {
    let mut plan = Plan::new(guest.kernel().unwrap()).unwrap();
    plan.with_fs(unbounded_files);
    plan.start_by(command, sink()).unwrap()
}

/// Hands hull-vmm a socket; returns the other end.
fn serve(vm: &Vm) -> OwnedFd {
    let (ours, theirs) = packet::pair().unwrap();
    let socket = Descriptor(0);
    vm.send(&ToVmm::ServeFs { socket }, &[theirs]).unwrap();
    ours
}

/// Receives a request, which asks for this, and replies.
fn answer(socket: &OwnedFd, opcode: u32, payload: &[u8], file: Option<&File>) {
    let mut request = [0; 256];
    let len = packet::receive(socket, &mut request).unwrap().len;
    assert_eq!(
        request[..8],
        [len as u32, opcode].map(u32::to_le_bytes).concat()
    );
    let length = 16 + payload.len() as u64;
    let reply = [&length.to_le_bytes(), &request[8..16], payload].concat();
    let files: Vec<_> = file.map(AsFd::as_fd).into_iter().collect();
    packet::send(socket, &reply, &files).unwrap();
}

/// The arguments of a READ or WRITE of a word.
fn transfer(offset: u32) -> [u32; 10] {
    [HANDLE, 0, offset, 0, 4, 0, 0, 0, 0, 0]
}

/// A guest that waits for a hull-fs, opens a file, writes a word to it at [`FAR`], and ends with the word at its start.
fn a_guest_reads_and_writes_a_file_by(command: &mut Command) {
    let guest = shares::start(Code::new());
    let guest = shares::call_until_done(guest, INIT, &[7, 31, 0, 0]);
    let guest = shares::call(guest, OPEN, &[2, 0]);
    let guest = shares::call(guest, READ, &transfer(0)).load(shares::PAYLOAD);
    let arguments = [&transfer(FAR)[..], &[!WORD]].concat();
    let guest = shares::call(guest.code_from_eax(), WRITE, &arguments);
    let vm = start(command, &guest.reset(), true);
    let socket = serve(&vm);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&WORD.to_le_bytes(), 0).unwrap();
    answer(&socket, INIT, &[0; 64], None);
    let handle = [HANDLE, 0, 0, 0].map(u32::to_le_bytes).concat();
    answer(&socket, OPEN, &handle, Some(&file));
    let outcome = vm.wait().unwrap();
    assert_eq!(outcome.end, Ok(End::Code { code: WORD }), "{outcome:?}");
    let mut written = [0; 4];
    file.read_exact_at(&mut written, FAR.into()).unwrap();
    assert_eq!(written, (!WORD).to_le_bytes());
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_guest_reads_and_writes_a_file_of_a_hull_fs_that_came_later() {
    a_guest_reads_and_writes_a_file_by(&mut hull_vmm());
}

#[test]
#[ignore = "needs root and /dev/kvm"]
fn a_file_can_be_read_and_written_in_the_jail() {
    a_guest_reads_and_writes_a_file_by(&mut jailed::jailer("hull-vmm"));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn without_a_hull_fs_a_guest_is_refused() {
    for (opcode, error) in [(INIT, -19), (LOOKUP, -107)] {
        let guest = shares::call(shares::start(Code::new()), opcode, &[0; 4]);
        let guest = guest.load(shares::ERROR).code_from_eax().reset();
        let outcome = start(&mut hull_vmm(), &guest, false).wait().unwrap();
        let code = error as u32;
        assert_eq!(outcome.end, Ok(End::Code { code }), "{outcome:?}");
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_socket_that_is_of_no_use_is_closed_and_the_vm_goes_on() {
    let spin = Code::new().raw(&[0xeb, 0xfe]); // jmp $
    for has_fs in [false, true] {
        let mut plan = Plan::new(spin.kernel().unwrap()).unwrap();
        plan.config.rng = true;
        if has_fs {
            plan.with_fs(false);
        }
        let vm = plan.start_by(&mut hull_vmm(), sink()).unwrap();
        if has_fs {
            // A descriptor that did not come.
            let socket = Descriptor(0);
            vm.send(&ToVmm::ServeFs { socket }, &[]).unwrap();
        } else {
            let socket = serve(&vm);
            assert_eq!(packet::receive(&socket, &mut [0; 16]).unwrap().len, 0);
        }
        vm.report().unwrap();
        vm.send(&ToVmm::Stop, &[]).unwrap();
        assert_eq!(vm.wait().unwrap().end, Ok(End::Stopped));
    }
}
