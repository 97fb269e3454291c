//! `tickgate keys rotate`: a new key is published, and promoted when everybody has it.

use std::time::Duration;

use clap::Args;
use tickgate::{
    client::ListedKey,
    clock::Clock,
    config::WrongStep,
    token::{KeyId, OperatorKey, RefreshKey, SessionKey, TransportMasterKey},
};

use super::{
    super::{
        Global,
        failure::{Exit, Failure},
        line::Operator,
        table::list,
    },
    Kind, Where, advise, find, load, store, tell, waited, wrong,
};

/// Change a key for a new one while everything runs
#[derive(Debug, Args)]
#[command(
    long_about = "Changes a key for a new one without a restart and without refusing anybody.\n\n\
        First a new key is published: it stands in the key file as `next`, every sidecar that has the file opens tokens with it and seals \
        none, and of a transport key each attached gateway is sent its own derived key. When the sidecar has it, and all gateways have said \
        that they hold it, the key is promoted: it is `current` and seals from then on, and the one before is `previous` and goes on opening. \
        `tickgate keys retire` drops that one later. The file is replaced whole, with its owner and mode; a sidecar takes note within two \
        seconds, or at once on SIGHUP.\n\n\
        Whatever is interrupted is taken up again by the same command. A gateway that hears of a key late gets tokens under the one \
        before until it has said that it holds the new one.",
    after_long_help = "Examples:\n  \
        tickgate keys rotate transport                 one sidecar: all of it\n  \
        tickgate keys rotate session --wait 5m         gateways or sidecars may take a while\n\n\
        Several sidecars, each with a copy of the file:\n  \
        tickgate keys rotate refresh --publish         1. then copy the file to every sidecar\n  \
        tickgate keys rotate refresh --also https://sidecar-2.internal:7802\n                                                 \
        2. asks both, promotes; then copy the file again\n  \
        tickgate keys retire refresh --also https://sidecar-2.internal:7802\n                                                 \
        3. a day later; then copy it once more\n\n\
        With --json: {\"purpose\", \"file\", \"current\", \"previous\", \"next\"}, key ids or null\n\n\
        Exit codes: 0 done, 1 the sidecar cannot be asked, 2 it is not this step's turn, 5 not everybody has the new key yet: nothing is \
        lost, run it again.\n\n\
        What to do next: `tickgate keys list` shows where it stands; `tickgate keys retire` says when the old key may go."
)]
pub(in crate::cli) struct Rotate {
    /// Which key
    #[arg(value_enum)]
    kind: Kind,

    /// Take the first step alone: publish a next key and promote nothing
    #[arg(long)]
    publish: bool,

    /// How long to wait for sidecars and gateways to have the new key
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: Where,
}

impl Rotate {
    pub(in crate::cli) fn run(self, global: &Global) -> Result<(), Failure> {
        match self.kind {
            Kind::Session => self.rotate::<SessionKey>(global),
            Kind::Refresh => self.rotate::<RefreshKey>(global),
            Kind::Transport => self.rotate::<TransportMasterKey>(global),
        }
    }

    fn rotate<K: OperatorKey + Clone>(self, global: &Global) -> Result<(), Failure> {
        let Self {
            kind,
            publish,
            wait,
            json,
            at,
        } = self;
        let clock = Clock::system();
        let place = at.line.place(global)?;
        let path = at.path(kind, &place)?;
        let mut file = load::<K>(&path)?;
        if let (Some(previous), false) = (&file.previous, publish) {
            return Err(wrong(kind, WrongStep::NotRetired(previous.key.id())));
        }
        if file.next.is_none() {
            file = file
                .publish(K::generate(), clock.wall())
                .map_err(|step| wrong(kind, step))?;
            store(&path, &file)?;
        } else if publish {
            let next = file.next.as_ref().map(|next| next.key.id());
            let next = next.map_or(WrongStep::NothingPublished, WrongStep::Published);
            return Err(wrong(kind, next));
        }
        let Some(next) = file.next.as_ref().map(|next| next.key.id()) else {
            return Err(wrong(kind, WrongStep::NothingPublished));
        };
        if publish {
            tell(kind, &path, &file, json)?;
            return advise(format_args!(
                "copy {} to every sidecar; then `tickgate keys rotate {kind}`",
                path.display()
            ));
        }
        for (name, sidecar) in at.sidecars(global)? {
            until_held(kind, next, &name, &sidecar, wait, &clock)?;
        }
        // Somebody else may have been at it meanwhile.
        let file = load::<K>(&path)?;
        if file.next.as_ref().map(|entry| entry.key.id()) != Some(next) {
            return Err(Failure::runtime(anyhow::anyhow!(
                "{} was changed by somebody else meanwhile",
                path.display()
            ))
            .advise("see with `tickgate keys list` where it stands"));
        }
        let file = file
            .promote(clock.wall())
            .map_err(|step| wrong(kind, step))?;
        store(&path, &file)?;
        tell(kind, &path, &file, json)?;
        let opens_for = kind.opens_for(&place);
        advise(format_args!(
            "copy the file to every other sidecar; after {} `tickgate keys retire {kind}`",
            humantime::format_duration(opens_for)
        ))
    }
}

/// Waits until a sidecar opens tokens under the key, and of a transport key all gateways do.
fn until_held(
    kind: Kind,
    key: KeyId,
    name: &str,
    sidecar: &Operator,
    wait: Duration,
    clock: &Clock,
) -> Result<(), Failure> {
    let missing = waited(sidecar, wait, clock, |told| match find(told, kind, key) {
        Some(ListedKey { outstanding, .. }) if outstanding.is_empty() => None,
        Some(ListedKey { outstanding, .. }) => Some(format!(
            "these gateways do not hold it yet: {}",
            list(outstanding)
        )),
        None => Some(format!("{name} has not read it yet")),
    })?;
    missing.map_or(Ok(()), |missing| {
        Err(
            Failure::runtime(anyhow::anyhow!("the next {kind} key {key} is published, and {missing}"))
                .with_code(Exit::NotAcknowledged)
                .advise(
                    "see that every sidecar has this very file and can read it (its log and /ready say so), and that the gateways are \
                    attached; then run the same command again. Nothing seals with the new key yet",
                ),
        )
    })
}
