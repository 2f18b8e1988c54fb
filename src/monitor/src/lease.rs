//! Leases of volumes, as their wardens take them (`protocol::lease`; docs/lifecycle.md, "Volumes: who may remember what").
//!
//! ```text
//! join:   gate locked -> the others? -- none --> own byte locked -> word: alone, or shared for one that may not remember
//!                                    '- some --> word: shared ----> own byte locked -> to be waited: until what the
//!                                                                                      others' guests know is forgotten
//! renew:  gate locked -> the others? -- none --> word: alone
//! ```
//!
//! Invariants: while the word is "alone" one share uses the volume at most, and it may remember; the word is written, and a
//! byte of a share is locked, only by the holder of the gate; a byte is locked by the descriptor that hull-fs has, and so
//! for as long as a guest can be told anything.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use protocol::lease::{FILE, FIRST_SHARE, GATE, LAST_SHARE, Word};
use rustix::fs::{Mode, OFlags};
use sys::clock::monotonic_ns;
use sys::range_lock::{is_locked, try_lock, try_share, unlock};

/// How long the gate is waited for: it is held for a few system calls, unless its holder was stopped meanwhile.
const GATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long between two tries.
const GATE_PAUSE: Duration = Duration::from_millis(2);

/// A share's part in the lease of a volume, for the warden.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Open for writing, and without a lock but that of the gate.
    file: File,
    /// The byte that the share has locked.
    byte: u64,
}

/// A share that takes part from now on.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) lease: Lease,
    /// Has the share's byte locked; open for reading.
    pub(crate) lock: OwnedFd,
    /// Until when guests of others may still believe what they know.
    pub(crate) forgotten: Instant,
}

/// The folder of the volume that `path` lies in, if it lies in one of those below `root`. Both are without symlinks.
pub(crate) fn volume_of(root: &Path, path: &Path) -> Option<PathBuf> {
    let volumes = root.join("volumes");
    let mut parts = path.strip_prefix(&volumes).ok()?.components();
    match (parts.next()?, parts.next()?) {
        (Component::Normal(name), Component::Normal(data)) if data == OsStr::new("_data") => {
            Some(volumes.join(name))
        }
        _ => None,
    }
}

impl Lease {
    /// Lets a share take part in the lease of the volume in `folder`.
    ///
    /// # Errors
    /// The file cannot be opened, locked or written; `TimedOut` if another warden has it locked and does not go on.
    pub(crate) fn join(folder: &Path, may_remember: bool) -> io::Result<Joined> {
        let path = folder.join(FILE);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = sys::trusted::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
        let lock = sys::trusted::open(&path, OFlags::RDONLY, Mode::empty())?;
        let gate = Gate::wait(&file)?;
        let byte = gate.free_byte()?;
        let take = || match try_share(&lock, byte)? {
            true => Ok(()),
            false => Err(io::Error::other("a byte of it is locked that was free")),
        };
        let wait = if is_locked(&file, FIRST_SHARE..=LAST_SHARE)? {
            let before = gate.word()?;
            if before == Word::Alone {
                // Whoever comes behind a warden that was killed here waits as long as can be.
                let forgotten_ns = u64::MAX;
                gate.write(Word::Shared { forgotten_ns })?;
            }
            take()?;
            let now_ns = monotonic_ns();
            let wait = before.forgotten_in(now_ns);
            gate.write(Word::Shared {
                forgotten_ns: now_ns.saturating_add(wait.as_nanos() as u64),
            })?;
            wait
        } else {
            take()?;
            gate.write(match may_remember {
                true => Word::Alone,
                false => Word::Shared { forgotten_ns: 0 },
            })?;
            Duration::ZERO
        };
        drop(gate);
        let lease = Lease { file, byte };
        let lock = lock.into();
        Ok(Joined {
            lease,
            lock,
            forgotten: Instant::now() + wait,
        })
    }

    /// Lets the share's guest remember again if no other share uses the volume any more; whether it may now. The share is one
    /// that may remember.
    pub(crate) fn renew(&self) -> io::Result<bool> {
        if read(&self.file)? == Word::Alone {
            return Ok(true);
        }
        let Some(gate) = Gate::try_lock(&self.file)? else {
            return Ok(false);
        };
        let others = is_locked(&self.file, FIRST_SHARE..=self.byte - 1)?
            || is_locked(&self.file, self.byte + 1..=LAST_SHARE)?;
        if !others {
            gate.write(Word::Alone)?;
        }
        Ok(!others)
    }
}

/// The gate, held.
struct Gate<'a>(&'a File);

impl<'a> Gate<'a> {
    fn try_lock(file: &'a File) -> io::Result<Option<Self>> {
        Ok(try_lock(file, GATE)?.then_some(Gate(file)))
    }

    fn wait(file: &'a File) -> io::Result<Self> {
        let limit = Instant::now() + GATE_TIMEOUT;
        loop {
            if let Some(gate) = Self::try_lock(file)? {
                return Ok(gate);
            }
            if Instant::now() >= limit {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another hull-monitor has the volume's lease locked and does not go on; continue or kill it",
                ));
            }
            sleep(GATE_PAUSE);
        }
    }

    /// A byte that no share has locked. Somewhere: there are more than there can be shares.
    fn free_byte(&self) -> io::Result<u64> {
        loop {
            let mut number = [0; 4];
            sys::random::fill(&mut number)?;
            let byte = u64::from(u32::from_ne_bytes(number)).clamp(FIRST_SHARE, LAST_SHARE);
            if !is_locked(self.0, byte..=byte)? {
                return Ok(byte);
            }
        }
    }

    fn word(&self) -> io::Result<Word> {
        read(self.0)
    }

    fn write(&self, word: Word) -> io::Result<()> {
        self.0.write_all_at(&word.to_bytes(), 0)
    }
}

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        if let Err(error) = unlock(self.0, GATE) {
            tracing::warn!(%error, "a volume's lease stays locked");
        }
    }
}

fn read(file: &File) -> io::Result<Word> {
    let mut bytes = [0; Word::LEN];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(Word::from_bytes(&bytes[..len]))
}

#[cfg(test)]
mod tests;
