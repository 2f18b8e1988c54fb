//! What stands in front of every profile, in the kernel's classic BPF.
//!
//! ```text
//! x86-64 (and x32):  socket(AF_VSOCK, …)     -> EAFNOSUPPORT
//! i386:              socket(AF_VSOCK, …)     -> EAFNOSUPPORT
//!                    socketcall(SYS_SOCKET)  -> ENOSYS: its arguments are out of reach, and C libraries try socket first
//! all else           the profile, which begins right behind
//! ```

/// Bytes of a `struct sock_filter`.
pub(super) const INSTRUCTION_LEN: usize = 8;

/// A program that allows everything.
pub(super) const ALLOW: [u8; INSTRUCTION_LEN] = encode((RET, 0, 0, 0x7fff_0000));

/// Code, jump if true, jump if false, operand.
pub(super) type Code = (u16, u8, u8, u32);

/// BPF_LD | BPF_W | BPF_ABS
pub(super) const LOAD: u16 = 0x20;
/// BPF_JMP | BPF_JEQ | BPF_K
pub(super) const EQUALS: u16 = 0x15;
/// BPF_RET | BPF_K
pub(super) const RETURN: u16 = 0x06;
// BPF_ALU | BPF_AND | BPF_K.
const AND: u16 = 0x54;
// As in the kernel's listings.
const JEQ: u16 = EQUALS;
const RET: u16 = RETURN;

// Offsets in struct seccomp_data.
pub(super) const NR: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;

// include/uapi/linux/audit.h
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// Bit of an x32 call's number, which otherwise equals x86-64's for socket.
const X32_BIT: u32 = 0x4000_0000;

// arch/x86/entry/syscalls
const SOCKET_X86_64: u32 = 41;
const SOCKETCALL_I386: u32 = 102;
const SOCKET_I386: u32 = 359;
/// The call of socketcall(2) that makes a socket.
const SYS_SOCKET: u32 = 1;
/// SECCOMP_RET_ERRNO
pub(super) const ERRNO: u32 = 0x0005_0000;

/// The prologue. Jumps count instructions from the next one; the profile is number 15.
#[rustfmt::skip]
const INSTRUCTIONS: [Code; 15] = [
    /*  0 */ (LOAD, 0, 0, ARCH),
    /*  1 */ (JEQ, 0, 3, AUDIT_ARCH_X86_64),            // else 5
    /*  2 */ (LOAD, 0, 0, NR),
    /*  3 */ (AND, 0, 0, !X32_BIT),
    /*  4 */ (JEQ, 4, 10, SOCKET_X86_64),               // 9, else the profile
    /*  5 */ (JEQ, 0, 9, AUDIT_ARCH_I386),              // else the profile
    /*  6 */ (LOAD, 0, 0, NR),
    /*  7 */ (JEQ, 4, 0, SOCKETCALL_I386),              // 12
    /*  8 */ (JEQ, 0, 6, SOCKET_I386),                  // else the profile
    /*  9 */ (LOAD, 0, 0, ARG0_LOW),
    /* 10 */ (JEQ, 0, 4, libc::AF_VSOCK as u32),        // else the profile
    /* 11 */ (RET, 0, 0, ERRNO | libc::EAFNOSUPPORT as u32),
    /* 12 */ (LOAD, 0, 0, ARG0_LOW),
    /* 13 */ (JEQ, 0, 1, SYS_SOCKET),                   // else the profile
    /* 14 */ (RET, 0, 0, ERRNO | libc::ENOSYS as u32),
];

/// The prologue and, behind it, `program`.
pub(super) fn before(program: &[u8]) -> Vec<u8> {
    let mut whole: Vec<u8> = INSTRUCTIONS.into_iter().flat_map(encode).collect();
    whole.extend_from_slice(program);
    whole
}

pub(super) const fn encode((code, yes, no, k): Code) -> [u8; INSTRUCTION_LEN] {
    let code = code.to_ne_bytes();
    let k = k.to_ne_bytes();
    [code[0], code[1], yes, no, k[0], k[1], k[2], k[3]]
}
