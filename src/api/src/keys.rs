//! Detach keys: a sequence of control keys that leaves a terminal to its container, as Docker's.

use values::lifecycle::DetachKeys;

/// Passes on what is typed, but for the sequence.
#[derive(Debug)]
pub struct Filter {
    keys: Vec<u8>,
    matched: usize,
}

impl Filter {
    /// Looks for these keys.
    pub fn new(keys: DetachKeys) -> Filter {
        Filter {
            keys: keys.0,
            matched: 0,
        }
    }

    /// What of `typed` goes to the process; `None` for the bytes if the sequence is complete. The beginning of a sequence is
    /// held back until it is known whether it is one.
    pub fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
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
    fn the_sequence_is_found_however_it_is_cut_and_all_else_passes() {
        let mut filter = Filter::new(DetachKeys::default());
        assert_eq!(filter.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(filter.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(filter.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(filter.pass(b"\x11rest"), (Vec::new(), true));
        let mut none = Filter::new(DetachKeys(Vec::new()));
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
