//! A disk that forgets what was not synced: the medium beneath the embedded store in tests that let it crash.
//!
//! It keeps what is synced, and the writes since. At any call that changes something it can fail, and from then on every call does. What
//! is left after that is asked for once: after a *kill* everything that was written, since the operating system has it; after a *power
//! loss* what was synced and, of the writes since, whatever the seed lets survive: none, all, the first ones, any, or any of their
//! sectors, for a disk may write in any order and be stopped in the middle.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use futures_util::future::{BoxFuture, join_all};
use rand::{Rng, seq::IndexedRandom};
use redb::StorageBackend;

use crate::store::{OpenError, StoreLives};

use super::EmbeddedStore;

/// The disk. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    synced: Vec<u8>,
    /// What was synced with all changes since.
    seen: Vec<u8>,
    unsynced: Vec<Change>,
    /// Changes and syncs so far.
    calls: u64,
    /// The call that fails, with all after it.
    fails_at: Option<u64>,
    has_failed: bool,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("bytes", &self.seen.len())
            .field("unsynced", &self.unsynced.len())
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn empty() -> Self {
        Self::holding(Vec::new())
    }

    fn holding(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State {
            synced: image.clone(),
            seen: image,
            unsynced: Vec::new(),
            calls: 0,
            fails_at: None,
            has_failed: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes and syncs so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The change or sync after the next `calls` fails, and everything after it.
    pub(crate) fn fail_after(&self, calls: u64) {
        let mut state = self.state();
        state.fails_at = Some(state.calls + calls);
    }

    /// Nothing fails that has not failed yet.
    pub(crate) fn spare(&self) {
        self.state().fails_at = None;
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.state().has_failed
    }

    /// A number that tells what it holds.
    pub(crate) fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.state().seen);
        hasher.finish()
    }

    /// The disk as a process finds it that starts after another one was killed. The killed one reaches it no more.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.state();
        state.fails_at = Some(0);
        Self::holding(state.seen.clone())
    }

    /// The disk as it is after the power failed. Whoever had it open reaches it no more.
    pub(crate) fn after_power_loss(&self, rng: &mut impl Rng) -> Self {
        let mut state = self.state();
        state.fails_at = Some(0);
        let mut image = state.synced.clone();
        let fate = *Fate::ALL.choose(rng).unwrap();
        let kept = rng.random_range(0..=state.unsynced.len());
        let sector = *[16, 512, 4_096].choose(rng).unwrap();
        for (index, change) in state.unsynced.iter().enumerate() {
            match fate {
                Fate::Nothing => {}
                Fate::Everything => change.apply(&mut image, usize::MAX, || true),
                Fate::TheFirst if index < kept => change.apply(&mut image, usize::MAX, || true),
                Fate::TheFirst if index == kept => {
                    change.apply(&mut image, sector, || rng.random())
                }
                Fate::TheFirst => {}
                Fate::AnyWrites => change.apply(&mut image, usize::MAX, || rng.random()),
                Fate::AnySectors => change.apply(&mut image, sector, || rng.random()),
            }
        }
        Self::holding(image)
    }
}

/// What becomes of the changes since the last sync.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    /// And of the next one some sectors.
    TheFirst,
    AnyWrites,
    AnySectors,
}

impl Fate {
    const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Everything,
        Self::TheFirst,
        Self::AnyWrites,
        Self::AnySectors,
    ];
}

impl Change {
    /// Makes the change in those of its pieces that survive. A file is as long as what is written in it.
    fn apply(&self, image: &mut Vec<u8>, piece: usize, mut survives: impl FnMut() -> bool) {
        match self {
            Self::Length(length) if survives() => image.resize(*length, 0),
            Self::Length(_) => {}
            Self::Write { offset, bytes } => {
                for (index, bytes) in bytes.chunks(piece.min(bytes.len().max(1))).enumerate() {
                    if survives() {
                        let from = offset + index * piece.min(self.len());
                        let to = from + bytes.len();
                        if image.len() < to {
                            image.resize(to, 0);
                        }
                        image[from..to].copy_from_slice(bytes);
                    }
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Write { bytes, .. } => bytes.len(),
            Self::Length(_) => 0,
        }
    }
}

impl State {
    /// Counts a call; whether it may be carried out.
    fn call(&mut self) -> io::Result<()> {
        let this = self.calls;
        self.calls += 1;
        if self.fails_at.is_some_and(|at| this >= at) {
            self.has_failed = true;
            return Err(io::Error::other("the test's disk has failed"));
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let was_dead = self.has_failed;
        let outcome = self.call();
        // The one that fails may have got somewhere; what comes later never reaches the disk.
        if !was_dead {
            change.apply(&mut self.seen, usize::MAX, || true);
            self.unsynced.push(change);
        }
        outcome
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = offset
            .checked_add(out.len())
            .and_then(|end| state.seen.get(offset..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.state().change(Change::Length(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.call()?;
        for change in state.unsynced.drain(..) {
            change.apply(&mut state.synced, usize::MAX, || true);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = data.to_vec();
        self.state().change(Change::Write { offset, bytes })
    }
}

impl EmbeddedStore {
    /// Opens the store on a disk of the test's, or makes it.
    pub(crate) fn on_disk(disk: &Disk, lives: StoreLives) -> Result<Self, OpenError> {
        Self::over(|| Ok(disk.clone()), "the test's disk".as_ref(), lives)
    }

    /// What came of `asks`, which are put one after the other behind `first`, while the writer is held up: so they make one batch, and the
    /// same one each time. When this returns the writer has nothing left to do.
    pub(crate) async fn at_once<T>(
        &self,
        first: impl FnOnce(),
        asks: Vec<BoxFuture<'_, T>>,
    ) -> Vec<T> {
        let (entered, has_entered) = mpsc::sync_channel::<()>(1);
        let (open, opened) = mpsc::sync_channel::<()>(1);
        let gate = self.change(move |_| {
            // Errors are that nobody waits any more: a change may be tried again.
            let _ = entered.try_send(());
            let _ = opened.recv();
            Ok(())
        });
        let held_up = async {
            let _ = has_entered.recv();
            first();
        };
        // Behind what `first` has put into the queue.
        let last = self.change(|_| Ok(()));
        // They are polled in this order.
        let (_, (), answers, _, ()) =
            futures_util::join!(gate, held_up, join_all(asks), last, async { drop(open) });
        answers
    }
}
