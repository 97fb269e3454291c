//! What is read for every seat on every tick: arrays of atomics by slot, and no lock.
//!
//! | array | a slot's | written by |
//! |---|---|---|
//! | `words` | generation and state ([`word`]) | whoever holds the books |
//! | `marks` | 1: active since the last write-out | touch, joins and comebacks set it; the pass takes it off |
//! | `sessions` | JTI of its seat, or of the last one | whoever holds the books, while the slot is free |
//! | `ends_at` | absolute end of its seat; never, if there is none | whoever holds the books |
//! | `active_at` | last activity known; never, if there is no seat | whoever holds the books, and the pass |
//! | `live` | a bit: the simulation was told that its seat is live, and it is ([`live`](super::live)) | whoever holds the books clears it, the pass sets it |
//!
//! 29 bytes and a bit a slot, and 8 for each 64 of them: `earliest`, bounds of their times, by which the sweep passes over almost all of them. Each array is as long as it can ever get to be, and zeroed: the operating system backs its pages as slots are first
//! used ([`zeroes`]). So the table grows without moving anything, and a reader needs no lock, no segment and no second look. The arrays
//! are apart because their readers are: verify takes four bytes a slot, 16 slots to a cache line that nothing writes but joins,
//! suspensions and ends.
//!
//! # Who overlaps whom
//!
//! No step here is an exchange, and nothing waits. What can meet:
//!
//! - **Joins, suspensions, comebacks and ends** exclude each other by the books' lock. Each is one store to the word, so that there is an
//!   instant before which every thread finds the seat as it was, and after which as it is. Nobody else writes words: no touch and no
//!   activity write can undo an end or a suspension. The lock is given back by an exchange, before which the processor makes the word
//!   known: when an end has returned, the very next verify on any thread refuses.
//! - **Verify** is one load of the word. It may be answered with what an overlapping end is just about to change, never with a seat of
//!   another generation.
//! - **Touch against touch**: both store 1.
//! - **Touch against the pass.** The pass takes a mark off and writes the session out as active at the pass's time. A touch that finds the
//!   mark still there, and so adds nothing, comes before that, and is what is written out; one that sets it anew is for the next
//!   window. None falls between: the pass stores 0 only where it loaded 1 and a seat, and then writes out.
//! - **Touch against suspension and end.** A touch that loaded the word of a live seat may leave its mark just after the seat was suspended or
//!   ended. It counts as one before that if the pass, or the suspension, sees it, and otherwise as one after, which does nothing. A mark on
//!   a slot without a seat is passed over; the next seat there begins marked anyway.
//! - **Touch against the slot's next seat.** A touch held up between its two steps while its seat ends, a tick tells so, and another session
//!   takes the slot, marks that session: which then counts as active once more than it was, within a window of having joined if not for a
//!   longer stop of that thread. (It cannot be excluded by what is marked: a mark that named its generation would put out the
//!   newcomer's own, and lose activity rather than add some. That is the worse error.)
//! - **Joins against the pass.** The session and its times are stored before the word (release), and the mark after it: so whoever finds the
//!   word (acquire) finds them, and a pass that takes the mark off finds the word. A slot gets its next seat only after a pass has handed
//!   over the end of the last one and passes come one after the other, so that no slot's session changes while a pass looks at it.
//! - **Write-outs against activity from elsewhere.** Both move `active_at` on, the one without the lock: of two that meet, one may be lost, and both
//!   are of now. One that is stored just after the seat's end stands in a slot without a seat, and is written over by the next one.

use std::ops::Range;

use super::{
    Handle, Verdict,
    era::{Due, NEVER},
    fault::{self, Fault, is_planted},
    live::LiveBits,
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence, zeroes},
    word,
};
use crate::id::SessionId;

/// How many slots are looked at for deadlines at once.
pub(super) const GROUP: usize = 64;

/// The arrays.
pub(super) struct Floor {
    words: Box<[AtomicU32]>,
    marks: Box<[AtomicU8]>,
    /// High and low half.
    sessions: Box<[[AtomicU64; 2]]>,
    ends_at: Box<[AtomicU32]>,
    active_at: Box<[AtomicU32]>,
    /// By group of 64 slots: no end among them is earlier, nor any last activity.
    earliest: Box<[[AtomicU32; 2]]>,
    pub(super) live: LiveBits,
}

impl Floor {
    /// So many slots, all free and of generation 0.
    pub(super) fn new(slots: u32) -> Self {
        let slots = slots as usize;
        Self {
            words: zeroes(slots),
            marks: zeroes(slots),
            sessions: zeroes(slots),
            ends_at: zeroes(slots),
            active_at: zeroes(slots),
            earliest: zeroes(slots.div_ceil(GROUP)),
            live: LiveBits::new(slots),
        }
    }

    /// How many groups of slots there are.
    pub(super) fn groups(&self) -> usize {
        self.earliest.len()
    }

    /// How many slots there can be.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Self {
            words,
            marks,
            sessions,
            ends_at,
            active_at,
            earliest,
            live,
        } = self;
        size_of_val(&**words)
            + size_of_val(&**marks)
            + size_of_val(&**sessions)
            + size_of_val(&**ends_at)
            + size_of_val(&**active_at)
            + size_of_val(&**earliest)
            + live.bytes()
    }

    #[inline]
    fn load(&self, slot: u32) -> u32 {
        self.words
            .get(slot as usize)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// What is to be said of a seat. One load.
    #[inline]
    pub(super) fn verdict(&self, handle: Handle) -> Verdict {
        word::verdict(self.load(handle.slot()), handle.tag())
    }

    /// Whether a seat is live. One load, and nothing to be predicted.
    #[inline]
    pub(super) fn is_live(&self, handle: Handle) -> bool {
        self.load(handle.slot()) == handle.tag()
    }

    /// Tells `answer` of these seats, 64 at a time and what is left at last, which are live: a bit each, the first the lowest.
    ///
    /// Nearly always all 64 are. That is the same as that no word differs from its handle, which costs two thirds of what it costs to put
    /// 64 bits in their places; and nothing in it depends on the one before. (Measured: 0.7 ns a handle instead of 1.2; with one in
    /// a thousand refused 1.0, with one in ten 2.3.)
    #[inline]
    pub(super) fn live_among(&self, handles: &[Handle], mut answer: impl FnMut(&[Handle], u64)) {
        // By reference to the slice, so that it is not looked up again for each.
        let words = &*self.words;
        let differs = |handle: &Handle| {
            let word = words.get(handle.slot() as usize);
            word.map_or(0, |word| word.load(Ordering::Relaxed)) ^ handle.tag()
        };
        let bits = |handles: &[Handle]| {
            let each = handles.iter().enumerate();
            each.fold(0, |bits, (i, handle)| {
                bits | u64::from(differs(handle) == 0) << i
            })
        };
        let (full, rest) = handles.as_chunks::<64>();
        for handles in full {
            let are_live = handles.iter().fold(0, |any, handle| any | differs(handle)) == 0;
            answer(handles, if are_live { u64::MAX } else { bits(handles) });
        }
        if !rest.is_empty() {
            answer(rest, bits(rest));
        }
        // What follows is after all the answers, as after so many of `verdict`.
        fence(Ordering::Acquire);
    }

    /// Marks a seat as active, if it is live. Two loads, and a store for the first touch after a write-out.
    #[inline]
    pub(super) fn touch(&self, handle: Handle) {
        if self.is_live(handle) {
            self.mark(handle.slot());
        }
    }

    /// Marks what is in a slot as active.
    #[inline]
    pub(super) fn mark(&self, slot: u32) {
        if let Some(mark) = self.marks.get(slot as usize)
            && mark.load(Ordering::Relaxed) == 0
        {
            mark.store(1, Ordering::Release);
        }
    }
}

/// For whoever holds the books.
impl Floor {
    /// The generation of a slot's seat, or of the last one.
    pub(super) fn generation(&self, slot: u32) -> u32 {
        word::generation(self.load(slot))
    }

    /// Whether a slot has no generation left for another seat.
    pub(super) fn is_worn_out(&self, slot: u32) -> bool {
        self.generation(slot) >= word::LAST_GENERATION
    }

    /// Leaves a slot without a seat one generation.
    #[cfg(test)]
    pub(super) fn wear_out(&self, slot: u32) {
        self.set(slot, word::ended(word::LAST_GENERATION - 1));
    }

    /// The handle of a slot's seat.
    pub(super) fn handle(&self, slot: u32) -> Option<Handle> {
        let word = self.load(slot);
        word::is_seat(word).then(|| Handle::new(slot, word::generation(word)))
    }

    /// The JTI of a slot's seat, or of the last one.
    pub(super) fn session(&self, slot: u32) -> Option<SessionId> {
        self.sessions.get(slot as usize).map(join)
    }

    /// Makes slots known that were never used: without a seat no time is ever due.
    pub(super) fn furnish(&self, slots: Range<u32>) {
        slots.for_each(|slot| self.clear_times(slot));
    }

    /// Seats a session in a free slot, as active at `active_at`; `None` if the slot has no generation left, or there is no such slot.
    pub(super) fn open(
        &self,
        slot: u32,
        session: SessionId,
        ends_at: u32,
        active_at: u32,
    ) -> Option<Handle> {
        let index = slot as usize;
        let generation = self.generation(slot) + u32::from(!is_planted(Fault::SameGeneration));
        if generation > word::LAST_GENERATION {
            return None;
        }
        let [high, low] = self.sessions.get(index)?;
        high.store((session.0 >> 64) as u64, Ordering::Relaxed);
        low.store(session.0 as u64, Ordering::Relaxed);
        self.ends_at.get(index)?.store(ends_at, Ordering::Relaxed);
        self.active_at
            .get(index)?
            .store(active_at, Ordering::Relaxed);
        if let Some([end, active]) = self.earliest.get(index / GROUP) {
            // After the times themselves: see `look`.
            end.fetch_min(ends_at, Ordering::AcqRel);
            active.fetch_min(active_at, Ordering::AcqRel);
        }
        self.set(slot, word::live(generation));
        self.live.opened(slot);
        // After the word, and whatever is there: a pass that takes it off finds the seat.
        self.marks.get(index)?.store(1, Ordering::Release);
        Some(Handle::new(slot, generation))
    }

    /// Suspends a live seat. Says whether it was marked; the mark stays, to be written out.
    pub(super) fn suspend(&self, handle: Handle) -> bool {
        self.set(handle.slot(), word::suspended(handle.generation()));
        self.live.clear(handle.slot());
        self.is_marked(handle.slot())
    }

    /// Makes a suspended seat live again, and marks it.
    pub(super) fn resume(&self, handle: Handle) {
        self.set(handle.slot(), word::live(handle.generation()));
        if let Some(mark) = self.marks.get(handle.slot() as usize) {
            mark.store(1, Ordering::Release);
        }
    }

    /// Ends a seat, live or suspended.
    pub(super) fn end(&self, handle: Handle) {
        self.set(handle.slot(), word::ended(handle.generation()));
        self.live.clear(handle.slot());
        self.clear_times(handle.slot());
    }

    /// Moves the last activity known on, never back.
    pub(super) fn was_active(&self, slot: u32, at: u32) {
        if let Some(active_at) = self.active_at.get(slot as usize) {
            active_at.fetch_max(at, Ordering::Relaxed);
        }
    }

    fn set(&self, slot: u32, to: u32) {
        if let Some(word) = self.words.get(slot as usize) {
            word.store(to, fault::publishing());
        }
    }

    fn clear_times(&self, slot: u32) {
        for times in [&self.ends_at, &self.active_at] {
            if let Some(time) = times.get(slot as usize) {
                time.store(NEVER, Ordering::Relaxed);
            }
        }
    }
}

/// For the pass.
impl Floor {
    /// Writes out the marked seats among some slots: adds their sessions to `active`, takes their marks off and notes `now` as their
    /// last activity. A suspended seat is written out for what it did before, and is not active now.
    pub(super) fn write_out(&self, slots: Range<usize>, now: u32, active: &mut Vec<SessionId>) {
        let mut rest = slots;
        while !rest.is_empty() {
            let end = rest.end.min((rest.start / GROUP + 1) * GROUP);
            self.write_out_group(rest.start..end, now, active);
            rest.start = end;
        }
    }

    /// The same for slots of one group.
    ///
    /// Nearly always all of them are live and marked. That is told by 64 bits and 64 marks, without a look at their words, and nothing that
    /// follows depends on what is found: so that the processor is always some cache lines ahead. (Measured on a million seats, paced,
    /// against a look at each: the p50 as before, the p99 of a tick 0.55 of it.) A seat whose bit is set was told, and was live when the bit
    /// was loaded: its end or suspension overlaps this, as it does one that comes just after its word was.
    fn write_out_group(&self, slots: Range<usize>, now: u32, active: &mut Vec<SessionId>) {
        let (Some(marks), Some(words), Some(sessions), Some(active_at)) = (
            self.marks.get(slots.clone()),
            self.words.get(slots.clone()),
            self.sessions.get(slots.clone()),
            self.active_at.get(slots.clone()),
        ) else {
            return;
        };
        active.reserve(marks.len());
        marks
            .iter()
            .zip(words)
            .for_each(|(mark, word)| fault::meddle(mark, word));
        let are_marked = marks
            .iter()
            .fold(1, |all, mark| all & mark.load(Ordering::Acquire));
        if are_marked == 1 && self.live.are_set(slots) {
            active.extend(sessions.iter().map(join));
            marks
                .iter()
                .for_each(|mark| mark.store(0, Ordering::Relaxed));
            active_at.iter().for_each(|at| move_on(at, now));
            return;
        }
        for (((mark, word), session), active_at) in
            marks.iter().zip(words).zip(sessions).zip(active_at)
        {
            if mark.load(Ordering::Acquire) == 0 {
                continue;
            }
            let word = word.load(Ordering::Acquire);
            if !word::is_seat(word) && !is_planted(Fault::NoSeatCheck) {
                continue;
            }
            mark.store(0, Ordering::Relaxed);
            active.push(join(session));
            if word::is_live(word) {
                move_on(active_at, now);
            }
        }
    }

    /// Which slots of a group have a time that is due, a bit each: seldom any. Says nothing of marks, nor of who is there.
    ///
    /// Almost always it is told by the group's earliest times, without a look at its slots. Those are kept as bounds: whoever joins
    /// lowers them, nothing else ever makes a time earlier, and here they are found anew when one has come. A seat that joins meanwhile is
    /// not lost: either its exchange comes before this one, and then its times are found, or after, and then it lowers what this leaves.
    pub(super) fn look(&self, group: usize, due: Due) -> u64 {
        let Some([end, active]) = self.earliest.get(group) else {
            return 0;
        };
        if !due.is_expired(end.load(Ordering::Relaxed))
            && !due.is_idle(active.load(Ordering::Relaxed))
        {
            return 0;
        }
        end.swap(NEVER, Ordering::AcqRel);
        active.swap(NEVER, Ordering::AcqRel);
        let slots = group * GROUP..self.len().min((group + 1) * GROUP);
        let (Some(ends_at), Some(active_at)) =
            (self.ends_at.get(slots.clone()), self.active_at.get(slots))
        else {
            return 0;
        };
        let (mut found, mut first_end, mut first_active) = (0, NEVER, NEVER);
        for (i, (ends_at, active_at)) in ends_at.iter().zip(active_at).enumerate() {
            let ends_at = ends_at.load(Ordering::Relaxed);
            let active_at = active_at.load(Ordering::Relaxed);
            found |= u64::from(due.is_expired(ends_at) | due.is_idle(active_at)) << i;
            first_end = first_end.min(ends_at);
            first_active = first_active.min(active_at);
        }
        fault::forget(end, active);
        end.fetch_min(first_end, Ordering::AcqRel);
        active.fetch_min(first_active, Ordering::AcqRel);
        found
    }

    /// Why the seat in a slot is to end, if it is. Only whoever holds the books may take this as said: another may just be seated there.
    pub(super) fn overdue(&self, slot: u32, due: Due) -> Option<Overdue> {
        let index = slot as usize;
        let word = self.load(slot);
        if !word::is_seat(word) {
            return None;
        }
        let ends_at = self.ends_at.get(index)?.load(Ordering::Relaxed);
        let active_at = self.active_at.get(index)?.load(Ordering::Relaxed);
        if due.is_expired(ends_at) {
            Some(Overdue::Expired)
        } else if due.is_idle(active_at)
            && (word::is_suspended(word)
                || !self.is_marked(slot)
                || is_planted(Fault::OverlooksMarks))
        {
            // A live seat that is marked is active, and about to be written out. A suspended one's mark is counted in already.
            Some(Overdue::Idle)
        } else {
            None
        }
    }

    fn is_marked(&self, slot: u32) -> bool {
        self.marks
            .get(slot as usize)
            .is_some_and(|mark| mark.load(Ordering::Acquire) != 0)
    }
}

/// Why a seat is to end by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Expired,
    Idle,
}

/// Moves a time on, never back.
#[inline]
fn move_on(at: &AtomicU32, now: u32) {
    if at.load(Ordering::Relaxed) < now {
        at.store(now, Ordering::Relaxed);
    }
}

#[inline]
fn join([high, low]: &[AtomicU64; 2]) -> SessionId {
    let half = |half: &AtomicU64| u128::from(half.load(Ordering::Relaxed));
    SessionId(half(high) << 64 | half(low))
}
