//! Metrics that are read when they are asked for: the values are kept where the work is done, as plain atomics, and a scrape gathers
//! them.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// One sample of a metric with one label: the label's value, and the sample's.
pub type Reading<N> = (&'static str, N);

/// Reads metrics at each scrape.
///
/// Label values are fixed names of the code, never ids and never what a peer sent, so that their number is bounded.
pub trait Readings: Send + Sync + 'static {
    /// Writes every metric, whether or not its values are zero: a counter that appears only with its first event cannot be
    /// alerted on.
    ///
    /// # Errors
    /// What [`Scrape`]'s calls return.
    fn read(&self, scrape: &mut Scrape<'_>) -> fmt::Result;
}

/// Registers what is read at each scrape.
struct Reader<R>(R);

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").finish()
    }
}

impl<R: Readings> Collector for Reader<R> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.read(&mut Scrape(encoder))
    }
}

/// Where the values of one scrape are written.
#[derive(Debug)]
pub struct Scrape<'a>(DescriptorEncoder<'a>);

impl Scrape<'_> {
    /// Has `readings` read at each scrape of `registry`.
    pub fn register(registry: &mut Registry, readings: impl Readings) {
        registry.register_collector(Box::new(Reader(readings)));
    }

    /// A counter: the encoder adds `_total` to `name`.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let metric =
            self.0
                .encode_descriptor(name, help, None, EncodeMetric::metric_type(&counter))?;
        counter.encode(metric)
    }

    /// A counter with one label: one sample for each of its values. The encoder adds `_total` to `name`.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        samples: impl IntoIterator<Item = Reading<u64>>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in samples {
            let labels = [(label, value)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A gauge. With `unit` the encoder adds it to `name`.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: f64,
    ) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let metric =
            self.0
                .encode_descriptor(name, help, unit, EncodeMetric::metric_type(&gauge))?;
        gauge.encode(metric)
    }

    /// A gauge with one label: one sample for each of its values.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        samples: impl IntoIterator<Item = Reading<u64>>,
    ) -> fmt::Result {
        let mut metric = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in samples {
            let labels = [(label, value)];
            ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram: the sum of what was observed, and for each upper bound, the last of them infinite, how many observations were at
    /// most that and above the bound before. With `unit` the encoder adds it to `name`.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.0
            .encode_descriptor(name, help, unit, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}
