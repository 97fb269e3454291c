//! What letters say, as text and as HTML.

use std::time::{Duration, UNIX_EPOCH};

use lettre::{
    Address, Message as Email,
    message::{Mailbox, MultiPart},
};

use crate::{clock::Timestamp, sidecar::login::address::EmailAddress, store::OneTimePurpose};

use super::{Letter, Message, Notice};

/// A letter that cannot be written: an address that the mail library does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unwritable;

/// What all letters have in common.
pub(super) struct Templates {
    pub(super) from: EmailAddress,
    pub(super) game: String,
    pub(super) link: Option<String>,
}

/// A letter's words.
struct Words {
    subject: String,
    /// In which order they stand: a line each.
    lines: Vec<Line>,
}

enum Line {
    Text(String),
    /// Something to be copied.
    Code(String),
    /// Somewhere to go, and what stands there.
    Link(String, &'static str),
}

impl Templates {
    /// The letter as it leaves, dated `now`.
    pub(super) fn write(&self, letter: &Letter, now: Timestamp) -> Result<Email, Unwritable> {
        let Words { subject, lines } = self.words(letter, now);
        let id = crate::sidecar::login::draw::text::<16>().map_err(|_| Unwritable)?;
        Email::builder()
            .from(mailbox(Some(&self.game), &self.from)?)
            .to(mailbox(None, &letter.to)?)
            .date(UNIX_EPOCH + Duration::from_millis(now.0))
            .message_id(Some(format!("<{}@{}>", *id, self.from.domain())))
            .subject(subject)
            .multipart(MultiPart::alternative_plain_html(
                text(&lines),
                html(&lines),
            ))
            .map_err(|_| Unwritable)
    }

    fn words(&self, letter: &Letter, now: Timestamp) -> Words {
        let game = &self.game;
        let left = letter.expires_at.0.saturating_sub(now.0);
        let minutes = left.div_ceil(60_000);
        let nobody =
            Line::Text("If you did not ask for it, nobody gets in without it: ignore it.".into());
        match &letter.message {
            Message::Notice(notice) => told(game, notice),
            Message::Code(code) => Words {
                // Not the code: subjects are shown on locked screens.
                subject: format!("Your code for {game}"),
                lines: vec![
                    Line::Text(format!("Your code to log in to {game}:")),
                    Line::Code(code.to_string()),
                    Line::Text(format!(
                        "It is good for {minutes} minutes and three tries. Nobody at {game} will ever ask you for it."
                    )),
                    nobody,
                ],
            },
            Message::Link { purpose, token } => {
                let (subject, what, label, good_for) = match purpose {
                    OneTimePurpose::PasswordReset => (
                        format!("Your password for {game}"),
                        format!(
                            "Set a new password for {game}. You will be logged out everywhere:"
                        ),
                        "Set a new password",
                        format!("{minutes} minutes"),
                    ),
                    OneTimePurpose::EmailChange => (
                        format!("Your e-mail address for {game}"),
                        format!("Make this your e-mail address for {game}:"),
                        "Use this address",
                        format!("{} hours", minutes.div_ceil(60)),
                    ),
                    OneTimePurpose::MagicLink
                    | OneTimePurpose::LoginNonce
                    | OneTimePurpose::Challenge => (
                        format!("Log in to {game}"),
                        format!("Log in to {game}:"),
                        "Log in",
                        format!("{minutes} minutes"),
                    ),
                };
                // Behind the '#': no browser sends it along, so it stands in no server's log.
                let base = self.link.as_deref().unwrap_or_default();
                let link = format!("{base}#purpose={}&token={}", purpose.label(), **token);
                Words {
                    subject,
                    lines: vec![
                        Line::Text(what),
                        Line::Link(link, label),
                        Line::Text(format!("The link is good for {good_for}, and once.")),
                        nobody,
                    ],
                }
            }
        }
    }
}

/// What an owner is told of a change. No link to follow: whoever writes such letters to steal accounts has one in them.
fn told(game: &str, notice: &Notice) -> Words {
    let (what, otherwise) = match notice {
        Notice::EmailChanged => (
            format!("Your account for {game} has another e-mail address now. This one is not used any more."),
            format!("If that was not you, somebody else has your account: write to the support of {game}."),
        ),
        Notice::Linked(kind) => (
            format!("Your account for {game} has another way to log in now: {}.", named(kind)),
            "If that was not you, log in and take it away: that also logs everybody out.".to_owned(),
        ),
        Notice::Unlinked(kind) => (
            format!("A way to log in was taken away from your account for {game}: {}. Everybody was logged out.", named(kind)),
            "If that was not you, log in and see which ways there are; if you cannot, write to the support."
                .to_owned(),
        ),
    };
    Words {
        subject: format!("How you log in to {game} has changed"),
        lines: vec![
            Line::Text(what),
            Line::Text("If that was you, there is nothing to do.".to_owned()),
            Line::Text(otherwise),
        ],
    }
}

/// What a kind of account is called by people.
fn named(kind: &str) -> String {
    match kind {
        "email" => "by e-mail".to_owned(),
        "device_key" => "by a device".to_owned(),
        other => format!("by an account of {other}"),
    }
}

fn mailbox(name: Option<&str>, address: &EmailAddress) -> Result<Mailbox, Unwritable> {
    let parsed: Address = address.as_str().parse().map_err(|_| Unwritable)?;
    Ok(Mailbox::new(name.map(str::to_owned), parsed))
}

fn text(lines: &[Line]) -> String {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| match line {
            Line::Text(text) => text.clone(),
            Line::Code(code) => format!("    {code}"),
            Line::Link(link, _) => format!("    {link}"),
        })
        .collect();
    lines.join("\n\n") + "\n"
}

fn html(lines: &[Line]) -> String {
    let mut html = String::from("<!doctype html><html><body style=\"font-family:sans-serif\">");
    for line in lines {
        let paragraph = match line {
            Line::Text(text) => format!("<p>{}</p>", escaped(text)),
            Line::Code(code) => format!(
                "<p style=\"font-size:2em;letter-spacing:0.2em\"><b>{}</b></p>",
                escaped(code)
            ),
            Line::Link(link, label) => {
                format!(
                    "<p><a href=\"{}\">{}</a></p>",
                    escaped(link),
                    escaped(label)
                )
            }
        };
        html.push_str(&paragraph);
    }
    html + "</body></html>\n"
}

/// Text that means nothing to HTML, neither between tags nor within an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn written(game: &str, code: &str) -> String {
        letter(game, code, |code| {
            Message::Code(Zeroizing::new(code.to_owned()))
        })
    }

    #[test]
    fn a_link_keeps_its_token_behind_the_number_sign() {
        for (purpose, label) in [
            (OneTimePurpose::MagicLink, "magic_link"),
            (OneTimePurpose::PasswordReset, "password_reset"),
            (OneTimePurpose::EmailChange, "email_change"),
        ] {
            let email = letter("Foo", "abc", |token| Message::Link {
                purpose,
                token: Zeroizing::new(token.to_owned()),
            });
            let link = format!("https://example.com/in?a=1&b=2#purpose={label}&token=abc");
            assert!(email.contains(&link), "{email}");
            assert!(email.contains(&link.replace('&', "&amp;")), "{email}");
        }
    }

    fn letter(game: &str, code: &str, message: impl Fn(&str) -> Message) -> String {
        let templates = Templates {
            from: "no-reply@example.com".parse().unwrap(),
            game: game.to_owned(),
            link: Some("https://example.com/in?a=1&b=2".to_owned()),
        };
        let letter = Letter {
            to: "ada@example.org".parse().unwrap(),
            message: message(code),
            expires_at: NOW.after(Duration::from_secs(600)),
        };
        let email = templates.write(&letter, NOW).unwrap();
        let email = String::from_utf8(email.formatted()).unwrap();
        // Quoted-printable (RFC 2045, section 6.7): lines are broken, and "=" is "=3D".
        email.replace("=\r\n", "").replace("=3D", "=")
    }

    #[test]
    fn an_owner_is_told_of_changes_without_a_link() {
        for (notice, part) in [
            (Notice::EmailChanged, "has another e-mail address now"),
            (Notice::Linked("google".to_owned()), "account of google"),
            (Notice::Unlinked("device_key".to_owned()), "by a device"),
        ] {
            let email = letter("Foo", "", |_| Message::Notice(notice.clone()));
            // In the text and in the HTML.
            assert_eq!(email.matches(part).count(), 2, "{email}");
            assert!(email.contains("How you log in to Foo has changed"));
            assert!(!email.contains("href"), "{email}");
        }
    }

    #[test]
    fn a_letter_has_text_and_html_and_its_code_in_both() {
        let email = written("Foo", "123456");
        assert_eq!(email.matches("123456").count(), 2, "{email}");
        for part in [
            "To: ada@example.org",
            "From: Foo <no-reply@example.com>",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000",
            "Subject: Your code for Foo",
            "text/plain",
            "text/html",
            "10 minutes",
        ] {
            assert!(email.contains(part), "{part} is missing in {email}");
        }
        let subject = email.lines().find(|line| line.starts_with("Subject"));
        assert!(!subject.unwrap().contains("123456"));
    }

    /// The mail library gives up on some texts. On none that is let in: a name is checked when the sidecar starts.
    #[test]
    fn every_name_that_may_be_is_written() {
        for name in [
            "x",
            "Ünïcode 游戏 🎮",
            "\\ \" ' , ; : @ ( ) [ ]",
            "=?utf-8?q?x?=",
            &"ä".repeat(32),
            " ",
        ] {
            let email = written(name, "123456");
            let (headers, _) = email.split_once("\r\n\r\n").unwrap();
            for header in ["From: ", "Subject: ", "<no-reply@example.com>\r\n"] {
                assert!(headers.contains(header), "{name}: {headers}");
            }
            assert!(email.is_ascii(), "{name}: {email}");
        }
    }

    #[test]
    fn a_games_name_is_neither_markup_nor_a_header() {
        let email = written("Foo <script> & \"Co\", eve@example.org", "123456");
        let (headers, body) = email.split_once("\r\n\r\n").unwrap();
        // As a word that is encoded (RFC 2047): a second address it is not.
        let from = headers.lines().find(|line| line.starts_with("From:"));
        let from = from.unwrap();
        assert!(from.ends_with("?= <no-reply@example.com>"), "{from}");
        assert!(
            body.contains("&lt;script&gt; &amp; &quot;Co&quot;"),
            "{body}"
        );
        assert!(
            !body.contains("<p>Your code to log in to Foo <script>"),
            "{body}"
        );
    }
}
