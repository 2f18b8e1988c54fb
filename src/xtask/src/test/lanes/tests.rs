//! Lanes over hosts that are not there: what answers on the port hangs in one way or another.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use protocol::frame;

use super::*;
use crate::host::Host;
use crate::host::wire::{Hello, Outcome, Part as Connection};

/// How a fake host behaves.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Every test passes.
    Works,
    /// Every test fails.
    Fails,
    /// No test ends; the server beats.
    NeverEnds,
    /// No test ends, and the server is silent.
    Silent,
    /// No test ends, the server beats, and the console has these words.
    Prints(&'static str),
}

fn answer(mut stream: TcpStream, behaviour: Behaviour) -> Option<()> {
    let hello: Hello = frame::read(&mut stream).ok()?;
    let ends = matches!(behaviour, Behaviour::Works | Behaviour::Fails);
    let passes = matches!(behaviour, Behaviour::Works);
    match hello.part {
        Connection::Beats if !matches!(behaviour, Behaviour::Silent) => {
            let mut beat = [0];
            while stream.read_exact(&mut beat).is_ok() {
                stream.write_all(&beat).ok()?;
            }
        }
        Connection::Control(_) if ends => {
            let outcome = Outcome::Ended(if passes { 0 } else { 101 });
            stream.write_all(&frame::encode(&outcome).ok()?).ok()?;
        }
        Connection::Stdout if passes => stream.write_all(b"test result: ok. 1 passed;\n").ok()?,
        Connection::Stdout if ends => stream.write_all(b"it is wrong\n").ok()?,
        _ if ends => {}
        _ => thread::sleep(Duration::from_secs(60)),
    }
    Some(())
}

/// A host that behaves so, with a console in `folder`.
fn host(behaviour: Behaviour, folder: &Path) -> Result<Place> {
    let console = match behaviour {
        Behaviour::Prints(words) => format!("[    0.1] booting\n[  812.3] {words}\n"),
        _ => "[    0.1] booting\n".to_owned(),
    };
    fs::write(folder.join("console"), console)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, behaviour));
        }
    });
    Ok(Place::TestHost(Box::new(Host::fake(port, folder))))
}

const LIMITS: Limits = Limits {
    least: Duration::from_secs(5),
    most: Duration::from_secs(5),
    factor: 1,
    silence: Duration::from_secs(3),
};

/// Runs tests `a` and `b` in one lane whose hosts behave so, one after the other.
fn run(behaviours: &[Behaviour]) -> (Result<Durations>, Tally, usize) {
    let folder = tempfile::tempdir().unwrap();
    let started = AtomicUsize::new(0);
    let start = |_: &str| {
        let number = started.fetch_add(1, Ordering::SeqCst);
        let behaviour = behaviours.get(number).context("no more hosts")?;
        host(*behaviour, folder.path())
    };
    let mut tally = Tally::default();
    let lanes = Lanes {
        count: 1,
        limits: LIMITS,
        known: Durations::default(),
        start: &start,
    };
    let part = Part {
        kernel: "kernel".to_owned(),
        tests: vec![Test::example("a"), Test::example("b")],
    };
    let result = lanes.run(vec![part], &mut tally);
    (result, tally, started.into_inner())
}

/// The first host hangs in this way: test `a` fails with these words, and `b` passes in a second host.
#[track_caller]
fn expect_replaced(behaviour: Behaviour, words: &str) {
    let (result, tally, started) = run(&[behaviour, Behaviour::Works]);
    result.unwrap();
    assert_eq!((tally.passed, tally.failed, started), (1, 1, 2));
    let failure = &tally.failures[0];
    assert!(
        failure.starts_with("a after ") && failure.contains(words),
        "{failure}"
    );
}

#[test]
fn a_test_without_a_result_is_given_up_and_the_rest_runs_in_a_fresh_host() {
    expect_replaced(Behaviour::NeverEnds, "no result within 5 s");
}

#[test]
fn a_silent_host_is_replaced() {
    expect_replaced(Behaviour::Silent, "the test host was silent for");
}

#[test]
fn a_host_whose_kernel_is_stuck_is_replaced() {
    let words = "watchdog: BUG: soft lockup - CPU#0 stuck for 332s! [save0:9871]";
    expect_replaced(Behaviour::Prints(words), words);
}

#[test]
fn tests_share_a_host_that_works_and_failures_leave_it_alone() {
    for (behaviour, passed) in [(Behaviour::Works, 2), (Behaviour::Fails, 0)] {
        let (result, tally, started) = run(&[behaviour]);
        let measured = result.unwrap();
        assert_eq!((tally.passed, tally.failed), (passed, 2 - passed));
        assert_eq!(started, 1);
        let known = measured.of("a") < Duration::from_secs(15);
        assert_eq!(known, passed > 0, "only what passes is measured");
    }
}

#[test]
fn tests_that_were_not_run_for_want_of_a_host_are_an_error() {
    let (result, tally, _) = run(&[Behaviour::Silent]);
    let error = format!("{:#}", result.unwrap_err());
    assert_eq!(error, "1 tests were not run: no more hosts");
    assert_eq!((tally.passed, tally.failed), (0, 1));
}

#[test]
fn a_program_that_runs_no_test_has_not_passed() {
    assert!(judge(0, "test result: ok. 0 passed; 0 failed").is_err());
    assert!(judge(0, "test result: ok. 1 passed; 0 failed").is_ok());
    assert_eq!(judge(134, "").unwrap_err(), "ended with code 134");
}
