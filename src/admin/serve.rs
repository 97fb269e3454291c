//! The HTTP server: three pages, one request a connection, everything bounded.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Source;

/// The bounds of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// How long a request's header may take.
    pub(super) header: Duration,
    /// How long a connection may take in all.
    pub(super) whole: Duration,
}

impl Default for Limits {
    /// A scraper and two probes are three connections. One request and its answer of some 20 KB take 10 s over the worst of lines.
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(5),
            whole: Duration::from_secs(10),
        }
    }
}

/// What is held of a request at most: hyper's least, and far more than a scraper sends.
const BUFFER: usize = 8_192;
/// How long to wait after the system refused to accept, for it is out of file descriptors then.
const PAUSE: Duration = Duration::from_millis(50);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves `source` on `listener` until `cancel`: `GET /metrics` in the OpenMetrics text format, `GET /live` and `GET /ready` with 200
/// or 503 and one line of text, which says why not; anything else is 404, any other method 405.
///
/// At most 64 connections at once, of one request each, which must be over within 10 s. No request's body is read. Plain HTTP without
/// authentication: bind it to loopback or a network of your own. Nothing secret is told.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>, cancel: CancellationToken) {
    serve_within(listener, source, cancel, Limits::default()).await;
}

pub(super) async fn serve_within(
    listener: TcpListener,
    source: Arc<dyn Source>,
    cancel: CancellationToken,
    limits: Limits,
) {
    let mut registry = Registry::default();
    source.register(&mut registry);
    let pages = Arc::new(Pages { registry, source });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
                   biased;
                   // What is under way is dropped with the set.
                   () = cancel.cancelled() => return,
                   Some(_) = connections.join_next() => {}
                   accepted = listener.accept(), if connections.len() < limits.connections => match accepted {
                       Ok((stream, _)) => {
                           connections.spawn(timeout(
        limits.whole, connection(stream, Arc::clone(&pages), limits.header)));
                       }
                       Err(error) => {
                           tracing::warn!(%error, "connections for metrics and health cannot be accepted");
                           sleep(PAUSE).await;
                       }
                   },
               }
    }
}

async fn connection(stream: TcpStream, pages: Arc<Pages>, header: Duration) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = pages.answer(&request);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .max_buf_size(BUFFER)
        // A connection that ends with its answer cannot be held open.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request for metrics or health came to nothing");
    }
}

/// What there is to see.
struct Pages {
    registry: Registry,
    source: Arc<dyn Source>,
}

impl Pages {
    fn answer<B>(&self, request: &Request<B>) -> Response<Page> {
        let page = match request.uri().path() {
            "/metrics" => Self::metrics,
            "/live" => Self::live,
            "/ready" => Self::ready,
            _ => {
                return text_page(
                    StatusCode::NOT_FOUND,
                    "not found; there are /metrics, /live and /ready",
                );
            }
        };
        if request.method() != Method::GET {
            let mut refused = text_page(StatusCode::METHOD_NOT_ALLOWED, "GET alone is allowed");
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        page(self)
    }

    fn metrics(&self) -> Response<Page> {
        let mut written = String::new();
        match text::encode(&mut written, &self.registry) {
            Ok(()) => response(StatusCode::OK, OPEN_METRICS, written),
            Err(std::fmt::Error) => text_page(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics cannot be written",
            ),
        }
    }

    fn live(&self) -> Response<Page> {
        if self.source.is_live() {
            text_page(StatusCode::OK, "live")
        } else {
            text_page(
                StatusCode::SERVICE_UNAVAILABLE,
                "not live: only a new process helps",
            )
        }
    }

    fn ready(&self) -> Response<Page> {
        let hindrances = self.source.hindrances();
        let warnings = self.source.warnings();
        if !hindrances.is_empty() {
            let all = [hindrances, warnings].concat().join(", ");
            return text_page(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("not ready: {all}"),
            );
        }
        if warnings.is_empty() {
            return text_page(StatusCode::OK, "ready");
        }
        let line = format!("ready, but: {}", warnings.join(", "));
        text_page(StatusCode::OK, &line)
    }
}

fn text_page(status: StatusCode, line: &str) -> Response<Page> {
    response(status, PLAIN, format!("{line}\n"))
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Page> {
    let mut response = Response::new(Page(Some(text.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Yesterday's health is worse than none.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A body that is there as a whole.
struct Page(Option<Bytes>);

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
