//! The MP table: how a kernel without ACPI finds vCPUs and the I/O APIC (MPS, chapter 4).

use memory::GuestAddress;

use crate::Placed;
use crate::layout::{IO_APIC, LOCAL_APIC, MPTABLE, MPTABLE_LEN};

/// Revision 1.4.
const SPEC_REV: u8 = 4;
/// What Linux sees as the version of each APIC: any integrated one.
const APIC_VERSION: u8 = 0x14;
const FLOATING_LEN: u64 = 16;
const HEADER_LEN: usize = 44;
const ISA_BUS: u8 = 0;
/// Entry types (MPS, table 4-3).
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;
/// Interrupt types (MPS, table 4-11).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// Processor flags (MPS, table 4-4).
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;
/// CPU feature flags of a processor entry: a local APIC and a TSC, as Firecracker's and kvmtool's tables have it.
const FEATURES: u32 = 1 << 9 | 1 << 4;
/// Pins of KVM's I/O APIC.
const PINS: u8 = 24;
/// Destination of a local interrupt: every local APIC.
const ALL_APICS: u8 = 0xff;

/// The table for `vcpus` vCPUs with APIC ids from 0; at most 32 of them fit.
///
/// Pins are described as an ISA bus's: edge-triggered, active high, pin n is interrupt n.
pub fn table(vcpus: u8) -> Placed {
    let io_apic_id = vcpus;
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut add = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for id in 0..vcpus {
        let flags = if id == 0 {
            ENABLED | BOOT_PROCESSOR
        } else {
            ENABLED
        };
        let mut entry = [0; 20];
        entry[..4].copy_from_slice(&[PROCESSOR, id, APIC_VERSION, flags]);
        entry[4..8].copy_from_slice(&0x600u32.to_le_bytes()); // family 6: unused by Linux
        entry[8..12].copy_from_slice(&FEATURES.to_le_bytes());
        add(&entry);
    }
    add(&[BUS, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    let mut entry = [IO_APIC_ENTRY, io_apic_id, APIC_VERSION, 1, 0, 0, 0, 0];
    entry[4..].copy_from_slice(&(IO_APIC as u32).to_le_bytes());
    add(&entry);
    for pin in 0..PINS {
        add(&[IO_INTERRUPT, INT, 0, 0, ISA_BUS, pin, io_apic_id, pin]);
    }
    add(&[LOCAL_INTERRUPT, EXT_INT, 0, 0, ISA_BUS, 0, 0, 0]);
    add(&[LOCAL_INTERRUPT, NMI, 0, 0, ISA_BUS, 0, ALL_APICS, 1]);

    let mut bytes = floating_pointer();
    let mut header = header((HEADER_LEN + entries.len()) as u16, count);
    header[7] = checksum(&[&header, &entries]);
    bytes.extend(header);
    bytes.extend(entries);
    assert!(
        bytes.len() as u64 <= MPTABLE_LEN,
        "32 vCPUs fit, and no more are asked for"
    );
    Placed {
        at: GuestAddress(MPTABLE),
        bytes,
    }
}

/// MPS, 4.1.
fn floating_pointer() -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(((MPTABLE + FLOATING_LEN) as u32).to_le_bytes());
    bytes.extend([1, SPEC_REV, 0, 0, 0, 0, 0, 0]); // one paragraph; no default configuration
    bytes[10] = checksum(&[&bytes]);
    bytes
}

/// MPS, 4.2, with a checksum of zero.
fn header(len: u16, entries: u16) -> Vec<u8> {
    let mut bytes = b"PCMP".to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend([SPEC_REV, 0]);
    bytes.extend(b"HULL    ");
    bytes.extend(b"MICROVM     ");
    bytes.extend([0; 6]); // no OEM table
    bytes.extend(entries.to_le_bytes());
    bytes.extend((LOCAL_APIC as u32).to_le_bytes());
    bytes.extend([0; 4]); // no extended table
    bytes
}

/// The byte that makes the sum of all bytes zero.
fn checksum(parts: &[&[u8]]) -> u8 {
    let sum = parts
        .iter()
        .copied()
        .flatten()
        .fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    sum.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
    }

    #[test]
    fn both_checksums_come_to_zero_for_every_number_of_vcpus() {
        for vcpus in 1..=32 {
            let bytes = table(vcpus).bytes;
            assert_eq!(sum(&bytes[..16]), 0);
            assert_eq!(sum(&bytes[16..]), 0);
            let len = u16::from_le_bytes([bytes[20], bytes[21]]) as usize;
            assert_eq!(len, bytes.len() - 16);
        }
    }

    #[test]
    fn entries_are_counted_and_only_the_first_processor_boots() {
        let bytes = table(2).bytes;
        let header = &bytes[16..60];
        assert_eq!(header.len(), HEADER_LEN);
        assert_eq!(
            u16::from_le_bytes([header[34], header[35]]),
            2 + 1 + 1 + 24 + 2
        );
        assert_eq!((bytes[60 + 3], bytes[80 + 3]), (3, 1));
    }
}
