use std::fs;

use protocol::lease::{MARGIN, VALIDITY};

use super::*;

fn word(folder: &Path) -> Word {
    Word::from_bytes(&fs::read(folder.join(FILE)).unwrap())
}

fn is_shared(folder: &Path) -> bool {
    matches!(word(folder), Word::Shared { .. })
}

const WHOLE: Duration = VALIDITY.saturating_add(MARGIN);

/// A share that takes part, and how long it has to wait.
fn join(folder: &Path, may_remember: bool) -> (Joined, Duration) {
    let now = Instant::now();
    let joined = Lease::join(folder, may_remember).unwrap();
    let wait = joined.forgotten.saturating_duration_since(now);
    // The time that joining took is nothing to be waited for.
    let wait = wait.checked_sub(now.elapsed()).unwrap_or_default();
    (joined, wait)
}

#[test]
fn a_path_is_a_volumes_if_it_is_its_content_or_below() {
    let root = Path::new("/var/lib/hull");
    let of = |path: &str| volume_of(root, Path::new(path));
    let volume = Some(root.join("volumes/v"));
    assert_eq!(of("/var/lib/hull/volumes/v/_data"), volume);
    assert_eq!(of("/var/lib/hull/volumes/v/_data/a/b"), volume);
    for other in [
        "/var/lib/hull/volumes/v",
        "/var/lib/hull/volumes",
        "/var/lib/hull/volumes/v/other",
        "/var/lib/hullx/volumes/v/_data",
        "/srv",
        "/",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

/// Longer than anything takes here.
const MOMENT: Duration = Duration::from_millis(400);

#[test]
fn the_only_share_remembers_and_the_second_waits_until_that_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, wait) = join(folder, true);
    assert_eq!((wait, word(folder)), (Duration::ZERO, Word::Alone));
    let (_second, wait) = join(folder, true);
    assert!(wait > WHOLE - MOMENT, "{wait:?}");
    assert!(is_shared(folder));
    // One that comes later waits for the rest of the same time.
    sleep(MOMENT);
    let (third, rest) = join(folder, true);
    assert!(rest <= WHOLE - MOMENT && rest > Duration::ZERO, "{rest:?}");
    assert!(!first.lease.renew().unwrap() && !third.lease.renew().unwrap());
    assert!(is_shared(folder));
}

/// lifecycle H28, H31
#[test]
fn one_that_is_left_alone_remembers_again_when_the_last_copy_of_the_others_locks_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, _) = join(folder, true);
    let (second, _) = join(folder, true);
    // As hull-fs has it, when its warden was killed.
    let copy = second.lock.try_clone().unwrap();
    drop(second);
    assert!(!first.lease.renew().unwrap());
    drop(copy);
    assert!(first.lease.renew().unwrap());
    assert_eq!(word(folder), Word::Alone);
    assert!(first.lease.renew().unwrap());
    drop(first);
    // What the dead left is no one's.
    let (_next, wait) = join(folder, true);
    assert_eq!((wait, word(folder)), (Duration::ZERO, Word::Alone));
}

#[test]
fn with_one_that_may_not_remember_none_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (native, wait) = join(folder, false);
    assert!(wait.is_zero() && is_shared(folder));
    let (second, wait) = join(folder, true);
    // No guest had anything to remember.
    assert_eq!(wait, Duration::ZERO);
    assert!(!second.lease.renew().unwrap());
    drop(native);
    assert!(second.lease.renew().unwrap());
}

/// lifecycle H30
#[test]
fn a_word_that_is_lost_or_was_not_finished_makes_the_next_wait_as_long_as_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let _first = join(folder, true);
    let unfinished = Word::Shared {
        forgotten_ns: u64::MAX,
    };
    for left in [&unfinished.to_bytes()[..], b"", b"alo"] {
        fs::write(folder.join(FILE), left).unwrap();
        let (_, wait) = join(folder, true);
        assert!(wait > WHOLE - MOMENT, "{left:?}: {wait:?}");
    }
}

/// lifecycle H29
#[test]
fn many_that_come_at_once_find_one_alone_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let all: Vec<(Joined, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| join(path, true))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(is_shared(path));
    let at_once = all.iter().filter(|(_, wait)| wait.is_zero()).count();
    assert_eq!(at_once, 1, "{all:?}");
}

#[test]
fn a_gate_that_is_held_is_left_alone_and_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (first, _) = join(folder, false);
    let holder = File::options().write(true).open(folder.join(FILE)).unwrap();
    assert!(try_lock(&holder, GATE).unwrap());
    assert!(!first.lease.renew().unwrap());
    drop(holder);
    assert!(first.lease.renew().unwrap());
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.join(FILE), other.path().join(FILE)).unwrap();
    assert!(Lease::join(other.path(), true).is_err());
}
