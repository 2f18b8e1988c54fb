//! The template of a container's writable layer: an empty ext4 file system with overlayfs's two folders, as a sparse
//! file of which the engine copies only what is allocated.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::output;

/// The most that a container can write; the file is sparse.
const BYTES: u64 = 64 << 30;

/// Features that a file system of this size and lifetime needs; 64bit and orphan_file are left out on purpose.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super2,large_file,\
    huge_file,dir_nlink,extra_isize,metadata_csum";
/// Few allocated bytes and few reads at mount:
/// - prezeroed: a sparse file reads as zeros, so no inode table is ever written, by mkfs or by the kernel later;
/// - no backup superblocks, no room to grow, all metadata in one place.
const OPTIONS: &str = "assume_storage_prezeroed=1,packed_meta_blocks=1,num_backup_sb=0,root_owner=0:0,nodiscard,\
    hash_seed=68756c6c-0000-4000-8000-000000000002";

/// overlayfs's upper and work folder, which the agent expects by these names.
const FOLDERS: [&str; 2] = ["upper", "work"];

/// Writes the template.
pub(crate) fn write(path: &Path) -> Result<()> {
    let content = tempfile::tempdir()?;
    for folder in FOLDERS {
        fs::create_dir(content.path().join(folder))?;
    }
    File::create(path)
        .and_then(|file| file.set_len(BYTES))
        .with_context(|| format!("cannot make {}", path.display()))?;
    // The journal is small: it is there so that a disk that outlives a crash of its VM mounts again.
    output(
        Command::new("/usr/sbin/mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0"])
            .args(["-G", "2", "-J", "size=16"])
            .args(["-O", FEATURES, "-E", OPTIONS])
            .args(["-U", "68756c6c-0000-4000-8000-000000000001"])
            .arg("-d")
            .arg(content.path())
            .arg(path)
            // mke2fs's own variable for its tests: the same bytes every time.
            .env("E2FSPROGS_FAKE_TIME", "1"),
    )?;
    // The folders' owner and times came from ours. And without the mount option the kernel would make a bitmap in memory
    // for each of the 512 block groups in the background of every boot: 2 MiB.
    let mut requests =
        String::from("set_current_time @1\nset_super_value mount_opts no_prefetch_block_bitmaps\n");
    for folder in FOLDERS {
        for field in ["uid", "gid", "atime", "ctime", "mtime"] {
            requests.push_str(&format!("set_inode_field /{folder} {field} 0\n"));
        }
    }
    let script = content.path().join("requests");
    fs::write(&script, requests)?;
    output(
        Command::new("/usr/sbin/debugfs")
            .arg("-w")
            .arg("-f")
            .arg(&script)
            .arg(path),
    )?;
    Ok(())
}
