//! The rules about the ways to log in, and about mail.

use super::{
    super::{LoginMethod, schema},
    Check, SECOND,
};
use crate::sidecar::{
    self, LONGEST_AUDIENCE, LONGEST_FRESH_LOGIN, LONGEST_MAGIC_LINK, MAX_CLIENT_IDS, MAX_ISSUERS,
};

impl Check {
    pub(super) fn login(&mut self, login: &schema::Login, mail: &schema::Mail) {
        let schema::Login {
            methods,
            audience,
            magic_link_life,
            fresh_login,
            letters_per_hour,
            calls_per_hour,
            changes_per_hour,
            trusted_proxies,
            oidc,
        } = login;
        self.duration(
            "sidecar.login.magic_link_life",
            *magic_link_life,
            SECOND..=LONGEST_MAGIC_LINK,
        );
        self.duration(
            "sidecar.login.fresh_login",
            *fresh_login,
            SECOND..=LONGEST_FRESH_LOGIN,
        );
        for (key, most) in [
            ("sidecar.login.letters_per_hour", *letters_per_hour),
            ("sidecar.login.calls_per_hour", *calls_per_hour),
            ("sidecar.login.changes_per_hour", *changes_per_hour),
        ] {
            self.range(key, most, 1..=1_000_000);
        }
        self.must(
            trusted_proxies.len() <= 64,
            "sidecar.login.trusted_proxies",
            format_args!("{} of them", trusted_proxies.len()),
        );
        self.issuers(oidc);
        let key = "sidecar.login.methods";
        for (at, method) in methods.iter().enumerate() {
            let again = methods.iter().skip(at + 1).any(|other| other == method);
            self.must(!again, key, "a method stands there twice");
        }
        let leaves = mail.smtp.is_some() || mail.spool.is_some();
        for method in methods {
            let (needs_link, mails) = match method {
                LoginMethod::DeviceKey => continue,
                LoginMethod::Otp => (false, "otp mails codes"),
                LoginMethod::MagicLink => (true, "magic_link mails links"),
                LoginMethod::Password => (true, "a password is set by a link that is mailed"),
            };
            self.must(
                leaves,
                key,
                format_args!("{mails}, and sidecar.mail says no way out"),
            );
            self.must(
                !needs_link || !mail.link.is_empty(),
                key,
                format_args!("{mails}, and sidecar.mail.link says nowhere to lead to"),
            );
        }
        self.must(
            (1..=LONGEST_AUDIENCE).contains(&audience.len()),
            "sidecar.login.audience",
            format_args!("{} bytes", audience.len()),
        );
    }

    fn issuers(&mut self, issuers: &[schema::Issuer]) {
        let key = "sidecar.login.oidc";
        self.must(
            issuers.len() <= MAX_ISSUERS,
            key,
            format_args!("{} of them", issuers.len()),
        );
        for (at, issuer) in issuers.iter().enumerate() {
            let schema::Issuer {
                name,
                issuer: _,
                client_ids,
                ca: _,
            } = issuer;
            let mut later = issuers.iter().skip(at + 1);
            self.must(
                later.all(|other| other.name != *name),
                key,
                format_args!("two of them are called {name}"),
            );
            self.must(
                sidecar::are_client_ids(client_ids),
                key,
                format_args!("{name} needs 1 to {MAX_CLIENT_IDS} client_ids, which the issuer has given your game"),
            );
        }
    }

    pub(super) fn mail(&mut self, mail: &schema::Mail) {
        let schema::Mail {
            smtp,
            smtp_user,
            smtp_password,
            smtp_ca,
            spool,
            from: _,
            game,
            link,
        } = mail;
        let scheme = link.split_once("://").filter(|(scheme, rest)| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
            !scheme.is_empty() && scheme.bytes().all(plain) && !rest.is_empty()
        });
        let plain = |c: char| c.is_ascii_graphic() && !"#<>\"".contains(c);
        self.must(
            link.is_empty() || (scheme.is_some() && link.chars().all(plain)),
            "sidecar.mail.link",
            format_args!("{link:?} is none"),
        );
        for (key, is_there) in [
            ("sidecar.mail.smtp_user", !smtp_user.is_empty()),
            ("sidecar.mail.smtp_password", smtp_password.is_some()),
            ("sidecar.mail.smtp_ca", smtp_ca.is_some()),
        ] {
            let alone = is_there && smtp.is_none();
            self.must(!alone, key, "sidecar.mail.smtp names no relay");
        }
        let halves = smtp_user.is_empty() == smtp_password.is_none();
        self.must(
            halves,
            "sidecar.mail.smtp_password",
            "user and password are given together",
        );
        let one = smtp.is_none() || spool.is_none();
        self.must(
            one,
            "sidecar.mail.spool",
            "sidecar.mail.smtp names a relay already",
        );
        self.must(
            (1..=64).contains(&game.len()) && !game.chars().any(char::is_control),
            "sidecar.mail.game",
            format_args!("{game:?} is not fit for a subject line"),
        );
    }
}
