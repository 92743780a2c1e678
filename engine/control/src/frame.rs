//! Frames: a length and that many bytes. The only place that touches bytes from the other side.

use std::error::Error;
use std::fmt;
use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes that one frame may carry.
pub const MAX_FRAME: usize = 1024 * 1024;

/// A frame that could not be read or written. The connection is of no use afterwards.
#[derive(Debug)]
pub struct FrameError {
    /// What was being done: `read` or `write`.
    pub verb: &'static str,
    /// What went wrong.
    pub kind: FrameErrorKind,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} a frame: {}", self.verb, self.kind)
    }
}

impl Error for FrameError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The kind is already in our own text; what lies below it is the source.
        self.kind.source()
    }
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameErrorKind {
    /// Its length is beyond [`MAX_FRAME`].
    #[error("{len} bytes are more than the {MAX_FRAME} allowed")]
    Oversize {
        /// The length claimed or needed, in bytes.
        len: usize,
    },
    /// The stream ended inside it.
    #[error("the stream ended after {have} of {len} bytes")]
    Truncated {
        /// Bytes that came.
        have: usize,
        /// Bytes that were announced.
        len: usize,
    },
    /// Its bytes are not the message that belongs here.
    #[error("malformed message")]
    Malformed(#[source] postcard::Error),
    /// Bytes follow the message.
    #[error("{len} bytes follow the message")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// The socket failed.
    #[error("socket error")]
    Io(#[source] io::Error),
}

impl FrameErrorKind {
    fn on(self, verb: &'static str) -> FrameError {
        FrameError { verb, kind: self }
    }
}

/// Reads one message; `None` when the other side hung up between two frames.
pub(crate) async fn read<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, FrameError> {
    let error = |kind: FrameErrorKind| kind.on("read");
    let Some(len) = read_length(reader).await.map_err(error)? else { return Ok(None) };
    if len > MAX_FRAME {
        return Err(error(FrameErrorKind::Oversize { len }));
    }
    // The buffer grows with what arrives: a claimed length alone costs no memory.
    let mut bytes = Vec::new();
    let have = reader
        .take(len as u64)
        .read_to_end(&mut bytes)
        .await
        .map_err(|source| error(FrameErrorKind::Io(source)))?;
    if have < len {
        return Err(error(FrameErrorKind::Truncated { have, len }));
    }
    decode(&bytes).map(Some).map_err(error)
}

async fn read_length(
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<Option<usize>, FrameErrorKind> {
    let mut length = [0; size_of::<u32>()];
    let mut have = 0;
    while have < length.len() {
        match reader.read(&mut length[have..]).await.map_err(FrameErrorKind::Io)? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameErrorKind::Truncated { have, len: length.len() }),
            n => have += n,
        }
    }
    // A length that does not fit in memory's addresses is oversize as well.
    Ok(Some(usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameErrorKind> {
    match postcard::take_from_bytes(bytes).map_err(FrameErrorKind::Malformed)? {
        (message, []) => Ok(message),
        (_, rest) => Err(FrameErrorKind::Trailing { len: rest.len() }),
    }
}

/// Writes one message.
pub(crate) async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), FrameError> {
    let bytes = encode(message)?;
    writer.write_all(&bytes).await.map_err(|source| FrameErrorKind::Io(source).on("write"))
}

/// One whole frame, length and all.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let error = |kind: FrameErrorKind| kind.on("write");
    let mut frame = vec![0; size_of::<u32>()];
    frame = postcard::to_extend(message, frame)
        .map_err(|source| error(FrameErrorKind::Malformed(source)))?;
    let len = frame.len() - size_of::<u32>();
    match u32::try_from(len) {
        Ok(short) if len <= MAX_FRAME => {
            frame[..size_of::<u32>()].copy_from_slice(&short.to_be_bytes());
            Ok(frame)
        }
        _ => Err(error(FrameErrorKind::Oversize { len })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Greeting, Hello, Reply, Request};
    use proptest::prelude::*;

    /// Reads one message from exactly these bytes, then the end of the stream.
    fn read_bytes<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<Option<T>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut bytes))
    }

    fn check(bytes: &[u8], expect: &str) {
        let got = match read_bytes::<Request>(bytes) {
            Ok(request) => format!("{request:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{bytes:?}");
    }

    #[test]
    fn frames() {
        check(b"", "None");
        check(b"\0\0\0\x01\0", "Some(Status)");
        check(b"\0\0\0\x03\x02\x07\x01", "Some(WatchEvents { from_seq: 7, follow: true })");
        check(b"\0\0", "cannot read a frame: the stream ended after 2 of 4 bytes");
        check(b"\0\0\0\x05\0", "cannot read a frame: the stream ended after 1 of 5 bytes");
        check(b"\0\0\0\x01\x7f", "cannot read a frame: malformed message");
        check(b"\0\0\0\0", "cannot read a frame: malformed message");
        check(b"\0\0\0\x02\0\0", "cannot read a frame: 1 bytes follow the message");
        check(
            b"\0\x10\0\x01",
            "cannot read a frame: 1048577 bytes are more than the 1048576 allowed",
        );
        check(
            b"\xff\xff\xff\xff",
            "cannot read a frame: 4294967295 bytes are more than the 1048576 allowed",
        );
    }

    #[test]
    fn the_bound_holds_for_what_is_written_too() {
        let fits = Hello { magic: *b"keel", version: 1, software: "x".repeat(MAX_FRAME - 16) };
        assert!(encode(&fits).is_ok());
        let beyond = Hello { software: "x".repeat(MAX_FRAME), ..fits };
        assert!(matches!(
            encode(&beyond),
            Err(FrameError { kind: FrameErrorKind::Oversize { .. }, .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_answer_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            // Whether they decode does not matter here; that the call returns does.
            let _ = read_bytes::<Request>(&bytes);
            let _ = read_bytes::<Reply>(&bytes);
        }

        #[test]
        fn arbitrary_payloads_decode_to_something_that_encodes(payload in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
            frame.extend(&payload);
            if let Ok(Some(reply)) = read_bytes::<Reply>(&frame) {
                let again = encode(&reply).unwrap();
                let back = read_bytes::<Reply>(&again).unwrap();
                // Compared as text: a speed-up that is not a number differs from itself.
                prop_assert_eq!(format!("{back:?}"), format!("{:?}", Some(reply)));
            }
            let _ = read_bytes::<Greeting>(&frame);
        }
    }
}
