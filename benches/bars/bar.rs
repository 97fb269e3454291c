//! A claim about performance: what was measured, the bound that it is held to, and the line that says so.

use std::fmt;

use serde_json::{Value, json};

use crate::rig::stopwatch::median;

/// What a claim is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    /// A value that was not measured holds nothing.
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    const fn value(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">={bound}"),
            Self::AtMost(bound) => write!(f, "<={bound}"),
        }
    }
}

/// A claim: its name, its bound, and what it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) bound: Bound,
    pub(crate) about: &'static str,
}

/// A figure with its spread.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Of how many, as in "11 pairs".
    pub(crate) of: String,
    /// What else there is to know, in a few words.
    pub(crate) note: String,
}

impl Figure {
    /// The median of interleaved pairs.
    pub(crate) fn of_pairs(ratios: &[f64], note: impl Into<String>) -> Self {
        Self::spread(median(ratios), ratios, "pairs", note)
    }

    /// A value and those that it was made of.
    pub(crate) fn spread(value: f64, of: &[f64], what: &str, note: impl Into<String>) -> Self {
        Self {
            value,
            least: of.iter().copied().fold(f64::INFINITY, f64::min),
            most: of.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            of: format!("{} {what}", of.len()),
            note: note.into(),
        }
    }

    /// A count, which is the same each time.
    pub(crate) fn exact(value: f64, note: impl Into<String>) -> Self {
        Self {
            value,
            least: value,
            most: value,
            of: "1 count".to_owned(),
            note: note.into(),
        }
    }
}

/// Three significant digits, and never fewer than the integer has.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

/// What was found out about a claim, or, without a bound, about something that stands beside the claims.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) bound: Option<Bound>,
    pub(crate) figure: Figure,
}

impl Line {
    /// Whether the claim holds; what claims nothing always does.
    pub(crate) fn holds(&self) -> bool {
        self.bound
            .is_none_or(|bound| bound.holds(self.figure.value))
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "ok" } else { "short" }
    }

    pub(crate) fn to_json(&self) -> Value {
        let Figure {
            value,
            least,
            most,
            of,
            note,
        } = &self.figure;
        json!({
            "name": self.name,
            "value": value,
            "least": least,
            "most": most,
            "of": of,
            "note": note,
            // Null where nothing is claimed.
            "bound": self.bound.map(Bound::value),
            "at": self.bound.map(|bound| match bound {
                Bound::AtLeast(_) => "least",
                Bound::AtMost(_) => "most",
            }),
            "ok": self.bound.map(|_| self.holds()),
        })
    }

    /// A row of a Markdown table.
    pub(crate) fn to_markdown(&self) -> String {
        let figure = &self.figure;
        let bound = self.bound.map_or_else(String::new, |b| b.to_string());
        format!(
            "| `{}` | {} | {bound} | {} | {}..{} of {} | {} |",
            self.name,
            digits(figure.value),
            self.bound.map_or("", |_| self.verdict()),
            digits(figure.least),
            digits(figure.most),
            figure.of,
            figure.note,
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = &self.figure;
        match self.bound {
            Some(bound) => write!(
                f,
                "bar {} {} {bound} {}",
                self.name,
                digits(figure.value),
                self.verdict()
            )?,
            None => write!(f, "info {} {}", self.name, digits(figure.value))?,
        }
        write!(
            f,
            "   ({}..{} of {}",
            digits(figure.least),
            digits(figure.most),
            figure.of
        )?;
        if !figure.note.is_empty() {
            write!(f, "; {}", figure.note)?;
        }
        f.write_str(")")
    }
}
