//! Answers that would last for ever, and do not: the streams of the health and reflection services.
//!
//! A call's deadline ends with the first word of its answer. A stream of health goes on from there for as long as its caller likes, and so
//! does reflection while more is asked. Here each ends after a while, with DEADLINE_EXCEEDED, which for both says: ask again.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::StreamExt;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use tonic::{Status, body::Body, codegen::http, server::NamedService};
use tower::Service;

/// A service whose answers end.
#[derive(Debug, Clone)]
pub(super) struct Lasting<S> {
    pub(super) inner: S,
    pub(super) longest: Duration,
}

impl<S: NamedService> NamedService for Lasting<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Lasting<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (answer, longest) = (self.inner.call(request), self.longest);
        Box::pin(async move { Ok(answer.await?.map(|body| ending(body, longest))) })
    }
}

/// The same answer, as much of it as comes in time.
fn ending(body: Body, longest: Duration) -> Body {
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&has_ended);
    let end = async move {
        tokio::time::sleep(longest).await;
        ended.store(true, Ordering::Relaxed);
    };
    // The end is looked at first: a stream that always has something to say ends too.
    let in_time = StreamBody::new(BodyStream::new(body).take_until(Box::pin(end)));
    Body::new(in_time.with_trailers(async move {
        let has_ended = has_ended.load(Ordering::Relaxed);
        has_ended.then(|| {
            let status = Status::deadline_exceeded("a stream does not last for ever: ask again");
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers)?;
            Ok(trailers)
        })
    }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::body::Frame;
    use tonic::Code;
    use tower::service_fn;

    use super::*;

    fn lasting(
        longest: Duration,
        answer: impl Fn() -> Body + Clone,
    ) -> impl Service<http::Request<()>, Response = http::Response<Body>, Error = Infallible> {
        let inner = service_fn(move |_: http::Request<()>| {
            std::future::ready(Ok::<_, Infallible>(http::Response::new(answer())))
        });
        Lasting { inner, longest }
    }

    #[tokio::test]
    async fn a_stream_ends_though_it_has_more_to_say() {
        let endless = || {
            let words = futures_util::stream::unfold((), async |()| {
                tokio::task::yield_now().await;
                let word = Frame::data(bytes::Bytes::from_static(b"on"));
                Some((Ok::<_, Status>(word), ()))
            });
            Body::new(StreamBody::new(words))
        };
        let silent = || {
            Body::new(StreamBody::new(futures_util::stream::pending::<
                Result<Frame<bytes::Bytes>, Status>,
            >()))
        };
        for answer in [endless as fn() -> Body, silent] {
            let mut service = lasting(Duration::from_millis(20), answer);
            let said = service.call(http::Request::new(())).await.unwrap();
            let said = said.into_body().collect();
            let said = tokio::time::timeout(Duration::from_secs(10), said).await;
            let said = said.expect("it goes on").unwrap();
            let status = Status::from_header_map(said.trailers().unwrap()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded);
        }
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_as_it_was() {
        let short = || Body::new("done".to_owned());
        let mut service = lasting(Duration::from_secs(3_600), short);
        let said = service.call(http::Request::new(())).await.unwrap();
        let said = said.into_body().collect().await.unwrap();
        assert!(said.trailers().is_none());
        assert_eq!(said.to_bytes(), "done");
    }
}
