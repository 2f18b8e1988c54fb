//! Containers and what is executed in them, by the crate's own functions. As root, in one thread.

mod cgroups;
mod driver;
mod escapes;
mod executing;
#[expect(dead_code, reason = "the other tests use more of it")]
#[path = "../container/fixture.rs"]
mod fixture;
mod giving_up;
mod sharing;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test by its name.
type Test = (&'static str, fn());

/// Does what cargo and nextest ask of a harness: lists the tests, or runs those that are asked for. All need root, and so
/// are ignored unless asked for.
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| words.iter().any(|word| word == option);
    let filter = words.iter().find(|word| !word.starts_with('-'));
    let is_wanted = |name: &str| match filter {
        Some(filter) if has("--exact") => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    let tests: [&[Test]; 5] = [
        cgroups::TESTS,
        escapes::TESTS,
        executing::TESTS,
        giving_up::TESTS,
        sharing::TESTS,
    ];
    let tests: Vec<Test> = tests.concat();
    let wanted = tests.into_iter().filter(|(name, _)| is_wanted(name));
    if has("--list") {
        wanted.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !has("--ignored") && !has("--include-ignored") {
        println!(
            "test result: ok. 0 passed; 0 failed; {} ignored;",
            wanted.count()
        );
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in wanted {
        let has_passed = catch_unwind(test).is_ok();
        println!(
            "test {name} ... {}",
            if has_passed { "ok" } else { "FAILED" }
        );
        *(if has_passed { &mut passed } else { &mut failed }) += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {passed} passed; {failed} failed; 0 ignored;");
    ExitCode::from(u8::from(failed > 0))
}
