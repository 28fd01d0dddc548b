//! The console's pages of projects, databases, connections, backups, operations, integrations and the audit log,
//! as used by a browser without JavaScript.

use base::name::ProjectName;
use domain::operations::kinds;
use jobs::backup::BackUpStep;
use jobs::database::{DeleteStep, ProvisionStep};
use jobs::recovery::RecoverStep;
use jobs::restore::RestoreStep;
use jobs::trial::TrialStep;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::harness::{Howdah, Person, ask, complaint, connection_string, eventually};
use crate::sdk::run;

/// Pages for all members.
const READ: &[&str] = &[
    "",
    "/projects",
    "/projects?q=shop",
    "/projects/{project}",
    "/databases/{database}",
    "/databases/{database}?span=month",
    "/databases/{database}/status",
    "/databases/{database}/backups",
    "/operations",
    "/operations?state=failed",
    "/operations?project={project}",
    "/operations?database={database}",
    "/operations/{operation}",
    "/operations/{operation}/status",
    "/integrations",
    "/deleted",
    "/audit",
    "/audit?action=create+project&outcome=allowed&project={project}&since=2020-01-01T00:00",
    "/audit?actor=ada",
];

/// Pages with forms, for members who may change resources.
const ASK: &[&str] = &[
    "/projects/new",
    "/projects/{project}/settings",
    "/projects/{project}/databases/new",
    "/projects/{project}/branches/new",
    "/branches/{branch}/delete",
    "/databases/{database}/settings",
    "/databases/{database}/restore",
    "/connections/{connection}/rotate",
    "/connections/{connection}/delete",
    "/operations/{operation}/cancel",
    "/integrations/tokens/new",
    "/integrations/tokens/{token}/revoke",
    "/integrations/applications/new",
    "/integrations/applications/{application}",
    "/integrations/applications/{application}/rotate",
];

/// Every form, with valid fields.
const CHANGES: &[(&str, &[(&str, &str)])] = &[
    ("/projects", &[("name", "Forged"), ("region", "us-east-1")]),
    ("/projects/{project}/settings", &[("name", "Forged")]),
    ("/projects/{project}/delete", &[("confirm", "Shop")]),
    ("/projects/{project}/databases/new", &[("name", "Forged"), ("region", "us-east-1"), ("branchId", "{branch}")]),
    ("/projects/{project}/branches/new", &[("gitName", "forged")]),
    ("/branches/{branch}/default", &[]),
    ("/branches/{branch}/delete", &[]),
    ("/databases/{database}/settings", &[("name", "Forged"), ("branchId", "{branch}")]),
    ("/databases/{database}/delete", &[("confirm", "Orders")]),
    ("/databases/{database}/connections", &[("name", "forged")]),
    ("/connections/{connection}/rotate", &[]),
    ("/connections/{connection}/delete", &[]),
    ("/databases/{database}/backups", &[("backupType", "")]),
    ("/databases/{database}/restore", &[("what", "now"), ("into", "new"), ("name", "Forged")]),
    ("/operations/{operation}/cancel", &[]),
    ("/operations/{operation}/retry", &[]),
    ("/integrations/tokens/new", &[("name", "Forged"), ("expiresAt", "7"), ("reach", "all")]),
    ("/integrations/tokens/{token}/revoke", &[]),
    ("/integrations/applications/new", &[("name", "Forged"), ("redirectUris", "https://forged.example/")]),
    ("/integrations/applications/{application}", &[("name", "Forged"), ("redirectUris", "https://forged.example/")]),
    ("/integrations/applications/{application}/rotate", &[]),
    ("/integrations/applications/{application}/delete", &[("confirm", "Planner")]),
];

/// A confidential application.
const PLANNER: &[(&str, &str)] = &[
    ("name", "Planner"),
    ("description", "Plans the day"),
    ("redirectUris", "https://planner.example/callback\r\nhttp://localhost/callback"),
];

/// A workspace with one resource of each kind.
pub(crate) struct Shop {
    pub(crate) workspace: String,
    ids: Vec<(&'static str, String)>,
    pub(crate) owner: Person,
}

impl Shop {
    pub(crate) async fn open(howdah: &Howdah, ada: &mut Browser) -> Self {
        let owner = howdah.owner();
        let project = owner.create_project("Shop").await;
        let id = |value: &Value| bare(value["id"].as_str().unwrap());
        let path = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
        let database = owner.post(&path, json!({"name": "Orders"})).await.data(201).clone();
        let path = format!("/v1/projects/{}/branches", project["id"].as_str().unwrap());
        let branch = owner.post(&path, json!({"gitName": "feature/search"})).await.data(201).clone();
        let token = owner.create_token(json!({"name": "Nightly"})).await;
        let operation = bare(database["operationId"].as_str().unwrap());
        owner.ended(database["operationId"].as_str().unwrap()).await;
        let ids = vec![
            ("{project}", id(&project)),
            ("{database}", id(&database)),
            ("{branch}", id(&branch)),
            ("{connection}", id(&database["connections"][0])),
            ("{operation}", operation),
            ("{token}", bare(&token.id)),
        ];
        let mut shop = Self { workspace: ada.workspace().await, ids, owner };
        let page = ada.submit(&shop.at("/integrations/applications/new"), PLANNER).await;
        secret(&page);
        shop.ids.push(("{application}", page.between("/integrations/applications/", "\"")));
        shop
    }

    pub(crate) fn at(&self, template: &str) -> String {
        self.below(&self.workspace, template)
    }

    /// The same ids in another workspace.
    fn below(&self, workspace: &str, template: &str) -> String {
        format!("{workspace}{}", self.fill(template))
    }

    pub(crate) fn fill(&self, template: &str) -> String {
        self.ids.iter().fold(template.to_owned(), |text, (name, id)| text.replace(name, id))
    }

    /// The API's view of everything that a form could change.
    async fn state(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let workspace = self.owner.workspace_id().await;
        for path in [
            "/v1/projects".to_owned(),
            "/v1/databases".to_owned(),
            "/v1/connections".to_owned(),
            format!("/v1/projects/{}/branches", self.fill("proj_{project}")),
            format!("/v1/databases/{}/backups", self.fill("db_{database}")),
            format!("/v1/workspaces/{workspace}/service-tokens"),
            "/v1/operations".to_owned(),
        ] {
            let mut data = self.owner.get(&path).await.data(200).clone();
            for one in data.as_array_mut().into_iter().flatten() {
                // Each request updates the time of the last use.
                one.as_object_mut().unwrap().remove("lastUsedAt");
            }
            all.push(data);
        }
        all
    }
}

fn bare(id: &str) -> String {
    id.split_once('_').unwrap().1.to_owned()
}

/// The secret that a page shows.
pub(crate) fn secret(page: &Page) -> String {
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(!page.headers.contains_key("location"));
    let shown = page.text.split_once("class=\"secret\"").unwrap_or_else(|| panic!("no secret in {}", page.text)).1;
    let shown = shown.split_once("<pre").unwrap().1.split_once('>').unwrap().1;
    shown.split_once("</pre>").unwrap().0.replace("&#38;", "&")
}

#[tokio::test]
async fn pages_and_forms_require_membership_and_role() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let mut vera = ada.invite(&howdah, &shop.workspace, "vera", "viewer").await;
    let mut dora = ada.invite(&howdah, &shop.workspace, "dora", "developer").await;
    ada.get("/console/workspaces").await;
    let elsewhere = ada.submit("/console/workspaces", &[("name", "Elsewhere")]).await.location().to_owned();
    let mut fred = ada.invite(&howdah, &elsewhere, "fred", "owner").await;

    for template in READ {
        let path = shop.at(template);
        for (who, browser) in [("ada", &mut ada), ("vera", &mut vera), ("dora", &mut dora)] {
            let page = browser.get(&path).await;
            assert_eq!(page.status, 200, "{who} {path}: {}", page.text);
            assert_eq!(page.headers["cache-control"], "no-store", "{path}");
        }
        fred.get(&path).await.assert_says(404, "Page not found");
        assert!(Browser::new(&howdah).get(&path).await.location().starts_with("/console/sign-in"), "{path}");
    }
    for template in ASK {
        let path = shop.at(template);
        // An operation that has ended cannot be cancelled.
        let allowed = if template.ends_with("/cancel") { 409 } else { 200 };
        assert_eq!(ada.get(&path).await.status, allowed, "{path}");
        vera.get(&path).await.assert_says(403, "Permission denied");
        fred.get(&path).await.assert_says(404, "Page not found");
        let status = if template.starts_with("/integrations") { 403 } else { allowed };
        assert_eq!(dora.get(&path).await.status, status, "{path}");
    }

    // Forms that the role does not allow are not shown.
    for template in READ {
        let page = vera.get(&shop.at(template)).await;
        let main = page.text.split_once("<main").map_or(page.text.as_str(), |(_, main)| main);
        assert!(!main.contains("method=\"post\""), "{template}: {main}");
        for word in ["New ", "Rotate", "Delete…", "Restore…", "Revoke", "/settings\""] {
            assert!(!main.contains(word), "{template} offers {word:?}: {main}");
        }
    }
    let page = dora.get(&shop.at("/integrations")).await;
    assert!(!page.text.contains("New service token") && !page.text.contains("Revoke"), "{}", page.text);
    assert!(ada.get(&shop.at("/integrations")).await.text.contains("New service token"));

    // Sending them anyway changes nothing.
    let before = shop.state().await;
    let mine = shop.at("");
    for (template, fields) in CHANGES {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, shop.fill(value))).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let path = shop.at(template);
        vera.get(&mine).await;
        vera.submit(&path, &fields).await.assert_says(403, "Permission denied");
        fred.get("/console/workspaces").await;
        fred.submit(&path, &fields).await.assert_says(404, "Page not found");
        // Ids of one workspace are not found in another.
        let page = fred.submit(&shop.below(&elsewhere, template), &fields).await;
        if template.contains('{') {
            page.assert_says(404, "Page not found");
        }
        let page = ada.send(ada.post(&path, &fields)).await;
        page.assert_says(403, "Nothing was changed");
    }
    for template in ["/integrations/tokens/new", "/integrations/tokens/{token}/revoke"] {
        dora.get(&mine).await;
        let page = dora.submit(&shop.at(template), &[("name", "Forged"), ("expiresAt", "7"), ("reach", "all")]).await;
        page.assert_says(403, "Permission denied");
    }
    assert_eq!(shop.state().await, before);
    // Each of these attempts is in the audit log, under a name and with a reason.
    let log = format!("/v1/workspaces/{}/audit-log?outcome=refused&limit=500", shop.owner.workspace_id().await);
    let refused = shop.owner.get(&format!("{log}&actorName=VERA@")).await.data(200).clone();
    let refused: Vec<&Value> = refused.as_array().unwrap().iter().rev().collect();
    assert_eq!(refused.len(), CHANGES.len(), "a form of the console has no name in src/http/console/actions.rs");
    for ((template, _), entry) in CHANGES.iter().zip(&refused) {
        assert_eq!((&entry["status"], &entry["actor"]["name"]), (&json!(403), &json!("vera@example.com")));
        assert!(entry["reason"].as_str().unwrap().contains("viewer"), "{template}: {entry}");
        let about = entry["resource"]["id"].as_str().unwrap().split_once('_').map_or("", |(_, bare)| bare);
        let last = template.rsplit('{').next().and_then(|rest| rest.split_once('}'));
        if let Some((noun, _)) = last.filter(|(noun, _)| *noun != "application") {
            assert_eq!(about, shop.fill(&format!("{{{noun}}}")), "{template}: {entry}");
        }
    }
    let forged = shop.owner.get(&format!("{log}&actorName=ada")).await.data(200).clone();
    assert!(forged.as_array().unwrap().len() >= CHANGES.len(), "forms without a valid token are recorded, too");
    assert!(shop.owner.get(&format!("{log}&actorName=fred")).await.data(200).as_array().unwrap().is_empty());
    let page = ada.get("/console/audit?outcome=refused&actor=fred").await;
    page.assert_says(200, "Delete project");
    let page = ada.get(&shop.at("/integrations/applications/{application}")).await;
    page.assert_says(200, "https://planner.example/callback");
    assert!(!ada.get(&shop.at("/integrations")).await.text.contains("Forged"));

    // Invalid ids are not found.
    for path in ["/projects/x", "/databases/proj_{project}", "/operations/0", "/connections/{database}/rotate"] {
        ada.get(&shop.at(path)).await.assert_says(404, "Page not found");
    }
}

#[tokio::test]
async fn user_chosen_names_are_escaped() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let owner = howdah.owner();
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} & olleh";
    let project = owner.create_project(hostile).await;
    let database = project["database"]["id"].as_str().unwrap();
    owner.post(&format!("/v1/databases/{database}/connections"), json!({"name": &hostile[..60]})).await.data(200);
    let path = format!("/v1/projects/{}/branches", project["id"].as_str().unwrap());
    let branch = owner.post(&path, json!({"gitName": hostile})).await.data(201).clone();
    let token = owner.create_token(json!({"name": hostile})).await;
    let (id, database) = (bare(project["id"].as_str().unwrap()), bare(database));
    let connection = bare(project["database"]["connections"][0]["id"].as_str().unwrap());
    let encoded = serde_html_form::to_string([("q", hostile), ("action", hostile), ("resource", hostile)]).unwrap();
    let pages = [
        "/projects".to_owned(),
        format!("/projects?{encoded}"),
        format!("/projects/{id}"),
        format!("/projects/{id}/settings"),
        format!("/projects/{id}/databases/new"),
        format!("/databases/{database}"),
        format!("/databases/{database}/settings"),
        format!("/databases/{database}/backups"),
        format!("/databases/{database}/restore"),
        format!("/connections/{connection}/rotate"),
        format!("/branches/{}/delete", bare(branch["id"].as_str().unwrap())),
        "/operations".to_owned(),
        "/integrations".to_owned(),
        "/integrations/tokens/new".to_owned(),
        format!("/integrations/tokens/{}/revoke", bare(&token.id)),
        "/audit".to_owned(),
        format!("/audit?{encoded}"),
    ];
    let harmless = |page: &Page, path: &str| {
        let text = page.text.to_lowercase();
        assert!(!text.contains("<script>") && !text.contains("<img src=x"), "{path}: {text}");
        assert!(text.contains("alert(1)"), "{path} shows the name: {text}");
    };
    for path in &pages {
        let page = ada.get(&format!("{workspace}{path}")).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        harmless(&page, path);
    }
    // Values that are shown again with an error.
    let long = format!("{hostile}{}", "x".repeat(256));
    for (path, field) in [
        ("/projects".to_owned(), "name"),
        (format!("/projects/{id}/branches/new"), "gitName"),
        (format!("/databases/{database}/connections"), "name"),
    ] {
        let page = ada.submit(&format!("{workspace}{path}"), &[(field, &long), ("region", "us-east-1")]).await;
        assert_eq!(page.status, 422, "{path}: {}", page.text);
        harmless(&page, &path);
    }
    // The search finds the name literally.
    let page = ada.submit(&format!("{workspace}/projects/{id}/delete"), &[("confirm", hostile)]).await;
    assert_eq!(page.location(), format!("{workspace}/projects"));
    harmless(&ada.get(&format!("{workspace}/projects")).await, "the notice");
}

#[tokio::test]
async fn delete_requires_the_exact_name() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let before = shop.state().await;
    for (template, what) in [("/projects/{project}/delete", "project"), ("/databases/{database}/delete", "database")] {
        for typed in ["", "Sho", "shop", "orders", "Shop Orders"] {
            let page = ada.submit(&shop.at(template), &[("confirm", typed)]).await;
            page.assert_says(422, &format!("The name of the {what} does not match. Nothing was changed."));
        }
        assert_eq!(ada.get(&shop.at(template)).await.status, 200, "a look at {template}");
    }
    for template in READ.iter().chain(ASK) {
        ada.get(&shop.at(template)).await;
    }
    assert_eq!(shop.state().await, before);

    // Delete protection refuses even the correct name.
    let settings = shop.at("/projects/{project}/settings");
    ada.submit(&settings, &[("name", "Shop"), ("deleteProtection", "on")]).await.location();
    ada.get(&settings).await.assert_says(200, "Delete protection is on. Turn it off first.");
    let page = ada.submit(&shop.at("/projects/{project}/delete"), &[("confirm", "Shop")]).await;
    assert_eq!(page.status, 422);
    ada.get(&shop.at("/databases/{database}/settings")).await.assert_says(200, "Delete protection is on");
    ada.submit(&settings, &[("name", "Shop")]).await.location();

    let page = ada.submit(&shop.at("/databases/{database}/delete"), &[("confirm", "Orders")]).await;
    assert_eq!(page.location(), shop.at("/projects/{project}"));
    let page = ada.get(&shop.at("/projects/{project}")).await;
    page.assert_says(200, "Database “Orders” deleted.");
    ada.get(&shop.at("/databases/{database}")).await.assert_says(404, "Page not found");
    let page = ada.submit(&shop.at("/projects/{project}/delete"), &[("confirm", " Shop ")]).await;
    assert_eq!(page.location(), shop.at("/projects"));
    ada.get(&shop.at("/projects")).await.assert_says(200, "No projects yet");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn secrets_are_shown_only_in_the_response_that_creates_them() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    ada.get(&format!("{workspace}/projects/new")).await.assert_says(200, "curl ");
    let new = [("name", "Shop"), ("region", "eu-west-3"), ("database", "on")];
    let page = ada.submit(&format!("{workspace}/projects"), &new).await;
    let first = secret(&page);
    assert_eq!(ask(&first, "SELECT 1"), "1");
    for name in ["psql", ".env", "Prisma", "Node", "Python", "Go", "Rust"] {
        assert!(page.text.contains(&format!("<summary>{name}</summary>")), "{name}: {}", page.text);
    }
    let database = format!("{workspace}/databases/{}", page.between("/databases/", "\""));
    let password = |string: &str| string.split_once("sk_").unwrap().1.split_once('@').unwrap().0.to_owned();
    let mut secrets = vec![password(&first)];

    let page = ada.get(&database).await;
    let connection = format!("{workspace}/connections/{}", page.between("/connections/", "/rotate"));
    ada.get(&format!("{connection}/rotate")).await.assert_says(200, "stop working immediately");
    assert_eq!(ask(&first, "SELECT 2"), "2", "the confirmation page changes nothing");
    let second = secret(&ada.submit(&format!("{connection}/rotate"), &[]).await);
    assert!(complaint(&first, "SELECT 1").contains("authentication failed"));
    assert_eq!(ask(&second, "SELECT 3"), "3");
    let third = secret(&ada.submit(&format!("{database}/connections"), &[("name", "worker")]).await);
    assert_eq!(ask(&third, "SELECT 4"), "4");
    assert_eq!(ada.submit(&format!("{connection}/delete"), &[]).await.location(), database);
    assert!(complaint(&second, "SELECT 1").contains("authentication failed"));
    secrets.extend([password(&second), password(&third)]);

    // A token has the permissions that the form selected.
    let tokens = format!("{workspace}/integrations/tokens");
    let page = ada.submit(&format!("{tokens}/new"), &[("name", ""), ("expiresAt", "7"), ("reach", "all")]).await;
    page.assert_says(422, "too short");
    let page = ada.submit(&format!("{tokens}/new"), &[("name", "CI"), ("expiresAt", "7"), ("reach", "some")]).await;
    page.assert_says(422, "Give 1 to 100 projects");
    let new = [("name", "CI"), ("expiresAt", "7"), ("readOnly", "on"), ("reach", "all")];
    let value = secret(&ada.submit(&format!("{tokens}/new"), &new).await);
    let machine = Person::new(howdah.url(), Some(value.clone()));
    machine.get("/v1/projects").await.data(200);
    machine.post("/v1/projects", json!({"name": "x"})).await.assert_error(403, "permission-denied");
    secrets.push(value);
    let page = ada.get(&format!("{workspace}/integrations")).await;
    page.assert_says(200, "in 7 days");
    let revoke = format!("{tokens}/{}", page.between("/integrations/tokens/01", "\"").replace("/revoke", ""));
    let revoke = revoke.replace("tokens/", "tokens/01");
    ada.get(&format!("{revoke}/revoke")).await.assert_says(200, "Revoke service token “CI”?");
    machine.get("/v1/projects").await.data(200);
    assert_eq!(ada.submit(&format!("{revoke}/revoke"), &[]).await.location(), format!("{workspace}/integrations"));
    machine.get("/v1/projects").await.assert_error(401, "authentication-failed");
    ada.get(&format!("{workspace}/integrations")).await.assert_says(200, "Service token “CI” revoked.");

    for path in [&database, &format!("{workspace}/audit"), &format!("{workspace}/operations"), &workspace] {
        let page = ada.get(path).await;
        assert_eq!(page.status, 200);
        assert!(!secrets.iter().any(|secret| page.text.contains(secret)), "{path}");
        assert!(!ada.cookies.values().any(|cookie| secrets.iter().any(|secret| cookie.contains(secret))));
    }
    let page = ada.get(&format!("{workspace}/audit?action=Rotate+connection")).await;
    page.assert_says(200, "Rotate connection");
    assert!(page.text.contains("Ada") && page.text.contains("Account"), "who did it: {}", page.text);
}

#[tokio::test]
async fn application_can_be_created_changed_and_deleted() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let integrations = format!("{}/integrations", ada.workspace().await);
    ada.get(&integrations).await.assert_says(200, "No applications");
    let new = format!("{integrations}/applications/new");
    for (addresses, words) in [
        ("", "0 given"),
        ("http://planner.example/", "Http is only allowed for loopback addresses"),
        ("https://planner.example/ javascript:alert(1)", "A private scheme must be a reversed domain name"),
    ] {
        let page = ada.submit(&new, &[("name", "Planner"), ("redirectUris", addresses)]).await;
        assert_eq!(page.status, 422, "{}", page.text);
        let said = page.between("id=\"redirectUris-problem\">", "</p>");
        assert!(said.contains(words), "{said}");
    }
    let page = ada.submit(&new, PLANNER).await;
    let first = secret(&page);
    let id = page.between("/integrations/applications/", "\"");
    assert!(page.text.contains(&id) && page.text.contains("/.well-known/oauth-authorization-server"), "{}", page.text);
    let accepts = async |secret: &str| {
        let request = reqwest::Client::new().post(format!("{}/revoke", howdah.url()));
        let body = serde_html_form::to_string([("token", "nonsense")]).unwrap();
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        request.basic_auth(&id, Some(secret)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(accepts(&first).await, 200);
    assert_eq!(accepts("another").await, 401);

    let address = format!("{integrations}/applications/{id}");
    ada.get(&format!("{address}/rotate")).await.assert_says(200, "stops working immediately");
    assert_eq!(accepts(&first).await, 200, "the confirmation page changes nothing");
    let second = secret(&ada.submit(&format!("{address}/rotate"), &[]).await);
    assert_eq!((accepts(&first).await, accepts(&second).await), (401, 200));
    let change = [("name", "Day planner"), ("redirectUris", "https://planner.example/new")];
    assert_eq!(ada.submit(&address, &change).await.location(), address);
    let page = ada.get(&address).await;
    page.assert_says(200, "https://planner.example/new");
    assert!(!page.text.contains("planner.example/callback") && !page.text.contains(&second), "{}", page.text);
    ada.submit(&address, &[("name", ""), ("redirectUris", "https://a.example/")]).await.assert_says(422, "too short");

    // A public client gets no secret, and none by rotation.
    let public = [("name", "On the phone"), ("redirectUris", "com.example.app:/callback"), ("public", "on")];
    let page = ada.submit(&new, &public).await;
    page.assert_says(200, "A public client has no secret");
    assert!(!page.text.contains("class=\"secret\""), "{}", page.text);
    let public = format!("{integrations}/applications/{}", page.between("/integrations/applications/", "\""));
    assert!(!ada.get(&public).await.text.contains("Rotate"));
    ada.submit(&format!("{public}/rotate"), &[]).await.assert_says(422, "has no secret");

    let delete = format!("{address}/delete");
    let page = ada.submit(&delete, &[("confirm", "Planner")]).await;
    page.assert_says(422, "The name of the application does not match. Nothing was changed.");
    assert_eq!(ada.submit(&delete, &[("confirm", "Day planner")]).await.location(), integrations);
    let page = ada.get(&integrations).await;
    page.assert_says(200, "Application “Day planner” deleted.");
    assert_eq!(accepts(&second).await, 401);
    ada.get(&address).await.assert_says(404, "Page not found");
}

#[tokio::test]
async fn form_errors_are_shown_beside_their_field() {
    let howdah =
        Howdah::start_with(&["--max-projects", "2", "--region", "us-east-1=Rack 1", "--region", "mars-2=Rack 2"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let long = "x".repeat(257);
    let before = shop.state().await;
    for (template, fields, field, words) in [
        ("/projects", vec![("name", long.as_str()), ("region", "us-east-1")], "name", "too long"),
        ("/projects", vec![("name", "a"), ("region", "mars")], "region", "is not a region of this server"),
        ("/projects/{project}/settings", vec![("name", "  ")], "name", "too short"),
        (
            "/projects/{project}/settings",
            vec![("name", "a"), ("backupRetentionDays", "0")],
            "backupRetentionDays",
            "out of range",
        ),
        (
            "/projects/{project}/settings",
            vec![("name", "a"), ("backupRetentionDays", "ten")],
            "backupRetentionDays",
            "Not a number",
        ),
        (
            "/projects/{project}/branches/new",
            vec![("gitName", "feature/search")],
            "gitName",
            "already has a branch named",
        ),
        (
            "/projects/{project}/databases/new",
            vec![("name", ""), ("region", "us-east-1"), ("branchId", "{branch}")],
            "name",
            "too short",
        ),
        (
            "/projects/{project}/databases/new",
            vec![("name", "a"), ("region", "us-east-1"), ("branchId", "x")],
            "branchId",
            "no such branch",
        ),
        ("/databases/{database}/connections", vec![("name", " ")], "name", "too short"),
        ("/databases/{database}/settings", vec![("name", long.as_str()), ("branchId", "{branch}")], "name", "too long"),
        (
            "/databases/{database}/restore",
            vec![("what", "moment"), ("targetTime", "soon"), ("into", "new"), ("name", "a")],
            "what",
            "choose",
        ),
        (
            "/databases/{database}/restore",
            vec![("what", "now"), ("into", "new"), ("name", "Orders")],
            "name",
            "already has a database with this name",
        ),
    ] {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, shop.fill(value))).collect();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page = ada.submit(&shop.at(template), &fields).await;
        assert_eq!(page.status, 422, "{template} {fields:?}: {}", page.text);
        if field != "what" {
            let said = page.between(&format!("id=\"{field}-problem\">"), "</p>");
            assert!(said.contains(words), "{template} {fields:?}: {said}");
            // The form keeps what was typed.
            assert!(page.text.contains(&fields[0].1.replace('<', "&#60;")), "{template}");
        }
    }
    assert_eq!(shop.state().await, before);
    // A reached limit concerns no field and names the limit.
    let new = [("name", "Second"), ("region", "us-east-1")];
    assert_eq!(ada.submit(&shop.at("/projects"), &new).await.status, 303);
    let page = ada.submit(&shop.at("/projects"), &[("name", "Third"), ("region", "us-east-1")]).await;
    page.assert_says(422, "limit of 2 projects");
    let page = ada.get(&shop.at("/projects")).await;
    page.assert_says(200, "2 of 2 projects");
    // Both pages format numbers alike.
    page.assert_says(200, "of 1,000 databases");
    ada.get(&shop.at("/settings")).await.assert_says(200, "of 1,000");
}

#[tokio::test]
async fn projects_are_paginated_and_searched_by_name() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let page = ada.get(&workspace).await;
    page.assert_says(200, "No projects yet");
    assert!(page.text.contains("curl http"), "{}", page.text);
    let owner = howdah.owner();
    for number in 0..52 {
        let name = format!("Customer 100% {number:02}");
        ProjectName::parse(&name).unwrap();
        owner.post("/v1/projects", json!({"name": name, "createDatabase": false})).await.data(201);
    }
    let count = |page: &Page| page.text.matches("<td data-label=\"Name\">").count();
    let page = ada.get(&format!("{workspace}/projects?q=100%25")).await;
    assert_eq!(count(&page), 50);
    let next = page.between("rel=\"next\" href=\"", "\"").replace("&#38;", "&").replace("&amp;", "&");
    let page = ada.get(&next).await;
    assert_eq!(count(&page), 2, "the second page of the search: {next}");
    assert!(!page.text.contains("rel=\"next\""));
    assert_eq!(count(&ada.get(&format!("{workspace}/projects?q=cUSTOMER+100%25+4")).await), 10);
    // `_` is not a wildcard.
    ada.get(&format!("{workspace}/projects?q=_")).await.assert_says(200, "No projects found");
    assert_eq!(ada.get(&format!("{workspace}/projects?cursor=x")).await.status, 422);
}

#[tokio::test]
async fn database_can_be_restored_beside_and_in_place() {
    let howdah = Howdah::start_with(&["--undelete", "1h"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let new = [("name", "Shop"), ("region", "us-east-1"), ("database", "on")];
    let page = ada.submit(&format!("{workspace}/projects"), &new).await;
    let string = secret(&page);
    let id = page.between("/databases/", "\"");
    let database = format!("{workspace}/databases/{id}");
    let owner = howdah.owner();
    let settled = async || {
        let path = format!("/v1/operations?databaseId=db_{id}");
        eventually("everything to end", async || {
            let all = owner.get(&path).await.data(200).clone();
            all.as_array().unwrap().iter().all(|one| one["endedAt"].is_string()).then_some(())
        })
        .await;
    };
    let only_now = ada.get(&format!("{database}/restore")).await;
    only_now.assert_says(200, "There is no complete backup yet");
    ask(&string, "CREATE TABLE orders AS SELECT generate_series(1, 10) AS number");
    let page = ada.submit(&format!("{database}/backups"), &[("backupType", "full")]).await;
    assert_eq!(page.location(), format!("{database}/backups"));
    settled().await;
    let page = ada.get(&format!("{database}/backups")).await;
    page.assert_says(200, "Completed");
    page.assert_says(200, "Any point in time from");
    assert!(!page.text.contains("Times between them"), "it was never restored: {}", page.text);
    let backup = page.between("/restore?backup=", "\"");
    let page = ada.get(&format!("{database}/restore?backup={backup}")).await;
    page.assert_says(200, &format!("value=\"{backup}\" selected"));

    // Times outside of the window, and invalid ones.
    for moment in ["2001-01-01T00:00", "2999-01-01T00:00:00", "soon"] {
        let fields = [("what", "moment"), ("targetTime", moment), ("into", "new"), ("name", "Old")];
        let page = ada.submit(&format!("{database}/restore"), &fields).await;
        page.assert_says(422, "id=\"targetTime-problem\"");
    }
    let here = [("what", "backup"), ("backup", backup.as_str()), ("into", "here")];
    let wrong = [&here[..], &[("confirm", "Shopp")]].concat();
    ada.submit(&format!("{database}/restore"), &wrong)
        .await
        .assert_says(422, "The name of the database does not match");
    ask(&string, "DROP TABLE orders");

    // To a new database.
    let beside = [("what", "backup"), ("backup", backup.as_str()), ("into", "new"), ("name", "Shop of before")];
    let page = ada.submit(&format!("{database}/restore"), &beside).await;
    assert_eq!(ask(&secret(&page), "SELECT count(*) FROM orders"), "10");
    assert!(complaint(&string, "SELECT * FROM orders").contains("does not exist"));
    let copy = page.between("/databases/", "\"");

    // In place: connections stay valid.
    let right = [&here[..], &[("confirm", "Shop")]].concat();
    let page = ada.submit(&format!("{database}/restore"), &right).await;
    assert_eq!(page.location(), database);
    let part = ada.get(&format!("{database}/status")).await;
    assert!(part.text.contains("data-refresh") || part.text.contains("data-reload"), "{}", part.text);
    settled().await;
    assert_eq!(ask(&string, "SELECT count(*) FROM orders"), "10");
    // The window has a gap between the replaced data and the next backup.
    let page = ada.get(&format!("{database}/backups")).await;
    page.assert_says(200, "Times between them can't be restored.");
    let page = ada.get(&database).await;
    page.assert_says(200, "Restore database in place");
    let all = owner.get(&format!("/v1/operations?databaseId=db_{id}")).await.data(200).clone();
    let restored = all.as_array().unwrap().iter().find(|one| one["kind"] == "restore_database").unwrap();
    let operation = bare(restored["id"].as_str().unwrap());
    let page = ada.get(&format!("{workspace}/operations/{operation}")).await;
    page.assert_says(200, "End sessions and switch to the restored instance");

    // A deleted database is restored under a free name.
    let copy_page = format!("{workspace}/databases/{copy}");
    ada.get(&format!("{copy_page}/settings")).await;
    let page = ada.submit(&format!("{copy_page}/delete"), &[("confirm", "Shop of before")]).await;
    let project = page.location().to_owned();
    let restore = eventually("the deleted database to be kept", async || {
        let page = ada.get(&project).await;
        page.text.contains("Deleted databases").then(|| page.between("/deleted/", "\""))
    })
    .await;
    let restore = format!("{workspace}/deleted/{restore}");
    ada.get(&restore).await.assert_says(200, "Restore");
    let bare = project.rsplit('/').next().unwrap();
    let into = |name| [("name", name), ("into", "project"), ("project", bare)];
    ada.submit(&restore, &into("Shop")).await.assert_says(422, "already has a database with this name");
    let page = eventually("the last backup to be there", async || {
        let page = ada.submit(&restore, &into("Shop again")).await;
        (page.status == 200).then_some(page)
    })
    .await;
    assert_eq!(ask(&secret(&page), "SELECT count(*) FROM orders"), "10");
}

#[tokio::test]
async fn databases_of_a_deleted_project_are_listed_and_can_be_restored() {
    let howdah = Howdah::start_with(&["--undelete", "1h"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let owner = howdah.owner();
    let mut vera = ada.invite(&howdah, &workspace, "vera", "viewer").await;
    ada.get("/console/workspaces").await;
    let elsewhere = ada.submit("/console/workspaces", &[("name", "Elsewhere")]).await.location().to_owned();
    ada.get(&format!("{workspace}/deleted")).await.assert_says(200, "Nothing to restore");

    let made = owner.create_project("Shop <1>").await;
    let string = connection_string(&made);
    ask(&string, "CREATE TABLE orders AS SELECT generate_series(1, 10) AS number");
    let database = bare(made["database"]["id"].as_str().unwrap());
    let project = format!("{workspace}/projects/{}", bare(made["id"].as_str().unwrap()));
    let restore = format!("{workspace}/deleted/{database}/restore");
    ada.get(&restore).await.assert_says(404, "Page not found");
    ada.get(&format!("{project}/settings")).await;
    let page = ada.submit(&format!("{project}/delete"), &[("confirm", "Shop <1>")]).await;
    assert_eq!(page.location(), format!("{workspace}/projects"));
    ada.get(&format!("{workspace}/projects")).await.assert_says(200, "see Recently deleted");
    let page = eventually("the deleted database to be kept", async || {
        let page = ada.get(&format!("{workspace}/deleted")).await;
        page.text.contains(&restore).then_some(page)
    })
    .await;
    assert!(page.text.contains("Shop &#60;1&#62;</bdi> <span class=\"tag\">Deleted"), "{}", page.text);

    // Without permission, and with unknown ids.
    let page = vera.get(&format!("{workspace}/deleted")).await;
    assert!(page.text.contains("Shop") && !page.text.contains(&restore), "{}", page.text);
    vera.get(&restore).await.assert_says(403, "Permission denied");
    vera.get(&workspace).await;
    vera.submit(&restore, &[("name", "Mine"), ("into", "new"), ("projectName", "Mine")])
        .await
        .assert_says(403, "Permission denied");
    let refused = format!("/v1/workspaces/{}/audit-log?outcome=refused&actorName=vera", owner.workspace_id().await);
    assert_eq!(owner.get(&refused).await.data(200)[0]["action"], "create_database");
    ada.get(&format!("{elsewhere}/deleted")).await.assert_says(200, "Nothing to restore");
    ada.get(&format!("{elsewhere}/deleted/{database}/restore")).await.assert_says(404, "Page not found");
    ada.get(&format!("{workspace}/deleted/nothing/restore")).await.assert_says(404, "Page not found");
    let page = ada.get(&restore).await;
    page.assert_says(200, "value=\"Shop &#60;1&#62;\"");
    let gone = bare(made["id"].as_str().unwrap());
    for (fields, status, words) in [
        (vec![("name", "Shop"), ("into", "project"), ("project", "")], 422, "o project is selected"),
        (vec![("name", "Shop"), ("into", "project"), ("project", gone.as_str())], 404, "Page not found"),
        (vec![("name", "Shop"), ("into", "new"), ("projectName", "")], 422, "id=\"projectName-problem\""),
        (vec![("name", ""), ("into", "new"), ("projectName", "Shop")], 422, "id=\"name-problem\""),
    ] {
        ada.submit(&restore, &fields).await.assert_says(status, words);
    }
    assert!(owner.get("/v1/projects").await.data(200).as_array().unwrap().is_empty(), "nothing was created");

    // Into a new project, as its default database.
    let new = [("name", "Shop"), ("into", "new"), ("projectName", "Shop of before")];
    let page = eventually("the last backup to be there", async || {
        let page = ada.submit(&restore, &new).await;
        (page.status == 200).then_some(page)
    })
    .await;
    assert_eq!(ask(&secret(&page), "SELECT count(*) FROM orders"), "10");
    let projects = owner.get("/v1/projects").await.data(200).clone();
    assert_eq!((projects.as_array().unwrap().len(), &projects[0]["name"]), (1, &json!("Shop of before")));
    let databases = owner.get("/v1/databases").await.data(200).clone();
    assert_eq!((&databases[0]["name"], &databases[0]["isDefault"]), (&json!("Shop"), &json!(true)));
    // A second time, into the same project.
    let there = bare(projects[0]["id"].as_str().unwrap());
    let page = ada.get(&restore).await;
    assert!(page.text.contains(&format!("<option value=\"{there}\"")), "{}", page.text);
    let beside = [("name", "Shop twice"), ("into", "project"), ("project", there.as_str())];
    assert_eq!(ask(&secret(&ada.submit(&restore, &beside).await), "SELECT count(*) FROM orders"), "10");
}

#[tokio::test]
async fn failed_database_shows_what_can_be_restored() {
    let mut howdah = Howdah::start().await;
    howdah.expect_errors(&["workflow failed", "the database keeps its previous data"]);
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let owner = howdah.owner();
    let made = owner.create_project("Shop").await;
    let string = connection_string(&made);
    ask(&string, "CREATE TABLE orders AS SELECT generate_series(1, 10) AS number");
    let id = made["database"]["id"].as_str().unwrap();
    let backup = owner.post(&format!("/v1/databases/{id}/backups"), json!({})).await;
    owner.ended(backup.headers["howdah-operation"].to_str().unwrap()).await;
    let backup = backup.data(202)["id"].as_str().unwrap().to_owned();
    let source = json!({"source": {"type": "backup", "databaseId": id, "backupId": backup}});
    let other = json!({"projectId": made["id"], "name": "Other"});
    let other = owner.post("/v1/databases", other).await.data(201)["id"].as_str().unwrap().to_owned();
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    let fail = async |id: &str| {
        let id = base::id::DatabaseId::parse(id).unwrap();
        let update = "UPDATE databases SET status = 'failure', status_reason = 'its disk was lost' WHERE id = $1";
        assert_eq!(session.execute(update, &[&id.uuid()]).await.unwrap(), 1);
    };

    // Without backups, the page offers nothing to restore, and a form that is sent anyway changes nothing.
    fail(&other).await;
    let page = format!("{workspace}/databases/{}/restore", bare(&other));
    let shown = ada.get(&page).await;
    shown.assert_says(200, "Nothing can be restored");
    assert!(!shown.text.contains("name=\"into\""), "{}", shown.text);
    let now = [("what", "now"), ("into", "new"), ("name", "Copy")];
    ada.submit(&page, &now).await.assert_says(422, "is failure");
    let moment = [("what", "moment"), ("targetTime", "2030-01-01T00:00"), ("into", "new"), ("name", "Copy")];
    ada.submit(&page, &moment).await.assert_says(422, "Nothing can be restored");
    let copy = json!({"projectId": made["id"], "name": "Copy", "source": {"type": "database", "databaseId": other}});
    owner.post("/v1/databases", copy).await.assert_error(409, "client-error");
    // The backup of another database can be restored into it.
    let restore = owner.post(&format!("/v1/databases/{other}/restore"), source.clone()).await;
    restore.data(200);
    assert_eq!(owner.ended(restore.headers["howdah-operation"].to_str().unwrap()).await["state"], "succeeded");
    let shown = owner.get(&format!("/v1/databases/{other}")).await.data(200).clone();
    assert_eq!((&shown["status"], &shown["statusReason"]), (&json!("ready"), &Value::Null));

    // With backups, it can be restored in place and to a new database.
    fail(id).await;
    let page = format!("{workspace}/databases/{}/restore", bare(id));
    let shown = ada.get(&page).await;
    shown.assert_says(200, "name=\"into\"");
    assert!(!shown.text.contains("value=\"now\""), "it cannot be copied as it is: {}", shown.text);
    let bare_backup = bare(&backup);
    let beside = [("what", "backup"), ("backup", bare_backup.as_str()), ("into", "new"), ("name", "Beside")];
    assert_eq!(ask(&secret(&ada.submit(&page, &beside).await), "SELECT count(*) FROM orders"), "10");
    let here = [("what", "backup"), ("backup", bare_backup.as_str()), ("into", "here"), ("confirm", "Shop")];
    ada.get(&page).await;
    assert_eq!(ada.submit(&page, &here).await.location(), format!("{workspace}/databases/{}", bare(id)));
    eventually("it to be ready", async || {
        let shown = owner.get(&format!("/v1/databases/{id}")).await.data(200).clone();
        (shown["status"] == "ready").then_some(())
    })
    .await;
    assert_eq!(ask(&string, "SELECT count(*) FROM orders"), "10");
    tasks.stop();
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn cancel_page_names_the_effects_and_lists_show_why_an_operation_waits() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    let id = base::id::WorkflowId::parse(&shop.fill("{operation}")).unwrap();
    let become_one = async |kind: &str, step: &str| {
        let update = "UPDATE workflows
                         SET kind = $2, step = $3, state = 'waiting', attempts = 1, explanation = 'the disk is full',
                             run_after = now() + interval '1 day', ended_at = NULL
                       WHERE id = $1";
        assert_eq!(session.execute(update, &[&id.uuid(), &kind, &step]).await.unwrap(), 1);
    };
    let page = shop.at("/operations/{operation}/cancel");
    let backup = "This backup is not created.";
    for (kind, step, words) in [
        ("provision_database", "create_instance", "The database is not created."),
        ("copy_database", "create_instance", "The database that it is restored from does not change."),
        ("back_up_database", "copy_files", backup),
        ("restore_database", "restore_instance", "The database keeps its current data."),
        ("restore_database", "take_over", "The database keeps its current data."),
    ] {
        become_one(kind, step).await;
        let shown = ada.get(&page).await;
        shown.assert_says(200, words);
        assert_eq!(shown.text.contains(backup), kind == "back_up_database", "{kind}: {}", shown.text);
    }
    for (kind, step) in [
        ("restore_database", "prove_ready"),
        ("recover_database", "restore_instance"),
        ("verify_backup", "check"),
        ("delete_database", "forget"),
    ] {
        become_one(kind, step).await;
        let shown = ada.get(&page).await;
        shown.assert_says(409, "cancelled");
        assert!(!shown.text.contains("<form method=\"post\" action=\"/console/workspaces"), "{kind}: {}", shown.text);
    }
    // Lists show the reason instead of the step.
    let list = ada.get(&shop.at("/operations")).await;
    list.assert_says(200, "<span class=\"beside\">the disk is full</span>");
    let update = "UPDATE workflows SET kind = 'provision_database', state = 'failed', ended_at = now() WHERE id = $1";
    session.execute(update, &[&id.uuid()]).await.unwrap();
    let list = ada.get(&shop.at("/operations?state=failed")).await;
    list.assert_says(200, "<span class=\"beside\">the disk is full</span>");
    assert!(!list.text.contains("Clean up"), "{}", list.text);
    tasks.stop();
}

#[tokio::test]
async fn project_settings_show_the_inherited_retention() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let owner = howdah.owner();
    let made = owner.post("/v1/projects", json!({"name": "p", "createDatabase": false})).await.data(201).clone();
    let id = made["id"].as_str().unwrap();
    let page = format!("{workspace}/projects/{}/settings", bare(id));
    ada.get(&page).await.assert_says(200, "server's default: 7.");
    owner.patch(&format!("/v1/projects/{id}"), json!({"backupRetentionDays": 30})).await.data(200);
    let shown = ada.get(&page).await;
    shown.assert_says(200, "server's default: 7.");
    assert!(shown.text.contains("value=\"30\""), "{}", shown.text);
    let path = format!("/v1/workspaces/{}", owner.workspace_id().await);
    owner.patch(&path, json!({"backupRetentionDays": 1})).await.data(200);
    ada.get(&page).await.assert_says(200, "workspace's setting: 1.");
    for days in ["0", "366", "-1", "1.5", "many"] {
        let page = ada.submit(&page, &[("name", "p"), ("backupRetentionDays", days)]).await;
        page.assert_says(422, "backupRetentionDays-problem");
    }
    assert_eq!(owner.get(&format!("/v1/projects/{id}")).await.data(200)["backupRetentionDays"], 30);
    ada.get(&page).await;
    ada.submit(&page, &[("name", "p"), ("backupRetentionDays", ""), ("deleteProtection", "on")]).await.location();
    let shown = owner.get(&format!("/v1/projects/{id}")).await.data(200).clone();
    assert_eq!((&shown["backupRetentionDays"], &shown["deleteProtection"]), (&Value::Null, &json!(true)));
}

#[tokio::test]
async fn branches_can_be_created_used_and_deleted() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let project = shop.at("/projects/{project}");
    let page = ada.submit(&shop.at("/branches/{branch}/default"), &[]).await;
    assert_eq!(page.location(), project);
    ada.get(&project).await.assert_says(200, "“feature/search” is now the default branch.");
    let page = ada.submit(&shop.at("/branches/{branch}/delete"), &[]).await;
    page.assert_says(422, "The default branch of a project cannot be deleted");
    let fields = [("gitName", "fix"), ("isDefault", "on")];
    ada.submit(&format!("{project}/branches/new"), &fields).await.location();
    // A database moves to the branch, which then cannot be deleted.
    let fields = [("name", "Orders".to_owned()), ("branchId", shop.fill("{branch}"))];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let page = ada.submit(&shop.at("/databases/{database}/settings"), &fields).await;
    assert_eq!(page.location(), shop.at("/databases/{database}/settings"));
    ada.get(&shop.at("/databases/{database}")).await.assert_says(200, "feature/search");
    ada.submit(&shop.at("/branches/{branch}/delete"), &[]).await.assert_says(422, "has databases (1)");
    // Only an empty branch that is not the default has the link.
    let delete = |page: &Page, branch: &str| page.text.contains(&format!("/branches/{branch}/delete\""));
    let occupied = shop.fill("{branch}");
    let main = shop.owner.get(&shop.fill("/v1/projects/proj_{project}/branches")).await.data(200).clone();
    let main = main.as_array().unwrap().iter().find(|branch| branch["gitName"] == "fix").unwrap()["id"].clone();
    let empty = bare(main.as_str().unwrap());
    ada.submit(&format!("{}/default", shop.at("/branches/{branch}")), &[]).await.location();
    let page = ada.get(&project).await;
    assert!(delete(&page, &empty) && !delete(&page, &occupied), "{}", page.text);
    ada.submit(&shop.at(&format!("/branches/{empty}/default")), &[]).await.location();
    let page = ada.get(&project).await;
    assert!(!delete(&page, &empty) && !delete(&page, &occupied), "it has a database: {}", page.text);
    ada.get(&shop.at("/branches/{branch}/delete")).await.assert_says(409, "has databases (1)");
}

#[tokio::test]
async fn resource_pages_work_in_a_browser() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let vera = ada.invite(&howdah, &workspace, "vera", "viewer").await;
    let cookie = |browser: &Browser| browser.cookies["howdah_session"].clone();
    let (ada, vera) = (cookie(&ada), cookie(&vera));
    let variables = [("HOWDAH_WORKSPACE", workspace.as_str()), ("HOWDAH_OWNER", &ada), ("HOWDAH_VIEWER", &vera)];
    run("console_resources.js", &howdah.url(), &howdah.token(), &variables).await;
}

#[tokio::test]
async fn unknown_paths_and_methods_change_nothing() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let shop = Shop::open(&howdah, &mut ada).await;
    let before = shop.state().await;
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let url = format!("{}{}", howdah.url(), shop.at("/projects/{project}/delete"));
        let request = reqwest::Client::new().request(method, url);
        let page = ada.send(request).await;
        assert!([StatusCode::METHOD_NOT_ALLOWED, StatusCode::FORBIDDEN].contains(&page.status.try_into().unwrap()));
    }
    assert_eq!(shop.state().await, before);
}

#[test]
fn every_step_of_every_workflow_has_a_title() {
    let known: Vec<(&str, Vec<&str>)> = vec![
        ("provision_database", ProvisionStep::ALL.iter().map(|step| step.name()).collect()),
        ("copy_database", ProvisionStep::ALL.iter().map(|step| step.name()).collect()),
        ("delete_database", DeleteStep::ALL.iter().map(|step| step.name()).collect()),
        ("back_up_database", BackUpStep::ALL.iter().map(|step| step.name()).collect()),
        ("verify_backup", TrialStep::ALL.iter().map(|step| step.name()).collect()),
        ("restore_database", RestoreStep::ALL.iter().map(|step| step.name()).collect()),
        ("recover_database", RecoverStep::ALL.iter().map(|step| step.name()).collect()),
    ];
    let told: Vec<(&str, Vec<&str>)> = kinds::KINDS
        .iter()
        .map(|kind| (kind.name, [kind.steps, kind.undoing].concat().iter().map(|(name, _)| *name).collect()))
        .collect();
    assert_eq!(told, known, "src/domain/operations/kinds.rs has the words for the steps in src/jobs");
}
