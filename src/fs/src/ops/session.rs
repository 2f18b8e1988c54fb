//! INIT and DESTROY.

use std::sync::atomic::Ordering;

use protocol::fs::MAX_DATA_BYTES;
use rustix::io::Errno;

use crate::Result;
use crate::abi::{Answer, InitIn, LEAST_MINOR, MAJOR, MINOR, init};
use crate::server::{Request, Server};

/// What is agreed on where the guest has it too. Symbolic links may be kept for ever: another target is another inode. The
/// data of a file are dropped when its time or size has changed behind the guest. There is no write-back cache: what a guest
/// has written is the host's.
const OFFERED: u32 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::SUBMOUNTS
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT;

/// Requests that the guest's kernel starts by itself (read-ahead) at a time, and from how many on it slows down.
const MAX_BACKGROUND: u16 = 64;
const CONGESTION_THRESHOLD: u16 = 48;
/// Pages of the largest request: [`MAX_DATA_BYTES`].
const MAX_PAGES: u16 = (MAX_DATA_BYTES / 4096) as u16;
/// Times are exact to the nanosecond.
const TIME_GRANULARITY_NS: u32 = 1;

impl Server {
    /// FUSE_INIT: a driver begins, which knows nothing of what one before it knew.
    pub(crate) fn init(&self, mut request: Request<'_>) -> Result<Answer> {
        let input = InitIn::read(&mut request.arguments)?;
        let mut answer = Answer::new();
        answer.u32(MAJOR);
        answer.u32(MINOR);
        if input.major > MAJOR {
            // It asks again, with a version that both have.
            answer.zeros(56);
            return Ok(answer);
        }
        if input.major < MAJOR || input.minor < LEAST_MINOR {
            return Err(Errno::PROTO);
        }
        self.forget_all();
        let agreed = input.flags & OFFERED;
        let has = |flag| agreed & flag != 0;
        self.submounts
            .store(has(init::SUBMOUNTS), Ordering::Relaxed);
        self.setxattr_ext
            .store(has(init::SETXATTR_EXT), Ordering::Relaxed);
        self.ready.store(true, Ordering::Release);
        answer.u32(input.max_readahead.min(MAX_DATA_BYTES));
        answer.u32(agreed);
        answer.u16(MAX_BACKGROUND);
        answer.u16(CONGESTION_THRESHOLD);
        answer.u32(MAX_DATA_BYTES);
        answer.u32(TIME_GRANULARITY_NS);
        answer.u16(MAX_PAGES);
        // map_alignment, flags2 and what is not used of fuse_init_out.
        answer.zeros(2 + 4 + 28);
        Ok(answer)
    }

    /// FUSE_DESTROY: the driver has unmounted.
    pub(crate) fn destroy(&self) -> Answer {
        self.ready.store(false, Ordering::Release);
        self.forget_all();
        Answer::new()
    }

    fn forget_all(&self) {
        self.handles.clear();
        self.nodes.clear();
    }
}
