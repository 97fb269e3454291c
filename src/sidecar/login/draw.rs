//! Secrets that nobody can foresee: from the operating system's randomness.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::{sidecar::refusal::Refusal, store::StoreError};

/// Random bytes.
pub(in crate::sidecar) fn bytes<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::Store(StoreError::Randomness))?;
    Ok(bytes)
}

/// `N` random bytes as text: base64url without padding, fit for links.
pub(in crate::sidecar) fn text<const N: usize>() -> Result<Zeroizing<String>, Refusal> {
    let bytes = Zeroizing::new(bytes::<N>()?);
    Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Six digits, each code as likely as any other.
pub(in crate::sidecar) fn digits() -> Result<Zeroizing<String>, Refusal> {
    loop {
        if let Some(digits) = digits_of(u32::from_be_bytes(bytes()?)) {
            return Ok(digits);
        }
    }
}

/// The six digits of a random number; none for one of the last numbers, which would make some codes likelier than others.
fn digits_of(number: u32) -> Option<Zeroizing<String>> {
    const CODES: u32 = 1_000_000;
    const FAIR: u32 = u32::MAX / CODES * CODES;
    (number < FAIR).then(|| Zeroizing::new(format!("{:06}", number % CODES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_six_digits_and_all_as_likely() {
        for (number, code) in [
            (0, "000000"),
            (7, "000007"),
            (999_999, "999999"),
            (1_000_000, "000000"),
            (4_293_999_999, "999999"),
        ] {
            assert_eq!(**digits_of(number).unwrap(), *code);
        }
        for unfair in [4_294_000_000, u32::MAX] {
            assert!(digits_of(unfair).is_none());
        }
        assert_eq!(digits().unwrap().len(), 6);
    }

    #[test]
    fn texts_are_fit_for_links_and_never_the_same() {
        let [one, other] = [text::<32>().unwrap(), text::<32>().unwrap()];
        assert_ne!(one, other);
        assert_eq!(one.len(), 43);
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        assert!(one.bytes().all(fit));
    }
}
