//! Being heard as often as the gateway asks for.

use std::time::Duration;

use quinn::VarInt;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::endpoint::{KEEP_ALIVE, RECEIVE_WINDOW};

/// However often a gateway wants to hear of its clients, ten times a second has to do: what asks for more is a mistake.
pub(super) const MOST_OFTEN: Duration = Duration::from_millis(100);

/// Lets the connection be heard every `interval_ms`, for as long as what is returned is kept.
///
/// QUIC's own keep-alive is set before connecting, thus before the gateway says how often it wants to hear of the client, and quinn has
/// no call for a ping. So QUIC's is set to the 3 s that docs/PROTOCOL.md assumes until Welcome, and also to be no less often for the
/// client's own sake: it wants three chances within its idle timeout. A gateway that asks for more gets it from here, by a task that
/// lives as long as the connection. No gateway of this version does, so none is started as a rule.
pub(super) fn keep_alive(quic: &quinn::Connection, interval_ms: u16) -> Option<JoinSet<()>> {
    let asked = Duration::from_millis(interval_ms.into());
    if asked >= KEEP_ALIVE {
        return None;
    }
    let quic = quic.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut due = interval(asked.max(MOST_OFTEN));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while quic.close_reason().is_none() {
            due.tick().await;
            ping(&quic);
        }
    });
    Some(task)
}

/// Has a MAX_DATA frame sent, which the gateway must acknowledge (RFC 9002, section 2).
///
/// A window that grows is announced at once; to let it grow by the byte by which it was shrunk before changes nothing in what the
/// gateway may have in flight, since QUIC makes up for the shrinking when data is read.
fn ping(quic: &quinn::Connection) {
    quic.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW - 1));
    quic.set_receive_window(VarInt::from_u32(RECEIVE_WINDOW));
}
