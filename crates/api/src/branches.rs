//! Branches on the wire.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Data, List, PageQuery, ProjectReference, sample_url, url};
use base::clock::format_timestamp;
use base::error::Error;
use base::id::{BranchId, ProjectId};
use base::name::BranchName;
use domain::app::App;
use domain::branches::{self, Branch, Filter, Role};
use web::Failure;
use web::answer::Answer;
use web::body;
use web::caller::Caller;
use web::failure::ErrorBody;
use web::path::Path;
use web::query::Query;
use web::retry::Repeatable;

/// The resource type: always `branch`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum BranchType {
    Branch,
}

/// The role of a branch.
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
pub(crate) struct BranchWire {
    /// The branch's ID.
    #[schema(value_type = BranchId)]
    id: String,
    /// Always `branch`.
    r#type: BranchType,
    /// The resource's URL in this API.
    #[schema(format = "uri", example = json!(sample_url("branches", "br")))]
    url: String,
    /// The branch's name.
    #[schema(example = "main")]
    git_name: String,
    /// Whether this is the project's default branch, where databases are created unless a branch is given.
    is_default: bool,
    /// `production` for the project's first branch, `preview` for every other branch.
    role: BranchRole,
    /// When the branch was created.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    created_at: String,
    /// When the branch was last changed.
    #[schema(format = "date-time", example = "2026-07-09T11:52:15.341Z")]
    updated_at: String,
    /// The project that the branch belongs to.
    project: ProjectReference,
}

/// A branch to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"gitName": "feature-1"}))]
pub(crate) struct CreateBranch {
    /// The branch's name, 1 to 256 characters. Unique in the project.
    #[schema(min_length = 1, max_length = 256)]
    git_name: String,
    /// Whether the branch becomes the project's default branch, replacing the current one.
    #[serde(default)]
    #[schema(default = false)]
    is_default: bool,
}

/// Changes to a branch. The name and the role cannot be changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({"isDefault": true}))]
pub(crate) struct UpdateBranch {
    /// `true` makes the branch the project's default branch, replacing the current one.
    is_default: Option<bool>,
}

/// Filters of the list of branches; at most one can be given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct BranchQuery {
    /// Return only the branch with this name.
    #[param(min_length = 1, max_length = 256)]
    git_name: Option<String>,
    /// Return only branches whose name contains this text. Case-sensitive.
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
                Err(Error::invalid("gitName and gitNameContains are mutually exclusive", "Send only one of them."))
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
/// Returns the branches of a project, oldest first.
#[utoipa::path(get, path = "/v1/projects/{projectId}/branches", tag = "Branches",
    params(("projectId" = String, Path, description = "The ID of the project."), PageQuery, BranchQuery), responses(
    (status = 200, description = "The branches.", body = List<BranchWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "A parameter is invalid, or both filters are given.", body = ErrorBody),
))]
pub(crate) async fn list_branches(
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
/// Creates a branch with the role `preview`. The only `production` branch of a project is created with the project. A
/// branch groups databases and contains no data itself. Requires the developer role.
#[utoipa::path(post, path = "/v1/projects/{projectId}/branches", tag = "Branches",
    params(("projectId" = String, Path, description = "The ID of the project.")),
    request_body = CreateBranch, responses(
    (status = 201, description = "The branch.", body = Data<BranchWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The project does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "Another branch of the project has the name.", body = ErrorBody),
    (status = 422, description = "A value is invalid, or a field is unknown.", body = ErrorBody),
))]
pub(crate) async fn create_branch(
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
///
/// Returns a branch. The databases on it are listed by `GET /v1/databases` with `branchId`.
#[utoipa::path(get, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The ID of the branch.")), responses(
    (status = 200, description = "The branch.", body = Data<BranchWire>),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 404, description = "The branch does not exist, or the token cannot access it.", body = ErrorBody),
))]
pub(crate) async fn get_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Path(id): Path<String>,
) -> Result<Json<Data<BranchWire>>, Failure> {
    let branch = branches::get(&app.store.session().await?, &actor, parse(&id)?).await?;
    Ok(Json(Data { data: wire(&app, branch) }))
}

/// Update a branch
///
/// Makes a branch the default branch of its project, replacing the current one. Roles are unchanged. Requires the
/// developer role.
#[utoipa::path(patch, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The ID of the branch.")),
    request_body = UpdateBranch, responses(
    (status = 200, description = "The branch.", body = Data<BranchWire>),
    (status = 400, description = "The body is not valid JSON.", body = ErrorBody),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The branch does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 422, description = "`isDefault` is false for the default branch, or another field is given.", body = ErrorBody),
))]
pub(crate) async fn update_branch(
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
/// Deletes a branch. Its name can then be used for another branch. The default branch, the production branch and
/// branches with databases cannot be deleted. Requires the developer role.
#[utoipa::path(delete, path = "/v1/branches/{branchId}", tag = "Branches",
    params(("branchId" = String, Path, description = "The ID of the branch.")), responses(
    (status = 204, description = "The branch was deleted."),
    (status = 401, description = "The token is missing or invalid.", body = ErrorBody),
    (status = 403, description = "The token is read-only, or the caller's role is too low.", body = ErrorBody),
    (status = 404, description = "The branch does not exist, or the token cannot access it.", body = ErrorBody),
    (status = 409, description = "The branch has databases.", body = ErrorBody),
    (status = 422, description = "The branch is the default branch or the production branch.", body = ErrorBody),
))]
pub(crate) async fn delete_branch(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    repeatable: Repeatable,
    Path(id): Path<String>,
) -> Result<Answer, Failure> {
    let tx = app.store.begin().await?;
    branches::delete(&tx, &actor, app.clock.now(), parse(&id)?).await?;
    Ok(repeatable.commit(&app, tx, Answer::empty()).await?)
}
