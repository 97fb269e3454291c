//! Login by a code of six digits that is mailed: 10 minutes, three guesses.
//!
//! A code is good together with the id of the request that it was mailed for, which nobody but its caller knows. So guessing at
//! somebody else's code means asking for one's own, which the owner of the address sees and which is limited; and neither that nor
//! wrong guesses take anything from the code that the owner has asked for. Three guesses at one of a million codes, five codes an hour:
//! whoever tries gets in once in eight years.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Timestamp},
    proto,
    sidecar::{
        mail::{Letter, Mailer, Message, Room},
        refusal::{BadLogin, Refusal},
    },
    store::{Code, Guess, Identity, Store},
    token::LoginKey,
};

use super::{Method, address::EmailAddress, draw};

/// How long a code is good.
const LIFE: Duration = Duration::from_secs(10 * 60);

/// How many guesses there are.
const TRIES: u32 = 3;

/// Random bytes of a request's id.
const ID_BYTES: usize = 16;

/// The login method.
pub(in crate::sidecar) struct Otp {
    pub(in crate::sidecar) store: Arc<dyn Store>,
    pub(in crate::sidecar) key: Arc<LoginKey>,
    pub(in crate::sidecar) mailer: Mailer,
    pub(in crate::sidecar) clock: Clock,
}

/// A code that is on its way.
pub(in crate::sidecar) struct Requested {
    /// Secret.
    pub(in crate::sidecar) id: Zeroizing<String>,
    pub(in crate::sidecar) expires_at: Timestamp,
}

impl Otp {
    /// Keeps a code and has it mailed. Nothing in it depends on whether the address is anybody's account.
    pub(in crate::sidecar) async fn request(
        &self,
        to: EmailAddress,
        room: Room,
    ) -> Result<Requested, Refusal> {
        let (id, code) = (draw::text::<ID_BYTES>()?, draw::digits()?);
        let expires_at = self.clock.wall().after(LIFE);
        self.store
            .put_code(Code {
                key: self.request_hash(&to, &id),
                hash: self.code_hash(&to, &id, &code),
                expires_at,
                tries: TRIES,
            })
            .await?;
        room.post(Letter {
            to,
            message: Message::Code(code),
            expires_at,
        });
        Ok(Requested { id, expires_at })
    }

    fn request_hash(&self, to: &EmailAddress, id: &str) -> [u8; 32] {
        let parts = [to.as_str().as_bytes(), id.as_bytes()];
        self.key.hash("otp-request", &parts)
    }

    fn code_hash(&self, to: &EmailAddress, id: &str, code: &str) -> [u8; 32] {
        let parts = [to.as_str().as_bytes(), id.as_bytes(), code.as_bytes()];
        self.key.hash("otp-code", &parts)
    }
}

impl Method for Otp {
    type Proof = proto::OtpLogin;

    const NAME: &'static str = "otp";

    async fn prove(&self, login: proto::OtpLogin) -> Result<Identity, Refusal> {
        let proto::OtpLogin {
            email,
            request_id,
            code,
        } = login;
        let (request_id, code) = (Zeroizing::new(request_id), Zeroizing::new(code));
        let email: EmailAddress = email.parse().map_err(|_| Refusal::Email("otp.email"))?;
        // What is no code costs no guess: it was typed wrongly, and tells nobody anything.
        let code = code.trim();
        if code.len() != 6 || !code.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Refusal::Argument {
                field: "otp.code",
                allowed: "the six digits that were mailed",
            });
        }
        let key = self.request_hash(&email, &request_id);
        let hash = self.code_hash(&email, &request_id, code);
        match self.store.guess(key, hash, self.clock.wall()).await? {
            Guess::Right => Ok(email.identity()),
            Guess::Wrong { left } => Err(Refusal::Login(BadLogin::WrongCode { left })),
            Guess::Exhausted => Err(Refusal::Login(BadLogin::NoGuessLeft)),
            Guess::Expired => Err(Refusal::Login(BadLogin::Expired)),
            Guess::Unknown => Err(Refusal::Login(BadLogin::NoSuchCode)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualTime,
        sidecar::{SessionLives, mail, tests::START},
        store::memory::MemoryStore,
    };

    fn otp() -> (Otp, mail::Outbox, ManualTime) {
        let time = ManualTime::starting_at(START);
        let (mailer, outbox) = mail::queue();
        let store = MemoryStore::new(SessionLives::default().for_store());
        let otp = Otp {
            store: Arc::new(store),
            key: Arc::new(LoginKey::generate()),
            mailer,
            clock: time.clock(),
        };
        (otp, outbox, time)
    }

    async fn requested(otp: &Otp, outbox: &mut mail::Outbox) -> (Requested, String) {
        let asked = otp
            .request(
                "Ada@example.com".parse().unwrap(),
                otp.mailer.room().unwrap(),
            )
            .await;
        let letter = outbox.next_letter().await;
        assert_eq!(letter.to.as_str(), "ada@example.com");
        let Message::Code(code) = letter.message else {
            panic!("no code");
        };
        (asked.unwrap(), code.to_string())
    }

    fn login(email: &str, id: &str, code: &str) -> proto::OtpLogin {
        proto::OtpLogin {
            email: email.to_owned(),
            request_id: id.to_owned(),
            code: code.to_owned(),
        }
    }

    fn other(code: &str) -> String {
        let number: u32 = code.parse().unwrap();
        format!("{:06}", (number + 1) % 1_000_000)
    }

    async fn refused(otp: &Otp, login: proto::OtpLogin) -> &'static str {
        otp.prove(login).await.unwrap_err().label()
    }

    #[tokio::test]
    async fn the_code_that_was_mailed_lets_its_address_in_once() {
        let (otp, mut outbox, _time) = otp();
        let (asked, code) = requested(&otp, &mut outbox).await;
        let typed = format!(" {code}\n");
        let proven = otp.prove(login("ADA@example.com", &asked.id, &typed)).await;
        let proven = proven.unwrap();
        assert_eq!(
            (&*proven.provider, &*proven.subject),
            ("email", "ada@example.com")
        );
        let again = login("ada@example.com", &asked.id, &code);
        assert_eq!(refused(&otp, again).await, "no_such_code");
    }

    #[tokio::test]
    async fn there_are_three_guesses_and_ten_minutes() {
        let (otp, mut outbox, time) = otp();
        let (asked, code) = requested(&otp, &mut outbox).await;
        // What is no code is no guess.
        for typo in ["", "12345", "1234567", "12345a", "１２３４５６"] {
            let typo = login("ada@example.com", &asked.id, typo);
            assert_eq!(refused(&otp, typo).await, "argument");
        }
        for _ in 0..3 {
            let wrong = login("ada@example.com", &asked.id, &other(&code));
            assert_eq!(refused(&otp, wrong).await, "wrong_code");
        }
        let right = login("ada@example.com", &asked.id, &code);
        assert_eq!(refused(&otp, right).await, "no_guess_left");

        let (asked, code) = requested(&otp, &mut outbox).await;
        time.advance(LIFE);
        let late = login("ada@example.com", &asked.id, &code);
        assert_eq!(refused(&otp, late).await, "code_expired");
    }

    /// Whoever knows nothing but the address takes nothing from the code that its owner has asked for.
    #[tokio::test]
    async fn an_attacker_uses_up_nobodys_guesses() {
        let (otp, mut outbox, _time) = otp();
        let (asked, code) = requested(&otp, &mut outbox).await;
        let (attackers, _) = requested(&otp, &mut outbox).await;
        let theirs = attackers.id.as_str();
        for id in [theirs, theirs, theirs, theirs, "", "x"] {
            let guess = login("ada@example.com", id, &other(&code));
            assert!(otp.prove(guess).await.is_err());
        }
        let foreign = login("eve@example.com", &asked.id, &code);
        assert_eq!(refused(&otp, foreign).await, "no_such_code");
        let own = login("ada@example.com", &asked.id, &code);
        assert!(otp.prove(own).await.is_ok());
    }

    #[tokio::test]
    async fn with_too_much_mail_waiting_there_is_no_room_to_ask_with() {
        let (otp, _outbox, _time) = otp();
        for _ in 0..mail::QUEUE {
            let room = otp.mailer.room().unwrap();
            let asked = otp.request("ada@example.com".parse().unwrap(), room);
            assert!(asked.await.is_ok());
        }
        let refused = otp.mailer.room();
        assert_eq!(
            refused.err().map(|refusal| refusal.label()),
            Some("mail_busy")
        );
    }
}
