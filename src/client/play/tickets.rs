//! Where a client that plays gets its tickets from.

use std::future::Future;

use tokio::sync::watch;

use crate::client::{CallError, ClientKey, Kept, SessionKeeper, Target, Ticket};

/// Who gets tickets: a [`SessionKeeper`] from the sidecar itself, or a function from a game's own backend.
pub trait Tickets: Send + Sync + 'static {
    /// A new ticket for a gateway that `target` allows, bound to `key` if there is one. Called for every attempt to get in; an answer
    /// that does not come is waited for, so it should have a deadline.
    fn ticket(
        &self,
        target: Target,
        key: Option<&ClientKey>,
    ) -> impl Future<Output = Result<Ticket, CallError>> + Send;

    /// What is kept of the session, to be told of refreshes; by default nothing.
    fn session(&self) -> Option<watch::Receiver<Kept>> {
        None
    }
}

impl Tickets for SessionKeeper {
    async fn ticket(&self, target: Target, key: Option<&ClientKey>) -> Result<Ticket, CallError> {
        self.issue_connect_token(target, key).await
    }

    fn session(&self) -> Option<watch::Receiver<Kept>> {
        Some(self.watch())
    }
}

/// The function is given the target and the public half of the client's key.
impl<Issue, Answer> Tickets for Issue
where
    Issue: Fn(Target, Option<[u8; 32]>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Ticket, CallError>> + Send,
{
    fn ticket(
        &self,
        target: Target,
        key: Option<&ClientKey>,
    ) -> impl Future<Output = Result<Ticket, CallError>> + Send {
        self(target, key.map(ClientKey::public))
    }
}
