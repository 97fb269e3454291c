//! The text of a key file: one key, or several while they rotate; and the steps of a rotation on it.
//!
//! ```text
//! k4.local.…                                                     one key, as `tickgate keys generate` writes it
//!
//! current k4.local.… epoch=2 since=2026-03-01T12:00:00.000Z      while keys rotate
//! previous k4.local.… epoch=1 since=2026-03-01T12:00:00.000Z
//! ```
//!
//! The steps are three, and whoever is one step behind still understands whoever is ahead: so a file may be copied to any number of
//! sidecars, in any order, as long as all have it before the next step. [`publish`](KeyFile::publish) adds the key that everybody opens
//! and nobody seals with, [`promote`](KeyFile::promote) makes it the one that seals, [`retire`](KeyFile::retire) drops the one before.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    clock::Timestamp,
    token::{FIRST_EPOCH, InvalidKey, KeyId, KeyRole, OperatorKey, Rotating},
};

/// A key in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry<K> {
    /// The key.
    pub key: K,
    /// Counts the rotations of its purpose; no two keys of a file have the same.
    pub epoch: u32,
    /// Since when it has its role, if that was ever written down.
    pub since: Option<Timestamp>,
}

/// What a key file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile<K> {
    /// Everybody opens with it already, and nobody seals with it.
    pub next: Option<KeyEntry<K>>,
    /// Seals.
    pub current: KeyEntry<K>,
    /// Sealed before.
    pub previous: Option<KeyEntry<K>>,
}

/// Why a text is no key file. What stands there, which may be secret, is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidKeyFile {
    /// A line's key is none.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// A line that is neither a role and a key with their fields nor a comment.
    #[error(
        "line {0} is not `next`, `current` or `previous`, a key, and then epoch=NUMBER and since=TIME"
    )]
    Line(usize),
    /// Two keys have one role.
    #[error("there are two {0} keys")]
    Twice(KeyRole),
    /// No key seals.
    #[error("there is no current key")]
    NoCurrent,
    /// Two keys have one number, or are the same: nobody could tell them apart.
    #[error("two of the keys have the same epoch, or are the same key")]
    SameEpoch,
}

impl InvalidKeyFile {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Key(key) => key.label(),
            Self::Line(_) => "line",
            Self::Twice(_) => "twice",
            Self::NoCurrent => "no_current",
            Self::SameEpoch => "same_epoch",
        }
    }
}

/// Why a step of a rotation cannot be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WrongStep {
    /// A key is published already.
    #[error("a next key is published already: {0}")]
    Published(KeyId),
    /// None is published.
    #[error("no next key is published")]
    NothingPublished,
    /// The one before the present one has not been retired.
    #[error("the previous key {0} has not been retired")]
    NotRetired(KeyId),
    /// There is none to retire.
    #[error("there is no previous key")]
    NothingToRetire,
}

impl WrongStep {
    /// The error as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Published(_) => "published",
            Self::NothingPublished => "nothing_published",
            Self::NotRetired(_) => "not_retired",
            Self::NothingToRetire => "nothing_to_retire",
        }
    }
}

impl<K: OperatorKey> KeyFile<K> {
    /// Reads a text: a single key (the current one, of the first epoch), or lines of a role, a key and its fields; empty lines and what
    /// begins with `#` count as nothing.
    ///
    /// # Errors
    /// [`InvalidKeyFile`]
    pub fn parse(text: &str) -> Result<Self, InvalidKeyFile> {
        // Editors and shells end a file with a newline.
        let mut lines = text.lines().map(str::trim).filter(|line| counts(line));
        let first = lines.next().unwrap_or_default();
        if lines.next().is_none() && !first.contains(char::is_whitespace) {
            return Ok(Self {
                next: None,
                current: KeyEntry {
                    key: K::from_paserk(first)?,
                    epoch: FIRST_EPOCH,
                    since: None,
                },
                previous: None,
            });
        }
        let (mut next, mut current, mut previous) = (None, None, None);
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !counts(line) {
                continue;
            }
            let malformed = InvalidKeyFile::Line(at.saturating_add(1));
            let (role, entry) = parse_line(line).ok_or(malformed)??;
            let place = match role {
                KeyRole::Next => &mut next,
                KeyRole::Current => &mut current,
                KeyRole::Previous => &mut previous,
            };
            if place.replace(entry).is_some() {
                return Err(InvalidKeyFile::Twice(role));
            }
        }
        let file = Self {
            next,
            current: current.ok_or(InvalidKeyFile::NoCurrent)?,
            previous,
        };
        file.ensure_distinct()?;
        Ok(file)
    }

    /// The text of the file: a single line for a key that has never rotated. Secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let rests = self.next.is_none() && self.previous.is_none();
        if rests && self.current.epoch == FIRST_EPOCH && self.current.since.is_none() {
            return self.current.key.to_paserk();
        }
        // Room for the whole at once: growing would leave a copy of its beginning behind.
        let mut text = Zeroizing::new(String::with_capacity(1_024));
        text.push_str("# Secret. `tickgate keys rotate` and `tickgate keys retire` change this file; `tickgate keys list` tells what it holds.\n");
        for (role, entry) in self.entries() {
            let KeyEntry { key, epoch, since } = entry;
            text.push_str(role.label());
            text.push(' ');
            text.push_str(&key.to_paserk());
            text.push_str(&format!(" epoch={epoch}"));
            if let Some(since) = since {
                text.push_str(&format!(" since={since}"));
            }
            text.push('\n');
        }
        // The writer adds the last line's end.
        text.pop();
        text
    }

    /// The keys with their roles: next, current, previous.
    pub fn entries(&self) -> impl Iterator<Item = (KeyRole, &KeyEntry<K>)> {
        let entry = |role, entry: Option<_>| entry.map(|entry| (role, entry));
        [
            entry(KeyRole::Next, self.next.as_ref()),
            entry(KeyRole::Current, Some(&self.current)),
            entry(KeyRole::Previous, self.previous.as_ref()),
        ]
        .into_iter()
        .flatten()
    }

    /// The first step: `key` is there for everybody to open with.
    ///
    /// # Errors
    /// [`WrongStep::Published`]
    pub fn publish(self, key: K, now: Timestamp) -> Result<Self, WrongStep> {
        if let Some(next) = &self.next {
            return Err(WrongStep::Published(next.key.id()));
        }
        let newest = self.entries().map(|(_, entry)| entry.epoch).max();
        let next = KeyEntry {
            key,
            epoch: newest.unwrap_or(FIRST_EPOCH).saturating_add(1),
            since: Some(now),
        };
        Ok(Self {
            next: Some(next),
            ..self
        })
    }

    /// The second step, when everybody has the next key: it seals from now on, and the one that sealed goes on opening.
    ///
    /// # Errors
    /// [`WrongStep::NothingPublished`], and [`WrongStep::NotRetired`]: the keys before the last two are not kept, so the last one but one
    /// has to be done with first.
    pub fn promote(self, now: Timestamp) -> Result<Self, WrongStep> {
        let Self {
            next,
            current,
            previous,
        } = self;
        if let Some(previous) = previous {
            return Err(WrongStep::NotRetired(previous.key.id()));
        }
        let next = next.ok_or(WrongStep::NothingPublished)?;
        let since = Some(now);
        Ok(Self {
            next: None,
            current: KeyEntry { since, ..next },
            previous: Some(KeyEntry { since, ..current }),
        })
    }

    /// The last step, when the last token under the previous key has expired: nothing that it sealed opens any more.
    ///
    /// # Errors
    /// [`WrongStep::NothingToRetire`]
    pub fn retire(self) -> Result<Self, WrongStep> {
        match self.previous {
            Some(_) => Ok(Self {
                previous: None,
                ..self
            }),
            None => Err(WrongStep::NothingToRetire),
        }
    }

    /// The keys as a sidecar holds them.
    pub fn into_rotating<T>(self, make: impl FnMut(KeyEntry<K>) -> T) -> Rotating<T> {
        let Self {
            next,
            current,
            previous,
        } = self;
        let entries = Rotating {
            next,
            current,
            previous: Vec::from_iter(previous),
        };
        entries.map(make)
    }

    fn ensure_distinct(&self) -> Result<(), InvalidKeyFile> {
        let all: Vec<_> = self
            .entries()
            .map(|(_, entry)| (entry.epoch, entry.key.id()))
            .collect();
        for (at, (epoch, id)) in all.iter().enumerate() {
            let mut others = all.iter().skip(at.saturating_add(1));
            if others.any(|(other, key)| other == epoch || key == id) {
                return Err(InvalidKeyFile::SameEpoch);
            }
        }
        Ok(())
    }
}

/// Whether a line is more than a comment.
fn counts(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

/// A role, a key and its fields; nothing where the line has another shape.
fn parse_line<K: OperatorKey>(line: &str) -> Option<Result<(KeyRole, KeyEntry<K>), InvalidKey>> {
    let mut words = line.split_whitespace();
    let role = words.next()?.parse().ok()?;
    let paserk = words.next()?;
    let (mut epoch, mut since) = (None, None);
    for field in words {
        match field.split_once('=')? {
            ("epoch", number) if epoch.is_none() => epoch = Some(number.parse().ok()?),
            ("since", time) if since.is_none() => since = Some(time.parse().ok()?),
            _ => return None,
        }
    }
    let epoch = epoch?;
    let entry = |key| KeyEntry { key, epoch, since };
    Some(K::from_paserk(paserk).map(|key| (role, entry(key))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{SessionKey, TransportMasterKey};

    const NOON: Timestamp = Timestamp(1_700_000_000_000);
    const LATER: Timestamp = Timestamp(1_700_000_060_000);

    fn plain() -> KeyFile<SessionKey> {
        KeyFile::parse(&SessionKey::generate().to_paserk()).unwrap()
    }

    fn ids(file: &KeyFile<SessionKey>) -> Vec<(KeyRole, KeyId, u32)> {
        file.entries()
            .map(|(role, entry)| (role, entry.key.id(), entry.epoch))
            .collect()
    }

    #[test]
    fn a_key_goes_through_its_roles() {
        let start = plain();
        let old = start.current.key.id();
        assert!(!start.to_text().contains('\n'), "one key is one line");
        let new = SessionKey::generate();
        let published = start.publish(new.clone(), NOON).unwrap();
        assert_eq!(
            ids(&published),
            [(KeyRole::Next, new.id(), 2), (KeyRole::Current, old, 1)]
        );
        let promoted = published.promote(LATER).unwrap();
        assert_eq!(
            ids(&promoted),
            [(KeyRole::Current, new.id(), 2), (KeyRole::Previous, old, 1)]
        );
        assert_eq!(promoted.previous.as_ref().unwrap().since, Some(LATER));
        let retired = promoted.retire().unwrap();
        assert_eq!(ids(&retired), [(KeyRole::Current, new.id(), 2)]);
        // And once more round: a number is never used twice.
        let again = retired.publish(SessionKey::generate(), LATER).unwrap();
        assert_eq!(again.next.unwrap().epoch, 3);
    }

    #[test]
    fn no_step_is_taken_out_of_turn() {
        let start = plain();
        let key = SessionKey::generate();
        assert_eq!(
            start.clone().promote(NOON),
            Err(WrongStep::NothingPublished)
        );
        assert_eq!(start.clone().retire(), Err(WrongStep::NothingToRetire));
        let published = start.publish(key.clone(), NOON).unwrap();
        assert_eq!(
            published.clone().publish(SessionKey::generate(), NOON),
            Err(WrongStep::Published(key.id()))
        );
        let promoted = published.promote(NOON).unwrap();
        let old = promoted.previous.as_ref().unwrap().key.id();
        let next = promoted.publish(SessionKey::generate(), NOON).unwrap();
        assert_eq!(next.promote(NOON), Err(WrongStep::NotRetired(old)));
    }

    #[test]
    fn what_is_written_is_read() {
        let file = plain()
            .publish(SessionKey::generate(), NOON)
            .unwrap()
            .promote(LATER)
            .unwrap()
            .publish(SessionKey::generate(), LATER)
            .unwrap();
        for file in [plain(), file.clone(), file.retire().unwrap()] {
            let text = file.to_text();
            assert_eq!(KeyFile::parse(&text), Ok(file.clone()));
            let edited = format!("\n  # by hand\n\n{}\n\n", text.replace(' ', "\t "));
            assert_eq!(KeyFile::parse(&edited), Ok(file));
        }
    }

    #[test]
    fn what_is_no_key_file_is_refused_without_being_told() {
        let key = || TransportMasterKey::generate().to_paserk();
        let (a, b) = (key(), key());
        let cases = [
            (String::new(), "wrong_header"),
            ("hunter2".to_owned(), "wrong_header"),
            (format!("{}\n{}", *a, *b), "line"),
            (format!("current {} epoch=1 hunter2", *a), "line"),
            (format!("current {} epoch=hunter2", *a), "line"),
            (format!("current {} epoch=1 epoch=1", *a), "line"),
            (format!("current {}", *a), "line"),
            (format!("current {} epoch=1 since=noon", *a), "line"),
            (format!("newest {} epoch=1", *a), "line"),
            ("current hunter2 epoch=1".to_owned(), "wrong_header"),
            (format!("next {} epoch=1", *a), "no_current"),
            (
                format!("current {} epoch=1\ncurrent {} epoch=2", *a, *b),
                "twice",
            ),
            (
                format!("current {} epoch=1\nnext {} epoch=1", *a, *b),
                "same_epoch",
            ),
            (
                format!("current {} epoch=1\nnext {} epoch=2", *a, *a),
                "same_epoch",
            ),
        ];
        for (text, label) in cases {
            let refused = KeyFile::<TransportMasterKey>::parse(&text).unwrap_err();
            assert_eq!(refused.label(), label, "{text}");
            let told = format!("{refused} {refused:?}");
            assert!(
                !told.contains("hunter2") && !told.contains(&a[9..]),
                "{told}"
            );
        }
    }
}
