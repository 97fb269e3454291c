//! What every call goes through: its deadline, and what is known of it for the audit.
//!
//! A caller says by `grpc-timeout` how long it waits, and the listener says how long a call may take; whichever is shorter, the work ends
//! with it, and the answer is DEADLINE_EXCEEDED. (tonic knows the same header, and would say CANCELLED, which is what a caller says who
//! has gone.) The time is that of tokio's timers, as all waiting is.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::task::futures::TaskLocalFuture;
use tonic::{Status, codegen::http};
use tower::{Layer, Service};

use super::{
    audit::{self, CALL, Call, Gate},
    refusal::Refusal,
    serve::code_of,
};

/// What a caller's deadline is shortened by, at most: the answer has to travel, and tonic's own deadline must not come first.
const TRAVEL: Duration = Duration::from_millis(5);

/// How long before the end of its call a wait ends that is not what the call is for: enough to be told what was done, on a busy machine.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Puts a deadline on calls and says whose they are.
#[derive(Debug, Clone)]
pub(super) struct CallLayer {
    pub(super) longest: Duration,
    pub(super) gate: Arc<Gate>,
}

impl<S> Layer<S> for CallLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls {
            inner,
            layer: self.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Calls<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, B, R> Service<http::Request<B>> for Calls<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let CallLayer { longest, gate } = &self.layer;
        let asked = request.headers().get("grpc-timeout");
        let asked = asked
            .and_then(|value| value.to_str().ok())
            .and_then(timeout);
        let patience = asked.map_or(*longest, |asked| asked.saturating_sub(TRAVEL).min(*longest));
        let deadline = Box::pin(tokio::time::sleep(patience));
        let call = Call::of(&request, deadline.deadline(), Arc::clone(gate));
        Answer {
            has_time: !patience.is_zero(),
            answer: Box::pin(CALL.scope(call, self.inner.call(request))),
            deadline,
        }
    }
}

/// The answer to a call, or that it has taken too long.
pub(super) struct Answer<F> {
    /// Whoever has none has nothing begun for it.
    has_time: bool,
    answer: Pin<Box<TaskLocalFuture<Call, F>>>,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl<F, R, E> Future for Answer<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: Default,
{
    type Output = Result<http::Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // What is done by now is told, however late it is.
        if self.has_time
            && let Poll::Ready(answer) = self.answer.as_mut().poll(cx)
        {
            if let (Ok(response), Some(call)) = (&answer, self.answer.as_mut().take_value()) {
                CALL.sync_scope(call, || audit::answered(code_of(response)));
            }
            return Poll::Ready(answer);
        }
        if self.has_time {
            ready!(self.deadline.as_mut().poll(cx));
        }
        let too_late = || Status::from(Refusal::TooLate);
        let status = match self.answer.as_mut().take_value() {
            Some(call) => CALL.sync_scope(call, too_late),
            None => too_late(),
        };
        Poll::Ready(Ok(status.into_http()))
    }
}

/// What `wait` comes to, if that is in time for the present call to be answered before its deadline. For waits after something that is done
/// already: whoever asked for it is to hear of it, and not that the call took too long.
pub(super) async fn in_time<T>(wait: impl Future<Output = T>) -> Option<T> {
    match audit::ends_at() {
        Some(ends_at) => {
            let last = ends_at.checked_sub(LAST_WORD).unwrap_or(ends_at);
            tokio::time::timeout_at(last, wait).await.ok()
        }
        None => Some(wait.await),
    }
}

/// How long a caller waits: at most eight digits and a unit (gRPC over HTTP/2, "Timeout"). What is malformed is no deadline.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 60 * 60)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::{pending, ready},
    };

    use tonic::Code;
    use tower::service_fn;

    use super::*;
    use crate::clock::Clock;

    type Response = http::Response<String>;

    fn layer(longest: Duration) -> CallLayer {
        let gate = Arc::new(Gate::new(Clock::system()));
        CallLayer { longest, gate }
    }

    fn request(timeout: Option<&str>) -> http::Request<()> {
        let mut request = http::Request::new(());
        if let Some(timeout) = timeout {
            let headers = request.headers_mut();
            headers.insert("grpc-timeout", timeout.parse().unwrap());
        }
        request
    }

    /// What a caller is told, whose work never ends.
    async fn waited(longest: Duration, timeout: Option<&str>) -> Code {
        let endless = service_fn(|_| pending::<Result<Response, Infallible>>());
        let answer = layer(longest).layer(endless).call(request(timeout));
        let answer = answer.await.unwrap();
        Status::from_header_map(answer.headers()).unwrap().code()
    }

    #[tokio::test]
    async fn work_ends_with_the_callers_patience_or_the_listeners() {
        let (short, hour) = (Duration::from_millis(20), Duration::from_secs(3_600));
        for (longest, timeout) in [(hour, Some("25m")), (short, None), (short, Some("1H"))] {
            assert_eq!(waited(longest, timeout).await, Code::DeadlineExceeded);
        }
    }

    #[tokio::test]
    async fn nothing_is_begun_for_whom_no_time_is_left() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let work = service_fn(move |_| {
            let sender = sender.clone();
            async move {
                sender.send(()).unwrap();
                Ok::<_, Infallible>(Response::default())
            }
        });
        let mut calls = layer(Duration::from_secs(10)).layer(work);
        for (timeout, expected) in [(Some("5m"), false), (Some("1n"), false), (Some("9S"), true)] {
            calls.call(request(timeout)).await.unwrap();
            let begun = receiver.try_recv().is_ok();
            assert_eq!(begun, expected, "{timeout:?}");
        }
    }

    #[tokio::test]
    async fn what_is_done_is_told_however_late() {
        let done = service_fn(|_| ready(Ok::<_, Infallible>(Response::new("done".to_owned()))));
        let mut calls = layer(Duration::from_nanos(1)).layer(done);
        let answer = calls.call(request(None)).await.unwrap();
        assert_eq!(answer.into_body(), "done");
    }

    #[tokio::test]
    async fn a_wait_for_more_than_was_done_leaves_time_to_say_so() {
        let done = service_fn(|_| async {
            let more = in_time(pending::<()>()).await;
            assert_eq!(more, None);
            let more = in_time(ready("at once")).await;
            Ok::<_, Infallible>(Response::new(more.unwrap().to_owned()))
        });
        let mut calls = layer(Duration::from_secs(10)).layer(done);
        for timeout in ["40m", "26m", "6m"] {
            let answer = calls.call(request(Some(timeout))).await.unwrap();
            assert_eq!(answer.into_body(), "at once", "{timeout}");
        }
    }

    #[test]
    fn a_callers_deadline_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("123456789S", None),
            ("5s", None),
            ("5é", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }
}
