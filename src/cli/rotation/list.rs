//! `tickgate keys list`: what each key is in its file, and at the sidecar.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;
use tickgate::{
    client::ListedKey,
    clock::Timestamp,
    config::{KeyEntry, KeySource, load_key_file},
    token::{KeyId, KeyRole, OperatorKey, RefreshKey, SessionKey, TransportMasterKey},
};

use super::{
    super::{
        Global,
        failure::Failure,
        line::Line,
        table::{Table, list},
        when::when,
    },
    Kind, find,
};

/// List the keys that tokens are under
#[derive(Debug, Args)]
#[command(
    long_about = "Lists the keys of session, refresh and connect tokens by id (k4.lid.…, which is no secret): what each does by its file and \
        at the sidecar, when the sidecar last sealed with it, and which gateways do not hold a transport key yet.",
    after_long_help = "Examples:\n  \
        tickgate keys list\n  \
        tickgate keys list --json | jq '.keys[] | select(.role != .in_force)'\n\n\
        With --json: {\"keys\": [{\"purpose\", \"id\", \"epoch\", \"role\", \"since\", \"in_force\", \"sealed_at\", \"outstanding\"}], \
        \"holding_others\": [\"GATEWAY\"]}; `role` is what the file says, `in_force` what the sidecar does, and who holds others has not let go of \
        a retired transport key yet\n\n\
        What to do next: `tickgate keys rotate KEY` changes one for a new one."
)]
pub(in crate::cli) struct List {
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
    pub(in crate::cli) fn run(self, global: &Global) -> Result<(), Failure> {
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
            let holding_others: Vec<_> = told
                .holding_others
                .iter()
                .map(ToString::to_string)
                .collect();
            let told = json!({ "keys": keys, "holding_others": holding_others });
            writeln!(out, "{told:#}")?;
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
        if !told.holding_others.is_empty() {
            let gateways = list(&told.holding_others);
            writeln!(out, "a retired transport key is still held by {gateways}")?;
        }
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
