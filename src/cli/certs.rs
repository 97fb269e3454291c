//! `tickgate certs`: development certificates.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use tickgate::{
    certs::{CertsError, DevCerts, GatewayCerts, IdentityFiles, Layout},
    id::GatewayId,
    tls::Identity,
};

use super::failure::Failure;

/// Make development certificates: an authority, and one for everybody
#[derive(Debug, Args)]
#[command(
    long_about = "Makes a development authority (CA), and with it certificates for the sidecar, for each gateway, for an operator and for the \
        game's backend. The URI SAN in a certificate is who its holder is to the sidecar: tickgate://gateway/<id>, \
        tickgate://admin/dev, tickgate://backend/dev.\n\n\
        Each gateway also gets its own self-made QUIC certificate, which game clients pin: they learn its SHA-256 along with their \
        connect token, so that needs no public authority in production either.\n\n\
        The authority's key is thrown away, so nothing can be added later: name all gateways at once. Private keys have mode 0600. \
        The sidecar's certificate is for localhost alone. In production let your own authority sign certificates of this shape.",
    after_long_help = "Examples:\n  \
        tickgate certs\n  \
        tickgate certs --gateway eu-1 --gateway eu-2\n  \
        tickgate certs --out /tmp/certs --json | jq -r .gateways[0].quic.sha256\n\n\
        What to do next: `tickgate keys generate session --out certs/session.key`, the same for refresh, transport and login, then \
        `tickgate sidecar` and `tickgate gateway`. config.toml names these files by default."
)]
pub(super) struct Certs {
    /// The directory to write to
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,

    /// A gateway to make certificates for; give it again for more
    #[arg(long = "gateway", value_name = "ID", default_value = "gateway-1")]
    gateways: Vec<GatewayId>,

    /// Replace certificates that are there; whoever holds one of the old ones is then a stranger
    #[arg(long)]
    force: bool,

    /// Print one JSON object with every path and hash
    #[arg(long)]
    json: bool,
}

impl Certs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self {
            out,
            gateways,
            force,
            json,
        } = self;
        let certs = DevCerts::generate(&gateways).map_err(failure)?;
        let written = if force {
            certs.replace_in(&out)
        } else {
            certs.write_to(&out)
        };
        written.map_err(failure)?;
        let layout = Layout::new(&out);
        if json {
            writeln!(io::stdout(), "{:#}", report(&out, &layout, &certs))?;
        } else {
            print_table(&layout, &certs)?;
        }
        Ok(())
    }
}

fn failure(error: CertsError) -> Failure {
    match error {
        CertsError::Exists(_) => Failure::usage(error)
            .advise("give --force to replace them all, or --out for another directory"),
        CertsError::SameFile(_) | CertsError::Refused { .. } => {
            Failure::usage(error).advise("choose other gateway ids")
        }
        _ => Failure::runtime(error).advise("check the directory and who may write there"),
    }
}

fn print_table(layout: &Layout, certs: &DevCerts) -> io::Result<()> {
    let rows = rows(layout, certs);
    let width = rows.iter().map(|[who, ..]| who.len()).max().unwrap_or(0);
    let path_width = rows
        .iter()
        .map(|[_, path, _]| path.len())
        .max()
        .unwrap_or(0);
    let mut out = io::stdout().lock();
    for [who, path, what] in &rows {
        writeln!(out, "{who:width$}  {path:path_width$}  {what}")?;
    }
    writeln!(
        out,
        "\nThe private key of each stands beside it, ending in .key (mode 0600); the authority's is gone."
    )?;
    writeln!(
        out,
        "Next: `tickgate keys generate session --out FILE`, the same for refresh and transport, then `tickgate sidecar`."
    )
}

/// The lines of the table: whose certificate, where it is, what it says.
fn rows(layout: &Layout, certs: &DevCerts) -> Vec<[String; 3]> {
    let row = |who: &str, path: &Path, what: &str| {
        [who.to_owned(), path.display().to_string(), what.to_owned()]
    };
    let mut rows = vec![
        row("WHO", Path::new("CERTIFICATE"), "WHAT IT SAYS"),
        row(
            "authority",
            &layout.ca(),
            "signed all but the QUIC certificates",
        ),
        row(
            "sidecar",
            &layout.sidecar().certificate,
            "localhost, 127.0.0.1, ::1",
        ),
        row(
            "operator",
            &layout.admin().certificate,
            "tickgate://admin/dev",
        ),
        row(
            "backend",
            &layout.backend().certificate,
            "tickgate://backend/dev",
        ),
    ];
    for GatewayCerts {
        id,
        control: _,
        quic,
    } in &certs.gateways
    {
        rows.push(row(
            &format!("{id}, to the sidecar"),
            &layout.gateway(id).certificate,
            &format!("tickgate://gateway/{id}"),
        ));
        rows.push(row(
            &format!("{id}, to players"),
            &layout.gateway_quic(id).certificate,
            &format!("SHA-256 {}", sha256(quic)),
        ));
    }
    rows
}

fn report(out: &Path, layout: &Layout, certs: &DevCerts) -> serde_json::Value {
    let gateways = certs.gateways.iter().map(
        |GatewayCerts {
             id,
             control: _,
             quic,
         }| {
            let mut of_players = files(&layout.gateway_quic(id));
            if let Some(object) = of_players.as_object_mut() {
                object.insert("sha256".to_owned(), sha256(quic).into());
            }
            json!({
                "id": id.as_str(),
                "control": files(&layout.gateway(id)),
                "quic": of_players,
            })
        },
    );
    json!({
        "directory": out,
        "ca": layout.ca(),
        "sidecar": files(&layout.sidecar()),
        "admin": files(&layout.admin()),
        "backend": files(&layout.backend()),
        "gateways": gateways.collect::<Vec<_>>(),
    })
}

fn files(files: &IdentityFiles) -> serde_json::Value {
    json!({ "certificate": files.certificate, "key": files.key })
}

fn sha256(identity: &Identity) -> String {
    identity
        .fingerprint()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
