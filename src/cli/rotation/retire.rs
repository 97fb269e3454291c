//! `tickgate keys retire`: the key before the current one goes, when the last token under it has expired.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use tickgate::{
    clock::{Clock, Timestamp},
    config::WrongStep,
    token::{KeyId, KeyRole, OperatorKey, RefreshKey, SessionKey, TransportMasterKey},
};

use super::{
    super::{
        Global,
        failure::{Exit, Failure},
        line::Operator,
        table::list,
        when::when,
    },
    Kind, Where, find, load, store, tell, waited, wrong,
};

/// Drop the key before the current one
#[derive(Debug, Args)]
#[command(
    long_about = "Drops the key before the current one: nothing that it sealed opens any more, at the sidecars and at the gateways. Refused \
        before the last token under it has expired. That is the longest life of such tokens and the clocks' leeway of 5s after the last of \
        them was made: 5m 5s for the transport key, 15m 5s for the session key and 24h 5s for the refresh key, unless configured \
        otherwise. The sidecar is asked when that was, and whether a gateway is left that still gets tokens under the old key; and afterwards, \
        until it has let go of the key, and its gateways have.",
    after_long_help = "Examples:\n  \
        tickgate keys retire transport\n  \
        tickgate keys retire session --now             the old key has leaked\n\n\
        With --json: {\"purpose\", \"file\", \"current\", \"previous\", \"next\"}, key ids or null\n\n\
        Exit codes: 0 done, 1 the sidecar cannot be asked, 2 there is no previous key, 5 the file is without it, and somebody has not let go of \
        it yet, 6 too early: the message says until when.\n\n\
        What to do next: copy the file to every other sidecar; `tickgate keys list` tells which gateways still hold the key."
)]
pub(in crate::cli) struct Retire {
    /// Which key
    #[arg(value_enum)]
    kind: Kind,

    /// Do not wait for the tokens under it to expire: they are refused from now on
    #[arg(long)]
    now: bool,

    /// How long to wait afterwards for the sidecar, and with one sidecar the gateways, to let go of it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: Where,
}

impl Retire {
    pub(in crate::cli) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.kind {
            Kind::Session => self.retire::<SessionKey>(global),
            Kind::Refresh => self.retire::<RefreshKey>(global),
            Kind::Transport => self.retire::<TransportMasterKey>(global),
        }
    }

    fn retire<K: OperatorKey + Clone>(self, global: &Global) -> Result<(), Failure> {
        let Self {
            kind,
            now,
            wait,
            json,
            at,
        } = self;
        let clock = Clock::system();
        let place = at.line.place(global)?;
        let path = at.path(kind, &place)?;
        let file = load::<K>(&path)?;
        let Some(previous) = &file.previous else {
            return Err(wrong(kind, WrongStep::NothingToRetire));
        };
        let retired = previous.key.id();
        // Known before anything is changed, though it is asked at the end alone.
        let sidecars = at.sidecars(global)?;
        if now {
            writeln!(
                io::stderr(),
                "warning: {} is retired before its tokens have expired: {}",
                previous.key.id(),
                kind.broken()
            )?;
        } else {
            let old = Old {
                kind,
                previous: previous.key.id(),
                current: file.current.key.id(),
                since: previous.since,
            };
            let mut until = old.since.map(|since| since.after(kind.opens_for(&place)));
            for (name, sidecar) in &sidecars {
                until = until.max(old.needed_until(name, sidecar)?);
            }
            old.ensure_over(until, clock.wall())?;
        }
        let file = file.retire().map_err(|step| wrong(kind, step))?;
        store(&path, &file)?;
        tell(kind, &path, &file, json)?;
        match &sidecars[..] {
            [] => Ok(()),
            [(_, only)] => until_gone(kind, retired, only, true, wait, &clock),
            // The others have no copy of the file yet, and neither have their gateways.
            [(_, own), ..] => until_gone(kind, retired, own, false, wait, &clock),
        }
    }
}

/// Waits until a sidecar does not open tokens under the key any more, and its gateways do not.
fn until_gone(
    kind: Kind,
    key: KeyId,
    sidecar: &Operator,
    and_gateways: bool,
    wait: Duration,
    clock: &Clock,
) -> Result<(), Failure> {
    let left = waited(sidecar, wait, clock, |told| {
        if find(told, kind, key).is_some() {
            return Some("the sidecar has not read the file yet".to_owned());
        }
        let holders = Some(&told.holding_others).filter(|holders| {
            and_gateways && matches!(kind, Kind::Transport) && !holders.is_empty()
        });
        holders.map(|holders| {
            format!(
                "these gateways have not let go of it yet: {}",
                list(holders)
            )
        })
    })?;
    left.map_or(Ok(()), |left| {
        Err(Failure::runtime(anyhow::anyhow!(
            "the {kind} key {key} is retired in the file, and {left}"
        ))
        .with_code(Exit::NotAcknowledged)
        .advise(
            "see that the sidecar can read the file (its log and /ready say so) and that the gateways hear of it; `tickgate keys list` tells \
            how it stands",
        ))
    })
}

/// A key that is to be retired.
struct Old {
    kind: Kind,
    previous: KeyId,
    current: KeyId,
    since: Option<Timestamp>,
}

impl Old {
    /// Until when a sidecar knows of tokens under it.
    fn needed_until(&self, name: &str, sidecar: &Operator) -> Result<Option<Timestamp>, Failure> {
        let told = sidecar.call(|admin| admin.list_keys())?;
        let current = find(&told, self.kind, self.current);
        let missing = match current {
            Some(key) if key.role != KeyRole::Current => {
                format!("{name} does not seal with the current key yet")
            }
            None => format!("{name} has not read the current key yet"),
            Some(key) if !key.outstanding.is_empty() => format!(
                "these gateways do not hold the current key, and get tokens under the old one: {}",
                list(&key.outstanding)
            ),
            Some(_) => String::new(),
        };
        if !missing.is_empty() {
            return Err(Failure::runtime(anyhow::anyhow!(
                "the {} key {} is still needed: {missing}",
                self.kind,
                self.previous
            ))
            .with_code(Exit::TooEarly)
            .advise(self.advice()));
        }
        let previous = find(&told, self.kind, self.previous);
        Ok(previous.and_then(|key| {
            // The file says when it was to seal no more, and the sidecar when it last did.
            let last = key.sealed_at.max(self.since)?;
            Some(last.after(key.opens_for))
        }))
    }

    fn ensure_over(&self, until: Option<Timestamp>, now: Timestamp) -> Result<(), Failure> {
        let Self { kind, previous, .. } = self;
        let told = match until {
            Some(until) if now >= until => return Ok(()),
            Some(until) => format!(
                "the {kind} key {previous} may still be needed until {}",
                when(until, now)
            ),
            None => format!("since when the {kind} key {previous} seals no more is not known"),
        };
        Err(Failure::runtime(anyhow::anyhow!(told))
            .with_code(Exit::TooEarly)
            .advise(self.advice()))
    }

    fn advice(&self) -> String {
        format!(
            "wait; or, if the key has leaked, retire it with --now, and know that {}",
            self.kind.broken()
        )
    }
}
