//! Handshakes at a steady rate, and admissions: clients that come, and go again as soon as they are in.

use std::time::Duration;

use anyhow::Context;

use super::crowd::{Crowd, Happening};
use crate::{
    load::Load,
    process::{Server, own_cpu},
    rig::stopwatch::{self, percentile},
};

/// A client that is not done so long after the last one came has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the server has for the last ones' departure.
const AFTERMATH: Duration = Duration::from_millis(400);
/// A handshake that begins later than this, at p99, is another load than the one that was asked for.
const LATEST: Duration = Duration::from_millis(25);

/// So many clients at `rate` a second, evenly spread, and the server's processor time for all of them. With tokens they are admitted.
pub(crate) fn run(
    server: &Server,
    count: usize,
    rate: f64,
    tokens: Option<Vec<String>>,
) -> anyhow::Result<(Load, Duration)> {
    let mut crowd = Crowd::of(server)?;
    let mut tokens = tokens.map(Vec::into_iter);
    let mut late = Vec::with_capacity(count);
    let (cpu, own, began) = (server.cpu()?, own_cpu()?, stopwatch::start());
    let due = |number: usize| began + Duration::from_secs_f64(number as f64 / rate);
    let (mut begun, mut done, mut lost) = (0, 0, 0);
    while done + lost < count {
        let now = stopwatch::start();
        while begun < count && due(begun) <= now {
            let token = match &mut tokens {
                Some(tokens) => Some(tokens.next().context("too few tokens")?),
                None => None,
            };
            crowd.come(token)?;
            late.push(now.saturating_duration_since(due(begun)).as_secs_f64());
            begun += 1;
        }
        let end = due(count) + PATIENCE;
        if now > end {
            break;
        }
        crowd.turn(if begun < count { due(begun) } else { end })?;
        while let Some(happening) = crowd.poll()? {
            match happening {
                Happening::In(member) => {
                    crowd.go(member);
                    done += 1;
                }
                Happening::Lost => lost += 1,
                Happening::Datagram(..) => {}
            }
        }
    }
    let load = Load {
        asked: count,
        done,
        wall: began.elapsed(),
        cpu: own_cpu()? - own,
        late: Duration::from_secs_f64(percentile(&late, 0.99)),
        latest: LATEST,
    };
    crowd.idle(AFTERMATH)?;
    Ok((load, server.cpu()? - cpu))
}
