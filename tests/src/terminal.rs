//! hull on a terminal of its own.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::Hull;

/// The most that anything may take in a busy emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal with `hull` in it.
pub struct Terminal {
    /// The process.
    pub child: Child,
    master: File,
    seen: String,
}

impl Hull {
    /// Starts `hull ARGS…` on a new terminal of 24 lines and 80 columns.
    pub fn on_terminal<const N: usize>(&self, arguments: [&str; N]) -> Result<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        set_size(&master, 24, 80)?;
        let end = || -> Result<Stdio> { Ok(OwnedFd::try_clone(&slave)?.into()) };
        let mut command = self.command(arguments);
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        let inherit = sys::spawn::Inherit {
            controlling_terminal: true,
            new_session: true,
            ..Default::default()
        };
        let child = sys::spawn::spawn(&mut command, &inherit).context("cannot run hull")?;
        Ok(Terminal {
            child,
            master: File::from(master),
            seen: String::new(),
        })
    }
}

impl Terminal {
    /// Types text.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Waits until `text` appears, and returns everything since the last wait, including it.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                return Ok(self.seen.drain(..at + text.len()).collect());
            }
            if start.elapsed() > PATIENCE || !self.read_more()? {
                bail!("{text:?} did not appear; what did: {:?}", self.seen);
            }
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        set_size(&self.master, rows, columns)
    }

    /// Waits for the end; returns the exit code and what appeared since the last wait.
    pub fn end(mut self) -> Result<(Option<i32>, String)> {
        while self.read_more()? {}
        Ok((self.child.wait()?.code(), self.seen))
    }

    /// Closes the terminal, as a window is closed, and returns the process.
    pub fn close(self) -> Child {
        self.child
    }

    /// False at the end: when no process has the terminal open any more.
    fn read_more(&mut self) -> Result<bool> {
        let wait = Timespec {
            tv_sec: PATIENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        if poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&wait))? == 0 {
            bail!("nothing for {PATIENCE:?}; so far: {:?}", self.seen);
        }
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(len) => {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..len]));
                Ok(true)
            }
            // EIO: the last process has closed it.
            Err(error) if error.raw_os_error() == Some(5) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn set_size(master: &impl std::os::fd::AsFd, rows: u16, columns: u16) -> Result<()> {
    Ok(tcsetwinsize(
        master,
        Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?)
}
