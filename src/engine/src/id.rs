//! Identifiers, made from the kernel's randomness.

/// An identifier of a container, a pod or an exec: 64 hexadecimal digits, as Docker's.
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    // Requests of at most 256 bytes are never cut or interrupted once the kernel's pool is ready (getrandom(2)).
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(32), "the kernel gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form of an identifier that people see: its first 12 digits.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Whether `name` may be a container's: Docker's rule.
pub fn is_valid_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && name.len() <= 255
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_64_digits_and_differ() {
        let (a, b) = (new_id(), new_id());
        assert_eq!(a.len(), 64);
        assert!(a.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(a, b);
        assert_eq!(short(&a).len(), 12);
    }

    #[test]
    fn names_are_words_and_never_paths() {
        assert!(is_valid_name("web-1"));
        for bad in ["", "a", "../x", "-a", "a/b", "a b", ".ab"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
