//! Installing a seccomp program (seccomp(2)).

#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;

/// Bytes of one `struct sock_filter`.
pub const INSTRUCTION_LEN: usize = 8;
/// The most instructions of a program (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Installs a program, an array of `struct sock_filter` in the machine's byte order, in the calling thread.
///
/// Needs no_new_privs or CAP_SYS_ADMIN. Fails with EINVAL on what is not a program.
pub fn install(program: &[u8]) -> io::Result<()> {
    let (instructions, rest) = program.as_chunks::<INSTRUCTION_LEN>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > MAX_INSTRUCTIONS {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: program describes an array that lives to the end of the call; the kernel copies and verifies it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_not_a_program_is_refused_before_the_kernel_sees_it() {
        for bytes in [&b""[..], &[0; 7], &[0; 9], &[0; 8 * 4097]] {
            assert_eq!(
                super::install(bytes).unwrap_err().raw_os_error(),
                Some(libc::EINVAL)
            );
        }
    }
}
