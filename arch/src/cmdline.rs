//! The kernel's command line: the caller's words and the devices that hull adds.

use std::ffi::CString;

use linux_loader::cmdline::{Cmdline, Error as Refused};
use memory::GuestAddress;

use crate::Placed;
use crate::layout::{CMDLINE, CMDLINE_MAX_LEN, VIRTIO_MMIO_STRIDE, virtio_gsi, virtio_mmio};

/// Why a command line cannot be given to a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It does not fit.
    #[error("with the VM's devices, it is longer than the {} bytes that fit", CMDLINE_MAX_LEN - 1)]
    TooLong,
    /// It holds a byte that ends or splits it, or one that is not ASCII.
    #[error("byte {at} is not a printable ASCII character")]
    Character {
        /// Index of the byte.
        at: usize,
    },
    /// It cannot be put together.
    #[error("it cannot be put together")]
    Refused(#[source] Refused),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge | Refused::InvalidCapacity => Self::TooLong,
            other => Self::Refused(other),
        }
    }
}

/// `words` followed by `devices` virtio-mmio devices (Linux, admin-guide/kernel-parameters: virtio_mmio.device).
/// They go before a `--`, behind which everything belongs to the first process.
pub fn with_devices(words: &str, devices: usize) -> Result<CString, Error> {
    // Cmdline checks what is added to it, but not what it begins with.
    if let Some(at) = words.bytes().position(|byte| !(0x20..0x7f).contains(&byte)) {
        return Err(Error::Character { at });
    }
    let mut line = Cmdline::try_from(words, CMDLINE_MAX_LEN as usize)?;
    for index in 0..devices {
        line.add_virtio_mmio_device(
            VIRTIO_MMIO_STRIDE,
            virtio_mmio(index),
            virtio_gsi(index),
            None,
        )?;
    }
    Ok(line.as_cstring()?)
}

/// The command line in its place.
pub fn placed(line: CString) -> Placed {
    Placed {
        at: GuestAddress(CMDLINE),
        bytes: line.into_bytes_with_nul(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_follow_the_words_in_order() {
        assert_eq!(
            with_devices("quiet", 2).unwrap(),
            c"quiet virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
        );
    }

    #[test]
    fn without_words_the_devices_alone_are_the_line() {
        let line = with_devices("", 1).unwrap();
        assert_eq!(line, c"virtio_mmio.device=4K@0xd0000000:5");
        assert_eq!(with_devices("", 0).unwrap(), c"");
    }

    #[test]
    fn devices_stay_before_the_arguments_of_init() {
        assert_eq!(
            with_devices("quiet -- a b", 1).unwrap(),
            c"quiet virtio_mmio.device=4K@0xd0000000:5 -- a b"
        );
    }

    #[test]
    fn what_does_not_fit_or_would_split_the_line_is_refused() {
        let long = "x".repeat(2047);
        assert!(with_devices(&long, 0).is_ok());
        assert_eq!(with_devices(&long, 1), Err(Error::TooLong));
        assert_eq!(with_devices(&"x".repeat(2048), 0), Err(Error::TooLong));
        for bad in ["a\0b", "a\nb", "a\u{e4}"] {
            assert_eq!(with_devices(bad, 0), Err(Error::Character { at: 1 }));
        }
    }
}
