//! Files of containers, as archives.

use std::fs::File;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::copy::{ChangeKind, Transfer};
use engine::protocol::agent::{FailureKind, FileStat};
use engine::{Engine, time};
use serde_json::json;

use crate::call::{Answer, Call, Reply, Sink, TAR, empty, json, parts};
use crate::error::Failure;

/// What is moved at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The most that is read of an archive that was refused.
const MAX_DRAINED_BYTES: u64 = 16 << 20;
/// Where a stat is, beside or in the place of an archive.
const STAT_HEADER: &str = "x-docker-container-path-stat";

fn path(call: &Call) -> Result<String, Failure> {
    let path = call.query.get("path");
    let path = path.ok_or_else(|| Failure::invalid("bad parameter: path is missing"))?;
    // Docker takes a path as seen from the root.
    Ok(match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    })
}

fn found(engine: &Engine, call: &Call, path: &str) -> Result<FileStat, Failure> {
    let found = engine.stat(&call.target, path, false);
    found.map_err(|error| absent(error, path, &call.target))
}

/// What there is not, in Docker's words.
fn absent(error: engine::Error, path: &str, container: &str) -> Failure {
    match error {
        engine::Error::Failure(failure) if failure.kind == FailureKind::NotFound => Failure::new(
            404,
            format!("Could not find the file {path} in container {container}"),
        ),
        error => error.into(),
    }
}

/// Go's os.FileMode: permissions, and bits of its own for the kind.
fn go_mode(mode: u32) -> u32 {
    const KIND: u32 = 0o170_000;
    let kind = match mode & KIND {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => (1 << 26) | (1 << 21),
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let bits = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let bits = bits
        .iter()
        .filter(|(bit, _)| mode & bit != 0)
        .map(|(_, go)| go);
    bits.fold(kind | (mode & 0o777), |all, bit: &u32| all | bit)
}

fn stat_header(stat: &FileStat) -> String {
    let modified = time::format(u64::try_from(stat.modified_ns).unwrap_or(0).max(1));
    let document = json!({
        "name": stat.name,
        "size": stat.size_bytes,
        "mode": go_mode(stat.mode),
        "mtime": modified,
        "linkTarget": stat.link_target.clone().unwrap_or_default(),
    });
    STANDARD.encode(document.to_string())
}

pub(crate) fn stat(call: Call) -> Answer {
    let path = path(&call)?;
    let stat = found(call.engine, &call, &path)?;
    Ok(Reply::Whole {
        status: 200,
        kind: crate::call::JSON,
        headers: vec![(STAT_HEADER, stat_header(&stat))],
        body: Vec::new(),
    })
}

pub(crate) fn get(call: Call) -> Answer {
    let path = path(&call)?;
    let stat = found(call.engine, &call, &path)?;
    let transfer = call.engine.copy_out(&call.target, &path, false)?;
    Ok(Reply::Parts {
        kind: TAR,
        headers: vec![(STAT_HEADER, stat_header(&stat))],
        write: Box::new(move |sink| send(transfer, &sink)),
    })
}

pub(crate) fn export(call: Call) -> Answer {
    let transfer = call.engine.export(&call.target)?;
    parts("application/octet-stream", move |sink| {
        send(transfer, &sink)
    })
}

/// Sends an archive; one that does not come to its end is broken off.
fn send(mut transfer: Transfer<'static>, sink: &Sink) {
    let Some(stream) = transfer.take_stream() else {
        return sink.fail("the archive has no stream");
    };
    let mut stream = File::from(stream);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                if sink.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return sink.fail(&error.to_string()),
        }
    }
    drop(stream);
    if let Err(error) = transfer.finish() {
        sink.fail(&error.to_string());
    }
}

pub(crate) fn put(mut call: Call) -> Answer {
    let path = path(&call)?;
    let upload = call.upload.take();
    let mut upload = upload.ok_or_else(|| Failure::invalid("the archive is missing"))?;
    let kept = call.query.flag("noOverwriteDirNonDir");
    let owners = call.query.flag("copyUIDGID");
    let unpacked = unpack(&call, &path, owners, kept, &mut upload);
    if unpacked.is_err() {
        // Clients that still send when the answer comes take it for a broken connection.
        let _ = io::copy(&mut upload.take(MAX_DRAINED_BYTES), &mut io::sink());
    }
    unpacked?;
    empty(200)
}

fn unpack(
    call: &Call,
    path: &str,
    owners: bool,
    kept: bool,
    upload: &mut impl Read,
) -> Result<(), Failure> {
    let absent = |error| absent(error, path, &call.target);
    let copy = call.engine.copy_in(&call.target, path, owners, kept);
    let mut transfer = copy.map_err(absent)?;
    let stream = transfer.take_stream();
    let stream = stream.ok_or_else(|| Failure::new(500, "the archive has no stream"))?;
    let mut stream = File::from(stream);
    let copied = io::copy(upload, &mut stream);
    drop(stream);
    // Why it was not read to its end says more than that.
    transfer.finish().map_err(absent)?;
    copied
        .map(drop)
        .map_err(|error| Failure::invalid(format!("the archive has not come whole: {error}")))
}

pub(crate) fn changes(call: Call) -> Answer {
    let changes = call.engine.changes(&call.target)?;
    let all = changes.iter().map(|change| {
        let kind = match change.kind {
            ChangeKind::Changed => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        json!({"Path": change.path, "Kind": kind})
    });
    json(200, &all.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_23_modes_are_gos() {
        assert_eq!(go_mode(0o040_755), 0x8000_01ed);
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 0x8000_0000 | (1 << 20) | 0o777);
        assert_eq!(go_mode(0o120_777), (1 << 27) | 0o777);
    }
}
