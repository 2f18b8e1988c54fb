//! What is at a path.

use std::path::Path;

use protocol::agent::FileStat;
use rustix::fs::{FileType, OFlags, fstat, readlinkat};

use super::error::{Attempt, Error};
use super::tree::{Inside, check, last_part};

/// As many links one after the other as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What is at an absolute path of the container.
pub(crate) fn stat(inside: &Inside, path: &str, follow: bool) -> Result<FileStat, Error> {
    check(path)?;
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let (found, target) = look(inside, &path)?;
        match target {
            Some(target) if follow => path = join(&path, &target),
            link_target => {
                return Ok(FileStat {
                    name: last_part(&path).unwrap_or("/").to_owned(),
                    size_bytes: u64::try_from(found.st_size).unwrap_or(0),
                    mode: found.st_mode,
                    modified_ns: modified_ns(&found),
                    link_target,
                });
            }
        }
    }
    Err(rustix::io::Errno::LOOP).on("follow the links at", path.as_bytes())
}

fn look(inside: &Inside, path: &str) -> Result<(rustix::fs::Stat, Option<String>), Error> {
    let found = inside.open(path, OFlags::PATH | OFlags::NOFOLLOW);
    let found = found.on("find", path.as_bytes())?;
    let stat = fstat(&found).on("look at", path.as_bytes())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        return Ok((stat, None));
    }
    let target = readlinkat(&found, "", Vec::new()).on("read the link", path.as_bytes())?;
    Ok((stat, Some(target.to_string_lossy().into_owned())))
}

/// A link's target as a path from the root; the kernel resolves what is in it.
fn join(link: &str, target: &str) -> String {
    let parent = Path::new(link).parent().unwrap_or(Path::new("/"));
    parent.join(target).to_string_lossy().into_owned()
}

pub(super) fn modified_ns(stat: &rustix::fs::Stat) -> i64 {
    let (seconds, ns) = (stat.st_mtime, stat.st_mtime_nsec as i64);
    seconds.saturating_mul(1_000_000_000).saturating_add(ns)
}
