//! What a device signs to log in with a key that it holds.
//!
//! The signature is over a label, the sidecar's challenge, its end and its audience: the label so that it is good for nothing else,
//! the challenge so that it is good once, and end and audience so that a client which knows when and whom it means to log in to cannot
//! be made to sign for another time or service. It is Ed25519 (RFC 8032), pure and without context.

/// What the signed message begins with: the purpose and its version, so that no signature of another purpose is ever taken for one.
pub const DEVICE_LOGIN_LABEL: &[u8; 24] = b"tickgate.v1.device-login";

/// The message that a device's key signs: [`DEVICE_LOGIN_LABEL`], the challenge, its end in milliseconds since the Unix epoch (big-endian),
/// and the audience, to the end.
pub fn device_login_message(challenge: &[u8; 32], expires_at_ms: u64, audience: &str) -> Vec<u8> {
    let mut message =
        Vec::with_capacity(DEVICE_LOGIN_LABEL.len() + challenge.len() + 8 + audience.len());
    message.extend_from_slice(DEVICE_LOGIN_LABEL);
    message.extend_from_slice(challenge);
    message.extend_from_slice(&expires_at_ms.to_be_bytes());
    message.extend_from_slice(audience.as_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_label_challenge_end_and_audience() {
        let message = device_login_message(&[1; 32], 0x0102_0304, "game");
        assert_eq!(message[..24], *b"tickgate.v1.device-login");
        assert_eq!(message[24..56], [1; 32]);
        assert_eq!(message[56..64], [0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(message[64..], *b"game");
    }
}
