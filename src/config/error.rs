//! What is wrong with a configuration, and where.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// A configuration that is not usable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says is not allowed; every problem that was found, in the order of the checks.
    #[error("{}", Listing(path.as_deref(), problems))]
    Invalid {
        /// Which file; none for a text that came from elsewhere.
        path: Option<PathBuf>,
        /// At least one.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// A fixed name of the kind of error.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "config_unreadable",
            Self::Invalid { .. } => "config_invalid",
        }
    }

    /// What is wrong, key by key; empty when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }

    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        Self::Invalid {
            path: None,
            problems,
        }
    }

    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Invalid { problems, .. } => Self::Invalid {
                path: Some(file.to_owned()),
                problems,
            },
            other => other,
        }
    }
}

struct Listing<'a>(Option<&'a Path>, &'a [Problem]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, problems) = self;
        for (index, problem) in problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            if let Some(path) = path {
                write!(f, "{}: ", path.display())?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// A place in the text; line and column count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its sections (`session.idle`); empty when the text is no TOML at all.
    pub key: String,
    /// Where it stands; none when a default is in force that does not go with another key.
    pub position: Option<Position>,
    /// What is wrong.
    pub what: String,
    /// What is allowed there; empty when `what` says it.
    pub allowed: &'static str,
}

impl Problem {
    pub(super) fn new(
        key: &str,
        position: Option<Position>,
        what: &str,
        allowed: &'static str,
    ) -> Self {
        Self {
            key: redacted(key),
            position,
            what: redacted(what),
            allowed,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.allowed.is_empty() {
            write!(f, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

const PASERK: &str = "k4.local.";

/// `text` without any key: parsers quote what they were given, and someone will paste a key where none belongs.
fn redacted(text: &str) -> String {
    let mut pieces = text.split(PASERK);
    let mut clean = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=');
        clean.push_str("[redacted key]");
        clean.push_str(piece.trim_start_matches(is_key));
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_ever_quoted() {
        let text = "invalid value: string \"k4.local.AAbb_-9=\", expected k4.local.x";
        assert_eq!(
            redacted(text),
            "invalid value: string \"[redacted key]\", expected [redacted key]"
        );
        assert_eq!(redacted("nothing here"), "nothing here");
    }
}
