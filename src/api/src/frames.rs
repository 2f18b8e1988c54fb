//! Several streams in one: Docker's frames of a stream's number, three zeros, and a length (big-endian), before the bytes.

/// Standard output's number.
pub const STDOUT: u8 = 1;
/// Standard error's number.
pub const STDERR: u8 = 2;
/// Length of a frame's head, in bytes.
pub const HEAD_LEN: usize = 8;

/// The head of a frame of so many bytes.
pub fn head(stream: u8, len: usize) -> [u8; HEAD_LEN] {
    let len = u32::try_from(len).expect("callers write chunks of less than 4 GiB");
    let [a, b, c, d] = len.to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// A whole frame.
pub fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(HEAD_LEN + bytes.len());
    all.extend(head(stream, bytes.len()));
    all.extend(bytes);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_07_a_frame_has_eight_bytes_before_it() {
        assert_eq!(frame(STDERR, b"a\r\n"), b"\x02\0\0\0\0\0\0\x03a\r\n");
        assert_eq!(head(STDOUT, 0x0102_0304), [1, 0, 0, 0, 1, 2, 3, 4]);
    }
}
