//! The OAuth authorization server over HTTP: granting an application access, and every way that must fail.

use auth::oauth::RedirectUri;
use auth::oauth::clients::{self, NewClient};
use auth::oauth::grants::{self, Issuer, REFRESH_GRACE, Refused};
use auth::signing::{self, Signer};
use auth::{Limits, Origin, service_tokens, users};
use base::clock::Clock;
use base::id::WorkspaceId;
use base::name::{ApplicationName, TokenName};
use base::page::PageRequest;
use base::secret::random_text;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::{applications, members};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::browser::{Browser, PASSWORD, Page};
use crate::harness::{Howdah, Person, eventually};
use crate::sdk::run;

const REDIRECT: &str = "https://app.example.com/callback";

/// An application's side of OAuth.
struct Application {
    url: String,
    id: String,
    secret: Option<String>,
}

/// The state that an application keeps of one authorization.
struct Attempt {
    state: String,
    verifier: String,
}

impl Attempt {
    fn new() -> Self {
        Self { state: random_text::<16>(), verifier: random_text::<32>() }
    }

    fn query(&self, client: &str, scope: &str, redirect: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier));
        form(&[
            ("client_id", client),
            ("redirect_uri", redirect),
            ("response_type", "code"),
            ("scope", scope),
            ("state", &self.state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("utm_source", "ignored"),
        ])
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    serde_html_form::to_string(fields).unwrap()
}

impl Application {
    /// Registers an application.
    async fn register(howdah: &Howdah, method: &str, redirect: &str) -> Self {
        let metadata =
            json!({"client_name": "Metrics", "redirect_uris": [redirect], "token_endpoint_auth_method": method});
        let answer = Client::new().post(format!("{}/register", howdah.url())).json(&metadata).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["client_secret"].is_string(), method != "none", "{answer}");
        Self {
            url: howdah.url(),
            id: answer["client_id"].as_str().unwrap().to_owned(),
            secret: answer["client_secret"].as_str().map(str::to_owned),
        }
    }

    /// Calls an endpoint, with the secret, if any, in the form.
    async fn call(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        let mut all = fields.to_vec();
        all.push(("client_id", &self.id));
        all.extend(self.secret.as_deref().map(|secret| ("client_secret", secret)));
        send(&self.url, path, &all, None).await
    }

    async fn exchange(&self, attempt: &Attempt, code: &str) -> (u16, Value) {
        let verifier = ("code_verifier", attempt.verifier.as_str());
        self.call(
            "/token",
            &[("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), verifier],
        )
        .await
    }

    async fn refresh(&self, token: &str) -> (u16, Value) {
        self.call("/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }
}

async fn send(url: &str, path: &str, fields: &[(&str, &str)], authorization: Option<String>) -> (u16, Value) {
    let mut request = Client::new()
        .post(format!("{url}{path}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(fields));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Consents, and returns the address of the redirect.
async fn allow(browser: &mut Browser, query: &str, workspace: &str) -> String {
    let page = browser.get(&format!("/authorize?{query}")).await;
    page.assert_says(200, "wants access to your account");
    let bare = workspace.rsplit('/').next().unwrap();
    let page = browser.submit("/authorize", &[("asked", query), ("workspace", bare), ("decision", "allow")]).await;
    page.location().to_owned()
}

fn parameter(address: &str, name: &str) -> Option<String> {
    let query = address.split_once('?')?.1;
    let all: Vec<(String, String)> = serde_html_form::from_str(query).unwrap();
    all.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

fn token(answer: &Value, name: &str) -> String {
    answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
}

/// The API's status for this access token.
async fn status(howdah: &Howdah, access: &str) -> u16 {
    Person::new(howdah.url(), Some(access.to_owned())).get("/v1/me").await.status.as_u16()
}

/// Consents and gets tokens.
async fn tokens(browser: &mut Browser, application: &Application, scope: &str, workspace: &str) -> Value {
    let attempt = Attempt::new();
    let address = allow(browser, &attempt.query(&application.id, scope, REDIRECT), workspace).await;
    let (status, answer) = application.exchange(&attempt, &parameter(&address, "code").unwrap()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

const ALL: &str = "workspace:admin offline_access";

/// An access token of an application for a workspace.
pub(crate) async fn access_token(howdah: &Howdah, browser: &mut Browser, scope: &str, workspace: &str) -> String {
    let application = Application::register(howdah, "none", REDIRECT).await;
    token(&tokens(browser, &application, scope, workspace).await, "access_token")
}

#[tokio::test]
async fn application_has_access_until_it_is_revoked() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let attempt = Attempt::new();
    let query = attempt.query(&application.id, ALL, REDIRECT);

    let page = ada.get(&format!("/authorize?{query}")).await;
    page.assert_says(200, "registered itself");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("form-action 'self' https://app.example.com;") && policy.contains("frame-ancestors 'none'")
    );
    let address = allow(&mut ada, &query, &workspace).await;
    assert!(address.starts_with(&format!("{REDIRECT}?")), "{address}");
    assert_eq!(parameter(&address, "state").as_ref(), Some(&attempt.state));
    assert_eq!(parameter(&address, "iss"), Some(howdah.url()), "RFC 9207");
    let (status_of, answer) = application.exchange(&attempt, &parameter(&address, "code").unwrap()).await;
    assert_eq!((status_of, &answer["token_type"], &answer["expires_in"]), (200, &json!("Bearer"), &json!(3600)));
    assert_eq!(answer["scope"], ALL);

    // The claims that clients read. The signature is verified with the published keys.
    let access = token(&answer, "access_token");
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap()).unwrap();
    let bare = workspace.rsplit('/').next().unwrap();
    assert_eq!((&claims["workspace_id"], &claims["email"]), (&json!(bare), &json!("ada@example.com")));
    assert_eq!((&claims["iss"], &claims["client_id"]), (&json!(howdah.url()), &json!(application.id)));
    let keys: Value =
        reqwest::get(format!("{}/.well-known/jwks.json", howdah.url())).await.unwrap().json().await.unwrap();
    let header = jsonwebtoken::decode_header(&access).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == json!(header.kid)).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&serde_json::from_value(key.clone()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[howdah.url()]);
    jsonwebtoken::decode::<Value>(&access, &key, &validation).unwrap();

    let person = Person::new(howdah.url(), Some(access.clone()));
    let me = person.get("/v1/me").await.data(200).clone();
    assert_eq!((&me["user"]["email"], &me["credential"]["type"]), (&json!("ada@example.com"), &json!("oauth")));
    person.post("/v1/projects", json!({"name": "shop", "createDatabase": false})).await.data(201);
    let made = person.post("/v1/workspaces", json!({"displayName": "Research"})).await.data(201).clone();
    assert_eq!(made["name"], "Research");
    ada.get("/console/workspaces").await.assert_says(200, "Research");
    let research = format!("/console/workspaces/{}", made["id"].as_str().unwrap().trim_start_matches("wksp_"));
    ada.get(&format!("{research}/audit")).await.assert_says(200, "Metrics");
    let log = howdah.owner().get(&format!("/v1/workspaces/{bare}/audit-log?action=create_project")).await;
    let actor = &log.data(200)[0]["actor"];
    assert_eq!(
        (&actor["type"], &actor["name"], &actor["application"]),
        (&json!("user"), &json!("ada@example.com"), &json!("Metrics"))
    );

    // A second consent is the same integration.
    let again = tokens(&mut ada, &application, "workspace:read offline_access", &workspace).await;
    let listed = howdah.owner().get(&format!("/v1/workspaces/{bare}/integrations")).await.data(200).clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let reader = Person::new(howdah.url(), Some(token(&again, "access_token")));
    reader.get("/v1/projects").await.data(200);
    assert_eq!(reader.post("/v1/projects", json!({})).await.status, 403);

    // Revoking takes effect immediately, for all of its tokens.
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(howdah.owner().delete(&format!("/v1/integrations/{id}")).await.status, 204);
    for tokens in [&answer, &again] {
        assert_eq!(status(&howdah, &token(tokens, "access_token")).await, 401);
        let (status, refused) = application.refresh(&token(tokens, "refresh_token")).await;
        assert_eq!((status, &refused["error"]), (400, &json!("invalid_grant")));
    }
}

#[tokio::test]
async fn members_revoke_only_their_own_integrations() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut vera = ada.invite(&howdah, &workspace, "vera", "viewer").await;
    let mut dora = ada.invite(&howdah, &workspace, "dora", "developer").await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let of_workspace = format!("/v1/workspaces/{}/integrations", workspace.rsplit('/').next().unwrap());
    let find = async |email: &str| {
        let listed = howdah.owner().get(&of_workspace).await.data(200).clone();
        let found = listed.as_array().unwrap().iter().find(|one| one["createdByUser"]["email"] == email);
        found.map(|one| one["id"].as_str().unwrap().trim_start_matches("itgr_").to_owned())
    };
    let granted = |id: &str| format!("{workspace}/integrations/granted/{id}/revoke");

    // In the console, members can revoke only their own.
    let hers = token(&tokens(&mut ada, &application, ALL, &workspace).await, "access_token");
    let adas = find("ada@example.com").await.unwrap();
    for (browser, email) in [(&mut vera, "vera@example.com"), (&mut dora, "dora@example.com")] {
        let list = format!("{workspace}/integrations");
        assert!(!browser.get(&list).await.text.contains("Revoke"), "{email}");
        let mine = token(&tokens(browser, &application, ALL, &workspace).await, "access_token");
        let own = find(email).await.unwrap();
        let page = browser.get(&list).await;
        assert!(page.text.contains(&granted(&own)) && !page.text.contains(&granted(&adas)), "{}", page.text);
        browser.get(&granted(&adas)).await.assert_says(403, "Permission denied");
        browser.get(&granted(&own)).await.assert_says(200, "Revoke access for “Metrics”?");
        browser.submit(&granted(&adas), &[]).await.assert_says(403, "Permission denied");
        browser.get(&granted(&own)).await;
        assert_eq!(browser.submit(&granted(&own), &[]).await.location(), list);
        assert_eq!((status(&howdah, &mine).await, find(email).await), (401, None));
    }
    assert_eq!(status(&howdah, &hers).await, 200);

    // Over the API, another application with write access for the same person can revoke it.
    let agent = Application::register(&howdah, "none", REDIRECT).await;
    let access = token(&tokens(&mut vera, &agent, "workspace:read", &workspace).await, "access_token");
    let reader = Person::new(howdah.url(), Some(access));
    let access = token(&tokens(&mut vera, &agent, "workspace:admin", &workspace).await, "access_token");
    let person = Person::new(howdah.url(), Some(access));
    let of_client = format!("{of_workspace}/{}", application.id);
    for path in [format!("/v1/integrations/{adas}"), of_client.clone()] {
        person.delete(&path).await.assert_error(403, "permission-denied");
    }
    for by_client in [false, true] {
        let mine = token(&tokens(&mut vera, &application, ALL, &workspace).await, "access_token");
        let listed = howdah.owner().get(&of_workspace).await.data(200).clone();
        let is_own = |one: &&Value| {
            one["createdByUser"]["email"] == "vera@example.com"
                && one["client"]["id"] == format!("itgr_{}", application.id)
        };
        let id = listed.as_array().unwrap().iter().find(is_own).unwrap()["id"].as_str().unwrap().to_owned();
        let path = if by_client { of_client.clone() } else { format!("/v1/integrations/{id}") };
        reader.delete(&path).await.assert_error(403, "permission-denied");
        person.delete(&path).await.data(204);
        assert_eq!(status(&howdah, &mine).await, 401);
        assert_eq!(status(&howdah, &hers).await, 200, "other integrations are kept");
    }
    howdah.owner().delete(&of_client).await.data(204);
    assert_eq!(status(&howdah, &hers).await, 401);
}

#[tokio::test]
async fn sign_in_continues_to_consent_through_a_page() {
    let howdah = Howdah::start().await;
    Browser::administrator(&howdah).await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let asked = format!("/authorize?{}", Attempt::new().query(&application.id, "foo", REDIRECT));
    let mut browser = Browser::new(&howdah);
    let sign_in = browser.get(&asked).await.location().to_owned();
    browser.get(&sign_in).await;
    let fields = [("email", "ada@example.com"), ("password", PASSWORD), ("next", asked.as_str())];
    // Not a redirect: the browser would apply the form page's policy to the application's redirect.
    let page = browser.submit("/console/sign-in", &fields).await;
    page.assert_says(200, "<h1>Signed in</h1>");
    assert_eq!(page.headers.get("location"), None);
    let refresh = page.between("<meta http-equiv=\"refresh\" content=\"0; url=", "\">").replace("&#38;", "&");
    assert_eq!(refresh, asked);
    let address = browser.get(&refresh).await.location().to_owned();
    assert!(address.starts_with(REDIRECT), "{address}");
    assert_eq!(parameter(&address, "error").as_deref(), Some("invalid_scope"));
}

#[tokio::test]
async fn application_cannot_create_a_token_that_outlives_its_own() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let access = access_token(&howdah, &mut ada, ALL, &workspace).await;
    let path = format!("/v1/workspaces/{}/service-tokens", workspace.rsplit('/').next().unwrap());
    let person = Person::new(howdah.url(), Some(access));
    let (now, minute) = (Clock::system().now(), SignedDuration::from_mins(1));
    let refused = person.post(&path, json!({"name": "for ever"})).await;
    refused.assert_error(403, "permission-denied");
    let later = json!({"name": "later", "expiresAt": (now + minute * 61).to_string()});
    person.post(&path, later).await.assert_error(403, "permission-denied");
    let soon = json!({"name": "soon", "expiresAt": (now + minute * 50).to_string()});
    let made = person.post(&path, soon).await.data(201).clone();
    assert!(made["expiresAt"].is_string(), "{made}");
    howdah.owner().post(&path, json!({"name": "for ever"})).await.data(201);
}

#[tokio::test]
async fn consent_page_names_the_owner_of_the_application() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    ada.get("/console/workspaces").await;
    let elsewhere = ada.submit("/console/workspaces", &[("name", "Else <where>")]).await.location().to_owned();
    let mut fred = ada.invite(&howdah, &workspace, "fred", "developer").await;
    let create = format!("{elsewhere}/integrations/applications");
    let fields = |name| [("name", name), ("redirectUris", REDIRECT), ("public", "on")];
    ada.get(&format!("{create}/new")).await;
    let page = ada.submit(&format!("{create}/new"), &fields("Reports")).await;
    page.assert_says(200, "Application “Reports” created");
    let path = page.between("/integrations/applications/", "\"");
    let id = path.split('/').next().unwrap().to_owned();

    let asked = format!("/authorize?{}", Attempt::new().query(&id, ALL, REDIRECT));
    let warning = "which you are not a member of";
    let page = ada.get(&asked).await;
    page.assert_says(200, "<bdi>Else &#60;where&#62;</bdi>");
    assert!(!page.text.contains(warning), "{}", page.text);
    let page = fred.get(&asked).await;
    page.assert_says(200, "<bdi>Else &#60;where&#62;</bdi>");
    page.assert_says(200, warning);
    let query = Attempt::new().query("cmm3lndn701oo0uefvxzo0ivw", ALL, "http://127.0.0.1:1/auth/callback");
    let page = fred.get(&format!("/authorize?{query}")).await;
    page.assert_says(200, "wants access to your account");
    assert!(!page.text.contains(warning) && !page.text.contains("registered itself"), "{}", page.text);

    // The names of Howdah's own applications are reserved.
    for name in ["Command line", "command  LINE", "Command-Line", " APIpages ", "Comm\u{b7}and line"] {
        ada.get(&format!("{create}/new")).await;
        let page = ada.submit(&format!("{create}/new"), &fields(name)).await;
        page.assert_says(422, "reserved for an application of Howdah");
        ada.get(&format!("{create}/{id}")).await;
        let page = ada.submit(&format!("{create}/{id}"), &fields(name)[..2]).await;
        page.assert_says(422, "reserved for an application of Howdah");
        let metadata = json!({"client_name": name, "redirect_uris": [REDIRECT]});
        let answer = Client::new().post(format!("{}/register", howdah.url())).json(&metadata).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{name}");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"], "invalid_client_metadata", "{name}");
    }
}

#[tokio::test]
async fn unregistered_redirect_uris_are_rejected() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let bare = workspace.rsplit('/').next().unwrap().to_owned();
    let attempt = Attempt::new();
    let good = attempt.query(&application.id, ALL, REDIRECT);

    // Errors shown on a page, for GET and POST.
    for query in [
        attempt.query("unknown", ALL, REDIRECT),
        attempt.query(&application.id, ALL, "https://evil.example/callback"),
        attempt.query(&application.id, ALL, "https://app.example.com/callback/../evil"),
        attempt.query(&application.id, ALL, "https://app.example.com.evil.example/callback"),
        format!("{good}&redirect_uri=https%3A%2F%2Fevil.example"),
        format!("{good}&client_id=unknown"),
    ] {
        let page = ada.get(&format!("/authorize?{query}")).await;
        assert_eq!((page.status, page.headers.get("location")), (400, None), "{query}");
        ada.get(&format!("/authorize?{good}")).await;
        let fields = [("asked", query.as_str()), ("workspace", bare.as_str()), ("decision", "allow")];
        let page = ada.submit("/authorize", &fields).await;
        assert_eq!((page.status, page.headers.get("location")), (400, None), "{query}");
    }
    // Errors reported to the application.
    let error = |page: &Page| {
        let address = page.location();
        assert!(address.starts_with(&format!("{REDIRECT}?")), "{address}");
        assert_eq!(
            (parameter(address, "state"), parameter(address, "iss")),
            (Some(attempt.state.clone()), Some(howdah.url()))
        );
        assert_eq!(parameter(address, "code"), None);
        parameter(address, "error").unwrap()
    };
    for (from, to, expected) in [
        ("response_type=code", "response_type=token", "unsupported_response_type"),
        ("response_type=code", "x=y", "invalid_request"),
        ("code_challenge_method=S256", "code_challenge_method=plain", "invalid_request"),
        ("code_challenge_method=S256", "x=y", "invalid_request"),
        ("code_challenge=", "x=", "invalid_request"),
        ("code_challenge=", "code_challenge=short", "invalid_request"),
        ("scope=workspace%3Aadmin+offline_access", "scope=workspace%3Aeverything", "invalid_scope"),
        ("scope=workspace%3Aadmin+offline_access", "scope=offline_access", "invalid_scope"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let page = ada.get(&format!("/authorize?{}", good.replace(from, to))).await;
        assert_eq!(error(&page), expected, "{to}");
    }
    ada.get(&format!("/authorize?{good}")).await;
    let page = ada.submit("/authorize", &[("asked", &good), ("workspace", &bare), ("decision", "deny")]).await;
    assert_eq!(error(&page), "access_denied");

    // A form of another site, somebody else's workspace, no sign-in.
    ada.get(&format!("/authorize?{good}")).await;
    let forged = ada.post("/authorize", &[("asked", &good), ("workspace", &bare), ("decision", "allow")]);
    assert_eq!(ada.send(forged).await.status, 403);
    let elsewhere = howdah.stranger().await.workspace_id().await;
    ada.get(&format!("/authorize?{good}")).await;
    let page = ada.submit("/authorize", &[("asked", &good), ("workspace", &elsewhere), ("decision", "allow")]).await;
    assert_eq!(page.status, 404);
    ada.get(&format!("/authorize?{good}")).await;
    let page = ada.submit("/authorize", &[("asked", &good), ("decision", "allow")]).await;
    page.assert_says(422, "Select a workspace");
    let page = Browser::new(&howdah).get(&format!("/authorize?{good}")).await;
    assert!(
        page.location().starts_with("/console/sign-in?next=%2Fauthorize")
            || page.location().starts_with("/console/sign-in?next=/authorize"),
        "{}",
        page.location()
    );
}

/// The first workspace's audit entries of an action, newest first.
async fn logged(howdah: &Howdah, action: &str) -> Vec<Value> {
    let owner = howdah.owner();
    let path = format!("/v1/workspaces/{}/audit-log?action={action}", owner.workspace_id().await);
    owner.get(&path).await.data(200).as_array().unwrap().clone()
}

#[tokio::test]
async fn codes_and_refresh_tokens_work_once_and_for_one_client() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let other = Application::register(&howdah, "client_secret_post", REDIRECT).await;
    let refused = |(status, answer): (u16, Value)| {
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{answer}");
    };

    let attempt = Attempt::new();
    let query = attempt.query(&application.id, ALL, REDIRECT);
    let code = parameter(&allow(&mut ada, &query, &workspace).await, "code").unwrap();
    refused(other.exchange(&attempt, &code).await);
    refused(application.exchange(&Attempt::new(), &code).await);
    let fields = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", REDIRECT)];
    refused(application.call("/token", &fields).await);
    let elsewhere = ("redirect_uri", "https://app.example.com/other");
    let verifier = ("code_verifier", attempt.verifier.as_str());
    let fields = [("grant_type", "authorization_code"), ("code", &code), elsewhere, verifier];
    refused(application.call("/token", &fields).await);
    let (status_of, first) = application.exchange(&attempt, &code).await;
    assert_eq!(status_of, 200, "failed attempts do not use up the code: {first}");
    refused(application.exchange(&attempt, &code).await);
    assert_eq!(status(&howdah, &token(&first, "access_token")).await, 401, "a replayed code revokes its tokens");
    refused(application.refresh(&token(&first, "refresh_token")).await);

    let first = tokens(&mut ada, &application, ALL, &workspace).await;
    refused(other.refresh(&token(&first, "refresh_token")).await);
    let (status_of, second) = application.refresh(&token(&first, "refresh_token")).await;
    assert_eq!(status_of, 200, "{second}");
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    let wider = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &token(&second, "refresh_token")),
        ("scope", "workspace:read"),
    ];
    assert_eq!(application.call("/token", &wider).await.1["error"], "invalid_scope");
    // Using the successor proves that its response arrived, so the old token must be stolen now.
    let (status_of, third) = application.refresh(&token(&second, "refresh_token")).await;
    assert_eq!(status_of, 200, "{third}");
    refused(application.refresh(&token(&first, "refresh_token")).await);
    for tokens in [&first, &second, &third] {
        assert_eq!(
            status(&howdah, &token(tokens, "access_token")).await,
            401,
            "a replayed refresh token ends the family"
        );
    }
    refused(application.refresh(&token(&third, "refresh_token")).await);
    let log = logged(&howdah, "issue_tokens").await;
    let seen: Vec<&Value> = log.iter().map(|entry| &entry["reason"]).collect();
    assert!(seen.len() == 2 && seen.iter().all(|why| why.as_str().unwrap().contains("already used")), "{log:?}");
    assert_eq!((&log[0]["outcome"], &log[0]["actor"]["name"]), (&json!("refused"), &json!("ada@example.com")));
    assert_eq!(log[0]["resource"]["type"], "integration");

    // Concurrent refreshes all get the same successor.
    let first = tokens(&mut ada, &application, ALL, &workspace).await;
    let refresh = token(&first, "refresh_token");
    let answers = futures_util::future::join_all((0..8).map(|_| application.refresh(&refresh))).await;
    for (status_of, answer) in &answers {
        assert_eq!(*status_of, 200, "{answer}");
        assert_eq!(answer["refresh_token"], answers[0].1["refresh_token"]);
        assert_eq!(status(&howdah, &token(answer, "access_token")).await, 200);
    }
    assert_eq!(application.refresh(&token(&answers[0].1, "refresh_token")).await.0, 200);
    assert_eq!(tokens(&mut ada, &application, "workspace:admin", &workspace).await.get("refresh_token"), None);
}

#[tokio::test]
async fn refresh_can_be_repeated_for_ten_seconds() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let (store, tasks) = howdah.store();
    // Whole seconds, because the store has no nanoseconds.
    let (keyring, now) = (howdah.keyring(), Timestamp::from_second(Clock::system().now().as_second()).unwrap());
    let client = clients::find(&store.session().await.unwrap(), &application.id).await.unwrap().unwrap();
    let tx = store.begin().await.unwrap();
    let signer = Signer::load_or_create(&tx, &keyring, now).await.unwrap();
    tx.commit().await.unwrap();
    let refresh = async |token: &str, at: Timestamp| {
        let issuer = Issuer { signer: &signer, issuer: "https://a.example.com", audience: "https://b.example.com" };
        let tx = store.begin().await.unwrap();
        let outcome = grants::refresh(&tx, &keyring, issuer, at, &client, token, None).await.unwrap();
        tx.commit().await.unwrap();
        outcome.map(|tokens| tokens.refresh_token.unwrap().expose().to_owned())
    };
    let tick = SignedDuration::from_millis(1);
    let first = token(&tokens(&mut ada, &application, ALL, &workspace).await, "refresh_token");
    let second = refresh(&first, now).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(refresh(&first, now + REFRESH_GRACE).await.unwrap(), second);
    assert_eq!(refresh(&first, now - REFRESH_GRACE).await.unwrap(), second, "the clock was set back a little");
    let third = refresh(&second, now + tick).await.unwrap();
    // A replay after the grace period ends the grant and all of its tokens.
    assert!(matches!(refresh(&second, now + tick + REFRESH_GRACE + tick).await, Err(Refused::Replay { .. })));
    assert!(matches!(refresh(&third, now + REFRESH_GRACE).await, Err(Refused::Grant(_))));

    // A clock that is set back does not extend the grace period.
    let first = token(&tokens(&mut ada, &application, ALL, &workspace).await, "refresh_token");
    refresh(&first, now).await.unwrap();
    assert!(matches!(refresh(&first, now - REFRESH_GRACE - tick).await, Err(Refused::Replay { .. })));
    tasks.stop();
}

#[tokio::test]
async fn clients_must_authenticate_and_introspect_only_their_own_tokens() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "client_secret_basic", REDIRECT).await;
    let other = Application::register(&howdah, "client_secret_post", REDIRECT).await;
    let public = Application::register(&howdah, "none", REDIRECT).await;
    let answer = tokens(&mut ada, &application, ALL, &workspace).await;
    let access = token(&answer, "access_token");

    // By header; with a wrong secret, in two ways at once, and without any.
    let refresh = token(&answer, "refresh_token");
    let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    let basic = |secret: &str| Some(format!("Basic {}", STANDARD.encode(format!("{}:{secret}", application.id))));
    let secret = application.secret.as_deref().unwrap();
    let (status_of, refused) = send(&howdah.url(), "/token", &fields, basic("wrong")).await;
    assert_eq!((status_of, &refused["error"]), (401, &json!("invalid_client")));
    let twice = [fields[0], fields[1], ("client_secret", secret)];
    let (status_of, refused) = send(&howdah.url(), "/token", &twice, basic(secret)).await;
    assert_eq!((status_of, &refused["error"]), (400, &json!("invalid_request")));
    let nobody = Application { url: howdah.url(), id: application.id.clone(), secret: None };
    assert_eq!(nobody.refresh(&refresh).await.0, 401);
    let unknown = Application { url: howdah.url(), id: "unknown".into(), secret: None };
    assert_eq!(unknown.refresh(&refresh).await.0, 401);
    let liar = Application { url: howdah.url(), id: public.id.clone(), secret: Some("any".into()) };
    assert_eq!(liar.refresh(&refresh).await.0, 401, "a public client has no secret");
    let (status_of, renewed) = send(&howdah.url(), "/token", &fields, basic(secret)).await;
    assert_eq!(status_of, 200, "{renewed}");
    assert_eq!(application.call("/token", &[("grant_type", "password")]).await.1["error"], "unsupported_grant_type");
    assert_eq!(application.call("/token", &[]).await.1["error"], "invalid_request");

    let looked = application.call("/introspect", &[("token", &access)]).await.1;
    assert_eq!(
        (&looked["active"], &looked["scope"], &looked["username"]),
        (&json!(true), &json!(ALL), &json!("ada@example.com"))
    );
    assert_eq!(other.call("/introspect", &[("token", &access)]).await.1, json!({"active": false}));
    assert_eq!(public.call("/introspect", &[("token", &access)]).await.0, 401);
    assert_eq!(application.call("/introspect", &[("token", &howdah.token())]).await.1, json!({"active": false}));

    assert_eq!(other.call("/revoke", &[("token", &access)]).await.0, 400);
    assert_eq!(status(&howdah, &access).await, 200);
    assert_eq!(application.call("/revoke", &[("token", &access)]).await.0, 200);
    assert_eq!(status(&howdah, &access).await, 401);
    assert_eq!(application.call("/revoke", &[("token", "unknown")]).await.0, 200);
    assert_eq!(application.call("/revoke", &[("token", &token(&renewed, "refresh_token"))]).await.0, 200);
    let log = logged(&howdah, "revoke_tokens").await;
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!((&log[0]["outcome"], &log[0]["actor"]["type"]), (&json!("allowed"), &json!("user")));
    assert!(log[0]["actor"]["application"].is_string() && log[0]["address"].is_string(), "{log:?}");
    assert_eq!(
        status(&howdah, &token(&renewed, "access_token")).await,
        401,
        "revoking the refresh token revokes its access tokens"
    );
}

#[tokio::test]
async fn token_has_the_current_permissions_of_its_user() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut grace = ada.invite(&howdah, &workspace, "grace", "developer").await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let answer = tokens(&mut grace, &application, ALL, &workspace).await;
    let access = token(&answer, "access_token");
    let person = Person::new(howdah.url(), Some(access.clone()));
    let bare = workspace.rsplit('/').next().unwrap();
    person.post("/v1/projects", json!({"createDatabase": false})).await.data(201);
    let tokens_of = format!("/v1/workspaces/{bare}/service-tokens");
    assert_eq!(person.post(&tokens_of, json!({"name": "mine"})).await.status, 403, "developers cannot create tokens");

    let user = ada.get(&format!("{workspace}/members")).await;
    let users: Vec<&str> =
        user.text.split("/members/").skip(1).filter_map(|rest| rest.split_once("/role")).map(|(id, _)| id).collect();
    let id = users
        .iter()
        .find(|id| id.len() == 26 && user.text.contains(&format!("/members/{id}/remove")))
        .unwrap()
        .to_owned();
    let me = person.get("/v1/me").await.data(200)["user"]["id"].as_str().unwrap().trim_start_matches("usr_").to_owned();
    assert!(users.contains(&me.as_str()), "{id}");
    ada.submit(&format!("{workspace}/members/{me}/role"), &[("role", "viewer")]).await.location();
    assert_eq!(person.post("/v1/projects", json!({})).await.status, 403);
    person.get("/v1/projects").await.data(200);
    ada.get(&format!("{workspace}/members")).await;
    ada.submit(&format!("{workspace}/members/{me}/remove"), &[]).await.location();
    assert_eq!(status(&howdah, &access).await, 401);
    assert_eq!(application.refresh(&token(&answer, "refresh_token")).await.1["error"], "invalid_grant");

    // Grants of a disabled account stay ended after it is enabled.
    let mut vera = ada.invite(&howdah, &workspace, "vera", "developer").await;
    let answer = tokens(&mut vera, &application, ALL, &workspace).await;
    let access = token(&answer, "access_token");
    let own = Person::new(howdah.url(), Some(access.clone())).get("/v1/me").await.data(200).clone();
    let page = format!("/console/people/{}", own["user"]["id"].as_str().unwrap().trim_start_matches("usr_"));
    ada.get(&page).await;
    ada.submit(&format!("{page}/disable"), &[("confirm", "vera@example.com")]).await.location();
    assert_eq!(status(&howdah, &access).await, 401);
    ada.get(&page).await;
    ada.submit(&format!("{page}/enable"), &[]).await.location();
    assert_eq!(status(&howdah, &access).await, 401);
    assert_eq!(application.refresh(&token(&answer, "refresh_token")).await.1["error"], "invalid_grant");
    // A password reset ends grants for good.
    vera.sign_in("vera@example.com").await.location();
    let answer = tokens(&mut vera, &application, ALL, &workspace).await;
    ada.get(&page).await;
    let made = ada.submit(&format!("{page}/reset"), &[]).await;
    let link = format!("/console/reset/{}", made.between("/console/reset/", "<"));
    let mut other = Browser::new(&howdah);
    other.get(&link).await;
    let password = [("password", "other-marble-wander-95"), ("again", "other-marble-wander-95")];
    other.submit(&link, &password).await.location();
    assert_eq!(status(&howdah, &token(&answer, "access_token")).await, 401);

    // Unsigned tokens, and tokens of another algorithm.
    let live = tokens(&mut ada, &application, ALL, &workspace).await;
    let live = token(&live, "access_token");
    let parts: Vec<&str> = live.split('.').collect();
    let header = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let keys = reqwest::get(format!("{}/.well-known/jwks.json", howdah.url())).await.unwrap().text().await.unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let kid = jsonwebtoken::decode_header(&live).unwrap().kid;
    let swapped = jsonwebtoken::Header { kid, ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256) };
    let swapped =
        jsonwebtoken::encode(&swapped, &claims, &jsonwebtoken::EncodingKey::from_secret(keys.as_bytes())).unwrap();
    for forged in [
        format!("{}.{}.", header(r#"{"alg":"none","typ":"at+jwt"}"#), parts[1]),
        format!("{}.{}.{}", header(r#"{"alg":"none"}"#), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode([0; 64])),
        swapped,
    ] {
        assert_eq!(status(&howdah, &forged).await, 401, "{forged}");
    }
    assert_eq!(status(&howdah, &live).await, 200);
    let answer = reqwest::get(format!("{}/v1/me", howdah.url())).await.unwrap();
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    assert!(
        challenge.contains(&format!("resource_metadata=\"{}/.well-known/oauth-protected-resource\"", howdah.url()))
    );
}

#[tokio::test]
async fn project_can_be_transferred_with_an_access_token() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let first = ada.workspace().await;
    let access = token(&tokens(&mut ada, &application, ALL, &first).await, "access_token");
    let person = Person::new(howdah.url(), Some(access));
    let other = person.post("/v1/workspaces", json!({"displayName": "Other"})).await.data(201)["id"].clone();
    let other = format!("/console/workspaces/{}", other.as_str().unwrap().trim_start_matches("wksp_"));
    let recipient = token(&tokens(&mut ada, &application, "workspace:admin", &other).await, "access_token");
    let reader = token(&tokens(&mut ada, &application, "workspace:read", &other).await, "access_token");
    let project = howdah.owner().post("/v1/projects", json!({"createDatabase": false})).await.data(201)["id"].clone();
    let path = format!("/v1/projects/{}/transfer", project.as_str().unwrap());
    let transfer = async |token: &str| howdah.owner().post(&path, json!({"recipientAccessToken": token})).await.status;
    assert_eq!(transfer("nonsense").await, 400);
    assert!([400, 403].contains(&transfer(&reader).await.as_u16()), "a read-only token cannot receive a project");
    assert_eq!(transfer(&recipient).await, 200);
    assert_eq!(howdah.owner().get(&format!("/v1/projects/{}", project.as_str().unwrap())).await.status, 404);
}

#[tokio::test]
async fn registration_validates_metadata_and_can_be_disabled() {
    let howdah = Howdah::start_with(&["--no-client-registration"]).await;
    let url = format!("{}/register", howdah.url());
    let metadata = json!({"redirect_uris": [REDIRECT]});
    let answer = Client::new().post(&url).json(&metadata).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let server = format!("{}/.well-known/oauth-authorization-server", howdah.url());
    let server: Value = reqwest::get(server).await.unwrap().json().await.unwrap();
    assert_eq!((server.get("registration_endpoint"), &server["issuer"]), (None, &json!(howdah.url())));

    let howdah = Howdah::start().await;
    let url = format!("{}/register", howdah.url());
    for (metadata, error) in [
        (json!({}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["javascript:alert(1)"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["http://app.example.com/"]}), "invalid_redirect_uri"),
        (
            json!({"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "private_key_jwt"}),
            "invalid_client_metadata",
        ),
        (json!({"redirect_uris": [REDIRECT], "grant_types": ["implicit"]}), "invalid_client_metadata"),
        (json!({"redirect_uris": [REDIRECT], "response_types": ["token"]}), "invalid_client_metadata"),
        (json!({"redirect_uris": REDIRECT}), "invalid_client_metadata"),
        (json!({"redirect_uris": [REDIRECT], "client_name": "x".repeat(300)}), "invalid_client_metadata"),
    ] {
        let answer = Client::new().post(&url).json(&metadata).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{metadata}");
        assert_eq!(answer.json::<Value>().await.unwrap()["error"], error, "{metadata}");
    }
}

#[tokio::test]
async fn confidential_client_may_omit_pkce_and_redirect_uri_may_have_a_query() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let application = Application::register(&howdah, "client_secret_post", REDIRECT).await;
    let redirect = format!("{REDIRECT}?projectID=proj_1");
    let query = |redirect: &str, challenge: &str| {
        form(&[
            ("client_id", &application.id),
            ("redirect_uri", redirect),
            ("response_type", "code"),
            ("scope", "workspace:admin"),
            ("code_challenge", challenge),
        ])
    };
    let address = allow(&mut ada, &query(&redirect, ""), &workspace).await;
    assert!(address.starts_with(&format!("{redirect}&code=")), "{address}");
    let code = parameter(&address, "code").unwrap();
    let fields = [("grant_type", "authorization_code"), ("code", code.as_str())];
    let with = async |more: &[(&str, &str)]| {
        let (status, answer) = application.call("/token", &[&fields, more].concat()).await;
        (status, answer["error"].as_str().unwrap_or_default().to_owned(), answer)
    };
    let grant = "invalid_grant".to_owned();
    let (status_of, error, _) = with(&[("redirect_uri", REDIRECT)]).await;
    assert_eq!((status_of, error), (400, grant.clone()), "the redirect URI must match including its query");
    let (status_of, error, _) = with(&[("redirect_uri", &redirect), ("code_verifier", "any")]).await;
    assert_eq!((status_of, error), (400, grant.clone()), "a verifier without a challenge is rejected");
    let (status_of, _, answer) = with(&[("redirect_uri", &redirect), ("code_verifier", "")]).await;
    assert_eq!((status_of, answer.get("refresh_token")), (200, None), "{answer}");
    let page = ada.get(&format!("/authorize?{}", query(&format!("{REDIRECT}?code=mine"), ""))).await;
    assert_eq!(page.status, 400, "the query must not contain parameters of the response");

    // A sent challenge is enforced for confidential clients too; a sole redirect URI may be omitted.
    let attempt = Attempt::new();
    let query = attempt.query(&application.id, ALL, "");
    let address = allow(&mut ada, &query, &workspace).await;
    let code = parameter(&address, "code").unwrap();
    let fields = [("grant_type", "authorization_code"), ("code", code.as_str())];
    let (status_of, answer) = application.call("/token", &fields).await;
    assert_eq!((status_of, &answer["error"]), (400, &json!("invalid_grant")));
    let verifier = ("code_verifier", attempt.verifier.as_str());
    let (status_of, answer) = application.call("/token", &[fields[0], fields[1], verifier]).await;
    assert_eq!(status_of, 200, "{answer}");
}

#[tokio::test]
async fn expired_and_revoked_tokens_and_codes_are_rejected() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut grace = ada.invite(&howdah, &workspace, "grace", "admin").await;
    let application = Application::register(&howdah, "none", REDIRECT).await;
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    let refused = |(status, answer): (u16, Value)| {
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{answer}");
    };

    // A disabled account, then enabled again.
    let hers = tokens(&mut grace, &application, ALL, &workspace).await;
    let keep_out = async |is_out: bool| {
        let user = users::by_email(&session, "grace@example.com").await.unwrap();
        let id = match user {
            Some(user) => user.id,
            None => {
                users::list(&session, PageRequest { after: None, limit: 10 })
                    .await
                    .unwrap()
                    .items
                    .into_iter()
                    .find(|account| account.user.email == "grace@example.com")
                    .unwrap()
                    .user
                    .id
            }
        };
        let tx = store.begin().await.unwrap();
        users::set_disabled(&tx, Clock::system().now(), id, is_out).await.unwrap();
        tx.commit().await.unwrap();
    };
    let access = token(&hers, "access_token");
    assert_eq!(status(&howdah, &access).await, 200);
    keep_out(true).await;
    assert_eq!(status(&howdah, &access).await, 401);
    refused(application.refresh(&token(&hers, "refresh_token")).await);
    keep_out(false).await;
    assert_eq!(status(&howdah, &access).await, 200);

    // Expiry of a code, an access token and a refresh token.
    let age = async |table: &str| {
        let update = format!("UPDATE {table} SET expires_at = now() - interval '1 second'");
        session.execute(&update, &[]).await.unwrap();
    };
    let attempt = Attempt::new();
    let query = attempt.query(&application.id, ALL, REDIRECT);
    let code = parameter(&allow(&mut ada, &query, &workspace).await, "code").unwrap();
    age("oauth_codes").await;
    refused(application.exchange(&attempt, &code).await);
    let old = tokens(&mut ada, &application, ALL, &workspace).await;
    age("oauth_access_tokens").await;
    assert_eq!(status(&howdah, &token(&old, "access_token")).await, 401);
    let (status_of, renewed) = application.refresh(&token(&old, "refresh_token")).await;
    assert_eq!(status_of, 200, "{renewed}");
    age("oauth_refresh_tokens").await;
    refused(application.refresh(&token(&renewed, "refresh_token")).await);
    assert_eq!(status(&howdah, &token(&renewed, "access_token")).await, 200);

    // An application of a workspace: rotated secret, then deleted.
    let owner = WorkspaceId::parse(&howdah.owner().workspace_id().await).unwrap();
    let actor = members::principal(
        &session,
        &users::by_email(&session, "ada@example.com").await.unwrap().unwrap(),
        owner,
        Origin::default(),
    )
    .await
    .unwrap();
    let new = NewClient {
        name: ApplicationName::parse("Reports").unwrap(),
        description: None,
        redirect_uris: vec![RedirectUri::parse(REDIRECT).unwrap()],
        is_public: false,
    };
    let (tx, now) = (store.begin().await.unwrap(), Clock::system().now());
    let (made, secret) = applications::create(&tx, &actor, now, &new).await.unwrap();
    tx.commit().await.unwrap();
    let secret = secret.map(|secret| secret.expose().to_owned());
    let mut reports = Application { url: howdah.url(), id: made.id.bare().to_owned(), secret };
    let answer = tokens(&mut ada, &reports, ALL, &workspace).await;
    let page = ada.get(&format!("/authorize?{}", Attempt::new().query(&reports.id, ALL, REDIRECT))).await;
    assert!(!page.text.contains("registered itself"), "a member created it");
    let tx = store.begin().await.unwrap();
    let secret = applications::rotate_secret(&tx, &actor, now, &made.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(reports.refresh(&token(&answer, "refresh_token")).await.0, 401);
    reports.secret = Some(secret.expose().to_owned());
    let (status_of, answer) = reports.refresh(&token(&answer, "refresh_token")).await;
    assert_eq!((status_of, status(&howdah, &token(&answer, "access_token")).await), (200, 200), "{answer}");
    let tx = store.begin().await.unwrap();
    applications::delete(&tx, &actor, now, &made.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(status(&howdah, &token(&answer, "access_token")).await, 401);
    assert_eq!(reports.refresh(&token(&answer, "refresh_token")).await.0, 401);
    tasks.stop();
}

async fn published(howdah: &Howdah) -> Vec<String> {
    let keys: Value =
        reqwest::get(format!("{}/.well-known/jwks.json", howdah.url())).await.unwrap().json().await.unwrap();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn tokens_of_old_keys_stay_valid_after_rotation() {
    let mut howdah = Howdah::start().await;
    let first = published(&howdah).await;
    assert_eq!(first.len(), 1);
    let workspace = WorkspaceId::parse(&howdah.owner().workspace_id().await).unwrap();
    let (store, tasks) = howdah.store();
    let keyring = howdah.keyring();
    let (now, age) = (Clock::system().now(), SignedDuration::from_hours(90 * 24));
    let later = now + age + SignedDuration::from_secs(1);

    // Created by another process; the server is notified.
    let tx = store.begin().await.unwrap();
    assert!(!signing::rotate(&tx, &keyring, now, age).await.unwrap(), "the first key is young");
    assert!(signing::rotate(&tx, &keyring, later, age).await.unwrap());
    assert!(!signing::rotate(&tx, &keyring, later, age).await.unwrap(), "once");
    tx.commit().await.unwrap();
    eventually("the server to know the new key", async || (published(&howdah).await.len() == 2).then_some(())).await;

    // A new key signs once it has been published for an hour. Tokens of both keys are valid.
    let issue = async |at| {
        let tx = store.begin().await.unwrap();
        let signer = Signer::load_or_create(&tx, &keyring, at).await.unwrap();
        let name = TokenName::parse("later").unwrap();
        let issued = service_tokens::issue(&tx, &signer, at, workspace, &name, &Limits::default()).await.unwrap();
        tx.commit().await.unwrap();
        let value = issued.value.expose().to_owned();
        (jsonwebtoken::decode_header(&value).unwrap().kid.unwrap(), value)
    };
    let (by_old, soon) = issue(later).await;
    let (by_new, after) = issue(later + SignedDuration::from_hours(1)).await;
    assert_eq!(by_old, first[0]);
    assert!(by_new != first[0] && published(&howdah).await.contains(&by_new));
    for good in [&soon, &after, &howdah.token()] {
        assert_eq!(status(&howdah, good).await, 200);
    }

    // The server creates a new key itself.
    let old = "UPDATE keys SET created_at = created_at - interval '200 days' WHERE purpose = 'token signing'";
    store.session().await.unwrap().execute(old, &[]).await.unwrap();
    tasks.stop();
    howdah.stop().await;
    howdah.launch().await;
    eventually("the server to make a key", async || (published(&howdah).await.len() == 3).then_some(())).await;
    assert_eq!(status(&howdah, &after).await, 200);
}

#[tokio::test]
async fn endpoint_errors_have_the_format_of_the_protocol() {
    let howdah = Howdah::start_with(&["--public-auth-url", "http://auth.localhost:4711/"]).await;
    let client = Client::new();
    let at = |path: &str| format!("{}{path}", howdah.url());
    let large = "x".repeat(300 * 1024);
    let kind = "application/x-www-form-urlencoded";
    for (request, expected, error) in [
        (client.get(at("/token")), 405, "invalid_request"),
        (client.post(at("/token")).json(&json!({})), 400, "invalid_request"),
        (client.post(at("/token")).header("content-type", kind).body(large), 413, "invalid_request"),
        (
            client.post(at("/token")).header("content-type", kind).body("client_id=a&client_id=b"),
            400,
            "invalid_request",
        ),
        (client.post(at("/token")).header("content-type", kind).body("client_id=%22"), 401, "invalid_client"),
        (client.delete(at("/register")), 405, "invalid_request"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["cache-control"]),
            (expected, &"no-store".parse().unwrap())
        );
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"], error, "{body}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"'), "{description}");
    }

    // CORS allows the endpoints, but not the consent page.
    for path in ["/token", "/register", "/.well-known/oauth-authorization-server"] {
        let preflight = client.request(reqwest::Method::OPTIONS, at(path)).header("origin", "https://app.example.com");
        let preflight = preflight.header("access-control-request-method", "POST").send().await.unwrap();
        assert_eq!(preflight.headers()["access-control-allow-origin"], "*", "{path}");
    }
    let page = client.get(at("/authorize")).header("origin", "https://app.example.com").send().await.unwrap();
    assert!(!page.headers().contains_key("access-control-allow-origin"));

    // With a public URL of its own, all metadata use it.
    let get = async |path: &str| -> Value { client.get(at(path)).send().await.unwrap().json().await.unwrap() };
    let server = get("/.well-known/oauth-authorization-server").await;
    assert_eq!(
        (&server["issuer"], &server["token_endpoint"]),
        (&json!("http://auth.localhost:4711"), &json!("http://auth.localhost:4711/token"))
    );
    let resource = get("/.well-known/oauth-protected-resource").await;
    assert_eq!(
        (&resource["resource"], &resource["authorization_servers"]),
        (&json!(howdah.url()), &json!(["http://auth.localhost:4711"]))
    );
    let flow = &get("/v1/doc").await["components"]["securitySchemes"]["OAuth2"]["flows"]["authorizationCode"];
    assert_eq!(flow["authorizationUrl"], "http://auth.localhost:4711/authorize");
    let docs = client.get(at("/docs")).send().await.unwrap();
    assert!(docs.headers()["content-security-policy"].to_str().unwrap().contains(" http://auth.localhost:4711"));

    let challenge = |answer: reqwest::Response| answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let without = challenge(client.get(at("/v1/me")).send().await.unwrap());
    let with = challenge(client.get(at("/v1/me")).bearer_auth("nonsense").send().await.unwrap());
    assert!(!without.contains("error") && with.starts_with("Bearer error=\"invalid_token\", "), "{without} {with}");
}

#[tokio::test]
async fn third_party_oauth_clients_get_access() {
    let howdah = Howdah::start().await;
    Browser::administrator(&howdah).await;
    run("oauth.js", &howdah.url(), &howdah.token(), &[("HOWDAH_PASSWORD", PASSWORD)]).await;
}
