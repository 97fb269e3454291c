//! What the ways to log in keep, in Redis: not there yet, and every call says so.

use crate::{
    clock::Timestamp,
    id::{PlayerGeneration, PlayerId},
    store::{
        Account, Answer, Attempt, Code, Guess, Identity, Issued, Join, KeyedHash, Linked, Logins,
        OneTime, OneTimePurpose, PasswordSet, Spent, StoreError,
    },
};

use super::RedisStore;

fn away<T: Send + 'static>() -> Answer<'static, T> {
    let error = StoreError::Unavailable("logins are not kept in Redis yet".to_owned());
    Box::pin(std::future::ready(Err(error)))
}

impl Logins for RedisStore {
    fn issue(&self, _: OneTime) -> Answer<'_, Issued> {
        away()
    }

    fn spend(&self, _: KeyedHash, _: OneTimePurpose, _: Timestamp) -> Answer<'_, Spent> {
        away()
    }

    fn put_code(&self, _: Code) -> Answer<'_, ()> {
        away()
    }

    fn guess(&self, _: KeyedHash, _: KeyedHash, _: Timestamp) -> Answer<'_, Guess> {
        away()
    }

    fn attempt(&self, _: KeyedHash, _: u32, _: Timestamp, _: Timestamp) -> Answer<'_, Attempt> {
        away()
    }

    fn forget_attempts(&self, _: KeyedHash) -> Answer<'_, ()> {
        away()
    }

    fn account(&self, _: Identity) -> Answer<'_, Option<Account>> {
        away()
    }

    fn link(&self, _: Identity, _: PlayerId, _: PlayerGeneration, _: Join) -> Answer<'_, Linked> {
        away()
    }

    fn set_password(&self, _: Identity, _: String, _: Timestamp) -> Answer<'_, PasswordSet> {
        away()
    }

    fn set_role(&self, _: PlayerId, _: String) -> Answer<'_, Option<String>> {
        away()
    }

    fn purge_logins(&self, _: Timestamp) -> Answer<'_, usize> {
        away()
    }
}
