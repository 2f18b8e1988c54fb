//! Detached mounts of an ordinary user, in a process of one thread, as `fork` wants it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use sys::fork;
use sys::mount::{Attributes, Tree, detached_as_user};

/// A user without rights, of no system.
const USER: u32 = 54321;

/// With the words of libtest that test runners use: one test, which is not ignored.
fn main() {
    let has = |option: &str| std::env::args().any(|word| word == option);
    if has("--list") {
        if !has("--ignored") {
            println!("an_ordinary_user_has_detached_mounts: test");
        }
        return;
    }
    let folder = std::env::temp_dir().join(format!("hull-detached-{}", std::process::id()));
    let child = fork::fork(0, None, |_| {
        if rustix::process::geteuid().is_root() {
            let (user, group) = (
                rustix::fs::Uid::from_raw(USER),
                rustix::fs::Gid::from_raw(USER),
            );
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
        }
        fs::create_dir_all(folder.join("share/below")).unwrap();
        fs::write(folder.join("secret"), "outside").unwrap();
        fs::write(folder.join("share/file"), "inside").unwrap();
        nothing_lies_above_it(&folder);
        a_read_only_one_is_read_only_to_its_owner(&folder);
        a_file_is_shared_alone(&folder);
        symlinks_and_missing_paths_are_refused(&folder);
        0
    })
    .unwrap();
    let (_, status) = waitpid(Some(child.pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(status.exit_status(), Some(0));
    println!("test result: ok. 1 passed; 0 failed; 0 ignored;");
}

fn tree(path: &Path, read_only: bool) -> OwnedFd {
    let set = libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | if read_only {
            libc::MOUNT_ATTR_RDONLY
        } else {
            0
        };
    let attributes = Attributes {
        set,
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    detached_as_user(Tree {
        path,
        recursive: true,
        changes: &[(attributes, true)],
    })
    .unwrap()
}

fn open(mount: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(mount, path, flags | OFlags::CLOEXEC, Mode::RUSR)
}

fn inode(mount: &OwnedFd, path: &str) -> u64 {
    let stat = statx(mount, path, AtFlags::EMPTY_PATH, StatxFlags::INO).unwrap();
    stat.stx_ino
}

fn nothing_lies_above_it(folder: &Path) {
    let mount = tree(&folder.join("share"), false);
    assert_eq!(inode(&mount, ".."), inode(&mount, ""));
    assert_eq!(inode(&mount, "below/../.."), inode(&mount, ""));
    assert_eq!(
        open(&mount, "../secret", OFlags::RDONLY).err(),
        Some(Errno::NOENT)
    );
    open(&mount, "made", OFlags::WRONLY | OFlags::CREATE).unwrap();
    assert!(folder.join("share/made").exists());
}

fn a_read_only_one_is_read_only_to_its_owner(folder: &Path) {
    let mount = tree(&folder.join("share"), true);
    open(&mount, "file", OFlags::RDONLY).unwrap();
    for flags in [OFlags::WRONLY, OFlags::WRONLY | OFlags::CREATE] {
        assert_eq!(open(&mount, "file", flags).err(), Some(Errno::ROFS));
    }
}

fn a_file_is_shared_alone(folder: &Path) {
    let mount = tree(&folder.join("share/file"), false);
    let real = fs::File::open(folder.join("share/file")).unwrap();
    assert_eq!(inode(&mount, ""), inode(&real.into(), ""));
    assert_eq!(open(&mount, "..", OFlags::PATH).err(), Some(Errno::NOTDIR));
}

fn symlinks_and_missing_paths_are_refused(folder: &Path) {
    std::os::unix::fs::symlink(folder.join("share"), folder.join("link")).unwrap();
    for (name, errno) in [("link/file", libc::ELOOP), ("absent", libc::ENOENT)] {
        let path = folder.join(name);
        let refused = detached_as_user(Tree {
            path: &path,
            recursive: true,
            changes: &[],
        });
        let sys::mount::AsUserError::Other(error) = refused.unwrap_err() else {
            panic!("{name} is refused for what it is");
        };
        assert_eq!(error.raw_os_error(), Some(errno), "{name}");
    }
}
