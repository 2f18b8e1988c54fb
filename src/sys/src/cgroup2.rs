//! The cgroup v2 hierarchy of this host, which may be mounted anywhere, and beside one of version 1.

use std::path::PathBuf;

/// Where the cgroup v2 hierarchy is mounted, if it is.
pub fn mount_point() -> Option<PathBuf> {
    find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn find(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system
            .starts_with("cgroup2 ")
            .then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_beside_one_of_version_1() {
        let table = "30 24 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                     31 24 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find(table), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find("22 1 0:21 / /proc rw - proc proc rw\n"), None);
    }
}
