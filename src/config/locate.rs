//! Where a key stands in the text, and which key stands at a place: so that every error names both.

use std::ops::Range;

use toml::{Spanned, de::DeTable, de::DeValue};

use super::{
    check,
    error::{Position, Problem},
};

/// Says what the TOML reader found wrong in our words, with the key that it concerns.
pub(super) fn problem(text: &str, error: &toml::de::Error) -> Problem {
    let lines = Lines::of(text);
    let key = error.span().and_then(|span| lines.key_at(span.start));
    let position = error.span().map(|span| position(text, span.start));
    let key = key.unwrap_or_default();
    // Serde speaks of Rust; whoever reads this has written TOML.
    let what = error
        .message()
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value");
    Problem::new(&key, position, &what, check::allowed(&key))
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or("").chars().count() + 1,
    }
}

/// A key of the text, with its sections, and the places of it and of its value.
struct Entry {
    path: String,
    key: Range<usize>,
    value: Range<usize>,
}

/// The keys of a text and where they stand. Empty for a text that is no TOML.
pub(super) struct Lines<'t> {
    text: &'t str,
    entries: Vec<Entry>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let mut entries = Vec::new();
        if let Ok(table) = DeTable::parse(text) {
            collect(table.get_ref(), "", &mut entries);
        }
        Self { text, entries }
    }

    /// Where the value of `path` stands.
    pub(super) fn position_of(&self, path: &str) -> Option<Position> {
        let entry = self.entries.iter().find(|entry| entry.path == path)?;
        Some(position(self.text, entry.value.start))
    }

    /// The innermost key that stands, or whose value stands, at `offset`.
    fn key_at(&self, offset: usize) -> Option<String> {
        self.entries
            .iter()
            // Deeper keys come after those that they stand in.
            .rfind(|entry| entry.key.contains(&offset) || entry.value.contains(&offset))
            .map(|entry| entry.path.clone())
    }
}

fn collect(table: &DeTable<'_>, prefix: &str, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.get_ref().to_string()
        } else {
            format!("{prefix}.{}", key.get_ref())
        };
        entries.push(Entry {
            path: path.clone(),
            key: key.span(),
            value: value.span(),
        });
        collect_value(value, &path, entries);
    }
}

fn collect_value(value: &Spanned<DeValue<'_>>, path: &str, entries: &mut Vec<Entry>) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, path, entries),
        // What stands in a list stands for the list.
        DeValue::Array(items) => {
            for item in items.iter() {
                entries.push(Entry {
                    path: path.to_owned(),
                    key: item.span(),
                    value: item.span(),
                });
                if let DeValue::Table(table) = item.get_ref() {
                    entries.extend(table.iter().map(|(key, value)| Entry {
                        path: path.to_owned(),
                        key: key.span(),
                        value: value.span(),
                    }));
                }
            }
        }
        _ => {}
    }
}
