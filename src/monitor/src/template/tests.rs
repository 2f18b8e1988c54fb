use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let templates = root.path().join(FOLDER);
    (root, templates)
}

fn ours(path: &Path) -> Unfinished {
    match claim(path).unwrap() {
        Claim::Ours(unfinished) => unfinished,
        other => panic!("{other:?}"),
    }
}

fn make(path: &Path, text: &[u8]) {
    let unfinished = ours(path);
    let mut files = unfinished.files().unwrap();
    files.state.write_all(text).unwrap();
    unfinished.finish().unwrap();
}

fn state(path: &Path) -> Option<String> {
    let mut text = String::new();
    let mut saved = open(path).unwrap()?;
    saved.state.read_to_string(&mut text).unwrap();
    Some(text)
}

fn listed(folder: &Path) -> Vec<String> {
    let mut names = names_in(folder).unwrap();
    names.sort();
    names
}

#[test]
fn a_template_is_there_when_it_is_whole_and_not_before() {
    let (_root, templates) = folder();
    let path = templates.join("b-1");
    assert!(open(&path).unwrap().is_none());
    let unfinished = ours(&path);
    unfinished.files().unwrap().state.write_all(b"x").unwrap();
    assert!(open(&path).unwrap().is_none());
    unfinished.finish().unwrap();
    assert_eq!(state(&path).unwrap(), "x");
    assert!(matches!(claim(&path).unwrap(), Claim::There));
    assert_eq!(listed(&templates), [LOCK, "b-1"]);
}

#[test]
fn what_is_given_up_or_left_by_the_dead_goes_and_what_is_in_the_making_stays() {
    let (root, templates) = folder();
    let path = templates.join("b-1");
    drop(ours(&path));
    assert_eq!(listed(&templates), [LOCK]);
    let dead = templates.join(".b-1.0123");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join(MEMORY), "half").unwrap();
    let alive = ours(&path);
    assert!(!dead.exists());
    fs::create_dir(templates.join(".gone.0123")).unwrap();
    sweep(root.path()).unwrap();
    assert_eq!(listed(&templates).len(), 2);
    assert!(matches!(claim(&path).unwrap(), Claim::Others));
    // Another shape's is ours alone.
    drop(ours(&templates.join("b-2")));
    alive.finish().unwrap();
    assert!(open(&path).unwrap().is_some());
}

#[test]
fn one_that_is_useless_is_not_made_again_for_a_day() {
    let (_root, templates) = folder();
    let path = templates.join("b-1");
    make(&path, b"x");
    make_useless(&path).unwrap();
    assert!(open(&path).unwrap().is_none());
    assert!(matches!(claim(&path).unwrap(), Claim::There));
    assert_eq!(listed(&templates), [LOCK, "b-1"]);
    let word = File::open(path.join(USELESS)).unwrap();
    word.set_modified(SystemTime::now() - USELESS_FOR).unwrap();
    assert!(open(&path).unwrap().is_none());
    assert_eq!(listed(&templates), [LOCK]);
    make_useless(&path).unwrap();
    make(&templates.join("c-1"), b"x");
    assert_eq!(listed(&templates), [LOCK, "c-1"]);
}

#[test]
fn the_second_of_two_that_were_made_at_once_gives_way() {
    let (_root, templates) = folder();
    let path = templates.join("b-1");
    let slow = ours(&path);
    slow.files().unwrap().state.write_all(b"slow").unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join(STATE), "fast").unwrap();
    fs::write(path.join(MEMORY), "").unwrap();
    slow.finish().unwrap();
    assert_eq!(state(&path).unwrap(), "fast");
    assert_eq!(listed(&templates), [LOCK, "b-1"]);
}

#[test]
fn few_are_kept_the_last_used_and_none_of_another_boot() {
    let (_root, templates) = folder();
    make(&templates.join("a-1"), b"old boot");
    for number in 0..KEPT + 2 {
        make(&templates.join(format!("b-{number}")), b"");
        std::thread::sleep(Duration::from_millis(10));
        // Used again and again.
        assert!(open(&templates.join("b-0")).unwrap().is_some());
    }
    let names = listed(&templates);
    assert_eq!(names.len(), KEPT + 1, "{names:?}");
    for gone in ["a-1", "b-1", "b-2"] {
        assert!(!names.contains(&gone.to_owned()), "{names:?}");
    }
    assert!(names.contains(&"b-0".to_owned()));
}

#[test]
fn half_a_template_and_one_of_strangers_are_refused() {
    let (_root, templates) = folder();
    let path = templates.join("b-1");
    make(&path, b"x");
    let memory = path.join(MEMORY);
    fs::set_permissions(&memory, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(open(&path).is_err());
    fs::remove_file(&memory).unwrap();
    std::os::unix::fs::symlink(path.join(STATE), &memory).unwrap();
    assert!(open(&path).is_err());
    fs::remove_file(&memory).unwrap();
    assert!(open(&path).is_err());
    remove(&path).unwrap();
    assert!(open(&path).unwrap().is_none());
    remove(&path).unwrap();
    assert_eq!(listed(&templates), [LOCK]);
}
