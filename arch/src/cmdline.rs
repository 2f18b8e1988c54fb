//! The kernel's command line: the caller's words and the devices that hull adds.

use crate::Placed;
use crate::layout::{CMDLINE, CMDLINE_MAX_LEN, VIRTIO_MMIO_STRIDE, virtio_gsi, virtio_mmio};
use memory::GuestAddress;

/// Why a command line cannot be given to a kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It does not fit.
    #[error("the kernel command line has {len} bytes with its devices, and {max} fit")]
    TooLong {
        /// Its length, devices included.
        len: usize,
        /// The longest that fits.
        max: usize,
    },
    /// It holds a byte that ends or splits it.
    #[error("the kernel command line holds a control character at byte {at}")]
    ControlCharacter {
        /// Index of the byte.
        at: usize,
    },
}

/// `words` followed by `devices` virtio-mmio devices (Linux, admin-guide/kernel-parameters: virtio_mmio.device).
/// They go before a `--`, behind which everything belongs to the first process.
pub fn with_devices(words: &str, devices: usize) -> Result<String, Error> {
    if let Some(at) = words.bytes().position(|byte| byte < 0x20) {
        return Err(Error::ControlCharacter { at });
    }
    let (kernel, init) = match words.find(" -- ") {
        Some(at) => words.split_at(at),
        None => (words, ""),
    };
    let mut line = kernel.to_owned();
    for index in 0..devices {
        let (size, at, gsi) = (
            VIRTIO_MMIO_STRIDE >> 10,
            virtio_mmio(index).0,
            virtio_gsi(index),
        );
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&format!("virtio_mmio.device={size}K@{at:#x}:{gsi}"));
    }
    line.push_str(init);
    let max = CMDLINE_MAX_LEN as usize - 1;
    if line.len() > max {
        return Err(Error::TooLong {
            len: line.len(),
            max,
        });
    }
    Ok(line)
}

/// The command line as a C string in its place.
pub fn placed(line: &str) -> Placed {
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(0);
    Placed {
        at: GuestAddress(CMDLINE),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_follow_the_words_in_order() {
        assert_eq!(
            with_devices("quiet", 2).unwrap(),
            "quiet virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
        );
    }

    #[test]
    fn devices_stay_before_the_arguments_of_init() {
        assert_eq!(
            with_devices("quiet -- a b", 1).unwrap(),
            "quiet virtio_mmio.device=4K@0xd0000000:5 -- a b"
        );
    }

    #[test]
    fn what_does_not_fit_or_would_split_the_line_is_refused() {
        let long = "x".repeat(2047);
        assert!(with_devices(&long, 0).is_ok());
        assert!(matches!(with_devices(&long, 1), Err(Error::TooLong { .. })));
        assert_eq!(
            with_devices("a\0b", 0),
            Err(Error::ControlCharacter { at: 1 })
        );
    }
}
