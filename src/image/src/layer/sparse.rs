//! Maps of sparse files: which parts of a file a tar contains.

use super::tar::TarError;

/// The most segments of one file, each of which takes 16 bytes while the file is read.
pub(super) const MAX_SEGMENTS: usize = 1 << 20;

/// A part of a file that is in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Makes a map of offsets and lengths in turn, and checks that its segments ascend without overlap within the file and
/// make up the bytes that are stored.
pub(super) fn segments(numbers: &[u64], size: u64, stored: u64) -> Result<Vec<Segment>, TarError> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MAX_SEGMENTS {
        return Err(TarError::Sparse);
    }
    let (mut position, mut total) = (0, 0u64);
    for &[offset, len] in pairs {
        let end = offset
            .checked_add(len)
            .filter(|end| offset >= position && *end <= size)
            .ok_or(TarError::Sparse)?;
        position = end;
        total = total.checked_add(len).ok_or(TarError::Sparse)?;
    }
    if total != stored {
        return Err(TarError::Sparse);
    }
    Ok(pairs
        .iter()
        .map(|&[offset, len]| Segment { offset, len })
        .collect())
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
            assert!(segments(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }
}
