//! The span of a call: its method from the start, then whom and what it turns out to be about. Never a token.

use tonic::codegen::http;
use tracing::{Span, field};

use crate::{id::GatewayId, store::Found};

use super::audit;

/// The longest method that there is has 52 characters.
const LONGEST_METHOD: usize = 64;

/// The span in which a call is answered; the fields that are empty are filled while it is.
pub(super) fn call(request: &http::Request<()>) -> Span {
    tracing::info_span!(
        "call",
        method = method(request.uri().path()),
        session = field::Empty,
        player = field::Empty,
        gateway = field::Empty,
    )
}

/// A path is the peer's to choose: what is no method's name does not reach a log.
pub(super) fn method(path: &str) -> &str {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
    path.strip_prefix('/')
        .filter(|name| name.starts_with("tickgate.v1.") || name.starts_with("grpc."))
        .filter(|name| name.len() <= LONGEST_METHOD && name.bytes().all(plain))
        .unwrap_or("unknown")
}

/// The present call is about this session.
pub(super) fn session(found: &Found) {
    audit::session(found);
    let span = Span::current();
    span.record("session", field::display(found.session.id));
    span.record("player", field::display(found.player.id));
}

/// The present call is about this gateway.
pub(super) fn gateway(gateway: &GatewayId) {
    audit::gateway(gateway);
    Span::current().record("gateway", field::display(gateway));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_and_nothing_else_is() {
        let path = "/tickgate.v1.AuthService/IssueConnectToken";
        assert_eq!(method(path), "tickgate.v1.AuthService/IssueConnectToken");
        for strange in [
            "/v4.local.A-_b",
            "/grpc.a\nb",
            "/grpc/a",
            &"/grpc.a".repeat(10),
        ] {
            assert_eq!(method(strange), "unknown", "{strange}");
        }
    }
}
