//! `tickgate explain`: why was this player refused, or removed, or is in?

use std::{
    io::{self, Write},
    str::FromStr,
};

use clap::Args;
use serde_json::json;
use tickgate::{
    client::{About, ExplainedEvent, Explanation, RevocationArrival},
    clock::{Clock, Timestamp},
    id::{GatewayId, PlayerId, SessionId},
};

use super::{
    Global,
    failure::Failure,
    line::Line,
    sessions,
    table::{Table, list},
    when::relative,
};

/// Tell why a player was refused, was removed, or is in
#[derive(Debug, Args)]
#[command(
    long_about = "Tells what happened to a player: logins, connect tokens, admissions and refusals with their true reason, seats taken, \
        suspended and ended, and where each revocation has arrived. A refused client is told less than that: `token_rejected` alone \
        stands for eight reasons.\n\n\
        What somebody without a valid token did names nobody: `--gateway ID` lists those refusals, by address. A token that was really \
        minted is known by its SHA-256, which its making and its refusal share; `tickgate token inspect` tells the SHA-256 of a \
        token.\n\n\
        It comes from bounded memory of the recent past, in the sidecar, and is gone when that restarts; it says since when it \
        remembers. It holds no secrets.",
    after_long_help = "Examples:\n  \
        tickgate explain 0f3c…                    a player, by id\n  \
        tickgate explain 01JD…                    the player of a session\n  \
        tickgate explain --gateway eu-1           refusals there that name nobody\n  \
        tickgate explain 0f3c… --json | jq -r '.events[] | select(.kind == \"refused\") | .reason'\n\n\
        With --json: {\"player_id\", \"summary\", \"sessions\", \"events\": [{\"at\", \"kind\", \"session_id\", \"gateway_id\", \
        \"reason\", \"close_code\", \"token_sha256\", \"revision\", \"remote\"}], \"forgotten\", \"remembers_since\", \"revocations\": [{\"revision\", \
        \"arrived\", \"outstanding\"}]}; what is not known is null.\n\n\
        Exit codes: 0 told, 4 nothing is known of that id.\n\n\
        What to do next: docs/OPERATIONS.md says what each reason means, and what to do about it."
)]
pub(super) struct Explain {
    /// A player's id (32 hexadecimal digits) or a session's (26 characters)
    #[arg(
        value_name = "PLAYER|SESSION",
        required_unless_present = "gateway",
        conflicts_with = "gateway"
    )]
    whom: Option<Whom>,

    /// The refusals at this gateway that name nobody
    #[arg(long, value_name = "ID")]
    gateway: Option<GatewayId>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

/// Whose story it is: the two kinds of id cannot be mistaken for each other.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Player(PlayerId),
    Session(SessionId),
}

impl FromStr for Whom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let player = text.parse().map(Self::Player);
        player
            .or_else(|_| text.parse().map(Self::Session))
            .map_err(|_| {
                "neither a player's id (32 hexadecimal digits) nor a session's (a ULID of 26 characters)".to_owned()
            })
    }
}

impl Explain {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let Self {
            whom,
            gateway,
            json,
            line,
        } = self;
        let about = match (whom, gateway) {
            (_, Some(id)) => About::Gateway(id),
            (Some(Whom::Player(id)), None) => About::Player(id),
            (Some(Whom::Session(id)), None) => About::Session(id),
            // The arguments' own rules see to it.
            (None, None) => {
                return Err(Failure::usage(anyhow::anyhow!(
                    "name a player, a session or a gateway"
                )));
            }
        };
        let operator = line.connect(global)?;
        let explanation = operator.call(|admin| admin.explain(&about))?;
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{:#}", as_json(&explanation))?;
        } else {
            print(&mut out, &explanation, Clock::system().wall())?;
        }
        Ok(())
    }
}

fn print(out: &mut impl Write, explanation: &Explanation, now: Timestamp) -> io::Result<()> {
    let Explanation {
        player,
        summary,
        sessions: of_player,
        events,
        forgotten,
        remembers_since,
        revocations,
    } = explanation;
    if let Some(player) = player {
        writeln!(out, "player {player}")?;
    }
    if !summary.is_empty() {
        writeln!(out, "{summary}")?;
    }
    if !of_player.is_empty() {
        writeln!(out, "\nSessions, newest first")?;
        sessions::print_table(out, of_player, now)?;
    }
    if !events.is_empty() {
        writeln!(out, "\nWhat happened, oldest first")?;
        print_events(out, events, now)?;
    }
    if *forgotten > 0 {
        writeln!(out, "{forgotten} earlier events are forgotten")?;
    }
    writeln!(
        out,
        "\nThe sidecar has remembered since {}, {}: it started then",
        remembers_since.local(),
        relative(*remembers_since, now)
    )?;
    if !revocations.is_empty() {
        writeln!(out, "\nWhere revocations have arrived")?;
        let mut table = Table::new(["revision", "arrived at", "outstanding at"]);
        for arrival in revocations {
            let RevocationArrival {
                revision,
                arrived,
                outstanding,
            } = arrival;
            table.row([revision.to_string(), list(arrived), list(outstanding)]);
        }
        table.print(out)?;
    }
    Ok(())
}

/// How much of a token's SHA-256 tells tokens apart for people.
const DIGEST_DIGITS: usize = 12;

fn print_events(out: &mut impl Write, events: &[ExplainedEvent], now: Timestamp) -> io::Result<()> {
    let mut table = Table::new([
        "when", "", "what", "gateway", "reason", "told as", "session", "token", "revision", "from",
    ]);
    for event in events {
        let ExplainedEvent {
            at,
            kind,
            session,
            gateway,
            reason,
            close_code,
            token_sha256,
            revision,
            remote,
        } = event;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let digest = token_sha256.as_deref().unwrap_or_default();
        table.row([
            at.local(),
            relative(*at, now),
            kind.clone(),
            gateway
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            text(reason),
            text(close_code),
            session.map(|id| id.to_string()).unwrap_or_default(),
            digest.get(..DIGEST_DIGITS).unwrap_or(digest).to_owned(),
            revision
                .map(|revision| revision.to_string())
                .unwrap_or_default(),
            text(remote),
        ]);
    }
    table.print(out)
}

fn as_json(explanation: &Explanation) -> serde_json::Value {
    let Explanation {
        player,
        summary,
        sessions: of_player,
        events,
        forgotten,
        remembers_since,
        revocations,
    } = explanation;
    let names = |ids: &[GatewayId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let event = |event: &ExplainedEvent| {
        json!({
            "at": event.at.to_string(),
            "kind": event.kind,
            "session_id": event.session.map(|id| id.to_string()),
            "gateway_id": event.gateway.as_ref().map(ToString::to_string),
            "reason": event.reason,
            "close_code": event.close_code,
            "token_sha256": event.token_sha256,
            "revision": event.revision.map(|revision| revision.0),
            "remote": event.remote,
        })
    };
    let arrival = |arrival: &RevocationArrival| {
        json!({
            "revision": arrival.revision.0,
            "arrived": names(&arrival.arrived),
            "outstanding": names(&arrival.outstanding),
        })
    };
    json!({
        "player_id": player.map(|id| id.to_string()),
        "summary": summary,
        "sessions": of_player.iter().map(sessions::as_json).collect::<Vec<_>>(),
        "events": events.iter().map(event).collect::<Vec<_>>(),
        "forgotten": forgotten,
        "remembers_since": remembers_since.to_string(),
        "revocations": revocations.iter().map(arrival).collect::<Vec<_>>(),
    })
}
