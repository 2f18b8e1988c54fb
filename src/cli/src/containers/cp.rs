//! `cp`: files into and out of containers, running or not.
//!
//! Invariant: an archive that a guest wrote touches nothing on the host but below the destination: see [`unpack`].

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use engine::protocol::agent::FileStat;
use engine::{Engine, Kind};

use crate::output;

mod place;
mod unpack;

use place::{Place, Target};

/// Copy files between a container and the host
#[derive(Debug, Args)]
#[command(
    override_usage = "hull cp [OPTIONS] CONTAINER:SRC DEST|-\n       hull cp [OPTIONS] SRC|- CONTAINER:DEST",
    after_help = "A directory is copied with all that is in it; DIR/. is what is in it. - is a tar archive on standard output or input.
A container that does not run stays so.

Examples:
  hull cp web:/etc/nginx/. ./nginx
  hull cp index.html web:/usr/share/nginx/html/
  hull cp web:/var/log - | tar t"
)]
pub(crate) struct CpArgs {
    /// Keep the owners of files; otherwise they are root's in a container, and yours here
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link that the source is
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not tell how much was copied; the default where standard output is no terminal
    #[arg(short, long)]
    quiet: bool,
    /// From where
    #[arg(value_name = "CONTAINER:SRC|SRC|-")]
    source: String,
    /// Where to
    #[arg(value_name = "DEST|-|CONTAINER:DEST")]
    destination: String,
}

/// `hull cp`.
pub(crate) fn cp(args: CpArgs) -> anyhow::Result<u8> {
    let engine = Engine::find()?;
    match (Place::parse(&args.source), Place::parse(&args.destination)) {
        (Place::Container(container, source), Place::Host(destination)) => {
            copy_out(&engine, &args, container, source, destination)?;
        }
        (Place::Host(source), Place::Container(container, destination)) => {
            copy_in(&engine, &args, source, container, destination)?;
        }
        (Place::Container(..), Place::Container(..)) => {
            bail!("copying between containers is not supported")
        }
        (Place::Host(_), Place::Host(_)) => bail!("must specify at least one container source"),
    }
    Ok(0)
}

/// S_IFMT and S_IFDIR of st_mode (inode(7)).
fn is_directory(stat: &FileStat) -> bool {
    stat.mode & 0o170_000 == 0o040_000
}

/// A path in a container, from its root.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

fn copy_out(
    engine: &Engine,
    args: &CpArgs,
    container: &str,
    source: &str,
    destination: &str,
) -> anyhow::Result<()> {
    let source = absolute(source);
    let path = place::without_dot(&source);
    let stat = engine.stat(container, path, args.follow_link)?;
    if destination == "-" {
        let mut transfer = engine.copy_out(container, path, args.follow_link)?;
        let stream = transfer.take_stream().context("the copy has no stream")?;
        io::copy(&mut File::from(stream), &mut io::stdout().lock())
            .context("cannot write the archive")?;
        return Ok(transfer.finish()?);
    }
    if place::names_directory(&source) && !is_directory(&stat) {
        bail!("{source} in the container is not a directory");
    }
    let there = fs::metadata(destination)
        .ok()
        .map(|metadata| metadata.is_dir());
    let target = Target::of(&source, is_directory(&stat), destination, there)?;
    let folder = Path::new(&target.folder);
    if !folder.is_dir() {
        bail!("no such directory: {}", folder.display());
    }
    let mut transfer = engine.copy_out(container, path, args.follow_link)?;
    let stream = transfer.take_stream().context("the copy has no stream")?;
    let counted = unpack::unpack(File::from(stream), folder, &target, args.archive)
        .with_context(|| format!("cannot copy {source} of the container to {destination}"))?;
    transfer.finish()?;
    say_copied(args, counted, destination);
    Ok(())
}

fn copy_in(
    engine: &Engine,
    args: &CpArgs,
    source: &str,
    container: &str,
    destination: &str,
) -> anyhow::Result<()> {
    let destination = absolute(destination);
    let path = place::without_dot(&destination);
    // A link is followed, so that what it leads to gets the files.
    let there = match engine.stat(container, path, true) {
        Ok(stat) => Some(is_directory(&stat)),
        Err(error) if is_absent(&error) => None,
        Err(error) => return Err(error.into()),
    };
    if source == "-" {
        if there != Some(true) {
            bail!("destination \"{container}:{destination}\" must be a directory");
        }
        return send(engine, args, container, &destination, path, |stream| {
            io::copy(&mut io::stdin().lock(), stream)
        });
    }
    let host = PathBuf::from(place::without_dot(source));
    let metadata = match args.follow_link {
        true => fs::metadata(&host),
        // What a name with a slash at its end leads to is meant.
        false if place::names_directory(source) => fs::metadata(&host),
        false => fs::symlink_metadata(&host),
    };
    let metadata = metadata.with_context(|| format!("cannot copy {source}"))?;
    if place::names_directory(source) && !metadata.is_dir() {
        bail!("{source} is not a directory");
    }
    let target = Target::of(source, metadata.is_dir(), &destination, there)?;
    let follow = args.follow_link || place::names_directory(source);
    let name = match &target.name {
        Some(name) => name.clone(),
        None => place::base(source, &host)?,
    };
    let folder = target.folder.clone();
    send(engine, args, container, &destination, &folder, |stream| {
        pack(
            &host,
            &metadata,
            (!target.contents).then_some(name.as_str()),
            follow,
            stream,
        )
    })
}

fn is_absent(error: &engine::Error) -> bool {
    use engine::protocol::agent::FailureKind;
    match error {
        engine::Error::Failure(failure) => failure.kind == FailureKind::NotFound,
        _ => false,
    }
}

/// Sends an archive that `write` writes to be unpacked below a folder of the container.
fn send(
    engine: &Engine,
    args: &CpArgs,
    container: &str,
    destination: &str,
    folder: &str,
    write: impl FnOnce(&mut File) -> io::Result<u64>,
) -> anyhow::Result<()> {
    let mut transfer = engine
        .copy_in(container, folder, args.archive, true)
        .map_err(|error| match error.kind() {
            Kind::NotFound => anyhow::Error::from(error)
                .context(format!("cannot copy to {container}:{destination}")),
            _ => error.into(),
        })?;
    let stream = transfer.take_stream().context("the copy has no stream")?;
    let mut stream = File::from(stream);
    let written = write(&mut stream);
    // Its end is told by the stream's; the duplicate keeps the socket until then.
    let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
    drop(stream);
    // When the other side has refused the archive, that is the reason, and not the pipe that broke here.
    match (transfer.finish(), written) {
        (Ok(()), Ok(bytes)) => {
            say_copied(args, bytes, &format!("{container}:{destination}"));
            Ok(())
        }
        (Err(error), _) => Err(error.into()),
        (Ok(()), Err(error)) => Err(error).context("cannot send the archive"),
    }
}

/// Writes an archive of a file or directory, under a name, or of a directory's contents.
fn pack(
    path: &Path,
    metadata: &fs::Metadata,
    name: Option<&str>,
    follow: bool,
    stream: &mut File,
) -> io::Result<u64> {
    let mut builder = tar::Builder::new(Counted { stream, bytes: 0 });
    // Links in a directory stay links; the source itself was followed by its path.
    builder.follow_symlinks(false);
    let followed = match follow {
        true => fs::canonicalize(path)?,
        false => path.to_owned(),
    };
    match (metadata.is_dir(), name) {
        (true, name) => builder.append_dir_all(name.unwrap_or("."), &followed)?,
        (false, name) => builder.append_path_with_name(&followed, name.unwrap_or("."))?,
    }
    Ok(builder.into_inner()?.bytes)
}

/// Counts what is written.
struct Counted<'a> {
    stream: &'a mut File,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Counts what is read.
struct CountedReader<R> {
    reader: R,
    bytes: u64,
}

impl<R: Read> Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn say_copied(args: &CpArgs, bytes: u64, destination: &str) {
    if !args.quiet && io::stdout().is_terminal() {
        crate::err(&format!(
            "Successfully copied {} to {destination}\n",
            output::size(bytes)
        ));
    }
}
