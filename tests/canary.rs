//! Canaries: keys and tokens that are known to the test, and must not be found in anything that the program says: its log at trace
//! level, its metrics, its explanations, the output of its commands, or the client library's own log.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers may fail as its tests do"
)]

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use tickgate::{
    client::{Account, Backend, ClientKey, Endpoint, SecretToken, Session, Target, Ticket, Wait},
    config::write_key_file,
    role::dev::DevJson,
    tls::{self, Identity},
    token::{FIRST_EPOCH, LoginKey, RefreshKey, SessionKey, TransportMasterKey, read_connect},
};

/// What must not be found, and what it is.
#[derive(Default)]
struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// Secret bytes, in every form in which they might be written.
    fn bytes(&mut self, what: &str, bytes: &[u8]) {
        let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // A part is as bad as the whole, and enough to tell it by.
        let part = &bytes[..12];
        let list = |form: fn(&u8) -> String| part.iter().map(form).collect::<Vec<_>>().join(", ");
        let escaped: String = part.escape_ascii().to_string();
        for (form, text) in [
            ("hexadecimal", hexadecimal[..24].to_owned()),
            ("HEXADECIMAL", hexadecimal[..24].to_uppercase()),
            (
                "base64url",
                BASE64_URL_SAFE_NO_PAD.encode(bytes)[..16].to_owned(),
            ),
            (
                "base64",
                BASE64_STANDARD_NO_PAD.encode(bytes)[..16].to_owned(),
            ),
            ("numbers", list(|byte| byte.to_string())),
            ("hexadecimal numbers", list(|byte| format!("{byte:#x}"))),
            ("escapes", escaped),
        ] {
            self.0.push((format!("{what}, as {form}"), text));
        }
    }

    fn key(&mut self, what: &str, bytes: &[u8], paserk: &str) {
        self.bytes(what, bytes);
        let digits = paserk.strip_prefix("k4.local.").unwrap();
        self.0
            .push((format!("{what}, as PASERK"), digits.to_owned()));
    }

    /// A token: any piece of its sealed part.
    fn token(&mut self, what: &str, token: &str) {
        let sealed = token.strip_prefix("v4.local.").unwrap();
        for (at, piece) in [(0, "its beginning"), (64, "its middle")] {
            let text = sealed[at..at + 24].to_owned();
            self.0.push((format!("{what}, {piece}"), text));
        }
    }

    /// Digits that are a secret: by themselves, and not within a longer number.
    fn digits(&mut self, what: &str, digits: &str) {
        for (before, after) in [
            ("\"", "\""),
            (" ", "\n"),
            (" ", " "),
            ("=", " "),
            (": ", ","),
        ] {
            let text = format!("{before}{digits}{after}");
            self.0.push((what.to_owned(), text));
        }
    }

    fn session(&mut self, what: &str, session: &Session) {
        self.token(&format!("{what}'s session token"), session.token.expose());
        let refresh = session.refresh_token.as_ref().unwrap();
        self.token(&format!("{what}'s refresh token"), refresh.expose());
    }

    /// What was found of them.
    fn found_in(&self, place: &str, text: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(_, secret)| text.contains(secret));
        found
            .map(|(what, secret)| {
                let at = text.find(secret).unwrap();
                let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
                let line: String = text[start..at].chars().take(300).collect();
                format!("{place}: {what}, after {line:?}")
            })
            .collect()
    }
}

/// What is to be copied out of the one letter that lies in the folder, once it does: a code, or a link. The letter is taken away.
async fn mailed(folder: &Path) -> String {
    for _ in 0..1_000 {
        let letter = fs::read_dir(folder).ok().and_then(|files| {
            let paths = files.map(|file| file.unwrap().path());
            // What begins with a dot is still being written.
            let is_there = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                !name.starts_with('.') && name.ends_with(".eml")
            };
            paths.into_iter().find(is_there)
        });
        if let Some(path) = letter {
            let letter = fs::read_to_string(&path).unwrap();
            fs::remove_file(path).unwrap();
            // Quoted-printable: lines are broken, and "=" is "=3D".
            let letter = letter.replace("=\r\n", "").replace("=3D", "=");
            let line = letter.lines().find(|line| line.starts_with("    "));
            return line.unwrap().trim().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no letter came");
}

/// A development stack that logs everything into a file.
struct Stack {
    child: Child,
    folder: tempfile::TempDir,
}

impl Stack {
    fn start(folder: tempfile::TempDir) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tickgate"))
            .args(["--log", "trace", "dev", "--ephemeral-ports"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn told(&mut self) -> DevJson {
        for _ in 0..3_000 {
            if let Some(told) = DevJson::of_running(&self.path().join(".tickgate")).unwrap() {
                return told;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come up: {}", self.log());
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.path().join("log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What a command says, on both its outputs.
    fn says(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_tickgate"))
            .args(["--log", "trace"])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        told + &String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log of the client library, which runs in this process.
#[derive(Clone, Default)]
struct OwnLog(Arc<Mutex<Vec<u8>>>);

impl Write for OwnLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn scrape(url: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The same ticket with a token that is not what it was.
fn spoilt(ticket: &Ticket, at: usize) -> Ticket {
    let mut text = ticket.token.expose().to_owned();
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    text.replace_range(at..=at, other);
    Ticket {
        token: SecretToken::new(text),
        ..ticket.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_said() {
    let own = OwnLog::default();
    let writer = own.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let mut canaries = Canaries::default();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join(".tickgate");
    let session_key = SessionKey::generate();
    let refresh_key = RefreshKey::generate();
    let master = TransportMasterKey::generate();
    let login_key = LoginKey::generate();
    for (name, bytes, paserk) in [
        ("session", session_key.expose(), session_key.to_paserk()),
        ("refresh", refresh_key.expose(), refresh_key.to_paserk()),
        ("transport", master.expose(), master.to_paserk()),
        ("login", login_key.expose(), login_key.to_paserk()),
    ] {
        write_key_file(&state.join(format!("{name}.key")), &paserk).unwrap();
        canaries.key(&format!("the {name} key"), bytes, &paserk);
    }
    let mut stack = Stack::start(folder);
    let told = stack.told().await;
    let ca = tls::load_certificates(&told.ca).unwrap();
    let identity = Identity::load(&told.backend_certificate, &told.backend_key).unwrap();
    let account = Account::connect(&told.auth_url, &ca).unwrap();
    let backend = Backend::connect(&told.admin_url, &ca, &identity).unwrap();
    let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();

    // The keys that the gateways were given.
    let mut key = None;
    for gateway in backend.list_gateways().await.unwrap() {
        let derived = master.derive(&gateway.id, gateway.incarnation, FIRST_EPOCH);
        canaries.key(
            &format!("{}'s key", gateway.id),
            derived.expose(),
            &derived.to_paserk(),
        );
        key = key.or(Some((gateway.id, derived)));
    }
    let (first, key) = key.unwrap();

    // Others come in by a code that is mailed, which is guessed at first, and by a key of their own.
    let asked = account.request_otp("eve@example.com").await.unwrap();
    let spool = state.join("mail");
    let code = mailed(&spool).await;
    // Six digits may stand in a log by chance: these stand between what is not a digit.
    canaries.digits("the mailed code", &code);
    canaries.0.push((
        "the mailed code's address".to_owned(),
        "eve@example.com".to_owned(),
    ));
    assert!(account.login_otp(&asked, "none").await.is_err());
    let eve = account.login_otp(&asked, &code).await.unwrap();
    canaries.session("eve", &eve);
    assert!(account.login_otp(&asked, &code).await.is_err());
    let password = "a-password-that-is-a-canary";
    for (what, secret) in [
        ("a password", password),
        ("a password's hash", "$argon2id$"),
    ] {
        canaries.0.push((what.to_owned(), secret.to_owned()));
    }
    let wrong = account.login_password("eve@example.com", password).await;
    assert!(wrong.is_err());
    let mallory = account.login_magic_link(&SecretToken::new(password)).await;
    assert!(mallory.is_err());
    let unknown = SecretToken::new("x");
    assert!(account.reset_password(&unknown, password).await.is_err());
    // Links that are mailed, used, and used again.
    let mut tokens = Vec::new();
    for what in ["magic link", "password reset", "e-mail change"] {
        let asked = match what {
            "magic link" => account.request_magic_link("eve@example.com").await,
            "password reset" => account.request_password_reset("eve@example.com").await,
            _ => account.request_email_change(&eve, "eva@example.com").await,
        };
        asked.unwrap();
        let link = mailed(&spool).await;
        let (_, token) = link.split_once("&token=").unwrap();
        canaries
            .0
            .push((format!("the token of a {what}"), token[..24].to_owned()));
        tokens.push(SecretToken::new(token));
    }
    let again = account.login_magic_link(&tokens[0]).await.unwrap();
    canaries.session("eve, by a link,", &again);
    assert!(account.login_magic_link(&tokens[0]).await.is_err());
    account.change_email(&tokens[2]).await.unwrap();
    assert!(account.change_email(&tokens[0]).await.is_err());
    account.reset_password(&tokens[1], password).await.unwrap();
    let eve = account.login_password("eve@example.com", password).await;
    let eve = eve.unwrap();
    canaries.session("eve, by her password,", &eve);
    canaries.0.push((
        "another mailed address".to_owned(),
        "eva@example.com".to_owned(),
    ));
    let device = ClientKey::generate().unwrap();
    let linked = account.link_device_key(&eve, &device, "tickgate").await;
    canaries.session("eve's device", &linked.unwrap());

    // A player comes in, refreshes, comes again, and is refused in every way.
    let ada = account.login_dev("ada").await.unwrap();
    canaries.session("ada", &ada);
    let target = || Target::Gateway(first.clone());
    let ticket = account.issue_connect_token(&ada, target()).await.unwrap();
    canaries.token("a connect token", ticket.token.expose());
    let claims = read_connect(&key, &first, ticket.token.expose()).unwrap();
    canaries.bytes("its nonce", &claims.nonce.0);
    let play = endpoint.connect(&ticket).await.unwrap();
    let refreshed = account.refresh(&ada).await.unwrap();
    canaries.session("ada, refreshed,", &refreshed);
    account.who_am_i(&refreshed.token).await.unwrap();
    let other = account
        .issue_connect_token(
            &refreshed,
            Target::Gateway(told.gateways[1].id.parse().unwrap()),
        )
        .await
        .unwrap();
    canaries.token("another gateway's token", other.token.expose());
    let misdirected = Ticket {
        token: other.token.clone(),
        ..ticket.clone()
    };
    for refused in [
        &ticket,
        &spoilt(&ticket, 40),
        &spoilt(&ticket, ticket.token.expose().len() - 5),
        &misdirected,
    ] {
        assert!(endpoint.connect(refused).await.is_err());
    }
    let mut stranger = refreshed.clone();
    stranger.token = spoilt(
        &Ticket {
            token: refreshed.token.clone(),
            ..ticket.clone()
        },
        40,
    )
    .token;
    assert!(
        account
            .issue_connect_token(&stranger, target())
            .await
            .is_err()
    );
    // The successor is used, and then its parent again: reuse, which ends the session.
    let third = account.refresh(&refreshed).await.unwrap();
    canaries.session("ada, refreshed again,", &third);
    assert!(account.refresh(&ada).await.is_err());
    tokio::time::timeout(Duration::from_secs(10), play.closed())
        .await
        .unwrap();
    let bob = backend.create_session("steam:7656").await.unwrap();
    canaries.session("bob", &bob);
    let waited = Wait::Gateways(Duration::from_secs(5));
    backend.revoke_player(bob.player, waited).await.unwrap();

    let (player, session) = (ada.player.to_string(), ada.id.to_string());
    let mut said = vec![];
    for arguments in [
        &["explain", &player][..],
        &["explain", &session, "--json"],
        &["explain", "--gateway", first.as_str(), "--json"],
        &["sessions", "list", "--all", "--json"],
        &["gateways", "list", "--json"],
        &["token", "inspect", ada.token.expose()],
        &["token", "inspect", "--json", ticket.token.expose()],
        &["check-config", "--json"],
    ] {
        said.push((arguments[0].to_owned(), stack.says(arguments)));
    }
    let urls = told.gateways.iter().map(|gateway| &gateway.metrics_url);
    for url in urls.chain([&told.sidecar_metrics_url]).flatten() {
        said.push(("metrics".to_owned(), scrape(url)));
    }
    said.push((
        "dev.json".to_owned(),
        fs::read_to_string(state.join("dev.json")).unwrap(),
    ));
    endpoint.shutdown().await;
    let asked = Command::new("kill")
        .arg(stack.child.id().to_string())
        .status();
    assert!(asked.unwrap().success());
    stack.child.wait().unwrap();
    let log = stack.log();
    let own = String::from_utf8_lossy(&own.0.lock().unwrap()).into_owned();

    // It was looked where there is something to be found.
    for (name, text) in [("the stack's", &log), ("the client's", &own)] {
        assert!(
            text.contains("TRACE") && text.contains("DEBUG"),
            "{name} log is no trace"
        );
    }
    assert!(log.contains(&session) && said.iter().any(|(_, text)| text.contains(&session)));
    let planted = format!("x {} y", &*refresh_key.to_paserk());
    assert!(!canaries.found_in("planted", &planted).is_empty());

    said.push(("the stack's log".to_owned(), log));
    said.push(("the client's log".to_owned(), own));
    let found: Vec<_> = said
        .iter()
        .flat_map(|(place, text)| canaries.found_in(place, text))
        .collect();
    assert!(found.is_empty(), "secrets were said:\n{}", found.join("\n"));
}
