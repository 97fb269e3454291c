//! What a refusal tells programs beside its status: why, and when to come again.
//!
//! As `google.rpc.Status` carries it in `grpc-status-details-bin`: field numbers and type names are those of
//! <https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto>.

use std::time::Duration;

use prost::Message;
use tonic::Status;

/// Whose reasons they are.
const DOMAIN: &str = "tickgate";

/// The metadata that says in how many seconds to ask again, as the header of that name does in HTTP (RFC 9110, section 10.2.3).
const RETRY_AFTER: &str = "retry-after";

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// The same status with the reason, by a name that code can go by, and how long to wait before trying again where that helps: in the details, and
/// in whole seconds, rounded up, in the metadata `retry-after`.
pub fn explained(status: &Status, reason: &str, wait: Option<Duration>) -> Status {
    let reason = Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
        }
        .encode_to_vec(),
    };
    let details = RpcStatus {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: std::iter::once(reason)
            .chain(wait.map(retry_info))
            .collect(),
    };
    let bytes = details.encode_to_vec().into();
    let mut status = Status::with_details(status.code(), status.message(), bytes);
    if let Some(wait) = wait {
        let seconds = whole_seconds(wait);
        status.metadata_mut().insert(RETRY_AFTER, seconds.into());
    }
    status
}

/// Whole seconds, rounded up: who waits for as long is not too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// How long to wait for what comes back by itself: a store, a sidecar or gateway that attaches again within a second or two.
pub const AWAY: Duration = Duration::from_secs(2);

fn retry_info(wait: Duration) -> Any {
    let info = RetryInfo {
        retry_delay: Some(ProtoDuration {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
        }),
    };
    Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: info.encode_to_vec(),
    }
}
