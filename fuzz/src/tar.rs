//! Tars, written and mended.

/// Bytes of a header, and of what data is rounded up to.
pub const BLOCK: usize = 512;

/// A ustar header with a right checksum.
pub fn header(name: &str, kind: u8, size: u64, link: &str) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut header);
    header
}

/// An entry: its header and its data.
pub fn entry(name: &str, kind: u8, data: &[u8], link: &str) -> Vec<u8> {
    let mut bytes = header(name, kind, data.len() as u64, link).to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Makes every header's checksum right, as far as the headers' sizes lead to further ones: a checksum is no defence, and
/// a mutation that keeps it is rare.
pub fn mend(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if header.iter().all(|&byte| byte == 0) {
            continue;
        }
        sign(header);
        let digits = header[124..136]
            .iter()
            .filter(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0usize, |size, digit| {
            size.saturating_mul(8)
                .saturating_add(usize::from(digit - b'0'))
        });
        // Links, devices and directories have no data, whatever the header says.
        if !matches!(header[156], b'1'..=b'6') {
            at = at.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        }
    }
}

fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
