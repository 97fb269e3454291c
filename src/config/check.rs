//! The rules about values: what each key allows, and what must hold between keys.

mod gateway;
mod login;

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::{Config, Environment, KeySource, Size, schema};
use crate::{control::MAX_SEATS, sidecar::MIN_REFRESHES_PER_MINUTE, token::MAX_CONNECT_LIFE};

/// A value that breaks a rule.
pub(super) struct Fault {
    /// The key, with its sections.
    pub(super) key: &'static str,
    /// What is wrong with its value.
    pub(super) what: String,
}

const PATH: &str = "a path; a relative one counts from the directory of the configuration";
const LISTEN: &str = "an IP address and a port (0: the system chooses)";
const BOOLEAN: &str = "true or false; true only in development, on loopback addresses";
const KEY_SOURCE: &str = "{ file = \"path\" } or { env = \"NAME\" }, never the key itself";
const PREVIOUS_KEY: &str = "\"\" for none, or { file = \"path\" } or { env = \"NAME\" }";
const OPTIONAL_PATH: &str =
    "\"\" for none, or a path; a relative one counts from the directory of the configuration";
const METRICS: &str = "an IP address and a port (0: the system chooses), or \"\" for nowhere";
const NEXT: &str = "\"\" for none, or a path; certificate and key are given together";

/// Every key and what it allows; `config.toml` says the same in its comments.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("environment", "\"production\" or \"development\""),
    (
        "log.filter",
        "a level (error, warn, info, debug, trace) or target=level, separated by commas",
    ),
    ("log.format", "\"text\" or \"json\""),
    ("session.idle", "1s to 30d, no longer than session.absolute"),
    ("session.absolute", "1s to 365d"),
    (
        "session.token_life",
        "1s to 24h, no longer than session.absolute",
    ),
    ("session.connect_life", "1s to 5m"),
    ("session.longest_connect_life", "session.connect_life to 5m"),
    ("sidecar.auth_listen", LISTEN),
    ("sidecar.control_listen", LISTEN),
    ("sidecar.admin_listen", LISTEN),
    ("sidecar.certificate", PATH),
    ("sidecar.key", PATH),
    ("sidecar.client_ca", PATH),
    ("sidecar.metrics_listen", METRICS),
    ("sidecar.session_key", KEY_SOURCE),
    ("sidecar.previous_session_key", PREVIOUS_KEY),
    ("sidecar.refresh_key", KEY_SOURCE),
    ("sidecar.previous_refresh_key", PREVIOUS_KEY),
    ("sidecar.transport_key", KEY_SOURCE),
    ("sidecar.login_key", KEY_SOURCE),
    ("sidecar.connect_tokens_per_minute", "1 to 6000"),
    ("sidecar.refreshes_per_minute", "20 to 6000"),
    ("sidecar.generate_keys", BOOLEAN),
    (
        "sidecar.store",
        "\"embedded\" (data/store.redb), \"redis\", or the path of the store's file",
    ),
    (
        "sidecar.redis.url",
        "redis://host:port/database, or rediss:// for TLS; a user's name before the host, never a password",
    ),
    ("sidecar.redis.password", PREVIOUS_KEY),
    (
        "sidecar.redis.ca",
        "\"\" for whom the system trusts, or a path",
    ),
    ("sidecar.redis.prefix", "1 to 64 printable ASCII characters"),
    ("sidecar.dev_login", BOOLEAN),
    ("sidecar.plain_text", BOOLEAN),
    (
        "sidecar.login.methods",
        "any of \"otp\", \"device_key\", \"magic_link\" and \"password\"",
    ),
    ("sidecar.login.audience", "1 to 255 bytes of text"),
    ("sidecar.login.magic_link_life", "1s to 15m"),
    ("sidecar.login.fresh_login", "1s to 24h"),
    ("sidecar.login.letters_per_hour", "1 to 1000000"),
    ("sidecar.login.calls_per_hour", "1 to 1000000"),
    ("sidecar.login.changes_per_hour", "1 to 1000000"),
    (
        "sidecar.login.trusted_proxies",
        "up to 64 IP addresses or networks such as \"10.0.0.0/8\"",
    ),
    (
        "sidecar.login.oidc",
        "up to 16 of { name = \"google\", issuer = \"https://…\", client_ids = [\"…\"], ca = \"path\" }, each of another name",
    ),
    (
        "sidecar.mail.smtp",
        "\"\" for none, \"smtps://host:port\" (TLS) or \"smtp://host:port\" (STARTTLS; on loopback plain text)",
    ),
    ("sidecar.mail.smtp_user", "\"\" for none, or a name"),
    ("sidecar.mail.smtp_password", PREVIOUS_KEY),
    ("sidecar.mail.smtp_ca", OPTIONAL_PATH),
    (
        "sidecar.mail.spool",
        "\"\" for none, or a path; only in development, on loopback addresses",
    ),
    ("sidecar.mail.from", "an e-mail address"),
    (
        "sidecar.mail.game",
        "1 to 64 bytes without control characters",
    ),
    (
        "sidecar.mail.link",
        "\"\" for none, or a URL without '#', such as \"https://game.example.com/login\" or \"mygame://login\"",
    ),
    (
        "gateway.id",
        "1 to 63 lower-case letters, digits, '-' and '.'",
    ),
    ("gateway.listen", LISTEN),
    (
        "gateway.advertise",
        "up to 16 IP addresses with ports that clients can reach",
    ),
    ("gateway.server_name", "a DNS name"),
    ("gateway.certificate", PATH),
    ("gateway.key", PATH),
    ("gateway.next_certificate", NEXT),
    ("gateway.next_key", NEXT),
    (
        "gateway.state",
        "\"\" for nowhere, or a path; a relative one counts from the directory of the configuration",
    ),
    ("gateway.metrics_listen", METRICS),
    ("gateway.drain", "0s to 24h"),
    ("gateway.workers", "1 to 255; more than 1 on Linux alone"),
    ("gateway.capacity", "1 to 1048576"),
    ("gateway.max_handshakes", "1 to 65536"),
    (
        "gateway.retry_above",
        "0 to 65536, at most gateway.max_handshakes",
    ),
    ("gateway.handshake_timeout", "500ms to 1m"),
    ("gateway.prefix_rate", "1 to 65536"),
    ("gateway.prefix_burst", "1 to 65536"),
    ("gateway.max_awaiting_hello", "1 to 65536"),
    ("gateway.hello_timeout", "100ms to 1m"),
    ("gateway.idle_timeout", "4s to 10m"),
    ("gateway.socket_buffer", "64KiB to 1GiB"),
    ("gateway.message_backlog", "64KiB to 16MiB"),
    ("gateway.single_use_capacity", "1024 to 16777216"),
    ("gateway.budget.packets", "100 to 1000000"),
    (
        "gateway.budget.datagrams",
        "1 to 1000000, at most gateway.budget.packets",
    ),
    ("gateway.budget.bytes", "16KiB to 64MiB"),
    ("gateway.budget.messages", "1 to 1000000"),
    ("gateway.budget.moves", "1 to 600"),
    ("gateway.budget.burst", "1s to 1m"),
    ("gateway.control.sidecar", "https://host:port"),
    ("gateway.control.ca", PATH),
    ("gateway.control.certificate", PATH),
    ("gateway.control.key", PATH),
    ("gateway.control.admit_while_stale", "5s to 1h"),
    (
        "gateway.control.max_stale",
        "\"never\", or 5s to 30d, no shorter than gateway.control.admit_while_stale",
    ),
    ("seat.activity", "\"input\" or \"verify\""),
    (
        "seat.activity_window",
        "50ms to 1m, at most half of session.idle",
    ),
    ("seat.grace", "0s to 10m"),
    (
        "seat.same_player",
        "\"newest_wins\", \"oldest_wins\" or \"allow\"",
    ),
    ("demo.tick_hz", "1 to 1000"),
];

/// What `key` allows; empty for a key that does not exist.
pub(super) fn allowed(key: &str) -> &'static str {
    KEYS.iter()
        .find(|(name, _)| *name == key)
        .map_or("", |(_, allowed)| allowed)
}

/// Everything that is wrong with `config`.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    // Taken apart to the last section: a new one does not compile until somebody has thought about its rules.
    let Config {
        environment,
        log,
        session,
        sidecar,
        gateway,
        seat,
        demo,
    } = config;
    let mut check = Check(Vec::new());
    check.log(log);
    check.session(session);
    check.sidecar(sidecar);
    check.conveniences(*environment, sidecar);
    check.gateway(gateway);
    check.seat(seat, session);
    check.range("demo.tick_hz", demo.tick_hz, 1..=1_000);
    check.0
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Check(Vec<Fault>);

impl Check {
    fn fault(&mut self, key: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.0.push(Fault { key, what });
    }

    fn must(&mut self, holds: bool, key: &'static str, otherwise: impl Display) {
        if !holds {
            self.fault(key, otherwise.to_string());
        }
    }

    fn range<T: PartialOrd + Display + Copy>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        self.must(
            range.contains(&value),
            key,
            format_args!("{value} is out of range"),
        );
    }

    /// Whether `value` is in the range; a fault if it is not.
    fn duration(
        &mut self,
        key: &'static str,
        value: Duration,
        range: RangeInclusive<Duration>,
    ) -> bool {
        let within = range.contains(&value);
        let value = humantime::format_duration(value);
        self.must(within, key, format_args!("{value} is out of range"));
        within
    }

    fn log(&mut self, log: &schema::Log) {
        let filter = tracing_subscriber::EnvFilter::try_new(&log.filter);
        self.must(
            filter.is_ok(),
            "log.filter",
            format_args!("{:?} is no filter", log.filter),
        );
    }

    fn session(&mut self, session: &schema::Session) {
        let absolute = session.absolute;
        let human = humantime::format_duration(absolute);
        self.duration("session.absolute", absolute, SECOND..=365 * DAY);
        for (key, value, most) in [
            ("session.idle", session.idle, 30 * DAY),
            ("session.token_life", session.token_life, DAY),
        ] {
            if self.duration(key, value, SECOND..=most) && value > absolute {
                let value = humantime::format_duration(value);
                self.fault(
                    key,
                    format!("{value} is longer than session.absolute ({human})"),
                );
            }
        }
        let life = session.connect_life;
        let longest = session.longest_connect_life;
        let bounds = SECOND..=MAX_CONNECT_LIFE;
        let sound = self.duration("session.connect_life", life, bounds.clone());
        let key = "session.longest_connect_life";
        if self.duration(key, longest, bounds) && sound && longest < life {
            let longest = humantime::format_duration(longest);
            let life = humantime::format_duration(life);
            let fault = format!("{longest} is shorter than session.connect_life ({life})");
            self.fault(key, fault);
        }
    }

    fn sidecar(&mut self, sidecar: &schema::Sidecar) {
        let listeners = [
            ("sidecar.auth_listen", Some(sidecar.auth_listen)),
            ("sidecar.control_listen", Some(sidecar.control_listen)),
            ("sidecar.admin_listen", Some(sidecar.admin_listen)),
            ("sidecar.metrics_listen", sidecar.metrics_listen),
        ];
        let mut earlier = Vec::new();
        for (key, address) in listeners {
            let Some(address) = address else { continue };
            let twin = earlier.iter().find(|(_, taken)| *taken == address);
            if let Some((other, _)) = twin.filter(|_| address.port() != 0) {
                self.fault(key, format!("{address} is the address of {other} already"));
            }
            earlier.push((key, address));
        }
        for (key, path) in [
            ("sidecar.certificate", &sidecar.certificate),
            ("sidecar.key", &sidecar.key),
            ("sidecar.client_ca", &sidecar.client_ca),
        ] {
            self.must(!path.as_os_str().is_empty(), key, "empty");
        }
        self.range(
            "sidecar.connect_tokens_per_minute",
            sidecar.connect_tokens_per_minute,
            1..=6_000,
        );
        self.range(
            "sidecar.refreshes_per_minute",
            sidecar.refreshes_per_minute,
            MIN_REFRESHES_PER_MINUTE..=6_000,
        );
        self.redis(&sidecar.redis);
        self.keys(sidecar);
        self.login(&sidecar.login, &sidecar.mail);
        self.mail(&sidecar.mail);
    }

    fn redis(&mut self, redis: &schema::Redis) {
        let prefix = &redis.prefix;
        let is_plain = prefix.bytes().all(|b| b.is_ascii_graphic());
        self.must(
            is_plain && (1..=64).contains(&prefix.len()),
            "sidecar.redis.prefix",
            format_args!("{prefix:?} is empty, too long or not printable"),
        );
        self.must(
            redis.ca.is_none() || redis.url.is_tls(),
            "sidecar.redis.ca",
            "without TLS nobody shows a certificate",
        );
    }

    fn keys(&mut self, sidecar: &schema::Sidecar) {
        let sources = [
            ("sidecar.session_key", Some(&sidecar.session_key)),
            (
                "sidecar.previous_session_key",
                sidecar.previous_session_key.as_ref(),
            ),
            ("sidecar.refresh_key", Some(&sidecar.refresh_key)),
            (
                "sidecar.previous_refresh_key",
                sidecar.previous_refresh_key.as_ref(),
            ),
            ("sidecar.transport_key", Some(&sidecar.transport_key)),
            ("sidecar.login_key", Some(&sidecar.login_key)),
        ];
        let mut earlier: Vec<(&'static str, &KeySource)> = Vec::new();
        for (key, source) in sources {
            let Some(source) = source else { continue };
            if let Some((other, _)) = earlier.iter().find(|(_, taken)| *taken == source) {
                self.fault(
                    key,
                    format!("the same source as {other}; each purpose has a key of its own, and each rotation a new one"),
                );
            }
            earlier.push((key, source));
            let is_made = sidecar.generate_keys && !key.contains("previous");
            self.must(
                !is_made || matches!(source, KeySource::File(_)),
                key,
                "sidecar.generate_keys makes files; an environment variable is given from outside",
            );
        }
    }

    /// What makes development easy would let anybody in: it takes both the word for it and addresses that nobody else reaches.
    fn conveniences(&mut self, environment: Environment, sidecar: &schema::Sidecar) {
        let exposed = [
            ("sidecar.auth_listen", sidecar.auth_listen),
            ("sidecar.control_listen", sidecar.control_listen),
            ("sidecar.admin_listen", sidecar.admin_listen),
        ]
        .into_iter()
        .find(|(_, address)| !address.ip().is_loopback());
        for (key, on) in [
            ("sidecar.generate_keys", sidecar.generate_keys),
            ("sidecar.dev_login", sidecar.dev_login),
            ("sidecar.plain_text", sidecar.plain_text),
            ("sidecar.mail.spool", sidecar.mail.spool.is_some()),
        ] {
            if !on {
                continue;
            }
            if environment != Environment::Development {
                self.fault(
                    key,
                    "a development convenience, and environment is \"production\"",
                );
            }
            if let Some((listener, address)) = exposed {
                self.fault(key, format!("a development convenience, and {listener} ({address}) is not a loopback address"));
            }
        }
    }

    fn gateway(&mut self, gateway: &schema::Gateway) {
        self.workers(gateway.workers);
        self.range("gateway.capacity", gateway.capacity, 1..=MAX_SEATS);
        self.gate(gateway);
        self.budget(&gateway.budget);
        self.range(
            "gateway.max_awaiting_hello",
            gateway.max_awaiting_hello,
            1..=65_536,
        );
        self.range(
            "gateway.single_use_capacity",
            gateway.single_use_capacity,
            1_024..=16_777_216,
        );
        self.range(
            "gateway.socket_buffer",
            gateway.socket_buffer,
            Size(64 << 10)..=Size(1 << 30),
        );
        self.range(
            "gateway.message_backlog",
            gateway.message_backlog,
            Size(64 << 10)..=Size(16 << 20),
        );
        self.duration("gateway.drain", gateway.drain, Duration::ZERO..=DAY);
        self.staleness(&gateway.control);
        self.duration(
            "gateway.hello_timeout",
            gateway.hello_timeout,
            SECOND / 10..=MINUTE,
        );
        self.duration(
            "gateway.idle_timeout",
            gateway.idle_timeout,
            // More than the 3 s between a client's pings.
            4 * SECOND..=10 * MINUTE,
        );

        let listen = gateway.listen;
        let known = listen.port() != 0 || !listen.ip().is_unspecified();
        self.must(
            known,
            "gateway.listen",
            format_args!("{listen} leaves open what to tell clients: name the port or the address"),
        );
        let few = gateway.advertise.len() <= 16;
        self.must(
            few,
            "gateway.advertise",
            format_args!("{} addresses", gateway.advertise.len()),
        );
        for address in &gateway.advertise {
            let reachable = !address.ip().is_unspecified() && address.port() != 0;
            self.must(
                reachable,
                "gateway.advertise",
                format_args!("nobody can reach {address}"),
            );
        }
        let name = rustls::pki_types::DnsName::try_from(gateway.server_name.as_str());
        self.must(
            name.is_ok(),
            "gateway.server_name",
            format_args!("{:?} is no DNS name", gateway.server_name),
        );
        self.gateway_files(gateway);
    }

    /// What newcomers may take before they are known.
    fn gate(&mut self, gateway: &schema::Gateway) {
        let (most, above) = (gateway.max_handshakes, gateway.retry_above);
        self.range("gateway.max_handshakes", most, 1..=65_536);
        let key = "gateway.retry_above";
        self.range(key, above, 0..=65_536);
        // Else the oldest handshakes would be dropped before anybody is asked to prove an address.
        self.must(
            above <= most || above > 65_536,
            key,
            format_args!("{above} is more than gateway.max_handshakes ({most})"),
        );
        self.range("gateway.prefix_rate", gateway.prefix_rate, 1..=65_536);
        self.range("gateway.prefix_burst", gateway.prefix_burst, 1..=65_536);
        self.duration(
            "gateway.handshake_timeout",
            gateway.handshake_timeout,
            SECOND / 2..=MINUTE,
        );
    }

    fn staleness(&mut self, control: &schema::Control) {
        let admit = control.admit_while_stale;
        self.duration(
            "gateway.control.admit_while_stale",
            admit,
            5 * SECOND..=60 * MINUTE,
        );
        let key = "gateway.control.max_stale";
        // Else players would be let in to be thrown out at once.
        if let Some(most) = control.max_stale
            && self.duration(key, most, 5 * SECOND..=30 * DAY)
            && most < admit
        {
            let (most, admit) = (
                humantime::format_duration(most),
                humantime::format_duration(admit),
            );
            self.fault(
                key,
                format!("{most} is shorter than gateway.control.admit_while_stale ({admit})"),
            );
        }
    }

    fn gateway_files(&mut self, gateway: &schema::Gateway) {
        let control = &gateway.control;
        for (key, path) in [
            ("gateway.certificate", &gateway.certificate),
            ("gateway.key", &gateway.key),
            ("gateway.control.ca", &control.ca),
            ("gateway.control.certificate", &control.certificate),
            ("gateway.control.key", &control.key),
        ] {
            self.must(!path.as_os_str().is_empty(), key, "empty");
        }
        // Every client is shown the QUIC certificate; the control certificate is what the sidecar believes.
        for (key, path, other, other_path) in [
            (
                "gateway.certificate",
                &gateway.certificate,
                "gateway.control.certificate",
                &control.certificate,
            ),
            (
                "gateway.key",
                &gateway.key,
                "gateway.control.key",
                &control.key,
            ),
        ] {
            let what = format!(
                "the same file as {other}; players and sidecar are shown different certificates"
            );
            self.must(path != other_path, key, what);
        }
        let (certificate, key) = (&gateway.next_certificate, &gateway.next_key);
        for (name, path, other, other_path) in [
            (
                "gateway.next_certificate",
                certificate,
                "gateway.next_key",
                key,
            ),
            (
                "gateway.next_key",
                key,
                "gateway.next_certificate",
                certificate,
            ),
        ] {
            let alone = path.is_some() && other_path.is_none();
            self.must(!alone, name, format_args!("{other} is missing"));
        }
        let same = certificate
            .as_ref()
            .is_some_and(|next| *next == gateway.certificate);
        self.must(
            !same,
            "gateway.next_certificate",
            "the same file as gateway.certificate",
        );
    }

    fn seat(&mut self, seat: &schema::Seat, session: &schema::Session) {
        let (key, window) = ("seat.activity_window", seat.activity_window);
        // A session that is active must not look idle for want of writing it down.
        if self.duration(key, window, SECOND / 20..=MINUTE) && window > session.idle / 2 {
            let idle = humantime::format_duration(session.idle);
            self.fault(key, format!("more than half of session.idle ({idle})"));
        }
        self.duration("seat.grace", seat.grace, Duration::ZERO..=10 * MINUTE);
    }
}
