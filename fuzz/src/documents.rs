//! Documents and words that are read from strangers or users, each by itself.

use std::path::Path;

use image::{Digest, Reference};

use crate::input::Input;

/// The most bytes of a packed stream that are unpacked.
const MAX_UNPACKED: u64 = 8 << 20;

/// Manifests and indexes, and images' configurations.
pub fn manifest(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() & 1 {
        0 => image::fuzzing::manifest(input.rest()),
        _ => image::fuzzing::config(input.rest()),
    }
}

/// Names of images and digests: what was understood is understood again.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference = reference.to_string().parse().expect("our own writing");
        assert_eq!(again, reference);
        assert!(!reference.repository().contains(".."));
        assert!(!reference.host().is_empty());
        assert!(reference.domain().len() + reference.repository().len() < 1024);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(Digest::from_hex(&digest.hex()).ok(), Some(digest));
    }
}

/// gzip, zstd and neither.
pub fn unpack(data: &[u8]) {
    assert!(image::fuzzing::unpack(data, MAX_UNPACKED) <= MAX_UNPACKED);
}

/// OCI runtime documents, up to where the system would be touched.
pub fn spec(data: &[u8]) {
    container::fuzzing::document(data, Path::new("/var/empty-or-not-there"));
    container::fuzzing::document(data, Path::new("/proc/self/fdinfo"));
}

/// A host's resolv.conf: every resolver that is left can be reached from a container.
pub fn resolv_conf(data: &[u8]) {
    let text = network::resolv_conf(&String::from_utf8_lossy(data));
    let resolvers: Vec<_> = text
        .lines()
        .filter(|line| line.split_whitespace().next() == Some("nameserver"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert!(!resolvers.is_empty());
    for resolver in resolvers {
        let address: std::net::Ipv4Addr = resolver.parse().expect("an address");
        assert!(!address.is_loopback() && !address.is_unspecified());
    }
}
