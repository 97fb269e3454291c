//! The figures as an SVG chart: bars on a logarithmic scale, legible on light and on dark ground.

use std::fmt::Write;

use crate::{
    results::{Key, Pace, REFERENCE, Results},
    rig::crowd::What,
    tables::{figure, thousands},
};

const WIDTH: f64 = 760.0;
/// Where the bars begin; what names them stands before.
const LEFT: f64 = 190.0;
/// Kept free behind the longest bar, for its figure.
const RIGHT: f64 = 120.0;
const BAR: f64 = 13.0;
const GAP: f64 = 3.0;

const STYLE: &str = "
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 14px; font-weight: 600 }
  .faint { fill: #59636e }
  .grid { stroke: #d1d9e0; stroke-width: 1 }
  .budget { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 4 3 }
  .p99 { stroke: #1f2328; stroke-width: 2 }
  .s0 { fill: #8c959f } .s1 { fill: #0969da } .s2 { fill: #1a7f37 } .s3 { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .faint { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .budget { stroke: #ff7b72 }
    .p99 { stroke: #f0f6fc }
    .s0 { fill: #767e88 } .s1 { fill: #58a6ff } .s2 { fill: #3fb950 } .s3 { fill: #f0883e }
  }
";

/// What is drawn of each size; the class of the style goes by the place.
const SERIES: [(&str, &str); 4] = [
    (REFERENCE, "reference algorithm"),
    (What::Verify.label(), "verify, one by one"),
    (What::Batch.label(), "verify_batch"),
    (
        What::TickAnswers.label(),
        "whole tick: pass and an answer for everybody",
    ),
];

/// A logarithmic axis.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn x(&self, value: f64) -> f64 {
        let part = (value / self.from).log10() / (self.to / self.from).log10();
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// The powers of ten on it.
    fn decades(&self) -> impl Iterator<Item = f64> {
        let (first, last) = (
            self.from.log10().round() as i32,
            self.to.log10().round() as i32,
        );
        (first..=last).map(|power| 10_f64.powi(power))
    }
}

/// One bar: how long it is, and what is marked beyond it.
struct Bar {
    series: usize,
    value: f64,
    p99: Option<f64>,
}

/// Bars of one size.
struct Cluster {
    label: String,
    bars: Vec<Bar>,
}

impl Cluster {
    fn new(
        label: String,
        mut value: impl FnMut(&'static str) -> Option<(f64, Option<f64>)>,
    ) -> Self {
        let bars = SERIES
            .iter()
            .enumerate()
            .filter_map(|(series, (what, _))| {
                let (value, p99) = value(what)?;
                Some(Bar { series, value, p99 })
            })
            .collect();
        Self { label, bars }
    }
}

/// The chart.
pub(crate) fn svg(results: &Results, machine: &str) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    let back_to_back = [1_000, 10_000, 100_000, 1_000_000].map(|size| {
        Cluster::new(format!("{} seats", thousands(size)), |what| {
            Some((results.each(Key::back_to_back(what, size))?, None))
        })
    });
    let title = "Back to back, random order: nanoseconds a seat";
    panel(
        &mut body,
        &mut y,
        title,
        &Axis {
            from: 0.1,
            to: 1_000.0,
        },
        &back_to_back,
    );

    let paced = [1_000, 10_000, 100_000].map(|size| {
        Cluster::new(format!("{} seats", thousands(size)), |what| {
            let (p50, p99) = results.paced(Key::back_to_back(what, size).at(Pace::SixtyHertz))?;
            Some((p50, Some(p99)))
        })
    });
    let axis = Axis {
        from: 0.1,
        to: 100_000.0,
    };
    let (top, title) = (
        y,
        "At 60 ticks a second: microseconds of a whole tick, p50 (stroke: p99)",
    );
    panel(&mut body, &mut y, title, &axis, &paced);
    let budget = axis.x(1_000_000.0 / 60.0);
    let _ = writeln!(
        body,
        r#"<line class="budget" x1="{budget:.1}" y1="{:.1}" x2="{budget:.1}" y2="{:.1}"/><text class="faint" x="{budget:.1}" y="{:.1}" text-anchor="middle">all of a tick</text>"#,
        top + 24.0,
        y - 46.0,
        top + 18.0,
    );

    for (series, (_, name)) in SERIES.iter().enumerate() {
        let (x, y) = (
            LEFT - 170.0 + 360.0 * (series % 2) as f64,
            y + 20.0 * (series / 2) as f64,
        );
        let _ = writeln!(
            body,
            r#"<rect class="s{series}" x="{x}" y="{:.1}" width="12" height="12"/><text x="{}" y="{y:.1}">{name}</text>"#,
            y - 10.0,
            x + 18.0,
        );
    }
    y += 48.0;
    let _ = writeln!(
        body,
        r#"<text class="faint" x="20" y="{y:.1}">{} Logarithmic scales.</text>"#,
        escaped(&format!("{machine}.")),
    );
    let height = y + 14.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"What it costs to ask \
         about every seat, against the reference algorithm\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws clusters of bars below each other, and moves `y` below them.
fn panel(body: &mut String, y: &mut f64, title: &str, axis: &Axis, clusters: &[Cluster]) {
    let _ = writeln!(
        body,
        r#"<text class="title" x="20" y="{y:.1}">{title}</text>"#
    );
    let top = *y + 26.0;
    let bars: usize = clusters.iter().map(|cluster| cluster.bars.len()).sum();
    let bottom = top + bars as f64 * (BAR + GAP) + clusters.len() as f64 * 10.0;
    for decade in axis.decades() {
        let x = axis.x(decade);
        let _ = writeln!(
            body,
            r#"<line class="grid" x1="{x:.1}" y1="{top:.1}" x2="{x:.1}" y2="{bottom:.1}"/><text class="faint" x="{x:.1}" y="{:.1}" text-anchor="middle">{decade}</text>"#,
            bottom + 14.0,
        );
    }
    *y = top + 4.0;
    for cluster in clusters {
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 10.0,
            *y + 11.0,
            cluster.label,
        );
        for bar in &cluster.bars {
            draw(body, *y, axis, bar);
            *y += BAR + GAP;
        }
        *y += 10.0;
    }
    *y = bottom + 46.0;
}

fn draw(body: &mut String, y: f64, axis: &Axis, bar: &Bar) {
    let end = axis.x(bar.value);
    let _ = write!(
        body,
        r#"<rect class="s{}" x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}"/>"#,
        bar.series,
        (end - LEFT).max(1.0),
    );
    let mut text_at = end;
    let mut label = figure(bar.value);
    if let Some(p99) = bar.p99 {
        let x = axis.x(p99);
        text_at = text_at.max(x);
        label = format!("{label} / {}", figure(p99));
        let _ = write!(
            body,
            r#"<line class="p99" x1="{x:.1}" y1="{y:.1}" x2="{x:.1}" y2="{:.1}"/>"#,
            y + BAR,
        );
    }
    let _ = writeln!(
        body,
        r#"<text x="{:.1}" y="{:.1}">{label}</text>"#,
        text_at + 6.0,
        y + 11.0,
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
