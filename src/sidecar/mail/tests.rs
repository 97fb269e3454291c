//! Letters against a relay that speaks SMTP, as RFC 5321 has it, over TCP on loopback.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{certs::DevCerts, clock::ManualTime, sidecar::tests::START, tls};

/// A line in both directions.
trait Line: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Line for T {}

struct Relay {
    port: u16,
    /// Letters as they arrived.
    taken: mpsc::Receiver<String>,
}

/// What a relay goes by.
#[derive(Clone)]
struct Rules {
    /// What it answers to letters, one after the other; after the last it takes everything.
    answers: Arc<Mutex<Vec<&'static str>>>,
    /// What it offers STARTTLS with.
    upgrade: Option<TlsAcceptor>,
    taken: mpsc::Sender<String>,
}

impl Relay {
    async fn up(answers: &[&'static str]) -> Self {
        Self::secured(answers, SmtpSecurity::Plain, None).await
    }

    async fn secured(
        answers: &[&'static str],
        security: SmtpSecurity,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, taken) = mpsc::channel(100);
        let rules = Rules {
            answers: Arc::new(Mutex::new(answers.to_vec())),
            upgrade: tls.clone().filter(|_| security == SmtpSecurity::StartTls),
            taken: sender,
        };
        let first = tls.filter(|_| security == SmtpSecurity::Tls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (rules, first) = (rules.clone(), first.clone());
                tokio::spawn(async move {
                    let line: Box<dyn Line> = match first {
                        Some(tls) => Box::new(tls.accept(stream).await?),
                        None => Box::new(stream),
                    };
                    converse(line, "220 relay.test ESMTP\r\n", rules).await
                });
            }
        });
        Self { port, taken }
    }

    fn delivery(&self) -> Delivery {
        self.secured_delivery(SmtpSecurity::Plain, Vec::new())
    }

    fn secured_delivery(
        &self,
        security: SmtpSecurity,
        ca: Vec<CertificateDer<'static>>,
    ) -> Delivery {
        Delivery::Smtp(SmtpConfig {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            security,
            credentials: Some(("user".to_owned(), Zeroizing::new("swordfish".to_owned()))),
            ca,
        })
    }
}

/// One conversation, from the greeting to QUIT. Says no where the answers to be given say so.
fn converse(
    line: Box<dyn Line>,
    greeting: &'static str,
    rules: Rules,
) -> BoxFuture<'static, std::io::Result<()>> {
    Box::pin(async move {
        let (read, mut write) = tokio::io::split(line);
        let mut lines = BufReader::new(read).lines();
        write.write_all(greeting.as_bytes()).await?;
        while let Some(line) = lines.next_line().await? {
            let command = line.split(' ').next().unwrap_or("").to_ascii_uppercase();
            let answer = match (&*command, &rules.upgrade) {
                ("EHLO", Some(_)) => "250-relay.test\r\n250 STARTTLS",
                ("EHLO", None) => "250-relay.test\r\n250-8BITMIME\r\n250 AUTH PLAIN",
                ("STARTTLS", Some(tls)) => {
                    write.write_all(b"220 go on\r\n").await?;
                    let line = lines.into_inner().into_inner().unsplit(write);
                    let line = Box::new(tls.accept(line).await?);
                    let upgrade = None;
                    return converse(line, "", Rules { upgrade, ..rules }).await;
                }
                // Nothing else goes over a line that is not private yet.
                (_, Some(_)) => "530 STARTTLS first",
                // "\0user\0swordfish" in base64.
                ("AUTH", None) if line.ends_with("AHVzZXIAc3dvcmRmaXNo") => "235 welcome",
                ("AUTH", None) => "535 no",
                ("MAIL" | "RCPT", None) => "250 ok",
                ("DATA", None) => {
                    write.write_all(b"354 go on\r\n").await?;
                    let mut letter = String::new();
                    while let Some(line) = lines.next_line().await? {
                        if line == "." {
                            break;
                        }
                        letter += &line;
                        letter += "\n";
                    }
                    let answer = {
                        let mut answers = rules.answers.lock().unwrap();
                        match answers.is_empty() {
                            true => "250 taken",
                            false => answers.remove(0),
                        }
                    };
                    if answer.starts_with("250") {
                        rules.taken.send(letter).await.unwrap();
                    }
                    answer
                }
                ("QUIT", None) => {
                    write.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "502 what?",
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    })
}

struct Office {
    mailer: Mailer,
    counters: Arc<Counters>,
    time: ManualTime,
    running: tokio::task::JoinHandle<()>,
}

fn office(delivery: Delivery) -> Office {
    office_with(delivery, |_| ())
}

fn office_with(delivery: Delivery, change: impl FnOnce(&mut Post)) -> Office {
    let time = ManualTime::starting_at(START);
    let config = MailConfig {
        from: "no-reply@example.com".parse().unwrap(),
        game: "Foo".to_owned(),
        link: None,
        delivery,
    };
    let counters = Arc::new(Counters::new());
    let mut post = Post::new(config, time.clock(), Arc::clone(&counters)).unwrap();
    post.pauses = [Duration::from_millis(1); 3];
    change(&mut post);
    let (mailer, outbox) = queue();
    Office {
        mailer,
        counters,
        time,
        running: tokio::spawn(post.run(outbox, CancellationToken::new())),
    }
}

impl Office {
    fn post(&self, code: &str) {
        self.mailer.room().unwrap().post(Letter {
            to: "ada@example.org".parse().unwrap(),
            message: Message::Code(Zeroizing::new(code.to_owned())),
            expires_at: START.after(Duration::from_secs(600)),
        });
    }

    /// Posts a letter, and waits a moment for the relay to take one with that code.
    async fn post_and_see(&self, code: &str, relay: &mut Relay) -> Option<String> {
        self.post(code);
        let taken = tokio::time::timeout(Duration::from_secs(1), relay.taken.recv());
        let letter = taken.await.ok().flatten();
        letter.filter(|letter| letter.contains(code))
    }

    /// Waits until all that was handed in has come to an end; how often each outcome was.
    async fn outcomes(self) -> Vec<(&'static str, u64)> {
        drop(self.mailer);
        self.running.await.unwrap();
        let counted = self.counters.mails.read().into_iter();
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// A relay that takes connections and says nothing holds no letter for longer than a try may take.
#[tokio::test]
async fn a_relay_that_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let delivery = Delivery::Smtp(SmtpConfig {
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().unwrap().port(),
        security: SmtpSecurity::Plain,
        credentials: None,
        ca: Vec::new(),
    });
    let holds = tokio::spawn(async move {
        let mut lines = Vec::new();
        while let Ok((line, _)) = silent.accept().await {
            lines.push(line);
        }
    });
    let office = office_with(delivery, |post| post.patience = Duration::from_millis(20));
    for _ in 0..2 * AT_ONCE {
        office.post("123456");
    }
    assert_eq!(office.outcomes().await, [("failed", 2 * AT_ONCE as u64)]);
    holds.abort();
}

/// Letters that a relay puts off wait without a place: others go out meanwhile.
#[tokio::test]
async fn letters_that_wait_keep_none_back() {
    let mut relay = Relay::up(&["451 later"; AT_ONCE]).await;
    let an_hour = [Duration::from_secs(3_600); 3];
    let office = office_with(relay.delivery(), |post| post.pauses = an_hour);
    for _ in 0..AT_ONCE {
        office.post("111111");
    }
    while office.post_and_see("222222", &mut relay).await.is_none() {}
    office.running.abort();
}

#[tokio::test]
async fn a_letter_goes_to_the_relay_with_its_code() {
    let mut relay = Relay::up(&[]).await;
    let office = office(relay.delivery());
    for code in ["123456", "654321"] {
        office.post(code);
        let letter = relay.taken.recv().await.unwrap();
        assert!(letter.contains(code), "{letter}");
        assert!(letter.contains("To: ada@example.org"), "{letter}");
    }
    assert_eq!(office.outcomes().await, [("sent", 2)]);
}

#[tokio::test]
async fn a_busy_relay_is_asked_again_and_one_that_refuses_is_not() {
    let mut relay = Relay::up(&["451 later", "421 too many", "550 nobody here"]).await;
    let office = office(relay.delivery());
    office.post("111111");
    // Two that say later, then one that says never.
    while office
        .counters
        .mails
        .read()
        .iter()
        .all(|(_, count)| *count == 0)
    {
        tokio::task::yield_now().await;
    }
    office.post("222222");
    assert!(relay.taken.recv().await.unwrap().contains("222222"));
    assert_eq!(office.outcomes().await, [("refused", 1), ("sent", 1)]);
}

#[tokio::test]
async fn a_relay_is_believed_by_its_certificate_alone() {
    let (certs, others) = (
        DevCerts::generate(&[]).unwrap(),
        DevCerts::generate(&[]).unwrap(),
    );
    for security in [SmtpSecurity::Tls, SmtpSecurity::StartTls] {
        let config = tls::rpc_server_config(&certs.sidecar, None).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut relay = Relay::secured(&[], security, Some(acceptor)).await;
        for (ca, outcome) in [(&certs.ca, "sent"), (&others.ca, "failed")] {
            let office = office(relay.secured_delivery(security, vec![ca.clone()]));
            office.post("123456");
            assert_eq!(office.outcomes().await, [(outcome, 1)], "{security:?}");
        }
        assert!(relay.taken.recv().await.unwrap().contains("123456"));
    }
    // One that does not offer STARTTLS is told nothing.
    let mut plain = Relay::up(&[]).await;
    let office = office(plain.secured_delivery(SmtpSecurity::StartTls, vec![certs.ca.clone()]));
    office.post("123456");
    assert_eq!(office.outcomes().await, [("failed", 1)]);
    assert!(plain.taken.try_recv().is_err());
}

#[tokio::test]
async fn a_relay_that_is_never_there_costs_the_letter_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut relay = Relay::up(&[]).await;
    relay.port = listener.local_addr().unwrap().port();
    drop(listener);
    let office = office(relay.delivery());
    office.post("123456");
    assert_eq!(office.outcomes().await, [("failed", 1)]);
}

#[tokio::test]
async fn what_has_expired_is_not_sent() {
    let relay = Relay::up(&[]).await;
    let office = office(relay.delivery());
    office.time.advance(Duration::from_secs(600));
    office.post("123456");
    assert_eq!(office.outcomes().await, [("expired", 1)]);
}

#[tokio::test]
async fn a_spooled_letter_is_a_file_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("deep/mail");
    let office = office(Delivery::Spool(spool.clone()));
    office.post("123456");
    assert_eq!(office.outcomes().await, [("sent", 1)]);
    let files: Vec<_> = std::fs::read_dir(&spool)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1);
    assert!(
        std::fs::read_to_string(&files[0])
            .unwrap()
            .contains("123456")
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&files[0]).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn what_cannot_stand_in_a_letter_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let started = |game: &str, link: &str| {
        let config = MailConfig {
            from: "no-reply@example.com".parse().unwrap(),
            game: game.to_owned(),
            link: Some(link.to_owned()),
            delivery: Delivery::Spool(folder.path().join("mail")),
        };
        let time = ManualTime::starting_at(START);
        let post = Post::new(config, time.clock(), Arc::new(Counters::new()));
        post.err().map(|error| error.label())
    };
    let link = "https://game.example.com/in";
    assert_eq!(started("Foo", link), None);
    for game in ["", "Foo\r\nBcc: eve@example.org", &"x".repeat(65)] {
        assert_eq!(started(game, link), Some("mail_game"), "{game:?}");
    }
    for link in [
        "",
        "https://x/#",
        "https://x/\"",
        "https://x/ y",
        "https://x/\n",
    ] {
        assert_eq!(started("Foo", link), Some("mail_link"), "{link:?}");
    }
}

#[test]
fn mail_leaves_the_machine_under_tls_alone() {
    let smtp = |host: &str, security| {
        Transport::new(Delivery::Smtp(SmtpConfig {
            host: host.to_owned(),
            port: 25,
            security,
            credentials: None,
            ca: Vec::new(),
        }))
    };
    for (host, security, expected) in [
        (
            "relay.example.com",
            SmtpSecurity::Plain,
            Some("mail_plain_text"),
        ),
        ("192.0.2.1", SmtpSecurity::Plain, Some("mail_plain_text")),
        ("localhost", SmtpSecurity::Plain, None),
        ("127.0.0.1", SmtpSecurity::Plain, None),
        ("relay.example.com", SmtpSecurity::Tls, None),
        ("relay.example.com", SmtpSecurity::StartTls, None),
    ] {
        let outcome = smtp(host, security).err().map(|error| error.label());
        assert_eq!(outcome, expected, "{host} {security:?}");
    }
}
