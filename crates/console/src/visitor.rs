//! Extractors for the requester of a page: anybody, a signed-in account, or a member of the workspace in
//! the address.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri, RawPathParams};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;

use super::cookies::Cookie;
use super::frame::{Badge, Frame, Place, Section};
use super::notice::go_to;
use super::present::{Guest, plain_frame};
use auth::sessions::{self, SignedIn};
use auth::users::User;
use auth::{Origin, Principal};
use base::error::{Error, describe};
use base::id::{SessionId, UserId, WorkspaceId};
use domain::app::App;
use domain::audit::Asker;
use domain::members;
use domain::workspaces::{self, Workspace};
use web::refusal::{self, Who};
use web::{Failure, origin};

/// Anybody, signed in or not.
pub struct Anybody {
    pub frame: Frame,
    pub signed_in: Option<SignedIn>,
    pub origin: Origin,
}

impl FromRequestParts<Arc<App>> for Anybody {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let frame = plain_frame(app, &parts.headers, parts.extensions.get::<Guest>());
        let signed_in = match Cookie::Session.read(app, &parts.headers) {
            None => None,
            Some(cookie) => sessions::find(&app.store.session().await?, app.clock.now(), cookie).await?,
        };
        if let Some(stale) = signed_in.as_ref().filter(|signed_in| signed_in.use_is_stale) {
            app.tasks.spawn(record_use(app.clone(), stale.id));
        }
        Ok(Self { frame, signed_in, origin: origin::of(&parts.extensions) })
    }
}

/// Runs in the background; the request does not wait for it.
async fn record_use(app: Arc<App>, session: SessionId) {
    let recorded = async { sessions::record_use(&app.store.session().await?, session, app.clock.now()).await }.await;
    if let Err(error) = recorded {
        tracing::warn!(error = %describe(&error), session.id = %session, "could not record the use of {session}");
    }
}

/// The account that sends a request: a request extension that [`Visitor`] sets, for [`Once`](super::Once).
#[derive(Clone, Copy)]
pub(crate) struct Sender(pub UserId);

/// A signed-in account. Anybody else is redirected to the sign-in page, and back afterwards.
pub struct Visitor {
    pub user: User,
    pub session: SessionId,
    /// When the session started.
    pub since: Timestamp,
    pub origin: Origin,
    frame: Frame,
}

impl Visitor {
    /// The actor of changes outside of any workspace.
    pub fn asker(&self) -> Asker {
        Asker::of(&self.user, &self.origin)
    }

    pub fn frame(&self, section: Section) -> Frame {
        let badge = Badge {
            name: self.user.name().to_owned(),
            email: self.user.email.clone(),
            is_administrator: self.user.is_administrator,
        };
        Frame { section, badge: Some(badge), ..self.frame.clone() }
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let anybody = Anybody::from_request_parts(parts, app).await.map_err(Failure::into_response)?;
        let Anybody { frame, signed_in, origin } = anybody;
        let SignedIn { user, id, since, .. } = signed_in.ok_or_else(|| go_to(&sign_in(parts)))?;
        parts.extensions.insert(Sender(user.id));
        let visitor = Self { user, session: id, since, origin, frame };
        refusal::note_who(Who::Asker(visitor.asker()));
        Ok(visitor)
    }
}

/// The sign-in page, with the current page as the next one.
fn sign_in(parts: &Parts) -> String {
    let here = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    match here.path_and_query() {
        // A form cannot be sent again after the sign-in.
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

/// The page after a sign-in: `next` if it is a path of this server, else the console's first page. This
/// prevents open redirects.
/// Browsers read a backslash as a slash, and two slashes at the beginning as another host.
pub fn local(next: &str) -> &str {
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_ours =
        next == "/console" || ["/console/", "/console?", "/authorize?"].iter().any(|start| next.starts_with(start));
    // Browsers resolve these to another path.
    let has_dots = next
        .split(['/', '?', '#'])
        .any(|part| matches!(part.replace("%2e", ".").replace("%2E", ".").as_str(), "." | ".."));
    if is_plain && is_ours && !has_dots { next } else { "/console" }
}

/// A member of the workspace in the path parameter `workspace`. Anybody else gets a 404.
pub struct Member {
    pub visitor: Visitor,
    /// What the member may do in the workspace.
    pub actor: Principal,
    pub workspace: Workspace,
}

impl Member {
    pub fn frame(&self, section: Section) -> Frame {
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
            let actor = members::principal(&session, &visitor.user, id, visitor.origin.clone()).await?;
            let workspace = workspaces::get(&session, &actor, id).await?;
            Ok((actor, workspace))
        };
        let (actor, workspace) = found.await.map_err(refuse)?;
        refusal::note_who(Who::Caller(actor.clone()));
        Ok(Self { visitor, actor, workspace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_continues_to_local_pages_only() {
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
            "/console/../elsewhere",
            "/console/a/%2E%2e/%2e./b",
            "/v1/me",
            " /console",
        ] {
            assert_eq!(local(next), "/console", "{next:?}");
        }
    }
}
