//! What the sidecar counts, and how it is told to those who watch it.
//!
//! Counters are plain atomics where the work is done; what the registry or the store know anyway is read when it is asked for.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::registry::Registry as Metrics;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Readings, Scrape, Source},
    id::Revision,
    store::StoreError,
};

use super::{
    keys::Keys,
    login::Methods,
    refusal::Refusal,
    registry::{Registry, Totals},
    serve::code_labels,
};

/// A counter with one label, whose values are fixed names of the code.
#[derive(Debug)]
pub(super) struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    /// One with these values and no others. All are told from the start, as zero: a rate is known only of what has been seen before.
    fn new(values: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Mutex::new(
            values.into_iter().map(|value| (value, 0)).collect(),
        ))
    }

    pub(super) fn count(&self, value: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(counts.contains_key(value), "{value} is none of its values");
        *counts.entry(value).or_default() += 1;
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(value, count)| (*value, *count))
            .collect()
    }
}

/// A counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: usize) {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Counters {
    /// Logins, by method: a login method's name, or "backend".
    pub(super) logins: Labelled,
    /// Logins, and uses of mailed links, that were refused, by the refusal's [label](Refusal::of_login).
    pub(super) refused_logins: Labelled,
    /// Letters, by outcome: "sent", or why not: "expired", "refused" (by the relay, for good), "failed", "unwritable".
    pub(super) mails: Labelled,
    /// Fetches of an OpenID issuer's keys, by outcome: "fetched" or "failed".
    pub(super) key_fetches: Labelled,
    /// Refreshes, by outcome: "rotated", "again", or why not: "reused", "ended", "rejected", "rate_limited".
    pub(super) refreshes: Labelled,
    /// Connect tokens asked for, by outcome: "minted", or a refusal's label.
    pub(super) connect_tokens: Labelled,
    /// Revocations that ended something, by kind: "session", "player", "logout". What a refresh token's reuse ended is a refresh.
    pub(super) revocations: Labelled,
    /// Calls answered, by gRPC status.
    pub(super) calls: Labelled,
    /// Sessions in reports whose activity did not count.
    pub(super) activity_rejected: Count,
    /// Seats in reports that were not minted to their gateway.
    pub(super) seats_rejected: Count,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            logins: Labelled::new(Methods::NAMES.into_iter().chain(["backend"])),
            refused_logins: Labelled::new(Refusal::OF_LOGINS.into_iter().chain(StoreError::LABELS)),
            mails: Labelled::new(["sent", "expired", "refused", "failed", "unwritable"]),
            key_fetches: Labelled::new(["fetched", "failed"]),
            refreshes: Labelled::new([
                "rotated",
                "again",
                "reused",
                "ended",
                "rejected",
                "rate_limited",
            ]),
            connect_tokens: Labelled::new(
                std::iter::once("minted")
                    .chain(Refusal::OF_CONNECT_TOKENS)
                    .chain(StoreError::LABELS),
            ),
            revocations: Labelled::new(["session", "player", "logout"]),
            calls: Labelled::new(code_labels()),
            activity_rejected: Count::default(),
            seats_rejected: Count::default(),
        }
    }
}

/// What a sidecar tells of itself: its metrics, and whether it can serve. Cheap to clone; it does not keep the sidecar running.
#[derive(Clone)]
pub struct SidecarMetrics(Arc<Sources>);

/// Tells the head of the revocation log.
pub(super) type Head = Box<dyn Fn() -> Revision + Send + Sync>;

/// Where the values come from.
pub(super) struct Sources {
    pub(super) counters: Arc<Counters>,
    pub(super) registry: Arc<Registry>,
    pub(super) keys: Arc<Keys>,
    pub(super) head: Head,
    /// Whether the store's medium has failed for good.
    pub(super) failed: watch::Receiver<bool>,
    /// Whether the services are fit to be called, as the health service tells it too.
    pub(super) serving: watch::Receiver<bool>,
    /// Cancelled when the sidecar shuts down.
    pub(super) stop: CancellationToken,
}

impl SidecarMetrics {
    pub(super) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }
}

impl fmt::Debug for SidecarMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarMetrics").finish_non_exhaustive()
    }
}

impl Source for SidecarMetrics {
    fn register(&self, registry: &mut Metrics) {
        Scrape::register(registry, self.clone());
    }

    /// False once the store's medium has failed: no change can be made any more, and only a new process opens the file again.
    fn is_live(&self) -> bool {
        !*self.0.failed.borrow()
    }

    /// The store has failed for good (`store_failed`) or did the last time it was purged (`store_error`), or the sidecar is shutting
    /// down (`shutting_down`).
    fn hindrances(&self) -> Vec<&'static str> {
        let Sources {
            failed,
            serving,
            stop,
            ..
        } = &*self.0;
        let hindrance = if *failed.borrow() {
            "store_failed"
        } else if stop.is_cancelled() {
            "shutting_down"
        } else if !*serving.borrow() {
            "store_error"
        } else {
            return Vec::new();
        };
        vec![hindrance]
    }
}

impl Readings for SidecarMetrics {
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let Sources {
            counters,
            registry,
            keys,
            head,
            failed,
            serving: _,
            stop: _,
        } = &*self.0;
        read_counters(counters, scrape)?;
        let Totals {
            attached,
            draining,
            seats,
            acknowledged,
        } = registry.totals();
        let Revision(head) = head();
        let lag = acknowledged.map_or(0, |Revision(slowest)| head.saturating_sub(slowest));
        let holders = registry.key_holders();
        let outstanding = keys.outstanding(keys.current_transport(), &holders).len();
        let gauges = [
            (
                "gateways_attached",
                "Gateways that are attached",
                as_u64(attached),
            ),
            (
                "gateways_draining",
                "Attached gateways that drain",
                as_u64(draining),
            ),
            (
                "gateway_seats",
                "Seats taken on the attached gateways, by their own counts",
                seats,
            ),
            (
                "revocation_head",
                "The newest revision of the revocation log",
                head,
            ),
            (
                "revocation_lag",
                "Revisions that the slowest attached gateway has not acknowledged",
                lag,
            ),
            (
                "keys_outstanding",
                "Attached gateways that do not hold the current transport key yet",
                as_u64(outstanding),
            ),
            (
                "store_failed",
                "Whether the store's medium has failed for good (1) or not (0)",
                u64::from(*failed.borrow()),
            ),
        ];
        for (name, help, value) in gauges {
            scrape.gauge(&named(name), help, None, as_f64(value))?;
        }
        Ok(())
    }
}

fn read_counters(counters: &Counters, scrape: &mut Scrape<'_>) -> fmt::Result {
    let Counters {
        logins,
        refused_logins,
        mails,
        key_fetches,
        refreshes,
        connect_tokens,
        revocations,
        calls,
        activity_rejected,
        seats_rejected,
    } = counters;
    let labelled = [
        ("logins", "Sessions made", "method", logins),
        (
            "logins_refused",
            "Logins, and uses of mailed links, that were refused",
            "reason",
            refused_logins,
        ),
        (
            "mails",
            "Letters that came to an end, one way or another",
            "outcome",
            mails,
        ),
        (
            "identity_key_fetches",
            "Fetches of the keys of OpenID issuers",
            "outcome",
            key_fetches,
        ),
        ("refreshes", "Refreshes asked for", "outcome", refreshes),
        (
            "connect_tokens",
            "Connect tokens asked for",
            "outcome",
            connect_tokens,
        ),
        (
            "revocations",
            "Revocations that ended something",
            "kind",
            revocations,
        ),
        ("calls", "gRPC calls answered", "code", calls),
    ];
    for (name, help, label, counter) in labelled {
        scrape.counters(&named(name), help, label, counter.read())?;
    }
    let plain = [
        (
            "activity_rejected",
            "Sessions whose activity did not count, since no token was minted for the gateway that reported it",
            activity_rejected,
        ),
        (
            "seats_rejected",
            "Reported seats that are not known, since no token was minted for the gateway that reported them",
            seats_rejected,
        ),
    ];
    for (name, help, counter) in plain {
        scrape.counter(&named(name), help, counter.read())?;
    }
    Ok(())
}

fn named(name: &str) -> String {
    format!("tickgate_sidecar_{name}")
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Gauges are floating-point numbers, exact up to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "no revision and no count comes near 2^53"
)]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::codegen::http;

    use super::{
        super::{TokenKeys, serve::code_of},
        *,
    };
    use crate::{
        clock::Clock,
        token::{LoginKey, RefreshKey, SessionKey, TransportMasterKey},
    };

    fn keys() -> Keys {
        let keys = TokenKeys::new(
            SessionKey::generate(),
            RefreshKey::generate(),
            TransportMasterKey::generate(),
        );
        Keys::new(keys, LoginKey::generate().id(), Clock::system().wall())
    }

    fn metrics() -> (SidecarMetrics, watch::Sender<bool>, watch::Sender<bool>) {
        let (failing, failed) = watch::channel(false);
        let (serve, serving) = watch::channel(true);
        let metrics = SidecarMetrics::new(Sources {
            counters: Arc::new(Counters::new()),
            registry: Arc::new(Registry::new(Clock::system())),
            keys: Arc::new(keys()),
            head: Box::new(|| Revision(7)),
            failed,
            serving,
            stop: CancellationToken::new(),
        });
        (metrics, failing, serve)
    }

    fn page(metrics: &SidecarMetrics) -> String {
        let mut registry = Metrics::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn every_metric_is_told_from_the_start() {
        let (metrics, _failing, _serve) = metrics();
        metrics.0.counters.connect_tokens.count("gateway_away");
        metrics.0.counters.activity_rejected.add(3);
        let page = page(&metrics);
        for line in [
            "tickgate_sidecar_logins_total{method=\"backend\"} 0",
            "tickgate_sidecar_logins_refused_total{reason=\"wrong_code\"} 0",
            "tickgate_sidecar_mails_total{outcome=\"sent\"} 0",
            "tickgate_sidecar_logins_total{method=\"dev\"} 0",
            "tickgate_sidecar_refreshes_total{outcome=\"rotated\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"minted\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"no_gateway\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"store_closed\"} 0",
            "tickgate_sidecar_connect_tokens_total{outcome=\"gateway_away\"} 1",
            "tickgate_sidecar_revocations_total{kind=\"player\"} 0",
            "tickgate_sidecar_calls_total{code=\"internal\"} 0",
            "tickgate_sidecar_activity_rejected_total 3",
            "tickgate_sidecar_revocation_head 7",
            "tickgate_sidecar_revocation_lag 0",
            "tickgate_sidecar_gateways_attached 0",
            "tickgate_sidecar_keys_outstanding 0",
            "tickgate_sidecar_store_failed 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn no_label_appears_with_its_first_event() {
        let (metrics, _failing, _serve) = metrics();
        let series = |page: &str| {
            let labelled = page.lines().filter(|line| line.contains('{'));
            labelled
                .map(|line| line.split(' ').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let before = series(&page(&metrics));
        let counters = &metrics.0.counters;
        for code in 0..=16 {
            let answer = http::Response::builder().header("grpc-status", code);
            counters.calls.count(code_of(&answer.body(()).unwrap()));
        }
        for refusal in [
            Refusal::Argument {
                field: "target",
                allowed: "one",
            },
            Refusal::TooManyConnectTokens {
                wait: Duration::ZERO,
            },
            Refusal::NoSuchGateway("eu".parse().unwrap()),
            Refusal::NoSuchAddress,
            Refusal::GatewayAway,
            Refusal::GatewayDrains,
            Refusal::NoGateway,
            Refusal::Store(StoreError::Storage(String::new())),
            Refusal::Store(StoreError::Commit(String::new())),
            Refusal::Store(StoreError::Record("sessions")),
            Refusal::Store(StoreError::Randomness),
            Refusal::Store(StoreError::Closed),
        ] {
            counters.connect_tokens.count(refusal.label());
        }
        assert_eq!(series(&page(&metrics)), before);
    }

    #[test]
    fn readiness_is_the_stores_and_says_why_not() {
        let (metrics, failing, serve) = metrics();
        assert!(metrics.is_live() && metrics.is_ready());
        serve.send_replace(false);
        assert!(metrics.is_live());
        assert_eq!(metrics.hindrances(), ["store_error"]);
        metrics.0.stop.cancel();
        assert_eq!(metrics.hindrances(), ["shutting_down"]);
        serve.send_replace(true);
        failing.send_replace(true);
        assert!(!metrics.is_live());
        assert_eq!(metrics.hindrances(), ["store_failed"]);
    }
}
