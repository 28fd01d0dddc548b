//! Mails, with a mail server and without one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use reqwest::StatusCode;
use serde_json::Value;
use smtp::{Mailer, Protection, Server};

use crate::browser::{Browser, PASSWORD, Page};
use crate::harness::{Directory, Howdah, eventually};
use crate::storage::Silence;

const SENDER: &str = "Howdah <howdah@howdah.example>";
const MAIL_PASSWORD: &str = "a-password-of-the-mail-server";

/// A real mail server that keeps all mails.
pub(crate) struct MailServer {
    child: Child,
    directory: Directory,
    port: u16,
    variables: Vec<(&'static str, String)>,
}

/// A received mail.
pub(crate) struct Received(Value);

impl Received {
    pub(crate) fn head(&self) -> &str {
        self.raw().split_once("\r\n\r\n").unwrap().0
    }

    fn text(&self) -> &str {
        self.raw().split_once("\r\n\r\n").unwrap().1
    }

    fn raw(&self) -> &str {
        self.0["raw"].as_str().unwrap()
    }

    /// The path of the link of this kind.
    fn link(&self, kind: &str) -> String {
        let start = format!("/console/{kind}/");
        let rest = self.text().split_once(&start).unwrap_or_else(|| panic!("no {start} in {}", self.raw())).1;
        let token: String = rest.chars().take_while(|letter| !letter.is_whitespace()).collect();
        format!("{start}{token}")
    }
}

impl MailServer {
    /// Accepts every mail, without TLS.
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    /// Requires TLS with a certificate for localhost, and Howdah's user name and password.
    async fn start_closed() -> Self {
        let directory = Self::prepare();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let variables = vec![
            ("MAIL_CERTIFICATE", file("certificate.pem")),
            ("MAIL_KEY", file("key.pem")),
            ("MAIL_USER", "howdah@howdah.example".to_owned()),
            ("MAIL_PASSWORD", MAIL_PASSWORD.to_owned()),
        ];
        Self::start_in(directory, variables).await
    }

    async fn start_with(variables: Vec<(&'static str, String)>) -> Self {
        Self::start_in(Self::prepare(), variables).await
    }

    fn prepare() -> Directory {
        let directory = Directory::new();
        std::fs::create_dir(directory.path()).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.path().join("certificate.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        directory
    }

    async fn start_in(directory: Directory, variables: Vec<(&'static str, String)>) -> Self {
        let child = Self::spawn(&directory, 0, &variables);
        let mut server = Self { child, directory, port: 0, variables };
        server.port = server.ready(0).await;
        server
    }

    fn spawn(directory: &Directory, port: u16, variables: &[(&'static str, String)]) -> Child {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/dist/mail.js");
        assert!(program.exists(), "{} is missing; script/bootstrap --test and script/test make it", program.display());
        let said = std::fs::OpenOptions::new().create(true).append(true).open(directory.path().join("said")).unwrap();
        let mut command = Command::new("node");
        command
            .arg(program)
            .env("MAIL_PORT", port.to_string())
            .envs(variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().expect("node runs")
    }

    /// Waits until the server has reported more than `before` times that it is ready, and returns the port.
    async fn ready(&mut self, before: usize) -> u16 {
        let ready = eventually("the mail server to be ready", async || {
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.said());
            self.events("ready").get(before).cloned()
        });
        ready.await["port"].as_u64().unwrap() as u16
    }

    /// Stops the server.
    fn go_down(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Restarts the server on the same port.
    async fn come_back(&mut self) {
        let before = self.events("ready").len();
        self.child = Self::spawn(&self.directory, self.port, &self.variables);
        self.ready(before).await;
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap()
    }

    fn events(&self, event: &str) -> Vec<Value> {
        let said = self.said();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|found| found["event"] == event).collect()
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.events("mail").into_iter().map(Received).collect()
    }

    /// Waits for the mail number `number` to this address.
    async fn nth(&self, number: usize, address: &str) -> Received {
        eventually(&format!("mail {number} to {address}"), async || {
            self.all().into_iter().filter(|mail| mail.0["to"] == serde_json::json!([address])).nth(number)
        })
        .await
    }

    async fn first(&self, address: &str) -> Received {
        self.nth(0, address).await
    }

    fn ca_file(&self) -> String {
        self.directory.path().join("certificate.pem").display().to_string()
    }

    /// A Howdah that sends mail to this server without TLS.
    pub(crate) async fn howdah(&self) -> Howdah {
        let url = format!("smtp://127.0.0.1:{}", self.port);
        Howdah::start_with(&["--smtp-url", &url, "--mail-from", SENDER]).await
    }

    /// A mailer for use inside the test.
    pub(crate) fn mailer(&self) -> Mailer {
        let (host, port, protection) = ("127.0.0.1".to_owned(), self.port, Protection::Nothing);
        let server = Server { host, port, protection, login: None, authorities: None };
        Mailer::new(server, SENDER, "howdah.example").unwrap()
    }

    fn closed_url(&self) -> String {
        format!("smtp://howdah%40howdah.example@localhost:{}?tls=required", self.port)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn ask(browser: &mut Browser, email: &str) -> Page {
    browser.get("/console/forgotten").await;
    browser.submit("/console/forgotten", &[("email", email)]).await
}

async fn invite(ada: &mut Browser, workspace: &str, email: &str) -> Page {
    ada.get(&format!("{workspace}/members")).await;
    ada.submit(&format!("{workspace}/members/invitations"), &[("email", email), ("role", "developer")]).await
}

#[tokio::test]
async fn invitation_is_mailed_over_tls_and_can_be_accepted() {
    let server = MailServer::start_closed().await;
    let (url, ca_file) = (server.closed_url(), server.ca_file());
    let arguments = ["--smtp-url", &url, "--smtp-ca-file", &ca_file, "--mail-from", SENDER];
    let howdah = Howdah::start_in(&[("HOWDAH_SMTP_PASSWORD", MAIL_PASSWORD)], &arguments).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let page = invite(&mut ada, &workspace, "grace@example.com").await;
    page.assert_says(200, "Invitation mailed to grace@example.com");
    let shown = format!("/console/invitations/{}", page.between("/console/invitations/", "<"));

    let mail = server.first("grace@example.com").await;
    assert_eq!((&mail.0["secure"], &mail.0["user"]), (&true.into(), &"howdah@howdah.example".into()));
    assert_eq!(mail.0["from"], "howdah@howdah.example");
    for line in [
        "Subject: Ada invited you to \"Default\" on Howdah",
        "From: Howdah <howdah@howdah.example>",
        "To: grace@example.com",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
    ] {
        assert!(mail.head().lines().any(|found| found == line), "no {line:?} in {}", mail.head());
    }
    for words in ["Ada (ada@example.com)", "with the role developer", &howdah.url(), "expires on "] {
        assert!(mail.text().contains(words), "no {words:?} in {}", mail.text());
    }
    assert_eq!(mail.link("invitations"), shown);
    eventually("the page to say so", async || {
        ada.get(&format!("{workspace}/members"))
            .await
            .text
            .contains("<span class=\"beside\">Mailed</span>")
            .then_some(())
    })
    .await;

    let mut grace = Browser::new(&howdah);
    let link = mail.link("invitations");
    grace.get(&link).await.assert_says(200, "grace@example.com");
    let account = [("name", "Grace"), ("password", PASSWORD), ("again", PASSWORD), ("email", "")];
    assert_eq!(grace.submit(&format!("{link}/account"), &account).await.location(), workspace);

    // The mail's text is removed, and no secret is in the log or among the arguments.
    let (store, tasks) = howdah.store();
    let kept = "SELECT count(*) FROM mails WHERE sealed IS NOT NULL";
    let row = store.session().await.unwrap().query_one(kept, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    tasks.stop();
    let log = howdah.log();
    assert!(!log.contains(MAIL_PASSWORD) && !log.contains(link.rsplit('/').next().unwrap()), "{log}");
}

#[tokio::test]
async fn forgotten_password_gets_a_reset_link_by_mail() {
    let server = MailServer::start().await;
    let howdah = server.howdah().await;
    let mut ada = Browser::administrator(&howdah).await;
    let mut browser = Browser::new(&howdah);
    browser.get("/console/sign-in").await.assert_says(200, "href=\"/console/forgotten\"");
    let page = browser.submit("/console/sign-in", &[("email", "ada@example.com"), ("password", "wrong")]).await;
    page.assert_says(422, "href=\"/console/forgotten\"");

    for page in ["/console/forgotten", "/console/forgotten/asked"] {
        let page = browser.get(page).await;
        let header = |name: &str| page.headers[name].to_str().unwrap();
        assert_eq!((page.status, header("cache-control"), header("x-frame-options")), (200, "no-store", "DENY"));
        assert!(header("content-security-policy").starts_with("default-src 'none'"));
    }
    let forged = browser.post("/console/forgotten", &[("email", "ada@example.com")]);
    browser.send(forged).await.assert_says(403, "Nothing was changed");
    ask(&mut browser, "not an address").await.assert_says(422, "Not a valid email address");
    assert_eq!(ask(&mut browser, " ADA@example.com").await.location(), "/console/forgotten/asked");
    browser.get("/console/forgotten/asked").await.assert_says(200, "Check your mail");
    assert_eq!(ask(&mut browser, "ada@example.com").await.location(), "/console/forgotten/asked");
    let (first, second) = (server.first("ada@example.com").await, server.nth(1, "ada@example.com").await);
    assert!(first.head().contains("Subject: Reset the password of your Howdah account"), "{}", first.head());
    assert!(first.text().contains("If you did not request it, ignore this mail"), "{}", first.text());
    let (link, other) = (first.link("reset"), second.link("reset"));
    assert_ne!(link, other);
    assert!(first.text().contains(&format!("\r\n{}{link}\r\n", howdah.url())), "{}", first.text());

    // Both links work until one is used, so that a stranger's request does not invalidate the owner's link.
    browser.get(&other).await.assert_says(200, "ada@example.com");
    browser.get(&link).await.assert_says(200, "ada@example.com");
    let new = [("password", "another-fine-tusk-7"), ("again", "another-fine-tusk-7")];
    assert_eq!(browser.submit(&link, &new).await.location(), "/console/sign-in");
    browser.get(&link).await.assert_says(404, "expired or has already been used");
    browser.get(&other).await.assert_says(404, "expired or has already been used");
    assert!(ada.get("/console/account").await.location().starts_with("/console/sign-in"));
    let told = server.nth(2, "ada@example.com").await;
    assert!(told.head().contains("Subject: The password of your Howdah account was changed"), "{}", told.head());
    assert!(told.text().contains("127.0.0.1") && !told.text().contains("/reset/"), "{}", told.text());

    // Changes by the owner are mailed too. An administrator's link is mailed and shown.
    browser.get("/console/sign-in").await;
    browser.submit("/console/sign-in", &[("email", "ada@example.com"), ("password", "another-fine-tusk-7")]).await;
    let workspace = browser.workspace().await;
    let _bob = browser.invite(&howdah, &workspace, "bob", "developer").await;
    let page = browser.get("/console/people").await;
    let bob = page.text.rsplit_once("href=\"/console/people/").unwrap().1.split('"').next().unwrap().to_owned();
    browser.get(&format!("/console/people/{bob}")).await.assert_says(200, "Mail reset link");
    let page = browser.submit(&format!("/console/people/{bob}/reset"), &[]).await;
    page.assert_says(200, "Password reset link mailed to bob@example.com");
    let mail = server.nth(1, "bob@example.com").await;
    assert_eq!(mail.link("reset"), format!("/console/reset/{}", page.between("/console/reset/", "<")));
    assert!(mail.text().contains("An administrator created a password reset link"), "{}", mail.text());
    for _ in 0..2 {
        // No mail without a change.
        browser.submit(&format!("/console/people/{bob}/administrator"), &[("administrator", "on")]).await.location();
    }
    let mail = server.nth(2, "bob@example.com").await;
    assert!(mail.head().contains("Subject: You are now an administrator of Howdah"), "{}", mail.head());
    assert!(mail.text().contains("Ada (ada@example.com)"), "{}", mail.text());
    browser.get("/console/account").await;
    let new = [("current", "another-fine-tusk-7"), ("password", PASSWORD), ("again", PASSWORD)];
    browser.submit("/console/account/password", &new).await.location();
    server.nth(3, "ada@example.com").await;
    browser.submit("/console/account/authenticator/remove", &[("current", PASSWORD)]).await.location();
    let told = server.nth(4, "ada@example.com").await;
    assert!(
        told.head().contains("Subject: Two-factor authentication of your Howdah account was turned off"),
        "{}",
        told.head()
    );
    assert_eq!(server.all().iter().filter(|mail| mail.0["to"][0] == "bob@example.com").count(), 3);
    let log = howdah.log();
    for link in [link, other] {
        assert!(!log.contains(link.rsplit('/').next().unwrap()), "{log}");
    }
}

#[tokio::test]
async fn reset_requests_do_not_reveal_accounts() {
    let server = MailServer::start().await;
    let howdah = server.howdah().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    for name in ["out", "vouched"] {
        ada.invite(&howdah, &workspace, name, "viewer").await;
    }
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    session.execute("UPDATE users SET disabled_at = now() WHERE email = 'out@example.com'", &[]).await.unwrap();
    session.execute("UPDATE users SET password_hash = NULL WHERE email = 'vouched@example.com'", &[]).await.unwrap();

    // Accounts are not read before the response: it arrives although they are locked.
    let lock = store.begin().await.unwrap();
    lock.batch_execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut answers = BTreeSet::new();
    for email in ["nobody@example.com", "out@example.com", "vouched@example.com", "ada@example.com"] {
        let mut browser = Browser::new(&howdah);
        let page = ask(&mut browser, email).await;
        let mut headers: Vec<_> = page.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        headers.retain(|line| !["x-request-id", "date", "ratelimit"].iter().any(|start| line.starts_with(start)));
        let asked = browser.get(page.location()).await;
        let text = asked.text.split("name=\"csrf\"").next().unwrap().to_owned();
        answers.insert((page.status, headers, page.text, asked.status, text));
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    drop(lock);
    server.first("ada@example.com").await;
    // Lookups run in order, so after this mail all earlier requests are done.
    ask(&mut Browser::new(&howdah), "ada@example.com").await.location();
    server.nth(1, "ada@example.com").await;
    let all = server.all();
    let links = all.iter().filter(|mail| mail.raw().contains("/console/reset/"));
    let links: Vec<&str> = links.map(|mail| mail.0["to"][0].as_str().unwrap()).collect();
    assert_eq!(links, ["ada@example.com", "ada@example.com"]);
    let rows = session.query_one("SELECT count(*) FROM account_links", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 2);

    // Too many requests are refused alike for existing and unknown addresses, and count per account.
    for email in ["nobody@example.com", "ada@example.com"] {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses
                .push(ask(&mut Browser::new(&howdah), &format!("{}{email}", " ".repeat(statuses.len()))).await.status);
        }
        let taken = statuses.iter().filter(|status| **status == 303).count();
        assert_eq!((statuses[3], taken), (429, if email.starts_with('n') { 2 } else { 1 }), "{email}: {statuses:?}");
    }
    let page = ask(&mut Browser::new(&howdah), "ADA@example.com").await;
    page.assert_says(429, "Too many attempts");
    assert!(page.headers.contains_key("retry-after"));
    assert_eq!(ask(&mut Browser::new(&howdah), "other@example.com").await.status, 303);
    let mut last = 0;
    for count in 0..20 {
        last = ask(&mut Browser::new(&howdah), &format!("{count}@example.com")).await.status;
    }
    assert_eq!(last, 429, "requests are limited per address");
    tasks.stop();
}

#[tokio::test]
async fn mail_is_retried_while_requests_do_not_wait() {
    let mut server = MailServer::start().await;
    server.go_down();
    let howdah = server.howdah().await;
    eventually("the warning", async || {
        howdah.log().contains("mail is queued until the server is available").then_some(())
    })
    .await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let page = invite(&mut ada, &workspace, "grace@example.com").await;
    page.assert_says(200, "Invitation mailed to grace@example.com");
    let shown = format!("/console/invitations/{}", page.between("/console/invitations/", "<"));
    eventually("the page to say so", async || {
        ada.get(&format!("{workspace}/members")).await.text.contains("Not mailed yet").then_some(())
    })
    .await;

    // Queued mails are sealed with the master key.
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    let token = shown.rsplit('/').next().unwrap();
    let row = session.query_one("SELECT sealed, m::text AS shown FROM mails m", &[]).await.unwrap();
    let sealed: Vec<u8> = row.get("sealed");
    assert!(!sealed.windows(token.len()).any(|part| part == token.as_bytes()));
    assert!(!row.get::<_, String>("shown").contains("grace"));

    // A revoked invitation is not mailed.
    invite(&mut ada, &workspace, "dan@example.com").await;
    let page = ada.get(&format!("{workspace}/members")).await;
    let (rest, _) = page.text.rsplit_once("/withdraw").unwrap();
    let id = rest.rsplit_once("/members/invitations/").unwrap().1.to_owned();
    ada.submit(&format!("{workspace}/members/invitations/{id}/withdraw"), &[]).await.location();
    invite(&mut ada, &workspace, "eve@example.com").await;
    server.come_back().await;
    assert_eq!(server.first("grace@example.com").await.link("invitations"), shown);
    server.first("eve@example.com").await;
    howdah.assert_tidy().await;
    assert!(server.all().iter().all(|mail| mail.0["to"][0] != "dan@example.com"));
    tasks.stop();
}

#[tokio::test]
async fn hanging_mail_server_does_not_block_other_work() {
    let silence = Silence::new();
    let url = format!("smtp://{}", silence.endpoint());
    let howdah = Howdah::start_with(&["--smtp-url", &url, "--mail-from", SENDER]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let begun = Instant::now();
    for count in 0..12 {
        invite(&mut ada, &workspace, &format!("{count}@example.com")).await.assert_says(200, "/console/invitations/");
    }
    // More mails wait than there are workers, but they do not occupy all of them.
    howdah.owner().create_project("meanwhile").await;
    let (store, tasks) = howdah.store();
    let running = "SELECT count(*) FROM workflows WHERE kind = 'send_mail' AND state = 'running'";
    let row = store.session().await.unwrap().query_one(running, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) <= 2, "mail has two workers of its own");
    tasks.stop();
    assert!(begun.elapsed().as_secs() < 120, "each mail may take thirty seconds: {:?}", begun.elapsed());
}

#[tokio::test]
async fn wrong_smtp_password_is_logged_and_mail_is_kept() {
    let server = MailServer::start_closed().await;
    let (url, ca_file) = (server.closed_url(), server.ca_file());
    let path = Directory::new().path().to_owned();
    std::fs::create_dir_all(&path).unwrap();
    let file = server.directory.path().join("password");
    std::fs::write(&file, "hush-hush-wrong\n").unwrap();
    let password = file.display().to_string();
    let arguments =
        ["--smtp-url", &url, "--smtp-ca-file", &ca_file, "--mail-from", SENDER, "--smtp-password-file", &password];
    let mut howdah = Howdah::start_on(path, &arguments).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    invite(&mut ada, &workspace, "grace@example.com").await;
    let said = "refused the login";
    eventually("the log to say so of the mail", async || {
        let log = howdah.log();
        log.lines().find(|line| line.contains(said) && line.contains("(invitation)")).map(|_| ())
    })
    .await;
    assert!(howdah.log().contains("535") && !howdah.log().contains("hush-hush"), "{}", howdah.log());
    ada.get(&format!("{workspace}/members")).await.assert_says(200, "Not mailed yet");
    assert_eq!(server.events("from").len(), 0);
    howdah.stop().await;
    std::fs::write(&file, format!("{MAIL_PASSWORD}\n")).unwrap();
    howdah.launch().await;
    server.first("grace@example.com").await;
}

#[tokio::test]
async fn mail_to_a_refused_address_is_given_up_and_reported() {
    let server = MailServer::start_with(vec![("MAIL_REFUSE", "nobody@example.com".to_owned())]).await;
    let mut howdah = server.howdah().await;
    howdah.expect_errors(&["workflow failed"]);
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    invite(&mut ada, &workspace, "nobody@example.com").await.assert_says(200, "/console/invitations/");
    // Valid addresses of accounts can still be refused by mail servers.
    invite(&mut ada, &workspace, "a>b@example.com").await.assert_says(200, "/console/invitations/");
    eventually("the page to say so", async || {
        let page = ada.get(&format!("{workspace}/members")).await;
        (page.text.matches("the mail server refused the address").count() == 2).then_some(())
    })
    .await;
    assert!(howdah.log().contains("5.1.1 Nobody here has this address"), "{}", howdah.log());
    assert_eq!(server.events("to").len(), 1, "it is attempted once");
    assert_eq!(server.all().len(), 0);
}

#[tokio::test]
async fn mail_is_not_sent_without_verified_tls() {
    // A man in the middle removes STARTTLS, or presents his own certificate.
    let stripped = MailServer::start_with(vec![
        ("MAIL_USER", "howdah@howdah.example".to_owned()),
        ("MAIL_PASSWORD", MAIL_PASSWORD.to_owned()),
    ])
    .await;
    let foreign = MailServer::start_closed().await;
    for (server, said) in [(&stripped, "STARTTLS"), (&foreign, "certificate")] {
        let (url, ca_file) = (server.closed_url(), stripped.ca_file());
        let arguments = ["--smtp-url", &url, "--smtp-ca-file", &ca_file, "--mail-from", SENDER];
        let howdah = Howdah::start_in(&[("HOWDAH_SMTP_PASSWORD", MAIL_PASSWORD)], &arguments).await;
        let mut ada = Browser::administrator(&howdah).await;
        let workspace = ada.workspace().await;
        invite(&mut ada, &workspace, "grace@example.com").await;
        eventually("the log to say so of the mail", async || {
            let log = howdah.log();
            log.lines().find(|line| line.contains("(invitation)") && line.contains(said)).map(|_| ())
        })
        .await;
        assert!(!server.events("connect").is_empty());
        for event in ["login", "from", "to", "mail"] {
            assert_eq!(server.events(event), Vec::<Value>::new(), "{event}: {}", server.said());
        }
    }
}

#[tokio::test]
async fn names_cannot_inject_headers_or_links_and_invitations_are_limited() {
    let server = MailServer::start().await;
    let howdah = server.howdah().await;
    let mut ada = Browser::administrator(&howdah).await;
    ada.get("/console/account").await;
    let hostile = "Zoë https://evil.example/?a=b Bcc: eve@evil.example";
    ada.submit("/console/account/name", &[("name", hostile)]).await.location();
    ada.submit("/console/account/name", &[("name", "Ada\r\nBcc: eve@evil.example")])
        .await
        .assert_says(422, "is invisible");
    ada.get("/console/workspaces").await;
    let page = ada.submit("/console/workspaces", &[("name", "\"}}{{ 7*7 }}<b>=?utf-8?q?x?=")]).await;
    let workspace = page.location().to_owned();
    invite(&mut ada, &workspace, "grace@example.com").await.assert_says(200, "Invitation mailed");
    let mail = server.first("grace@example.com").await;
    let head = mail.head();
    assert!(!head.replace("\r\n", "").contains(['\r', '\n']) && !head.contains("\r\nBcc"), "{head}");
    assert_eq!(mail.0["to"], serde_json::json!(["grace@example.com"]));
    for header in ["From: ", "To: ", "Subject: ", "Auto-Submitted: ", "Message-ID: "] {
        assert_eq!(head.lines().filter(|line| line.starts_with(header)).count(), 1, "{header}: {head}");
    }
    let text = mail.text();
    assert!(!text.contains("evil.example") && text.contains("{{ 7*7 }}"), "{text}");
    // Links do not use the request's `Host`.
    assert!(mail.link("invitations").len() > 32 && text.contains(&howdah.url()), "{text}");

    for count in 1..5 {
        let page = invite(&mut ada, &workspace, "GRACE@example.com").await;
        let said = if count < 3 { "Invitation mailed" } else { "The invitation was not mailed: too many" };
        page.assert_says(200, said);
        page.assert_says(200, "/console/invitations/");
    }
}

#[tokio::test]
async fn conflicting_mail_options_are_rejected_at_start() {
    let directory = Directory::new();
    let sender: (&str, &str) = ("--mail-from", SENDER);
    for (arguments, said) in [
        (vec![sender], "--mail-from needs --smtp-url"),
        (vec![("--smtp-url", "smtp://localhost")], "--smtp-url needs --mail-from"),
        (vec![("--smtp-url", "localhost"), sender], "--smtp-url is not a mail server such as"),
        (vec![("--smtp-url", "smtp://u:hush-hush@mail.example.com"), sender], "take it out"),
        (vec![("--smtp-url", "smtp://u@mail.example.com"), sender], "there is no password"),
        (vec![("--smtp-url", "smtp://localhost"), ("--mail-from", "Howdah")], "is not a sender such as"),
        (vec![("--smtp-url", "smtps://localhost"), sender, ("--smtp-ca-file", "/nonexistent")], "check --smtp-ca-file"),
        (
            vec![("--smtp-url", "smtps://u@localhost"), sender, ("--smtp-password-file", "/nonexistent")],
            "check --smtp-password-file",
        ),
    ] {
        let arguments: Vec<String> =
            arguments.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned).collect();
        let output = Howdah::command(directory.path(), &arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains(said) && !text.contains("hush-hush"),
            "{arguments:?}: {text}"
        );
        assert_eq!(text.trim().lines().count(), 1, "{text}");
        assert!(!directory.path().exists(), "nothing was created");
    }
}

#[tokio::test]
async fn links_are_shown_without_a_mail_server() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut browser = Browser::new(&howdah);
    assert!(!browser.get("/console/sign-in").await.text.contains("forgotten"));
    for path in ["/console/forgotten", "/console/forgotten/asked"] {
        browser.get(path).await.assert_says(404, "Page not found");
    }
    browser.get("/console/sign-in").await;
    let page = browser.submit("/console/forgotten", &[("email", "ada@example.com")]).await;
    assert_eq!(page.status, StatusCode::NOT_FOUND.as_u16());
    let page = invite(&mut ada, &workspace, "grace@example.com").await;
    page.assert_says(200, "Send this link to grace@example.com");
    assert!(!page.text.contains("mailed"), "{}", page.text);
    let (store, tasks) = howdah.store();
    let row = store.session().await.unwrap().query_one("SELECT count(*) FROM mails", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
    tasks.stop();
}
