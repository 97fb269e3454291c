//! A gateway and a sidecar to attach to each other: they note what they are told.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::{
    AttachRefusal, AttachmentId, CarriedKey, Drain, GatewayDescription, GatewayHost, LiveSeat,
    LogState, Orders, Revocation, RevocationRange, SeatReport, SidecarHost,
};
use crate::{
    clock::{ManualTime, Timestamp},
    id::{GatewayId, Incarnation, Lineage, Revision, SessionId},
    token::KeyId,
};

pub(super) const LINEAGE: Lineage = Lineage(5);

/// What a gateway was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Attached(Timestamp, Duration),
    Detached,
    Keys(Vec<CarriedKey>),
    Reset(Lineage, Revision, Vec<SessionId>),
    Applied(RevocationRange),
    IdleMoved(Vec<(SessionId, Timestamp)>),
    Drain(Drain),
}

/// How much a fake host notes for its test; a test that lets more pile up fails.
const NOTES: usize = 1_024;

pub(super) struct FakeGateway {
    pub(super) description: GatewayDescription,
    pub(super) seats: Vec<LiveSeat>,
    pub(super) report: Mutex<SeatReport>,
    pub(super) report_ready: Arc<Notify>,
    told: mpsc::Sender<Told>,
}

impl FakeGateway {
    pub(super) fn new(
        incarnation: u128,
        seats: Vec<LiveSeat>,
    ) -> (Arc<Self>, mpsc::Receiver<Told>) {
        let (told, receiver) = mpsc::channel(NOTES);
        let gateway = Self {
            description: GatewayDescription {
                id: "eu-1".parse().unwrap(),
                incarnation: Incarnation(incarnation),
                addresses: vec!["127.0.0.1:7777".parse().unwrap()],
                server_name: "localhost".into(),
                certificate_sha256: vec![[3; 32]],
                capacity: 20_000,
            },
            seats,
            report: Mutex::default(),
            report_ready: Arc::default(),
            told,
        };
        (Arc::new(gateway), receiver)
    }

    fn note(&self, told: Told) {
        // The test may have seen enough.
        let _ = self.told.try_send(told);
    }
}

impl GatewayHost for FakeGateway {
    fn describe(&self) -> GatewayDescription {
        self.description.clone()
    }

    fn live_seats(&self) -> Vec<LiveSeat> {
        self.seats.clone()
    }

    fn attached(&self, time: Timestamp, idle_timeout: Duration) {
        self.note(Told::Attached(time, idle_timeout));
    }

    fn detached(&self) {
        self.note(Told::Detached);
    }

    fn install_keys(&self, keys: &[CarriedKey]) {
        self.note(Told::Keys(keys.to_vec()));
    }

    fn reset_log(&self, lineage: Lineage, revision: Revision, dead: &[SessionId]) {
        self.note(Told::Reset(lineage, revision, dead.to_vec()));
    }

    fn apply_revocations(&self, range: &RevocationRange) {
        self.note(Told::Applied(range.clone()));
    }

    fn idle_moved(&self, sessions: &[(SessionId, Timestamp)]) {
        self.note(Told::IdleMoved(sessions.to_vec()));
    }

    fn drain(&self, drain: Drain) {
        self.note(Told::Drain(drain));
    }

    fn heartbeat(&self, _time: Timestamp, _head: Revision) {}

    fn take_report(&self, report: &mut SeatReport) {
        *report = std::mem::take(&mut *self.report.lock().unwrap());
    }

    fn report_ready(&self) -> Arc<Notify> {
        Arc::clone(&self.report_ready)
    }
}

/// What a sidecar was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Attached(Incarnation, Vec<LiveSeat>),
    Detached(AttachmentId),
    Report(SeatReport),
    Acknowledged(Revision),
    KeysHeld(Vec<KeyId>),
}

pub(super) struct FakeSidecar {
    pub(super) log: Mutex<Vec<Revocation>>,
    pub(super) dead: Mutex<HashSet<SessionId>>,
    head: watch::Sender<Revision>,
    books: Mutex<Books>,
    orders: Mutex<Orders>,
    orders_ready: Arc<Notify>,
    heard: mpsc::Sender<Heard>,
    /// A store that hangs: this much time passes, and there is no answer.
    pub(super) hangs: Mutex<Option<(ManualTime, Duration)>>,
}

#[derive(Default)]
struct Books {
    next: u64,
    current: Option<(Incarnation, AttachmentId)>,
    retired: HashSet<Incarnation>,
    fences: HashMap<AttachmentId, CancellationToken>,
}

impl FakeSidecar {
    /// A sidecar that starts with this log.
    pub(super) fn new(log: Vec<Revocation>) -> (Arc<Self>, mpsc::Receiver<Heard>) {
        let (heard, receiver) = mpsc::channel(NOTES);
        let sidecar = Self {
            head: watch::Sender::new(Revision(log.len() as u64)),
            log: Mutex::new(log),
            dead: Mutex::new(HashSet::from([SessionId(13)])),
            books: Mutex::default(),
            orders: Mutex::default(),
            orders_ready: Arc::default(),
            heard,
            hangs: Mutex::default(),
        };
        (Arc::new(sidecar), receiver)
    }

    pub(super) fn revoke(&self, event: Revocation) {
        let mut log = self.log.lock().unwrap();
        log.push(event);
        self.head.send_replace(Revision(log.len() as u64));
    }

    pub(super) fn order(&self, orders: Orders) {
        *self.orders.lock().unwrap() = orders;
        self.orders_ready.notify_one();
    }

    fn note(&self, heard: Heard) {
        let _ = self.heard.try_send(heard);
    }
}

#[tonic::async_trait]
impl SidecarHost for FakeSidecar {
    fn time(&self) -> Timestamp {
        Timestamp(1_000)
    }

    fn idle_timeout(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn attach(
        &self,
        gateway: &GatewayDescription,
        seats: &[LiveSeat],
        _keys: &[KeyId],
    ) -> Result<AttachmentId, AttachRefusal> {
        let hangs = self.hangs.lock().unwrap().take();
        if let Some((time, passes)) = hangs {
            time.advance(passes);
            return std::future::pending().await;
        }
        let mut books = self.books.lock().unwrap();
        if books.retired.contains(&gateway.incarnation) {
            return Err(AttachRefusal::Fenced);
        }
        books.next += 1;
        let id = AttachmentId(books.next);
        if let Some((incarnation, older)) = books.current.replace((gateway.incarnation, id)) {
            if incarnation != gateway.incarnation {
                books.retired.insert(incarnation);
            }
            if let Some(fence) = books.fences.remove(&older) {
                fence.cancel();
            }
        }
        books.fences.insert(id, CancellationToken::new());
        self.note(Heard::Attached(gateway.incarnation, seats.to_vec()));
        Ok(id)
    }

    fn keys_for(&self, gateway: &GatewayId, _incarnation: Incarnation) -> Vec<CarriedKey> {
        assert_eq!(gateway.as_str(), "eu-1");
        vec![key()]
    }

    async fn log_state(&self) -> Result<LogState, AttachRefusal> {
        Ok(LogState {
            lineage: LINEAGE,
            tail: Revision(0),
            head: *self.head.borrow(),
        })
    }

    async fn log_after(
        &self,
        from: Revision,
        limit: usize,
    ) -> Result<RevocationRange, AttachRefusal> {
        let log = self.log.lock().unwrap();
        let events = log.iter().skip(usize::try_from(from.0).unwrap());
        let events: Vec<_> = events.take(limit).copied().collect();
        Ok(RevocationRange {
            from,
            to: Revision(from.0 + events.len() as u64),
            events,
        })
    }

    async fn dead_among(&self, seats: &[LiveSeat]) -> Result<Vec<SessionId>, AttachRefusal> {
        let dead = self.dead.lock().unwrap();
        let sessions = seats.iter().map(|seat| seat.session);
        Ok(sessions.filter(|session| dead.contains(session)).collect())
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    async fn report(&self, _attachment: AttachmentId, report: SeatReport) {
        self.note(Heard::Report(report));
    }

    fn acknowledged(&self, _attachment: AttachmentId, revision: Revision) {
        self.note(Heard::Acknowledged(revision));
    }

    fn keys_held(&self, _attachment: AttachmentId, keys: Vec<KeyId>) {
        self.note(Heard::KeysHeld(keys));
    }

    fn detach(&self, attachment: AttachmentId) {
        self.books.lock().unwrap().fences.remove(&attachment);
        self.note(Heard::Detached(attachment));
    }

    fn orders_ready(&self, _attachment: AttachmentId) -> Arc<Notify> {
        Arc::clone(&self.orders_ready)
    }

    fn take_orders(&self, _attachment: AttachmentId) -> Orders {
        std::mem::take(&mut *self.orders.lock().unwrap())
    }

    async fn fenced(&self, attachment: AttachmentId) {
        let fence = self.books.lock().unwrap().fences.get(&attachment).cloned();
        if let Some(fence) = fence {
            fence.cancelled().await;
        }
    }
}

pub(super) fn key() -> CarriedKey {
    CarriedKey {
        epoch: 1,
        key: vec![9; 32].into(),
    }
}
