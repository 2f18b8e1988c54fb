//! `cargo xtask check`: the paths that documents name, the direction of dependencies, what others' crates
//! may be, format, lints; the quick ones first.

mod supply;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::paths;
use crate::step::{output, run, step};

/// The map: which of our crates each may use, with all that those may use. `xtask` and `tests` stand outside.
const MAP: [(&str, &[&str]); 20] = [
    ("hull", &["cli"]),
    ("cli", &["api", "bench", "engine", "values"]),
    ("api", &["engine", "values"]),
    ("values", &["engine"]),
    ("bench", &["engine"]),
    (
        "engine",
        &["image", "monitor", "network", "protocol", "sys"],
    ),
    (
        "monitor",
        &["container", "filters", "network", "protocol", "sys"],
    ),
    ("agent", &["container", "protocol", "sys"]),
    (
        "vmm",
        &["devices", "arch", "filters", "memory", "protocol", "sys"],
    ),
    ("fs", &["filters", "protocol", "sys"]),
    ("usernet", &["filters", "protocol", "sys"]),
    ("container", &["sys"]),
    ("network", &["protocol", "sys"]),
    ("image", &["protocol", "sys"]),
    ("devices", &["memory", "sys"]),
    ("arch", &["memory"]),
    ("memory", &["sys"]),
    ("filters", &[]),
    ("protocol", &[]),
    ("sys", &[]),
];
const OUTSIDE: [&str; 2] = ["xtask", "tests"];

/// All checks; the first that fails is the error.
pub(crate) fn check() -> Result<()> {
    let cargo = || {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(paths::checkout());
        cargo
    };
    step("documents name paths that exist", documents)?;
    step("dependencies point one way", dependencies)?;
    step("others' crates", supply::check)?;
    step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    step("format of fuzz/", || {
        run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
    })?;
    step("lints", || {
        run(cargo()
            .args(["clippy", "--quiet", "--workspace", "--all-targets"])
            // With the programs that tests build for themselves.
            .args(["--features", "monitor/drill,vmm/drill"])
            .args(["--", "-D", "warnings"]))
    })
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Absent for an ordinary dependency, else "dev" or "build".
    kind: Option<String>,
    /// Only ours have one.
    path: Option<String>,
}

/// Compares what the manifests say with [`MAP`].
fn dependencies() -> Result<()> {
    let text = output(
        Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(paths::checkout()),
    )?;
    let metadata: Metadata = serde_json::from_slice(&text).context("cargo metadata")?;
    let wrong = against_the_map(&metadata);
    if !wrong.is_empty() {
        bail!(
            "not in the map of src/xtask/src/check.rs: {}",
            wrong.join(", ")
        );
    }
    Ok(())
}

fn against_the_map(metadata: &Metadata) -> Vec<String> {
    let map: BTreeMap<&str, &[&str]> = MAP.into_iter().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if OUTSIDE.contains(&package.name.as_str()) {
            continue;
        }
        if !map.contains_key(package.name.as_str()) {
            wrong.push(format!("the crate {}", package.name));
            continue;
        }
        let allowed = reachable(&map, &package.name);
        for dependency in &package.dependencies {
            let ours = dependency.path.is_some() && dependency.kind.as_deref() != Some("dev");
            if ours && !allowed.contains(dependency.name.as_str()) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    wrong
}

fn reachable<'a>(map: &BTreeMap<&str, &'a [&'a str]>, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = map.get(from).map_or(Vec::new(), |uses| uses.to_vec());
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(map.get(name).into_iter().flat_map(|uses| uses.iter()));
        }
    }
    seen
}

/// Every path that a Markdown file of the checkout names, in a link or as code, exists.
fn documents() -> Result<()> {
    let list = output(
        Command::new("git")
            .args(["ls-files", "*.md"])
            .current_dir(paths::checkout()),
    )?;
    let mut missing = Vec::new();
    for name in String::from_utf8_lossy(&list).lines() {
        let file = paths::checkout().join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        let folder = file.parent().context("a file lies in a folder")?;
        for path in named_paths(&text) {
            let exists = folder.join(path).exists() || paths::checkout().join(path).exists();
            if !exists {
                missing.push(format!("{name} names {path}"));
            }
        }
    }
    if !missing.is_empty() {
        bail!("documents name what is not there: {}", missing.join("; "));
    }
    Ok(())
}

/// What looks like a path of the checkout: the target of a relative link, and code between backticks that starts with
/// one of its folders.
fn named_paths(text: &str) -> Vec<&str> {
    let mut paths = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        let code = line.split('`').skip(1).step_by(2);
        paths.extend(code.filter(|code| is_path(code)));
        let links = line.split("](").skip(1);
        let targets = links.filter_map(|rest| rest.split([')', '#']).next());
        paths.extend(targets.filter(|target| !target.is_empty() && !target.contains("://")));
    }
    paths
}

fn is_path(code: &str) -> bool {
    const FOLDERS: [&str; 7] = [
        "arch/",
        "devices/",
        "fuzz/",
        "resources/",
        "src/",
        "tests/",
        ".ci/",
    ];
    let plain = !code.contains(|c: char| c.is_whitespace() || "*<>$|{}…".contains(c));
    plain && FOLDERS.iter().any(|folder| code.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        let dependency = |(name, kind): &(&str, Option<&str>)| Dependency {
            name: name.to_string(),
            kind: kind.map(str::to_string),
            path: Some(String::new()),
        };
        Package {
            name: name.to_string(),
            dependencies: uses.iter().map(dependency).collect(),
        }
    }

    #[test]
    fn our_own_crates_keep_to_the_map() {
        dependencies().unwrap();
    }

    #[test]
    fn a_dependency_against_the_map_is_named() {
        let metadata = Metadata {
            packages: vec![
                package("cli", &[("protocol", None)]),
                package("engine", &[("vmm", None), ("agent", Some("dev"))]),
                package("util", &[]),
            ],
        };
        assert_eq!(
            against_the_map(&metadata),
            ["engine -> vmm", "the crate util"]
        );
    }

    #[test]
    fn paths_are_found_in_links_and_in_code() {
        let text =
            "`src/x.rs` [a](b.md#c) [w](https://x/y) `src/<name>` `cargo x`\n```\n`src/no`\n```\n";
        assert_eq!(named_paths(text), ["src/x.rs", "b.md"]);
    }
}
