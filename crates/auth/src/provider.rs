//! An OpenID Connect provider that vouches for people, by the authorization code flow (OpenID Connect
//! Core 1.0, section 3.1) with PKCE (RFC 7636). What its addresses and keys are is asked anew at each
//! sign-in: there are few of them, and keys change.

mod claims;

use std::error::Error as StdError;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::http::Request;
use oauth2::http::header::{ACCEPT, AUTHORIZATION};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet,
    EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope, StandardRevocableToken, StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use self::claims::{Claims, Expected};
use base::error::{Error, Result, describe};
use base::keyring::Keyring;
use base::name::Email;
use base::network::is_this_machine;
use base::secret::{Secret, random_text};

const PURPOSE: &str = "sign-ins with the identity provider";
/// How long one has to sign in there.
pub const GOOD: SignedDuration = SignedDuration::from_mins(15);
/// How long one answer of the provider may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: lists of keys are the longest.
const LONGEST_ANSWER: usize = 1 << 20;

/// The client as the provider's metadata makes it.
type Client = oauth2::Client<
    BasicErrorResponse,
    StandardTokenResponse<IdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What an answer with tokens has beside those of OAuth (OpenID Connect Core 1.0, section 3.1.3.3).
#[derive(Debug, Serialize, Deserialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

/// What is used of the provider's metadata (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: AuthUrl,
    token_endpoint: TokenUrl,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// Its public keys (RFC 7517).
#[derive(Deserialize)]
struct Keys {
    keys: Vec<Value>,
}

/// The provider, and what Howdah is to it.
pub struct Provider {
    name: String,
    issuer: String,
    client: ClientId,
    secret: Option<Secret>,
    trusts_addresses: bool,
    domains: Vec<String>,
    http: Http,
}

/// How the library's requests are sent.
struct Http(reqwest::Client);

/// How a provider is reached.
#[derive(Debug)]
pub struct Configuration {
    /// What people call it.
    pub name: Option<String>,
    /// Its name in the protocol, which is an address.
    pub issuer: String,
    /// Howdah's name there.
    pub client: String,
    /// What proves that name; none for a public client.
    pub secret: Option<Secret>,
    /// Whether an address is believed of which the provider does not say that it was verified.
    pub trusts_addresses: bool,
    /// Whoever has an address of one of these domains may make an account.
    pub domains: Vec<String>,
}

/// Whom the provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The provider's name in the protocol.
    pub issuer: String,
    /// What it calls the person: always the same, and never anybody else.
    pub subject: String,
    /// Their address, if it is known to be theirs.
    pub email: Option<Email>,
    /// What they are called.
    pub name: Option<String>,
}

/// What a browser comes back with (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Deserialize)]
pub struct Answer {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// A sign-in that has begun.
pub struct Begun {
    /// Where the browser goes.
    pub address: String,
    /// What the browser keeps meanwhile: sealed, good for [`GOOD`].
    pub kept: String,
}

/// Why nobody has been vouched for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It does not answer.
    #[error("it does not respond: {0}")]
    Unreachable(String),
    /// This browser did not begin the sign-in, or too long ago.
    #[error("this browser did not start the sign-in, or started it too long ago")]
    Stale,
    /// The person, or the provider, did not want to.
    #[error("it returned the error {0:?}")]
    Declined(String),
    /// What it says cannot be believed.
    #[error("its response could not be verified: {0}")]
    Untrusted(String),
    /// A fault of Howdah.
    #[error(transparent)]
    Internal(#[from] Error),
}

/// What the browser keeps between the beginning and the end.
#[derive(Serialize, Deserialize)]
struct Kept {
    state: String,
    nonce: String,
    verifier: String,
    next: String,
    began: i64,
}

impl Provider {
    /// A provider. It is not asked anything yet.
    ///
    /// # Errors
    /// A sentence with the cure when it cannot be reached safely.
    pub fn new(configuration: Configuration) -> Result<Self, String> {
        let Configuration { name, issuer, client, secret, trusts_addresses, domains } = configuration;
        let wrong = || format!("{issuer:?} is not the URL of an OpenID Connect provider; check --oidc-issuer");
        let url = url::Url::parse(&issuer).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_this_machine(host)) {
            return Err(format!(
                "{issuer} does not use https, so another server could impersonate it; check --oidc-issuer"
            ));
        }
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot prepare requests to {issuer}: {error}"))?;
        let name = name.unwrap_or_else(|| host.to_owned());
        Ok(Self {
            name,
            issuer,
            client: ClientId::new(client),
            secret,
            trusts_addresses,
            domains: domains.iter().map(|domain| domain.trim().trim_start_matches('@').to_lowercase()).collect(),
            http: Http(http),
        })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether people with this address may make themselves an account.
    pub fn is_open_to(&self, email: &Email) -> bool {
        let host = email.as_str().rsplit_once('@').map(|(_, host)| host.to_lowercase());
        host.is_some_and(|host| self.domains.contains(&host))
    }

    /// Whether it answers, and as the provider that it should be.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] or [`Failure::Untrusted`].
    pub async fn check(&self) -> Result<(), Failure> {
        self.discover().await.map(drop)
    }

    /// Begins a sign-in that comes back to `callback`, after which the browser goes to `next`.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] when the provider does not say where that is done.
    pub async fn begin(&self, keyring: &Keyring, now: Timestamp, callback: &str, next: &str) -> Result<Begun, Failure> {
        let client = self.client(&self.discover().await?, callback)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (state, nonce) = (random_text::<24>(), random_text::<24>());
        let sent_state = CsrfToken::new(state.clone());
        let (address, _) = client
            .authorize_url(move || sent_state)
            .add_scopes(["openid", "email", "profile"].map(|scope| Scope::new(scope.to_owned())))
            .add_extra_param("nonce", &nonce)
            .set_pkce_challenge(challenge)
            .url();
        let (verifier, next) = (verifier.into_secret(), next.to_owned());
        let kept = Kept { state, nonce, verifier, next, began: now.as_second() };
        let kept = serde_json::to_vec(&kept).map_err(Error::internal)?;
        let kept = URL_SAFE_NO_PAD.encode(keyring.seal(PURPOSE, &kept)?);
        Ok(Begun { address: address.into(), kept })
    }

    /// Ends a sign-in that this browser has begun, with the `callback` of then: whom the provider
    /// vouches for, and where to go next. No transaction may be open: the provider is asked.
    ///
    /// # Errors
    /// Each [`Failure`].
    pub async fn finish(
        &self,
        keyring: &Keyring,
        now: Timestamp,
        callback: &str,
        kept: &str,
        answer: Answer,
    ) -> Result<(Vouched, String), Failure> {
        let kept = read(keyring, now, kept).ok_or(Failure::Stale)?;
        let state = answer.state.unwrap_or_default();
        if !bool::from(state.as_bytes().ct_eq(kept.state.as_bytes())) {
            return Err(Failure::Stale);
        }
        if answer.iss.is_some_and(|issuer| issuer != self.issuer) {
            return Err(Failure::Untrusted("the response is from another provider".into()));
        }
        let code = match (answer.error, answer.code) {
            (Some(error), _) => return Err(Failure::Declined(error)),
            (None, code) => code.ok_or_else(|| Failure::Untrusted("the response contains no code".into()))?,
        };
        let metadata = self.discover().await?;
        let tokens = self
            .client(&metadata, callback)?
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(kept.verifier))
            .request_async(&self.http)
            .await
            .map_err(|error| match error {
                RequestTokenError::Request(error) => error,
                error => untrusted(error),
            })?;
        let access_token = tokens.access_token().secret();
        let id_token = tokens.extra_fields().id_token.as_deref();
        let id_token = id_token.ok_or_else(|| Failure::Untrusted("the response contains no ID token".into()))?;
        let expected =
            Expected { issuer: &self.issuer, audience: self.client.as_str(), nonce: &kept.nonce, access_token, now };
        let keys = self.keys(&metadata).await?;
        let claims = Claims::of_id_token(id_token, &keys, &expected).map_err(Failure::Untrusted)?;
        let subject = claims.subject().map_err(Failure::Untrusted)?;
        // Many say only here what they were asked for (section 5.4).
        let said = match &metadata.userinfo_endpoint {
            Some(address) if claims.email().is_none() || claims.name().is_none() => {
                let said = Claims::new(self.http.get(address, Some(access_token)).await?);
                if said.subject().map_err(Failure::Untrusted)? != subject {
                    return Err(Failure::Untrusted(
                        "the userinfo response is about another subject than the ID token".into(),
                    ));
                }
                said
            }
            _ => Claims::default(),
        };
        let vouched = Vouched {
            issuer: self.issuer.clone(),
            subject: subject.to_owned(),
            email: claims
                .email()
                .or_else(|| said.email())
                .and_then(|(email, is_theirs)| self.believed(email, is_theirs)),
            name: claims.name().or_else(|| said.name()).map(str::to_owned),
        };
        Ok((vouched, kept.next))
    }

    /// The address, if it is known to be the person's.
    fn believed(&self, email: &str, is_verified: Option<bool>) -> Option<Email> {
        let is_theirs = is_verified.unwrap_or(self.trusts_addresses);
        is_theirs.then(|| Email::parse(email).ok()).flatten()
    }

    /// The provider's addresses (OpenID Connect Discovery 1.0, section 4).
    async fn discover(&self) -> Result<Metadata, Failure> {
        let address = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata: Metadata = self.http.get(&address, None).await?;
        if metadata.issuer != self.issuer {
            return Err(Failure::Untrusted(format!("{address} names another issuer, {:?}", metadata.issuer)));
        }
        Ok(metadata)
    }

    /// Its keys, of those kinds that are known.
    async fn keys(&self, metadata: &Metadata) -> Result<Vec<Jwk>, Failure> {
        let Keys { keys } = self.http.get(&metadata.jwks_uri, None).await?;
        Ok(keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }

    fn client(&self, metadata: &Metadata, callback: &str) -> Result<Client, Failure> {
        // Basic is what those have that do not say (section 3 of Discovery).
        let takes = metadata.token_endpoint_auth_methods_supported.as_ref();
        let takes_basic = takes.is_none_or(|takes| takes.iter().any(|method| method == "client_secret_basic"));
        let client = oauth2::Client::new(self.client.clone())
            .set_auth_uri(metadata.authorization_endpoint.clone())
            .set_token_uri(metadata.token_endpoint.clone())
            .set_redirect_uri(RedirectUrl::new(callback.to_owned()).map_err(Error::internal)?)
            .set_auth_type(if takes_basic { AuthType::BasicAuth } else { AuthType::RequestBody });
        Ok(match &self.secret {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.expose().to_owned())),
            None => client,
        })
    }
}

impl Http {
    /// Asks for an object, with the access token if there is one.
    async fn get<T: DeserializeOwned>(&self, address: &str, token: Option<&String>) -> Result<T, Failure> {
        let mut request = Request::get(address).header(ACCEPT, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = self.send(request.body(Vec::new()).map_err(untrusted)?).await?;
        if !answer.status().is_success() {
            return Err(Failure::Untrusted(format!("{address} returned {}", answer.status())));
        }
        let unreadable = |error| Failure::Untrusted(format!("the response of {address} cannot be parsed: {error}"));
        serde_json::from_slice(answer.body()).map_err(unreadable)
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let sent = async {
            let mut response = self.0.execute(request.try_into()?).await?;
            let mut answer = HttpResponse::new(Vec::new());
            *answer.status_mut() = response.status();
            std::mem::swap(answer.headers_mut(), response.headers_mut());
            while let Some(part) = response.chunk().await? {
                if answer.body().len() + part.len() > LONGEST_ANSWER {
                    return Ok(Err("its response is too long".to_owned()));
                }
                answer.body_mut().extend_from_slice(&part);
            }
            Ok::<_, reqwest::Error>(Ok(answer))
        };
        match sent.await {
            Ok(Ok(answer)) if answer.status().is_server_error() => {
                Err(Failure::Unreachable(format!("it returned {}", answer.status())))
            }
            Ok(answer) => answer.map_err(Failure::Unreachable),
            Err(error) => Err(Failure::Unreachable(describe(&error))),
        }
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Failure>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// What the browser has kept, if it is ours and not too old.
fn read(keyring: &Keyring, now: Timestamp, kept: &str) -> Option<Kept> {
    let plain = keyring.open(PURPOSE, &URL_SAFE_NO_PAD.decode(kept).ok()?).ok()?;
    let kept: Kept = serde_json::from_slice(&plain).ok()?;
    let began = Timestamp::from_second(kept.began).ok()?;
    (now.duration_since(began) <= GOOD).then_some(kept)
}

fn untrusted(error: impl StdError + 'static) -> Failure {
    Failure::Untrusted(describe(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(issuer: &str) -> Configuration {
        Configuration {
            name: None,
            issuer: issuer.into(),
            client: "howdah".into(),
            secret: None,
            trusts_addresses: false,
            domains: vec!["Example.com".into(), "@example.org".into()],
        }
    }

    fn provider(issuer: &str) -> Result<Provider, String> {
        Provider::new(configuration(issuer))
    }

    #[test]
    fn a_provider_is_reached_by_https() {
        assert!(provider("http://id.example.com").is_err_and(|said| said.contains("--oidc-issuer")));
        assert!(provider("id.example.com").is_err_and(|said| said.contains("--oidc-issuer")));
        for here in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000", "https://id.example.com"] {
            assert!(provider(here).is_ok(), "{here}");
        }
        assert_eq!(provider("https://id.example.com/realm").unwrap().name(), "id.example.com");
    }

    #[test]
    fn domain_must_match_the_whole_part_after_the_at_sign() {
        let provider = provider("https://id.example.com").unwrap();
        let is_open_to = |email| provider.is_open_to(&Email::parse(email).unwrap());
        assert!(is_open_to("ada@example.com") && is_open_to("ada@EXAMPLE.org"));
        assert!(!is_open_to("ada@sub.example.com") && !is_open_to("ada@notexample.com"));
    }

    #[test]
    fn an_address_is_believed_when_it_was_verified() {
        let mut provider = provider("https://id.example.com").unwrap();
        let address = "ada@example.com";
        assert!(provider.believed(address, Some(true)).is_some());
        assert!(provider.believed(address, Some(false)).is_none());
        assert!(provider.believed(address, None).is_none());
        provider.trusts_addresses = true;
        assert!(provider.believed(address, None).is_some());
        assert!(provider.believed(address, Some(false)).is_none(), "said not to be theirs");
    }
}
