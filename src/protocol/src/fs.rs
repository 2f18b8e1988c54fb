//! Warden to hull-fs, over the SOCK_SEQPACKET socket that hull-fs inherits as descriptor [`CONTROL_FD`]; and what hull-vmm and
//! hull-fs agree on about the socket between them.
//!
//! One packet is one JSON document, with the descriptors that it speaks of as SCM_RIGHTS. The first is [`ToFs::Start`].
//! hull-fs never opens a path of the host's: each share comes as a mount of its own. When the socket closes, hull-fs ends.
//!
//! ```text
//! hull-vmm --one FUSE request a packet--> hull-fs
//!          <--one reply a packet, with the descriptor of a file that was opened--
//! ```

use serde::{Deserialize, Serialize};

pub use crate::vmm::{CONTROL_FD, Descriptor, WORDS_FD};

/// The number of a directory that hull-fs inherits besides: in it the number of each of its descriptors is a link to what
/// this refers to. The root of a detached mount of its own /proc/self/fd, so that nothing else of /proc can be reached; made
/// in the process that becomes hull-fs. The only way from a descriptor of a place to the file's data, extended attributes and
/// further names that Linux 6.1 has (Linux, Documentation/filesystems/proc.rst, 3.8).
pub const LINKS_FD: i32 = 5;
/// The largest packet of a document, in bytes.
pub const MAX_DOCUMENT_LEN: usize = 4 << 10;
/// The largest packet between hull-vmm and hull-fs: an extended attribute (XATTR_SIZE_MAX) with its name, and headers.
pub const MAX_MESSAGE_LEN: usize = 68 << 10;
/// The most data of one FUSE_READ or FUSE_WRITE.
pub const MAX_DATA_BYTES: u32 = 1 << 20;
/// The most files that a guest may have open on shares: descriptors of hull-vmm and of hull-fs.
pub const MAX_OPEN_FILES: usize = 64 << 10;
/// The longest name of a share: digits, lower-case letters and hyphens.
pub const MAX_NAME_LEN: usize = 64;
/// What the guest's driver finds the device by.
pub const TAG: &str = "hull";

/// What the warden sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToFs {
    /// Serve. Only as the first packet.
    Start {
        /// [`crate::BUILD`] of the warden.
        build: String,
        /// The socket to hull-vmm.
        fuse: Descriptor,
        /// Where owners are kept.
        ownership: Ownership,
    },
    /// Another share. Answered with [`FromFs::Added`] or [`FromFs::Refused`].
    Add {
        /// Its name in the guest's root directory.
        name: String,
        /// O_PATH of the root of a detached mount: a directory or a single file.
        root: Descriptor,
        /// Refuse every change; the mount is read-only as well.
        read_only: bool,
        /// The lease of its volume, open for reading: this share's byte of it is locked by the descriptor, which is kept for as
        /// long as the share is served. Without one the guest may remember nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<Descriptor>,
    },
    /// A share that is not wanted any more: it cannot be looked up again. Files that are open stay open. No answer.
    Remove {
        /// Its name.
        name: String,
    },
}

/// Where it is kept to whom a file belongs, and who may do what with it, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    /// In the file itself: the host sees what the guest sees. Takes root's rights.
    Host,
    /// In an extended attribute, beside a file that belongs to the user as whom hull-fs runs.
    Recorded,
}

/// What a guest may remember of a share without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// While no one else uses it, everything, for [`crate::lease::VALIDITY`].
    Exclusive,
    /// Nothing: what others change is seen at the next look.
    Shared,
}

/// What hull-fs sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromFs {
    /// The guest can look the share up.
    Added {
        /// Its name.
        name: String,
    },
    /// A share is not served.
    Refused {
        /// Its name.
        name: String,
        /// What was attempted, on what, and why it failed.
        message: String,
    },
}
