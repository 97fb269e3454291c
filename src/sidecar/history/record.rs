//! What was asked of a sidecar and what it answered, in order: the history that the checker reads. It knows nothing of the program, so that
//! a simulation and real processes can both write one.

/// A time in milliseconds, on the sidecar's clock.
pub(crate) type Millis = u64;

/// A player asks the sidecar, or an operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    LogIn {
        account: u32,
    },
    /// With the token of this generation.
    Refresh {
        session: u128,
        generation: u32,
    },
    /// Whether the session may be used.
    Look {
        session: u128,
    },
    Revoke {
        session: u128,
    },
    RevokePlayer {
        player: u128,
    },
    /// The whole log.
    ReadLog,
}

/// What it answered. What a caller cannot see is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    LoggedIn {
        session: u128,
        player: u128,
        player_generation: Option<u64>,
        ends_at: Millis,
    },
    /// The successor, and what its tokens claim.
    Renewed {
        generation: u32,
        claims: (Millis, String),
    },
    Live {
        generation: Option<u32>,
        player_generation: Option<u64>,
        head: Option<u64>,
    },
    Over(Why),
    /// It is over now, by this event; or was before.
    Revoked {
        revision: Option<u64>,
    },
    PlayerRevoked {
        generation: Option<u64>,
        revision: u64,
    },
    Log {
        tail: u64,
        events: Vec<Logged>,
    },
    /// There is no saying whether it was done.
    Failed,
    /// It was refused, and has changed nothing.
    Refused,
}

/// Why a session may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// This very call has ended it, because its token had been used before.
    Reused,
    Revoked,
    Expired,
    Idle,
    Unknown,
    /// The caller is not told.
    Untold,
}

/// An event of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logged {
    Session(u128),
    /// With its new generation.
    Player(u128, Option<u64>),
}

/// When a sidecar may have dealt with a call: between these times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Millis,
    pub(crate) to: Millis,
}

/// A call with what came of it. Of two calls the one was over before the other began if it was answered at a smaller `order`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    pub(crate) began: u64,
    /// Each time that it reached the sidecar: a message may arrive twice, or never.
    pub(crate) presented: Vec<Span>,
    /// The first answer that arrived, and the order of its arrival.
    pub(crate) answer: Option<(u64, Answer)>,
}

/// A player was active, as a gateway has reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) session: u128,
    pub(crate) at: Millis,
    /// Whether the store has answered another change since, and had not crashed: then this one is on the disk too, but for a granule.
    pub(crate) is_settled: bool,
}

/// A history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) calls: Vec<Call>,
    pub(crate) activity: Vec<Activity>,
    order: u64,
}

impl History {
    /// A call begins; returns its number.
    pub(crate) fn begin(&mut self, ask: Ask) -> usize {
        self.order += 1;
        self.calls.push(Call {
            ask,
            began: self.order,
            presented: Vec::new(),
            answer: None,
        });
        self.calls.len() - 1
    }

    /// The call is, or may be, before the sidecar in this time.
    pub(crate) fn present(&mut self, call: usize, span: Span) {
        self.calls[call].presented.push(span);
    }

    /// The caller has the answer. Whether it is the first.
    pub(crate) fn answered(&mut self, call: usize, answer: Answer) -> bool {
        self.order += 1;
        let call = &mut self.calls[call];
        let is_first = call.answer.is_none();
        if is_first {
            call.answer = Some((self.order, answer));
        }
        is_first
    }
}
