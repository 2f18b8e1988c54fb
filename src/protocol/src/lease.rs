//! The lease of a volume: whether the one share that uses it may let its guest remember names and attributes for a while.
//!
//! ```text
//! ROOT/volumes/<name>/lease   what it says: a word, written by wardens, read by hull-fs before each reply that may be remembered
//!                    byte 0       locked for a few system calls by a warden that looks at the others and writes the word
//!                    byte 1…      one is locked by each share of the volume, for as long as its hull-fs serves it
//! ```
//!
//! The locks are those of open file descriptions, which end with the last copy of the descriptor. docs/lifecycle.md
//! ("Volumes: who may remember what") is the contract.

use std::time::Duration;

/// The file's name in a volume's folder.
pub const FILE: &str = "lease";
/// The byte that is locked while the word is written.
pub const GATE: u64 = 0;
/// The first of the bytes of which each share locks one.
pub const FIRST_SHARE: u64 = 1;
/// The last of them.
pub const LAST_SHARE: u64 = u32::MAX as u64;
/// How long a guest may believe what it was told under a lease, by its own clock.
pub const VALIDITY: Duration = Duration::from_secs(1);
/// How long a reply may be on its way, from the look at the word to the guest's clock being read.
pub const MARGIN: Duration = Duration::from_millis(500);

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The one share that uses the volume may let its guest remember.
    Alone,
    /// Nothing may be remembered. What was told before is forgotten from this CLOCK_MONOTONIC time on, in nanoseconds.
    Shared {
        /// The time.
        forgotten_ns: u64,
    },
}

impl Word {
    /// Bytes of the word.
    pub const LEN: usize = 16;
    const ALONE: [u8; 8] = *b"alone\n\0\0";
    const SHARED: [u8; 8] = *b"shared\n\0";

    /// As it is written: at the file's beginning, with one call.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, number) = match self {
            Self::Alone => (Self::ALONE, 0),
            Self::Shared { forgotten_ns } => (Self::SHARED, forgotten_ns),
        };
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&kind);
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    /// What was read of the file, which may be empty, cut off or damaged: then nothing may be remembered, and when what was
    /// told before is forgotten is not known.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let unknown = Self::Shared {
            forgotten_ns: u64::MAX,
        };
        let Some((kind, rest)) = bytes.split_first_chunk::<8>() else {
            return unknown;
        };
        match (*kind, rest.first_chunk::<8>()) {
            (Self::ALONE, Some(_)) => Self::Alone,
            (Self::SHARED, Some(number)) => Self::Shared {
                forgotten_ns: u64::from_le_bytes(*number),
            },
            _ => unknown,
        }
    }

    /// How long after `now_ns` what was told before this word is forgotten. Never longer than a word that is written now would
    /// have it: the time of one that an earlier boot left means nothing.
    pub fn forgotten_in(self, now_ns: u64) -> Duration {
        match self {
            Self::Alone => VALIDITY + MARGIN,
            Self::Shared { forgotten_ns } => {
                Duration::from_nanos(forgotten_ns.saturating_sub(now_ns)).min(VALIDITY + MARGIN)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written_and_anything_else_lets_nothing_be_remembered() {
        for word in [Word::Alone, Word::Shared { forgotten_ns: 77 }] {
            assert_eq!(Word::from_bytes(&word.to_bytes()), word);
        }
        let alone = Word::Alone.to_bytes();
        for bad in [&alone[..15], &alone[..0], &[0; 16], b"alone"] {
            let word = Word::from_bytes(bad);
            assert_eq!(word.forgotten_in(0), VALIDITY + MARGIN, "{bad:?}");
            assert_ne!(word, Word::Alone);
        }
    }

    #[test]
    fn what_was_told_is_forgotten_when_its_time_is_over_and_never_later_than_it_could_have_been_told()
     {
        let word = Word::Shared { forgotten_ns: 1000 };
        assert_eq!(word.forgotten_in(400), Duration::from_nanos(600));
        assert_eq!(word.forgotten_in(1000), Duration::ZERO);
        assert_eq!(word.forgotten_in(5000), Duration::ZERO);
        let of_an_earlier_boot = Word::Shared {
            forgotten_ns: u64::MAX,
        };
        assert_eq!(of_an_earlier_boot.forgotten_in(5), VALIDITY + MARGIN);
    }
}
