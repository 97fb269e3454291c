//! `tickgate keys rotate`, `retire` and `list`: a key's way through its file, one step at a time, and only when everybody can follow.

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::json;
use tickgate::{
    client::{KeyList, ListedKey},
    clock::{Clock, Timestamp},
    config::{KeyEntry, KeyFile, KeySource, WrongStep, load_key_file, replace_key_file},
    token::{KeyId, KeyRole, LEEWAY, OperatorKey, RefreshKey, SessionKey, TransportMasterKey},
};

use super::{
    Global,
    failure::{Exit, Failure},
    line::{Line, Operator, Place},
    table::{Table, list},
    when::when,
};

/// How often the sidecars are asked while they are waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// A kind of key that rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Seals session tokens
    Session,
    /// Seals refresh tokens
    Refresh,
    /// Master of the keys for connect tokens
    Transport,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Session, Self::Refresh, Self::Transport];

    /// Its name on the command line and in the sidecar's answers.
    const fn label(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Refresh => "refresh",
            Self::Transport => "transport",
        }
    }

    /// Where the sidecar finds it.
    fn place(self, place: &Place) -> &KeySource {
        match self {
            Self::Session => &place.sidecar.session_key,
            Self::Refresh => &place.sidecar.refresh_key,
            Self::Transport => &place.sidecar.transport_key,
        }
    }

    /// For how long a token under it may be accepted after its making, by the configuration.
    fn opens_for(self, place: &Place) -> Duration {
        let lives = place.session;
        let life = match self {
            Self::Session => lives.token_life,
            Self::Refresh => lives.absolute,
            Self::Transport => lives.longest_connect_life,
        };
        life.saturating_add(LEEWAY)
    }

    /// What becomes of those who hold a token under a key that is retired too early.
    const fn broken(self) -> &'static str {
        match self {
            Self::Session => {
                "calls with a session token under it are refused as UNAUTHENTICATED; clients with a refresh token refresh and go on"
            }
            Self::Refresh => {
                "whoever has not refreshed since the rotation cannot do so any more, and has to log in again when their session token \
                expires; those in play stay"
            }
            Self::Transport => {
                "connect tokens under it that are on their way are refused as token_rejected; clients fetch another one and go on"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Which file, and which sidecars read it.
#[derive(Debug, Args)]
struct Where {
    /// The key file [default: the one that the configuration names]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Another sidecar that must have the file too, by its AdminService's URL; may be given several times
    #[arg(long, value_name = "URL")]
    also: Vec<String>,

    /// Ask no sidecar: none runs, or you have made sure yourself
    #[arg(long, conflicts_with = "also")]
    unchecked: bool,

    #[command(flatten)]
    line: Line,
}

impl Where {
    /// The file of this kind of key.
    fn path(&self, kind: Kind, place: &Place) -> Result<PathBuf, Failure> {
        match (&self.file, kind.place(place)) {
            (Some(file), _) => Ok(file.clone()),
            (None, KeySource::File(file)) => Ok(file.clone()),
            (None, KeySource::Env(name)) => Err(Failure::usage(anyhow::anyhow!(
                "the {kind} key comes from the environment variable {name}, which cannot change while the sidecar runs"
            ))
            .advise(format!(
                "keep it in a file that [sidecar] {kind}_key names; or put its text into a file, rotate that with --file FILE --unchecked, \
                set the variable to the file's whole text, and restart the sidecars after each step"
            ))),
        }
    }

    /// The sidecars that are to be asked, with their names.
    fn sidecars(&self, global: &Global) -> Result<Vec<(String, Operator)>, Failure> {
        if self.unchecked {
            return Ok(Vec::new());
        }
        let mut sidecars = vec![("the sidecar".to_owned(), self.line.connect(global)?)];
        for url in &self.also {
            let operator = Operator::at(self.line.place(global)?.at(url))?;
            sidecars.push((url.clone(), operator));
        }
        Ok(sidecars)
    }
}

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
pub(super) struct Rotate {
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
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
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
    let give_up_at = clock.now() + wait;
    loop {
        let told = sidecar.call(|admin| admin.list_keys())?;
        let missing = match find(&told, kind, key) {
            Some(ListedKey { outstanding, .. }) if outstanding.is_empty() => return Ok(()),
            Some(ListedKey { outstanding, .. }) => {
                format!("these gateways do not hold it yet: {}", list(outstanding))
            }
            None => format!("{name} has not read it yet"),
        };
        if clock.now() >= give_up_at {
            return Err(
                Failure::runtime(anyhow::anyhow!("the next {kind} key {key} is published, and {missing}"))
                    .with_code(Exit::NotAcknowledged)
                    .advise(
                        "see that every sidecar has this very file and can read it (its log and /ready say so), and that the gateways are \
                        attached; then run the same command again. Nothing seals with the new key yet",
                    ),
            );
        }
        sidecar.pause(PAUSE);
    }
}

/// Drop the key before the current one
#[derive(Debug, Args)]
#[command(
    long_about = "Drops the key before the current one: nothing that it sealed opens any more, at the sidecars and at the gateways. Refused \
        before the last token under it has expired. That is the longest life of such tokens and the clocks' leeway of 5s after the last of \
        them was made: 5m 5s for the transport key, 15m 5s for the session key and 24h 5s for the refresh key, unless configured \
        otherwise. The sidecar is asked when that was, and whether a gateway is left that still gets tokens under the old key.",
    after_long_help = "Examples:\n  \
        tickgate keys retire transport\n  \
        tickgate keys retire session --now             the old key has leaked\n\n\
        With --json: {\"purpose\", \"file\", \"current\", \"previous\", \"next\"}, key ids or null\n\n\
        Exit codes: 0 done, 1 the sidecar cannot be asked, 2 there is no previous key, 6 too early: the message says until when.\n\n\
        What to do next: copy the file to every other sidecar."
)]
pub(super) struct Retire {
    /// Which key
    #[arg(value_enum)]
    kind: Kind,

    /// Do not wait for the tokens under it to expire: they are refused from now on
    #[arg(long)]
    now: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: Where,
}

impl Retire {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
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
            json,
            at,
        } = self;
        let place = at.line.place(global)?;
        let path = at.path(kind, &place)?;
        let file = load::<K>(&path)?;
        let Some(previous) = &file.previous else {
            return Err(wrong(kind, WrongStep::NothingToRetire));
        };
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
            for (name, sidecar) in at.sidecars(global)? {
                until = until.max(old.needed_until(&name, &sidecar)?);
            }
            old.ensure_over(until, Clock::system().wall())?;
        }
        let file = file.retire().map_err(|step| wrong(kind, step))?;
        store(&path, &file)?;
        tell(kind, &path, &file, json)
    }
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

/// List the keys that tokens are under
#[derive(Debug, Args)]
#[command(
    long_about = "Lists the keys of session, refresh and connect tokens by id (k4.lid.…, which is no secret): what each does by its file and \
        at the sidecar, when the sidecar last sealed with it, and which gateways do not hold a transport key yet.",
    after_long_help = "Examples:\n  \
        tickgate keys list\n  \
        tickgate keys list --json | jq '.keys[] | select(.role != .in_force)'\n\n\
        With --json: {\"keys\": [{\"purpose\", \"id\", \"epoch\", \"role\", \"since\", \"in_force\", \"sealed_at\", \"outstanding\"}]}; `role` is what \
        the file says, `in_force` what the sidecar does\n\n\
        What to do next: `tickgate keys rotate KEY` changes one for a new one."
)]
pub(super) struct List {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    line: Line,
}

/// A key as its file and the sidecar tell of it.
struct Row {
    kind: Kind,
    id: KeyId,
    epoch: Option<u32>,
    role: Option<KeyRole>,
    since: Option<Timestamp>,
    told: Option<ListedKey>,
}

impl List {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let place = self.line.place(global)?;
        let operator = self.line.connect(global)?;
        let told = operator.call(|admin| admin.list_keys())?;
        let mut rows = Vec::new();
        for kind in Kind::ALL {
            let source = kind.place(&place);
            let of_file = match kind {
                Kind::Session => entries::<SessionKey>(source),
                Kind::Refresh => entries::<RefreshKey>(source),
                Kind::Transport => entries::<TransportMasterKey>(source),
            };
            let of_file = of_file.unwrap_or_else(|failure| {
                let _ = writeln!(io::stderr(), "note: {failure}");
                Vec::new()
            });
            let of_kind = told.keys.iter().filter(|key| key.purpose == kind.label());
            let others = of_kind.filter(|key| !of_file.iter().any(|(_, id, ..)| *id == key.id));
            let others: Vec<_> = others.map(|key| (None, key.id, None, None)).collect();
            let all = of_file
                .into_iter()
                .map(|(role, id, epoch, since)| (Some(role), id, Some(epoch), since))
                .chain(others);
            rows.extend(all.map(|(role, id, epoch, since)| Row {
                kind,
                id,
                epoch,
                role,
                since,
                told: find(&told, kind, id).cloned(),
            }));
        }
        let mut out = io::stdout().lock();
        if self.json {
            let keys: Vec<_> = rows.iter().map(as_json).collect();
            writeln!(out, "{:#}", json!({ "keys": keys }))?;
            return Ok(());
        }
        let mut table = Table::new([
            "key",
            "file",
            "sidecar",
            "epoch",
            "id",
            "since",
            "sealed",
            "not held by",
        ]);
        let time = |at: Option<Timestamp>| at.map(|at| when(at, told.at)).unwrap_or_default();
        for row in &rows {
            let role =
                |role: Option<KeyRole>| role.map(|role| role.to_string()).unwrap_or_default();
            let in_force = row.told.as_ref();
            table.row([
                row.kind.to_string(),
                role(row.role),
                role(in_force.map(|key| key.role)),
                row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
                row.id.to_string(),
                time(row.since),
                time(in_force.and_then(|key| key.sealed_at)),
                in_force
                    .map(|key| list(&key.outstanding))
                    .unwrap_or_default(),
            ]);
        }
        table.print(&mut out)?;
        Ok(())
    }
}

fn as_json(row: &Row) -> serde_json::Value {
    let told = row.told.as_ref();
    let outstanding = told.map(|key| key.outstanding.iter().map(ToString::to_string));
    json!({
        "purpose": row.kind.label(),
        "id": row.id.to_string(),
        "epoch": row.epoch,
        "role": row.role.map(KeyRole::label),
        "since": row.since.map(|at| at.to_string()),
        "in_force": told.map(|key| key.role.label()),
        "sealed_at": told.and_then(|key| key.sealed_at).map(|at| at.to_string()),
        "outstanding": outstanding.map(Vec::from_iter).unwrap_or_default(),
    })
}

/// What a file holds, without its secrets.
type Told = (KeyRole, KeyId, u32, Option<Timestamp>);

fn entries<K: OperatorKey>(source: &KeySource) -> Result<Vec<Told>, Failure> {
    let file = load_key_file::<K>(source)?;
    let told = file.entries().map(|(role, entry)| {
        let KeyEntry { key, epoch, since } = entry;
        (role, key.id(), *epoch, *since)
    });
    Ok(told.collect())
}

fn find(told: &KeyList, kind: Kind, id: KeyId) -> Option<&ListedKey> {
    let mut keys = told.keys.iter();
    keys.find(|key| key.purpose == kind.label() && key.id == id)
}

fn load<K: OperatorKey>(path: &Path) -> Result<KeyFile<K>, Failure> {
    Ok(load_key_file(&KeySource::File(path.to_owned()))?)
}

fn store<K: OperatorKey>(path: &Path, file: &KeyFile<K>) -> Result<(), Failure> {
    replace_key_file(path, &file.to_text()).map_err(|error| {
        let what = format!("{} was not changed", path.display());
        Failure::runtime(anyhow::Error::new(error).context(what))
            .advise("run it as who may write there, and as the file's owner, or as root")
    })
}

/// Says what the file holds now.
fn tell<K: OperatorKey>(
    kind: Kind,
    path: &Path,
    file: &KeyFile<K>,
    json: bool,
) -> Result<(), Failure> {
    let id = |entry: Option<&KeyEntry<K>>| entry.map(|entry| entry.key.id().to_string());
    let (next, previous) = (id(file.next.as_ref()), id(file.previous.as_ref()));
    let current = file.current.key.id();
    let mut out = io::stdout().lock();
    if json {
        let told = json!({
            "purpose": kind.label(),
            "file": path,
            "current": current.to_string(),
            "previous": previous,
            "next": next,
        });
        writeln!(out, "{told:#}")?;
        return Ok(());
    }
    writeln!(out, "{kind} keys in {}", path.display())?;
    for (role, entry) in file.entries() {
        let KeyEntry { key, epoch, .. } = entry;
        writeln!(out, "  {role:<8} {} (epoch {epoch})", key.id())?;
    }
    Ok(())
}

fn advise(what: fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(io::stderr(), "what to do next: {what}")?;
    Ok(())
}

fn wrong(kind: Kind, step: WrongStep) -> Failure {
    let advice = match step {
        WrongStep::Published(_) => {
            format!("copy the file to every sidecar, and go on with `tickgate keys rotate {kind}`")
        }
        WrongStep::NotRetired(_) => {
            format!("finish the last rotation first: `tickgate keys retire {kind}`")
        }
        WrongStep::NothingPublished => format!("begin with `tickgate keys rotate {kind}`"),
        WrongStep::NothingToRetire => {
            "nothing: there is one key, or it is named in [sidecar] previous_session_key or previous_refresh_key: take it out there"
                .to_owned()
        }
    };
    Failure::usage(step).advise(advice)
}
