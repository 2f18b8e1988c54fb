//! What a guest may remember, and for how long.

use std::fs;
use std::time::Duration;

use protocol::lease::{VALIDITY, Word};
use rustix::io::Errno;

use super::guest::{Entry, say};
use super::{Shared, flags};
use crate::abi::{FOPEN_KEEP_CACHE, FOPEN_NOFLUSH};

const SHARED: Word = Word::Shared { forgotten_ns: 7 };

fn valid(entry: &Entry) -> (Duration, Duration) {
    (entry.entry_valid, entry.attr_valid)
}

/// How long each reply that tells of names or attributes lets the guest remember, and what opening a file says of its pages.
fn told(shared: &mut Shared, round: u32) -> (Vec<Duration>, u32) {
    let root = shared.root;
    let guest = &mut shared.guest;
    let mut all = Vec::new();
    let found = guest.lookup(root, "f").unwrap();
    let how = flags::RDWR | flags::CREAT | flags::EXCL;
    let (made, _) = guest
        .create(root, &format!("c{round}"), how, 0o600)
        .unwrap();
    let directory = guest.mkdir(root, &format!("d{round}"), 0o700).unwrap();
    let linked = guest.link(found.node, root, &format!("l{round}")).unwrap();
    for entry in [&found, &made, &directory, &linked] {
        let (name, attributes) = valid(entry);
        all.extend([name, attributes]);
    }
    all.push(guest.attributes_are_valid_for(found.node).unwrap());
    let open = guest.open(found.node, flags::RDONLY).unwrap();
    (all, open.open_flags)
}

#[test]
fn names_attributes_and_pages_are_remembered_while_the_share_is_the_only_one_and_no_longer() {
    let (mut shared, lease) = Shared::leased();
    fs::write(shared.path("f"), "").unwrap();
    for (round, (word, expected)) in [
        (Word::Alone, VALIDITY),
        (SHARED, Duration::ZERO),
        (Word::Alone, VALIDITY),
    ]
    .into_iter()
    .enumerate()
    {
        say(&lease, word);
        let (all, open_flags) = told(&mut shared, round as u32);
        assert!(
            all.iter().all(|valid| *valid == expected),
            "{word:?}: {all:?}"
        );
        let keep = if expected.is_zero() {
            0
        } else {
            FOPEN_KEEP_CACHE
        };
        assert_eq!(open_flags, keep | FOPEN_NOFLUSH, "{word:?}");
    }
    // Lost, it lets nothing be remembered.
    lease.set_len(3).unwrap();
    let (all, _) = told(&mut shared, 9);
    assert!(all.iter().all(Duration::is_zero), "{all:?}");
}

#[test]
fn a_missing_name_is_remembered_only_under_a_lease() {
    let mut shared = Shared::new();
    assert_eq!(shared.guest.lookup(shared.root, "x"), Err(Errno::NOENT));
    let (mut shared, lease) = Shared::leased();
    let entry = shared.guest.lookup(shared.root, "x").unwrap();
    assert_eq!((entry.node, entry.entry_valid), (0, VALIDITY));
    say(&lease, SHARED);
    assert_eq!(shared.guest.lookup(shared.root, "x"), Err(Errno::NOENT));
    // Shares come and go: their names are asked for each time.
    say(&lease, Word::Alone);
    assert_eq!(shared.guest.lookup(1, "x"), Err(Errno::NOENT));
    let root = shared.guest.lookup(1, "s").unwrap();
    assert_eq!(valid(&root), (Duration::ZERO, VALIDITY));
}
