//! What a client is told when its connection is closed.

use bytes::Bytes;

use crate::{seat::EndReason, wire::CloseCode};

/// What a connection is closed with: the code, and the reason phrase, which only a kick has.
#[derive(Debug, Clone)]
pub(super) struct Farewell {
    pub(super) code: CloseCode,
    pub(super) phrase: Bytes,
}

impl From<CloseCode> for Farewell {
    fn from(code: CloseCode) -> Self {
        Self {
            code,
            phrase: Bytes::new(),
        }
    }
}

impl From<EndReason> for Farewell {
    fn from(reason: EndReason) -> Self {
        Self {
            code: close_code(reason),
            phrase: match reason {
                EndReason::Kicked(own) => Bytes::copy_from_slice(&own.to_be_bytes()),
                _ => Bytes::new(),
            },
        }
    }
}

/// What a client is told when its seat ends for this reason.
///
/// Of a seat that was lost or left there is nobody to tell; should there be after all, something broke here.
pub(super) const fn close_code(reason: EndReason) -> CloseCode {
    match reason {
        EndReason::Left => CloseCode::Left,
        EndReason::SessionRevoked => CloseCode::SessionRevoked,
        EndReason::Idle => CloseCode::SessionIdle,
        EndReason::Expired => CloseCode::SessionExpired,
        EndReason::Superseded => CloseCode::Superseded,
        EndReason::Stale => CloseCode::GatewayNotReady,
        EndReason::Drained => CloseCode::Drained,
        EndReason::Misbehaved => CloseCode::ProtocolViolation,
        EndReason::TooSlow | EndReason::OverBudget => CloseCode::RateLimited,
        EndReason::Kicked(_) => CloseCode::Kicked,
        EndReason::Lost | EndReason::Internal => CloseCode::InternalError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_carries_the_games_own_reason_and_nothing_else_does() {
        let kicked = Farewell::from(EndReason::Kicked(0x0102_0304));
        assert_eq!(kicked.code, CloseCode::Kicked);
        assert_eq!(kicked.phrase.as_ref(), [1, 2, 3, 4]);
        let stale = Farewell::from(EndReason::Stale);
        assert_eq!(stale.code, CloseCode::GatewayNotReady);
        assert!(stale.phrase.is_empty());
    }
}
