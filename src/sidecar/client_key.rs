//! The public keys that connect tokens are bound to: which ones are taken.

use super::refusal::Refusal;

/// The y coordinates of the eight points whose order divides the curve's cofactor, little-endian, with the sign bit of x cleared; each
/// in every encoding that a decoder takes which reduces y modulo p = 2^255 - 19, as ring's does.
///
/// Source: RFC 8032, section 5.1 (the curve and its encoding); K. Chalkias, F. Garillot and V. Nikolaenko, "Taming the many EdDSAs"
/// (2020), on keys of small order and encodings that are not canonical. With either sign bit these are 14 texts for 8 points.
const SMALL_ORDER: [[u8; 32]; 7] = [
    // y = 0, order 4.
    [0; 32],
    // y = 1, the neutral element, order 1.
    [
        0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0,
    ],
    // Order 8.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    // Order 8: p less the one above.
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // y = p - 1, order 2.
    near_p(0xec),
    // y = p, which is 0 not reduced.
    near_p(0xed),
    // y = p + 1, which is 1 not reduced.
    near_p(0xee),
];

/// A number whose lowest byte is this one, and which has all other bits of 255 set: p is that of 0xed.
const fn near_p(lowest: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    let [first, .., last] = &mut bytes;
    *first = lowest;
    *last = 0x7f;
    bytes
}

/// The key that a token is to be bound to; none for any bearer.
///
/// A key of small order would bind it to nobody: there are signatures that verify under it for whatever message, made without any
/// secret. One that is no point of the curve proves nothing ever, to its owner's harm alone, and is let be.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<[u8; 32]>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let key: [u8; 32] = bytes.try_into().map_err(|_| Refusal::Argument {
        field: "client_key",
        allowed: "empty, or the 32 bytes of an Ed25519 public key",
    })?;
    if is_of_small_order(key) {
        return Err(Refusal::Argument {
            field: "client_key",
            allowed: "an Ed25519 public key of the curve's large order: generate one with a library, this one proves nothing",
        });
    }
    Ok(Some(key))
}

fn is_of_small_order(mut key: [u8; 32]) -> bool {
    let [.., last] = &mut key;
    *last &= 0x7f;
    SMALL_ORDER.contains(&key)
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

    use super::*;

    /// The 14 texts.
    fn encodings() -> impl Iterator<Item = [u8; 32]> {
        SMALL_ORDER.into_iter().flat_map(|positive| {
            let mut negative = positive;
            negative[31] |= 0x80;
            [positive, negative]
        })
    }

    #[test]
    fn a_key_of_small_order_that_anybody_can_sign_for_is_refused() {
        for key in encodings() {
            // S = 0, and for R the small point that is left then. Which one that is hangs on a hash over R itself: a try for each, and on
            // to the next message (or the next S), soon finds one that fits. No secret is needed.
            let verifier = UnparsedPublicKey::new(&ED25519, key);
            let forged = (0..64_u8).any(|message| {
                encodings().any(|r| {
                    let signature = [r, [0; 32]].concat();
                    verifier.verify(&[message], &signature).is_ok()
                })
            });
            assert!(forged, "{key:02x?} would be safe");
            let refused = parse(&key).unwrap_err();
            assert_eq!(refused.label(), "argument");
            assert!(refused.to_string().starts_with("client_key: "), "{refused}");
        }
    }

    #[test]
    fn the_small_points_come_in_pairs_below_p() {
        let sum = |a: [u8; 32], b: [u8; 32]| {
            let mut carry = 0;
            std::array::from_fn::<u8, 32, _>(|i| {
                let digit = u16::from(a[i]) + u16::from(b[i]) + carry;
                carry = digit >> 8;
                digit.to_le_bytes()[0]
            })
        };
        let [zero, one, eight, minus_eight, minus_one, p, _] = SMALL_ORDER;
        assert_eq!(sum(zero, p), p);
        assert_eq!(sum(one, minus_one), p);
        assert_eq!(sum(eight, minus_eight), p);
    }

    #[test]
    fn honest_keys_are_taken() {
        for seed in 0..100 {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
            assert_eq!(parse(&key).unwrap(), Some(key));
        }
        assert_eq!(parse(&[]).unwrap(), None);
        assert!(parse(&[1; 31]).is_err());
    }
}
