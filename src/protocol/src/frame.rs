//! A frame is a little-endian u32 length and that many bytes of JSON.

use std::io::{Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// The largest frame, in bytes of JSON: a request with 2 MiB of arguments, as many as execve takes, each byte of which JSON
/// may write as six. Other bulk data never travels in frames.
pub const MAX_LEN: usize = 16 << 20;
/// The largest frame that a guest may send, in bytes of JSON: the host buffers as much for each.
pub const MAX_REPLY_LEN: usize = 1 << 20;

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer closed the connection between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// A frame larger than allowed was announced or asked for.
    #[error("a frame of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Its length.
        len: usize,
        /// [`MAX_LEN`] or [`MAX_REPLY_LEN`].
        limit: usize,
    },
    /// The bytes are not a message of the expected type.
    #[error("a frame is not a valid message")]
    Malformed(#[from] serde_json::Error),
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

/// Encodes one message, header included.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - 4;
    if len > MAX_LEN {
        return Err(too_long(len, MAX_LEN));
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// Writes one message in a single write.
pub fn write<T: Serialize>(mut to: impl Write, message: &T) -> Result<(), Error> {
    to.write_all(&encode(message)?)?;
    Ok(())
}

/// Reads one message, blocking until it is complete.
pub fn read<T: DeserializeOwned>(mut from: impl Read) -> Result<T, Error> {
    let mut header = [0; 4];
    loop {
        match from.read(&mut header) {
            Ok(0) => return Err(Error::Closed),
            Ok(n) => break from.read_exact(&mut header[n..])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_LEN {
        return Err(too_long(len, MAX_LEN));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn too_long(len: usize, limit: usize) -> Error {
    Error::TooLong { len, limit }
}

/// Collects bytes as they arrive and gives out whole messages: for readers that must not block.
#[derive(Debug)]
pub struct Assembler {
    bytes: Vec<u8>,
    limit: usize,
}

impl Assembler {
    /// Accepts frames of up to `limit` bytes.
    pub fn new(limit: usize) -> Assembler {
        Assembler {
            bytes: Vec::new(),
            limit,
        }
    }

    /// Adds bytes received. Holds at most one incomplete frame plus what the caller pushes at once.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes are pushed.
    #[expect(
        clippy::should_implement_trait,
        reason = "not an iterator: the caller names the type each time"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(header) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*header) as usize;
        if len > self.limit {
            return Err(too_long(len, self.limit));
        }
        let Some(body) = self.bytes.get(4..4 + len) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + len);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_survive_being_cut_into_single_bytes() {
        let mut assembler = Assembler::new(MAX_LEN);
        let mut stream = encode(&"one").unwrap();
        stream.extend(encode(&"two").unwrap());
        let mut seen = Vec::new();
        for byte in stream {
            assembler.push(&[byte]);
            while let Some(message) = assembler.next::<String>().unwrap() {
                seen.push(message);
            }
        }
        assert_eq!(seen, ["one", "two"]);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_body_is_read() {
        let header = (MAX_LEN as u32 + 1).to_le_bytes();
        assert!(matches!(
            read::<String>(&header[..]),
            Err(Error::TooLong { .. })
        ));
        let mut assembler = Assembler::new(MAX_LEN);
        assembler.push(&header);
        assert!(matches!(
            assembler.next::<String>(),
            Err(Error::TooLong { .. })
        ));
    }

    #[test]
    fn an_end_between_frames_is_a_close_and_inside_one_an_error() {
        assert!(matches!(read::<String>(&b""[..]), Err(Error::Closed)));
        assert!(matches!(
            read::<String>(&b"\x05\x00\x00\x00\"ab"[..]),
            Err(Error::Io(_))
        ));
    }

    /// What a stream says until it ends or makes no sense: by both readers.
    fn blocking<T: DeserializeOwned>(mut stream: &[u8]) -> (Vec<T>, bool) {
        let mut seen = Vec::new();
        loop {
            match read(&mut stream) {
                Ok(message) => seen.push(message),
                Err(error) => return (seen, !matches!(error, Error::Closed | Error::Io(_))),
            }
        }
    }

    /// Its second value says that the stream was refused, and did not only end.
    fn assembled<T: DeserializeOwned>(stream: &[u8], cut: usize) -> (Vec<T>, bool) {
        let (mut assembler, mut seen) = (Assembler::new(MAX_LEN), Vec::new());
        for part in stream.chunks(cut) {
            assembler.push(part);
            loop {
                match assembler.next() {
                    Ok(Some(message)) => seen.push(message),
                    Ok(None) => break,
                    Err(_) => return (seen, true),
                }
            }
            assert!(assembler.bytes.len() <= 4 + MAX_LEN + cut);
        }
        (seen, false)
    }

    /// Frames, right and wrong, and what is none.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let framed = |body: Vec<u8>| [&(body.len() as u32).to_le_bytes()[..], &body].concat();
        prop_oneof![
            any::<u32>().prop_map(|number| encode(&number).unwrap()),
            prop::collection::vec(any::<u8>(), 0..30).prop_map(framed),
            Just(framed(b"[".repeat(10_000))),
            Just(encode(&"x".repeat(3000)).unwrap()),
            prop::collection::vec(any::<u8>(), 0..10),
            any::<u32>().prop_map(|len| len.to_le_bytes().to_vec()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_readers_say_the_same_of_any_bytes_however_they_are_cut(
            pieces in prop::collection::vec(piece(), 0..8),
            cut in 1..5000usize,
        ) {
            let stream = pieces.concat();
            prop_assert_eq!(assembled::<u32>(&stream, cut), blocking::<u32>(&stream));
            let _ = assembled::<crate::agent::FromAgent>(&stream, cut);
            let _ = assembled::<crate::agent::ToAgent>(&stream, cut);
        }
    }
}
