//! Logging in by mail that leaves by SMTP over TLS, as RFC 5321 and RFC 8314 have it, to a relay that wants a password.

use std::sync::Arc;

use tickgate::{
    proto::{
        consume_verification_request::Purpose as Used,
        request_verification_request::Purpose as Wanted,
    },
    sidecar::{SmtpConfig, SmtpSecurity},
    tls,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{fixture::*, links::*, login::*};

/// "\0tickgate\0swordfish" in base64.
const CREDENTIALS: &str = "AHRpY2tnYXRlAHN3b3JkZmlzaA==";

/// A letter as it arrived: to whom by the envelope, and all its lines.
struct Taken {
    to: String,
    text: String,
}

struct Relay {
    port: u16,
    taken: mpsc::Receiver<Taken>,
}

impl Relay {
    async fn up(world: &World) -> Self {
        let config = tls::rpc_server_config(&world.certs.sidecar, None).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(LOOPBACK).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, taken) = mpsc::channel(100);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move { converse(acceptor.accept(stream).await?, sender).await });
            }
        });
        Self { port, taken }
    }

    fn delivery(&self, world: &World) -> Delivery {
        Delivery::Smtp(SmtpConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            security: SmtpSecurity::Tls,
            credentials: Some(("tickgate".to_owned(), "swordfish".to_owned().into())),
            ca: vec![world.certs.ca.clone()],
        })
    }

    /// The next letter, which is to this address.
    async fn letter(&mut self, to: &str) -> String {
        let taken = tokio::time::timeout(10 * SECOND, self.taken.recv()).await;
        let Taken { to: told, text } = taken.unwrap().unwrap();
        assert_eq!(told, format!("TO:<{to}>"));
        assert!(text.contains(&format!("To: {to}\r\n")), "{text}");
        text
    }
}

async fn converse(
    line: impl AsyncRead + AsyncWrite + Unpin,
    taken: mpsc::Sender<Taken>,
) -> std::io::Result<()> {
    let (read, mut write) = tokio::io::split(line);
    let mut lines = BufReader::new(read).lines();
    let (mut is_known, mut to) = (false, String::new());
    write.write_all(b"220 relay.test ESMTP\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match (&*command.to_ascii_uppercase(), is_known) {
            ("EHLO", _) => "250-relay.test\r\n250-8BITMIME\r\n250 AUTH PLAIN",
            ("AUTH", _) if rest == format!("PLAIN {CREDENTIALS}") => {
                is_known = true;
                "235 welcome"
            }
            ("QUIT", _) => {
                write.write_all(b"221 bye\r\n").await?;
                return write.shutdown().await;
            }
            (_, false) => "530 who are you?",
            ("MAIL", true) => "250 ok",
            ("RCPT", true) => {
                rest.clone_into(&mut to);
                "250 ok"
            }
            ("DATA", true) => {
                write.write_all(b"354 go on\r\n").await?;
                let mut text = String::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    // What begins with a dot has one more on the way (RFC 5321, section 4.5.2).
                    text += line.strip_prefix('.').unwrap_or(&line);
                    text += "\r\n";
                }
                let to = to.clone();
                taken.send(Taken { to, text }).await.unwrap();
                "250 taken"
            }
            _ => "502 what?",
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn code_link_and_reset_arrive_by_a_relay_and_let_their_owner_in() {
    let world = World::new();
    let mut relay = Relay::up(&world).await;
    let mut config = world.config();
    config.mail.as_mut().unwrap().delivery = relay.delivery(&world);
    let stage = world.start_with(config).await;
    let email = "ada.o'neil+foo@example.com";

    let asked = stage.request_otp(email).await;
    let code = code_in(&relay.letter(email).await);
    let by_code = otp(email, &asked.request_id, &code);
    let first = stage.log_in_by(by_code, None).await.unwrap();
    assert!(first.is_new_player);

    let wanted = Wanted::MagicLink(email.to_owned());
    stage.request_link(wanted, None).await.unwrap();
    let token = token_in(&relay.letter(email).await, "magic_link");
    let second = stage.log_in_by(magic_link(&token), None).await.unwrap();
    assert_eq!(second.player_id, first.player_id);

    let wanted = Wanted::PasswordReset(email.to_owned());
    stage.request_link(wanted, None).await.unwrap();
    let token = token_in(&relay.letter(email).await, "password_reset");
    let new = Used::NewPassword("correct horse".to_owned());
    let set = stage.use_link(&token, new).await.unwrap();
    assert_eq!((set.player_id, set.sessions_ended), (first.player_id, 2));
    let third = password(email, "correct horse");
    assert!(stage.log_in_by(third, None).await.is_ok());

    let bearer = stage.login("bob").await.session_token;
    let wanted = Wanted::EmailChange("bob@example.com".to_owned());
    stage.request_link(wanted, Some(&bearer)).await.unwrap();
    let token = token_in(&relay.letter("bob@example.com").await, "email_change");
    let changed = stage.use_link(&token, Used::EmailChange(true)).await;
    assert!(changed.is_ok());
    stage.down().await;
}
