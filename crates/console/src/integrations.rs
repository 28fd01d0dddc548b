//! Service tokens, applications, and the access that members granted to applications.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;

use super::applications as application_pages;
use super::confirm::{Confirm, Nothing};
use super::projects::{PAGE, query_string};
use super::{Frame, Html, Member, Once, Problem, Section, see_other};
use auth::Action;
use base::error::{Error, Result};
use base::id::{IntegrationId, ServiceTokenId};
use base::page::{MAX_LIMIT, PageRequest};
use domain::app::App;
use domain::applications::{self, Application};
use domain::integrations::{self, Integration};
use domain::service_tokens::{self, ServiceToken};
use web::Failure;
use web::path::Path;
use web::query::Query;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/integrations", get(list))
        .route("/integrations/granted/{integration}/revoke", get(ask_to_revoke).post(revoke))
}

struct TokenRow {
    token: ServiceToken,
    reach: String,
    has_expired: bool,
    revoke: String,
}

struct ApplicationRow {
    application: Application,
    address: String,
}

struct GrantedRow {
    integration: Integration,
    scopes: String,
    /// The address that revokes it, if the requester may.
    revoke: Option<String>,
}

#[derive(Template)]
#[template(path = "integrations/list.html")]
struct List {
    frame: Frame,
    tokens: Vec<TokenRow>,
    next_tokens: Option<String>,
    more_tokens: String,
    applications: Vec<ApplicationRow>,
    granted: Vec<GrantedRow>,
    next_granted: Option<String>,
    /// Whether the requester may revoke any of those shown.
    may_revoke: bool,
    may_manage: bool,
}

#[derive(Deserialize)]
struct ListQuery {
    cursor: Option<String>,
}

fn reach(token: &ServiceToken) -> String {
    match token.limits.projects.as_deref() {
        None => "Whole workspace".to_owned(),
        Some([_]) => "1 project".to_owned(),
        Some(projects) => format!("{} projects", projects.len()),
    }
}

async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    let (frame, actor) = (member.frame(Section::Integrations), &member.actor);
    let page = PageRequest::parse(query.cursor.as_deref(), Some(PAGE), ServiceTokenId::parse)?;
    let session = app.store.session().await?;
    let tokens = service_tokens::list(&session, actor, Some(actor.workspace()), page).await?;
    let all = PageRequest { after: None, limit: MAX_LIMIT };
    let applications = applications::list(&session, actor).await?;
    let granted = integrations::list(&session, actor, actor.workspace(), all).await?;
    drop(session);
    let now = frame.now;
    let tokens_shown = tokens.items.into_iter().map(|token| TokenRow {
        reach: reach(&token),
        has_expired: token.limits.expires_at.is_some_and(|end| end <= now),
        revoke: frame.to(&format!("integrations/tokens/{}/revoke", token.id.bare())),
        token,
    });
    let granted_shown = granted.items.into_iter().map(|integration| GrantedRow {
        scopes: integration.scopes.join(", "),
        revoke: (actor.may_take_back(integration.user.id).is_ok())
            .then(|| frame.to(&format!("integrations/granted/{}/revoke", integration.id.bare()))),
        integration,
    });
    let granted_shown: Vec<GrantedRow> = granted_shown.collect();
    Ok(Html(List {
        tokens: tokens_shown.collect(),
        next_tokens: tokens.next,
        more_tokens: format!("{}?{}", frame.to("integrations"), query_string(&[("part", "tokens")])),
        applications: applications
            .into_iter()
            .map(|application| ApplicationRow {
                address: application_pages::address(&frame, &application.id),
                application,
            })
            .collect(),
        may_revoke: granted_shown.iter().any(|row| row.revoke.is_some()),
        granted: granted_shown,
        next_granted: granted.next,
        may_manage: actor.may(Action::ManageCredentials).is_ok(),
        frame,
    })
    .into_response())
}

async fn find(app: &App, member: &Member, id: &str) -> Result<Integration> {
    let id = IntegrationId::parse(id).ok_or_else(|| Error::not_found("integration", id))?;
    integrations::get(&app.store.session().await?, &member.actor, id).await
}

async fn ask_to_revoke(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, integration)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let integration = find(&app, &member, &integration).await?;
    member.actor.may_take_back(integration.user.id)?;
    let frame = member.frame(Section::Integrations);
    Ok(Confirm {
        title: format!("Revoke access for “{}”?", integration.client.name),
        effects: vec![
            format!("The application can no longer access this workspace on behalf of {}.", integration.user.email),
            "Its tokens stop working immediately. The application can ask for access again.".to_owned(),
        ],
        label: "Revoke",
        action: frame.to(&format!("integrations/granted/{}/revoke", integration.id.bare())),
        back: frame.to("integrations"),
        problem: Problem::none(),
        frame,
    }
    .ask())
}

async fn revoke(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, integration)): Path<(String, String)>,
    Once(Nothing {}, attempt): Once<Nothing>,
) -> Result<Response, Failure> {
    let integration = find(&app, &member, &integration).await?;
    let tx = app.store.begin().await?;
    integrations::delete(&tx, &member.actor, app.clock.now(), integration.id).await?;
    let address = member.frame(Section::Integrations).to("integrations");
    let answer = see_other(&app, &address, &format!("Access for “{}” revoked.", integration.client.name));
    Ok(attempt.commit(&app, tx, answer).await?)
}
