//! Limits whose values have a form of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `--memory-swap`: the sum of memory and swap that a container may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swap {
    /// As much swap as its machine has. A VM has none.
    Unlimited,
    /// Memory and swap together, in bytes.
    Total(u64),
}

/// A set of CPUs or memory nodes by number, each at most [`CpuSet::MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CpuSet(pub BTreeSet<u16>);

impl CpuSet {
    /// The highest number of a Linux CPU (NR_CPUS of the largest distribution kernels, less one).
    pub const MAX: u16 = 8191;

    /// The highest of the numbers.
    pub fn highest(&self) -> Option<u16> {
        self.0.last().copied()
    }
}

/// A text that is no [`CpuSet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of numbers and ranges from 0 to {max}, as in 0-3,7", max = CpuSet::MAX)]
pub struct NoCpuSet(pub String);

impl FromStr for CpuSet {
    type Err = NoCpuSet;

    /// Reads the list format of cpuset(7).
    fn from_str(text: &str) -> Result<CpuSet, NoCpuSet> {
        let error = || NoCpuSet(text.to_owned());
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number: Option<u16> = text.parse().ok();
            number.filter(|number| is_number && *number <= CpuSet::MAX)
        };
        let mut set = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = number(first).ok_or_else(error)?;
            let last = number(last).filter(|last| *last >= first);
            set.extend(first..=last.ok_or_else(error)?);
        }
        Ok(CpuSet(set))
    }
}

impl fmt::Display for CpuSet {
    /// In the list format of cpuset(7): `0-3,7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut numbers = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = numbers.next() {
            let mut last = first;
            while let Some(next) = numbers.next_if(|next| *next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_with_ranges() {
        let text = |numbers: &[u16]| CpuSet(numbers.iter().copied().collect()).to_string();
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[3]), "3");
        assert_eq!(text(&[7, 0, 1, 2, 5, 6]), "0-2,5-7");
    }

    #[test]
    fn a_set_is_read_as_it_is_written() {
        for text in ["0", "0-2,5-7", "8191"] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), text);
        }
        assert_eq!("3,1,0-1".parse::<CpuSet>().unwrap().to_string(), "0-1,3");
        for bad in [
            "", ",", "1,", "-1", "3-1", "1-", "+1", " 1", "8192", "0-99999", "a",
        ] {
            assert_eq!(bad.parse::<CpuSet>(), Err(NoCpuSet(bad.into())));
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(numbers in proptest::collection::btree_set(0..=CpuSet::MAX, 1..50)) {
            let set = CpuSet(numbers);
            proptest::prop_assert_eq!(set.to_string().parse::<CpuSet>(), Ok(set));
        }

        #[test]
        fn a_set_that_is_read_is_not_empty(text in "[-0-9, ]{0,20}") {
            if let Ok(set) = text.parse::<CpuSet>() {
                proptest::prop_assert!(set.highest().is_some());
            }
        }
    }
}
