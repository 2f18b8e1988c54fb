//! A compressed Linux kernel: a bzImage. It unpacks itself.

use arch::linux::{HEADER_BYTES, Header};
use arch::registers::Entry;
use memory::Ram;

use super::{Error, Kernel, Source, check_room};

pub(super) fn load(source: &Source, ram: &mut Ram) -> Result<Kernel, Error> {
    let mut bytes = [0; HEADER_BYTES];
    if source.len < HEADER_BYTES as u64 {
        return Err(Error::NotAKernel);
    }
    source.read(0, &mut bytes)?;
    let header = match Header::parse(&bytes) {
        Err(arch::linux::Error::NoHeader) => return Err(Error::NotAKernel),
        result => result?,
    };
    let Some(len) = source.len.checked_sub(header.kernel_offset) else {
        return Err(Error::Truncated {
            len: source.len,
            needed: header.kernel_offset,
        });
    };
    let needed = header.payload_end();
    if needed > source.len {
        return Err(Error::Truncated {
            len: source.len,
            needed,
        });
    }
    let start = header.load_at.0;
    // It unpacks itself within init_size, which covers the compressed kernel too.
    let end = start.saturating_add(header.init_size.max(len));
    check_room(ram, start, end)?;
    source.copy(header.kernel_offset, len, ram, start)?;
    Ok(Kernel {
        entry: Entry::Linux64(header.entry()),
        end,
        image: Vec::new(),
        header: Some(header),
    })
}
