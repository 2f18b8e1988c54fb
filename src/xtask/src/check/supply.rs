//! What others' crates may be: their licences, where they come from, and that there is one version of each, as `deny.toml`
//! has it; and that no advisory of `resources/advisories.tsv` is about them. A part of what cargo-deny does, which takes longer
//! to build than hull; where it is installed and reaches its database, `cargo xtask check` has it look for newer advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::fuzz::TRIPLE;
use crate::paths;
use crate::step::{output, run, succeeds};

/// Our workspaces, by their manifests.
const WORKSPACES: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];
/// What is known of the crates' vulnerabilities.
const ADVISORIES: &str = "resources/advisories.tsv";
/// Where every crate comes from, as cargo names it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// Ours have none.
    source: Option<String>,
}

/// What `deny.toml` allows.
#[derive(Default)]
struct Allowed {
    licences: BTreeSet<String>,
    twice: BTreeSet<String>,
}

/// Holds the crates of both workspaces against `deny.toml` and the advisories, old and new.
pub(crate) fn check() -> Result<()> {
    held()?;
    newer_advisories()
}

fn held() -> Result<()> {
    let text = fs::read_to_string(paths::checkout().join("deny.toml")).context("deny.toml")?;
    let allowed = Allowed {
        licences: list(&text, "allow"),
        twice: list(&text, "skip"),
    };
    let text = fs::read_to_string(paths::checkout().join(ADVISORIES)).context(ADVISORIES)?;
    let advisories = advisories(&text);
    let mut wrong = Vec::new();
    for manifest in WORKSPACES {
        let found = metadata(&paths::checkout().join(manifest))?;
        let all = [found.wrong(&allowed), found.vulnerable(&advisories)].concat();
        wrong.extend(all.into_iter().map(|it| format!("{manifest}: {it}")));
    }
    if !wrong.is_empty() {
        bail!(
            "not as deny.toml or {ADVISORIES} has it: {}",
            wrong.join("; ")
        );
    }
    Ok(())
}

/// What became known since [`ADVISORIES`] was written, as far as it can be known here.
fn newer_advisories() -> Result<()> {
    let mut deny = Command::new(env!("CARGO"));
    deny.current_dir(paths::checkout())
        .args(["deny", "check", "advisories"]);
    if !succeeds(Command::new(env!("CARGO")).args(["deny", "--version"])) {
        eprintln!("    newer advisories are not looked at: there is no cargo-deny here");
        return Ok(());
    }
    let mut fetch = Command::new(env!("CARGO"));
    fetch
        .current_dir(paths::checkout())
        .args(["deny", "fetch", "db"]);
    if !succeeds(&mut fetch) {
        eprintln!("    newer advisories are not looked at: their database cannot be reached");
        return Ok(());
    }
    run(&mut deny)
}

/// The crates that one of our workspaces uses on the machines that hull runs on.
fn metadata(manifest: &Path) -> Result<Metadata> {
    let text = output(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1"])
            .args(["--filter-platform", TRIPLE])
            .arg("--manifest-path")
            .arg(manifest),
    )?;
    serde_json::from_slice(&text).context("cargo metadata")
}

impl Metadata {
    fn wrong(&self, allowed: &Allowed) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in &self.packages {
            let Some(source) = &package.source else {
                continue;
            };
            let name = &package.name;
            versions.entry(name).or_default().insert(&package.version);
            if source != CRATES_IO {
                wrong.push(format!("{name} comes from {source}"));
            }
            let licence = package.license.as_deref().unwrap_or("none");
            if !Expression::of(licence).holds(&allowed.licences) {
                wrong.push(format!("{name} is licensed {licence}"));
            }
        }
        for (name, versions) in versions {
            if versions.len() > 1 && !allowed.twice.contains(name) {
                let versions: Vec<_> = versions.into_iter().collect();
                wrong.push(format!("there are {name} {}", versions.join(" and ")));
            }
        }
        wrong
    }
}

impl Metadata {
    fn vulnerable(&self, advisories: &BTreeMap<&str, Advisories<'_>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for Package { name, version, .. } in self.packages.iter().filter(|it| it.source.is_some()) {
            match advisories.get(name.as_str()) {
                None => wrong.push(format!("the advisories of {name} have not been looked up")),
                Some(known) if older(version, known.fixed) => {
                    let (fixed, numbers) = (known.fixed, known.numbers);
                    wrong.push(format!(
                        "{name} {version} is older than {fixed} ({numbers})"
                    ));
                }
                Some(_) => {}
            }
        }
        wrong
    }
}

/// Of one crate.
struct Advisories<'a> {
    /// `-` if there is none.
    fixed: &'a str,
    numbers: &'a str,
}

/// The lines of [`ADVISORIES`], by crate.
fn advisories(text: &str) -> BTreeMap<&str, Advisories<'_>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (name, fixed) = (fields.next()?, fields.next()?);
            let numbers = fields.next().unwrap_or_default();
            Some((name, Advisories { fixed, numbers }))
        })
        .collect()
}

/// Whether a version is older than another one, of numbers alone. Nothing is older than `-`.
fn older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(['.', '-', '+'])
            .take(3)
            .filter_map(|part| part.parse().ok())
            .collect()
    };
    numbers(version) < numbers(than)
}

/// The strings of a list in deny.toml: a line `key = [`, a line for each, and a line `]`.
fn list(text: &str, key: &str) -> BTreeSet<String> {
    let begin = format!("{key} = [");
    text.lines()
        .skip_while(|line| *line != begin)
        .skip(1)
        .take_while(|line| *line != "]")
        .filter_map(|line| line.split('#').next()?.split('"').nth(1))
        .map(str::to_string)
        .collect()
}

/// An SPDX licence expression (SPDX 2.3, annex D), and cargo's old `/` for OR.
struct Expression<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Expression<'a> {
    fn of(text: &'a str) -> Self {
        let mut words = Vec::new();
        for word in text.split_whitespace() {
            let mut rest = word;
            while let Some(at) = rest.find(['(', ')', '/']) {
                words.extend([&rest[..at], &rest[at..=at]]);
                rest = &rest[at + 1..];
            }
            words.push(rest);
        }
        words.retain(|word| !word.is_empty());
        Self {
            words: words.into_iter().peekable(),
        }
    }

    /// Whether these licences suffice. Nothing suffices for what is no expression.
    fn holds(mut self, allowed: &BTreeSet<String>) -> bool {
        self.any(allowed) == Some(true) && self.words.next().is_none()
    }

    fn any(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        let mut held = self.all(allowed)?;
        while self
            .words
            .next_if(|word| matches!(*word, "OR" | "/"))
            .is_some()
        {
            held |= self.all(allowed)?;
        }
        Some(held)
    }

    fn all(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        let mut held = self.one(allowed)?;
        while self.words.next_if_eq(&"AND").is_some() {
            held &= self.one(allowed)?;
        }
        Some(held)
    }

    fn one(&mut self, allowed: &BTreeSet<String>) -> Option<bool> {
        if self.words.next_if_eq(&"(").is_some() {
            let held = self.any(allowed)?;
            self.words.next_if_eq(&")")?;
            return Some(held);
        }
        let held = allowed.contains(self.words.next()?);
        if self.words.next_if_eq(&"WITH").is_some() {
            // An exception only adds permissions.
            self.words.next()?;
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Allowed {
        let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Allowed {
            licences: set(&["MIT", "Zlib"]),
            twice: set(&["old"]),
        }
    }

    #[test]
    fn licences_are_combined_as_spdx_has_it() {
        let holds = |text| Expression::of(text).holds(&allowed().licences);
        for good in [
            "MIT",
            "GPL-2.0 OR MIT",
            "X/MIT",
            "(MIT OR X) AND Zlib",
            "MIT WITH E AND Zlib",
        ] {
            assert!(holds(good), "{good}");
        }
        for bad in [
            "",
            "GPL-2.0",
            "MIT AND X",
            "MIT OR",
            "(MIT",
            "X WITH MIT",
            "MIT Zlib",
        ] {
            assert!(!holds(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        let package = |name: &str, version: &str, license: &str, source: &str| Package {
            name: name.into(),
            version: version.into(),
            license: Some(license.into()),
            source: Some(source.into()),
        };
        let metadata = Metadata {
            packages: vec![
                package("a", "1", "GPL-3.0", CRATES_IO),
                package("b", "1", "MIT", "git+https://x"),
                package("c", "1", "MIT", CRATES_IO),
                package("c", "2", "MIT", CRATES_IO),
                package("old", "1", "MIT", CRATES_IO),
                package("old", "2", "MIT", CRATES_IO),
            ],
        };
        let wrong = metadata.wrong(&allowed());
        let expected = [
            "a is licensed GPL-3.0",
            "b comes from git+https://x",
            "there are c 1 and 2",
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn a_crate_of_an_advisory_and_one_that_nobody_looked_up_are_named() {
        let known = advisories("# crate\na\t1.10.2\t2026-0001\nb\t-\n");
        let wrong = |name: &str, version: &str| {
            let package = Package {
                name: name.into(),
                version: version.into(),
                license: None,
                source: Some(CRATES_IO.into()),
            };
            let metadata = Metadata {
                packages: vec![package],
            };
            metadata.vulnerable(&known).concat()
        };
        for good in [
            ("a", "1.10.2"),
            ("a", "1.11.0"),
            ("a", "2.0.0+x"),
            ("b", "0.1.0"),
        ] {
            assert_eq!(wrong(good.0, good.1), "");
        }
        assert_eq!(
            wrong("a", "1.9.9"),
            "a 1.9.9 is older than 1.10.2 (2026-0001)"
        );
        assert_eq!(
            wrong("c", "1.0.0"),
            "the advisories of c have not been looked up"
        );
    }

    #[test]
    fn others_crates_are_as_deny_toml_has_them() {
        held().unwrap();
    }

    #[test]
    fn lists_are_read_with_their_comments() {
        let text = "[x]\nallow = [\n    \"A\", # why\n    # \"B\"\n    \"C\",\n]\nskip = [\n]\n";
        assert_eq!(list(text, "allow").into_iter().collect::<String>(), "AC");
        assert!(list(text, "skip").is_empty());
    }
}
