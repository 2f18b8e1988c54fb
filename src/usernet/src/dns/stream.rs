//! Messages on a connection: each behind its length in two bytes (RFC 1035, 4.2.2).

/// Puts a message's length before it; `None` if it has none.
pub fn framed(message: &[u8]) -> Option<Vec<u8>> {
    let len = u16::try_from(message.len()).ok()?;
    Some([&len.to_be_bytes()[..], message].concat())
}

/// What has come of messages of at most `limit` bytes.
#[derive(Debug)]
pub struct Incoming {
    limit: usize,
    bytes: Vec<u8>,
}

/// A message is longer than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

impl Incoming {
    /// Nothing yet.
    pub fn new(limit: usize) -> Incoming {
        Incoming {
            limit,
            bytes: Vec::new(),
        }
    }

    /// How many bytes to read at most: what the message still lacks, so that nothing is held beyond it.
    pub fn wanted(&self) -> Result<usize, TooLong> {
        match self.whole()? {
            None => Ok(2 - self.bytes.len()),
            Some(whole) => Ok(whole - self.bytes.len()),
        }
    }

    /// Takes bytes, at most as many as are wanted; the message, if it is whole.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        self.bytes.extend(bytes);
        match self.whole()? {
            Some(whole) if self.bytes.len() >= whole => {
                let message = self.bytes.split_off(2);
                self.bytes.clear();
                Ok(Some(message))
            }
            _ => Ok(None),
        }
    }

    /// The length of the message that has begun, with the two bytes before it.
    fn whole(&self) -> Result<Option<usize>, TooLong> {
        let [high, low, ..] = self.bytes[..] else {
            return Ok(None);
        };
        match usize::from(u16::from_be_bytes([high, low])) {
            len if len > self.limit => Err(TooLong),
            len => Ok(Some(2 + len)),
        }
    }
}
