//! What the file knows of gateways: whose activity they may report, and which of their processes is the newest.

use bytes::Bytes;
use redb::ReadTransaction;

use crate::{
    id::{GatewayId, Incarnation, SessionId},
    proto,
    store::{Fencing, MAX_FENCED, MAX_GRANTS, StoreError},
};

use super::{changes::Changes, tables};

impl Changes<'_, '_> {
    /// Notes the gateway in the session's record, unless it stands there already.
    pub(super) fn grant(
        &mut self,
        session: SessionId,
        gateway: &GatewayId,
    ) -> Result<(), StoreError> {
        let Some(mut record) = self.tables.session(session)? else {
            return Ok(());
        };
        if is_granted(&record, gateway) {
            return Ok(());
        }
        let too_many = (record.gateways.len() + 1).saturating_sub(MAX_GRANTS);
        record.gateways.drain(..too_many);
        record.gateways.push(gateway.to_string());
        self.tables.put_session(session, &record)
    }

    pub(super) fn attach_gateway(
        &mut self,
        gateway: &GatewayId,
        incarnation: Incarnation,
    ) -> Result<Fencing, StoreError> {
        let own = incarnation.to_bytes();
        let record = match self.tables.gateway(gateway)? {
            None => proto::GatewayRecord {
                incarnation: Bytes::copy_from_slice(&own),
                fenced: Vec::new(),
            },
            Some(known) if known.incarnation == own.as_slice() => return Ok(Fencing::Newest),
            Some(known) if known.fenced.iter().any(|old| *old == own.as_slice()) => {
                return Ok(Fencing::Fenced);
            }
            Some(mut known) => {
                let before =
                    std::mem::replace(&mut known.incarnation, Bytes::copy_from_slice(&own));
                known.fenced.push(before);
                let too_many = known.fenced.len().saturating_sub(MAX_FENCED);
                known.fenced.drain(..too_many);
                known
            }
        };
        self.tables.put_gateway(gateway, &record)?;
        Ok(Fencing::Newest)
    }
}

fn is_granted(record: &proto::SessionRecord, gateway: &GatewayId) -> bool {
    record.gateways.iter().any(|id| id == gateway.as_str())
}

/// Those of `sessions` that have the gateway in their record, in their order.
pub(super) fn read_granted(
    transaction: &ReadTransaction,
    gateway: &GatewayId,
    sessions: Vec<SessionId>,
) -> Result<Vec<SessionId>, StoreError> {
    let read = tables::session_reader(transaction)?;
    let mut granted = Vec::with_capacity(sessions.len());
    for id in sessions {
        if read(id)?.is_some_and(|record| is_granted(&record, gateway)) {
            granted.push(id);
        }
    }
    Ok(granted)
}
