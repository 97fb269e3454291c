//! The fleet's clients, on a schedule.

use std::time::Duration;

use tickgate::client::fleet::{Fleet, Member, What};

use super::{PAYLOAD, Played, SETTLE, echo::EchoServer, fleet, thread_nanos};
use crate::rig::stopwatch;

/// Handshakes under way at once.
const AT_ONCE: usize = 64;

pub(super) struct Crowd {
    fleet: Fleet,
    members: Vec<Member>,
}

impl Crowd {
    pub(super) fn connect(server: &EchoServer, count: usize) -> Self {
        let (mut fleet, server) = fleet(server);
        let mut members = Vec::with_capacity(count);
        let mut begun = 0;
        while members.len() < count {
            while begun < count && begun - members.len() < AT_ONCE {
                fleet.connect(&server).unwrap();
                begun += 1;
            }
            fleet
                .turn(stopwatch::start() + Duration::from_secs(1))
                .unwrap();
            while let Some(event) = fleet.poll() {
                match event.what {
                    What::Connected => members.push(event.member),
                    other => panic!("{other:?}"),
                }
            }
        }
        Self { fleet, members }
    }

    /// Everybody sends once, a few at a time, and hears.
    pub(super) fn say_once(&mut self) {
        for some in self.members.chunks(AT_ONCE) {
            for member in some {
                self.fleet.send_datagram(*member, &[0; PAYLOAD]).unwrap();
            }
            let deadline = stopwatch::start() + Duration::from_secs(2);
            let mut heard = 0;
            while heard < some.len() && stopwatch::start() < deadline {
                self.fleet.turn(deadline).unwrap();
                while let Some(event) = self.fleet.poll() {
                    heard += usize::from(matches!(event.what, What::Datagram(_)));
                }
            }
        }
    }

    /// Sends what is due every millisecond, for `span`.
    pub(super) fn play(&mut self, span: Duration) -> Played {
        let start = stopwatch::start();
        let (mut sent, mut echoed) = (0_u64, 0_u64);
        let mut counted = None;
        let mut millis = 0;
        let mut slice = start;
        while slice < start + span {
            if counted.is_none() && slice >= start + SETTLE {
                counted = Some((thread_nanos(), sent, echoed));
            }
            // Client i's k-th is due at (i / clients + k) / rate; all of them together, one every so often.
            let due = super::due(millis, self.members.len());
            while sent < due {
                let member = self.members[(sent % self.members.len() as u64) as usize];
                self.fleet.send_datagram(member, &[7; PAYLOAD]).unwrap();
                sent += 1;
            }
            millis += 1;
            slice = start + Duration::from_millis(millis);
            // One turn at the least, however late it is: what is due has to leave.
            loop {
                self.fleet.turn(slice).unwrap();
                while let Some(event) = self.fleet.poll() {
                    match event.what {
                        What::Datagram(_) => echoed += 1,
                        other => panic!("{other:?}"),
                    }
                }
                if stopwatch::start() >= slice {
                    break;
                }
            }
        }
        let nanos = thread_nanos();
        let (nanos_before, sent_before, echoed_before) = counted.unwrap();
        Played {
            sent: sent - sent_before,
            echoed: echoed - echoed_before,
            nanos: nanos - nanos_before,
        }
    }
}
