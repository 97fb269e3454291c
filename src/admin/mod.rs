//! Metrics and health over HTTP: `/metrics` for Prometheus, `/live` and `/ready` for whoever restarts and routes.
//!
//! What is told comes from a [`Source`], which the gateway and the sidecar each have; [`serve`] tells it. docs/OPERATIONS.md lists
//! every metric.

mod files;
mod scrape;
mod serve;

#[cfg(test)]
mod tests;

pub use self::{
    files::{FileGroup, FileHealth, WithFiles},
    scrape::{Reading, Readings, Scrape},
    serve::serve,
};

/// What a role tells of itself.
pub trait Source: Send + Sync + 'static {
    /// Registers its metrics, once. Values that are kept elsewhere are read at each scrape: [`Readings`].
    ///
    /// The encoder itself adds `_total` to counters' names and the unit to those that have one: register `…_admissions` for
    /// `…_admissions_total`, and `…_tick_duration` with [`Unit::Seconds`](prometheus_client::registry::Unit::Seconds) for
    /// `…_tick_duration_seconds`.
    fn register(&self, registry: &mut prometheus_client::registry::Registry);
    /// Whether it works at all; once it does not, only a new process helps.
    fn is_live(&self) -> bool;
    /// Why it cannot serve newcomers now, as fixed labels; empty when it can.
    fn hindrances(&self) -> Vec<&'static str>;
    /// What somebody should look into though it serves, as fixed labels.
    fn warnings(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Whether it can serve newcomers now.
    fn is_ready(&self) -> bool {
        self.hindrances().is_empty()
    }
}
