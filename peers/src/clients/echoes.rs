//! QUIC clients that send datagrams at a steady rate and take what comes back.

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use tokio::{
    task::LocalSet,
    time::{sleep, sleep_until},
};

use super::quic::{Client, Clients};
use crate::{
    echo::{Echo, Plan, Returns},
    load::Load,
    process::{Server, own_cpu},
    rig::stopwatch::{self, percentile},
};

/// How long the last ones have to come back.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Has all clients come in, and then play.
pub(crate) fn run(
    server: &Server,
    plan: Plan,
    tokens: Option<Vec<String>>,
) -> anyhow::Result<Echo> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let clients = Clients::of(server)?.gather(plan.clients, tokens).await?;
        play(server, plan, &clients).await
    })
}

async fn play(server: &Server, plan: Plan, clients: &[Client]) -> anyhow::Result<Echo> {
    let (all, before) = plan.sends();
    let began = stopwatch::start();
    let returns = Rc::new(RefCell::new(Returns::new(plan, began)));
    for client in clients {
        let (connection, returns) = (client.connection.clone(), Rc::clone(&returns));
        tokio::task::spawn_local(async move {
            while let Ok(datagram) = connection.read_datagram().await {
                returns.borrow_mut().take(&datagram);
            }
        });
    }
    let mut late = Vec::with_capacity(returns.borrow().asked());
    let mut start = None;
    for send in 0..all {
        let due = plan.due(began, send);
        if stopwatch::start() < due {
            sleep_until(due.into()).await;
        }
        if send == before {
            start = Some((
                stopwatch::start(),
                server.cpu()?,
                own_cpu()?,
                server.drops()?,
            ));
        }
        let number = (send % plan.clients as u64) as usize;
        let client = clients.get(number).context("a client")?;
        let payload = Bytes::copy_from_slice(&Returns::payload(send));
        client.connection.send_datagram(payload)?;
        if send >= before {
            let lag = stopwatch::start().saturating_duration_since(due);
            late.push(lag.as_secs_f64());
        }
    }
    let (began, cpu, own, drops) = start.context("nothing was measured")?;
    let (cpu, own, wall) = (server.cpu()? - cpu, own_cpu()? - own, began.elapsed());
    sleep(AFTERMATH).await;
    let returns = returns.borrow();
    Ok(Echo {
        load: Load {
            asked: returns.asked(),
            done: returns.done(),
            wall,
            cpu: own,
            late: Duration::from_secs_f64(percentile(&late, 0.99)),
            latest: plan.latest(),
        },
        cpu,
        rtt_p50: returns.rtt(0.5),
        rtt_p99: returns.rtt(0.99),
        drops: server.drops()? - drops,
    })
}
