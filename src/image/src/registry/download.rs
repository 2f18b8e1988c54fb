//! Downloads one blob to disk, resuming an earlier attempt of this process or another.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Body;
use ureq::http::{Response, header};

use super::{Client, Error, Retry};
use crate::digest::Hasher;
use crate::error::Cause;
use crate::manifest::Descriptor;
use crate::progress::{Event, LayerName, Progress};
use crate::pull::PullOptions;
use crate::store;

const WHAT: &str = "layer";
const BUFFER_LEN: usize = 128 << 10;
/// Progress after which the count of failures is reset: with the blob's size, this bounds the
/// number of attempts.
const MIN_PROGRESS_BYTES: u64 = 1 << 20;

/// A layer's blob to be fetched into a file that this process alone writes.
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) layer: LayerName,
    pub(crate) file: &'a mut File,
    pub(crate) path: &'a Path,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancelled: &'a AtomicBool,
}

/// The state of the file.
struct State {
    hasher: Hasher,
    bytes: u64,
    /// Some of it is from an earlier download and may be damaged: a wrong digest is then retried
    /// from the start.
    inherited: bool,
}

impl Download<'_> {
    /// Fetches what is missing. On success the file holds the whole blob, and its digest matches.
    pub(crate) fn run(mut self, options: &PullOptions) -> Result<(), Cause> {
        let mut state = self.read_back()?;
        let mut retry = Retry::new(options, Some(self.layer), self.progress, self.cancelled);
        loop {
            self.progress.event(Event::Downloading {
                layer: self.layer,
                resumed_bytes: state.bytes,
                total_bytes: self.descriptor.size,
            });
            let before = state.bytes;
            match self.attempt(&mut state) {
                Ok(()) => match self.verify(&mut state)? {
                    true => return Ok(()),
                    false => continue,
                },
                Err(Cause::Registry(error)) => {
                    if state.bytes >= before.saturating_add(MIN_PROGRESS_BYTES) {
                        retry.progressed();
                    }
                    retry.pause(error, self.client.reached())?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Hashes what an earlier download left.
    fn read_back(&mut self) -> Result<State, store::Error> {
        let mut state = State {
            hasher: Hasher::default(),
            bytes: 0,
            inherited: false,
        };
        let failed = || store::Error::io("read", self.path);
        self.file.rewind().map_err(failed())?;
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            let count = self.file.read(&mut buffer).map_err(failed())?;
            if count == 0 {
                break;
            }
            state.hasher.update(&buffer[..count]);
            state.bytes += count as u64;
        }
        state.inherited = state.bytes > 0;
        if state.bytes > self.descriptor.size {
            self.restart(&mut state)?;
        }
        Ok(state)
    }

    fn restart(&mut self, state: &mut State) -> Result<(), store::Error> {
        self.file
            .set_len(0)
            .map_err(store::Error::io("truncate", self.path))?;
        self.file
            .rewind()
            .map_err(store::Error::io("truncate", self.path))?;
        *state = State {
            hasher: Hasher::default(),
            bytes: 0,
            inherited: false,
        };
        Ok(())
    }

    /// One request for what is missing.
    fn attempt(&mut self, state: &mut State) -> Result<(), Cause> {
        let total = self.descriptor.size;
        if state.bytes == total {
            return Ok(());
        }
        let response = self.client.blob(&self.descriptor.digest, state.bytes)?;
        match response.status().as_u16() {
            206 if range_start(&response) == Some(state.bytes) => {}
            200 => {
                if state.bytes > 0 {
                    self.restart(state)?;
                }
            }
            // Another range than requested, or none: start over.
            _ => {
                self.restart(state)?;
                let source =
                    std::io::Error::other("the registry does not resume where it was asked to");
                return Err(self.client.interrupted(WHAT, source).into());
            }
        }
        let length = content_length(&response);
        if let Some(length) = length.filter(|&length| length != total - state.bytes) {
            return Err(self.wrong_size(state.bytes.saturating_add(length)).into());
        }
        self.copy(response, state)
    }

    fn copy(&mut self, response: Response<Body>, state: &mut State) -> Result<(), Cause> {
        let total = self.descriptor.size;
        self.file
            .seek(SeekFrom::Start(state.bytes))
            .map_err(store::Error::io("write", self.path))?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let count = body
                .read(&mut buffer)
                .map_err(|source| self.client.interrupted(WHAT, source))?;
            if count == 0 {
                break;
            }
            if count as u64 > total - state.bytes {
                return Err(self.wrong_size(state.bytes + count as u64).into());
            }
            self.file
                .write_all(&buffer[..count])
                .map_err(store::Error::io("write", self.path))?;
            state.hasher.update(&buffer[..count]);
            state.bytes += count as u64;
            self.progress.event(Event::Downloaded {
                layer: self.layer,
                bytes: state.bytes,
            });
        }
        match state.bytes == total {
            true => Ok(()),
            false => {
                let source = std::io::ErrorKind::UnexpectedEof.into();
                Err(self.client.interrupted(WHAT, source).into())
            }
        }
    }

    /// Checks the digest. If it is wrong, the file is truncated: `false` if it is to be fetched
    /// again.
    fn verify(&mut self, state: &mut State) -> Result<bool, Cause> {
        let actual = std::mem::take(&mut state.hasher).finish();
        if actual == self.descriptor.digest {
            self.progress.event(Event::Verified(self.layer));
            return Ok(true);
        }
        let inherited = state.inherited;
        self.restart(state)?;
        match inherited {
            true => Ok(false),
            false => {
                self.client
                    .check_digest(WHAT, &self.descriptor.digest, actual)?;
                Ok(false)
            }
        }
    }

    fn wrong_size(&self, actual: u64) -> Error {
        let expected = self.descriptor.size;
        Error::Size {
            host: self.client.host.clone(),
            what: WHAT,
            expected,
            actual,
        }
    }
}

/// The first byte of a 206 (RFC 9110, section 14.4).
fn range_start(response: &Response<Body>) -> Option<u64> {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)?
        .to_str()
        .ok()?;
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

fn content_length(response: &Response<Body>) -> Option<u64> {
    response
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
