//! The sidecar's end of the control channel at work: runs an [`Attachment`] for each gRPC stream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Request, Response, Status, Streaming};

use super::{
    AttachRefusal, AttachmentId, MAX_MESSAGE_BYTES, RevocationRange, SidecarHost,
    attachment::{Action, Attachment, EndReason, RANGE_EVENTS, Registered},
    codec::{decode_gateway, encode_sidecar},
    openings::Openings,
    status::status_of,
};
use crate::{
    clock::Clock,
    id::Revision,
    proto::{
        self,
        control_service_server::{ControlService, ControlServiceServer},
    },
    rpc,
};

/// Messages handed to gRPC and not yet written: four ranges of 15 KB. What follows stays in the log.
const OUTBOUND: usize = 4;

/// The control service over `host`, for a server of its own: see [`service_until`], which can also end its streams.
pub fn service(
    host: Arc<dyn SidecarHost>,
    clock: Clock,
) -> ControlServiceServer<impl ControlService> {
    service_until(host, clock, CancellationToken::new())
}

/// The control service over `host`. Control streams have no end of their own, so a graceful shutdown of the server would wait for
/// them for ever: `cancel` ends them, and gateways attach again elsewhere or later.
///
/// A caller without a gateway's certificate (see [`rpc::peer`]) is refused. `clock` times heartbeats and silence; the waiting
/// itself is tokio's, so a test that moves time by hand gives the service the system's clock and its host the other.
pub fn service_until(
    host: Arc<dyn SidecarHost>,
    clock: Clock,
    cancel: CancellationToken,
) -> ControlServiceServer<impl ControlService> {
    ControlServiceServer::new(Service {
        host,
        clock,
        cancel,
        openings: Openings::default(),
    })
    .max_decoding_message_size(MAX_MESSAGE_BYTES)
    .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

struct Service {
    host: Arc<dyn SidecarHost>,
    clock: Clock,
    cancel: CancellationToken,
    openings: Openings,
}

#[tonic::async_trait]
impl ControlService for Service {
    type AttachStream = Outbound;

    async fn attach(
        &self,
        request: Request<Streaming<proto::GatewayMessage>>,
    ) -> Result<Response<Outbound>, Status> {
        let peer = rpc::peer(&request);
        let address = peer.as_ref().map(|peer| peer.address);
        let Some(rpc::Role::Gateway(gateway)) = peer.and_then(|peer| peer.role) else {
            tracing::warn!(?address, "attach refused: no gateway's certificate");
            let refused = EndReason::Refused(AttachRefusal::WrongIdentity);
            return Err(closing_status(refused));
        };
        // Whoever drops this future or the stream that it makes (the connection broke, the server stops) drops all of it.
        let opening = Opening {
            machine: Attachment::new(self.clock.now(), gateway.clone()),
            host: Arc::clone(&self.host),
            clock: self.clock.clone(),
            inbound: request.into_inner(),
        };
        let turn = self.openings.begin(gateway.clone());
        let opened = tokio::select! {
            opened = opening.open() => opened,
            () = turn.replaced() => Err(EndReason::Replaced),
            () = self.cancel.cancelled() => Err(EndReason::ShuttingDown),
        };
        drop(turn);
        let session = opened.map_err(|reason| {
            tracing::warn!(%gateway, ?address, reason = reason.label(), "attach refused");
            closing_status(reason)
        })?;
        tracing::debug!(%gateway, ?address, "control stream is up");
        let (sender, receiver) = mpsc::channel(OUTBOUND);
        let cancel = self.cancel.clone();
        let task = tokio::spawn(async move {
            let reason = session.stream(sender, cancel).await;
            tracing::info!(%gateway, ?address, reason = reason.label(), "gateway detached");
            reason
        });
        Ok(Response::new(Outbound {
            messages: receiver,
            task: Some(AbortOnDropHandle::new(task)),
        }))
    }
}

fn closing_status(reason: EndReason) -> Status {
    status_of(reason).unwrap_or_else(|| Status::cancelled(reason.to_string()))
}

/// The response stream: what the stream's task sends, then why it ended. Dropping it ends the task.
struct Outbound {
    messages: mpsc::Receiver<proto::SidecarMessage>,
    /// None once its end has been told.
    task: Option<AbortOnDropHandle<EndReason>>,
}

impl tokio_stream::Stream for Outbound {
    type Item = Result<proto::SidecarMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(message) = ready!(self.messages.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let Some(task) = &mut self.task else {
            return Poll::Ready(None);
        };
        let ended = ready!(Pin::new(task).poll(cx));
        self.task = None;
        Poll::Ready(match ended {
            Ok(reason) => status_of(reason).map(Err),
            Err(_) => Some(Err(Status::internal("the stream's task failed"))),
        })
    }
}

/// An attachment in the host's books; its end is told there however the stream ends.
struct Registration {
    host: Arc<dyn SidecarHost>,
    id: AttachmentId,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.host.detach(self.id);
    }
}

/// A stream whose gateway has not been answered yet.
struct Opening {
    machine: Attachment,
    host: Arc<dyn SidecarHost>,
    clock: Clock,
    inbound: Streaming<proto::GatewayMessage>,
}

impl Opening {
    /// Reads Attach and does what has to be done before the answer, one thing after the other.
    async fn open(mut self) -> Result<Session, EndReason> {
        let mut registration = None;
        // Before the log's state is read, so that no later head is missed.
        let heads = self.host.watch_head();
        while !self.machine.is_streaming() {
            match self.machine.poll_action() {
                Some(Action::Register) => registration = self.register().await,
                Some(Action::FindDead) => self.find_dead().await,
                Some(Action::End(reason)) => return Err(reason),
                // The others need an answered gateway.
                Some(
                    Action::ReadLog(_)
                    | Action::Report(_)
                    | Action::TakeOrders
                    | Action::Acknowledged(_)
                    | Action::KeysHeld(_),
                ) => {}
                None => self.hear().await,
            }
        }
        // A machine that streams has been told of a registration.
        let registration = registration.ok_or(EndReason::Left)?;
        let Self {
            machine,
            host,
            clock,
            inbound,
        } = self;
        Ok(Session {
            machine,
            registration,
            host,
            clock,
            inbound,
            heads,
            report: None,
            read: None,
        })
    }

    async fn hear(&mut self) {
        let deadline = self.machine.poll_timeout();
        tokio::select! {
            received = self.inbound.message() => deliver(&mut self.machine, &self.clock, received),
            () = wait_until(&self.clock, deadline) => self.machine.timer(self.clock.now()),
        }
    }

    async fn register(&mut self) -> Option<Registration> {
        let deadline = self.machine.poll_timeout();
        let attach = self.machine.presented()?;
        let gateway = &attach.gateway;
        let attached = self.host.attach(gateway, &attach.seats, &attach.keys);
        let id = match in_time(&self.clock, deadline, attached).await {
            Some(Ok(id)) => id,
            Some(Err(refusal)) => {
                self.machine.refused(refusal);
                return None;
            }
            None => {
                self.machine.timer(self.clock.now());
                return None;
            }
        };
        let registration = Registration {
            host: Arc::clone(&self.host),
            id,
        };
        let keys = self.host.keys_for(&gateway.id, gateway.incarnation);
        match in_time(&self.clock, deadline, self.host.log_state()).await {
            Some(Ok(log)) => self.machine.registered(
                self.clock.now(),
                Registered {
                    keys,
                    idle_timeout: self.host.idle_timeout(),
                    log,
                },
            ),
            Some(Err(refusal)) => self.machine.refused(refusal),
            None => self.machine.timer(self.clock.now()),
        }
        Some(registration)
    }

    async fn find_dead(&mut self) {
        let deadline = self.machine.poll_timeout();
        let Some(attach) = self.machine.presented() else {
            return;
        };
        let dead = self.host.dead_among(&attach.seats);
        match in_time(&self.clock, deadline, dead).await {
            Some(Ok(dead)) => self.machine.dead_found(self.clock.now(), dead),
            Some(Err(refusal)) => self.machine.refused(refusal),
            None => self.machine.timer(self.clock.now()),
        }
    }
}

type InFlight<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A stream whose gateway has been answered.
struct Session {
    machine: Attachment,
    registration: Registration,
    host: Arc<dyn SidecarHost>,
    clock: Clock,
    inbound: Streaming<proto::GatewayMessage>,
    heads: watch::Receiver<Revision>,
    /// A report that the host is taking in: the stream is not read meanwhile, so HTTP/2's flow control slows the gateway down.
    report: InFlight<()>,
    /// A piece of the log that the host is reading.
    read: InFlight<Result<RevocationRange, AttachRefusal>>,
}

impl Session {
    /// Runs the stream to its end. Neither a slow store nor a slow gateway holds up the rest: each is waited for beside the others.
    async fn stream(
        mut self,
        sender: mpsc::Sender<proto::SidecarMessage>,
        cancel: CancellationToken,
    ) -> EndReason {
        let id = self.registration.id;
        let host = Arc::clone(&self.host);
        let replaced = host.fenced(id);
        tokio::pin!(replaced);
        let orders_ready = host.orders_ready(id);
        // What was committed between the reading of the log's state and here.
        let head = *self.heads.borrow_and_update();
        self.machine.head_moved(head);
        loop {
            if let Some(reason) = self.carry_out() {
                return reason;
            }
            let deadline = self.machine.poll_timeout();
            let wants_transmit = self.machine.wants_transmit() && !sender.is_closed();
            let machine = &mut self.machine;
            tokio::select! {
                received = self.inbound.message(), if self.report.is_none() => {
                    deliver(machine, &self.clock, received);
                }
                () = finish(&mut self.report) => machine.reported(self.clock.now()),
                read = finish(&mut self.read) => match read {
                    Ok(range) => machine.log_read(range),
                    Err(refusal) => machine.refused(refusal),
                },
                permit = sender.reserve(), if wants_transmit => {
                    if let Ok(permit) = permit
                        && let Some(message) = machine.poll_transmit(self.host.time())
                    {
                        permit.send(encode_sidecar(message));
                    }
                }
                changed = self.heads.changed() => match changed {
                    Ok(()) => machine.head_moved(*self.heads.borrow_and_update()),
                    Err(_) => machine.shut_down(),
                },
                () = orders_ready.notified() => machine.orders_ready(),
                () = &mut replaced => machine.replaced(),
                () = cancel.cancelled() => machine.shut_down(),
                () = wait_until(&self.clock, deadline) => machine.timer(self.clock.now()),
            }
        }
    }

    /// Does what the machine asks; the reason when that is to end.
    fn carry_out(&mut self) -> Option<EndReason> {
        let id = self.registration.id;
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Report(report) => {
                    let host = Arc::clone(&self.host);
                    self.report = Some(Box::pin(async move { host.report(id, report).await }));
                }
                Action::ReadLog(from) => {
                    let host = Arc::clone(&self.host);
                    self.read = Some(Box::pin(
                        async move { host.log_after(from, RANGE_EVENTS).await },
                    ));
                }
                Action::TakeOrders => self.machine.ordered(self.host.take_orders(id)),
                Action::Acknowledged(revision) => self.host.acknowledged(id, revision),
                Action::KeysHeld(keys) => self.host.keys_held(id, keys),
                Action::End(reason) => return Some(reason),
                // Only before the answer.
                Action::Register | Action::FindDead => {}
            }
        }
        None
    }
}

/// Tells the machine what reading the stream gave.
fn deliver(
    machine: &mut Attachment,
    clock: &Clock,
    received: Result<Option<proto::GatewayMessage>, Status>,
) {
    match received {
        Ok(Some(message)) => match decode_gateway(message) {
            Ok(message) => machine.received(clock.now(), message),
            Err(malformed) => {
                tracing::warn!(%malformed, "a gateway broke the control protocol");
                machine.malformed();
            }
        },
        // Too long, or no protobuf: tonic says so in these two codes.
        Err(status)
            if matches!(
                status.code(),
                tonic::Code::OutOfRange | tonic::Code::Internal
            ) =>
        {
            machine.malformed();
        }
        Ok(None) | Err(_) => machine.disconnected(),
    }
}

/// The result of what is in flight, which then is no more; never if there is nothing.
async fn finish<T>(in_flight: &mut InFlight<T>) -> T {
    match in_flight {
        Some(future) => {
            let result = future.as_mut().await;
            *in_flight = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// What the host answers, if it does before the deadline.
async fn in_time<T>(
    clock: &Clock,
    deadline: Option<Instant>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = wait_until(clock, deadline) => None,
    }
}

async fn wait_until(clock: &Clock, deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => {
            tokio::time::sleep(deadline.saturating_duration_since(clock.now())).await;
        }
        None => std::future::pending().await,
    }
}
