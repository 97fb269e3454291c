//! QUIC clients that send datagrams at a steady rate and take what comes back.

use std::time::Duration;

use anyhow::{Context, bail};

use super::crowd::{Crowd, Happening};
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
    let mut crowd = Crowd::of(server)?;
    let members = crowd.gather(plan.clients, plan.gathering, tokens)?;
    let (all, before) = plan.sends();
    let began = stopwatch::start();
    let mut returns = Returns::new(plan, began);
    let mut late = Vec::with_capacity(returns.asked());
    let mut start = None;
    let mut send = 0;
    while send < all {
        let now = stopwatch::start();
        while send < all && plan.due(began, send) <= now {
            if send == before {
                start = Some((now, server.cpu()?, own_cpu()?, server.drops()?));
            }
            let number = (send % plan.clients as u64) as usize;
            let member = members.get(number).context("a client")?;
            crowd.send(*member, &Returns::payload(send))?;
            if send >= before {
                let lag = now.saturating_duration_since(plan.due(began, send));
                late.push(lag.as_secs_f64());
            }
            send += 1;
        }
        crowd.turn(plan.due(began, send))?;
        receive(&mut crowd, &mut returns)?;
    }
    let (began, cpu, own, drops) = start.context("nothing was measured")?;
    let (cpu, own, wall) = (server.cpu()? - cpu, own_cpu()? - own, began.elapsed());
    let end = stopwatch::start() + AFTERMATH;
    while stopwatch::start() < end {
        crowd.turn(end)?;
        receive(&mut crowd, &mut returns)?;
    }
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

fn receive(crowd: &mut Crowd, returns: &mut Returns) -> anyhow::Result<()> {
    while let Some(happening) = crowd.poll()? {
        match happening {
            Happening::Datagram(payload, at) => returns.take(&payload, at),
            Happening::In(_) => {}
            Happening::Lost => bail!("a client was lost while it played"),
        }
    }
    Ok(())
}
