//! Detach keys: a sequence of control keys that leaves a terminal to its container, as Docker's.

/// Docker's default: Ctrl-P, then Ctrl-Q.
const DEFAULT: [u8; 2] = [16, 17];

/// The sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// Why a text is no sequence of keys.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a detach key: use letters, or ctrl- and one of a-z, @, [, \\, ], ^, _, as in ctrl-p,ctrl-q")]
pub(crate) struct Unknown(String);

impl Default for DetachKeys {
    fn default() -> DetachKeys {
        DetachKeys(DEFAULT.to_vec())
    }
}

impl DetachKeys {
    /// Nothing detaches.
    pub(crate) fn none() -> DetachKeys {
        DetachKeys(Vec::new())
    }

    /// Reads Docker's notation: keys separated by commas. Nothing is the default.
    pub(crate) fn parse(text: &str) -> Result<DetachKeys, Unknown> {
        if text.is_empty() {
            return Ok(DetachKeys::default());
        }
        let keys: Result<Vec<u8>, Unknown> = text.split(',').map(key).collect();
        Ok(DetachKeys(keys?))
    }

    /// A filter over what is typed.
    pub(super) fn filter(self) -> Filter {
        Filter {
            keys: self.0,
            matched: 0,
        }
    }
}

fn key(text: &str) -> Result<u8, Unknown> {
    let unknown = || Unknown(text.to_owned());
    if let Some(letter) = text.strip_prefix("ctrl-") {
        let [letter] = letter.as_bytes() else {
            return Err(unknown());
        };
        let upper = letter.to_ascii_uppercase();
        return match upper {
            b'@' | b'A'..=b'_' => Ok(upper & 0x1f),
            _ => Err(unknown()),
        };
    }
    match text.as_bytes() {
        [letter] => Ok(*letter),
        _ => Err(unknown()),
    }
}

/// Passes on what is typed, but for the sequence.
#[derive(Debug)]
pub(super) struct Filter {
    keys: Vec<u8>,
    matched: usize,
}

impl Filter {
    /// What of `typed` goes to the process; `None` for the bytes if the sequence is complete. The beginning of a sequence is
    /// held back until it is known whether it is one.
    pub(super) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.is_empty() {
                out.push(byte);
            } else if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.extend(&self.keys[..std::mem::take(&mut self.matched)]);
                match byte == self.keys[0] {
                    true => self.matched = 1,
                    false => out.push(byte),
                }
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_notation_is_read() {
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("ctrl-[,a").unwrap().0, [27, b'a']);
        assert_eq!(DetachKeys::parse("ctrl-@").unwrap().0, [0]);
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,,q", "x,"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_found_however_it_is_cut_and_all_else_passes() {
        let mut filter = DetachKeys::default().filter();
        assert_eq!(filter.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(filter.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(filter.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(filter.pass(b"\x11rest"), (Vec::new(), true));
        let mut none = DetachKeys::none().filter();
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
