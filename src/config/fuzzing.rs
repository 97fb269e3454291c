//! Texts of configurations and key files.

use super::{Config, KeyFile};
use crate::token::SessionKey;

/// Reads the input as a configuration, and as a key file.
///
/// # Panics
/// If a configuration that was accepted does not survive being written, or an error points to where there is no text.
pub fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match Config::parse(text) {
        Ok(config) => {
            assert!(config.check().is_ok(), "accepted, and not in order");
            let again = Config::parse(&config.to_toml());
            assert_eq!(again.ok(), Some(config), "a configuration changed");
        }
        Err(error) => {
            assert!(!error.problems().is_empty(), "wrong, but nothing is");
            assert!(!error.to_string().is_empty(), "an error says what is wrong");
            let lines = text.split('\n').count();
            for position in error
                .problems()
                .iter()
                .filter_map(|problem| problem.position)
            {
                assert!(
                    (1..=lines).contains(&position.line),
                    "line {}",
                    position.line
                );
                assert!(position.column >= 1, "column {}", position.column);
            }
        }
    }
    if let Ok(file) = KeyFile::<SessionKey>::parse(text) {
        let again = KeyFile::<SessionKey>::parse(&file.to_text());
        assert!(again.as_ref() == Ok(&file), "a key file changed");
    }
}
