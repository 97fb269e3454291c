//! `tickgate keys rotate`, `retire` and `list`: a key's way through its file, one step at a time, and only when everybody can follow.

mod list;
mod retire;
mod rotate;

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
    clock::Clock,
    config::{KeyEntry, KeyFile, KeySource, WrongStep, load_key_file, replace_key_file},
    token::{KeyId, LEEWAY, OperatorKey},
};

pub(super) use self::{list::List, retire::Retire, rotate::Rotate};
use super::{
    Global,
    failure::Failure,
    line::{Line, Operator, Place},
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

fn find(told: &KeyList, kind: Kind, id: KeyId) -> Option<&ListedKey> {
    let mut keys = told.keys.iter();
    keys.find(|key| key.purpose == kind.label() && key.id == id)
}

/// Asks a sidecar until nothing is missing any more, or it has been as long as `wait`; what is missing still.
fn waited(
    sidecar: &Operator,
    wait: Duration,
    clock: &Clock,
    missing: impl Fn(&KeyList) -> Option<String>,
) -> Result<Option<String>, Failure> {
    // As good as for ever, if it is longer than time goes.
    let give_up_at = clock.now().checked_add(wait);
    loop {
        let told = sidecar.call(|admin| admin.list_keys())?;
        let missing = missing(&told);
        if missing.is_none() || give_up_at.is_some_and(|give_up_at| clock.now() >= give_up_at) {
            return Ok(missing);
        }
        sidecar.pause(PAUSE);
    }
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
