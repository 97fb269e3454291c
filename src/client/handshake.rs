//! A connection between the QUIC handshake and Welcome: here the client presents its token.

use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::{sync::Mutex, time::timeout};

use super::{
    ClientKey, Closed, ConnectError, Connection, SecretToken, SendError, Ticket,
    connection::send_datagram,
    stream::{Incoming, Link, Outgoing, StreamFailure},
};
use crate::{
    tls,
    wire::{self, Frame, FrameError, Hello, MAX_WELCOME, Welcome},
};

/// What Hello says beyond, or instead of, what the ticket gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloOptions {
    /// Presented instead of the ticket's token: for tests of what a gateway refuses.
    pub token: Option<SecretToken>,
    /// The protocol version to claim; by default the one this library speaks.
    pub version: u8,
    /// The key that the token names, if it names one: signs the proof of possession.
    pub client_key: Option<ClientKey>,
    /// A proof to send instead: for tests of what a gateway refuses.
    pub proof: Option<[u8; 64]>,
}

impl Default for HelloOptions {
    fn default() -> Self {
        Self {
            token: None,
            version: wire::VERSION,
            client_key: None,
            proof: None,
        }
    }
}

impl HelloOptions {
    /// The Hello that presents `ticket` under these options, to the gateway whose leaf certificate has this SHA-256
    /// ([`Handshaken::leaf_sha256`]).
    pub fn hello(&self, ticket: &Ticket, leaf_sha256: &[u8; 32]) -> Hello {
        let token = self.token.as_ref().unwrap_or(&ticket.token).expose();
        let signed = || Some(self.client_key.as_ref()?.prove(token, leaf_sha256));
        Hello {
            version: self.version,
            token: token.to_owned(),
            proof: self.proof.or_else(signed),
        }
    }
}

/// A connection whose QUIC handshake is done, the gateway's certificate verified, and on which nothing has been said yet.
///
/// [`Endpoint::connect`](super::Endpoint::connect) does all this in one call. Here the steps are apart, so that tests and load
/// generators can misbehave between them: be silent, send arbitrary bytes, trickle them. Dropping it closes the connection as *left*.
#[derive(Debug)]
pub struct Handshaken {
    link: Link,
    /// The stream, once it is open: opening it is the client's first word.
    stream: Option<(Outgoing, Incoming)>,
    welcome_deadline: Duration,
}

impl Handshaken {
    pub(super) fn new(quic: quinn::Connection, welcome_deadline: Duration) -> Self {
        Self {
            link: Link::new(quic),
            stream: None,
            welcome_deadline,
        }
    }

    /// The SHA-256 of the leaf certificate that the gateway showed, and has proven to hold: what a proof of possession is made for.
    pub fn leaf_sha256(&self) -> [u8; 32] {
        // QUIC hands over the chain that TLS has verified; a handshake without one does not get this far.
        let chain = self.link.quic.peer_identity();
        let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        tls::fingerprint(leaf.map_or(&[], AsRef::as_ref))
    }

    /// Presents `hello` and waits for Welcome.
    ///
    /// # Errors
    /// [`ConnectError::Hello`] when it cannot be put into a frame; otherwise as [`welcome`](Self::welcome).
    pub async fn admit(mut self, hello: &Hello) -> Result<Connection, ConnectError> {
        let mut frame = Vec::new();
        hello.encode(&mut frame).map_err(ConnectError::Hello)?;
        let deadline = self.welcome_deadline;
        match timeout(deadline, self.send_hello_bytes(&frame)).await {
            Ok(Ok(())) => self.welcome().await,
            Ok(Err(closed)) => Err(ConnectError::Refused(closed)),
            Err(_) => Err(ConnectError::WelcomeTimeout),
        }
    }

    /// Writes these bytes to the stream as they are, opening it if need be. May be called again and again.
    ///
    /// # Errors
    /// How the connection ended.
    pub async fn send_hello_bytes(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        match self.write(bytes).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.link.settle(failure).await),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamFailure> {
        let (outgoing, _) = match &mut self.stream {
            Some(stream) => stream,
            unopened => {
                let opened = self.link.quic.open_bi().await;
                let (send, receive) = opened.map_err(StreamFailure::Connection)?;
                unopened.insert((Outgoing::new(send), Incoming::new(receive)))
            }
        };
        let append = |out: &mut Vec<u8>| {
            out.extend_from_slice(bytes);
            Ok::<_, std::convert::Infallible>(())
        };
        match outgoing.send(append).await? {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }

    /// Ends the client's direction of the stream, wherever in a frame it stands.
    pub fn finish_hello(&mut self) {
        if let Some((outgoing, _)) = &mut self.stream {
            outgoing.finish();
        }
    }

    /// Sends a datagram though the client has not been let in; the gateway ignores it.
    ///
    /// # Errors
    /// As [`Connection::send_datagram`].
    pub fn send_datagram(&self, payload: Bytes) -> Result<(), SendError> {
        send_datagram(&self.link, payload, wire::MAX_DATAGRAM)
    }

    /// Waits for Welcome, after Hello has been sent.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] with how the connection ended, or [`ConnectError::WelcomeTimeout`].
    pub async fn welcome(mut self) -> Result<Connection, ConnectError> {
        let Some((outgoing, mut incoming)) = self.stream.take() else {
            return Err(ConnectError::Refused(self.closed_within_deadline().await?));
        };
        let received = timeout(self.welcome_deadline, receive_welcome(&mut incoming)).await;
        let welcome = match received {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(failure)) => return Err(ConnectError::Refused(self.link.settle(failure).await)),
            Err(_) => return Err(ConnectError::WelcomeTimeout),
        };
        Ok(Connection::new(
            self.link,
            welcome,
            Mutex::new(outgoing),
            Mutex::new(incoming),
        ))
    }

    async fn closed_within_deadline(&self) -> Result<Closed, ConnectError> {
        timeout(self.welcome_deadline, self.link.closed())
            .await
            .map_err(|_| ConnectError::WelcomeTimeout)
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> Closed {
        self.link.closed().await
    }

    /// How the connection ended, if it has.
    pub fn close_reason(&self) -> Option<Closed> {
        self.link.close_reason()
    }
}

async fn receive_welcome(incoming: &mut Incoming) -> Result<Welcome, StreamFailure> {
    match incoming.next(MAX_WELCOME).await? {
        Frame::Welcome(welcome) => Ok(welcome),
        Frame::Hello(_) | Frame::Message(_) => {
            Err(StreamFailure::Frame(FrameError::UnexpectedType))
        }
    }
}
