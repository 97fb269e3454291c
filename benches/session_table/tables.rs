//! The figures as Markdown tables.

use std::fmt::Write;

use crate::{
    COMPANY_SIZES, SIZES,
    results::{BY_SESSION, CONCURRENT_MAP, Key, Pace, REFERENCE, Results},
    rig::{
        company::Company,
        crowd::{Order, What},
    },
};

/// All tables.
pub(crate) fn markdown(results: &Results, machine: &str) -> String {
    let mut text = format!("On {machine}.\n");
    for order in [Order::Random, Order::Slots] {
        let order_name = match order {
            Order::Random => "in random order",
            Order::Slots => "in slot order",
        };
        title(
            &mut text,
            &format!(
                "Back to back, {order_name}: nanoseconds a seat, and how many times as long the reference takes"
            ),
            &SIZES,
        );
        for what in subjects(true) {
            row(&mut text, what, &SIZES, |size| {
                let key = Key::back_to_back(what, size).ordered(order);
                let reference = results.each(Key::back_to_back(REFERENCE, size).ordered(order));
                Some(with_ratio(results.each(key)?, reference, what))
            });
        }
    }
    title(
        &mut text,
        "On ticks of 60 Hz, in random order: microseconds of a whole tick, p50 / p99, and how many times as long the reference takes (p50)",
        &SIZES,
    );
    for what in subjects(false) {
        row(&mut text, what, &SIZES, |size| {
            let key = Key::back_to_back(what, size).at(Pace::SixtyHertz);
            let (p50, p99) = results.paced(key)?;
            let reference = results.paced(Key::back_to_back(REFERENCE, size).at(Pace::SixtyHertz));
            let both = format!("{} / {}", figure(p50), figure(p99));
            Some(match reference {
                Some((theirs, _)) if what != REFERENCE && what != What::Pass.label() => {
                    format!("{both} ({}x)", figure(theirs / p50))
                }
                _ => both,
            })
        });
    }
    company(&mut text, results);
    lookups(&mut text, results);
    text
}

/// The reference first.
fn subjects(with_touch: bool) -> impl Iterator<Item = &'static str> {
    let ours = What::ALL
        .into_iter()
        .filter(move |what| with_touch || *what != What::TouchTickAnswers);
    std::iter::once(REFERENCE).chain(ours.map(What::label))
}

fn company(text: &mut String, results: &Results) {
    title(
        text,
        "In company, back to back, in random order: nanoseconds a seat, and how many times as long as alone",
        &COMPANY_SIZES,
    );
    for company in [Company::Verifier, Company::Writer] {
        for what in [What::Verify, What::Batch, What::TickAnswers].map(What::label) {
            let name = format!("{what}, {}", company.label());
            row(text, &name, &COMPANY_SIZES, |size| {
                let key = Key::back_to_back(what, size);
                let (alone, beside) = (results.each(key)?, results.each(key.beside(company))?);
                Some(format!("{} ({}x)", figure(beside), figure(beside / alone)))
            });
        }
    }
}

fn lookups(text: &mut String, results: &Results) {
    title(
        text,
        "Look-ups by JTI, back to back, in random order: nanoseconds each",
        &COMPANY_SIZES,
    );
    for what in [REFERENCE, CONCURRENT_MAP, BY_SESSION] {
        row(text, what, &COMPANY_SIZES, |size| {
            results.each(Key::back_to_back(what, size)).map(figure)
        });
    }
    if !results.bytes.is_empty() {
        let _ = write!(
            text,
            "\nBytes a seat at 100,000, by a counting allocator\n\n| | bytes |\n|---|---:|\n"
        );
        for (what, bytes) in &results.bytes {
            let _ = writeln!(text, "| {what} | {bytes:.0} |");
        }
    }
}

fn title(text: &mut String, title: &str, sizes: &[u32]) {
    let _ = write!(text, "\n{title}\n\n|");
    for size in sizes {
        let _ = write!(text, " | {}", thousands(*size));
    }
    let _ = writeln!(text, " |\n|---|{}", "---:|".repeat(sizes.len()));
}

/// A row, unless nothing of it was measured.
fn row(text: &mut String, name: &str, sizes: &[u32], cell: impl Fn(u32) -> Option<String>) {
    let cells: Vec<_> = sizes.iter().map(|size| cell(*size)).collect();
    if cells.iter().any(Option::is_some) {
        let _ = write!(text, "| {name}");
        for cell in cells {
            let _ = write!(text, " | {}", cell.unwrap_or_default());
        }
        text.push_str(" |\n");
    }
}

fn with_ratio(ns: f64, reference: Option<f64>, what: &str) -> String {
    match reference {
        // The pass alone answers nobody: to hold it against what answers everybody would say nothing.
        Some(theirs) if what != REFERENCE && what != What::Pass.label() => {
            format!("{} ({}x)", figure(ns), figure(theirs / ns))
        }
        _ => figure(ns),
    }
}

/// Two or three digits that count, and whole numbers from ten on.
pub(crate) fn figure(value: f64) -> String {
    if value >= 1_000.0 {
        return thousands(value.round() as u32);
    }
    let places = match value {
        value if value >= 10.0 => 0,
        value if value >= 1.0 => 1,
        value if value >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

/// 10000 as 10,000.
pub(crate) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
