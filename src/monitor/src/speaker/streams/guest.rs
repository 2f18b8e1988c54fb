//! The guest's side of streams.

use super::*;

/// A stream of the guest's.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) role: Role,
    pub(super) socket: OwnedFd,
    pub(super) token: [u8; TOKEN_LEN],
    /// Bytes of the token that have come.
    pub(super) read: usize,
    /// Its output is over, or its input is gone.
    pub(super) ended: bool,
    pub(super) is_watched: bool,
    /// What the guest has not taken yet of its input.
    pub(super) pending: Vec<u8>,
    /// Its input ends when `pending` is empty.
    pub(super) ends: bool,
}

/// How far the opening of a stream has come.
pub(super) enum Opened {
    Yes,
    NotYet,
    /// It was closed before its token.
    Never,
}

impl Guest {
    /// Reads what there is of the token, and not a byte more.
    pub(super) fn read_token(&mut self) -> Result<Opened, Error> {
        let expected = &self.token[self.read..];
        let mut bytes = [0; TOKEN_LEN];
        let buffer = &mut bytes[..expected.len()];
        match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Ok(Opened::Never),
            Ok((len, _)) if bytes[..len] == expected[..len] => {
                self.read += len;
                Ok(match self.read == TOKEN_LEN {
                    true => Opened::Yes,
                    false => Opened::NotYet,
                })
            }
            Ok(_) => Err(Error::WrongToken),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Opened::NotYet),
            Err(error) => {
                tracing::debug!(%error, "a stream failed before it was opened");
                Ok(Opened::Never)
            }
        }
    }

    /// Sends what waits of the input, and ends it if that was all. Fails when the process takes no more.
    pub(super) fn push(&mut self) -> Result<(), Errno> {
        while !self.pending.is_empty() {
            match send(
                &self.socket,
                &self.pending,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(len) => drop(self.pending.drain(..len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => {
                    self.pending.clear();
                    return Err(error);
                }
            }
        }
        if self.ends {
            // Fails only when the other side is gone, which is as good.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
        Ok(())
    }

    pub(super) fn output(&self) -> Option<(&ProcessId, Part)> {
        match &self.role {
            Role::Output { process, is_stderr } => Some((
                process,
                match is_stderr {
                    true => Part::Stderr,
                    false => Part::Stdout,
                },
            )),
            Role::Terminal(process) => Some((process, Part::Terminal)),
            Role::Input(_) | Role::Transfer(_) => None,
        }
    }

    /// The guest has opened it, and it is not over.
    pub(super) fn is_open(&self) -> bool {
        self.read == TOKEN_LEN && !self.ended
    }

    pub(super) fn is_output(&self) -> bool {
        self.output().is_some()
    }

    pub(super) fn takes_input_of(&self, process: &ProcessId) -> bool {
        match &self.role {
            Role::Input(of) | Role::Terminal(of) => of == process,
            Role::Output { .. } | Role::Transfer(_) => false,
        }
    }

    pub(super) fn is_of(&self, process: &ProcessId) -> bool {
        match &self.role {
            Role::Input(of) | Role::Terminal(of) | Role::Output { process: of, .. } => {
                of == process
            }
            Role::Transfer(_) => false,
        }
    }
}
