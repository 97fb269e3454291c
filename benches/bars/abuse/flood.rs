//! Spoofed Initials, and 100 honest clients who come in meanwhile.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{
    claims,
    initials::Flood,
    stage::{Stage, come, late_ticks},
};
use crate::{
    bar::Figure,
    report::{Report, progress},
    rig::stopwatch::percentile,
};

const HONEST: usize = 100;
/// Those who come afterwards, one each [`EVERY`].
const AFTERWARDS: usize = 30;
const EVERY: Duration = Duration::from_millis(100);
/// An admission that takes less is one of a gateway that is well.
const USUAL: Duration = Duration::from_millis(250);
const FLOOD: Duration = Duration::from_secs(30);
/// The part of what the gateway answers that the flood is made of.
const PART: f64 = 0.8;

pub(super) fn measure(report: &mut Report) {
    progress("flood");
    let stage = Stage::new();
    let sessions = stage.sessions(HONEST + AFTERWARDS);
    let mut flood = Flood::at(&stage.ticket(&sessions[0]));
    // The first rounds fill the room of handshakes: what is answered then is what a flood meets.
    flood.run(None, Duration::from_secs(1));
    let most = flood.run(None, Duration::from_secs(4));
    let rate = most.retries_per_second();
    std::thread::sleep(Duration::from_secs(6));

    let calm = stage.anonymous_bytes();
    let before = stage.scrape();
    let flooding = std::thread::spawn(move || flood.run(Some(rate * PART), FLOOD));
    let start = Instant::now();
    let (admitted, peak) = stage.runtime.block_on(async {
        let mut coming = JoinSet::new();
        let mut peak: f64 = 0.0;
        for (number, session) in sessions[..HONEST].iter().enumerate() {
            // All through the flood, but for its first and last seconds.
            let due = start
                + Duration::from_secs(3)
                + (FLOOD - Duration::from_secs(8)) * number as u32 / HONEST as u32;
            tokio::time::sleep_until(due.into()).await;
            coming.spawn(come(number, session.clone(), stage.tickets()));
            peak = peak.max(stage.anonymous_bytes());
        }
        (coming.join_all().await, peak)
    });
    let traffic = flooding.join().unwrap();
    let over = Instant::now();
    let after = stage.scrape();
    let peak = peak.max(stage.anonymous_bytes());
    let recovered = stage.runtime.block_on(async {
        let mut coming = JoinSet::new();
        for (number, session) in sessions[HONEST..].iter().enumerate() {
            tokio::time::sleep_until((over + EVERY * number as u32).into()).await;
            let began = over.elapsed();
            let (session, tickets) = (session.clone(), stage.tickets());
            coming.spawn(async move {
                let (took, client) = come(HONEST + number, session, tickets).await;
                assert!(client.is_some(), "not admitted after the flood");
                (began, took)
            });
        }
        let slow = coming
            .join_all()
            .await
            .into_iter()
            .filter(|(_, took)| *took > USUAL);
        slow.map(|(began, took)| began + took)
            .max()
            .unwrap_or_default()
    });

    let seconds = |time: Duration| time.as_secs_f64();
    let times: Vec<f64> = admitted
        .iter()
        .map(|(took, client)| {
            if client.is_some() {
                seconds(*took)
            } else {
                f64::INFINITY
            }
        })
        .collect();
    let note = format!(
        "the gateway answered {rate:.0} a second of {:.0} sent; flooded with {:.0} a second for {:.0} s, {:.0} a second answered",
        most.sent_per_second(),
        traffic.sent_per_second(),
        seconds(traffic.took),
        traffic.retries_per_second(),
    );
    report.bar(
        &claims::HONEST,
        Figure::spread(percentile(&times, 0.95), &times, "clients", note),
    );
    let note = format!(
        "{} handshake packets and {} Retries",
        traffic.others, traffic.retries
    );
    let ratio = traffic.received_bytes as f64 / traffic.sent_bytes as f64;
    report.bar(&claims::AMPLIFICATION, Figure::exact(ratio, note));
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let note = format!("{:.0} MiB before", mib(calm));
    report.bar(&claims::FLOOD_MEMORY, Figure::exact(mib(peak - calm), note));
    let (ticks, late) = late_ticks(&before, &after);
    let drops = after.value("tickgate_gateway_socket_drops_total")
        - before.value("tickgate_gateway_socket_drops_total");
    let note = format!("of {ticks:.0} ticks; the socket dropped {drops:.0} packets");
    report.bar(&claims::FLOOD_TICK, Figure::exact(late, note));
    report.bar(
        &claims::RECOVERY,
        Figure::exact(
            seconds(recovered),
            "0: no admission after it took that long",
        ),
    );
}
