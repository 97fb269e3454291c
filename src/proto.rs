//! gRPC messages and services, generated from `proto/` at build time.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
// The comments in the proto files are written for readers of those, not as Markdown.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

tonic::include_proto!("tickgate.v1");

/// Shows a message without its secrets. All fields are named, so that a new one breaks the build and not the secrecy.
macro_rules! redacted {
    ($message:ident { $($secret:ident),+; $($shown:ident),* $(,)? }) => {
        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let Self { $($secret: _,)+ $($shown),* } = self;
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), $shown))*
                    $(.field(stringify!($secret), &"[redacted]"))+
                    .finish()
            }
        }
    };
}

redacted!(TransportKey { key; epoch });
redacted!(ConnectTicket {
    token;
    expires_at_ms,
    gateway_id,
    addresses,
    server_name,
    certificate_sha256,
    session_id,
});
redacted!(LoginResponse {
    session_token, refresh_token;
    expires_at_ms,
    session_id,
    player_id,
    is_new_player,
    session_ends_at_ms,
});
redacted!(CreateSessionResponse {
    session_token, refresh_token;
    expires_at_ms,
    session_id,
    player_id,
    is_new_player,
    session_ends_at_ms,
});

redacted!(RefreshRequest { refresh_token; });
redacted!(RefreshResponse {
    session_token, refresh_token;
    expires_at_ms,
    session_id,
    session_ends_at_ms,
    role,
});
redacted!(LogoutRequest { refresh_token; });
redacted!(OtpLogin { email, request_id, code; });
redacted!(MagicLinkLogin { token; });
redacted!(PasswordLogin { email, password; });
redacted!(OidcLogin { id_token; issuer });
redacted!(ConsumeVerificationRequest { token, purpose; });
redacted!(RequestOtpRequest { email; });
redacted!(RequestVerificationRequest { purpose; });
redacted!(RequestOtpResponse { request_id; expires_at_ms });

/// The file descriptors of all services, for the reflection service.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("tickgate.v1");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        const CANARY: &str = "canary-in-the-mine";
        let key = TransportKey {
            epoch: 3,
            key: CANARY.into(),
        };
        let keys = TransportKeys { keys: vec![key] };
        let attached = Attached {
            keys: Some(keys.clone()),
            ..Attached::default()
        };
        let message = SidecarMessage {
            message: Some(sidecar_message::Message::Keys(keys)),
        };
        let ticket = ConnectTicket {
            token: CANARY.into(),
            gateway_id: "eu-1".into(),
            ..ConnectTicket::default()
        };
        let login = LoginResponse {
            session_token: CANARY.into(),
            refresh_token: CANARY.into(),
            ..LoginResponse::default()
        };
        let created = CreateSessionResponse {
            session_token: CANARY.into(),
            refresh_token: CANARY.into(),
            ..CreateSessionResponse::default()
        };
        let refresh = RefreshRequest {
            refresh_token: CANARY.into(),
        };
        let refreshed = RefreshResponse {
            session_token: CANARY.into(),
            refresh_token: CANARY.into(),
            ..RefreshResponse::default()
        };
        let logout = LogoutRequest {
            refresh_token: CANARY.into(),
        };
        let otp = LoginRequest {
            method: Some(login_request::Method::Otp(OtpLogin {
                email: CANARY.into(),
                request_id: CANARY.into(),
                code: CANARY.into(),
            })),
            link: false,
        };
        let link = MagicLinkLogin {
            token: CANARY.into(),
        };
        let password = PasswordLogin {
            email: CANARY.into(),
            password: CANARY.into(),
        };
        let oidc = OidcLogin {
            issuer: "google".into(),
            id_token: CANARY.into(),
        };
        let consumed = ConsumeVerificationRequest {
            token: CANARY.into(),
            purpose: Some(consume_verification_request::Purpose::NewPassword(
                CANARY.into(),
            )),
        };
        let asked = RequestOtpResponse {
            request_id: CANARY.into(),
            expires_at_ms: 1,
        };
        let shown = format!(
            "{link:?} {password:?} {oidc:?} {consumed:?} {otp:?} {asked:?} {attached:?} {message:?} {ticket:?} {login:?} {created:#?} {refresh:?} {refreshed:?} {logout:?}"
        );
        assert!(!shown.contains(CANARY), "{shown}");
        // Bytes would show as numbers, were they shown as a list.
        assert!(!shown.contains("99, 97, 110"), "{shown}");
        assert_eq!(shown.matches("[redacted]").count(), 21);
        assert!(shown.contains("eu-1") && shown.contains("epoch: 3"));
    }
}
