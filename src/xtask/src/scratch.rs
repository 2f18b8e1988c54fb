//! The templates of a container's writable layer: empty ext4 file systems, as sparse files of which the monitor copies only
//! what is allocated. One has the usual size; the other is small, and grown by the agent to a size of the user's.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::output;

/// A template.
struct Template {
    bytes: u64,
    /// Beyond [`FEATURES`].
    features: &'static str,
    /// Beyond [`OPTIONS`].
    options: &'static str,
}

/// The most that a container can write without asking for more: growing costs time.
const USUAL: Template = Template {
    bytes: 64 << 30,
    features: "sparse_super2",
    options: "num_backup_sb=0,packed_meta_blocks=1",
};

/// A block group, with room for the descriptors of a file system of 1 TiB (`protocol::record::MAX_SCRATCH_BYTES`). Linux
/// does not grow file systems with sparse_super2.
const GROWING: Template = Template {
    bytes: 128 << 20,
    features: "sparse_super,resize_inode",
    options: "resize=268435456",
};

/// Features that a file system of this size and lifetime needs; 64bit and orphan_file are left out on purpose.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,large_file,huge_file,dir_nlink,\
    extra_isize,metadata_csum";
/// Few allocated bytes and few reads at mount: prezeroed, since a sparse file reads as zeros, so that no inode table is ever
/// written, by mkfs or by the kernel later. The usual one has, besides, no backup superblocks, no room to grow, and all
/// metadata in one place.
const OPTIONS: &str = "assume_storage_prezeroed=1,root_owner=0:0,nodiscard,\
    hash_seed=68756c6c-0000-4000-8000-000000000002";

/// Writes the template of the usual size.
pub(crate) fn write(path: &Path) -> Result<()> {
    USUAL.write(path)
}

/// Writes the one that is grown.
pub(crate) fn write_growing(path: &Path) -> Result<()> {
    GROWING.write(path)
}

impl Template {
    fn write(&self, path: &Path) -> Result<()> {
        File::create(path)
            .and_then(|file| file.set_len(self.bytes))
            .with_context(|| format!("cannot make {}", path.display()))?;
        // The journal is small: it is there so that a disk that outlives a crash of its VM mounts again.
        output(
            Command::new("/usr/sbin/mkfs.ext4")
                .args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0"])
                .args(["-G", "2", "-J", "size=16"])
                .args(["-O", &format!("{FEATURES},{}", self.features)])
                .args(["-E", &format!("{OPTIONS},{}", self.options)])
                .args(["-U", "68756c6c-0000-4000-8000-000000000001"])
                .arg(path)
                // mke2fs's own variable for its tests: the same bytes every time.
                .env("E2FSPROGS_FAKE_TIME", "1"),
        )?;
        // Without the mount option the kernel would make a bitmap in memory for each of the 512 block groups in the background
        // of every boot: 2 MiB.
        let mut requests = tempfile::NamedTempFile::new()?;
        requests.write_all(
            b"set_current_time @1\nset_super_value mount_opts no_prefetch_block_bitmaps\n",
        )?;
        output(
            Command::new("/usr/sbin/debugfs")
                .args(["-w", "-f"])
                .args([requests.path(), path]),
        )?;
        Ok(())
    }
}
