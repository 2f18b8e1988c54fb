//! Changing the container's files in /etc while it runs: lines of ours are exchanged, those of the container's stay.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::EtcFiles;
use crate::error::{Attempt, Error, Step};
use crate::plan::named;

/// The longest file that is changed, in bytes: the container may have made it as long as it likes.
const MAX_LEN: u64 = 1 << 20;

/// Has the files of a container that was made with `before` say what `after` says. The container sees the change at once: a
/// file stays the same one. One that the container has made longer than 1 MiB is left alone.
pub fn edit(run_dir: &Path, before: &EtcFiles, after: &EtcFiles) -> Result<(), Error> {
    let old = |wanted: &str| {
        let found = named(before).find(|(name, _)| *name == wanted);
        found.map_or("", |(_, text)| text.as_str())
    };
    for (name, text) in named(after) {
        if old(name) != text {
            edit_file(&run_dir.join(name), old(name), text)
                .at(Step::EtcFile, format_args!("/etc/{name}"))?;
        }
    }
    Ok(())
}

fn edit_file(path: &Path, before: &str, after: &str) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let mut text = Vec::new();
    (&file).take(MAX_LEN + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Ok(());
    }
    let text = exchanged(&String::from_utf8_lossy(&text), before, after);
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The text without the lines that `before` has and `after` has not, and with those that `after` has and `before` has not, at
/// the end.
fn exchanged(text: &str, before: &str, after: &str) -> String {
    let is_in = |line: &str, all: &str| all.lines().any(|known| known == line);
    let kept = text
        .lines()
        .filter(|line| !is_in(line, before) || is_in(line, after));
    let new = after.lines().filter(|line| !is_in(line, before));
    kept.chain(new).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(hosts: &str) -> EtcFiles {
        EtcFiles {
            hosts: Some(hosts.to_owned()),
            ..EtcFiles::default()
        }
    }

    #[test]
    fn the_container_s_own_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "127.0.0.1 localhost\n10.0.0.2 web\n10.9.9.9 mine\n").unwrap();
        let before = files("127.0.0.1 localhost\n10.0.0.2 web\n");
        let after = files("127.0.0.1 localhost\n10.1.0.7 web\n");
        edit(folder.path(), &before, &after).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "127.0.0.1 localhost\n10.9.9.9 mine\n10.1.0.7 web\n");
        // And back; what is as it was is not touched.
        edit(folder.path(), &after, &files("127.0.0.1 localhost\n")).unwrap();
        edit(folder.path(), &before, &before).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "127.0.0.1 localhost\n10.9.9.9 mine\n");
    }

    #[test]
    fn no_link_is_followed_and_no_file_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (before, after) = (files("a\n"), files("b\n"));
        assert!(edit(folder.path(), &before, &after).is_err());
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "a\n").unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join("hosts")).unwrap();
        assert!(edit(folder.path(), &before, &after).is_err());
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "a\n");
    }

    #[test]
    fn what_the_container_has_blown_up_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, vec![b'x'; MAX_LEN as usize + 1]).unwrap();
        edit(folder.path(), &files("a\n"), &files("b\n")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MAX_LEN + 1);
    }
}
