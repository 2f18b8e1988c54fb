//! `save` and `load`: images as archives.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use engine::image::{self, Platform};

use super::{explained, store};
use crate::out;
use crate::progress::Reporter;

/// Write images as an archive that docker load and hull load read
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names or identifiers
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Bring images from an archive of docker save or hull save, or an OCI layout
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read a file or folder instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// The platform to take of an image for several, as in linux/amd64
    #[arg(long, value_name = "OS[/ARCH[/VARIANT]]")]
    platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

/// `hull save`
pub(crate) fn save(args: SaveArgs) -> anyhow::Result<u8> {
    let names: Vec<&str> = args.images.iter().map(String::as_str).collect();
    let Some(path) = &args.output else {
        if io::stdout().is_terminal() {
            anyhow::bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
        }
        let mut stdout = io::stdout().lock();
        store()?.save(&names, &mut stdout, &()).map_err(explained)?;
        return Ok(0);
    };
    let writing = || format!("cannot write {}", path.display());
    // Beside it and then renamed, so that what is there is whole.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(std::path::Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(writing)?;
    store()?
        .save(&names, &mut file, &Reporter::new())
        .map_err(explained)?;
    file.flush().with_context(writing)?;
    file.persist(path).with_context(writing)?;
    Ok(0)
}

/// `hull load`
pub(crate) fn load(args: LoadArgs) -> anyhow::Result<u8> {
    let reporter = Reporter::new();
    let progress: &dyn image::Progress = if args.quiet { &() } else { &reporter };
    let platform = args.platform.as_ref();
    let loaded = match &args.input {
        Some(path) => store()?.load_archive(image::Source::Path(path), platform, progress),
        None if io::stdin().is_terminal() => {
            anyhow::bail!("requested load from stdin, but stdin is empty: name a file with -i")
        }
        None => {
            let mut stdin = io::stdin().lock();
            store()?.load_archive(image::Source::Reader(&mut stdin), platform, progress)
        }
    };
    for one in loaded.map_err(explained)? {
        if one.names.is_empty() {
            out(&format!("Loaded image ID: {}\n", one.image.id))?;
        }
        for name in &one.names {
            out(&format!("Loaded image: {name}\n"))?;
        }
    }
    Ok(0)
}
