//! QUIC clients: sockets, connections, admission.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig,
    crypto::rustls::QuicClientConfig,
};
use tickgate::wire::{Frame, FrameReader, Hello, MAX_WELCOME};
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};

use crate::{process::Server, rig::stopwatch, server::SERVER_NAME, tls};

/// Sockets that the clients share: enough for a gateway with several workers to see many of them.
const SOCKETS: usize = 16;
/// A client that is not in by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a client that is silent says that it is there: three times before the gateway would give it up.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Clients that come in a second while a crowd gathers.
const GATHERING: f64 = 1_000.0;

/// A client that is in.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    /// The session's stream, open for as long as the client is there.
    _stream: Option<(SendStream, RecvStream)>,
}

/// Where clients come from.
pub(crate) struct Clients {
    endpoints: Vec<Endpoint>,
    server: std::net::SocketAddr,
}

impl Clients {
    /// To be called within a runtime.
    pub(crate) fn of(server: &Server) -> anyhow::Result<Self> {
        let tls = tls::client_config(server.kind, &server.announced)?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        let endpoints = (0..SOCKETS)
            .map(|_| {
                let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
                endpoint.set_default_client_config(config.clone());
                Ok(endpoint)
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            endpoints,
            server: server.announced.address,
        })
    }

    /// One client comes; with a token it is admitted, too.
    pub(crate) fn come(
        &self,
        number: usize,
        token: Option<String>,
    ) -> anyhow::Result<impl Future<Output = anyhow::Result<Client>> + use<>> {
        let endpoint = self.endpoints.get(number % SOCKETS).context("a socket")?;
        let connecting = endpoint.connect(self.server, SERVER_NAME)?;
        Ok(async move {
            let connection = timeout(PATIENCE, connecting).await??;
            let stream = match token {
                Some(token) => Some(timeout(PATIENCE, admit(&connection, token)).await??),
                None => None,
            };
            Ok(Client {
                connection,
                _stream: stream,
            })
        })
    }

    /// So many clients come and stay, in their order.
    pub(crate) async fn gather(
        &self,
        count: usize,
        tokens: Option<Vec<String>>,
    ) -> anyhow::Result<Vec<Client>> {
        let mut tokens = tokens.map(Vec::into_iter);
        let mut coming = JoinSet::new();
        let began = stopwatch::start();
        for number in 0..count {
            sleep_until((began + Duration::from_secs_f64(number as f64 / GATHERING)).into()).await;
            let token = match &mut tokens {
                Some(tokens) => Some(tokens.next().context("too few tokens")?),
                None => None,
            };
            let client = self.come(number, token)?;
            coming.spawn(async move { (number, client.await) });
        }
        let mut clients = Vec::with_capacity(count);
        while let Some(came) = coming.join_next().await {
            let (number, client) = came?;
            clients.push((number, client.context("a client did not come in")?));
        }
        clients.sort_unstable_by_key(|(number, _)| *number);
        Ok(clients.into_iter().map(|(_, client)| client).collect())
    }
}

/// Hello, and then Welcome.
async fn admit(connection: &Connection, token: String) -> anyhow::Result<(SendStream, RecvStream)> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut hello = Vec::new();
    Frame::Hello(Hello::new(token)).encode(&mut hello)?;
    send.write_all(&hello).await?;
    let mut reader = FrameReader::new();
    let mut bytes = [0; 1_024];
    loop {
        if let Some(frame) = reader.next(MAX_WELCOME)? {
            let Frame::Welcome(_) = frame else {
                bail!("no Welcome");
            };
            return Ok((send, receive));
        }
        let read = receive.read(&mut bytes).await?.context("no Welcome")?;
        reader.push(bytes.get(..read).unwrap_or_default());
    }
}
