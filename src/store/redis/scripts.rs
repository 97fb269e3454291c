//! The scripts: each is one atomic step on the server.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};

use crate::clock::Timestamp;

/// The scripts by name; each begins with prelude.lua.
macro_rules! scripts {
    ($($name:ident)*) => {
        /// All scripts.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)*
        }

        /// All scripts, ready to be called.
        pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
            $($name: Script::new(concat!(
                include_str!("lua/prelude.lua"),
                include_str!(concat!("lua/", stringify!($name), ".lua")),
            )),)*
        });

        impl Scripts {
            pub(super) fn all(&self) -> impl Iterator<Item = &Script> {
                [$(&self.$name,)*].into_iter()
            }
        }
    };
}

scripts! {
    account
    adopt
    attach_gateway
    attempt
    dead
    elsewhere
    forget_attempts
    gateways
    grant
    granted
    guess
    identities
    issue
    known_place
    link
    log
    note_activity
    publish_gateway
    purge
    purge_logins
    put_code
    refresh
    remember_place
    revoke_player
    revoke_session
    session
    sessions
    set_password
    set_role
    spend
    start_session
    unlink
    withdraw_gateway
}

/// Whose clock says how late it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    /// The server's, for all who use it.
    Servers,
    /// The callers', who all have the same: what tests that move time by hand need.
    #[cfg(test)]
    Callers,
}

/// Calls scripts under a prefix.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) prefix: String,
    pub(super) time: Time,
}

impl Caller {
    /// A call of `script` at the time `at`, to be given its further arguments.
    pub(super) fn call(&self, script: &'static Script, at: Timestamp) -> ScriptInvocation<'static> {
        let mut invocation = script.prepare_invoke();
        invocation.arg(&self.prefix);
        match self.time {
            Time::Servers => {
                let _ = at;
                invocation.arg("")
            }
            #[cfg(test)]
            Time::Callers => invocation.arg(at.0),
        };
        invocation
    }
}
