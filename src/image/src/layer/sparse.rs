//! Maps of sparse files: which parts of a file a tar contains.

use super::header::number;
use super::pax::decimal;

/// The most segments of one file, each of which takes 16 bytes while the file is read.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

/// A part of a file that is in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The segments of a map of offsets and lengths in turn, if they ascend without overlap within the
/// file and make up the bytes that are stored.
pub(super) fn segments(map: &[u64], size: u64, stored: u64) -> Option<Vec<Segment>> {
    let (pairs, rest) = map.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MAX_SEGMENTS {
        return None;
    }
    let (mut position, mut total) = (0, 0u64);
    let segment = |&[offset, len]: &[u64; 2]| {
        let end = offset
            .checked_add(len)
            .filter(|end| offset >= position && *end <= size)?;
        position = end;
        total += len; // At most `size`: the segments do not overlap.
        Some(Segment { offset, len })
    };
    let segments = pairs.iter().map(segment).collect::<Option<Vec<_>>>()?;
    (total == stored).then_some(segments)
}

/// Adds GNU's binary segments (offset and length, 12 bytes each), up to the first that is not used.
pub(super) fn add_gnu(map: &mut Vec<u64>, bytes: &[u8]) -> Option<()> {
    let (pairs, _) = bytes.as_chunks::<24>();
    for pair in pairs.iter().take_while(|pair| pair[0] != 0) {
        for field in [&pair[..12], &pair[12..]] {
            map.push(u64::try_from(number(field)?).ok()?);
        }
    }
    (map.len() <= 2 * MAX_SEGMENTS).then_some(())
}

/// The map of PAX's format 1.0: the number of segments, then offsets and lengths, in decimal, a
/// line each.
#[derive(Debug, Default)]
pub(super) struct MapText {
    line: Vec<u8>,
    segments: Option<usize>,
    map: Vec<u64>,
}

impl MapText {
    /// Adds text; what follows the map's end is padding.
    pub(super) fn add(&mut self, text: &[u8]) -> Option<()> {
        for &byte in text {
            if self.is_complete() {
                break;
            }
            if byte != b'\n' {
                self.line.push(byte);
                // A u64 has at most 20 digits.
                (self.line.len() <= 20).then_some(())?;
                continue;
            }
            let number = decimal(&self.line)?;
            self.line.clear();
            match self.segments {
                None => {
                    self.segments = Some(
                        usize::try_from(number)
                            .ok()
                            .filter(|n| *n <= MAX_SEGMENTS)?,
                    )
                }
                Some(_) => self.map.push(number),
            }
        }
        Some(())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.segments
            .is_some_and(|segments| self.map.len() == 2 * segments)
    }

    pub(super) fn into_map(self) -> Vec<u64> {
        self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascending_maps_within_the_file_are_taken() {
        assert_eq!(segments(&[], 100, 0).unwrap(), []);
        assert_eq!(segments(&[10, 5, 15, 1, 100, 0], 100, 6).unwrap().len(), 3);
        for (numbers, size, stored) in [
            (&[10, 5, 14, 1][..], 100, 6),
            (&[10, 5, 0, 1], 100, 6),
            (&[10, 5], 14, 5),
            (&[10, 5], 100, 4),
            (&[10], 100, 0),
            (&[u64::MAX, 2], u64::MAX, 2),
        ] {
            assert!(segments(numbers, size, stored).is_none(), "{numbers:?}");
        }
    }

    #[test]
    fn a_map_in_text_may_be_cut_anywhere_and_is_bounded() {
        let mut text = MapText::default();
        for part in [&b"2\n1"[..], b"0\n5\n", b"20\n1\n", b"junk"] {
            text.add(part).unwrap();
        }
        assert!(text.is_complete());
        assert_eq!(text.into_map(), [10, 5, 20, 1]);
        for wrong in [
            &b"x\n"[..],
            b"\n",
            b"9999999999\n",
            b"000000000000000000001\n",
        ] {
            assert!(MapText::default().add(wrong).is_none());
        }
    }
}
