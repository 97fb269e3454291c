//! `tickgate token`: what a token is and claims.

use std::io::{self, Read, Write};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tickgate::{
    client::AttachedGateway,
    clock::{Clock, Timestamp},
    config::KeysAtHand,
    id::{GatewayId, Incarnation},
    tls,
    token::{
        ConnectClaims, KeyId, LEEWAY, MAX_TOKEN, MasterKey, RefreshClaims, Rejection,
        SessionClaims, named_key, read_connect, read_refresh, read_session,
    },
};
use zeroize::Zeroizing;

use super::{
    Global,
    failure::Failure,
    line::{Line, Operator},
    when::when,
};

/// Look at tokens
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inspect(Inspect),
}

impl Token {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Command::Inspect(inspect) = self.command;
        inspect.run(global)
    }
}

/// Say what a token is and, with the keys at hand, what it claims
#[derive(Debug, Args)]
#[command(
    long_about = "Says what a token is: its version, which key it is sealed under and whether that is one of the sidecar's keys at hand, and, \
        if so, its purpose, its claims and when it expires. The token and the keys are never printed; the token's SHA-256, by which \
        `tickgate explain` names it, is no secret. Nothing is consumed: a connect token can still be used afterwards.\n\n\
        The keys are those of the configuration, or of the development stack that runs here. A connect token is sealed for one \
        gateway process, whose key is derived from the transport key: the sidecar is asked which gateways are attached now, or name \
        the process with --gateway and --incarnation.",
    after_long_help = "Examples:\n  \
        tickgate token inspect - < token.txt\n  \
        tickgate token inspect - --json < token.txt | jq .claims\n  \
        tickgate token inspect - --gateway eu-1 --incarnation 5d41… < token.txt\n  \
        tickgate token inspect v4.local.…\n\n\
        Other users of this machine can see a command's arguments; what comes from standard input they cannot.\n\n\
        With --json: {\"version\", \"kid\", \"sha256\", \"purpose\", \"verdict\", \"claims\"}; purpose and claims are null when no \
        key at hand opens it. Verdicts: valid, expired, not_yet_valid, unknown_key, bad_mac, bad_claims.\n\n\
        Exit codes: 0 told, whatever the verdict, 2 that is no token at all.\n\n\
        What to do next: `tickgate explain` tells what became of the token's session."
)]
struct Inspect {
    /// The token; - or nothing: read from standard input
    #[arg(value_name = "TOKEN|-", default_value = "-", hide_default_value = true)]
    token: String,

    /// The gateway that a connect token is for
    #[arg(long, value_name = "ID", requires = "incarnation")]
    gateway: Option<GatewayId>,

    /// The process of that gateway (32 hexadecimal digits), as `tickgate gateways list` and its log say
    #[arg(long, value_name = "HEX", requires = "gateway")]
    incarnation: Option<Incarnation>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

/// What a token claims, by its purpose.
enum Claims {
    Session(SessionClaims),
    Refresh(RefreshClaims),
    Connect(Box<ConnectClaims>),
}

/// What was found out about a token.
struct Findings {
    kid: KeyId,
    sha256: String,
    /// Which key it is sealed under, in words.
    key: String,
    outcome: Result<Claims, Rejection>,
    /// What kept it from being known better.
    notes: Vec<String>,
}

impl Inspect {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let token = self.token()?;
        let token = token.trim();
        let kid = named_key(token).map_err(|_| {
            // Not a word of what it says: it may be another secret.
            Failure::usage(anyhow::anyhow!("that is no token of Tickgate's"))
                .advise("a token starts with v4.local. and has four parts between dots; pass it whole, with nothing around it")
        })?;
        let findings = self.look(global, token, kid)?;
        let now = Clock::system().wall();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", findings.as_json(now))?;
        } else {
            findings.print(&mut out, now)?;
        }
        for note in &findings.notes {
            writeln!(io::stderr(), "note: {note}")?;
        }
        Ok(())
    }

    fn token(&self) -> Result<Zeroizing<String>, Failure> {
        if self.token != "-" {
            return Ok(Zeroizing::new(self.token.clone()));
        }
        // One more than the longest, with a line's end or two: what is longer is no token, and is not read to its end.
        let most = MAX_TOKEN as u64 + 8;
        let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN + 16));
        io::stdin()
            .take(most)
            .read_to_string(&mut text)
            .context("cannot read a token from standard input")
            .map_err(Failure::usage)?;
        Ok(text)
    }

    fn look(&self, global: &Global, token: &str, kid: KeyId) -> Result<Findings, Failure> {
        let place = self.line.place(global)?;
        let KeysAtHand {
            session,
            refresh,
            transport,
        } = place.sidecar.keys_at_hand();
        let mut findings = Findings {
            kid,
            sha256: hexadecimal(&tls::fingerprint(token.as_bytes())),
            key: "none of the keys at hand".to_owned(),
            outcome: Err(Rejection::UnknownKey),
            notes: Vec::new(),
        };
        for key in session {
            match key {
                Ok((role, key)) if key.id() == kid => {
                    let outcome = read_session(&key, token).map(Claims::Session);
                    return Ok(findings.under(format!("the {role} session key"), outcome));
                }
                Ok(_) => {}
                Err(error) => findings.notes.push(error.to_string()),
            }
        }
        for key in refresh {
            match key {
                Ok((role, key)) if key.id() == kid => {
                    let outcome = read_refresh(&key, token).map(Claims::Refresh);
                    return Ok(findings.under(format!("the {role} refresh key"), outcome));
                }
                Ok(_) => {}
                Err(error) => findings.notes.push(error.to_string()),
            }
        }
        let mut masters = Vec::new();
        for master in transport {
            match master {
                Ok(master) => masters.push(master),
                Err(error) => {
                    findings.notes.push(error.to_string());
                    return Ok(findings);
                }
            }
        }
        for (gateway, incarnation) in self.processes(place, &mut findings.notes) {
            for (role, MasterKey { epoch, key }) in &masters {
                let key = key.derive(&gateway, incarnation, *epoch);
                if key.id() == kid {
                    let outcome = read_connect(&key, &gateway, token);
                    let name = format!(
                        "the {role} transport key of gateway {gateway}, process {incarnation}"
                    );
                    return Ok(findings.under(name, outcome.map(Box::new).map(Claims::Connect)));
                }
            }
        }
        Ok(findings)
    }

    /// The gateway processes that a connect token may be for.
    fn processes(
        &self,
        place: super::line::Place,
        notes: &mut Vec<String>,
    ) -> Vec<(GatewayId, Incarnation)> {
        if let (Some(gateway), Some(incarnation)) = (&self.gateway, self.incarnation) {
            return vec![(gateway.clone(), incarnation)];
        }
        let attached =
            Operator::at(place).and_then(|operator| operator.call(|admin| admin.list_gateways()));
        match attached {
            Ok(gateways) => gateways
                .into_iter()
                .map(
                    |AttachedGateway {
                         id, incarnation, ..
                     }| (id, incarnation),
                )
                .collect(),
            Err(_) => {
                notes.push(
                    "if it is a connect token: the sidecar could not be asked which gateways are attached; name the process with \
                    --gateway and --incarnation"
                        .to_owned(),
                );
                Vec::new()
            }
        }
    }
}

impl Findings {
    fn under(self, key: String, outcome: Result<Claims, Rejection>) -> Self {
        Self {
            key,
            outcome,
            // Other keys do not matter any more.
            notes: Vec::new(),
            ..self
        }
    }

    /// What a holder of the key would say of it now, as a fixed label.
    fn verdict(&self, now: Timestamp) -> &'static str {
        match &self.outcome {
            Err(rejection) => rejection.label(),
            Ok(claims) if claims.issued_at() > now.after(LEEWAY) => Rejection::NotYetValid.label(),
            Ok(claims) if now > claims.expires_at().after(LEEWAY) => Rejection::Expired.label(),
            Ok(_) => "valid",
        }
    }

    fn print(&self, out: &mut impl Write, now: Timestamp) -> io::Result<()> {
        let mut line = |name: &str, value: &str| writeln!(out, "{name:16}  {value}");
        line("version", "v4.local (PASETO)")?;
        line("key id", &self.kid.to_string())?;
        line("sealed under", &self.key)?;
        line("SHA-256", &self.sha256)?;
        let claims = match &self.outcome {
            Ok(claims) => claims,
            Err(Rejection::UnknownKey) => {
                return line(
                    "verdict",
                    "unknown_key: nobody who holds other keys can tell more, not even its purpose",
                );
            }
            Err(rejection) => {
                return line(
                    "verdict",
                    &format!("{}: forged or damaged", rejection.label()),
                );
            }
        };
        line("purpose", claims.purpose())?;
        line("verdict", self.verdict(now))?;
        line("expires", &when(claims.expires_at(), now))?;
        line("issued", &when(claims.issued_at(), now))?;
        for (name, value) in claims.others() {
            match value {
                Value::String(text) => line(name, &text)?,
                Value::Null => line(name, "-")?,
                other => line(name, &other.to_string())?,
            }
        }
        Ok(())
    }

    fn as_json(&self, now: Timestamp) -> Value {
        let claims = self.outcome.as_ref().ok();
        json!({
            "version": "v4.local",
            "kid": self.kid.to_string(),
            "sealed_under": self.key,
            "sha256": self.sha256,
            "purpose": claims.map(Claims::purpose),
            "verdict": self.verdict(now),
            "claims": claims.map(Claims::as_json),
        })
    }
}

impl Claims {
    fn purpose(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Refresh(_) => "refresh",
            Self::Connect(_) => "connect",
        }
    }

    fn issued_at(&self) -> Timestamp {
        match self {
            Self::Session(claims) => claims.issued_at,
            Self::Refresh(claims) => claims.issued_at,
            Self::Connect(claims) => claims.issued_at,
        }
    }

    fn expires_at(&self) -> Timestamp {
        match self {
            Self::Session(claims) => claims.expires_at,
            Self::Refresh(claims) => claims.expires_at,
            Self::Connect(claims) => claims.expires_at,
        }
    }

    fn as_json(&self) -> Value {
        let mut object: Map<String, Value> = self
            .others()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        object.insert("issued_at".to_owned(), self.issued_at().to_string().into());
        object.insert(
            "expires_at".to_owned(),
            self.expires_at().to_string().into(),
        );
        object.into()
    }

    /// What it claims beside its times. Not the single-use nonce: with the key one could tell tokens by it, and nobody needs to.
    fn others(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Session(SessionClaims {
                player,
                session,
                generation,
                player_generation,
                role,
                method,
                issued_at: _,
                expires_at: _,
            }) => vec![
                ("session", session.to_string().into()),
                ("player", player.to_string().into()),
                ("generation", (*generation).into()),
                ("player_generation", player_generation.0.into()),
                ("role", role.clone().into()),
                ("login", method.clone().into()),
            ],
            Self::Refresh(RefreshClaims {
                session,
                generation,
                player_generation,
                issued_at: _,
                expires_at: _,
            }) => vec![
                ("session", session.to_string().into()),
                ("generation", (*generation).into()),
                ("player_generation", player_generation.0.into()),
            ],
            Self::Connect(claims) => {
                let ConnectClaims {
                    player,
                    session,
                    player_generation,
                    client,
                    nonce: _,
                    gateway,
                    revision,
                    session_ends_at,
                    client_key,
                    issued_at: _,
                    expires_at: _,
                } = &**claims;
                vec![
                    ("session", session.to_string().into()),
                    ("player", player.to_string().into()),
                    ("player_generation", player_generation.0.into()),
                    ("gateway", gateway.to_string().into()),
                    // A string: JSON numbers end at 2^53.
                    ("client", client.to_string().into()),
                    ("log_revision", revision.0.into()),
                    ("session_ends_at", session_ends_at.to_string().into()),
                    (
                        "client_key",
                        client_key.as_ref().map(|key| hexadecimal(key)).into(),
                    ),
                ]
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
