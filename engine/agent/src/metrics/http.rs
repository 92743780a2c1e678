//! One page over HTTP/1.1: `GET /metrics`.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Page;

/// Those who may ask at one time. One Prometheus is one.
const ASKING: usize = 8;

/// How long one who asks may take, in whole.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Prometheus is told about the page's format.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    Address(SocketAddr),
    Socket(PathBuf),
}

impl FromStr for Where {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.starts_with('/') {
            true => Ok(Self::Socket(text.into())),
            false => text.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Listens. What an earlier agent left of a socket is replaced.
pub(crate) async fn listen(place: &Where) -> io::Result<Listener> {
    match place {
        Where::Address(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
        Where::Socket(path) => {
            clear(path)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            Ok(Listener::Unix(listener))
        }
    }
}

/// Takes a socket away that nobody listens on, and nothing else.
fn clear(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    match path.symlink_metadata() {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Answers until the agent ends.
pub(crate) async fn serve(listener: Listener, page: Arc<Page>) {
    /// Out of file descriptors: trying again at once would only burn time.
    const PAUSE: Duration = Duration::from_millis(250);

    let places = Arc::new(Semaphore::new(ASKING));
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            }
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>)
            }
        };
        let Ok(stream) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        // With every place taken the newcomer learns at once, by a closed connection.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let page = page.clone();
        tokio::spawn(async move {
            let answered = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .max_buf_size(16 * 1024)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(page.clone(), request)),
                );
            // What became of it is between it and whoever asked.
            let _ = timeout(PATIENCE, answered).await;
            drop(place);
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn answer(
    page: Arc<Page>,
    request: Request<Incoming>,
) -> Result<Response<String>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match page.text().await {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "only /metrics\n".to_owned()),
    };
    let format = match status {
        StatusCode::OK => FORMAT,
        _ => "text/plain; charset=utf-8",
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(format));
    Ok(response)
}
