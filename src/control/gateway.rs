//! The gateway's end of the control channel at work: runs a [`Link`] over gRPC streams, one after the other.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming, transport::Channel};

use super::{
    GatewayHost, MAX_MESSAGE_BYTES, SeatReport,
    codec::{decode_sidecar, encode_gateway},
    link::{DetachReason, Effect, Link},
    message::FromGateway,
    status::reason_of,
};
use crate::{
    clock::Clock,
    id::{GatewayId, Revision},
    proto::{self, control_service_client::ControlServiceClient},
};

/// Messages handed to gRPC and not yet written: enough to keep the connection busy. The rest stays with the link, as state.
const OUTBOUND: usize = 4;

/// Why the control channel is at its end.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was cancelled.
    Cancelled,
    /// Another process of this gateway id has attached. Players are sent there from now on, and this process must not attach again:
    /// it would take its successor's place. What plays here goes on until it ends by itself.
    Fenced,
}

/// Keeps the gateway attached to the sidecar behind `channel` until `cancel`: attaches, and attaches again with backoff for as
/// long as it takes. It tells `host` what arrives and reports what happened there. It ends by itself in one case alone,
/// [`Ended::Fenced`].
///
/// `clock` times heartbeats, silence and retries. The waiting itself is tokio's, so a clock that a test moves by hand must be
/// moved for the channel to live; such a test gives the channel the system's clock and its host the other.
pub async fn run(
    channel: Channel,
    host: Arc<dyn GatewayHost>,
    clock: Clock,
    cancel: CancellationToken,
) -> Ended {
    let description = host.describe();
    // The incarnation is random, and half of it is all that spreading the retries needs.
    let seed = u64::try_from(description.incarnation.0 >> 64).unwrap_or_default();
    let mut runner = Runner {
        link: Link::new(clock.now(), seed),
        gateway: description.id,
        client: ControlServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        stream: None,
        host,
        clock,
        last_failure: None,
        last_status: None,
        fenced: false,
    };
    runner.drive(&cancel).await
}

struct Runner {
    link: Link,
    gateway: GatewayId,
    client: ControlServiceClient<Channel>,
    stream: Option<Stream>,
    host: Arc<dyn GatewayHost>,
    clock: Clock,
    /// What was logged last, so that an outage is told once and not every three seconds.
    last_failure: Option<DetachReason>,
    last_status: Option<Status>,
    fenced: bool,
}

impl Runner {
    async fn drive(&mut self, cancel: &CancellationToken) -> Ended {
        let report_ready = self.host.report_ready();
        loop {
            self.carry_out();
            if self.fenced {
                return Ended::Fenced;
            }
            let now = self.clock.now();
            let due = self.link.poll_timeout();
            let wait = due.map_or(Duration::MAX, |due| due.saturating_duration_since(now));
            let wants_transmit = self.link.wants_transmit();
            tokio::select! {
                () = cancel.cancelled() => break,
                () = tokio::time::sleep(wait) => self.link.timer(self.clock.now()),
                () = report_ready.notified() => self.link.report_ready(self.clock.now()),
                event = next_event(&mut self.stream, wants_transmit) => self.handle(event),
            }
        }
        if self.link.is_attached() {
            tracing::info!(gateway = %self.gateway, "control channel closed");
        }
        if self.stream.take().is_some() {
            self.host.detached();
        }
        Ended::Cancelled
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Writable => {
                if let (Some(stream), Some(message)) = (&self.stream, self.link.poll_transmit()) {
                    stream.send(message);
                }
            }
            Event::Received(Ok(Some(message))) => match decode_sidecar(message) {
                Ok(message) => self.link.received(now, message),
                Err(malformed) => {
                    tracing::error!(gateway = %self.gateway, %malformed, "the sidecar broke the control protocol");
                    self.link.disconnected(now, DetachReason::Violation);
                }
            },
            Event::Received(Ok(None)) => self.link.disconnected(now, DetachReason::Closed),
            Event::Received(Err(status)) => {
                let reason = reason_of(&status);
                self.last_status = Some(status);
                self.link.disconnected(now, reason);
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.link.poll_effect() {
            match effect {
                Effect::Connect => self.connect(),
                Effect::Disconnect {
                    reason,
                    was_attached,
                    retry_in,
                } => {
                    // The host collects changes for the report since its seats were read, answered or not.
                    let collects = self.stream.take().is_some();
                    match retry_in {
                        Some(retry_in) => self.log_failure(reason, was_attached, retry_in),
                        None => self.give_up(),
                    }
                    if was_attached || collects {
                        self.host.detached();
                    }
                }
                Effect::InstallKeys(keys) => self.host.install_keys(&keys),
                Effect::ResetLog {
                    lineage,
                    revision,
                    dead,
                } => self.host.reset_log(lineage, revision, &dead),
                Effect::Attached { time, idle_timeout } => {
                    self.last_failure = None;
                    let revision = self.link.position().map_or(Revision(0), |p| p.revision);
                    tracing::info!(gateway = %self.gateway, %revision, "attached to the sidecar");
                    self.host.attached(time, idle_timeout);
                }
                Effect::Apply(range) => self.host.apply_revocations(&range),
                Effect::Heartbeat { time, head } => self.host.heartbeat(time, head),
                Effect::IdleMoved(sessions) => self.host.idle_moved(&sessions),
                Effect::Drain(drain) => self.host.drain(drain),
                Effect::TakeReport => {
                    let mut report = SeatReport::default();
                    self.host.take_report(&mut report);
                    self.link.report(report);
                }
            }
        }
    }

    fn connect(&mut self) {
        self.link
            .connected(self.host.describe(), self.host.live_seats());
        let (sender, receiver) = mpsc::channel(OUTBOUND);
        let mut client = self.client.clone();
        // The sidecar answers only once it has read Attach, which goes out while this is being awaited.
        let answer = Box::pin(async move { client.attach(ReceiverStream::new(receiver)).await });
        self.stream = Some(Stream {
            sender,
            inbound: Inbound::Opening(answer),
        });
    }

    fn give_up(&mut self) {
        tracing::error!(
            gateway = %self.gateway,
            "another process of this gateway id has attached and taken this one's place, which does not attach again; \
             if both are meant to run, give one of the two an id of its own"
        );
        self.fenced = true;
    }

    fn log_failure(&mut self, reason: DetachReason, was_attached: bool, retry_in: Duration) {
        let status = self.last_status.take();
        let status = status.as_ref().map(tracing::field::display);
        let gateway = &self.gateway;
        if was_attached {
            tracing::warn!(%gateway, reason = reason.label(), status, ?retry_in, "control channel lost; play goes on");
        } else if self.last_failure != Some(reason) {
            tracing::warn!(%gateway, reason = reason.label(), status, ?retry_in, "cannot attach to the sidecar");
        } else {
            tracing::debug!(%gateway, reason = reason.label(), status, ?retry_in, "still cannot attach to the sidecar");
        }
        self.last_failure = Some(reason);
    }
}

/// One gRPC stream; dropping it resets it.
struct Stream {
    sender: mpsc::Sender<proto::GatewayMessage>,
    inbound: Inbound,
}

type Answer = Pin<
    Box<dyn Future<Output = Result<Response<Streaming<proto::SidecarMessage>>, Status>> + Send>,
>;

enum Inbound {
    Opening(Answer),
    Open(Box<Streaming<proto::SidecarMessage>>),
}

enum Event {
    /// The stream may take a message.
    Writable,
    /// A message, the end, or why there is none.
    Received(Result<Option<proto::SidecarMessage>, Status>),
}

impl Stream {
    fn send(&self, message: FromGateway) {
        // Only this task sends, and only after `Writable`: it fails when the stream has ended, and reading it will tell why.
        let _ = self.sender.try_send(encode_gateway(message));
    }
}

/// The next event of the stream, if there is one. Nothing is lost when it is dropped before it is ready.
async fn next_event(stream: &mut Option<Stream>, wants_transmit: bool) -> Event {
    let Some(Stream { sender, inbound }) = stream else {
        return std::future::pending().await;
    };
    // A stream that takes no more messages has ended, and reading it will tell why.
    let wants_transmit = wants_transmit && !sender.is_closed();
    tokio::select! {
        _ = sender.reserve(), if wants_transmit => Event::Writable,
        received = inbound.next() => Event::Received(received),
    }
}

impl Inbound {
    async fn next(&mut self) -> Result<Option<proto::SidecarMessage>, Status> {
        loop {
            match self {
                Self::Opening(answer) => {
                    let streaming = answer.as_mut().await?.into_inner();
                    *self = Self::Open(Box::new(streaming));
                }
                Self::Open(streaming) => return streaming.message().await,
            }
        }
    }
}
