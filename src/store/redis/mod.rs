//! The Redis store: many sidecars on one primary, Redis or Valkey. docs/ARCHITECTURE.md tells its design.
//!
//! ```text
//! Store ──► script (one atomic step on the server's own clock) ──► Link ──► connection ──► Redis: appended, fsynced, answered
//!                                                                   ▲                        │ XREAD BLOCK
//!           watch_head, newest events ◄── Known ◄────────────── keeper ◄── second connection ◄┘
//! ```
//!
//! **Keys**, all under the prefix: `log:state` (layout, lineage, head, tail, the server's run id), `log` (a stream; revision *n* is entry
//! *n*-0), `session:ID`, `player:ID`, `account:PROVIDER:SUBJECT`, `accounts-of:PLAYER` (the first one first), `sessions` and
//! `sessions-of:PLAYER` (by id), `ends` (by absolute end), `processes-of:GATEWAY` (the newest last), `gateway:ID` and `leases`. So that a
//! question about a million sessions takes one look for each: `revoked`, `granted-to:GATEWAY` and `travelled` (granted to several). Of the
//! ways to log in: `one-time:HASH`, `code:HASH` and `attempts:HASH` (keyed hashes of 32 bytes as they are), and `expiring`, by their ends.
//!
//! **A lost answer.** A call whose answer does not arrive fails as [`StoreError::Unanswered`]: it may have happened. Nothing is sent
//! twice by itself, but each call may be made again by whoever wants to know:
//!
//! | call | made again |
//! |---|---|
//! | refresh | within the grace the same successor; later it is reuse, as ever |
//! | revoke_session | says that it was revoked already, by which event |
//! | revoke_player | ends what was made in between, too |
//! | start_session | makes another session; the first is nobody's, and idles out |
//! | issue | a collision, upon which another is drawn; the first is in nobody's hands, and expires |
//! | spend, guess | says that it is used up: whoever presented it begins anew |
//! | attempt | counts another one |
//! | link | says that it is so already |
//! | set_password | ends what was made in between, too |
//! | grant, attach_gateway, publish_gateway, purge, note_activity, put_code, forget_attempts, set_role, purge_logins | the same again |

mod examine;
mod gateways;
mod keeper;
mod known;
mod link;
mod logins;
mod reply;
mod scripts;
mod settings;
mod store;
#[cfg(test)]
pub(super) mod tests;
mod writer;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redis::{Script, ScriptInvocation, Value};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    known::Known,
    link::Link,
    reply::{DAMAGED, Reply},
    scripts::{Caller, Time},
};
use super::{OpenError, StoreError, StoreLives, activity::Activity, draw};
use crate::{
    clock::{Clock, Timestamp},
    control::LogState,
};

pub use examine::{RedisOpenError, Unfit};
pub use settings::{DEFAULT_PREFIX, InvalidRedisUrl, RedisSettings, RedisUrl};

/// A store on a Redis or Valkey server that many sidecars share.
///
/// Whatever rests on the time between two calls goes by the server's clock, and the clock that the store is opened with follows it. A
/// connection that breaks is made anew, with everything looked at as at the start; until then calls fail within seconds, as
/// [`StoreError::Unavailable`] if they have not been sent.
pub struct RedisStore {
    shared: Arc<Shared>,
    /// None once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Vec<writer::Moment>>>>,
    keeper: TaskTracker,
    writer: TaskTracker,
    /// Names this sidecar to the others.
    own: String,
}

/// What calls and the tasks behind them share.
struct Shared {
    link: Link,
    caller: Caller,
    known: Known,
    activity: Mutex<Activity>,
    /// The URL, for people.
    server: String,
    /// Follows the server's clock; none if the callers' time counts.
    clock: Option<Clock>,
    lives: StoreLives,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisStore {
    /// Connects to the server, and makes the data set there if there is none. Needs to be called within a tokio runtime.
    ///
    /// `clock`, which the caller reads `at` from, is put on the server's time and kept there.
    ///
    /// # Errors
    /// What is wrong with the server, and what to do about it.
    pub async fn open(
        settings: &RedisSettings,
        lives: StoreLives,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        Self::open_with(settings, lives, Some(clock), Time::Servers).await
    }

    /// A store by the callers' time, for tests that move it by hand.
    #[cfg(test)]
    pub(crate) async fn open_by_callers_time(
        settings: &RedisSettings,
        lives: StoreLives,
    ) -> Result<Self, OpenError> {
        Self::open_with(settings, lives, None, Time::Callers).await
    }

    async fn open_with(
        settings: &RedisSettings,
        lives: StoreLives,
        clock: Option<Clock>,
        time: Time,
    ) -> Result<Self, OpenError> {
        let server = settings.url().to_string();
        let client = settings
            .client()
            .map_err(|error| RedisOpenError::of(&server, &error))?;
        let own = draw::sidecar().map_err(|_| RedisOpenError::Randomness)?;
        let shared = Arc::new(Shared {
            link: Link::new(client),
            caller: Caller {
                prefix: settings.key_prefix().to_owned(),
                time,
            },
            known: Known::nothing(),
            activity: Mutex::new(Activity::new(lives.granule())),
            server,
            clock,
            lives,
        });
        let connected = keeper::connect(&shared).await?;
        let (queue, moments) = mpsc::channel(writer::QUEUE);
        let (keeper, writer) = (TaskTracker::new(), TaskTracker::new());
        let mut live = shared.link.watch();
        keeper.spawn(keeper::keep(Arc::clone(&shared), connected));
        writer.spawn(writer::run(Arc::clone(&shared), moments));
        keeper.close();
        writer.close();
        // The keeper has the connection in hand; calls find it once it is running.
        drop(live.wait_for(Option::is_some).await);
        Ok(Self {
            shared,
            queue: Mutex::new(Some(queue)),
            keeper,
            writer,
            own,
        })
    }

    fn call(&self, script: &'static Script, at: Timestamp) -> ScriptInvocation<'static> {
        self.shared.caller.call(script, at)
    }

    async fn invoke(&self, call: &ScriptInvocation<'_>) -> Result<Reply, StoreError> {
        let answer: Value = self.shared.link.invoke(call).await?;
        Reply::of(answer)
    }

    fn closed(&self) -> &CancellationToken {
        &self.shared.link.closed
    }
}

/// Where the log stands, as log.lua says it.
fn log_state_of(answer: Value) -> Result<LogState, StoreError> {
    let mut answer = Reply::of(answer)?;
    Ok(LogState {
        lineage: answer.parsed().map_err(|_: StoreError| DAMAGED)?,
        tail: answer.revision()?,
        head: answer.revision()?,
    })
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.closed().cancel();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", &self.shared.server)
            .field("lives", &self.shared.lives)
            .finish_non_exhaustive()
    }
}
