//! What a change can break: the packages and files of tests that differ from where this branch began.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result};

use super::list::Test;
use crate::paths;
use crate::step::{first_line, output, succeeds};

/// Candidates for the main branch: the first that exists is it.
const MAIN: [&str; 4] = ["origin/main", "origin/master", "main", "master"];

/// What differs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// Folders of packages.
    packages: BTreeSet<String>,
    /// Files of tests, as `package/file`.
    files: BTreeSet<String>,
}

impl Changed {
    /// Asks git: commits since the branch began, and what is not committed.
    ///
    /// # Errors
    /// This is no git checkout, or it has none of the branches of [`MAIN`].
    pub(crate) fn find() -> Result<Changed> {
        let main = MAIN
            .into_iter()
            .find(|name| succeeds(git().args(["rev-parse", "--verify", "--quiet", name])))
            .with_context(|| format!("git knows none of {}", MAIN.join(", ")))?;
        let base = first_line(git().args(["merge-base", "HEAD", main]))?;
        let mut paths = output(git().args(["diff", "--name-only", &base]))?;
        paths.extend(output(git().args([
            "ls-files",
            "--others",
            "--exclude-standard",
        ]))?);
        Ok(Changed::of(&String::from_utf8_lossy(&paths)))
    }

    /// Of paths in the checkout, one a line.
    fn of(paths: &str) -> Changed {
        let mut changed = Changed::default();
        for path in paths.lines() {
            let parts: Vec<&str> = path.split('/').collect();
            let folder = match parts[..] {
                ["src", name, _, ..] => name,
                [name @ ("arch" | "devices" | "tests"), _, ..] => name,
                _ => continue,
            };
            let file = match parts[..] {
                ["src", _, "tests", file] | ["tests", "tests", file] => file.strip_suffix(".rs"),
                // Files that a file of tests is divided into.
                ["src", _, "tests", file, _] | ["tests", "tests", file, _] => Some(file),
                _ => None,
            };
            if let Some(file) = file {
                changed.files.insert(format!("{folder}/{file}"));
            }
            changed.packages.insert(folder.to_owned());
        }
        changed
    }

    /// The packages with unit tests that are to run first; their folders have their names.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &str> {
        let names = self.packages.iter().map(String::as_str);
        names.filter(|name| *name != "tests")
    }

    /// Puts tests of files that differ before the others, and all of a package of which other files differ.
    pub(crate) fn put_first(&self, tests: &mut [Test]) {
        for test in tests {
            let (file, _) = test.title.split_once("::").unwrap_or_default();
            let (package, _) = file.split_once('/').unwrap_or_default();
            test.is_urgent = self.files.contains(file)
                || (package != "tests" && self.packages.contains(package));
        }
    }
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(paths::checkout());
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_files_of_tests_are_found_by_their_paths() {
        let paths = "README.md\nsrc/vmm/src/bus.rs\narch/src/lib.rs\ntests/tests/run.rs\n\
            tests/tests/faults/kinds.rs\ntests/src/lib.rs\nfuzz/Cargo.toml\n";
        let changed = Changed::of(paths);
        assert_eq!(changed.packages().collect::<Vec<_>>(), ["arch", "vmm"]);
        let mut tests = [
            "tests/run::a",
            "tests/faults::a",
            "tests/jail::a",
            "vmm/jail::a",
        ]
        .map(Test::example);
        changed.put_first(&mut tests);
        assert_eq!(tests.map(|test| test.is_urgent), [true, true, false, true]);
    }
}
