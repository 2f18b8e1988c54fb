//! Seeds for frames of a guest's: see `frames.rs` for their coding.

use super::Seeds;

const FRAMES: u8 = 0;
const FROM_GUEST: u8 = 1;
const TO_GUEST: u8 = 2;

/// A frame, how many times 256 bytes follow, and that the checksum is put right.
fn frame(bytes: &[u8], more: u8) -> Vec<u8> {
    [&[bytes.len() as u8][..], bytes, &[more, 0]].concat()
}

fn ipv4(protocol: u8, len: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = len.to_be_bytes();
    let header = [
        0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 2, 10, 1, 0, 3,
    ];
    let ethernet = [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0];
    [&ethernet[..], &header, payload].concat()
}

fn tcp() -> [u8; 20] {
    [
        0x0f, 0xa0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]
}

pub(super) fn all() -> Seeds {
    let plain = [0; 12];
    let partial = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
    let segmented = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    let udp = [0x0f, 0xa0, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4];
    let arp = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0,
        0, 0, 0, 2, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1,
    ];
    let frames = [
        vec![FRAMES],
        frame(&[&plain[..], &ipv4(17, 32, &udp)].concat(), 0),
        frame(&[&partial[..], &ipv4(6, 40, &tcp())].concat(), 0),
        frame(
            &[&segmented[..], &ipv4(6, 40 + 12 * 256, &tcp())].concat(),
            12,
        ),
        frame(
            &[&plain[..], &ipv4(1, 28, &[8, 0, 0, 0, 0, 1, 0, 1])].concat(),
            0,
        ),
        frame(&[&plain[..], &arp].concat(), 0),
    ];
    // The numbers that the guest was told last, with these flags and this much data.
    let exact = |flags: u8, beyond: u8, len: u8| {
        vec![
            6 | 0x40 | beyond << 7,
            flags,
            0,
            0,
            0,
            0,
            0xff,
            0x7f,
            len,
            0,
        ]
    };
    let from_guest = [
        vec![FROM_GUEST, 0xf0, 0xff, 0xff, 0xff, 9, 0, 0, 0, 0xb4, 5, 0],
        exact(0x10, 1, 0),
        vec![2, 0, 1],
        exact(0x18, 0, 200),
        vec![1, 0, 8],
        exact(0x10, 0, 0),
        vec![2, 0, 8],
        exact(0x11, 0, 10),
        vec![3 | 8],
        exact(0x10, 1, 0),
    ];
    let to_guest = [
        vec![TO_GUEST, 1, 0, 0, 0, 1, 0, 16],
        exact(0x12, 1, 0),
        exact(0x18, 0, 100),
        vec![5, 0xff, 0],
        vec![4, 0],
        vec![1, 0, 16],
        vec![4, 9],
        exact(0x10, 0, 0),
        exact(0x10, 0, 0),
        exact(0x10, 0, 0),
        vec![5, 0xff, 0xff],
        exact(0x14, 0, 0),
    ];
    let seeds = vec![frames.concat(), from_guest.concat(), to_guest.concat()];
    vec![("frames", seeds)]
}
