//! What the fuzz targets reach: the reader of frames, on bytes that nobody has checked.

use std::fmt::Debug;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame;
use crate::message::{Greeting, Hello, Reply, Request};

/// Reads the bytes as frames of each kind of message, to their end or to the first that is none.
///
/// # Panics
/// If a message that was read is not the same after it was written and read again.
pub fn frames(bytes: &[u8]) {
    read::<Greeting>(bytes);
    read::<Hello>(bytes);
    read::<Request>(bytes);
    read::<Reply>(bytes);
}

fn read<T: DeserializeOwned + Serialize + Debug>(mut bytes: &[u8]) {
    while let Ok(Some(message)) = at_once::<T>(&mut bytes) {
        // A message may take more bytes than it came in: postcard reads numbers that are written longer than need be.
        let Ok(written) = frame::encode(&message) else { return };
        let again = at_once::<T>(&mut &written[..]);
        assert!(
            matches!(&again, Ok(Some(again)) if format!("{again:?}") == format!("{message:?}")),
            "{message:?} is read back as {again:?}"
        );
    }
}

/// Bytes in memory are there at once, so nothing waits.
fn at_once<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<Option<T>, frame::FrameError> {
    match pin!(frame::read::<T>(bytes)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a slice never waits"),
    }
}
