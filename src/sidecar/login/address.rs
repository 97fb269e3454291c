//! E-mail addresses, in one spelling each.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::store::Identity;

/// The longest address (RFC 5321, section 4.5.3.1.3, without its angle brackets), and its longest local part (4.5.3.1.1).
const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;
/// The longest label of a domain (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Why a text is no e-mail address. The text itself is somebody's, and is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "an e-mail address, such as ada@example.com: 254 bytes of ASCII at most, its domain in ASCII (IDNA) too"
)]
pub struct InvalidEmail;

/// An e-mail address, in lower case.
///
/// Mail systems may tell Ada@ from ada@ (RFC 5321, section 2.4), and none that matters does: were they two accounts here, whoever
/// gets the other spelling would get the account. Quoted local parts and literal addresses are not taken, nor what could end a header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// The account that the address is.
    pub(in crate::sidecar) fn identity(&self) -> Identity {
        Identity {
            provider: super::EMAIL.to_owned(),
            subject: self.0.clone(),
        }
    }
}

impl FromStr for EmailAddress {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(InvalidEmail);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let is_sound = (1..=LONGEST_LOCAL).contains(&local.len())
            && local
                .split('.')
                .all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
            && domain.split('.').all(is_label);
        if is_sound {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidEmail)
        }
    }
}

/// What an unquoted local part is made of (RFC 5322, section 3.2.3).
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Personal data: logs are no place for it.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_is_one_account() {
        for text in ["ada@example.com", "Ada@EXAMPLE.com", " ada@example.com\n"] {
            let address: EmailAddress = text.parse().unwrap();
            assert_eq!(address.as_str(), "ada@example.com");
            assert_eq!(address.domain(), "example.com");
        }
        for good in ["a@localhost", "o'neil+x.y@a-b.co", "a/b@1.example"] {
            assert!(good.parse::<EmailAddress>().is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_no_address_or_could_do_harm_in_a_header_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        let longer = format!("a@{}.com", "b.".repeat(130));
        for bad in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "a b@example.com",
            "a@b@",
            "a..b@x.org",
            ".a@x.org",
            "a.@x.org",
            "\"a\"@x.org",
            "a@[127.0.0.1]",
            "a@x..org",
            "a@-x.org",
            "a@x.org>",
            "a@x.org\r\nBcc: b@x.org",
            "ä@x.org",
            "a@ä.org",
            "a,b@x.org",
            &long,
            &longer,
        ] {
            assert_eq!(bad.parse::<EmailAddress>(), Err(InvalidEmail), "{bad}");
        }
    }

    #[test]
    fn an_address_is_not_shown_where_it_is_not_asked_for() {
        let address: EmailAddress = "ada@example.com".parse().unwrap();
        assert!(!format!("{address:?}").contains("ada"));
    }
}
