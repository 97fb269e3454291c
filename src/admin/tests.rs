//! The pages as an HTTP client meets them, over loopback.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::{Registry, Unit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Readings, Scrape, Source,
    serve::{Limits, serve_within},
};

#[derive(Default)]
struct Fake {
    is_ready: AtomicBool,
}

const HINDRANCES: [&str; 2] = ["too_early", "too_full"];

struct Values;

impl Readings for Values {
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        scrape.counter("fake_events", "Events", 3)?;
        scrape.counters(
            "fake_refusals",
            "Refusals",
            "code",
            [("full", 0), ("late", 2)],
        )?;
        scrape.gauge("fake_age", "Age", Some(&Unit::Seconds), 1.5)?;
        scrape.gauges("fake_seats", "Seats", "state", [("live", 7)])
    }
}

impl Source for Fake {
    fn register(&self, registry: &mut Registry) {
        Scrape::register(registry, Values);
    }

    fn is_live(&self) -> bool {
        true
    }

    fn hindrances(&self) -> Vec<&'static str> {
        match self.is_ready.load(Ordering::Relaxed) {
            true => Vec::new(),
            false => HINDRANCES.to_vec(),
        }
    }
}

struct Server {
    address: SocketAddr,
    source: Arc<Fake>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

async fn server(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = Arc::new(Fake::default());
    let cancel = CancellationToken::new();
    let told = Arc::clone(&source) as Arc<dyn Source>;
    let task = tokio::spawn(serve_within(listener, told, cancel.clone(), limits));
    Server {
        address,
        source,
        cancel,
        task,
    }
}

/// What comes back until the server closes the connection.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn the_pages_are_told_and_nothing_else_is() {
    let server = server(Limits::default()).await;
    let metrics = get(server.address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    assert!(
        metrics.contains("openmetrics-text; version=1.0.0"),
        "{metrics}"
    );
    for line in [
        "# TYPE fake_events counter",
        "fake_events_total 3",
        "fake_refusals_total{code=\"full\"} 0",
        "fake_refusals_total{code=\"late\"} 2",
        "fake_age_seconds 1.5",
        "fake_seats{state=\"live\"} 7",
        "# EOF",
    ] {
        assert!(
            metrics.lines().any(|told| told == line),
            "{line}: {metrics}"
        );
    }

    assert!(
        get(server.address, "/live")
            .await
            .ends_with("\r\n\r\nlive\n")
    );
    let not_ready = get(server.address, "/ready").await;
    assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
    assert!(
        not_ready.ends_with("\r\n\r\nnot ready: too_early, too_full\n"),
        "{not_ready}"
    );
    server.source.is_ready.store(true, Ordering::Relaxed);
    assert!(
        get(server.address, "/ready")
            .await
            .ends_with("\r\n\r\nready\n")
    );

    assert!(get(server.address, "/").await.starts_with("HTTP/1.1 404 "));
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let refused = ask(server.address, post).await;
    assert!(
        refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET"),
        "{refused}"
    );
    let nonsense = ask(server.address, "\x16\x03\x01 no HTTP\r\n\r\n").await;
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");

    server.cancel.cancel();
    server.task.await.unwrap();
}

/// One more than there are places waits, and has its turn when a silent one's time is over.
#[tokio::test]
async fn silent_connections_hold_their_places_for_their_time_alone() {
    let server = server(Limits {
        connections: 2,
        header: Duration::from_millis(100),
        whole: Duration::from_millis(200),
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(get(server.address, "/live").await.ends_with("live\n"));
    for mut stream in silent {
        let mut rest = Vec::new();
        // Cut without a word, or told off first: either way it is over.
        let _ = stream.read_to_end(&mut rest).await;
    }
    server.cancel.cancel();
    server.task.await.unwrap();
}
