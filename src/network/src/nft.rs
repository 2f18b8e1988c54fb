//! The command nft.
//!
//! What goes in and comes out lies in files without names: nothing has to be read while nft runs, or can fill up.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitStatus};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::error::Error;

/// Where nft is when PATH does not say.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];
/// The longest complaint of nft's that is repeated.
const MAX_MESSAGE: usize = 200;

/// How it ended, what it printed and what it complained about.
type Ended = (ExitStatus, String, String);

/// Runs nft and returns what it prints.
pub(crate) fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let ended = NFT
        .iter()
        .find_map(|program| match attempt(program, arguments, input) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other),
        });
    let (status, printed, complaint) = ended.ok_or(Error::NoNft)?.map_err(Error::NftRun)?;
    if status.success() {
        return Ok(printed);
    }
    if complaint.contains("Operation not permitted") {
        return Err(Error::NotPermitted {
            action: "change the firewall",
        });
    }
    let message = complaint.lines().next().unwrap_or("no reason given");
    Err(Error::Nft {
        status,
        message: message.chars().take(MAX_MESSAGE).collect(),
    })
}

fn attempt(program: &str, arguments: &[&str], input: &str) -> io::Result<Ended> {
    let (mut script, printed, complaint) = (file()?, file()?, file()?);
    script.write_all(input.as_bytes())?;
    script.rewind()?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(Path::new("/"))
        .stdin(script)
        .stdout(printed.try_clone()?)
        .stderr(complaint.try_clone()?)
        .status()?;
    Ok((status, text(printed)?, text(complaint)?))
}

fn file() -> io::Result<File> {
    Ok(memfd_create("nft", MemfdFlags::CLOEXEC)?.into())
}

fn text(mut file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
