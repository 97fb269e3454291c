//! What the gateway's end tells of the keys that it holds.

use super::*;

fn carried(n: u8) -> CarriedKey {
    CarriedKey {
        epoch: n.into(),
        key: vec![n; 32].into(),
    }
}

fn held(keys: &[u8]) -> Vec<KeyId> {
    let id = |n: &u8| TransportKey::from_bytes(&[*n; 32]).id();
    keys.iter().map(id).collect()
}

#[test]
fn which_keys_are_held_is_told_once_they_are_installed_and_on_the_next_attach() {
    let now = crate::clock::Clock::system().now();
    let mut link = attached_link(now);
    link.received(now, FromSidecar::Keys(vec![carried(1), carried(2)]));
    assert_eq!(link.poll_transmit(), None, "they are not installed yet");
    let installed = Effect::InstallKeys(vec![carried(1), carried(2)]);
    assert_eq!(effects(&mut link), [installed]);
    assert_eq!(sent(&mut link), [FromGateway::KeysHeld(held(&[1, 2]))]);
    // The same ones again are no news.
    link.received(now, FromSidecar::Keys(vec![carried(1), carried(2)]));
    effects(&mut link);
    assert_eq!(sent(&mut link), []);
    link.received(now, FromSidecar::Keys(vec![carried(2)]));
    effects(&mut link);
    // That was not told before the stream broke.
    link.disconnected(now, DetachReason::Closed);
    effects(&mut link);
    let now = link.poll_timeout().unwrap();
    link.timer(now);
    effects(&mut link);
    link.connected(description(), Vec::new());
    let Some(FromGateway::Attach(attach)) = link.poll_transmit() else {
        panic!("Attach goes first");
    };
    assert_eq!(attach.keys, held(&[2]));
    let FromSidecar::Attached(mut answer) = attached(Some(10)) else {
        unreachable!()
    };
    answer.keys = vec![carried(2)];
    answer.snapshot.as_mut().unwrap().dead_count = 0;
    answer.snapshot.as_mut().unwrap().dead.clear();
    link.received(now, FromSidecar::Attached(answer));
    effects(&mut link);
    assert_eq!(sent(&mut link), [FromGateway::Ack(Revision(10))]);
}
