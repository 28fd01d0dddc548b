//! Changes that were refused are in the audit log too, whether the API or the console was asked for them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::failure::Said;
use super::named::{Named, named_by};
use auth::Principal;
use base::error::{Result, describe};
use base::id::{DatabaseId, IntegrationId, InvitationId, ProjectId, ServiceTokenId, SessionId, UserId};
use domain::app::App;
use domain::audit::{self, Asker, Refusal, Resource};

/// The longest reason that is kept; the answer has the whole.
const LONGEST: usize = 500;
/// The longest id that is kept, in characters; one of ours is shorter.
const LONGEST_ID: usize = 64;

/// What each change is called, by method and path template.
#[derive(Debug)]
pub struct Actions(pub HashMap<(Method, String), String>);

impl Actions {
    /// These, and what forms of the console do: they are all sent by POST.
    pub fn and(mut self, forms: &[(&str, &str)]) -> Self {
        self.0.extend(forms.iter().map(|(path, action)| ((Method::POST, (*path).to_owned()), (*action).to_owned())));
        self
    }
}

/// Whose log a refused change is in.
#[derive(Clone, Debug)]
pub enum Who {
    /// That of a workspace which the caller is in.
    Caller(Principal),
    /// That of the whole installation, for who has signed in and asks for nothing of a workspace of theirs.
    Asker(Asker),
}

/// What becomes known of a request while it is carried out.
#[derive(Debug, Default)]
struct Notes {
    who: Option<Who>,
    reason: Option<String>,
}

tokio::task_local! {
    static NOTES: RefCell<Notes>;
}

/// Notes who asks, once it is known; the last one counts.
pub fn note_who(who: Who) {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().who = Some(who));
}

/// Notes why a page shows its form again, which no answer says but in its text.
pub fn note_reason(reason: &str) {
    let _ = NOTES.try_with(|notes| notes.borrow_mut().reason = Some(reason.to_owned()));
}

/// Records a change that is answered with an error of the client's. Whoever is not known has no log that
/// it could be in, and requests over a rate limit would fill it.
pub async fn record(State((app, actions)): State<(Arc<App>, Arc<Actions>)>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (resource, project) = path.as_deref().map(|path| named(path, request.uri().path())).unwrap_or_default();
    let action = path.and_then(|path| actions.0.get(&(request.method().clone(), path)).cloned());
    let carried_out = async {
        let response = next.run(request).await;
        (response, NOTES.with(RefCell::take))
    };
    let (response, Notes { who, reason }) = NOTES.scope(RefCell::default(), carried_out).await;
    let refused = response.status().is_client_error() && response.status() != StatusCode::TOO_MANY_REQUESTS;
    if let (true, Some(who), Some(action)) = (refused, who, action) {
        let reason = response.extensions().get::<Said>().map(|said| said.message.clone()).or(reason);
        // What the caller wrote may stand in it, and the store takes no zero bytes.
        let reason = reason.unwrap_or_default().chars().filter(|letter| *letter != '\0').take(LONGEST).collect();
        let refusal = Refusal { action, status: response.status().as_u16(), reason, resource, project };
        if let Err(error) = write(&app, &who, refusal).await {
            tracing::error!(error = %describe(&error), "could not record a refused request in the audit log");
        }
    }
    response
}

/// What a parameter of a path names, in the API or in the console; `None` for secrets, such as that of an
/// invitation's link.
fn named_in(template: &str, parameter: &str) -> Option<Named> {
    if let Some(named) = named_by(template, parameter) {
        return Some(named);
    }
    let before = template.split_once(&format!("/{{{parameter}}}"))?.0.rsplit('/').next()?;
    let (kind, prefix) = match (before, parameter) {
        ("tokens", "token") => ("serviceToken", ServiceTokenId::PREFIX),
        ("granted", "integration") => ("integration", IntegrationId::PREFIX),
        ("applications", "application") => ("application", ""),
        ("deleted", "database") => ("database", DatabaseId::PREFIX),
        ("people" | "members", "user") => ("user", UserId::PREFIX),
        ("invitations", "invitation") => ("invitation", InvitationId::PREFIX),
        ("sessions", "session") => ("session", SessionId::PREFIX),
        _ => return None,
    };
    Some(Named { kind, prefix })
}

/// What a path names last, and the project that it names. Ids are as the request has them.
fn named(template: &str, path: &str) -> (Option<Resource>, Option<ProjectId>) {
    let (mut resource, mut project) = (None, None);
    for (part, given) in template.split('/').zip(path.split('/')) {
        let parameter = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let Some(named) = parameter.and_then(|parameter| named_in(template, parameter)) else { continue };
        let prefix = if named.prefix.is_empty() { String::new() } else { format!("{}_", named.prefix) };
        let bare: String = given.strip_prefix(&prefix).unwrap_or(given).chars().take(LONGEST_ID).collect();
        if named.prefix == ProjectId::PREFIX {
            project = ProjectId::parse(given);
        }
        let kind = if named.kind == "service token" { "serviceToken" } else { named.kind };
        resource = Some(Resource { kind: kind.into(), id: prefix + &bare, name: None });
    }
    (resource, project)
}

async fn write(app: &App, who: &Who, refusal: Refusal) -> Result<()> {
    let (tx, now) = (app.store.begin().await?, app.clock.now());
    match who {
        Who::Caller(actor) => audit::record_refusal(&tx, actor, now, refusal).await?,
        Who::Asker(asker) => audit::record_refusal_for_installation(&tx, asker, now, refusal).await?,
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(template: &str, path: &str) -> Option<(String, String)> {
        named(template, path).0.map(|resource| (resource.kind, resource.id))
    }

    #[test]
    fn last_id_in_a_path_names_the_resource() {
        let text = |kind: &str, id: &str| Some((kind.to_owned(), id.to_owned()));
        assert_eq!(resource("/v1/projects/{id}", "/v1/projects/x"), text("project", "proj_x"));
        let below = "/console/workspaces/{workspace}";
        let named = |template: &str, path: &str| {
            resource(&format!("{below}/{template}"), &format!("/console/workspaces/w/{path}"))
        };
        assert_eq!(named("settings", "settings"), text("workspace", "wksp_w"));
        assert_eq!(named("databases/{database}/restore", "databases/d/restore"), text("database", "db_d"));
        assert_eq!(
            named("integrations/tokens/{token}/revoke", "integrations/tokens/t/revoke").unwrap().0,
            "serviceToken"
        );
        assert_eq!(
            named("integrations/applications/{application}", "integrations/applications/a"),
            text("application", "a")
        );
        assert_eq!(resource("/console/people/{user}/reset", "/console/people/u/reset").unwrap().0, "user");
        for secret in ["/console/set-up/{token}", "/console/reset/{token}", "/console/invitations/{token}/account"] {
            assert_eq!(resource(secret, &secret.replace("{token}", "secret")), None);
        }
    }
}
