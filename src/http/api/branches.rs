//! Branches on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, List, PageQuery, ProjectReference, sample_url, url};
use crate::app::App;
use crate::base::clock::format_timestamp;
use crate::base::error::Error;
use crate::base::id::{BranchId, ProjectId};
use crate::base::name::BranchName;
use crate::domain::branches::{self, Branch, Filter, Role};
use crate::http::Failure;
use crate::http::answer::Answer;
use crate::http::body;
use crate::http::caller::Caller;
use crate::http::failure::ErrorBody;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::retry::Repeatable;

/// What a branch is: always `branch`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BranchType {
    Branch,
}

/// What a branch is for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BranchRole {
    Production,
    Preview,
}

impl From<Role> for BranchRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Production => Self::Production,
            Role::Preview => Self::Preview,
        }
    }
}

/// A branch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Branch)]
pub(super) struct BranchWire {
    /// Its id.
    #[schema(value_type = BranchId)]
    id: String,
    /// Always `branch`.
    r#type: BranchType,
    /// Its address in this API.
    #[schema(format = "uri", example = json!(sample_url("branches", "br")))]
    url: String,
    /// Its name.
    #[schema(example = "main")]
    git_name: String,
    /// Whether databases go here when nobody says where; true for one branch of each project.
    is_default: bool,
    /// `production` for a project's first branch, `preview` for every other one.
    role: BranchRole,
    /// When it was made.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// When it was changed last.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    updated_at: String,
    /// Its project.
    project: ProjectReference,
}

/// What a new branch needs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"gitName": "feature-1"}))]
pub(super) struct CreateBranch {
    /// Its name, 1 to 256 characters; no two live branches of a project share one.
    #[schema(min_length = 1, max_length = 256)]
    git_name: String,
    /// Whether it becomes its project's default branch, in place of the one that is.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
}

/// What to change about a branch: names and roles stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"isDefault": true}))]
pub(super) struct UpdateBranch {
    /// True makes it its project's default branch, in place of the one that is.
    is_default: Option<bool>,
}

/// Which branches; one filter at most.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct BranchQuery {
    /// Only the branch of this name.
    #[param(min_length = 1, max_length = 256)]
    git_name: Option<String>,
    /// Only branches whose name has this in it; capitals and small letters differ.
    #[param(min_length = 1, max_length = 256)]
    git_name_contains: Option<String>,
}

impl BranchQuery {
    fn parse(&self) -> Result<Filter, Error> {
        match (&self.git_name, &self.git_name_contains) {
            (None, None) => Ok(Filter::All),
            (Some(name), None) => BranchName::parse(name).map(Filter::GitName),
            (None, Some(part)) => BranchName::parse(part).map(Filter::GitNameContains),
            (Some(_), Some(_)) => {
                Err(Error::invalid("gitName and gitNameContains exclude each other", "Use one of them."))
            }
        }
    }
}

fn wire(app: &App, branch: Branch) -> BranchWire {
    let id = branch.id.to_string();
    BranchWire {
        url: url(app, "branches", &id),
        id,
        r#type: BranchType::Branch,
        git_name: branch.git_name,
        is_default: branch.is_default,
        role: branch.role.into(),
        created_at: format_timestamp(branch.created_at),
        updated_at: format_timestamp(branch.updated_at),
        project: ProjectReference::new(app, branch.project, branch.project_name),
    }
}

fn parse(id: &str) -> Result<BranchId, Error> {
    BranchId::parse(id).ok_or_else(|| Error::not_found("branch", id))
}

fn parse_project(id: &str) -> Result<ProjectId, Error> {
    ProjectId::parse(id).ok_or_else(|| Error::not_found("project", id))
}

/// List branches of a project
///
/// Oldest first.
#[utoipa::path(get, path = "/v1/projects/{projectId}/branches", tag = "Branches",
    params(("projectId" = String, Path, description = "The project's id."), PageQuery, BranchQuery), responses(
    (status = 200, description = "The branches.", body = List<BranchWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 422, description = "A parameter does not fit, or both filters are given.", body = ErrorBody),
))]
pub(super) async fn list_branches(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(project): Path<String>,
    Query(page): Query<PageQuery>,
    Query(filter): Query<BranchQuery>,
) -> Result<Json<List<BranchWire>>, Failure> {
    let project = parse_project(&project)?;
    let (page, filter) = (page.parse(BranchId::parse)?, filter.parse()?);
    let found = branches::list(&app.store.session().await?, &actor, project, &filter, page).await?;
    Ok(Json(List::of(found, |branch| wire(&app, branch))))
}

/// Create a branch
///
/// For previews: a project's one production branch is made with it. A branch holds no data of its
/// own, databases are put on it.
#[utoipa::path(post, path = "/v1/projects/{projectId}/branches", tag = "Branches",
    params(("projectId" = String, Path, description = "The project's id.")),
    request_body = CreateBranch, responses(
    (status = 201, description = "The branch.", body = Data<BranchWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such project.", body = ErrorBody),
    (status = 409, description = "Another branch of the project has the name.", body = ErrorBody),
    (status = 422, description = "A value does not fit, or there is one that does not belong there.", body = ErrorBody),
))]
pub(super) async fn create_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(project): Path<String>,
    body::Json(new): body::Json<CreateBranch>,
) -> Result<Answer, Failure> {
    let project = parse_project(&project)?;
    let name = BranchName::parse(&new.git_name)?;
    let tx = app.store.begin().await?;
    let branch = branches::create(&tx, &actor, app.clock.now(), project, &name, new.is_default).await?;
    let answer = Answer::of(StatusCode::CREATED, &Data { data: wire(&app, branch) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Get a branch
#[utoipa::path(get, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The branch's id.")), responses(
    (status = 200, description = "The branch.", body = Data<BranchWire>),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 404, description = "There is no such branch.", body = ErrorBody),
))]
pub(super) async fn get_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<BranchWire>>, Failure> {
    let branch = branches::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, branch) }))
}

/// Update a branch
///
/// Makes it the default branch of its project, in place of the one that is. Roles stay.
#[utoipa::path(patch, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The branch's id.")),
    request_body = UpdateBranch, responses(
    (status = 200, description = "The branch.", body = Data<BranchWire>),
    (status = 400, description = "The body is not JSON.", body = ErrorBody),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such branch.", body = ErrorBody),
    (status = 422, description = "It is to be the default branch no more, or something else is to change.", body = ErrorBody),
))]
pub(super) async fn update_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
    body::Json(change): body::Json<UpdateBranch>,
) -> Result<Answer, Failure> {
    let id = parse(&id)?;
    let tx = app.store.begin().await?;
    let branch = branches::update(&tx, &actor, app.clock.now(), id, change.is_default).await?;
    let answer = Answer::of(StatusCode::OK, &Data { data: wire(&app, branch) })?;
    Ok(repeatable.commit(&app, tx, answer).await?)
}

/// Delete a branch
///
/// Its name is free from then on. A branch with databases, the default one and the one for
/// production stay.
#[utoipa::path(delete, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The branch's id.")), responses(
    (status = 204, description = "It is gone."),
    (status = 401, description = "No valid token.", body = ErrorBody),
    (status = 403, description = "The token may not: it is read-only or limited.", body = ErrorBody),
    (status = 404, description = "There is no such branch.", body = ErrorBody),
    (status = 409, description = "There are databases on it.", body = ErrorBody),
    (status = 422, description = "It is the default branch, or the one for production.", body = ErrorBody),
))]
pub(super) async fn delete_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    branches::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
