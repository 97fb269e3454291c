//! What was measured, by what it is.

use std::collections::BTreeMap;

use crate::rig::{
    company::Company,
    crowd::{Order, What},
    stopwatch::{median, percentile},
};

pub(crate) const REFERENCE: &str = "reference";
/// Our look-up by JTI, and what it is compared with.
pub(crate) const BY_SESSION: &str = "is_session_authorized";
pub(crate) const CONCURRENT_MAP: &str = "DashMap by session";

/// How a subject is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pace {
    /// Pass after pass: the caches are as warm as they get.
    BackToBack,
    /// As a game does.
    SixtyHertz,
}

/// What a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) what: &'static str,
    pub(crate) size: u32,
    pub(crate) pace: Pace,
    pub(crate) order: Order,
    pub(crate) company: Company,
}

impl Key {
    /// Back to back, in random order, alone.
    pub(crate) const fn back_to_back(what: &'static str, size: u32) -> Self {
        Self {
            what,
            size,
            pace: Pace::BackToBack,
            order: Order::Random,
            company: Company::Alone,
        }
    }

    pub(crate) const fn at(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    pub(crate) const fn ordered(self, order: Order) -> Self {
        Self { order, ..self }
    }

    pub(crate) const fn beside(self, company: Company) -> Self {
        Self { company, ..self }
    }

    /// As Criterion names it, and as filters see it.
    pub(crate) fn name(self) -> String {
        let Self {
            what,
            size,
            pace,
            order,
            company,
        } = self;
        let pace = match pace {
            Pace::BackToBack => "back to back",
            Pace::SixtyHertz => "paced",
        };
        let order = match order {
            Order::Random => "random",
            Order::Slots => "slot order",
        };
        format!("{pace}/{order}/{}/{what}/{size}", company.label())
    }

    /// Whatever may be measured at a size.
    pub(crate) fn all_of(size: u32) -> impl Iterator<Item = Self> {
        let whats = [REFERENCE, BY_SESSION, CONCURRENT_MAP]
            .into_iter()
            .chain(What::ALL.map(What::label));
        whats.flat_map(move |what| {
            let key = Self::back_to_back(what, size);
            [
                key,
                key.ordered(Order::Slots),
                key.at(Pace::SixtyHertz),
                key.beside(Company::Verifier),
                key.beside(Company::Writer),
            ]
        })
    }
}

/// Nanoseconds of a whole pass, a sample each, and bytes.
#[derive(Default)]
pub(crate) struct Results {
    samples: BTreeMap<String, Vec<f64>>,
    /// Bytes a seat, in the order in which they were weighed.
    pub(crate) bytes: Vec<(&'static str, f64)>,
}

impl Results {
    pub(crate) fn add(&mut self, key: Key, nanos: &[f64]) {
        self.samples.entry(key.name()).or_default().extend(nanos);
    }

    pub(crate) fn weigh(&mut self, what: &'static str, bytes: f64) {
        self.bytes.push((what, bytes));
    }

    fn samples(&self, key: Key) -> Option<&[f64]> {
        self.samples.get(&key.name()).map(Vec::as_slice)
    }

    /// The median in nanoseconds a seat.
    pub(crate) fn each(&self, key: Key) -> Option<f64> {
        Some(median(self.samples(key)?) / f64::from(key.size))
    }

    /// p50 and p99 of a whole tick, in microseconds.
    pub(crate) fn paced(&self, key: Key) -> Option<(f64, f64)> {
        let samples = self.samples(key)?;
        Some((
            median(samples) / 1_000.0,
            percentile(samples, 0.99) / 1_000.0,
        ))
    }
}
