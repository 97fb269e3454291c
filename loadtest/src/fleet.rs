//! All clients of a run, on one thread for each core that the generator has.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use anyhow::bail;
use tickgate::{
    client::{Account, Session},
    clock::Clock,
    id::{GatewayId, SessionId},
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    fleet_thread::{FleetThread, Member, Orders, local_address},
    plan::Plan,
    players::{Close, Tally},
    procfs::ThreadShares,
    progress::Live,
};

/// How many admissions run at once, over all threads: enough to keep a server core busy, and few enough that none waits long for
/// another on the generator's own cores.
const ADMISSIONS_AT_ONCE: usize = 64;

/// What a fleet is made from.
pub(crate) struct Muster {
    /// What happens when.
    pub(crate) plan: Arc<Plan>,
    /// The clock.
    pub(crate) clock: Clock,
    /// Where connect tokens come from.
    pub(crate) account: Account,
    /// The gateway that everybody plays at.
    pub(crate) gateway: GatewayId,
    /// Its address.
    pub(crate) address: SocketAddr,
    /// How many UDP endpoints the clients share.
    pub(crate) endpoints: u16,
    /// How many threads play them, at most.
    pub(crate) threads: usize,
    /// Counts for the progress line.
    pub(crate) live: Arc<Live>,
    /// Ends it all before its time.
    pub(crate) stop: CancellationToken,
}

/// The clients of a run, connected, on their threads.
pub(crate) struct Fleet {
    threads: Vec<FleetThread>,
    /// The sessions of the clients that are connected.
    pub(crate) connected: HashMap<u32, SessionId>,
    start: watch::Sender<Option<Instant>>,
    finish: CancellationToken,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.finish.cancel();
    }
}

impl Fleet {
    /// Starts the threads and waits until all players have been tried. Also returns where the ends of their connections are told.
    ///
    /// # Errors
    /// When a thread cannot do its work at all, such as for want of sockets.
    pub(crate) async fn connect(
        muster: Muster,
        sessions: Vec<(u32, Session)>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Close>)> {
        let ids: HashMap<u32, SessionId> = sessions.iter().map(|(c, s)| (*c, s.id)).collect();
        let (closes, closes_receiver) = mpsc::channel(sessions.len().max(1));
        let (start, start_receiver) = watch::channel(None);
        let finish = CancellationToken::new();
        let orders = Orders {
            plan: muster.plan,
            clock: muster.clock,
            account: muster.account,
            gateway: muster.gateway,
            admissions: Arc::new(Semaphore::new(ADMISSIONS_AT_ONCE)),
            live: muster.live,
            closes,
            start: start_receiver,
            stop: muster.stop,
            finish: finish.clone(),
        };
        let mut fleet = Self {
            threads: Vec::new(),
            connected: HashMap::new(),
            start,
            finish,
        };
        let shares = share_out(sessions, muster.endpoints, muster.threads);
        for (number, share) in shares.into_iter().enumerate() {
            let locals = share
                .endpoints
                .iter()
                .map(|endpoint| local_address(muster.address, *endpoint))
                .collect();
            let thread = FleetThread::spawn(number, orders.clone(), share.members, locals)?;
            fleet.threads.push(thread);
        }
        fleet.await_connections(&ids).await?;
        Ok((fleet, closes_receiver))
    }

    async fn await_connections(&mut self, ids: &HashMap<u32, SessionId>) -> anyhow::Result<()> {
        for thread in &mut self.threads {
            match (&mut thread.ready).await {
                Ok(connected) => {
                    let with_id = |client: u32| Some((client, *ids.get(&client)?));
                    self.connected
                        .extend(connected.into_iter().filter_map(with_id));
                }
                // It ended without a word: its outcome says why.
                Err(_) => {
                    (&mut thread.outcome).await??;
                    bail!("a generator thread ended before play");
                }
            }
        }
        Ok(())
    }

    /// Lets play begin at `start`.
    pub(crate) fn begin(&self, start: Instant) {
        self.start.send_replace(Some(start));
    }

    /// Waits until all inputs have been sent, or given up.
    pub(crate) async fn played(&mut self) {
        for thread in &mut self.threads {
            // A thread that has ended has nothing more to send; its outcome says why.
            let _ = (&mut thread.played).await;
        }
    }

    /// Ends the connections. Returns what came of all clients, and what each thread did with its time in play.
    ///
    /// # Errors
    /// When a thread failed or panicked.
    pub(crate) async fn end(mut self) -> anyhow::Result<(Tally, Vec<Option<ThreadShares>>)> {
        self.finish.cancel();
        let mut tally = Tally::new()?;
        let mut threads = Vec::new();
        for mut thread in self.threads.drain(..) {
            let outcome = (&mut thread.outcome).await??;
            tally.merge(&outcome.tally);
            threads.push(outcome.thread);
            thread.join()?;
        }
        Ok((tally, threads))
    }
}

/// One thread's part of the clients and endpoints.
#[derive(Debug)]
struct Share {
    members: Vec<Member>,
    endpoints: Vec<u16>,
}

/// Shares clients and endpoints out over `threads` threads, evenly; none without an endpoint.
fn share_out(sessions: Vec<(u32, Session)>, endpoints: u16, threads: usize) -> Vec<Share> {
    let threads = threads.clamp(1, usize::from(endpoints).max(1));
    let mut shares: Vec<Share> = (0..threads)
        .map(|thread| Share {
            members: Vec::new(),
            endpoints: (0..endpoints).skip(thread).step_by(threads).collect(),
        })
        .collect();
    for (index, (client, session)) in sessions.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(index % threads) {
            share.members.push(Member { client, session });
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use tickgate::{client::SecretToken, clock::Timestamp, id::PlayerId};

    use super::*;

    fn session() -> Session {
        Session {
            token: SecretToken::new("v4.local.x"),
            token_expires_at: Timestamp(0),
            refresh_token: None,
            id: SessionId(1),
            player: PlayerId(2),
            is_new_player: true,
            ends_at: Timestamp(0),
            role: None,
        }
    }

    #[test]
    fn clients_and_endpoints_are_shared_out_evenly_and_all_of_them() {
        let sessions = (0..50).map(|client| (client, session())).collect();
        let shares = share_out(sessions, 16, 3);
        assert_eq!(shares.len(), 3);
        let mut endpoints: Vec<u16> = shares.iter().flat_map(|s| s.endpoints.clone()).collect();
        endpoints.sort_unstable();
        assert_eq!(endpoints, (0..16).collect::<Vec<u16>>());
        for share in &shares {
            assert!((16..=17).contains(&share.members.len()));
            assert!((5..=6).contains(&share.endpoints.len()));
        }
    }

    #[test]
    fn there_are_no_more_threads_than_endpoints() {
        assert_eq!(share_out(Vec::new(), 2, 64).len(), 2);
        assert_eq!(share_out(Vec::new(), 16, 0).len(), 1);
    }
}
