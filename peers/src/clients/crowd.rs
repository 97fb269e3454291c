//! QUIC clients of any server, Tickgate's included: they come, are admitted where that takes a token, and stay or go.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tickgate::{
    client::fleet::{Fleet, FleetConfig, Member, Server as Address, Stream, Transport, What},
    wire::{Frame, FrameReader, Hello, MAX_WELCOME},
};

use crate::{process::Server, rig::stopwatch, server::SERVER_NAME, tls};

/// Clients that come in a second while a crowd gathers, where nothing else is said.
pub(crate) const GATHERING: f64 = 1_000.0;
/// All have to be in so long after the last one came.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has happened, as far as whoever plays has to know.
pub(crate) enum Happening {
    /// A client is in: its handshake is done, and where it came with a token it was welcomed.
    In(Member),
    /// A datagram has come, and when.
    Datagram(Bytes, Instant),
    /// A client is gone whom nobody sent away.
    Lost,
}

/// A client on its way in.
struct Coming {
    /// Until it is shown.
    token: Option<String>,
    reader: FrameReader,
}

/// Clients of one server.
pub(crate) struct Crowd {
    fleet: Fleet,
    server: Address,
    /// By place.
    coming: Vec<Option<Coming>>,
}

impl Crowd {
    pub(crate) fn of(server: &Server) -> anyhow::Result<Self> {
        let tls = tls::client_config(server.kind, &server.announced)?;
        let transport = Transport::default();
        Ok(Self {
            fleet: Fleet::new(FleetConfig::default())?,
            server: Address::new(server.announced.address, SERVER_NAME, tls, &transport)?,
            coming: Vec::new(),
        })
    }

    /// One client comes; with a token it asks to be admitted, too.
    pub(crate) fn come(&mut self, token: Option<String>) -> anyhow::Result<()> {
        let member = self.fleet.connect(&self.server)?;
        let place = member.place();
        if place >= self.coming.len() {
            self.coming.resize_with(place + 1, || None);
        }
        if let Some(coming) = self.coming.get_mut(place) {
            *coming = Some(Coming {
                token,
                reader: FrameReader::new(),
            });
        }
        Ok(())
    }

    /// One client goes.
    pub(crate) fn go(&mut self, member: Member) {
        self.fleet.close(member, 0, b"");
    }

    pub(crate) fn send(&mut self, member: Member, payload: &[u8]) -> anyhow::Result<()> {
        Ok(self.fleet.send_datagram(member, payload)?)
    }

    /// Lets what is due happen until `until`, or until something else has.
    pub(crate) fn turn(&mut self, until: Instant) -> anyhow::Result<()> {
        Ok(self.fleet.turn(until)?)
    }

    /// The next thing that has happened.
    pub(crate) fn poll(&mut self) -> anyhow::Result<Option<Happening>> {
        while let Some(event) = self.fleet.poll() {
            let member = event.member;
            let mut is_in = false;
            match event.what {
                What::Connected => is_in = self.connected(member)?,
                What::Bytes { bytes, .. } => is_in = self.heard(member, &bytes)?,
                What::Datagram(payload) => {
                    return Ok(Some(Happening::Datagram(payload, event.at)));
                }
                // Whoever was sent away is told of, too.
                What::Closed(end) if end.label() != "local" => return Ok(Some(Happening::Lost)),
                _ => {}
            }
            if is_in {
                return Ok(Some(Happening::In(member)));
            }
        }
        Ok(None)
    }

    /// Whether that is all that this client wanted.
    fn connected(&mut self, member: Member) -> anyhow::Result<bool> {
        let coming = self.coming.get_mut(member.place()).and_then(Option::as_mut);
        let Some(token) = coming.and_then(|coming| coming.token.take()) else {
            return Ok(true);
        };
        let mut hello = Vec::new();
        Frame::Hello(Hello::new(token)).encode(&mut hello)?;
        let stream: Stream = self
            .fleet
            .open_bidirectional(member)?
            .context("the server lets nobody open a stream")?;
        let written = self.fleet.write(member, stream, &hello)?;
        if written < hello.len() {
            bail!("the server takes no Hello as a whole");
        }
        Ok(false)
    }

    /// Whether this client has its Welcome herewith.
    fn heard(&mut self, member: Member, bytes: &[u8]) -> anyhow::Result<bool> {
        let place = self.coming.get_mut(member.place());
        let Some(coming) = place.and_then(Option::as_mut) else {
            return Ok(false);
        };
        coming.reader.push(bytes);
        match coming.reader.next(MAX_WELCOME)? {
            Some(Frame::Welcome(_)) => Ok(true),
            Some(_) => bail!("no Welcome"),
            None => Ok(false),
        }
    }

    /// So many clients come, at `rate` a second, and stay.
    pub(crate) fn gather(
        &mut self,
        count: usize,
        rate: f64,
        tokens: Option<Vec<String>>,
    ) -> anyhow::Result<Vec<Member>> {
        let mut tokens = tokens.map(Vec::into_iter);
        let mut members = Vec::with_capacity(count);
        let began = stopwatch::start();
        let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate);
        let end = due(count) + PATIENCE;
        let mut begun = 0;
        while members.len() < count {
            let now = stopwatch::start();
            while begun < count && due(begun) <= now {
                let token = match &mut tokens {
                    Some(tokens) => Some(tokens.next().context("too few tokens")?),
                    None => None,
                };
                self.come(token)?;
                begun += 1;
            }
            if now > end {
                bail!(
                    "{} of {count} clients did not come in",
                    count - members.len()
                );
            }
            self.turn(if begun < count { due(begun) } else { end })?;
            while let Some(happening) = self.poll()? {
                match happening {
                    Happening::In(member) => members.push(member),
                    Happening::Datagram(..) => {}
                    Happening::Lost => bail!("a client was turned away"),
                }
            }
        }
        Ok(members)
    }

    /// Everybody is silent for so long, and nobody may be lost.
    pub(crate) fn idle(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = stopwatch::start() + span;
        while stopwatch::start() < end {
            self.turn(end)?;
            while let Some(happening) = self.poll()? {
                if let Happening::Lost = happening {
                    bail!("a client was lost");
                }
            }
        }
        Ok(())
    }
}
