//! Signing in with an OpenID Connect provider: a scripted one that also sends invalid responses, and a third-party
//! one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base::clock::Clock;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use totp_rs::Builder;

use crate::browser::{Browser, PASSWORD, Page};
use crate::harness::{Howdah, eventually};
use crate::sdk::run;

const SECRET: &str = "shared-with-howdah";

/// The scripted provider's responses to one sign-in.
struct Says {
    /// Overrides claims of the ID token; null omits a claim.
    claims: Value,
    /// The user info response.
    user_info: Value,
    /// What signs the ID token: the provider's key, another key, the client secret, or nothing.
    signed: Signed,
    /// The status of the token response.
    status: u16,
}

#[derive(Clone, Copy, PartialEq)]
enum Signed {
    Rightly,
    BySomebodyElse,
    WithTheSecret,
    NotAtAll,
}

impl Default for Says {
    fn default() -> Self {
        let user_info = json!({});
        Self { claims: json!({}), user_info, signed: Signed::Rightly, status: 200 }
    }
}

/// Responses for a person with this address.
fn person(subject: &str, email: &str) -> Says {
    let claims = json!({ "sub": subject, "email": email, "email_verified": true, "name": subject });
    Says { claims, ..Says::default() }
}

struct Provider {
    issuer: String,
    key: KeyPair,
    other: KeyPair,
    says: Mutex<Says>,
    /// The last authorization request.
    asked: Mutex<Value>,
    /// The number of token requests.
    tokens: Mutex<u32>,
    down: Mutex<bool>,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let provider = Arc::new(Self {
            issuer: format!("http://{}", listener.local_addr().unwrap()),
            key: key(),
            other: key(),
            says: Mutex::default(),
            asked: Mutex::default(),
            tokens: Mutex::default(),
            down: Mutex::default(),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(Self::metadata))
            .route("/keys", get(Self::keys))
            .route("/token", post(Self::token))
            .route("/user-info", get(Self::user_info))
            .with_state(provider.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        provider
    }

    fn arguments(&self) -> Vec<&str> {
        vec!["--oidc-issuer", &self.issuer, "--oidc-client-id", "howdah", "--oidc-name", "Acme"]
    }

    async fn howdah(&self, more: &[&str]) -> Howdah {
        let arguments: Vec<&str> = self.arguments().into_iter().chain(more.iter().copied()).collect();
        Howdah::start_in(&[("HOWDAH_OIDC_CLIENT_SECRET", SECRET)], &arguments).await
    }

    async fn metadata(State(own): State<Arc<Self>>) -> Response {
        if *own.down.lock().unwrap() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let at = |path: &str| format!("{}/{path}", own.issuer);
        Json(json!({
            "issuer": own.issuer,
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("token"),
            "userinfo_endpoint": at("user-info"),
            "jwks_uri": at("keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            // Allows everything, so that only Howdah's own checks are tested.
            "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
        }))
        .into_response()
    }

    async fn keys(State(own): State<Arc<Self>>) -> Json<Value> {
        let point = own.key.der_bytes();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        Json(json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", "x": part(1..33), "y": part(33..65) },
        ] }))
    }

    async fn token(
        State(own): State<Arc<Self>>,
        headers: HeaderMap,
        Form(form): Form<std::collections::HashMap<String, String>>,
    ) -> Response {
        *own.tokens.lock().unwrap() += 1;
        let basic = format!("Basic {}", STANDARD.encode(format!("howdah:{SECRET}")));
        assert_eq!(headers["authorization"], basic.as_str());
        let asked = own.asked.lock().unwrap().clone();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_bytes()));
        assert_eq!(asked["code_challenge"], challenge);
        assert_eq!((&asked["redirect_uri"], form["code"].as_str()), (&json!(form["redirect_uri"]), "the-code"));
        let says = own.says.lock().unwrap();
        if says.status != 200 {
            let answer = Json(json!({ "error": "invalid_grant" }));
            return (StatusCode::from_u16(says.status).unwrap(), answer).into_response();
        }
        let now = Clock::system().now().as_second();
        let mut claims = json!({
            "iss": own.issuer, "aud": "howdah", "sub": "somebody", "nonce": asked["nonce"], "iat": now, "exp": now + 60,
        });
        for (name, value) in says.claims.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let id_token = own.sign(says.signed, &claims);
        Json(json!({ "access_token": "access", "token_type": "Bearer", "id_token": id_token })).into_response()
    }

    fn sign(&self, signed: Signed, claims: &Value) -> String {
        let header = |algorithm| Header { kid: Some("1".into()), ..Header::new(algorithm) };
        let pem = |key: &KeyPair| EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
        let encode = |algorithm, key| jsonwebtoken::encode(&header(algorithm), claims, &key).unwrap();
        match signed {
            Signed::Rightly => encode(Algorithm::ES256, pem(&self.key)),
            Signed::BySomebodyElse => encode(Algorithm::ES256, pem(&self.other)),
            Signed::WithTheSecret => encode(Algorithm::HS256, EncodingKey::from_secret(SECRET.as_bytes())),
            Signed::NotAtAll => {
                let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
                format!("{}.{}.", part(&json!({ "alg": "none" })), part(claims))
            }
        }
    }

    async fn user_info(State(own): State<Arc<Self>>, headers: HeaderMap) -> Json<Value> {
        assert_eq!(headers["authorization"], "Bearer access");
        let mut said = own.says.lock().unwrap().user_info.clone();
        if said["sub"].is_null() {
            said["sub"] = own.says.lock().unwrap().claims["sub"].clone();
        }
        Json(said)
    }

    /// Goes to the provider from the sign-in page.
    async fn go(&self, browser: &mut Browser, next: &str) -> String {
        let page = browser.get(&format!("/console/sign-in/provider?next={next}")).await;
        let there = page.location().to_owned();
        assert!(there.starts_with(&format!("{}/authorize?", self.issuer)), "{there}");
        let url = reqwest::Url::parse(&there).unwrap();
        let Query(asked): Query<Value> = Query::try_from_uri(&url.as_str().parse().unwrap()).unwrap();
        *self.asked.lock().unwrap() = asked.clone();
        asked["state"].as_str().unwrap().to_owned()
    }

    /// Signs in with these responses of the provider.
    async fn sign_in(&self, browser: &mut Browser, says: Says) -> Page {
        let state = self.go(browser, "/console/account").await;
        *self.says.lock().unwrap() = says;
        browser.get(&back(&state)).await
    }
}

/// The callback's address.
fn back(state: &str) -> String {
    format!("/console/sign-in/provider/callback?code=the-code&state={state}")
}

async fn is_signed_in(browser: &mut Browser) -> bool {
    browser.get("/console/account").await.status == 200
}

#[tokio::test]
async fn invited_person_signs_in_with_the_provider() {
    let provider = Provider::start().await;
    let howdah = provider.howdah(&[]).await;
    let callback = format!("{}/console/sign-in/provider/callback", howdah.url());
    eventually("the provider to be checked", async || howdah.log().contains(&callback).then_some(())).await;
    let early = provider.sign_in(&mut Browser::new(&howdah), person("ada", "ada@example.com")).await;
    early.assert_says(422, "There is no account yet.");
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;

    let mut ben = Browser::new(&howdah);
    ben.get("/console/sign-in").await.assert_says(200, "Continue with Acme");
    let page = provider.sign_in(&mut ben, person("ben-1", "Ben@example.com")).await;
    page.assert_says(422, "There is no account for Ben@example.com.");
    assert!(!is_signed_in(&mut ben).await);

    let link = ada.invitation(&workspace, "ben@example.com", "developer").await;
    ben.get(&link).await.assert_says(200, "Continue with Acme");
    let state = provider.go(&mut ben, &link).await;
    assert_eq!(provider.asked.lock().unwrap()["scope"], "openid email profile");
    assert_eq!(ben.get(&back(&state)).await.location(), link);
    assert!(!ben.cookies.contains_key("howdah_provider"));
    ben.get(&link).await.assert_says(200, "Join as Ben@example.com");
    assert_eq!(ben.submit(&link, &[]).await.location(), workspace);
    let account = ben.get("/console/account").await;
    account.assert_says(200, "You have no password and sign in with your identity provider.");
    assert!(account.text.contains("ben-1"), "the name that the provider gave");
    assert!(account.text.contains("Connected"));
    // The subject identifies the person even with another address. The only way to sign in cannot be disconnected.
    let mut again = Browser::new(&howdah);
    assert_eq!(provider.sign_in(&mut again, person("ben-1", "other@example.com")).await.location(), "/console/account");
    again.get("/console/account").await.assert_says(200, "Ben@example.com");
    again.submit("/console/account/provider/disconnect", &[]).await.assert_says(409, "Set a password first.");
    // The code works in one browser, once.
    let stale = again.get(&back(&state)).await;
    assert_eq!(stale.location(), "/console", "a signed-in browser continues");
    Browser::new(&howdah)
        .get(&back(&state))
        .await
        .assert_says(422, "The sign-in took too long, or was started in another browser");

    let page = ada.get("/console/people").await;
    let person = format!("/console/people/{}", page.between("<a href=\"/console/people/", "\""));
    ada.get(&person).await.assert_says(200, "Sign-in methods");
}

#[tokio::test]
async fn existing_account_keeps_its_second_factor_with_the_provider() {
    let provider = Provider::start().await;
    let howdah = provider.howdah(&["--oidc-domain", "example.org"]).await;
    let mut ada = Browser::administrator(&howdah).await;
    ada.get("/console/account").await.assert_says(200, "Not connected");
    let page = provider.sign_in(&mut ada, person("ada-1", "ADA@example.com")).await;
    assert_eq!(page.location(), "/console/account");
    ada.get("/console/account").await.assert_says(200, "Connected");
    // An existing account must be proven first: somebody else may have created it.
    let workspace = ada.workspace().await;
    let mut mallory = ada.invite(&howdah, &workspace, "victim", "viewer").await;
    let mut victim = Browser::new(&howdah);
    let page = provider.sign_in(&mut victim, person("victim-1", "victim@example.com")).await;
    page.assert_says(422, "victim@example.com already has an account.");
    assert!(!is_signed_in(&mut victim).await && is_signed_in(&mut mallory).await);
    let page = provider.sign_in(&mut mallory, person("other-1", "ada@example.com")).await;
    page.assert_says(422, "ada@example.com already has an account.");
    // Her address now belongs to somebody else.
    let mut other = Browser::new(&howdah);
    let page = provider.sign_in(&mut other, person("ada-2", "ada@example.com")).await;
    page.assert_says(422, "ada@example.com already has an account.");
    assert!(!is_signed_in(&mut other).await);
    let page = provider.sign_in(&mut ada, person("ada-2", "ada@example.com")).await;
    page.assert_says(422, "belongs to another user of this identity provider");
    // A new account, allowed by its domain.
    let mut cleo = Browser::new(&howdah);
    provider.sign_in(&mut cleo, person("cleo", "cleo@example.org")).await.location();
    cleo.get("/console/account").await.assert_says(200, "cleo@example.org");

    // With two-factor authentication, the provider alone is not enough.
    let page = ada.submit("/console/account/authenticator", &[("current", PASSWORD)]).await;
    let secret = page.between("aria-label=\"Key for the authenticator app\">", "<").replace(' ', "");
    let totp = Builder::new().with_secret(totp_rs::Secret::try_from_base32(&secret).unwrap()).build().unwrap();
    let code = || totp.generate_current().to_string();
    ada.submit("/console/account/authenticator/confirm", &[("code", &code())]).await.assert_says(200, "ecovery");
    let mut elsewhere = Browser::new(&howdah);
    let page = provider.sign_in(&mut elsewhere, person("ada-1", "ada@example.com")).await;
    page.assert_says(200, "Enter the six-digit code");
    assert!(!is_signed_in(&mut elsewhere).await);

    // A disabled account cannot sign in with the provider either.
    let people = ada.get("/console/people").await;
    let cleos = people.text.split("<a href=\"/console/people/").nth(3).unwrap().split('"').next().unwrap().to_owned();
    let keep_out = format!("/console/people/{cleos}/disable");
    assert_eq!(ada.submit(&keep_out, &[("confirm", "cleo@example.org")]).await.status, 303);
    assert!(!is_signed_in(&mut cleo).await);
    provider.sign_in(&mut cleo, person("cleo", "cleo@example.org")).await.assert_says(422, "This account is disabled.");
    provider.sign_in(&mut cleo, person("cleo-2", "cleo@example.org")).await.assert_says(422, "already has an account");

    // The owner can disconnect the provider.
    ada.get("/console/account").await;
    assert_eq!(ada.submit("/console/account/provider/disconnect", &[]).await.status, 303);
    ada.get("/console/account").await.assert_says(200, "Not connected");
}

#[tokio::test]
async fn unexpected_claim_types_do_not_prevent_sign_in() {
    let provider = Provider::start().await;
    let howdah = provider.howdah(&["--oidc-domain", "example.com"]).await;
    Browser::administrator(&howdah).await;
    // None of these claims is used.
    let unused = json!({
        "iat": "now", "auth_time": "yesterday", "acr": 1, "amr": "pwd", "azp": 7, "c_hash": 1, "gender": 0,
        "given_name": 1, "family_name": ["x"], "nickname": {}, "picture": { "data": {} }, "profile": "no address",
        "website": 1, "locale": { "language": "en" }, "zoneinfo": 1, "birthdate": 1815, "phone_number": 44,
        "phone_number_verified": "perhaps", "address": "Ockham Park", "updated_at": "2026-01-01T00:00:00Z",
    });
    let with = |subject: &str, claims: Value| {
        let mut says = person(subject, &format!("{subject}@example.com"));
        for (claim, value) in unused.as_object().unwrap().iter().chain(claims.as_object().unwrap()) {
            says.claims[claim] = value.clone();
        }
        says
    };
    for (subject, claims) in [
        ("unused", json!({})),
        ("text", json!({ "email_verified": "true" })),
        ("capital", json!({ "email_verified": "True" })),
        ("list", json!({ "aud": ["howdah"] })),
        ("fraction", json!({ "exp": Clock::system().now().as_second() as f64 + 60.5 })),
        ("nameless", json!({ "name": 7 })),
    ] {
        let mut browser = Browser::new(&howdah);
        let page = provider.sign_in(&mut browser, with(subject, claims)).await;
        assert_eq!(page.location(), "/console/account", "{subject}: {}", page.text);
        browser.get("/console/account").await.assert_says(200, &format!("{subject}@example.com"));
    }
    // The same in the user info response.
    let mut user_info = unused.clone();
    (user_info["email"], user_info["email_verified"]) = (json!("beside@example.com"), json!("true"));
    let says = Says { claims: json!({ "sub": "beside" }), user_info, ..Says::default() };
    let mut browser = Browser::new(&howdah);
    assert_eq!(provider.sign_in(&mut browser, says).await.location(), "/console/account");
    browser.get("/console/account").await.assert_says(200, "beside@example.com");

    for verified in [json!("false"), json!("yes"), json!(1)] {
        let mut browser = Browser::new(&howdah);
        let page = provider.sign_in(&mut browser, with("mallory", json!({ "email_verified": verified }))).await;
        assert_eq!(page.status, 422, "{verified}: {}", page.text);
    }
}

#[tokio::test]
async fn forged_provider_responses_are_rejected() {
    let provider = Provider::start().await;
    let mut howdah = provider.howdah(&["--oidc-domain", "example.com"]).await;
    howdah.expect_errors(&["could not be verified"]);
    Browser::administrator(&howdah).await;
    let mut mallory = Browser::new(&howdah);
    let mut attempt = async |what: &str, says: Says, status: u16| {
        let page = provider.sign_in(&mut mallory, says).await;
        assert_eq!(page.status, status, "{what}: {}", page.text);
        assert!(!is_signed_in(&mut mallory).await, "{what}");
    };
    let with = |name: &str, value: Value| {
        let mut says = person("ada", "ada@example.com");
        says.claims[name] = value;
        says
    };
    let long_ago = Clock::system().now().as_second() - 1;
    for (what, says) in [
        ("another issuer", with("iss", json!("https://elsewhere.example"))),
        ("another client", with("aud", json!("another"))),
        ("another client as well", with("aud", json!(["howdah", "another"]))),
        ("another nonce", with("nonce", json!("another"))),
        ("no nonce", with("nonce", Value::Null)),
        ("over", with("exp", json!(long_ago))),
        ("without an end", with("exp", Value::Null)),
        ("nobody", with("sub", Value::Null)),
        ("another access token", with("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("another's key", Says { signed: Signed::BySomebodyElse, ..person("ada", "ada@example.com") }),
        ("the secret as the key", Says { signed: Signed::WithTheSecret, ..person("ada", "ada@example.com") }),
        ("no signature", Says { signed: Signed::NotAtAll, ..person("ada", "ada@example.com") }),
        ("a code that is refused", Says { status: 400, ..person("ada", "ada@example.com") }),
        (
            "what is said of somebody else",
            Says {
                claims: json!({ "sub": "mallory" }),
                user_info: json!({ "sub": "ada", "email": "ada@example.com", "email_verified": true }),
                ..Says::default()
            },
        ),
    ] {
        attempt(what, says, 502).await;
    }
    let unverified = |verified: Value| {
        let user_info = json!({ "email": "ada@example.com", "email_verified": verified });
        Says { claims: json!({ "sub": "mallory" }), user_info, ..Says::default() }
    };
    attempt("an address that is not verified", unverified(json!(false)), 422).await;
    attempt("an address that may be verified", unverified(Value::Null), 422).await;
    attempt("a provider that fails", Says { status: 500, ..Says::default() }, 503).await;

    // A sign-in cannot be finished in another browser, and no token is requested for it.
    let asked = *provider.tokens.lock().unwrap();
    let mut victim = Browser::new(&howdah);
    let state = provider.go(&mut mallory, "/console").await;
    *provider.says.lock().unwrap() = person("mallory", "mallory@example.com");
    victim.get(&back(&state)).await.assert_says(422, "The sign-in took too long, or was started in another browser");
    provider.go(&mut victim, "/console").await;
    victim.get(&back(&state)).await.assert_says(422, "The sign-in took too long, or was started in another browser");
    let state = provider.go(&mut victim, "/console").await;
    victim
        .get(&format!("{}&iss=https://elsewhere.example", back(&state)))
        .await
        .assert_says(502, "could not be verified");
    let state = provider.go(&mut victim, "/console").await;
    let declined = format!("/console/sign-in/provider/callback?error=access_denied&state={state}");
    victim.get(&declined).await.assert_says(422, "Acme did not sign you in.");
    assert_eq!(*provider.tokens.lock().unwrap(), asked);
    assert!(!is_signed_in(&mut victim).await);

    // After the sign-in, only local pages are redirected to.
    let state = provider.go(&mut victim, "//elsewhere.example/console").await;
    assert_eq!(victim.get(&back(&state)).await.location(), "/console");
    let log = howdah.log();
    assert!(!log.contains(SECRET) && !log.contains("the-code"), "{log}");
}

#[tokio::test]
async fn password_sign_in_works_while_the_provider_is_down() {
    let provider = Provider::start().await;
    *provider.down.lock().unwrap() = true;
    let howdah = provider.howdah(&[]).await;
    eventually("the warning", async || howdah.log().contains("sign-in with Acme is not available").then_some(())).await;
    let mut ada = Browser::administrator(&howdah).await;
    let mut elsewhere = Browser::new(&howdah);
    let page = elsewhere.get("/console/sign-in/provider").await;
    page.assert_says(503, "Acme is not available.");
    assert_eq!(elsewhere.sign_in("ada@example.com").await.location(), "/console");
    *provider.down.lock().unwrap() = false;
    assert_eq!(provider.sign_in(&mut ada, person("ada", "ada@example.com")).await.location(), "/console/account");
}

#[tokio::test]
async fn provider_pages_are_404_without_a_provider() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    assert!(!ada.get("/console/account").await.text.contains("Continue with"));
    ada.get("/console/sign-in/provider").await.assert_says(404, "Page not found");
    ada.get(&back("state")).await.assert_says(404, "Page not found");
}

#[tokio::test]
async fn third_party_provider_signs_people_in() {
    let mut provider = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/dist/provider.js"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(provider.stdout.take().unwrap()).lines();
    let issuer = lines.next().unwrap().unwrap();
    let arguments = ["--oidc-issuer", &issuer, "--oidc-client-id", "howdah", "--oidc-domain", "example.com"];
    let howdah = Howdah::start_in(&[("HOWDAH_OIDC_CLIENT_SECRET", SECRET)], &arguments).await;
    Browser::administrator(&howdah).await;
    let mut input = provider.stdin.take().unwrap();
    writeln!(input, "{}/console/sign-in/provider/callback {SECRET}", howdah.url()).unwrap();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    run("provider_sign_in.js", &howdah.url(), &howdah.token(), &[("PROVIDER_URL", &issuer)]).await;
    drop(input);
    provider.wait().unwrap();
}
