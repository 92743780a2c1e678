//! What a request may cost before anybody has read it.
//!
//! A short request is taken as it comes. A longer one needs a place, which it gets when its length is announced and has until it was
//! read, and there are few: so neither many callers nor slow ones make the agent hold more than these few hold. Nobody waits for a
//! place. As with handshakes, the newcomer gets one, and where all are taken the network that has the most gives up its oldest.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use crate::places::{Place, Upload};

/// The most bytes of a request that needs no place: what nearly all have, many times over.
const SHORT: usize = 4 * 1024;

/// The most bytes of a request.
const REQUEST: usize = 64 * 1024;

/// The most bytes of one that carries a config: that, its names and a reason.
const CONFIG: usize = keel_control::MAX_CONFIG + REQUEST;

/// The most bytes of one that carries a kubeconfig and CAs.
const CREDENTIALS: usize = 192 * 1024;

/// The bytes in front of each message: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// The most bytes of a request of a method.
fn longest(method: &str) -> usize {
    match method {
        "/keel.v1.Config/Apply" => CONFIG,
        "/keel.v1.Cluster/Bootstrap" => CREDENTIALS,
        _ => REQUEST,
    }
}

/// A request on its way in.
pub(crate) struct Request<B> {
    body: B,
    /// Whether its sender may still call that.
    allowed: Box<dyn Fn() -> Result<(), Status> + Send>,
    longest: usize,
    /// The network that it comes from.
    place: Arc<Place>,
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    begun: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Its place, if it is long, and what tells that it has lost it.
    upload: Option<(Upload, Pin<Box<WaitForCancellationFutureOwned>>)>,
}

impl<B> Request<B> {
    pub(crate) fn new(
        body: B,
        method: &str,
        place: Arc<Place>,
        allowed: impl Fn() -> Result<(), Status> + Send + 'static,
    ) -> Self {
        let (longest, allowed) = (longest(method), Box::new(allowed));
        Self { body, allowed, longest, place, prefix: [0; PREFIX], begun: 0, left: 0, upload: None }
    }

    /// Looks at what has come.
    fn came(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            let wanted = if self.left > 0 { self.left } else { PREFIX - self.begun };
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.left > 0 {
                self.left -= now.len();
                continue;
            }
            self.prefix[self.begun..][..now.len()].copy_from_slice(now);
            self.begun += now.len();
            if self.begun == PREFIX {
                self.begun = 0;
                let [_, length @ ..] = self.prefix;
                self.announced(u32::from_be_bytes(length) as usize)?;
            }
        }
        Ok(())
    }

    fn announced(&mut self, length: usize) -> Result<(), Status> {
        if length > self.longest {
            let longest = self.longest;
            return Err(Status::out_of_range(format!(
                "the request is {length} bytes long; it may have {longest}"
            )));
        }
        self.left = length;
        if length > SHORT && self.upload.is_none() {
            let upload = self.place.upload();
            let lost = Box::pin(upload.leave.clone().cancelled_owned());
            self.upload = Some((upload, lost));
        }
        Ok(())
    }
}

impl<B> Body for Request<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some((_, lost)) = &mut this.upload
            && lost.as_mut().poll(cx).is_ready()
        {
            let why = "others needed the place of this request, which came too slowly; try again in a moment";
            return Poll::Ready(Some(Err(Status::resource_exhausted(why))));
        }
        let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
            Some(Ok(frame)) => frame,
        };
        let looked = frame.data_ref().map_or(Ok(()), |bytes| this.came(bytes));
        let looked = looked.and_then(|()| (this.allowed)());
        Poll::Ready(Some(looked.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::{Limits, Places};

    fn place() -> Arc<Place> {
        Arc::new(Places::new(Limits::default()).take([192, 0, 2, 7].into()))
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    /// Messages of these lengths to a method, in pieces of every size: whether it then has a place, or why they are refused.
    fn check(method: &str, lengths: &[usize], expect: Result<bool, &str>) {
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        for size in [1, 3, 4, 5, 6, 4096, bytes.len().max(1)] {
            let mut request = Request::new((), method, place(), || Ok(()));
            let came = bytes.chunks(size).try_for_each(|piece| request.came(piece));
            let got = came.map(|()| request.upload.is_some());
            let got = got.map_err(|status| status.message().to_owned());
            assert_eq!(got.as_ref().map_err(String::as_str), expect.as_ref().map_err(|it| *it));
        }
    }

    #[test]
    fn lengths() {
        const GET: &str = "/keel.v1.Node/GetUnit";
        const APPLY: &str = "/keel.v1.Config/Apply";

        check(GET, &[], Ok(false));
        check(GET, &[0, 0, SHORT, 1], Ok(false));
        check(GET, &[SHORT + 1], Ok(true));
        check(GET, &[3, REQUEST, 3], Ok(true));
        check(GET, &[REQUEST + 1], Err("the request is 65537 bytes long; it may have 65536"));
        check("/keel.v1.Cluster/Bootstrap", &[CREDENTIALS], Ok(true));
        check(APPLY, &[CONFIG], Ok(true));
        check(APPLY, &[CONFIG + 1], Err("the request is 327681 bytes long; it may have 327680"));
        check(
            GET,
            &[1, u16::MAX.into(), 1 << 20],
            Err("the request is 1048576 bytes long; it may have 65536"),
        );
    }
}
