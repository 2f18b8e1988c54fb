//! Seccomp profiles of users'. Checked, on the compiled program: whatever a profile says, no AF_VSOCK socket is made, and
//! every program ends.

use std::os::fd::AsRawFd;

use engine::options::Seccomp;
use engine::seccomp::compile;

use crate::file_of;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// SECCOMP_RET_ERRNO and EAFNOSUPPORT; ENOSYS.
const REFUSED: u32 = 0x0005_0000 | 97;
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;

/// Runs an input.
pub fn run(data: &[u8]) {
    let file = file_of(data);
    let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    let capabilities = ["CAP_SYS_ADMIN".to_owned(), "CAP_CHOWN".to_owned()];
    let program = match compile(&Seccomp::File(path), &capabilities, None) {
        Ok(program) => program,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(program.len().is_multiple_of(8) && program.len() / 8 <= 4096);
    let vsock = [40, 1, 0, 0, 0, 0];
    assert_eq!(verdict(&program, X86_64, 41, vsock), REFUSED);
    assert_eq!(verdict(&program, X86_64, 41 | 0x4000_0000, vsock), REFUSED);
    assert_eq!(verdict(&program, I386, 359, vsock), REFUSED);
    assert_eq!(
        verdict(&program, I386, 102, [1, 0, 0, 0, 0, 0]),
        NO_SUCH_CALL
    );
    for call in 0..480 {
        let _ = verdict(&program, X86_64, call, [1; 6]);
    }
}

/// What a program says of a call, as the kernel would hear it.
fn verdict(program: &[u8], arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0; 64];
    data[..4].copy_from_slice(&call.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    for (i, argument) in arguments.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&argument.to_ne_bytes());
    }
    let (mut at, mut value) = (0, 0u32);
    loop {
        let [c0, c1, yes, no, k0, k1, k2, k3] = program.as_chunks::<8>().0[at];
        let operand = u32::from_ne_bytes([k0, k1, k2, k3]);
        let mut jump = |taken: bool| at += usize::from(if taken { yes } else { no });
        match u16::from_ne_bytes([c0, c1]) {
            0x20 => {
                let from = operand as usize;
                value = u32::from_ne_bytes(std::array::from_fn(|i| data[from + i]));
            }
            0x54 => value &= operand,
            0x15 => jump(value == operand),
            0x25 => jump(value > operand),
            0x35 => jump(value >= operand),
            0x45 => jump(value & operand != 0),
            0x05 => at += operand as usize,
            0x06 => return operand,
            other => panic!("instruction {other:#x} at {at}"),
        }
        at += 1;
    }
}
