//! What a role's `/metrics` tells, read as a monitoring system reads it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A metric: its name, its type, and its label if it has one.
pub(crate) type Metric = (String, String, Option<String>);

/// What a role tells: samples by name with their labels.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) metrics: BTreeSet<Metric>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(url: &str) -> Self {
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(page.ends_with("# EOF\n"), "{page}");
        Self::parse(page)
    }

    fn parse(page: &str) -> Self {
        let mut scrape = Self::default();
        let mut family = (String::new(), String::new());
        let mut label = None;
        for line in page.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                scrape.close(&family, label.take());
                let (name, kind) = typed.split_once(' ').unwrap();
                family = (name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                scrape
                    .samples
                    .insert(sample.to_owned(), value.parse().unwrap());
                let own = sample.split_once('{').map(|(_, labels)| labels);
                let own = own.and_then(|labels| labels.split('=').next());
                label = label.or(own.filter(|name| *name != "le").map(str::to_owned));
            }
        }
        scrape.close(&family, label);
        scrape
    }

    fn close(&mut self, (name, kind): &(String, String), label: Option<String>) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        if !name.is_empty() {
            self.metrics
                .insert((format!("{name}{suffix}"), kind.clone(), label));
        }
    }

    pub(crate) fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or(&0.0)
    }

    /// The sum of a metric's samples.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_it = |sample: &str| sample == name || sample.starts_with(&format!("{name}{{"));
        let values = self.samples.iter().filter(|(sample, _)| of_it(sample));
        values.map(|(_, value)| value).sum()
    }

    /// What must hold at every instant.
    pub(crate) fn adds_up(&self) {
        let joined = self.value("tickgate_gateway_admissions_total{outcome=\"joined\"}");
        let seats = self.sum("tickgate_gateway_seats");
        let ended = self.sum("tickgate_gateway_seat_ends_total");
        assert_eq!(
            joined,
            seats + ended,
            "admitted = live + suspended + ended: {self:?}"
        );
    }
}
