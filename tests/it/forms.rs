//! Forms of the console that are sent twice: by a double click, by reloading the response, or by a browser that
//! got no response.

use std::io::Write as _;
use std::net::TcpStream;

use base::clock::Clock;
use base::id::FormId;
use base::store::Store;
use jiff::SignedDuration;
use totp_rs::Builder;

use crate::browser::{Browser, PASSWORD, Page};
use crate::console_resources::{Shop, secret};
use crate::harness::{Howdah, ask, eventually};

/// A form that creates something.
struct Form {
    /// The page with the form, and the form's address.
    page: &'static str,
    action: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// The field whose value differs between two created things.
    named: &'static str,
    /// Counts what the form creates.
    count: &'static str,
}

const FORMS: &[Form] = &[
    Form {
        page: "/projects/new",
        action: "/projects",
        fields: &[("name", "Twin"), ("region", "us-east-1")],
        named: "name",
        count: "SELECT count(*) FROM projects",
    },
    Form {
        page: "/projects/new",
        action: "/projects",
        fields: &[("name", "Twin with a database"), ("region", "us-east-1"), ("database", "on")],
        named: "name",
        count: "SELECT count(*) FROM databases",
    },
    Form {
        page: "/projects/{project}/databases/new",
        action: "/projects/{project}/databases/new",
        fields: &[("name", "Twin"), ("region", "us-east-1"), ("branchId", "{branch}")],
        named: "name",
        count: "SELECT count(*) FROM databases",
    },
    Form {
        page: "/databases/{database}/restore",
        action: "/databases/{database}/restore",
        fields: &[("what", "now"), ("into", "new"), ("name", "Twin that is a copy")],
        named: "name",
        count: "SELECT count(*) FROM databases",
    },
    Form {
        page: "/projects/{project}/branches/new",
        action: "/projects/{project}/branches/new",
        fields: &[("gitName", "twin")],
        named: "gitName",
        count: "SELECT count(*) FROM branches",
    },
    Form {
        page: "/databases/{database}",
        action: "/databases/{database}/connections",
        fields: &[("name", "twin")],
        named: "name",
        count: "SELECT count(*) FROM connections",
    },
    Form {
        page: "/integrations/tokens/new",
        action: "/integrations/tokens/new",
        fields: &[("name", "Twin"), ("expiresAt", "7"), ("reach", "all")],
        named: "name",
        count: "SELECT count(*) FROM service_tokens",
    },
    Form {
        page: "/integrations/applications/new",
        action: "/integrations/applications/new",
        fields: &[("name", "Twin"), ("redirectUris", "https://twin.example/")],
        named: "name",
        count: "SELECT count(*) FROM oauth_clients",
    },
    Form {
        page: "/members",
        action: "/members/invitations",
        fields: &[("email", "twin@example.com"), ("role", "viewer")],
        named: "email",
        count: "SELECT count(*) FROM invitations",
    },
];

async fn count(store: &Store, sql: &str) -> i64 {
    store.session().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

/// What matters of a response: its redirect or its page.
fn told(page: &Page) -> (u16, String) {
    let location = page.headers.get("location").map(|value| value.to_str().unwrap().to_owned());
    (page.status, location.unwrap_or_else(|| page.text.clone()))
}

/// Sends the same form twice at the same time.
async fn twice(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> [Page; 2] {
    let (mut one, mut other) = (browser.clone(), browser.clone());
    let (first, second) = tokio::join!(one.submit(path, fields), other.submit(path, fields));
    [first, second]
}

#[tokio::test]
async fn create_form_sent_twice_creates_once() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let mut bea = ada.invite(&howdah, &shop.workspace, "bea", "owner").await;
    let (store, tasks) = howdah.store();
    for form in FORMS {
        let (shown, path) = (shop.at(form.page), shop.at(form.action));
        let filled: Vec<_> = form.fields.iter().map(|(name, value)| (*name, shop.fill(value))).collect();
        let fields: Vec<_> = filled.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let other_name = match form.named {
            "email" => "other@example.com".to_owned(),
            _ => format!("{}-other", fields.iter().find(|(name, _)| *name == form.named).unwrap().1),
        };
        let named = |other: &'_ str| -> Vec<(&str, String)> {
            let value = |name: &str, value: &str| if name == form.named { other.to_owned() } else { value.to_owned() };
            fields.iter().map(|(name, old)| (*name, value(name, old))).collect()
        };
        assert_eq!(ada.get(&shown).await.status, 200, "{shown}");
        let before = count(&store, form.count).await;

        // A refused form is not kept: it can be corrected and sent again.
        let nameless = named("");
        let nameless: Vec<_> = nameless.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if form.action != "/projects" {
            let page = ada.clone().submit(&path, &nameless).await;
            assert_eq!(page.status, 422, "{path}: {}", page.text);
        }

        // Neither without `once` nor with one that is too old.
        let csrf = ada.csrf.clone();
        let unmarked: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        let marked = |once| unmarked.iter().copied().chain([("once", once)]).collect::<Vec<_>>();
        let yesterday = FormId::generate(Clock::system().now() - SignedDuration::from_hours(21)).bare();
        for fields in [unmarked.clone(), marked(""), marked("twice"), marked("0' OR true--")] {
            ada.send(ada.post(&path, &fields)).await.assert_says(403, "Nothing was changed");
        }
        ada.send(ada.post(&path, &marked(&yesterday))).await.assert_says(422, "open for too long");
        assert_eq!(count(&store, form.count).await, before, "{path}: nothing was created");

        // Twice at the same time, and a third time.
        ada.get(&shown).await;
        let [first, second] = twice(&ada, &path, &fields).await;
        assert!([200, 303].contains(&first.status), "{path}: {}", first.text);
        assert_eq!(told(&first), told(&second), "{path}");
        let again = ada.clone().submit(&path, &fields).await;
        assert_eq!(told(&again), told(&first), "{path}: loaded again");
        assert_eq!(again.headers["idempotent-replayed"], "true", "{path}");
        assert_eq!(again.headers["cache-control"], "no-store", "{path}");
        assert_eq!(count(&store, form.count).await, before + 1, "{path} created one");

        // Another name from the same page creates another.
        let other = named(&other_name);
        let other: Vec<_> = other.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = ada.clone().submit(&path, &other).await;
        assert!([200, 303].contains(&page.status), "{path}: {}", page.text);
        assert!(!page.headers.contains_key("idempotent-replayed"), "{path}");
        assert_eq!(count(&store, form.count).await, before + 2, "{path} created another");

        // The `once` of another account's form does not return her response.
        let (csrf, once) = (ada.csrf.clone(), ada.once.clone());
        bea.get(&shown).await;
        let own = bea.csrf.clone();
        bea.csrf = csrf;
        bea.once = once;
        bea.submit(&path, &fields).await.assert_says(403, "Nothing was changed");
        bea.csrf = own;
        let page = bea.submit(&path, &fields).await;
        assert!(!page.headers.contains_key("idempotent-replayed"), "{path}");
        if page.status == 200 {
            assert_ne!(told(&page), told(&first), "{path}");
        }
    }

    // Responses are kept as the API keeps them: sealed, for a day.
    let session = store.session().await.unwrap();
    let [first, _] = {
        ada.get(&shop.at("/integrations/tokens/new")).await;
        twice(&ada, &shop.at("/integrations/tokens/new"), &[("name", "T"), ("expiresAt", "7"), ("reach", "all")]).await
    };
    let value = secret(&first);
    let kept = "SELECT answer, expires_at BETWEEN now() + interval '23 hours' AND now() + interval '24 hours'
                  FROM idempotency_keys
                 WHERE key LIKE 'form-%'";
    let rows = session.query(kept, &[]).await.unwrap();
    assert!(rows.len() > FORMS.len());
    for row in rows {
        let answer = row.get::<_, Vec<u8>>(0);
        let has = |text: &str| answer.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(!has(&value) && !has("status") && row.get::<_, bool>(1));
    }
    tasks.stop();
}

/// Forms that delete something: the page, what to type, and the count of what is left.
const REMOVALS: &[(&str, &str, &str)] = &[
    ("/connections/{connection}/delete", "", "SELECT count(*) FROM connections"),
    ("/databases/{database}/delete", "Orders", "SELECT count(*) FROM databases WHERE deleted_at IS NULL"),
    ("/branches/{branch}/delete", "", "SELECT count(*) FROM branches WHERE deleted_at IS NULL"),
    ("/projects/{project}/delete", "Shop", "SELECT count(*) FROM projects WHERE deleted_at IS NULL"),
    ("/integrations/tokens/{token}/revoke", "", "SELECT count(*) FROM service_tokens WHERE revoked_at IS NULL"),
];

#[tokio::test]
async fn delete_form_sent_twice_gets_the_same_response() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let (store, tasks) = howdah.store();
    for (path, typed, left) in REMOVALS {
        let (path, fields) = (shop.at(path), [("confirm", *typed)]);
        assert_eq!(ada.get(&path).await.status, 200, "{path}");
        let before = count(&store, left).await;
        let [first, second] = twice(&ada, &path, &fields).await;
        let again = ada.clone().submit(&path, &fields).await;
        for other in [&second, &again] {
            assert_eq!((told(other), first.status), (told(&first), 303), "{path}: {}", first.text);
        }
        assert_eq!(count(&store, left).await, before - 1, "{path}");
        assert_eq!(ada.get(first.location()).await.status, 200, "{path}");
        assert_eq!(ada.get(&path).await.status, 404, "{path}");
    }
    tasks.stop();
}

#[tokio::test]
async fn reloading_a_page_with_a_secret_shows_the_same_secret() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let bea = ada.invite(&howdah, &shop.workspace, "bea", "viewer").await;
    drop(bea);

    // The connection string stays valid, however often the page is reloaded.
    let rotate = shop.at("/connections/{connection}/rotate");
    ada.get(&rotate).await;
    let [first, second] = twice(&ada, &rotate, &[]).await;
    let string = secret(&first);
    assert_eq!(secret(&second), string);
    assert_eq!(secret(&ada.clone().submit(&rotate, &[]).await), string);
    assert_eq!(ask(&string, "SELECT 1"), "1");
    ada.get(&rotate).await;
    assert_ne!(secret(&ada.submit(&rotate, &[]).await), string, "another rendering rotates again");

    let page = ada.get("/console/people").await;
    let bea = page.text.rsplit_once("/console/people/").unwrap().1.split_once('"').unwrap().0.to_owned();
    let reset = format!("/console/people/{bea}/reset");
    for path in [&shop.at("/integrations/applications/{application}/rotate"), &reset] {
        ada.get(path.strip_suffix("/reset").unwrap_or(path)).await;
        let [first, second] = twice(&ada, path, &[]).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text);
        assert_eq!(told(&first), told(&second), "{path}");
        ada.get(path.strip_suffix("/reset").unwrap_or(path)).await;
        assert_ne!(told(&ada.submit(path, &[]).await), told(&first), "{path}");
    }

    // A backup, and a restore in place from it.
    let backups = shop.at("/databases/{database}/backups");
    let (store, tasks) = howdah.store();
    ada.get(&backups).await;
    let [first, second] = twice(&ada, &backups, &[("backupType", "full")]).await;
    assert_eq!((first.location(), second.location()), (backups.as_str(), backups.as_str()));
    assert_eq!(count(&store, "SELECT count(*) FROM backups").await, 1);
    let restore = shop.at("/databases/{database}/restore");
    let backup = eventually("the backup to be complete", async || {
        let page = ada.get(&backups).await;
        page.text.contains("/restore?backup=").then(|| page.between("/restore?backup=", "\""))
    })
    .await;
    ada.get(&restore).await;
    let fields = [("what", "backup"), ("backup", backup.as_str()), ("into", "here"), ("confirm", "Orders")];
    let [first, second] = twice(&ada, &restore, &fields).await;
    assert_eq!((first.location(), second.location()), (shop.at("/databases/{database}").as_str(), first.location()));
    let restores = "SELECT count(*) FROM workflows WHERE kind LIKE 'restore%'";
    assert_eq!(count(&store, restores).await, 1);
    tasks.stop();

    // Reloading changes neither the key of the authenticator app nor the recovery codes.
    let begin = "/console/account/authenticator";
    ada.get("/console/account").await;
    let [first, second] = twice(&ada, begin, &[("current", PASSWORD)]).await;
    assert_eq!(told(&first), told(&second));
    let shown = first.between("aria-label=\"Key for the authenticator app\">", "<").replace(' ', "");
    let shown = totp_rs::Secret::try_from_base32(&shown).unwrap();
    let totp = Builder::new().with_secret(shown).build().unwrap();
    ada.once = first.between("name=\"once\" value=\"", "\"");
    let confirm = format!("{begin}/confirm");
    let code = totp.generate(Clock::system().now().as_second() as u64).to_string();
    let [first, second] = twice(&ada, &confirm, &[("code", &code)]).await;
    first.assert_says(200, "Recovery codes");
    assert_eq!(told(&first), told(&second));
    ada.get("/console/account").await;
    let [third, fourth] = twice(&ada, "/console/account/recovery-codes", &[("current", PASSWORD)]).await;
    third.assert_says(200, "Recovery codes");
    assert_eq!(told(&third), told(&fourth));
    assert_ne!(told(&third), told(&first));

    // Workspaces are nobody's yet when their form is sent.
    ada.get("/console/workspaces").await;
    let [first, second] = twice(&ada, "/console/workspaces", &[("name", "Twin")]).await;
    assert_eq!(first.location(), second.location());
}

#[tokio::test]
async fn create_form_completes_after_the_browser_disconnects() {
    // Without prepared instances, a create takes long enough to disconnect meanwhile.
    let howdah = Howdah::start_with(&["--stock", "0"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let (store, tasks) = howdah.store();
    ada.get(&format!("{workspace}/projects/new")).await;
    let path = format!("{workspace}/projects");
    let fields = [("name", "Shop"), ("region", "us-east-1"), ("database", "on")];

    let request = ada.post(&path, &ada.filled(&fields)).build().unwrap();
    let body = request.body().unwrap().as_bytes().unwrap();
    let cookies: Vec<_> = ada.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let address = howdah.url().replace("http://", "");
    let mut connection = TcpStream::connect(&address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: {}\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n",
        cookies.join("; "),
        body.len()
    );
    connection.write_all(&[head.as_bytes(), body].concat()).unwrap();
    eventually("the project to be made", async || {
        (count(&store, "SELECT count(*) FROM projects").await == 1).then_some(())
    })
    .await;
    drop(connection);

    let page = ada.submit(&path, &fields).await;
    assert_eq!(page.headers["idempotent-replayed"], "true");
    let string = secret(&page);
    assert_eq!(count(&store, "SELECT count(*) FROM projects").await, 1);
    assert_eq!(count(&store, "SELECT count(*) FROM idempotency_keys WHERE NOT settled").await, 0);
    assert_eq!(ask(&string, "SELECT 1"), "1");
    tasks.stop();
}
