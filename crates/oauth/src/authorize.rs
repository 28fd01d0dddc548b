//! The authorization endpoint: a member decides whether an application may access a workspace (RFC 6749, section
//! 4.1.1, with PKCE of RFC 7636 and the issuer in the response of RFC 9207).
//!
//! An unknown application or redirect URI is reported on a page. Browsers are only redirected to URIs that the
//! application has registered.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_html_form::de::empty_as_none;
use url::{Host, Url};

use auth::Role;
use auth::oauth::Scopes;
use auth::oauth::clients::{self, Client, ClientOrigin};
use auth::oauth::grants::{self, Authorization};
use base::error::Error;
use base::id::WorkspaceId;
use base::store::Session;
use console::{Form, Frame, Html, Problem, Section, Visitor, again, go_to};
use domain::app::App;
use domain::workspaces::Workspace;
use domain::{integrations, members};
use web::Failure;
use web::failure::Kind;

/// The authorization request. Unknown parameters are ignored, and a parameter without a value counts as omitted
/// (RFC 6749, section 3.1).
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default, deserialize_with = "empty_as_none")]
    client_id: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    redirect_uri: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    response_type: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    state: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    code_challenge: Option<String>,
    #[serde(default, deserialize_with = "empty_as_none")]
    code_challenge_method: Option<String>,
}

/// The form of the consent page.
#[derive(Deserialize)]
pub(crate) struct Decision {
    /// The query of the authorization request.
    asked: String,
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    decision: String,
}

/// A registered application and the redirect URI to respond to.
struct Answering {
    client: Client,
    redirect_uri: String,
    state: Option<String>,
}

/// A valid authorization request.
struct Request {
    answering: Answering,
    scopes: Scopes,
    code_challenge: Option<String>,
}

/// Why the consent page cannot be shown.
enum Wrong {
    /// Shown on a page, because there is no trusted redirect URI.
    Here(Failure),
    /// Reported to the application.
    Sent(Box<Answering>, &'static str, String),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Here(error.into())
    }
}

impl Wrong {
    fn answer(self, app: &App) -> Result<Response, Failure> {
        match self {
            Self::Here(failure) => Err(failure),
            Self::Sent(answering, error, description) => {
                Ok(answering.send(app, &[("error", error), ("error_description", &description)]))
            }
        }
    }
}

impl Answering {
    /// Redirects to the application.
    fn send(&self, app: &App, parameters: &[(&str, &str)]) -> Response {
        let mut all = parameters.to_vec();
        if let Some(state) = &self.state {
            all.push(("state", state));
        }
        all.push(("iss", &app.public.auth));
        let query = serde_html_form::to_string(all).unwrap_or_default();
        let joint = if self.redirect_uri.contains('?') { '&' } else { '?' };
        go_to(&format!("{}{joint}{query}", self.redirect_uri))
    }
}

/// Validates the authorization request. Each parameter may occur once (RFC 6749, section 3.1).
async fn understand(session: &Session, query: &str) -> Result<Request, Wrong> {
    let page = |message: &str, hint: &str| Wrong::Here(Failure::new(Kind::BadRequest, message, hint));
    let tell = "Go back to the application and try again. If the error persists, contact its developer.";
    let asked: Asked = serde_html_form::from_str(query)
        .map_err(|error| page(&format!("The application's request cannot be read: {error}."), tell))?;
    let client = match asked.client_id.as_deref() {
        Some(id) => clients::find(session, id).await?,
        None => None,
    };
    let client =
        client.ok_or_else(|| page("The application that sent you here is not registered with this server.", tell))?;
    let redirect_uri = client.redirect(asked.redirect_uri.as_deref()).ok_or_else(|| {
        let message = "The application asked to redirect you to a URI that it has not registered.";
        page(message, "You were not redirected. Contact the application's developer.")
    })?;
    let answering = Answering { client, redirect_uri, state: asked.state };
    let sent =
        |answering, error, description: &str| Err(Wrong::Sent(Box::new(answering), error, description.to_owned()));
    match asked.response_type.as_deref() {
        Some("code") => {}
        None => return sent(answering, "invalid_request", "response_type is missing"),
        Some(_) => return sent(answering, "unsupported_response_type", "response_type must be code"),
    }
    let scopes = Scopes::parse(asked.scope.as_deref().unwrap_or_default()).filter(|scopes| scopes.reach_something());
    let Some(scopes) = scopes else {
        return sent(
            answering,
            "invalid_scope",
            "scope must contain workspace:admin or workspace:read; offline_access is optional",
        );
    };
    match (&asked.code_challenge, asked.code_challenge_method.as_deref()) {
        (None, None) if !answering.client.is_public => {}
        (None, _) => {
            return sent(answering, "invalid_request", "code_challenge is missing; PKCE (RFC 7636) is required");
        }
        // Without a method it would be `plain` (RFC 7636, section 4.3), which does not protect.
        (Some(_), method) if method != Some("S256") => {
            return sent(answering, "invalid_request", "code_challenge_method must be S256");
        }
        (Some(challenge), _) if !is_challenge(challenge) => {
            return sent(answering, "invalid_request", "code_challenge is not a valid S256 challenge");
        }
        (Some(_), _) => {}
    }
    Ok(Request { answering, scopes, code_challenge: asked.code_challenge })
}

/// 256 bits in base64url (RFC 7636, section 4.2).
fn is_challenge(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[derive(Template)]
#[template(path = "oauth/consent.html")]
struct ConsentPage {
    frame: Frame,
    client: Client,
    /// It registered itself, so nobody verified its name.
    is_unknown: bool,
    /// It belongs to a workspace that the requester is not a member of.
    is_foreign: bool,
    /// The origin of the redirect URI, as shown on the page.
    destination: String,
    redirect_uri: String,
    may: Vec<&'static str>,
    workspaces: Vec<(Workspace, Role)>,
    chosen: String,
    asked: String,
    email: String,
    problem: Problem,
}

async fn consent_page(
    session: &Session,
    visitor: &Visitor,
    request: Request,
    asked: String,
    chosen: String,
    problem: Problem,
) -> Result<ConsentPage, Failure> {
    let names = request.scopes.names();
    let workspaces = members::workspaces_of(session, visitor.user.id).await?;
    let chosen = match &workspaces[..] {
        [(only, _)] => only.id.bare(),
        _ => chosen,
    };
    let owner = request.answering.client.workspace.as_ref();
    let is_foreign = owner.is_some_and(|owner| workspaces.iter().all(|(workspace, _)| workspace.id != owner.id));
    Ok(ConsentPage {
        is_foreign,
        frame: visitor.frame(Section::Workspaces),
        is_unknown: request.answering.client.origin == ClientOrigin::Registration,
        destination: origin_of(&request.answering.redirect_uri).to_owned(),
        redirect_uri: request.answering.redirect_uri,
        client: request.answering.client,
        may: Scopes::ALL.iter().filter(|(name, _)| names.contains(name)).map(|(_, words)| *words).collect(),
        workspaces,
        chosen,
        asked,
        email: visitor.user.email.clone(),
        problem,
    })
}

/// Adds the redirect URI to the page's form-action policy: browsers follow the redirect after the form only to
/// targets of the policy.
fn with_destination(mut response: Response, redirect_uri: &str) -> Response {
    let destination = policy_source(redirect_uri);
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self' {destination}; frame-ancestors 'none'; base-uri 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The source expression for an address: scheme, host and port. IPv6 hosts and hosts of private schemes cannot be
/// expressed (CSP level 3, section 2.3.1); for these it is the scheme alone.
fn policy_source(address: &str) -> String {
    let Ok(url) = Url::parse(address) else { return String::new() };
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    match url.host() {
        Some(Host::Domain(name)) if url.scheme().starts_with("http") && is_plain(name) => {
            url.origin().ascii_serialization()
        }
        Some(Host::Ipv4(_)) if url.scheme().starts_with("http") => url.origin().ascii_serialization(),
        _ => format!("{}:", url.scheme()),
    }
}

/// Scheme, host and port of an address, for people.
fn origin_of(address: &str) -> &str {
    let host = address.find("://").map_or(0, |at| at + 3);
    address[host..].find(['/', '?']).map_or(address, |path| &address[..host + path])
}

/// Shows the consent page.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    let session = app.store.session().await?;
    let request = match understand(&session, &query).await {
        Ok(request) => request,
        Err(wrong) => return wrong.answer(&app),
    };
    let page = consent_page(&session, &visitor, request, query, String::new(), Problem::none()).await?;
    let redirect_uri = page.redirect_uri.clone();
    Ok(with_destination(Html(page).into_response(), &redirect_uri))
}

/// Carries out the decision. Validates the request again, because the form could have been changed.
pub(crate) async fn decide(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(form): Form<Decision>,
) -> Result<Response, Failure> {
    let session = app.store.session().await?;
    let request = match understand(&session, &form.asked).await {
        Ok(request) => request,
        Err(wrong) => return wrong.answer(&app),
    };
    if form.decision != "allow" {
        let parameters = [("error", "access_denied"), ("error_description", "the user denied the request")];
        return Ok(request.answering.send(&app, &parameters));
    }
    let Some(workspace) = WorkspaceId::parse(&form.workspace) else {
        let problem = Problem::with("workspace", "Select a workspace.");
        let page = consent_page(&session, &visitor, request, form.asked, form.workspace, problem).await?;
        let redirect_uri = page.redirect_uri.clone();
        return Ok(with_destination(again(page), &redirect_uri));
    };
    drop(session);
    let now = app.clock.now();
    let tx = app.store.begin().await?;
    let actor = members::principal(&tx, &visitor.user, workspace, visitor.origin.clone()).await?;
    let Request { answering, scopes, code_challenge } = request;
    let integration = integrations::consent(&tx, &actor, now, &answering.client, scopes).await?;
    let agreed = Authorization { scopes, redirect_uri: answering.redirect_uri.clone(), code_challenge };
    let code = grants::begin(&tx, now, integration, &agreed).await?;
    tx.commit().await?;
    Ok(answering.send(&app, &[("code", code.expose())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s256_challenges_are_validated() {
        assert!(is_challenge("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"));
        for other in ["", "short", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=", &"!".repeat(43)] {
            assert!(!is_challenge(other), "{other}");
        }
    }

    #[test]
    fn form_action_policy_names_only_the_origin() {
        for (address, source, shown) in [
            ("https://app.example.com/callback?x=1", "https://app.example.com", "https://app.example.com"),
            ("https://app.example.com?x=1", "https://app.example.com", "https://app.example.com"),
            ("http://127.0.0.1:4711/auth/callback", "http://127.0.0.1:4711", "http://127.0.0.1:4711"),
            ("http://[::1]:4711/callback", "http:", "http://[::1]:4711"),
            ("com.example.app:/callback", "com.example.app:", "com.example.app:"),
            ("com.example.app://callback/x", "com.example.app:", "com.example.app://callback"),
            ("https://app.example.com;sandbox/callback", "https:", "https://app.example.com;sandbox"),
        ] {
            assert_eq!((policy_source(address).as_str(), origin_of(address)), (source, shown));
        }
    }

    #[test]
    fn parameter_without_a_value_counts_as_omitted() {
        let asked: Asked = serde_html_form::from_str("client_id=a&code_challenge=&scope=").unwrap();
        assert_eq!((asked.client_id.as_deref(), asked.code_challenge, asked.scope), (Some("a"), None, None));
        assert!(serde_html_form::from_str::<Asked>("client_id=a&client_id=b").is_err(), "each comes once");
    }
}
