//! The contents of the container's /dev.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fcntl_setfl, makedev, mknodat,
    openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
    open_tree,
};

use crate::error::{Attempt, Error, Refusal, Step};
use crate::inside::{self, Make, Root};
use crate::mounts::move_onto;
use crate::spec;

/// The devices that every container has (OCI runtime specification, config-linux.md, "Default Devices").
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The largest device numbers (linux/kdev_t.h: 12 and 20 bits). mknod would cut larger ones off, to another device's.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;

/// The number of /dev/null.
const NULL: u64 = 1 << 8 | 3;

/// Symlinks that every container has (config-linux.md "Default Devices"; runtime-linux.md "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// A device to make.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Where nodes cannot be made (in a user namespace): the outside's node, to be mounted.
    outside: Option<std::rc::Rc<OwnedFd>>,
}

/// The default devices and the document's. Those of the document replace default ones.
pub(crate) fn list(document: &[spec::Device]) -> Result<Vec<Device>, Error> {
    let mut devices: Vec<Device> = DEFAULTS
        .iter()
        .filter(|(path, ..)| !document.iter().any(|device| device.path == Path::new(path)))
        .map(|&(path, major, minor)| Device {
            path: path.into(),
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            outside: None,
        })
        .collect();
    for device in document {
        let refuse = |refusal| Error::new(Step::Device, device.path.display().to_string(), refusal);
        if !device.path.is_absolute() || device.path.file_name().is_none() {
            return Err(refuse(Refusal::NotAnAbsolutePath));
        }
        if device.major > MAX_MAJOR || device.minor > MAX_MINOR {
            return Err(refuse(Refusal::OutOfRange));
        }
        if device.uid == u32::MAX || device.gid == u32::MAX {
            return Err(refuse(Refusal::OutOfRange));
        }
        devices.push(Device {
            path: device.path.clone(),
            kind: match device.kind {
                'c' | 'u' => FileType::CharacterDevice,
                'b' => FileType::BlockDevice,
                'p' => FileType::Fifo,
                _ => return Err(refuse(Refusal::UnknownName)),
            },
            number: makedev(device.major, device.minor),
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid,
            gid: device.gid,
            outside: None,
        });
    }
    Ok(devices)
}

impl Device {
    /// Before the change of root, for a container that cannot make nodes: takes the outside's node at the same path.
    pub(crate) fn take_from_outside(&mut self) -> Result<(), Error> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let node = open_tree(CWD, &self.path, flags).at(Step::Device, self.path.display())?;
        let stat = rustix::fs::fstat(&node).at(Step::Device, self.path.display())?;
        if FileType::from_raw_mode(stat.st_mode) != self.kind || stat.st_rdev != self.number {
            return Err(Refusal::OccupiedByAnother).at(Step::Device, self.path.display());
        }
        self.outside = Some(node.into());
        Ok(())
    }

    /// Makes the device inside. What is already there must be the same device.
    pub(crate) fn make(&self, root: &Root) -> Result<(), Error> {
        let result = match &self.outside {
            Some(node) => root
                .get_or_make(&self.path, Make::File)
                .and_then(|target| move_onto(&**node, target)),
            None => self.make_node(root),
        };
        result.at(Step::Device, self.path.display())
    }

    fn make_node(&self, root: &Root) -> Result<(), Errno> {
        let (directory, name) = root.parent_of(&self.path)?;
        if let Some(stat) = inside::entry(&directory, name)? {
            let same =
                FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == self.number;
            return if same { Ok(()) } else { Err(Errno::EXIST) };
        }
        let mode = Mode::from_raw_mode(self.mode);
        mknodat(&directory, name, self.kind, mode, self.number)?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(
            &directory,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        // mknod's mode is cut by the umask, which the caller has set to zero.
        Ok(())
    }
}

/// Makes the default symlinks, leaving alone what is already there.
pub(crate) fn make_links(root: &Root) -> Result<(), Error> {
    for (path, target) in LINKS {
        let (directory, name) = root.parent_of(Path::new(path)).at(Step::Device, path)?;
        match symlinkat(target, &directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).at(Step::Device, path),
        }
    }
    Ok(())
}

/// The container's /dev/null, made sure of.
pub(crate) fn null(root: &Root) -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/null");
    let null = root
        .get(path, OFlags::PATH)
        .at(Step::Device, path.display())?;
    check_null(&null)?;
    Ok(null)
}

fn check_null(file: &OwnedFd) -> Result<(), Error> {
    let stat = rustix::fs::fstat(file).at(Step::Device, "/dev/null")?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == NULL;
    if is_null {
        Ok(())
    } else {
        Err(Refusal::OccupiedByAnother).at(Step::Device, "/dev/null")
    }
}

/// The container's /dev/null, opened. Where there is none, or it is something else, a null device of the process's own.
pub(crate) fn open_null(root: &Root, in_user_namespace: bool) -> Result<OwnedFd, Error> {
    let path = Path::new("/dev/null");
    let opened = null(root).and_then(|_| {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        let opened = root.get(path, flags).at(Step::Stdio, path.display())?;
        // Another file may have come to be there in the meantime.
        check_null(&opened)?;
        fcntl_setfl(&opened, OFlags::empty()).at(Step::Stdio, path.display())?;
        Ok(opened)
    });
    match opened {
        Err(_) if !in_user_namespace => private_null().at(Step::Stdio, path.display()),
        opened => opened,
    }
}

/// A null device in a file system that nothing else will see.
fn private_null() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let (flags, attributes) = (FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty());
    let mount = fsmount(&context, flags, attributes)?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(&mount, "null", FileType::CharacterDevice, mode, NULL)?;
    openat(
        &mount,
        "null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// A new terminal of the container's own devpts.
pub(crate) struct Terminal {
    /// For messages.
    pub(crate) master: OwnedFd,
    /// For the container's process.
    pub(crate) slave: OwnedFd,
}

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes a terminal owned by `uid`.
pub(crate) fn terminal(root: &Root, uid: u32) -> Result<Terminal, Error> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
    let ptmx = Path::new("/dev/pts/ptmx");
    let master = root
        .get_without_symlinks(ptmx, OFlags::RDWR | OFlags::NOCTTY)
        .at(Step::Terminal, ptmx.display())?;
    // A multiplexer of the image's own making could lead to the outside's terminals.
    let magic = rustix::fs::fstatfs(&master)
        .at(Step::Terminal, ptmx.display())?
        .f_type;
    if magic != DEVPTS_SUPER_MAGIC {
        return Err(Refusal::OccupiedByAnother).at(Step::Terminal, ptmx.display());
    }
    unlockpt(&master).at(Step::Terminal, ptmx.display())?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).at(Step::Terminal, ptmx.display())?;
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None).at(Step::Terminal, "owner")?;
    fchmod(&slave, Mode::from_raw_mode(0o620)).at(Step::Terminal, "mode")?;
    Ok(Terminal { master, slave })
}

/// Makes /dev/console of a terminal.
pub(crate) fn make_console(root: &Root, slave: &OwnedFd) -> Result<(), Error> {
    let console = Path::new("/dev/console");
    let make = || -> Result<(), Errno> {
        let mount = crate::mounts::clone(slave, false)?;
        move_onto(mount, root.get_or_make(console, Make::File)?)
    };
    make().at(Step::Terminal, console.display())
}

/// Tells a terminal its size; its processes get SIGWINCH.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> std::io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mknod_would_cut_are_refused() {
        let of = |major: u32, minor: u32, uid: u32| {
            let json = serde_json::json!(
                { "path": "/dev/x", "type": "c", "major": major, "minor": minor, "uid": uid }
            );
            let device: spec::Device = serde_json::from_value(json).unwrap();
            list(&[device]).map(|devices| devices.last().unwrap().number)
        };
        assert_eq!(of(0xfff, 0xf_ffff, 0).unwrap(), makedev(0xfff, 0xf_ffff));
        assert!(of(0x1000, 3, 0).is_err());
        assert!(of(1, 0x10_0000, 0).is_err());
        assert!(of(1, 3, u32::MAX).is_err());
    }
}
