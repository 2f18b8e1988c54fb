//! The header before each frame (virtio 1.2, 5.1.6: struct virtio_net_hdr).

/// Its length.
pub(crate) const LEN: usize = sys::tap::HEADER_LEN;

/// Bits of `flags`.
const NEEDS_CSUM: u8 = 1;
/// Values of `gso_type`, and its bit for packets with ECN.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_ECN: u8 = 0x80;

/// What a header says, in the host's byte order. `hdr_len` is only a hint and is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Virtio {
    /// Whether the checksum at `csum_start` + `csum_offset` is left to the receiver.
    pub needs_csum: bool,
    /// Bytes of payload in each segment; 0 when it is not to be segmented.
    pub gso_size: u16,
    /// Bytes of headers before the payload, where it is to be segmented.
    pub hdr_len: u16,
    /// Where the checksum starts, from the frame's start.
    pub csum_start: u16,
    /// Where it is put, from there.
    pub csum_offset: u16,
}

impl Virtio {
    /// What the first bytes of a message say. `None` where there are too few, and for what was not offered to guests:
    /// segmentation of UDP and of IPv6, which is dropped in any case.
    pub fn parse(bytes: &[u8]) -> Option<Virtio> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let segmented = match bytes[1] & !GSO_ECN {
            GSO_NONE => false,
            GSO_TCPV4 => true,
            _ => return None,
        };
        Some(Virtio {
            needs_csum: bytes[0] & NEEDS_CSUM != 0,
            gso_size: if segmented { word(4) } else { 0 },
            hdr_len: word(2),
            csum_start: word(6),
            csum_offset: word(8),
        })
        .filter(|it| !segmented || it.gso_size != 0)
    }

    /// Writes it. Fields that do not apply are 0, and so is `num_buffers`, which a tap does not write either.
    pub fn write(self, bytes: &mut [u8; LEN]) {
        bytes.fill(0);
        if self.needs_csum {
            bytes[0] = NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
            bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        }
        if self.gso_size != 0 {
            bytes[1] = GSO_TCPV4;
            bytes[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
            bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let headers = [
            Virtio::default(),
            Virtio {
                needs_csum: true,
                csum_start: 34,
                csum_offset: 6,
                ..Virtio::default()
            },
            Virtio {
                needs_csum: true,
                gso_size: 1460,
                hdr_len: 54,
                csum_start: 34,
                csum_offset: 16,
            },
        ];
        for header in headers {
            let mut bytes = [0xaa; LEN];
            header.write(&mut bytes);
            assert_eq!(Virtio::parse(&bytes), Some(header));
        }
    }

    #[test]
    fn what_was_not_offered_is_no_header() {
        let with = |gso_type: u8, gso_size: u8| {
            let mut bytes = [0; LEN];
            bytes[1] = gso_type;
            bytes[4] = gso_size;
            Virtio::parse(&bytes)
        };
        assert!(with(1, 1).is_some());
        assert!(with(0x81, 1).is_some());
        // No size; UDP, TCP over IPv6, UDP_L4.
        assert_eq!(with(1, 0), None);
        for gso_type in [3, 4, 5, 0x7f] {
            assert_eq!(with(gso_type, 1), None);
        }
        assert_eq!(Virtio::parse(&[0; LEN - 1]), None);
    }
}
