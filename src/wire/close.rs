//! Why a connection was closed: QUIC application error codes with their names and what the client should do.

/// What a client should do about a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Nothing: the client itself left.
    Nothing,
    /// Wait a little, get a new connect token, and connect again.
    RetryLater,
    /// Get a new connect token and connect again at once, backing off if it happens again.
    NewToken,
    /// The session is over: log in again.
    LogIn,
    /// Trying again will not help.
    GiveUp,
}

impl Advice {
    /// The advice as a fixed label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::RetryLater => "retry_later",
            Self::NewToken => "new_token",
            Self::LogIn => "log_in",
            Self::GiveUp => "give_up",
        }
    }
}

/// Makes the one table of close codes: number, name on the wire's documentation and in metrics, advice.
macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $label:literal, $advice:ident;)*) => {
        /// Why a connection was closed: the QUIC application error code of CONNECTION_CLOSE (RFC 9000, section 19.19).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum CloseCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl CloseCode {
            /// Every code, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The number on the wire.
            pub const fn number(self) -> u64 {
                self as u64
            }

            /// The code with this number, if it is one of ours.
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The fixed name: the metric label, and what the documentation calls it.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What the client should do.
            pub const fn advice(self) -> Advice {
                match self { $(Self::$variant => Advice::$advice,)* }
            }
        }
    };
}

close_codes! {
    /// The client left.
    Left = 0x00, "left", Nothing;
    /// The gateway is draining; another one will have room.
    Drained = 0x10, "drained", RetryLater;
    /// No seat is free, or the single-use history is full.
    ServerFull = 0x11, "server_full", RetryLater;
    /// The client reads too slowly what it is sent, or sends more than its budgets allow, for too long.
    RateLimited = 0x12, "rate_limited", RetryLater;
    /// The gateway cannot judge tokens now: its control channel is stale or does not cover the token, or the simulation stands still.
    GatewayNotReady = 0x13, "gateway_not_ready", RetryLater;
    /// Something broke inside the gateway.
    InternalError = 0x14, "internal_error", RetryLater;
    /// Hello did not arrive in time.
    AdmissionTimeout = 0x20, "admission_timeout", NewToken;
    /// The connect token does not open here: forged, made for another gateway or another process of it, malformed, or of another
    /// purpose. Which of these is not told.
    TokenRejected = 0x21, "token_rejected", NewToken;
    /// The connect token's time has passed.
    TokenExpired = 0x22, "token_expired", NewToken;
    /// The connect token was presented before.
    TokenUsed = 0x23, "token_used", NewToken;
    /// The session was revoked or logged out.
    SessionRevoked = 0x30, "session_revoked", LogIn;
    /// The session was not used for too long.
    SessionIdle = 0x31, "session_idle", LogIn;
    /// The session reached its absolute end.
    SessionExpired = 0x32, "session_expired", LogIn;
    /// The client broke the protocol.
    ProtocolViolation = 0x40, "protocol_violation", GiveUp;
    /// The gateway does not speak the protocol version of Hello.
    UnsupportedVersion = 0x41, "unsupported_version", GiveUp;
    /// A newer connection took this one's seat. Final, or two devices would throw each other out for ever.
    Superseded = 0x42, "superseded", GiveUp;
    /// The player plays already, and the older connection wins.
    PlayerPresent = 0x43, "player_present", GiveUp;
    /// The simulation threw the client out; its own reason stands in the reason phrase as 4 big-endian bytes.
    Kicked = 0x44, "kicked", GiveUp;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_known() {
        for (i, code) in CloseCode::ALL.iter().enumerate() {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
            for other in &CloseCode::ALL[i + 1..] {
                assert!(code.number() < other.number());
                assert_ne!(code.label(), other.label());
            }
        }
        assert_eq!(CloseCode::from_number(0xffff), None);
    }
}
