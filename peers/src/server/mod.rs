//! The servers that are measured, one small file each, and what they have in common: each is a process of its own, on one core, which
//! says where it listens and ends when its standard input does.

mod gateway;
pub(crate) mod netcode;
mod s2n;
mod stock;

use std::{
    fmt,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
    thread,
};

use anyhow::{Context, bail};
use tickgate::tls::Identity;

use crate::cores;

/// What serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// quinn 0.11 with its defaults: a task per connection, which sends every datagram back.
    Stock,
    /// s2n-quic with its defaults, the same way.
    S2n,
    /// renet over netcode, at 60 Hz.
    Netcode,
    /// Tickgate's gateway with a game that sends back what it hears, at 60 Hz.
    Gateway,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Stock, "quinn"),
        (Self::S2n, "s2n-quic"),
        (Self::Netcode, "renet"),
        (Self::Gateway, "tickgate"),
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(kind, _)| kind == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::ALL.iter().find(|(_, name)| *name == text) {
            Some((kind, _)) => Ok(*kind),
            None => bail!("no server {text}"),
        }
    }
}

/// Where a server listens. The system chooses the port.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// The name in the servers' certificates.
pub(crate) const SERVER_NAME: &str = "tickgate.local";
/// Bytes of a key that driver and server share: what connect tokens are sealed with. Of no secret: it opens nothing but this.
pub(crate) const SHARED_KEY: [u8; 32] = [7; 32];

/// What a server says of itself once it serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    pub(crate) address: SocketAddr,
    /// SHA-256 of its certificate; zeros where there is none.
    pub(crate) certificate: [u8; 32],
}

impl Announced {
    fn quic(address: SocketAddr, identity: &Identity) -> Self {
        Self {
            address,
            certificate: identity.fingerprint(),
        }
    }

    /// As one line.
    #[expect(clippy::print_stdout, reason = "the driver reads it there")]
    fn tell(&self) -> anyhow::Result<()> {
        println!("{}", self.line());
        Ok(std::io::stdout().flush()?)
    }

    fn line(&self) -> String {
        let hash = self.certificate.iter();
        let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hash}", self.address)
    }

    pub(crate) fn read(line: &str) -> anyhow::Result<Self> {
        let mut words = line.split_whitespace();
        let mut word = || words.next().context("the server said too little");
        let address = word()?.parse()?;
        let digits = word()?;
        let mut certificate = [0; 32];
        for (at, byte) in certificate.iter_mut().enumerate() {
            let pair = digits.get(2 * at..2 * at + 2).context("a short hash")?;
            *byte = u8::from_str_radix(pair, 16)?;
        }
        Ok(Self {
            address,
            certificate,
        })
    }
}

/// Runs a server on this core until standard input ends.
pub(crate) fn serve(kind: Kind, core: usize) -> anyhow::Result<()> {
    cores::pin(core)?;
    // Whoever started us is gone when its end of the pipe is.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    match kind {
        Kind::Stock => stock::run(),
        Kind::S2n => s2n::run(),
        Kind::Netcode => netcode::run(),
        Kind::Gateway => gateway::run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_read_back() {
        let said = Announced {
            address: "127.0.0.1:4711".parse().unwrap(),
            certificate: std::array::from_fn(|at| at as u8),
        };
        let read = Announced::read(&said.line()).unwrap();
        assert_eq!(read.address, said.address);
        assert_eq!(read.certificate, said.certificate);
        for bad in ["", "127.0.0.1:1", "127.0.0.1:1 00", "nowhere 00"] {
            assert!(Announced::read(bad).is_err(), "{bad}");
        }
    }
}
