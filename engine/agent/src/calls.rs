//! Every call on its way through: who may, who did, and what came of it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use keel_control::Control;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service as TowerService;

use crate::audit::{Audit, Record};
use crate::authz;
use crate::effect::Effect;
use crate::init::Init;
use crate::metrics::Metrics;
use crate::peer::Peer;
use crate::places::{CallKind, Full, Place};
use crate::requests;
use crate::trust::State;

/// What calls on all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) audit: Audit,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) init: Arc<Init>,
}

/// The calls of one connection.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) routes: Routes,
    pub(crate) trust: watch::Receiver<Arc<State>>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) place: Arc<Place>,
    /// Cancelled when streams have to end.
    pub(crate) over: CancellationToken,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Observed>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Observed>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let calls = self.clone();
        // It counts from here on, so that what is dropped before it ever ran is on the record too.
        let call = Call::new(&calls, request.uri().path());
        Box::pin(async move { Ok(calls.answer(call, request).await) })
    }
}

impl Calls {
    async fn answer(
        mut self,
        mut call: Call,
        mut request: Request<Incoming>,
    ) -> Response<Observed> {
        let state = self.trust.borrow().clone();
        let role = match authz::decide(&state, &self.peer, request.uri().path()) {
            Ok(role) => role,
            Err(status) => {
                call.refused = true;
                return self.observe(call, (*status).into_http());
            }
        };
        if let Err(full) = call.number {
            call.refused = true;
            return self.observe(call, Status::resource_exhausted(full.to_string()).into_http());
        }
        if self.peer.client.is_none() {
            call.record.roles = vec![role.word().to_owned()];
        }
        request.extensions_mut().insert(self.peer.clone());
        let method = authz::known(request.uri().path()).unwrap_or_default();
        let changes = authz::changes(method);
        if changes {
            if self.peer.client.is_none() {
                let effect = Effect::new(self.shared.clone());
                request.extensions_mut().insert(effect.clone());
                call.effect = Some(effect);
            }
            call.record.digest_before = self.digest().await;
        }
        // A request that never ends would keep its place for as long.
        // And whoever may call when it begins may not any more when it is whole: the node may have been closed meanwhile.
        let (trust, peer) = (self.trust.clone(), self.peer.clone());
        let allowed = move || {
            let state = trust.borrow().clone();
            authz::decide(&state, &peer, method).map(drop).map_err(|status| *status)
        };
        let request =
            request.map(|body| requests::Request::new(body, method, self.place.clone(), allowed));
        let answer = TowerService::call(&mut self.routes, request);
        let response = match tokio::time::timeout(ANSWERED, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let why = format!(
                    "the request did not come whole, or was not answered, within {} s",
                    ANSWERED.as_secs()
                );
                Status::deadline_exceeded(why).into_http()
            }
        };
        if changes {
            call.record.digest_after = self.digest().await;
        }
        self.observe(call, response)
    }

    /// The digest of the running graph, where init tells it.
    async fn digest(&self) -> Option<String> {
        let status = self.shared.init.ask(Control::status).await;
        status.ok().map(|status| status.digest)
    }

    fn observe(&self, mut call: Call, response: Response<Body>) -> Response<Observed> {
        let (parts, body) = response.into_parts();
        // A call that fails before it has said anything says so in its headers.
        call.ended(&parts.headers);
        let over = Box::pin(self.over.clone().cancelled_owned());
        Response::from_parts(parts, Observed { body, over, call, ended: false })
    }
}

/// A call. What came of it is on the record when it is dropped.
#[derive(Debug)]
struct Call {
    record: Record,
    began: Instant,
    code: Option<Code>,
    /// The caller may not call that.
    refused: bool,
    /// What comes of it, where that is not to be taken on trust: it may change the machine, and nobody knows who calls.
    effect: Option<Arc<Effect>>,
    shared: Arc<Shared>,
    place: Arc<Place>,
    /// Its number among all calls that run.
    number: Result<u64, Full>,
}

impl Call {
    fn new(calls: &Calls, method: &str) -> Self {
        // Whatever else stands there may be long, or hold what nobody should read.
        let known = authz::known(method).unwrap_or("unknown");
        let kind = if authz::is_endless(known) { CallKind::Endless } else { CallKind::Bounded };
        let number = calls.place.begin(known, kind);
        let roles = calls.peer.client.iter().flat_map(|client| &client.roles);
        let record = Record {
            peer: calls.peer.address.to_string(),
            subject: calls.peer.subject().to_owned(),
            roles: roles.map(|role| role.word().to_owned()).collect(),
            method: known.to_owned(),
            ..Record::default()
        };
        Self {
            record,
            began: Instant::now(),
            code: None,
            refused: false,
            effect: None,
            shared: calls.shared.clone(),
            place: calls.place.clone(),
            number,
        }
    }

    fn ended(&mut self, headers: &HeaderMap) {
        let Some(status) = Status::from_header_map(headers) else { return };
        self.code = Some(status.code());
        if status.code() != Code::Ok {
            self.record.why = Some(status.message().to_owned());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Ok(number) = self.number {
            self.place.end(number);
        }
        let mut record = std::mem::take(&mut self.record);
        let code = match self.code {
            Some(code) => code,
            None => {
                record.why = Some("the caller left before the end".to_owned());
                Code::Cancelled
            }
        };
        record.result = name(code).to_owned();
        record.at(SystemTime::now(), self.began.elapsed());
        self.shared.metrics.called(&record.method, name(code));
        if self.refused {
            // Anybody can be refused as often as he likes: that must not push out what was done.
            return self.shared.audit.call_refused(record);
        }
        if let Some(effect) = self.effect.take() {
            return effect.keep(record);
        }
        let changes = authz::changes(&record.method);
        self.shared.audit.called(record, changes);
    }
}

/// A code as the specification of gRPC writes it.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// How long a call may take until its answer begins, its request included. Init answers within ten seconds, after others.
const ANSWERED: Duration = Duration::from_secs(20);

/// What a stream says that has to end with its connection.
const OVER: &str = "the connection is closed by the node: connect again";

/// An answer on its way to the caller.
#[derive(Debug)]
pub(crate) struct Observed {
    body: Body,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
    call: Call,
    ended: bool,
}

impl http_body::Body for Observed {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        this.call.ended(trailers);
                    }
                }
                Some(Err(_)) | None => this.ended = true,
            }
            return Poll::Ready(frame);
        }
        if this.over.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.ended = true;
        let mut trailers = HeaderMap::new();
        // Its text is one that a header can hold.
        let _ = Status::unavailable(OVER).add_header(&mut trailers);
        this.call.code = Some(Code::Unavailable);
        this.call.record.why = Some(OVER.to_owned());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::body::Bytes;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::time::Instant;

    use super::*;
    use crate::places::{Limits, Places};
    use crate::trust::{self, Trust};

    const CHECK: &str = "/grpc.health.v1.Health/Check";

    /// A connection to a node in maintenance, in memory: what a client sends its requests by, and the node's places.
    async fn connect<B>(
        folder: &std::path::Path,
    ) -> (hyper::client::conn::http2::SendRequest<B>, Arc<Place>)
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let nowhere = folder.join("no-ca.crt");
        let trust = Trust::load(trust::Places {
            config: None,
            config_crl: None,
            cluster: nowhere.clone(),
            cluster_crl: nowhere,
        });
        let address: IpAddr = [192, 0, 2, 7].into();
        let places = Places::new(Limits::default());
        let mut place = places.take(address);
        place.shaken().unwrap();
        let place = Arc::new(place);
        let (_reporter, health) = tonic_health::server::health_reporter();
        let calls = Calls {
            routes: Routes::new(health),
            trust: trust.subscribe(),
            shared: Arc::new(Shared {
                audit: Audit::start(&folder.join("audit")).unwrap(),
                metrics: Arc::default(),
                init: Init::new(folder.join("no-init.sock")),
            }),
            peer: Arc::new(Peer::new((address, 40_112).into(), None, &trust.subscribe().borrow())),
            place: place.clone(),
            over: CancellationToken::new(),
        };
        let (near, far) = tokio::io::duplex(64 * 1024);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(async move {
            let _trust = trust;
            let _ = server.serve_connection(TokioIo::new(far), calls).await;
        });
        let io = TokioIo::new(near);
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        (send, place)
    }

    fn request<B>(body: B) -> Request<B> {
        let request = Request::post(format!("https://node{CHECK}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        request.body(body).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_comes_whole_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (mut send, place) = connect(folder.path()).await;
        // Five bytes are announced, two come, and then nothing.
        let first = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 5, b'a', b'b']));
        let never = tokio_stream::StreamExt::chain(
            tokio_stream::once(Ok::<_, Infallible>(first)),
            tokio_stream::pending(),
        );
        let began = Instant::now();
        let answer = send.send_request(request(StreamBody::new(never))).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains("did not come whole"), "{status:?}");
        let took = began.elapsed();
        assert!(took >= ANSWERED && took < ANSWERED + Duration::from_secs(1), "{took:?}");
        drop(answer);
        // Its place among the calls is free again.
        while place.idle_since().is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_whole_is_answered_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut send, _place) = connect(folder.path()).await;
        let began = Instant::now();
        let answer = send.send_request(request(Full::new(Bytes::from_static(&[0; 5])))).await;
        let answer = answer.unwrap().into_body().collect().await.unwrap();
        let status = Status::from_header_map(answer.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
