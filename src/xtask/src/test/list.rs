//! The tests of a package, one by one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::paths;
use crate::step::output;

/// One test of a compiled program of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// The program, which has cargo's hash in its name.
    program: PathBuf,
    /// `package/file::name`, the same in every build.
    pub(crate) title: String,
    /// The test's path inside the program.
    name: String,
    /// Marked `#[ignore]`.
    ignored: bool,
    /// To be run before the others.
    pub(crate) is_urgent: bool,
}

impl Test {
    /// The command that runs this test alone.
    pub(crate) fn argv(&self) -> Result<Vec<String>> {
        let program = self.program.to_str().context("a path is not UTF-8")?;
        let mut argv = vec![program, &self.name, "--exact", "--test-threads=1"];
        if self.ignored {
            argv.push("--ignored");
        }
        Ok(argv.into_iter().map(str::to_owned).collect())
    }

    /// Whether this is a test of `package`'s `file`.
    pub(crate) fn is_of(&self, package: &str, file: &str) -> bool {
        self.title.starts_with(&format!("{package}/{file}::"))
    }

    #[cfg(test)]
    pub(crate) fn example(title: &str) -> Test {
        Test {
            program: "/program".into(),
            title: title.to_owned(),
            name: title.to_owned(),
            ignored: false,
            is_urgent: false,
        }
    }
}

/// Which of a program's tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marked {
    /// Those without `#[ignore]`.
    Ordinary,
    /// Those with it.
    Ignored,
}

/// Compiles a package's tests and lists those that are `marked` so and whose names contain `filter`.
pub(crate) fn tests(package: &str, marked: Marked, filter: Option<&str>) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for program in programs(package)? {
        let ignored = names(&program, &["--ignored"])?;
        let wanted = match marked {
            Marked::Ignored => ignored,
            Marked::Ordinary => {
                let mut all = names(&program, &[])?;
                all.retain(|name| !ignored.contains(name));
                all
            }
        };
        let file = file(&program).with_context(|| format!("{} has no hash", program.display()))?;
        tests.extend(
            wanted
                .into_iter()
                .filter(|name| filter.is_none_or(|filter| name.contains(filter)))
                .map(|name| Test {
                    title: format!("{package}/{file}::{name}"),
                    program: program.clone(),
                    name,
                    ignored: marked == Marked::Ignored,
                    is_urgent: false,
                }),
        );
    }
    Ok(tests)
}

/// The name of a program's source file, to which cargo adds a hash.
fn file(program: &Path) -> Option<&str> {
    let (name, _hash) = program.file_name()?.to_str()?.rsplit_once('-')?;
    Some(name)
}

fn names(program: &Path, options: &[&str]) -> Result<Vec<String>> {
    let list = output(
        Command::new(program)
            .args(["--list", "--format", "terse"])
            .args(options),
    )?;
    Ok(listed(&String::from_utf8_lossy(&list)))
}

/// The names in libtest's terse list: `a::b: test` a line.
fn listed(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Compiles a package's tests, without running them.
fn programs(package: &str) -> Result<Vec<PathBuf>> {
    let messages = output(
        Command::new(env!("CARGO"))
            .args(["test", "--quiet", "--package", package, "--no-run"])
            .args(["--message-format", "json"])
            .current_dir(paths::checkout()),
    )?;
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&messages).lines() {
        let message: Message = serde_json::from_str(line).context("cargo's messages")?;
        if message.profile.is_some_and(|profile| profile.test) {
            programs.extend(message.executable);
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_read_from_a_terse_list_and_benchmarks_are_not() {
        let list = "a::one: test\nb::two: test\nc: benchmark\n\n";
        assert_eq!(listed(list), ["a::one", "b::two"]);
    }

    #[test]
    fn a_programs_hash_is_no_part_of_its_name() {
        assert_eq!(file(Path::new("/t/real-x-0123abcd")), Some("real-x"));
        assert_eq!(file(Path::new("/t/plain")), None);
    }
}
