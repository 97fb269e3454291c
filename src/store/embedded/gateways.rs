//! What the file knows of gateways: whose activity they may report, and which of their processes is the newest.

use bytes::Bytes;
use redb::ReadTransaction;

use crate::{
    clock::Timestamp,
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
        let known = self.tables.gateway(gateway)?;
        if let Some(recorded) = known.as_ref().and_then(|k| fencing_of(k, incarnation)) {
            return Ok(recorded);
        }
        let record = match known {
            None => proto::GatewayRecord {
                incarnation: Bytes::copy_from_slice(&own),
                fenced: Vec::new(),
            },
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

/// What the record says of a process; none if it does not know it.
fn fencing_of(record: &proto::GatewayRecord, incarnation: Incarnation) -> Option<Fencing> {
    let own = incarnation.to_bytes();
    if record.incarnation == own.as_slice() {
        return Some(Fencing::Newest);
    }
    let is_fenced = record.fenced.iter().any(|old| *old == own.as_slice());
    is_fenced.then_some(Fencing::Fenced)
}

/// What the last commit says of a process; none if the writer has to decide.
pub(super) fn read_fencing(
    transaction: &ReadTransaction,
    gateway: &GatewayId,
    incarnation: Incarnation,
) -> Result<Option<Fencing>, StoreError> {
    let record = tables::read_gateway(transaction, gateway)?;
    Ok(record.and_then(|record| fencing_of(&record, incarnation)))
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

/// Those of `sessions` that have another gateway in their record, in their order, with their last activity as the file has it.
pub(super) fn read_active_elsewhere(
    transaction: &ReadTransaction,
    gateway: &GatewayId,
    sessions: Vec<SessionId>,
) -> Result<Vec<(SessionId, Timestamp)>, StoreError> {
    let read = tables::session_reader(transaction)?;
    let mut active = Vec::new();
    for id in sessions {
        if let Some(record) = read(id)?
            && record
                .gateways
                .iter()
                .any(|other| other != gateway.as_str())
        {
            active.push((id, Timestamp(record.active_at_ms)));
        }
    }
    Ok(active)
}
