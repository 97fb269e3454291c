//! Whether the server is one to trust sessions to: looked at on every connection, since a server may be configured anew, or be
//! another one by now.

use redis::{ErrorKind, RedisError, ServerErrorKind, aio::MultiplexedConnection, cmd};
use thiserror::Error;

/// The oldest version whose commands and scripts behave as the scripts here expect (effects replicated, MINID, BYLEX).
const OLDEST: (u32, u32) = (7, 0);

/// Why a server cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RedisOpenError {
    /// Nobody answers there.
    #[error(
        "cannot reach Redis at {server} ({detail}): make sure that it runs and that [sidecar.redis] url names it"
    )]
    Unreachable {
        /// Its URL, without a password.
        server: String,
        /// What the connection says.
        detail: String,
    },
    /// It does not let us in.
    #[error(
        "Redis at {server} refuses the log-in ({detail}): check the user in [sidecar.redis] url and the password that [sidecar.redis] password names"
    )]
    LogIn {
        /// Its URL.
        server: String,
        /// What it says.
        detail: String,
    },
    /// It is not set up to keep sessions.
    #[error("Redis at {server} cannot be used: {finding}")]
    Unfit {
        /// Its URL.
        server: String,
        /// What is wrong with it, and what to do.
        finding: Unfit,
    },
    /// A version of the program that this one does not understand has written the data.
    #[error(
        "the data in Redis at {server} has layout {found}, and this program understands layout {supported}: run the version that wrote it, or give this one a prefix of its own"
    )]
    Layout {
        /// Its URL.
        server: String,
        /// The layout that is there.
        found: String,
        /// The layout that this program writes.
        supported: u32,
    },
    /// The system gave no random numbers.
    #[error("no random numbers from the system")]
    Randomness,
}

impl RedisOpenError {
    /// The error's fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "redis_unreachable",
            Self::LogIn { .. } => "redis_log_in",
            Self::Unfit { finding, .. } => finding.label(),
            Self::Layout { .. } => "redis_layout",
            Self::Randomness => "store_randomness",
        }
    }

    /// What a failed command says of the server.
    pub(super) fn of(server: &str, error: &RedisError) -> Self {
        let (server, detail) = (server.to_owned(), error.to_string());
        let code = error.code().unwrap_or_default();
        if error.kind() == ErrorKind::AuthenticationFailed || matches!(code, "NOAUTH" | "WRONGPASS")
        {
            return Self::LogIn { server, detail };
        }
        if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
            let finding = Unfit::Forbidden(error.detail().unwrap_or_default().to_owned());
            return Self::Unfit { server, finding };
        }
        Self::Unreachable { server, detail }
    }
}

/// What makes a server unfit: what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Too old.
    #[error("its version is {0}: run Redis 7.0 or newer, or Valkey")]
    Version(String),
    /// It runs in cluster mode.
    #[error(
        "it is a cluster: run one primary (cluster-enabled no), since every step here is one script on one server"
    )]
    Cluster,
    /// It is a replica, or something else that takes no writes.
    #[error("it is a {0} and not a primary: name the primary")]
    NotPrimary(String),
    /// It keeps nothing on disk, or snapshots only.
    #[error("it has appendonly {0}: set `appendonly yes`, or a restart forgets who was revoked")]
    AppendOnly(String),
    /// It answers before what it has written is on disk.
    #[error(
        "it has appendfsync {0}: set `appendfsync always`, or it loses what it has acknowledged"
    )]
    AppendFsync(String),
    /// It throws keys away when it is full.
    #[error(
        "it has maxmemory-policy {0}: set `maxmemory-policy noeviction`, or it forgets sessions and revocations when it is full"
    )]
    Eviction(String),
    /// Our user may not do what is needed.
    #[error(
        "its user is not allowed everything ({0}): allow it the keys of the prefix, the commands of scripts, streams and data, INFO and CONFIG GET"
    )]
    Forbidden(String),
    /// It says nothing of what has to be known.
    #[error("it does not tell its {0}: ask its provider for INFO and CONFIG GET")]
    Silent(&'static str),
}

impl Unfit {
    /// Its fixed name in logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Version(_) => "redis_version",
            Self::Cluster => "redis_cluster",
            Self::NotPrimary(_) => "redis_not_primary",
            Self::AppendOnly(_) => "redis_appendonly",
            Self::AppendFsync(_) => "redis_appendfsync",
            Self::Eviction(_) => "redis_eviction",
            Self::Forbidden(_) => "redis_forbidden",
            Self::Silent(_) => "redis_silent",
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    info: String,
    appendonly: Option<String>,
    appendfsync: Option<String>,
    eviction: Option<String>,
}

/// Looks at the server; its run id, another one after every start.
pub(super) async fn examine(
    server: &str,
    connection: &mut MultiplexedConnection,
) -> Result<String, RedisOpenError> {
    let facts = ask(connection)
        .await
        .map_err(|error| RedisOpenError::of(server, &error))?;
    judge(&facts).map_err(|finding| RedisOpenError::Unfit {
        server: server.to_owned(),
        finding,
    })
}

async fn ask(connection: &mut MultiplexedConnection) -> Result<Facts, RedisError> {
    let mut facts = Facts {
        info: cmd("INFO").query_async(connection).await?,
        ..Facts::default()
    };
    for (name, value) in [
        ("appendonly", &mut facts.appendonly),
        ("appendfsync", &mut facts.appendfsync),
        ("maxmemory-policy", &mut facts.eviction),
    ] {
        let mut get = cmd("CONFIG");
        let pair: Vec<String> = get.arg("GET").arg(name).query_async(connection).await?;
        *value = pair.into_iter().nth(1);
    }
    Ok(facts)
}

fn judge(facts: &Facts) -> Result<String, Unfit> {
    let told = |name: &'static str| field(&facts.info, name).ok_or(Unfit::Silent(name));
    let version = told("redis_version")?;
    if parse_version(version).is_none_or(|version| version < OLDEST) {
        return Err(Unfit::Version(version.to_owned()));
    }
    if told("redis_mode")? == "cluster" {
        return Err(Unfit::Cluster);
    }
    let role = told("role")?;
    if role != "master" {
        let role = if role == "slave" { "replica" } else { role };
        return Err(Unfit::NotPrimary(role.to_owned()));
    }
    let configured = |value: &Option<String>, name| value.clone().ok_or(Unfit::Silent(name));
    let appendonly = configured(&facts.appendonly, "appendonly")?;
    if appendonly != "yes" {
        return Err(Unfit::AppendOnly(appendonly));
    }
    let appendfsync = configured(&facts.appendfsync, "appendfsync")?;
    if appendfsync != "always" {
        return Err(Unfit::AppendFsync(appendfsync));
    }
    let eviction = configured(&facts.eviction, "maxmemory-policy")?;
    if eviction != "noeviction" {
        return Err(Unfit::Eviction(eviction));
    }
    told("run_id").map(str::to_owned)
}

/// A field of INFO: lines of `name:value`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit() -> Facts {
        let some = |text: &str| Some(text.to_owned());
        Facts {
            info: "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\nrole:master\r\n"
                .to_owned(),
            appendonly: some("yes"),
            appendfsync: some("always"),
            eviction: some("noeviction"),
        }
    }

    #[test]
    fn a_server_is_fit_only_if_all_of_it_is() {
        assert_eq!(judge(&fit()), Ok("abc".to_owned()));
        let with_info = |from: &str, to: &str| Facts {
            info: fit().info.replace(from, to),
            ..fit()
        };
        let some = |text: &str| Some(text.to_owned());
        for (facts, label) in [
            (with_info("7.0.15", "6.2.14"), "redis_version"),
            (with_info("7.0.15", "unknown"), "redis_version"),
            (with_info("standalone", "cluster"), "redis_cluster"),
            (with_info("role:master", "role:slave"), "redis_not_primary"),
            (with_info("run_id", "walk_id"), "redis_silent"),
            (
                Facts {
                    appendonly: some("no"),
                    ..fit()
                },
                "redis_appendonly",
            ),
            (
                Facts {
                    appendfsync: some("everysec"),
                    ..fit()
                },
                "redis_appendfsync",
            ),
            (
                Facts {
                    eviction: some("allkeys-lru"),
                    ..fit()
                },
                "redis_eviction",
            ),
            (
                Facts {
                    eviction: None,
                    ..fit()
                },
                "redis_silent",
            ),
        ] {
            assert_eq!(judge(&facts).unwrap_err().label(), label);
        }
        assert!(judge(&with_info("7.0.15", "8.1.0")).is_ok());
    }
}
