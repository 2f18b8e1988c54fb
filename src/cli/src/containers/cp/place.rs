//! Docker's rules of what `cp SOURCE DESTINATION` means.

use std::path::Path;

use anyhow::Context;

/// A side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A container and a path in it.
    Container(&'a str, &'a str),
    /// A path here, or `-`.
    Host(&'a str),
}

impl<'a> Place<'a> {
    /// `CONTAINER:PATH`; what begins with a slash or a dot is a path here.
    pub(super) fn parse(text: &'a str) -> Place<'a> {
        match text.split_once(':') {
            Some((container, path)) if !container.is_empty() && !text.starts_with(['/', '.']) => {
                Place::Container(container, path)
            }
            _ => Place::Host(text),
        }
    }
}

/// Where an archive is unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The folder.
    pub(super) folder: String,
    /// The first part of all names in it, if not the source's.
    pub(super) name: Option<String>,
    /// There is no such part: a directory's contents go into the folder.
    pub(super) contents: bool,
}

/// Whether a path can only be a directory's.
pub(super) fn names_directory(path: &str) -> bool {
    path.ends_with('/') || is_contents(path)
}

/// `DIR/.`: what is in it.
fn is_contents(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// The path without `/.` and slashes at its end.
pub(super) fn without_dot(path: &str) -> &str {
    let bare = path
        .strip_suffix("/.")
        .unwrap_or(path)
        .trim_end_matches('/');
    match bare.is_empty() {
        true if path.starts_with('/') => "/",
        true => ".",
        false => bare,
    }
}

/// The last part of a path's name; of `.` and `..`, that of the directory which they are.
pub(super) fn base(path: &str, host: &Path) -> anyhow::Result<String> {
    let name = match Path::new(without_dot(path)).file_name() {
        Some(name) => Some(name.to_owned()),
        None => std::fs::canonicalize(host)?
            .file_name()
            .map(ToOwned::to_owned),
    };
    let name = name.unwrap_or_else(|| ".".into());
    name.into_string()
        .ok()
        .with_context(|| format!("the name of {path} is not UTF-8"))
}

impl Target {
    /// `there`: whether the destination is a directory; `None` if it does not exist.
    pub(super) fn of(
        source: &str,
        source_is_directory: bool,
        destination: &str,
        there: Option<bool>,
    ) -> anyhow::Result<Target> {
        let bare = without_dot(destination);
        let rename = || {
            let (folder, name) = match bare.rsplit_once('/') {
                Some(("", name)) => ("/", name),
                Some((folder, name)) => (folder, name),
                None => (".", bare),
            };
            Target {
                folder: folder.to_owned(),
                name: Some(name.to_owned()),
                contents: false,
            }
        };
        match there {
            Some(true) => Ok(Target {
                folder: bare.to_owned(),
                name: None,
                contents: source_is_directory && is_contents(source),
            }),
            Some(false) if source_is_directory || names_directory(destination) => {
                anyhow::bail!("cannot copy directory: {destination} is not a directory")
            }
            Some(false) => Ok(rename()),
            None if !source_is_directory && names_directory(destination) => {
                anyhow::bail!("no such directory: {destination}")
            }
            None => Ok(rename()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_what_stands_before_a_colon() {
        assert_eq!(Place::parse("web:/etc"), Place::Container("web", "/etc"));
        assert_eq!(Place::parse("web:etc"), Place::Container("web", "etc"));
        for path in ["/a:b", "./a:b", "-", "a", ":a"] {
            assert_eq!(Place::parse(path), Place::Host(path));
        }
    }

    fn target(
        source: &str,
        is_directory: bool,
        destination: &str,
        there: Option<bool>,
    ) -> (String, Option<String>, bool) {
        let target = Target::of(source, is_directory, destination, there).unwrap();
        (target.folder, target.name, target.contents)
    }

    #[test]
    fn an_existing_directory_gets_the_source_or_its_contents() {
        assert_eq!(
            target("/etc", true, "/tmp/", Some(true)),
            ("/tmp".into(), None, false)
        );
        assert_eq!(
            target("/etc/.", true, "/tmp", Some(true)),
            ("/tmp".into(), None, true)
        );
        assert_eq!(
            target("/etc/passwd", false, ".", Some(true)),
            (".".into(), None, false)
        );
        assert_eq!(
            target("a", false, "/", Some(true)),
            ("/".into(), None, false)
        );
    }

    #[test]
    fn what_does_not_exist_is_the_new_name() {
        assert_eq!(
            target("/etc", true, "new", None),
            (".".into(), Some("new".into()), false)
        );
        assert_eq!(
            target("/etc/.", true, "/a/new/", None),
            ("/a".into(), Some("new".into()), false)
        );
        assert_eq!(
            target("f", false, "/new", None),
            ("/".into(), Some("new".into()), false)
        );
        assert_eq!(
            target("f", false, "/a/old", Some(false)),
            ("/a".into(), Some("old".into()), false)
        );
    }

    #[test]
    fn a_file_is_no_directory() {
        assert!(Target::of("/etc", true, "file", Some(false)).is_err());
        assert!(Target::of("f", false, "new/", None).is_err());
    }

    #[test]
    fn paths_lose_what_only_says_that_they_are_directories() {
        for (path, bare) in [
            ("a/.", "a"),
            ("a//", "a"),
            ("/", "/"),
            ("/.", "/"),
            (".", "."),
            ("./", "."),
        ] {
            assert_eq!(without_dot(path), bare, "{path}");
        }
    }
}
