//! The document's mounts, in two phases around the change of root.
//!
//! ```text
//! prepare   before pivot_root, where the sources are named: each mount is made, attached to nothing
//! attach    after it, where only the container's files can be named: each is put on its target
//! ```
//!
//! So no path of the image is ever resolved while a path of the outside could be reached, and file systems that may
//! only be mounted where others like them are visible (proc, sysfs in a user namespace) still can be.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use sys::mount::{Attributes, set_attributes};

use crate::destinations::{self, is_bind};
use crate::error::{Attempt, Error, Refusal, Step};
use crate::fill::fill;
use crate::inside::{Make, Root, is_directory};
use crate::options::Options;
use crate::spec;

/// A mount that is attached to nothing yet.
#[derive(Debug)]
pub(crate) struct Detached {
    mount: OwnedFd,
    target: PathBuf,
    make: Make,
    /// proc and sysfs: a symlink in the way of those would let masks and read-only paths miss them.
    refuses_symlinks: bool,
    /// The same, writable: it is given the image's content if it is empty.
    fill: Option<OwnedFd>,
}

/// Where the container's own cgroup is, for mounts of type cgroup in a container without a cgroup namespace.
pub(crate) struct Cgroup<'a> {
    /// Its directory.
    pub(crate) path: &'a Path,
    /// The container has a namespace that begins there.
    pub(crate) has_namespace: bool,
}

/// Makes a mount of the document.
pub(crate) fn prepare(mount: &spec::Mount, cgroup: &Cgroup<'_>) -> Result<Detached, Error> {
    let target = &mount.destination;
    let options = Options::parse(&mount.options)?;
    let kind = mount.kind.as_deref().unwrap_or("none");
    if is_bind(mount) {
        let Some(source) = &mount.source else {
            return Err(Error::new(
                Step::BindMount,
                target.display().to_string(),
                Refusal::Missing,
            ));
        };
        return bind(source, target, &options);
    }
    match kind {
        "cgroup" | "cgroup2" if !cgroup.has_namespace => bind(cgroup.path, target, &options),
        // Only version 2 exists for us: "cgroup" is what documents written for both say.
        "cgroup" | "cgroup2" => file_system("cgroup2", None, target, &options),
        kind => file_system(kind, mount.source.as_deref(), target, &options),
    }
}

/// A mount of what is at `source`, a path outside.
pub(crate) fn bind(source: &Path, target: &Path, options: &Options) -> Result<Detached, Error> {
    let name = || format!("{} on {}", source.display(), target.display());
    if let Some(data) = options.data.first() {
        return Err(Error::new(
            Step::MountOption,
            data.0.as_str(),
            Refusal::UnknownName,
        ));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = openat(CWD, source, flags, Mode::empty()).at(Step::BindMount, name())?;
    bind_opened(&source, target, options).at(Step::BindMount, name())
}

/// A bind mount of the document that shares something of the host's, whose path was resolved when the container was made.
pub(crate) fn share(mount: &spec::Mount, fill: bool) -> Result<Detached, Error> {
    let target = &mount.destination;
    let options = Options::parse(&mount.options)?;
    let source = mount.source.as_deref().unwrap_or(Path::new(""));
    let name = || format!("{} on {}", source.display(), target.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(CWD, source, flags, Mode::empty(), resolve) {
        Err(Errno::LOOP) => return Err(Refusal::BecameASymlink).at(Step::BindMount, name()),
        opened => opened.at(Step::BindMount, name())?,
    };
    let mut detached = bind_opened(&opened, target, &options).at(Step::BindMount, name())?;
    if fill && detached.make == Make::Directory {
        detached.fill = Some(clone(&opened, false).at(Step::BindMount, name())?);
    }
    Ok(detached)
}

fn bind_opened(source: &OwnedFd, target: &Path, options: &Options) -> std::io::Result<Detached> {
    let mount = clone(source, options.bind == Some(true))?;
    apply(&mount, options, true)?;
    let make = if is_directory(&mount)? {
        Make::Directory
    } else {
        Make::File
    };
    Ok(Detached {
        mount,
        target: target.to_owned(),
        make,
        refuses_symlinks: false,
        fill: None,
    })
}

/// A mount of a new instance of a file system.
fn file_system(
    kind: &str,
    source: Option<&Path>,
    target: &Path,
    options: &Options,
) -> Result<Detached, Error> {
    let name = || format!("{kind} on {}", target.display());
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(Step::Mount, name())?;
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source).at(Step::Mount, name())?;
    }
    for (key, value) in &options.data {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        set.at(
            Step::MountOption,
            format_args!("{key} of {}{}", name(), explanation(&context)),
        )?;
    }
    fsconfig_create(&context).at(
        Step::Mount,
        format_args!("{}{}", name(), explanation(&context)),
    )?;
    let attributes = MountAttrFlags::from_bits_retain(options.attributes.set as u32);
    let mount =
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Step::Mount, name())?;
    apply(
        &mount,
        &Options {
            attributes: Attributes::default(),
            ..options.clone()
        },
        false,
    )
    .at(Step::Mount, name())?;
    let refuses_symlinks = matches!(kind, "proc" | "sysfs");
    Ok(Detached {
        mount,
        target: target.to_owned(),
        make: Make::Directory,
        refuses_symlinks,
        fill: None,
    })
}

/// What the file system said about a failure, in brackets, or nothing.
pub(crate) fn explanation(context: &OwnedFd) -> String {
    let mut message = [0; 256];
    match rustix::io::read(context, &mut message) {
        // "e" is the class of errors; the message itself comes after a space.
        Ok(len) if message[..len].starts_with(b"e ") => {
            format!(
                " ({})",
                String::from_utf8_lossy(&message[2..len]).trim_end()
            )
        }
        _ => String::new(),
    }
}

fn apply(mount: &OwnedFd, options: &Options, is_bind: bool) -> std::io::Result<()> {
    if options.attributes != Attributes::default() {
        set_attributes(mount, options.attributes, false)?;
    }
    if options.recursive_attributes != Attributes::default() {
        set_attributes(mount, options.recursive_attributes, true)?;
    }
    // Private unless the document says otherwise: a bind mount would stay a peer of its source.
    let (propagation, recursive) = options.propagation.unwrap_or((
        rustix::mount::MountPropagationFlags::PRIVATE.bits().into(),
        is_bind,
    ));
    set_attributes(
        mount,
        Attributes {
            propagation,
            ..Attributes::default()
        },
        recursive,
    )
}

impl Detached {
    /// Puts the mount on its target inside `root`, made when missing.
    pub(crate) fn attach(self, root: &Root) -> Result<(), Error> {
        let name = self.target.display();
        let on_name = || format!("on {name}");
        let target = if self.refuses_symlinks {
            root.get_without_symlinks(&self.target, OFlags::PATH)
                .or_else(|errno| match errno {
                    Errno::NOENT => root.get_or_make(&self.target, self.make),
                    errno => Err(errno),
                })
        } else {
            root.get_or_make(&self.target, self.make)
        };
        let target = target.at(Step::Mount, on_name())?;
        if is_directory(&target).at(Step::Mount, on_name())? != (self.make == Make::Directory) {
            return Err(Refusal::DirectoryOverFile).at(Step::Mount, on_name());
        }
        if let Some(volume) = &self.fill {
            root.get(&self.target, OFlags::RDONLY | OFlags::DIRECTORY)
                .and_then(|image| fill(volume.as_fd(), image.as_fd()))
                .at(Step::Volume, &name)?;
        }
        destinations::check_target(&self.target, &target, &self.mount)
            .and_then(|()| Ok(move_onto(&self.mount, target)?))
            .at(Step::Mount, on_name())
    }
}

/// Attaches a mount on an open file or directory.
pub(crate) fn move_onto(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Another mount of what is at an open file or directory of this mount namespace.
pub(crate) fn clone(of: impl AsFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let flags = if recursive {
        flags | OpenTreeFlags::AT_RECURSIVE
    } else {
        flags
    };
    open_tree(of, "", flags)
}
