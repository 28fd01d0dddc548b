//! Who looks at a page: anybody, somebody who has signed in, a member of the workspace in the address.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};

use super::cookies::Cookie;
use super::frame::{Badge, Frame, Place, Section};
use super::notice::go_to;
use super::present::{Guest, plain_frame};
use crate::app::App;
use crate::auth::{Principal, service_tokens};
use crate::base::error::{Error, Result};
use crate::base::id::WorkspaceId;
use crate::domain::workspaces::{self, Workspace};
use crate::http::{Failure, origin};

/// Anybody: for the pages before a sign-in.
pub(crate) struct Anybody {
    /// The frame of the page.
    pub(crate) frame: Frame,
}

impl FromRequestParts<Arc<App>> for Anybody {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        Ok(Self { frame: plain_frame(app, &parts.headers, parts.extensions.get::<Guest>()) })
    }
}

/// Somebody who has signed in. Who has not is sent to the page for it, and comes back from there.
pub(crate) struct Visitor {
    frame: Frame,
    badge: Badge,
    stub: Principal,
}

impl Visitor {
    /// The frame of a page in this section.
    pub(crate) fn frame(&self, section: Section) -> Frame {
        Frame { section, badge: Some(self.badge.clone()), ..self.frame.clone() }
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let frame = plain_frame(app, &parts.headers, parts.extensions.get::<Guest>());
        match find(app, &parts.headers).await {
            Ok(Some(stub)) => {
                let badge = Badge { name: "Ada".into(), email: "ada@example.com".into(), is_administrator: true };
                let stub = stub.from_origin(origin::of(&parts.extensions));
                Ok(Self { frame, badge, stub })
            }
            Ok(None) => Err(go_to(&sign_in(parts))),
            Err(error) => Err(Failure::from(error).into_response()),
        }
    }
}

async fn find(app: &App, headers: &HeaderMap) -> Result<Option<Principal>> {
    let Some(cookie) = Cookie::Session.read(app, headers) else { return Ok(None) };
    let session = app.store.session().await?;
    let accepted = service_tokens::authenticate(&session, &app.signer, cookie, app.clock.now()).await;
    Ok(accepted.ok().map(|accepted| accepted.principal))
}

/// The page for signing in, from which one comes back here.
fn sign_in(parts: &Parts) -> String {
    let here = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    match here.path_and_query() {
        // What a form sends is not sent again.
        Some(path) if parts.method == Method::GET => {
            let next: String = path.as_str().bytes().map(percent_encoded).collect();
            format!("/console/sign-in?next={next}")
        }
        _ => "/console/sign-in".to_owned(),
    }
}

fn percent_encoded(byte: u8) -> String {
    match byte {
        b'/' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    }
}

/// Where to go after signing in: `next` when it is a path of ours, else the console's first page.
/// Browsers read a backslash as a slash, and two slashes at the beginning as another host.
pub(crate) fn local(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_ours =
        next == "/console" || ["/console/", "/console?", "/authorize?"].iter().any(|start| next.starts_with(start));
    if is_plain && is_ours { next } else { "/console" }
}

/// A member of the workspace that the path names in its parameter `workspace`; 404 for anybody else.
pub(crate) struct Member {
    /// Who has signed in.
    pub(crate) visitor: Visitor,
    /// What they may do in the workspace; use cases take it.
    pub(crate) actor: Principal,
    /// The workspace.
    pub(crate) workspace: Workspace,
}

impl Member {
    /// The frame of a page in this section of the workspace.
    pub(crate) fn frame(&self, section: Section) -> Frame {
        let place = Place { workspace: self.workspace.clone(), actor: self.actor.clone() };
        Frame { place: Some(place), ..self.visitor.frame(section) }
    }
}

impl FromRequestParts<Arc<App>> for Member {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, app).await?;
        let refuse = |error: Error| Failure::from(error).into_response();
        let parameters = RawPathParams::from_request_parts(parts, app).await;
        let named = parameters.ok().and_then(|parameters| {
            let found = parameters.iter().find(|(name, _)| *name == "workspace")?;
            Some(found.1.to_owned())
        });
        let named = named.unwrap_or_default();
        let id = WorkspaceId::parse(&named).ok_or_else(|| refuse(Error::not_found("workspace", &named)))?;
        let found = async {
            let session = app.store.session().await?;
            let actor = visitor.stub.clone();
            let workspace = workspaces::get(&session, &actor, id).await?;
            Ok((actor, workspace))
        };
        let (actor, workspace) = found.await.map_err(refuse)?;
        Ok(Self { visitor, actor, workspace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_back_to_a_page_of_ours_only() {
        for next in ["/console", "/console/account", "/console/people?cursor=1", "/authorize?client_id=1&state=%2F"] {
            assert_eq!(local(next), next);
        }
        for next in [
            "",
            "https://elsewhere.example",
            "//elsewhere.example",
            "/\\elsewhere.example",
            "/console/\\elsewhere",
            "\\\\elsewhere.example",
            "/console/\r\nset-cookie: a=b",
            "/console//\t",
            "javascript:alert(1)",
            "/consoleelsewhere",
            "/v1/me",
            " /console",
        ] {
            assert_eq!(local(next), "/console", "{next:?}");
        }
    }
}
