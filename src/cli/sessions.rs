//! `tickgate sessions`: who is logged in, and ending that.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tickgate::{
    client::{ListedSession, Revoked, SessionQuery, Wait},
    clock::{Clock, Timestamp},
    id::{PlayerId, SessionId},
};

use super::{
    Global,
    failure::{Exit, Failure},
    line::{Line, Operator},
    table::{Table, list},
    when::relative,
};

/// List and revoke sessions
#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Revoke(Revoke),
    RevokePlayer(RevokePlayer),
}

impl Sessions {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(global),
            Command::Revoke(revoke) => revoke.run(global),
            Command::RevokePlayer(revoke) => revoke.run(global),
        }
    }
}

/// List sessions, newest first
#[derive(Debug, Args)]
#[command(
    long_about = "Lists sessions, newest first: whose they are, how the player logged in, where they have a seat now, when they were last \
        active and when they end. Ids are no secrets.",
    after_long_help = "Examples:\n  \
        tickgate sessions list\n  \
        tickgate sessions list --player 0f3c…                 all sessions of one player\n  \
        tickgate sessions list --all                          those that have ended too, until they are purged\n  \
        tickgate sessions list --json | jq -r '.sessions[] | select(.gateways == []) | .session_id'\n\n\
        With --json: {\"sessions\": [{\"session_id\", \"player_id\", \"method\", \"generation\", \"state\", \"created_at\", \
        \"active_at\", \"ends_at\", \"gateways\"}], \"more\"}; times are RFC 3339 in UTC.\n\n\
        What to do next: `tickgate explain PLAYER` tells what happened to a player; `tickgate sessions revoke SESSION` ends one."
)]
struct List {
    /// This player's sessions alone
    #[arg(long, value_name = "ID")]
    player: Option<PlayerId>,

    /// Those that have ended, too
    #[arg(long)]
    all: bool,

    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

/// The most that a page holds.
const PAGE: u32 = 1_000;

impl List {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let operator = self.line.connect(global)?;
        let (sessions, more) = self.ask(&operator)?;
        let mut out = io::stdout().lock();
        if self.json {
            let sessions: Vec<Value> = sessions.iter().map(as_json).collect();
            writeln!(out, "{:#}", json!({ "sessions": sessions, "more": more }))?;
            return Ok(());
        }
        print_table(&mut out, &sessions, Clock::system().wall())?;
        if more {
            writeln!(io::stderr(), "there are more; --limit shows them")?;
        }
        Ok(())
    }

    fn ask(&self, operator: &Operator) -> Result<(Vec<ListedSession>, bool), Failure> {
        let mut sessions = Vec::new();
        let mut page = None;
        loop {
            let left = self.limit - u32::try_from(sessions.len()).unwrap_or(self.limit);
            let query = SessionQuery {
                player: self.player,
                include_ended: self.all,
                page_size: left.min(PAGE),
                page,
            };
            let answer = operator.call(|admin| admin.list_sessions(&query))?;
            sessions.extend(answer.sessions);
            page = answer.next;
            let is_full = sessions.len() >= self.limit as usize;
            if page.is_none() || is_full {
                return Ok((sessions, page.is_some()));
            }
        }
    }
}

/// Sessions as people read them.
pub(super) fn print_table(
    out: &mut impl Write,
    sessions: &[ListedSession],
    now: Timestamp,
) -> io::Result<()> {
    let mut table = Table::new([
        "session", "player", "login", "state", "made", "active", "ends", "plays on",
    ]);
    for session in sessions {
        table.row([
            session.id.to_string(),
            session.player.to_string(),
            session.method.clone(),
            session.state.clone(),
            session.created_at.local(),
            relative(session.active_at, now),
            relative(session.ends_at, now),
            list(&session.gateways),
        ]);
    }
    table.print(out)
}

/// A session as machines read it.
pub(super) fn as_json(session: &ListedSession) -> Value {
    let ListedSession {
        id,
        player,
        method,
        generation,
        state,
        created_at,
        active_at,
        ends_at,
        gateways,
    } = session;
    json!({
        "session_id": id.to_string(),
        "player_id": player.to_string(),
        "method": method,
        "generation": generation,
        "state": state,
        "created_at": created_at.to_string(),
        "active_at": active_at.to_string(),
        "ends_at": ends_at.to_string(),
        "gateways": gateways.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// End a session, and close its connections
#[derive(Debug, Args)]
#[command(
    long_about = "Ends one session: its tokens are refused from now on, and its live connections are closed as session_revoked. When the \
        command returns, that is on disk. To revoke again is harmless.",
    after_long_help = "Examples:\n  \
        tickgate sessions revoke 01JD…\n  \
        tickgate sessions revoke 01JD… --wait gateways --timeout 2s\n\n\
        With --json: {\"sessions_ended\", \"revision\", \"acknowledged\"}; acknowledged is null without --wait gateways.\n\n\
        Exit codes: 0 revoked, 4 no such session, 5 revoked, but not every gateway acknowledged it in time (one that is cut off \
        hears of it when it is back).\n\n\
        What to do next: `tickgate explain SESSION` says which gateways the revocation has reached."
)]
struct Revoke {
    /// The session's id (26 characters)
    session: SessionId,

    #[command(flatten)]
    how: How,
}

/// End all sessions of a player
#[derive(Debug, Args)]
#[command(
    long_about = "Ends all sessions that a player has now, and closes their connections. The player may log in again: to keep somebody out is \
        the login's business. When the command returns, that is on disk.",
    after_long_help = "Examples:\n  \
        tickgate sessions revoke-player 0f3c…\n  \
        tickgate sessions revoke-player 0f3c… --wait gateways\n\n\
        With --json: {\"sessions_ended\", \"revision\", \"acknowledged\"}; acknowledged is null without --wait gateways.\n\n\
        Exit codes: 0 revoked, 4 no such player, 5 revoked, but not every gateway acknowledged it in time.\n\n\
        What to do next: `tickgate sessions list --player PLAYER --all`."
)]
struct RevokePlayer {
    /// The player's id (32 hexadecimal digits)
    player: PlayerId,

    #[command(flatten)]
    how: How,
}

#[derive(Debug, Args)]
struct How {
    /// What to wait for before it returns
    #[arg(long, value_enum, default_value_t = WaitFor::Commit)]
    wait: WaitFor,

    /// With --wait gateways: for how long at most, up to 30s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    /// Until it is on disk
    Commit,
    /// Until every gateway has acknowledged it, too
    Gateways,
}

impl Revoke {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { session, how } = self;
        let operator = how.line.connect(global)?;
        let revoked = operator.call(|admin| admin.revoke_session(session, how.wait()))?;
        how.tell(&format!("session {session}"), revoked)
    }
}

impl RevokePlayer {
    fn run(self, global: &Global) -> Result<(), Failure> {
        let Self { player, how } = self;
        let operator = how.line.connect(global)?;
        let revoked = operator.call(|admin| admin.revoke_player(player, how.wait()))?;
        how.tell(&format!("player {player}"), revoked)
    }
}

impl How {
    fn wait(&self) -> Wait {
        match self.wait {
            WaitFor::Commit => Wait::Commit,
            WaitFor::Gateways => Wait::Gateways(self.timeout),
        }
    }

    fn tell(&self, whom: &str, revoked: Revoked) -> Result<(), Failure> {
        let Revoked {
            sessions_ended,
            revision,
            acknowledged,
        } = revoked;
        let waited = self.wait == WaitFor::Gateways;
        if self.json {
            let told = json!({
                "sessions_ended": sessions_ended,
                "revision": revision.0,
                "acknowledged": waited.then_some(acknowledged),
            });
            writeln!(io::stdout(), "{told:#}")?;
        } else {
            let ended = match sessions_ended {
                0 => "nothing was live".to_owned(),
                1 => "1 session ended".to_owned(),
                many => format!("{many} sessions ended"),
            };
            let arrived = if waited && acknowledged {
                "; every gateway has acknowledged it"
            } else {
                ""
            };
            writeln!(
                io::stdout(),
                "{whom}: {ended}, revision {revision}{arrived}"
            )?;
        }
        if waited && !acknowledged {
            let late =
                anyhow::anyhow!("revoked, but not every gateway has acknowledged it in time");
            return Err(Failure::runtime(late).with_code(Exit::NotAcknowledged).advise(
                "`tickgate explain` says which one has not; it applies the revocation when it is attached again",
            ));
        }
        Ok(())
    }
}
