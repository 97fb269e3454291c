//! The stack under load, found and answering.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tickgate::{
    client::{Account, Admin, AttachedGateway, Backend},
    clock::Clock,
    id::GatewayId,
    tls,
};
use tokio::time::{sleep, timeout};

use crate::stack::{DevJson, OwnStack};

/// A stack whose sidecar answers and whose gateways are attached.
pub(crate) struct Target {
    /// What the report calls it.
    pub(crate) name: String,
    /// Where players log in.
    pub(crate) account: Account,
    /// Where sessions are revoked.
    pub(crate) backend: Backend,
    /// Where operators ask.
    pub(crate) admin: Admin,
    /// The gateway with the demo world.
    pub(crate) gateway: GatewayId,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// Another gateway, whose tokens the first one must refuse.
    pub(crate) other_gateway: Option<GatewayId>,
    /// The stack's process.
    pub(crate) pid: u32,
}

/// How long a running stack may take to answer: a wrong target is told within 2 s.
const ANSWER_DEADLINE: Duration = Duration::from_millis(1_200);
/// How long the gateways of a stack that has just been started may take to attach.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is asked whether they have.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Finds the stack that `dev_json` describes, or else starts one of our own with `seats` seats on `server_cores`.
///
/// # Errors
/// When it does not start, does not answer, or has no gateway to play at.
pub(crate) async fn find(
    dev_json: Option<&Path>,
    seats: u32,
    server_cores: &[usize],
    clock: &Clock,
) -> anyhow::Result<(Option<OwnStack>, Target)> {
    if let Some(path) = dev_json {
        let deadline = clock.now() + ANSWER_DEADLINE;
        let name = path.display().to_string();
        let target = open(name.clone(), &DevJson::read(path)?, clock, deadline).await;
        let target = target.with_context(|| {
            format!(
                "cannot use the stack that {name} describes. Is it running? Start one with `cargo run --release -- dev`, or leave --dev-json out to have one started"
            )
        })?;
        return Ok((None, target));
    }
    let (mut stack, dev_json) = OwnStack::start(seats, server_cores, clock).await?;
    let deadline = clock.now() + ATTACH_DEADLINE;
    match open("a stack of its own".to_owned(), &dev_json, clock, deadline).await {
        Ok(target) => Ok((Some(stack), target)),
        Err(error) => {
            let log = stack.keep_log();
            Err(error.context(format!(
                "the development stack does not work; its log is {}",
                log.display()
            )))
        }
    }
}

async fn open(
    name: String,
    dev_json: &DevJson,
    clock: &Clock,
    deadline: Instant,
) -> anyhow::Result<Target> {
    let ca = tls::load_certificates(&dev_json.ca)?;
    let identity = tls::Identity::load(&dev_json.backend_certificate, &dev_json.backend_key)?;
    let account = Account::connect(&dev_json.auth_url, &ca)?;
    let backend = Backend::connect(&dev_json.admin_url, &ca, &identity)?;
    let operator = tls::Identity::load(&dev_json.admin_certificate, &dev_json.admin_key)?;
    let admin = Admin::connect(&dev_json.admin_url, &ca, &operator)?;
    let id = dev_json.demo_gateway()?;
    let other = dev_json.other_gateway();

    let attached = attached(&backend, &id, other.as_ref(), clock, deadline).await;
    let attached = attached.with_context(|| format!("no answer from {}", dev_json.admin_url))?;
    let Some(address) = attached.addresses.first().copied() else {
        bail!("gateway {id} advertises no address");
    };
    Ok(Target {
        name,
        account,
        backend,
        admin,
        gateway: id,
        address,
        other_gateway: other,
        pid: dev_json.pid,
    })
}

/// Waits until the gateways are attached. Returns the one to play at.
async fn attached(
    backend: &Backend,
    id: &GatewayId,
    other: Option<&GatewayId>,
    clock: &Clock,
    deadline: Instant,
) -> anyhow::Result<AttachedGateway> {
    loop {
        let left = deadline.saturating_duration_since(clock.now());
        let failure = match timeout(left, backend.list_gateways()).await {
            Ok(Ok(gateways)) => {
                let find = |id: &GatewayId| gateways.iter().find(|gateway| gateway.id == *id);
                match (find(id), other.map(find)) {
                    (Some(gateway), None | Some(Some(_))) => return Ok(gateway.clone()),
                    (None, _) => anyhow::anyhow!("gateway {id} is not attached to its sidecar"),
                    (Some(_), _) => anyhow::anyhow!("the second gateway is not attached"),
                }
            }
            Ok(Err(error)) => error.into(),
            Err(_) => anyhow::anyhow!("it took too long"),
        };
        if clock.now() + ASK_EVERY >= deadline {
            return Err(failure);
        }
        sleep(ASK_EVERY).await;
    }
}
