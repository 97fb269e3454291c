//! What happened at a gateway, for `explain`.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    MAX_EVENTS, MAX_REASON_BYTES, Malformed,
    lists::{decode_address, id_bytes},
};
use crate::{
    clock::Timestamp,
    control::{GatewayEvent, GatewayEventKind},
    id::SessionId,
    proto::{self, gateway_event::Kind},
    wire::CloseCode,
};

pub(super) fn encode_event(event: GatewayEvent) -> proto::GatewayEvent {
    let GatewayEvent {
        at,
        kind,
        session,
        token_sha256,
        remote,
    } = event;
    let (kind, reason, code) = match kind {
        GatewayEventKind::Admitted => (Kind::Admitted, None, 0),
        GatewayEventKind::Resumed { superseded } => {
            let told = if superseded {
                CloseCode::Superseded as u16
            } else {
                0
            };
            (Kind::Resumed, None, told)
        }
        GatewayEventKind::Refused { reason, code } => (Kind::Refused, Some(reason), code),
        GatewayEventKind::Suspended => (Kind::Suspended, None, 0),
        GatewayEventKind::Ended { reason, code } => (Kind::Ended, Some(reason), code),
    };
    proto::GatewayEvent {
        kind: kind.into(),
        at_ms: at.0,
        session_id: session.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id.to_bytes())),
        token_sha256: token_sha256.map_or_else(Bytes::new, |hash| Bytes::copy_from_slice(&hash)),
        reason: reason.map(Cow::into_owned).unwrap_or_default(),
        close_code: code.into(),
        remote: remote.map(|remote| remote.to_string()).unwrap_or_default(),
    }
}

pub(super) fn decode_events(
    events: Vec<proto::GatewayEvent>,
) -> Result<Vec<GatewayEvent>, Malformed> {
    if events.len() > MAX_EVENTS {
        return Err(Malformed("events.events"));
    }
    events.into_iter().map(decode_event).collect()
}

fn decode_event(event: proto::GatewayEvent) -> Result<GatewayEvent, Malformed> {
    let session = present(&event.session_id)
        .map(|bytes| id_bytes(bytes, "events.session_id").map(SessionId::from_bytes))
        .transpose()?;
    let token_sha256 = present(&event.token_sha256)
        .map(|bytes| <[u8; 32]>::try_from(bytes).map_err(|_| Malformed("events.token_sha256")))
        .transpose()?;
    let remote = present(event.remote.as_bytes())
        .map(|_| decode_address(&event.remote, "events.remote"))
        .transpose()?;
    let code = u16::try_from(event.close_code).map_err(|_| Malformed("events.close_code"))?;
    let kind = match Kind::try_from(event.kind) {
        Ok(Kind::Admitted) => GatewayEventKind::Admitted,
        Ok(Kind::Resumed) => GatewayEventKind::Resumed {
            superseded: code != 0,
        },
        Ok(Kind::Suspended) => GatewayEventKind::Suspended,
        Ok(Kind::Refused) => GatewayEventKind::Refused {
            reason: decode_reason(event.reason)?,
            code,
        },
        Ok(Kind::Ended) => GatewayEventKind::Ended {
            reason: decode_reason(event.reason)?,
            code,
        },
        Ok(Kind::Unspecified) | Err(_) => return Err(Malformed("events.kind")),
    };
    // A refusal alone may be nobody's.
    if session.is_none() && !matches!(kind, GatewayEventKind::Refused { .. }) {
        return Err(Malformed("events.session_id"));
    }
    Ok(GatewayEvent {
        at: Timestamp(event.at_ms),
        kind,
        session,
        token_sha256,
        remote,
    })
}

/// A label goes into tables and logs as it is.
fn decode_reason(reason: String) -> Result<Cow<'static, str>, Malformed> {
    let well_formed = (1..=MAX_REASON_BYTES).contains(&reason.len())
        && reason.bytes().all(|byte| byte.is_ascii_graphic());
    if well_formed {
        Ok(reason.into())
    } else {
        Err(Malformed("events.reason"))
    }
}

fn present(bytes: &[u8]) -> Option<&[u8]> {
    (!bytes.is_empty()).then_some(bytes)
}
