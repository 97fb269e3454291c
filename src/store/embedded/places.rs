//! Where the owners of accounts have logged in from.

use bytes::Bytes;
use redb::ReadTransaction;

use crate::{
    clock::Timestamp,
    proto,
    store::{KeyedHash, MAX_PLACES, Place, StoreError},
};

use super::{
    changes::Changes,
    logins::{Expires, Kind},
    tables::{self, decode},
};

impl Expires for proto::PlacesRecord {
    const KIND: Kind = Kind::Places;
    fn expires_at_ms(&self) -> u64 {
        self.forgotten_at_ms
    }
}

impl Changes<'_, '_> {
    pub(super) fn remember_place(
        &mut self,
        account: &KeyedHash,
        place: &Place,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Result<(), StoreError> {
        let known = self.entry::<proto::PlacesRecord>(account)?;
        let known = known.filter(|record| at.0 < record.forgotten_at_ms);
        let mut places = known.unwrap_or_default().places;
        places.retain(|known| known != &place[..]);
        places.push(Bytes::copy_from_slice(place));
        let beyond = places.len().saturating_sub(MAX_PLACES);
        places.drain(..beyond);
        let record = proto::PlacesRecord {
            places,
            forgotten_at_ms: forget_at.0,
        };
        self.put_entry(account, &record)
    }
}

/// Until when it is remembered that the owner of the account has been there. An account that nothing is known of is read as one that has
/// been at as many places as there may be, and at none of them: how long it takes does not tell which it is.
pub(super) fn read(
    transaction: &ReadTransaction,
    account: &KeyedHash,
    place: &Place,
    at: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let kept = tables::read_login(transaction, Kind::Places, account)?;
    let bytes = kept.unwrap_or_else(|| NOBODYS.repeat(MAX_PLACES));
    let record: proto::PlacesRecord = decode(&bytes, tables::LOGINS_NAME)?;
    let is_known = record.places.iter().any(|known| known == &place[..]);
    let until = Timestamp(record.forgotten_at_ms);
    Ok((is_known && at < until).then_some(until))
}

/// A place that is none, as records have it (field 1, 16 bytes). A record of such places alone is over.
const NOBODYS: &[u8; 18] = b"\n\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_been_at_as_many_places_as_somebody() {
        let record: proto::PlacesRecord = decode(&NOBODYS.repeat(MAX_PLACES), "").unwrap();
        assert_eq!(record.places.len(), MAX_PLACES);
        assert!(record.places.iter().all(|place| place[..] == [0; 16]));
        assert_eq!(record.forgotten_at_ms, 0);
    }
}
