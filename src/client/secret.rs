//! Tokens as the client holds them: text that never shows itself by accident.

use std::fmt;

use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

/// A session or connect token. Secret: Debug prints a redaction, and the memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretToken(Zeroizing<String>);

impl SecretToken {
    /// Takes the token's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The token's text, to be sent where it belongs and shown nowhere.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the token's text: what operators' logs and `tickgate explain` name it by, and no secret.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, self.0.as_bytes()).as_ref());
        hash
    }
}

impl fmt::Debug for SecretToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretToken([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_token() {
        let token = SecretToken::new("v4.local.abc");
        assert!(!format!("{token:?}").contains("abc"));
        assert_eq!(token.expose(), "v4.local.abc");
    }
}
