//! What operators are told of what really happened: over real QUIC, the real control channel and the operator's own line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test file: its helpers may fail as its tests do"
)]

mod support;

use std::time::Duration;

use support::{Stack, connect, endpoint, soon};
use tickgate::{
    client::{
        About, Admin, Closed, ConnectError, Endpoint, ExplainedEvent, Explanation, SecretToken,
        Session, SessionQuery, Ticket, Wait,
    },
    wire::CloseCode,
};

fn operator(stack: &Stack) -> Admin {
    let url = format!("https://{}", stack.sidecar.addresses().admin);
    let ca = std::slice::from_ref(&stack.certs.ca);
    Admin::connect(&url, ca, &stack.certs.admin).unwrap()
}

/// Asks until what is told is as `wanted` has it: what gateways saw takes a moment to arrive.
async fn explained(
    admin: &Admin,
    about: About,
    what: &'static str,
    wanted: impl Fn(&Explanation) -> bool,
) -> Explanation {
    let ask = async {
        loop {
            match admin.explain(&about).await {
                Ok(explanation) if wanted(&explanation) => return explanation,
                Ok(_) | Err(tickgate::client::CallError::NotFound(_)) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    soon(what, ask).await
}

async fn refused(endpoint: &Endpoint, ticket: &Ticket) -> CloseCode {
    match connect(endpoint, ticket).await {
        Err(ConnectError::Refused(Closed::Gateway { code, .. })) => code,
        Err(other) => panic!("refused otherwise: {other:?}"),
        Ok(_) => panic!("admitted"),
    }
}

fn find<'a>(told: &'a Explanation, kind: &str, gateway: &str) -> Option<&'a ExplainedEvent> {
    let of_it = |event: &&ExplainedEvent| {
        event.kind == kind
            && event
                .gateway
                .as_ref()
                .is_some_and(|id| id.as_str() == gateway)
    };
    told.events.iter().rfind(of_it)
}

fn about(session: &Session) -> About {
    About::Session(session.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_true_reason_is_told_where_the_client_hears_only_a_refusal() {
    let stack = Stack::start().await;
    let one = stack.plain_gateway("one").await;
    let two = stack.plain_gateway("two").await;
    let (admin, endpoint) = (operator(&stack), endpoint());

    // Stolen: presented a second time.
    let (ann, _playing) = stack.join("ann", "one", &endpoint).await;
    let told = explained(&admin, about(&ann), "ann's admission", |told| {
        told.summary.starts_with("in play on one since") && !told.sessions[0].gateways.is_empty()
    });
    let told = told.await;
    let minted = find(&told, "token_minted", "one").unwrap();
    let admitted = find(&told, "admitted", "one").unwrap();
    assert!(minted.token_sha256.is_some());
    assert_eq!(minted.token_sha256, admitted.token_sha256);

    let bob = stack.login("bob").await;
    let ticket = stack.ticket(&bob, "one").await;
    let connection = connect(&endpoint, &ticket).await.unwrap();
    assert_eq!(refused(&endpoint, &ticket).await, CloseCode::TokenUsed);
    let told = explained(&admin, about(&bob), "a used token", |told| {
        told.summary.contains("last refused at one: token_used")
    });
    let told = told.await;
    let refusal = find(&told, "refused", "one").unwrap();
    assert_eq!(refusal.reason.as_deref(), Some("token_used"));
    assert_eq!(refusal.close_code.as_deref(), Some("token_used"));
    assert_eq!(
        refusal.remote, None,
        "a player's address is nobody's business"
    );
    connection.close();
    let told = explained(&admin, about(&bob), "leaving", |told| {
        find(told, "ended", "one").is_some() && told.sessions[0].gateways.is_empty()
    });
    let told = told.await;
    assert!(told.summary.starts_with("left one at"), "{}", told.summary);

    // Misdirected: the gateway could not open it, and the client is not told why.
    let cid = stack.login("cid").await;
    let for_two = stack.ticket(&cid, "two").await;
    let at_one = Ticket {
        token: for_two.token.clone(),
        ..stack.ticket(&cid, "one").await
    };
    assert_eq!(refused(&endpoint, &at_one).await, CloseCode::TokenRejected);
    let told = explained(&admin, about(&cid), "a misdirected token", |told| {
        find(told, "refused", "one").is_some()
    });
    let told = told.await;
    let refusal = find(&told, "refused", "one").unwrap();
    let minted = find(&told, "token_minted", "two").unwrap();
    assert_eq!(refusal.token_sha256, minted.token_sha256);
    assert_eq!(refusal.close_code.as_deref(), Some("token_rejected"));
    assert_ne!(refusal.reason, None);

    // Forged: it names nobody, and so it is the gateway's to tell.
    let forged = Ticket {
        token: SecretToken::new("v4.local.AAAA".to_owned()),
        ..at_one
    };
    assert_eq!(refused(&endpoint, &forged).await, CloseCode::TokenRejected);
    let door = About::Gateway("one".parse().unwrap());
    let told = explained(&admin, door, "a forged token", |told| {
        !told.events.is_empty()
    })
    .await;
    assert_eq!(told.player, None);
    assert_eq!(told.events.len(), 1);
    assert!(told.events[0].remote.is_some());
    let text = format!("{told:?}");
    assert!(!text.contains("v4.local"), "{text}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_of_a_session_is_told_to_have_superseded_the_first() {
    let stack = Stack::start().await;
    let one = stack.plain_gateway("one").await;
    let (admin, endpoint) = (operator(&stack), endpoint());
    let (ann, first) = stack.join("ann", "one", &endpoint).await;
    let ticket = stack.ticket(&ann, "one").await;
    let second = connect(&endpoint, &ticket).await.unwrap();
    assert!(second.welcome().resumed);
    let closed = soon("the close", first.closed()).await;
    assert_eq!(closed.code(), Some(CloseCode::Superseded));
    let told = explained(&admin, about(&ann), "the resumption", |told| {
        find(told, "resumed", "one").is_some()
    });
    let told = told.await;
    let resumed = find(&told, "resumed", "one").unwrap();
    assert_eq!(resumed.reason.as_deref(), Some("superseded"));
    assert_eq!(resumed.close_code.as_deref(), Some("superseded"));
    assert!(
        told.summary.starts_with("in play on one since"),
        "{}",
        told.summary
    );
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_since_when_there_is_a_memory() {
    let stack = Stack::start().await;
    let since = stack.time.clock().wall();
    let one = stack.plain_gateway("one").await;
    let admin = operator(&stack);
    stack.time.advance(Duration::from_secs(60));
    let ann = stack.login("ann").await;
    for about in [about(&ann), About::Gateway("one".parse().unwrap())] {
        let told = admin.explain(&about).await.unwrap();
        assert_eq!(told.remembers_since, since);
    }
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_followed_to_every_gateway() {
    let stack = Stack::start().await;
    let one = stack.plain_gateway("one").await;
    let two = stack.plain_gateway("two").await;
    let (admin, endpoint) = (operator(&stack), endpoint());
    let (ann, connection) = stack.join("ann", "one", &endpoint).await;
    let wait = Wait::Gateways(Duration::from_secs(20));
    let revoked = admin.revoke_player(ann.player, wait).await.unwrap();
    assert!(revoked.acknowledged);
    let closed = soon("the close", connection.closed()).await;
    assert!(
        matches!(
            closed,
            Closed::Gateway {
                code: CloseCode::SessionRevoked,
                ..
            }
        ),
        "{closed:?}"
    );
    let told = explained(&admin, About::Player(ann.player), "the end", |told| {
        told.summary
            .starts_with("removed from one: session_revoked")
    });
    let told = told.await;
    assert!(
        told.summary.contains("all sessions were revoked"),
        "{}",
        told.summary
    );
    let [arrival] = told.revocations.as_slice() else {
        panic!("{:?}", told.revocations);
    };
    assert_eq!(arrival.revision, revoked.revision);
    let both = ["one".parse().unwrap(), "two".parse().unwrap()];
    assert_eq!(arrival.arrived, both);
    assert_eq!(arrival.outstanding, []);
    assert_eq!(told.sessions[0].state, "session_revoked");
    let live = admin.list_sessions(&SessionQuery::default()).await.unwrap();
    assert!(live.sessions.is_empty());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_drain_gets_nobody_and_may_be_told_otherwise() {
    let stack = Stack::start().await;
    let one = stack.plain_gateway("one").await;
    let (admin, endpoint) = (operator(&stack), endpoint());
    let id = "one".parse().unwrap();
    let (_, connection) = stack.join("ann", "one", &endpoint).await;
    let drained = admin.drain_gateway(&id, Duration::from_secs(600));
    drained.await.unwrap();
    let bob = stack.login("bob").await;
    let target = || tickgate::client::Target::Gateway("one".parse().unwrap());
    let refused = stack.account.issue_connect_token(&bob, target()).await;
    assert!(
        matches!(refused, Err(tickgate::client::CallError::Unavailable(_))),
        "{refused:?}"
    );
    support::plays(&connection).await;
    admin.cancel_drain(&id).await.unwrap();
    let again = async {
        while stack
            .account
            .issue_connect_token(&bob, target())
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a token again", again).await;
    one.stop().await;
}
