//! The client's own terminal: raw while the container has it, as it was afterwards, whatever happens.
//!
//! Invariant: what was saved is restored by the guard's end, and by the panic hook where a panic aborts; signals that
//! would kill the client are read by its loop instead, which ends and so drops the guard.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use engine::protocol::agent::TerminalSize;
use rustix::stdio;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal on standard input was, while it is raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal on standard input is raw while this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw: every byte goes to the container, none is interpreted here.
    pub(crate) fn enter() -> io::Result<RawMode> {
        let saved = tcgetattr(stdio::stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)?;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Fails only when the terminal is gone.
        if let Err(error) = tcsetattr(stdio::stdin(), OptionalActions::Now, &saved) {
            tracing::debug!(%error, "the terminal was not restored");
        }
    }
}

/// Whether standard input is a terminal.
pub(crate) fn input_is_terminal() -> bool {
    isatty(stdio::stdin())
}

/// The size of the terminal on standard output or input.
pub(crate) fn size() -> Option<TerminalSize> {
    [stdio::stdout(), stdio::stdin()]
        .into_iter()
        .find_map(|fd: BorrowedFd<'_>| {
            let size = tcgetwinsize(fd).ok()?;
            Some(TerminalSize {
                rows: size.ws_row,
                columns: size.ws_col,
            })
        })
}
