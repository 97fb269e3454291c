//! Mail: a bounded queue, and one task that delivers what is in it, in its own time and never in that of a call.
//!
//! ```text
//! call ──room?──► queue (1,024 letters) ──► 256 under way, eight at once ──► SMTP, or a folder in development
//!        none: UNAVAILABLE, and nothing is kept
//! ```
//!
//! What is in a letter is a secret: it is wiped when it was delivered, and neither logs nor errors repeat it, nor whom it is to.

mod settings;
mod template;
#[cfg(test)]
mod tests;
mod transport;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    clock::{Clock, Timestamp},
    store::OneTimePurpose,
};

use super::{login::address::EmailAddress, metrics::Counters, refusal::Refusal};

use self::{template::Templates, transport::Failure};
pub use settings::{Delivery, MailConfig, MailError, SmtpConfig, SmtpSecurity};
pub(super) use transport::Transport;
#[cfg(feature = "cli")]
pub(crate) use transport::is_loopback;

/// Letters that may wait: at half a second each and eight at once, those of a minute.
pub(super) const QUEUE: usize = 1_024;

/// Letters that are delivered at once: as many connections as a relay grants one customer.
const AT_ONCE: usize = 8;

/// Letters that are under way, those that wait to be tried again among them: so that a few which a relay puts off keep none back that
/// it would take.
const UNDER_WAY: usize = 256;

/// How long a try may take in all. The SMTP library bounds the wait for a connection alone, not that for answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait after each try that failed for now; after the last one the letter is given up. Together less than a code's life.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// A letter to a player.
pub(super) struct Letter {
    pub(super) to: EmailAddress,
    pub(super) message: Message,
    /// From then on what it says is worth nothing, and it is not sent.
    pub(super) expires_at: Timestamp,
}

/// What a letter says. Codes and tokens are secret.
pub(super) enum Message {
    /// A code of six digits, to log in with.
    Code(Zeroizing<String>),
    /// A token that is good once, for its purpose.
    Link {
        purpose: OneTimePurpose,
        token: Zeroizing<String>,
    },
    /// What has become of how the account is logged in to, told to its owner: whether or not it was the owner's doing.
    Notice(Notice),
}

/// A change to how an account is logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// Another address than the one that this is sent to is the account's now.
    EmailChanged,
    /// This kind of account was linked.
    Linked(String),
    /// This kind of account was taken away.
    Unlinked(String),
}

impl Message {
    /// What kind of letter it is, in logs and metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Code(_) => "otp",
            Self::Link { purpose, .. } => purpose.label(),
            Self::Notice(_) => "notice",
        }
    }
}

/// Where letters are handed in.
#[derive(Clone)]
pub(super) struct Mailer(mpsc::Sender<Letter>);

/// Room for one letter.
pub(super) struct Room(mpsc::OwnedPermit<Letter>);

/// What was handed in.
pub(super) struct Outbox(mpsc::Receiver<Letter>);

/// A queue, and its other end.
pub(super) fn queue() -> (Mailer, Outbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Mailer(sender), Outbox(receiver))
}

impl Mailer {
    /// Room for one letter, to be asked for before anything is done for it.
    ///
    /// # Errors
    /// The queue is full: delivery is slower than what is asked for.
    pub(super) fn room(&self) -> Result<Room, Refusal> {
        self.0
            .clone()
            .try_reserve_owned()
            .map(Room)
            .map_err(|_| Refusal::MailBusy)
    }
}

impl Room {
    pub(super) fn post(self, letter: Letter) {
        drop(self.0.send(letter));
    }
}

#[cfg(test)]
impl Outbox {
    pub(super) async fn next_letter(&mut self) -> Letter {
        self.0.recv().await.unwrap()
    }
}

/// What it takes to deliver.
pub(super) struct Post {
    templates: Templates,
    transport: Transport,
    clock: Clock,
    counters: Arc<Counters>,
    pauses: [Duration; 3],
    patience: Duration,
    /// A place for each letter that is being delivered.
    places: Semaphore,
}

impl Post {
    pub(super) fn new(
        config: MailConfig,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Result<Self, MailError> {
        config.check()?;
        let MailConfig {
            from,
            game,
            link,
            delivery,
        } = config;
        Ok(Self {
            transport: Transport::new(delivery)?,
            templates: Templates { from, game, link },
            clock,
            counters,
            pauses: PAUSES,
            patience: PATIENCE,
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// Delivers whatever is handed in, until it is told to stop. What is not delivered by then is lost, and can be asked for again.
    pub(super) async fn run(self, mut outbox: Outbox, stop: CancellationToken) {
        let post = Arc::new(self);
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(_) = under_way.join_next() => {}
                letter = outbox.0.recv(), if under_way.len() < UNDER_WAY => match letter {
                    Some(letter) => {
                        let post = Arc::clone(&post);
                        under_way.spawn(async move { post.deliver(letter).await });
                    }
                    None => break,
                },
            }
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn deliver(&self, letter: Letter) {
        let kind = letter.message.label();
        let outcome = self.try_deliver(letter).await;
        self.counters.mails.count(outcome);
        match outcome {
            "sent" => tracing::debug!(kind, "mail sent"),
            _ => tracing::warn!(
                kind,
                outcome,
                "mail was not delivered: see to [sidecar.mail]"
            ),
        }
    }

    /// One try, once there is a place for it.
    async fn hand_over(&self, email: &lettre::Message, now: Timestamp) -> Result<(), Failure> {
        // Never closed, so that there always is a place in the end.
        let _place = self.places.acquire().await;
        let delivered = self.transport.deliver(email, now);
        match tokio::time::timeout(self.patience, delivered).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::ForNow {
                reason: "timeout",
                status: 0,
            }),
        }
    }

    async fn try_deliver(&self, letter: Letter) -> &'static str {
        let kind = letter.message.label();
        let mut pauses = self.pauses.into_iter();
        loop {
            let now = self.clock.wall();
            if now >= letter.expires_at {
                return "expired";
            }
            let Ok(email) = self.templates.write(&letter, now) else {
                return "unwritable";
            };
            match self.hand_over(&email, now).await {
                Ok(()) => return "sent",
                Err(Failure::Final { status }) => {
                    tracing::warn!(kind, status, "the mail relay refuses a letter");
                    return "refused";
                }
                Err(Failure::ForNow { reason, status }) => match pauses.next() {
                    Some(pause) => {
                        tracing::warn!(
                            kind,
                            reason,
                            status,
                            ?pause,
                            "mail cannot be delivered for now"
                        );
                        tokio::time::sleep(pause).await;
                    }
                    None => return "failed",
                },
            }
        }
    }
}
