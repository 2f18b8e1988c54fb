//! Names for containers that were given none: `brisk_lovelace`.

/// Adjectives: friendly, and easy to type.
const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "apt", "azure", "bold", "brave", "bright", "brisk", "calm",
    "candid", "cheery", "civil", "clear", "clever", "cosy", "crisp", "deft", "eager", "early",
    "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "handy",
    "hardy", "honest", "jolly", "keen", "kind", "level", "light", "lively", "loyal", "lucid",
    "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "plain", "prompt",
    "proud", "quick", "quiet", "ready", "robust", "serene", "sharp", "silver", "smart", "steady",
    "swift", "tidy", "vivid", "warm",
];

/// Surnames of people in science, engineering and seafaring, all of whom died before 2000.
const SURNAMES: [&str; 72] = [
    "agnesi",
    "ampere",
    "babbage",
    "banneker",
    "bessel",
    "boole",
    "boyle",
    "brahe",
    "brunel",
    "cabot",
    "cannon",
    "cantor",
    "carson",
    "carver",
    "cauchy",
    "celsius",
    "chandra",
    "cook",
    "copernicus",
    "curie",
    "dalton",
    "darwin",
    "dirac",
    "doppler",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "fleming",
    "fourier",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goeppert",
    "halley",
    "herschel",
    "hilbert",
    "hooke",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "jacquard",
    "joule",
    "kepler",
    "lagrange",
    "laplace",
    "leibniz",
    "lovelace",
    "magellan",
    "maxwell",
    "meitner",
    "mendel",
    "mercator",
    "mitchell",
    "nansen",
    "napier",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "planck",
    "ptolemy",
    "ramanujan",
    "shannon",
    "somerville",
    "tesla",
    "turing",
    "volta",
    "watt",
];

/// A name made of random words. From the second attempt on, with digits, so that one is free sooner or later.
pub(crate) fn random(attempt: u32) -> String {
    let mut bytes = [0; 8];
    // As in `id::new_id`.
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(8), "the kernel gives random bytes");
    let number = u64::from_le_bytes(bytes) as usize;
    let adjective = ADJECTIVES[number % ADJECTIVES.len()];
    let rest = number / ADJECTIVES.len();
    let surname = SURNAMES[rest % SURNAMES.len()];
    match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", rest / SURNAMES.len() % 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::is_valid_name;

    #[test]
    fn made_up_names_are_valid_and_later_attempts_have_digits() {
        for attempt in 0..50 {
            assert!(is_valid_name(&random(attempt)));
        }
        assert!(
            random(0)
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '_')
        );
        assert!(random(1).ends_with(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn the_lists_have_each_word_once() {
        for list in [&ADJECTIVES[..], &SURNAMES[..]] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len());
        }
    }
}
