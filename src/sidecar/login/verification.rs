//! What is mailed as a link: long random tokens that are good once, for one purpose, until they expire.
//!
//! The store knows a token by keyed hash alone. Where a link leads is the studio's own page, or the game itself: the token stands behind
//! its `#`, which no browser sends along. So neither the page's log nor whatever looks at links in mail (scanners, previews) gets to
//! use it up: that takes a call with the token in it.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, Timestamp},
    sidecar::{
        mail::{Letter, Mailer, Message, Room},
        refusal::Refusal,
    },
    store::{Issued, OneTime, OneTimePurpose, Payload, Spent, Store, StoreError},
    token::LoginKey,
};

use super::{address::EmailAddress, draw};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// How long a link that sets another password is good.
const PASSWORD_RESET_LIFE: Duration = Duration::from_secs(30 * 60);

/// How long a link that proves a new e-mail address is good: it is asked for from within a session, and may wait for a mail client.
pub(in crate::sidecar) const EMAIL_CHANGE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Issues tokens by mail, and takes them back.
pub(in crate::sidecar) struct Verifications {
    pub(in crate::sidecar) store: Arc<dyn Store>,
    pub(in crate::sidecar) key: Arc<LoginKey>,
    pub(in crate::sidecar) mailer: Mailer,
    pub(in crate::sidecar) clock: Clock,
    /// How long a link that logs in is good.
    pub(in crate::sidecar) magic_link_life: Duration,
}

/// Why a token is worth nothing, told apart to the calling code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::sidecar) enum BadToken {
    #[error("this link is for something else")]
    WrongPurpose,
    #[error("this link has expired: ask for another")]
    Expired,
    #[error("this link was used before: ask for another")]
    AlreadyUsed,
    #[error("there is no such link, or no more: ask for another")]
    Unknown,
}

impl BadToken {
    pub(in crate::sidecar) fn label(self) -> &'static str {
        match self {
            Self::WrongPurpose => "link_wrong_purpose",
            Self::Expired => "link_expired",
            Self::AlreadyUsed => "link_already_used",
            Self::Unknown => "link_unknown",
        }
    }
}

impl Verifications {
    /// Keeps a token that brings `payload` and has it mailed; until when it is good, which is no later than `until`. Nothing in it depends on
    /// whose the address is.
    pub(in crate::sidecar) async fn mail(
        &self,
        purpose: OneTimePurpose,
        to: EmailAddress,
        payload: Vec<u8>,
        until: Option<Timestamp>,
        room: Room,
    ) -> Result<Timestamp, Refusal> {
        let payload = Payload::new(payload).ok_or(Refusal::Email("email"))?;
        let expires_at = self.clock.wall().after(self.life(purpose));
        let expires_at = until.map_or(expires_at, |until| until.min(expires_at));
        let token = draw::text::<TOKEN_BYTES>()?;
        let entry = OneTime {
            key: self.hash(&token),
            purpose,
            payload,
            expires_at,
        };
        // Of 256 random bits, no two are the same. Were they, this one would be the other's, and something other than chance at work.
        if self.store.issue(entry).await? == Issued::Collision {
            return Err(Refusal::Store(StoreError::Randomness));
        }
        room.post(Letter {
            to,
            message: Message::Link { purpose, token },
            expires_at,
        });
        Ok(expires_at)
    }

    /// Uses a token up, for what it brings.
    pub(in crate::sidecar) async fn spend(
        &self,
        token: &str,
        purpose: OneTimePurpose,
    ) -> Result<Payload, Refusal> {
        let at = self.clock.wall();
        match self.store.spend(self.hash(token), purpose, at).await? {
            Spent::Spent(payload) => Ok(payload),
            Spent::WrongPurpose => Err(Refusal::Token(BadToken::WrongPurpose)),
            Spent::Expired => Err(Refusal::Token(BadToken::Expired)),
            Spent::AlreadyUsed => Err(Refusal::Token(BadToken::AlreadyUsed)),
            Spent::Unknown => Err(Refusal::Token(BadToken::Unknown)),
        }
    }

    fn life(&self, purpose: OneTimePurpose) -> Duration {
        match purpose {
            OneTimePurpose::PasswordReset => PASSWORD_RESET_LIFE,
            OneTimePurpose::EmailChange => EMAIL_CHANGE_LIFE,
            OneTimePurpose::MagicLink | OneTimePurpose::LoginNonce | OneTimePurpose::Challenge => {
                self.magic_link_life
            }
        }
    }

    fn hash(&self, token: &str) -> [u8; 32] {
        self.key.hash("verification", &[token.as_bytes()])
    }
}

/// An address as payloads carry it.
pub(in crate::sidecar) fn address_of(bytes: &[u8]) -> Result<EmailAddress, Refusal> {
    let text = std::str::from_utf8(bytes).ok();
    let address = text.and_then(|text| text.parse().ok());
    address.ok_or(Refusal::Store(StoreError::Record("logins")))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        clock::ManualTime,
        sidecar::{SessionLives, mail, purge_once, tests::START},
        store::memory::MemoryStore,
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn verifications() -> (Verifications, mail::Outbox, ManualTime) {
        let time = ManualTime::starting_at(START);
        let (mailer, outbox) = mail::queue();
        let store = MemoryStore::new(SessionLives::default().for_store());
        let verifications = Verifications {
            store: Arc::new(store),
            key: Arc::new(LoginKey::generate()),
            mailer,
            clock: time.clock(),
            magic_link_life: 10 * MINUTE,
        };
        (verifications, outbox, time)
    }

    async fn mailed(
        all: &Verifications,
        outbox: &mut mail::Outbox,
        purpose: OneTimePurpose,
    ) -> Zeroizing<String> {
        let to: EmailAddress = "ada@example.com".parse().unwrap();
        let room = all.mailer.room().unwrap();
        let end = all.mail(purpose, to, b"payload".to_vec(), None, room);
        let end = end.await.unwrap();
        let letter = outbox.next_letter().await;
        assert_eq!(letter.expires_at, end);
        match letter.message {
            Message::Link { token, .. } => token,
            Message::Code(_) | Message::Notice(_) => panic!("no link"),
        }
    }

    async fn refused(all: &Verifications, token: &str, purpose: OneTimePurpose) -> &'static str {
        all.spend(token, purpose).await.unwrap_err().label()
    }

    #[tokio::test]
    async fn a_token_is_good_once_for_its_purpose_for_its_life() {
        let (all, mut outbox, time) = verifications();
        let purposes = [
            (OneTimePurpose::MagicLink, 10 * MINUTE),
            (OneTimePurpose::PasswordReset, 30 * MINUTE),
            (OneTimePurpose::EmailChange, 24 * 60 * MINUTE),
        ];
        for (purpose, life) in purposes {
            let to = || "ada@example.com".parse::<EmailAddress>().unwrap();
            let mut tokens = Vec::new();
            for _ in 0..2 {
                let room = all.mailer.room().unwrap();
                let end = all.mail(purpose, to(), b"payload".to_vec(), None, room);
                let end = end.await.unwrap();
                assert_eq!(end, all.clock.wall().after(life));
                let letter = outbox.next_letter().await;
                let Message::Link {
                    purpose: told,
                    token,
                } = letter.message
                else {
                    panic!("no link");
                };
                assert_eq!((told, letter.expires_at, token.len()), (purpose, end, 43));
                tokens.push(token);
            }
            for (other, _) in purposes.into_iter().filter(|(other, _)| *other != purpose) {
                let label = refused(&all, &tokens[0], other).await;
                assert_eq!(label, "link_wrong_purpose");
            }
            let spent = all.spend(&tokens[0], purpose).await.unwrap();
            assert_eq!(spent.bytes(), b"payload");
            assert_eq!(
                refused(&all, &tokens[0], purpose).await,
                "link_already_used"
            );
            assert_eq!(refused(&all, "", purpose).await, "link_unknown");
            time.advance(life);
            assert_eq!(refused(&all, &tokens[1], purpose).await, "link_expired");
        }
    }

    /// What was used, and what came too late, is told from a forgery for an hour after its end, whatever is purged meanwhile.
    #[tokio::test]
    async fn what_is_over_is_told_from_a_forgery_for_an_hour() {
        let (all, mut outbox, time) = verifications();
        for (purpose, life) in [
            (OneTimePurpose::MagicLink, 10 * MINUTE),
            (OneTimePurpose::PasswordReset, 30 * MINUTE),
            (OneTimePurpose::EmailChange, 24 * 60 * MINUTE),
        ] {
            let used = mailed(&all, &mut outbox, purpose).await;
            let late = mailed(&all, &mut outbox, purpose).await;
            all.spend(&used, purpose).await.unwrap();
            time.advance(life + 60 * MINUTE);
            purge_once(&*all.store, all.clock.wall()).await.unwrap();
            let reason = refused(&all, &used, purpose).await;
            assert_eq!(reason, "link_already_used", "{purpose:?}");
            let reason = refused(&all, &late, purpose).await;
            assert_eq!(reason, "link_expired", "{purpose:?}");
            time.advance(Duration::from_millis(1));
            purge_once(&*all.store, all.clock.wall()).await.unwrap();
            for gone in [&used, &late] {
                assert_eq!(refused(&all, gone, purpose).await, "link_unknown");
            }
        }
    }
}
