//! What a client signs to prove that it holds the key which its connect token names (the token's `cnf` claim).
//!
//! The signature is over a label, the token and the gateway's certificate: the label so that it is good for nothing else, the token
//! so that it is good for one admission, and the certificate so that whoever is connected to by mistake cannot pass it on (their
//! certificate is another one; RFC 8446 binds the connection to it). It is Ed25519 (RFC 8032), pure and without context.

/// What the signed message begins with: the purpose and its version, so that no signature of another purpose is ever taken for one.
pub const PROOF_LABEL: &[u8; 17] = b"tickgate.v1.proof";

/// Bytes of the signed message: the label and two SHA-256 hashes.
pub const PROOF_MESSAGE_LEN: usize = PROOF_LABEL.len() + 32 + 32;

/// The message that Hello's proof signs: [`PROOF_LABEL`], then `token_sha256`, the SHA-256 of the connect token's text as it stands in
/// Hello, then `leaf_sha256`, the SHA-256 of the leaf certificate (DER) that the gateway presented on this very connection.
pub fn proof_message(token_sha256: &[u8; 32], leaf_sha256: &[u8; 32]) -> [u8; PROOF_MESSAGE_LEN] {
    let mut message = [0; PROOF_MESSAGE_LEN];
    let parts = PROOF_LABEL.iter().chain(token_sha256).chain(leaf_sha256);
    for (place, byte) in message.iter_mut().zip(parts) {
        *place = *byte;
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_label_token_and_leaf() {
        let message = proof_message(&[1; 32], &[2; 32]);
        assert_eq!(message.len(), 81);
        assert_eq!(message[..17], *b"tickgate.v1.proof");
        assert_eq!(message[17..49], [1; 32]);
        assert_eq!(message[49..], [2; 32]);
    }
}
