//! The inputs of one client that wait for their answer.

use std::time::Duration;

/// An input that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When it was due, after the start of play.
    pub(crate) due: Duration,
    /// When it was sent, after the start of play.
    pub(crate) at: Duration,
    /// Whether it belongs to the measured window (or else to the warm-up).
    pub(crate) measured: bool,
}

/// The inputs of one client that wait for their answer, by sequence number, in a ring of fixed size.
///
/// An input that is still there when the ring comes round to its place has waited for [`PATIENCE`] and counts as lost.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    ring: Box<[Option<(u32, Sent)>]>,
}

/// How long an input may wait before its place may be taken by another: longer than a stall that still counts as late and not as
/// loss.
const PATIENCE: Duration = Duration::from_secs(4);

impl InFlight {
    /// Room for what a client sends at `hz` within [`PATIENCE`]: at 10 Hz 64 places of 48 bytes, 3 KiB a client.
    pub(crate) fn new(hz: u32) -> Self {
        let places = u64::from(hz) * PATIENCE.as_secs();
        let places = usize::try_from(places.next_power_of_two()).unwrap_or(1 << 16);
        Self {
            ring: vec![None; places].into_boxed_slice(),
        }
    }

    fn place(&mut self, sequence: u32) -> Option<&mut Option<(u32, Sent)>> {
        let index = sequence as usize & self.ring.len().wrapping_sub(1);
        self.ring.get_mut(index)
    }

    /// Notes that the input `sequence` was sent. Returns the one whose place it takes: it is lost.
    pub(crate) fn sent(&mut self, sequence: u32, sent: Sent) -> Option<Sent> {
        let place = self.place(sequence)?;
        place.replace((sequence, sent)).map(|(_, lost)| lost)
    }

    /// Takes the input `sequence` out because it was answered; none if it waits no longer or was never sent.
    pub(crate) fn acknowledged(&mut self, sequence: u32) -> Option<Sent> {
        let place = self.place(sequence)?;
        match place {
            Some((there, sent)) if *there == sequence => {
                let sent = *sent;
                *place = None;
                Some(sent)
            }
            _ => None,
        }
    }

    /// Takes out all that still wait.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Sent> {
        self.ring
            .iter_mut()
            .filter_map(|place| place.take().map(|(_, sent)| sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(millis: u64) -> Sent {
        Sent {
            due: Duration::from_millis(millis),
            at: Duration::from_millis(millis + 1),
            measured: true,
        }
    }

    #[test]
    fn an_input_is_answered_once() {
        let mut in_flight = InFlight::new(10);
        assert_eq!(in_flight.sent(7, sent(700)), None);
        assert_eq!(in_flight.acknowledged(6), None);
        assert_eq!(in_flight.acknowledged(7), Some(sent(700)));
        assert_eq!(in_flight.acknowledged(7), None);
    }

    #[test]
    fn what_waits_for_longer_than_patience_is_lost() {
        let mut in_flight = InFlight::new(10);
        let lost: Vec<Sent> = (0..100)
            .filter_map(|i| in_flight.sent(i, sent(u64::from(i) * 100)))
            .collect();
        // 10 Hz for 4 s, rounded up to a power of two: 64 places.
        assert_eq!(lost.len(), 36);
        assert_eq!(lost[0], sent(0));
        assert_eq!(in_flight.drain().count(), 64);
        assert_eq!(in_flight.drain().count(), 0);
    }

    #[test]
    fn an_answer_that_comes_after_its_place_was_taken_is_not_mistaken_for_another() {
        let mut in_flight = InFlight::new(10);
        in_flight.sent(0, sent(0));
        in_flight.sent(64, sent(6_400));
        assert_eq!(in_flight.acknowledged(0), None);
        assert_eq!(in_flight.acknowledged(64), Some(sent(6_400)));
    }
}
