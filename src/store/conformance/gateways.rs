//! What every store must know of gateways: whose activity they may report, and which process is the newest.

use super::*;
use crate::{
    control::GatewayDescription,
    id::{GatewayId, Incarnation},
    store::{Fencing, MAX_FENCED, MAX_GRANTS, Publication, PublishedGateway},
    token::TransportMasterKey,
};

fn gateway(n: usize) -> GatewayId {
    format!("gateway-{n}").parse().unwrap()
}

pub(in crate::store) async fn a_gateway_is_granted_what_was_minted_for_it(store: Arc<dyn Store>) {
    let [ada, bob, eve] = ["ada", "bob", "eve"];
    let ada = log_in(&*store, ada).await.session.id;
    let bob = log_in(&*store, bob).await.session.id;
    let eve = log_in(&*store, eve).await.session.id;
    for session in [bob, ada, bob, SessionId(7)] {
        store.grant(session, gateway(1)).await.unwrap();
    }
    store.grant(eve, gateway(2)).await.unwrap();
    let all = vec![eve, bob, SessionId(7), ada];
    let granted = |n| store.granted_among(gateway(n), all.clone());
    assert_eq!(granted(1).await.unwrap(), [bob, ada], "in their order");
    assert_eq!(granted(2).await.unwrap(), [eve]);
    assert_eq!(granted(3).await.unwrap(), []);
    // Neither a refresh nor activity nor another session's end changes it; its own purge does.
    store.note_activity(&[ada], START.after(Duration::from_secs(100)));
    store.revoke_session(bob, START).await.unwrap();
    assert_eq!(granted(1).await.unwrap(), [bob, ada]);
    store.purge(START.after(LIVES.longest * 2)).await.unwrap();
    assert_eq!(granted(1).await.unwrap(), []);
}

pub(in crate::store) async fn activity_elsewhere_is_known_of_sessions_of_several_gateways(
    store: Arc<dyn Store>,
) {
    let [here, both, there] = ["here", "both", "there"];
    let here = log_in(&*store, here).await.session.id;
    let both = log_in(&*store, both).await.session.id;
    let there = log_in(&*store, there).await.session.id;
    for (session, at) in [(here, 1), (both, 1), (both, 2), (there, 2)] {
        store.grant(session, gateway(at)).await.unwrap();
    }
    let all = vec![there, both, SessionId(7), here];
    let elsewhere = || store.active_elsewhere(gateway(1), all.clone());
    let at_login = store.session(both).await.unwrap().unwrap();
    let at_login = at_login.session.active_at;
    assert_eq!(
        elsewhere().await.unwrap(),
        [(there, at_login), (both, at_login)]
    );
    // To the millisecond, whatever of it is on disk.
    let [first, last] = [2_000, 2_001].map(|ms| START.after(Duration::from_millis(ms)));
    store.note_activity(&[here, both], first);
    store.note_activity(&[both], last);
    assert_eq!(
        elsewhere().await.unwrap(),
        [(there, at_login), (both, last)]
    );
}

pub(in crate::store) async fn a_session_has_a_bounded_number_of_gateways(store: Arc<dyn Store>) {
    let id = log_in(&*store, "ada").await.session.id;
    for n in 0..=MAX_GRANTS {
        store.grant(id, gateway(n)).await.unwrap();
        // Asking again makes no gateway younger.
        store.grant(id, gateway(0)).await.unwrap();
    }
    let granted = |n| store.granted_among(gateway(n), vec![id]);
    // The last round put gateway 0 out, and then back in place of gateway 1.
    assert_eq!(granted(1).await.unwrap(), []);
    for n in (0..=MAX_GRANTS).filter(|n| *n != 1) {
        assert_eq!(granted(n).await.unwrap(), [id], "gateway {n}");
    }
}

pub(in crate::store) async fn a_newer_process_fences_the_older_ones_off(store: Arc<dyn Store>) {
    let attach = |gateway, process| store.attach_gateway(gateway, Incarnation(process));
    for process in 1..=3 {
        // A stream that broke comes back.
        for _ in 0..2 {
            let fencing = attach(gateway(1), process).await.unwrap();
            assert_eq!(fencing, Fencing::Newest);
        }
    }
    for old in [1, 2] {
        let fencing = attach(gateway(1), old).await.unwrap();
        assert_eq!(fencing, Fencing::Fenced);
    }
    assert_eq!(attach(gateway(1), 3).await.unwrap(), Fencing::Newest);
    // Another gateway's processes are its own.
    assert_eq!(attach(gateway(2), 1).await.unwrap(), Fencing::Newest);
}

pub(in crate::store) async fn a_bounded_number_of_old_processes_is_remembered(
    store: Arc<dyn Store>,
) {
    let last = MAX_FENCED as u128 + 2;
    let attach = |process| store.attach_gateway(gateway(1), Incarnation(process));
    for process in 1..=last {
        assert_eq!(attach(process).await.unwrap(), Fencing::Newest);
    }
    for old in 2..last {
        assert_eq!(attach(old).await.unwrap(), Fencing::Fenced, "process {old}");
    }
    assert_eq!(attach(1).await.unwrap(), Fencing::Newest, "forgotten");
}

pub(in crate::store) async fn two_processes_that_attach_at_once_leave_one(store: Arc<dyn Store>) {
    let mut attaching = tokio::task::JoinSet::new();
    for process in 1..=40 {
        let store = Arc::clone(&store);
        attaching.spawn(async move {
            let fencing = store.attach_gateway(gateway(1), Incarnation(process));
            assert_eq!(fencing.await.unwrap(), Fencing::Newest);
        });
    }
    attaching.join_all().await;
    let mut newest = 0;
    for process in 1..=40 {
        let fencing = store.attach_gateway(gateway(1), Incarnation(process));
        newest += usize::from(fencing.await.unwrap() == Fencing::Newest);
    }
    assert_eq!(newest, 1);
}

pub(in crate::store) fn published(n: usize, process: u128, seats: u32) -> PublishedGateway {
    PublishedGateway {
        description: GatewayDescription {
            id: gateway(n),
            incarnation: Incarnation(process),
            addresses: vec!["192.0.2.1:7777".parse().unwrap()],
            server_name: "tickgate.local".to_owned(),
            certificate_sha256: vec![[7; 32]],
            capacity: 100,
        },
        seats,
        draining: false,
        acknowledged: Revision(3),
        keys: vec![TransportMasterKey::from_bytes(&[7; 32]).id()].into(),
        elsewhere: false,
    }
}

const LEASE: Duration = Duration::from_secs(5);

pub(in crate::store) async fn a_published_gateway_is_known_until_its_lease_runs_out(
    store: Arc<dyn Store>,
) {
    assert_eq!(store.gateways(START).await.unwrap(), []);
    for n in [2, 1] {
        let attached = store.attach_gateway(gateway(n), Incarnation(1)).await;
        assert_eq!(attached.unwrap(), Fencing::Newest);
        let outcome = store.publish_gateway(published(n, 1, 0), LEASE, true, START);
        assert_eq!(outcome.await.unwrap(), Publication::Published);
    }
    let known = store.gateways(START).await.unwrap();
    assert_eq!(known, [published(1, 1, 0), published(2, 1, 0)]);
    // Renewed, and with what is known by now.
    let later = START.after(LEASE / 2);
    let renewed = store.publish_gateway(published(1, 1, 9), LEASE, false, later);
    assert_eq!(renewed.await.unwrap(), Publication::Published);
    let known = store.gateways(START.after(LEASE)).await.unwrap();
    assert_eq!(known, [published(1, 1, 9)]);
    // Only the process that was withdrawn goes.
    for (process, left) in [(2, 1), (1, 0)] {
        store
            .withdraw_gateway(gateway(1), Incarnation(process))
            .await
            .unwrap();
        let known = store.gateways(later).await.unwrap();
        assert_eq!(known.len(), left);
    }
}

pub(in crate::store) async fn only_the_newest_process_is_published(store: Arc<dyn Store>) {
    let publish = |process| store.publish_gateway(published(1, process, 0), LEASE, true, START);
    assert_eq!(
        publish(1).await.unwrap(),
        Publication::Fenced,
        "never attached"
    );
    for process in 1..=2 {
        let attached = store.attach_gateway(gateway(1), Incarnation(process));
        attached.await.unwrap();
        assert_eq!(publish(process).await.unwrap(), Publication::Published);
    }
    assert_eq!(publish(1).await.unwrap(), Publication::Fenced);
    let known = store.gateways(START).await.unwrap();
    assert_eq!(known, [published(1, 2, 0)]);
}
