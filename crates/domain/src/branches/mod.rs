//! Branches group a project's databases by Git branch. They contain no data.

mod store;

use std::collections::HashSet;

use jiff::Timestamp;

use crate::audit::{self, Change, Resource};
use crate::projects;
use auth::Principal;
use base::error::{Error, Result};
use base::id::{BranchId, ProjectId};
use base::name::BranchName;
use base::page::{Page, PageRequest};
use base::store::{Session, Tx};

/// The name of a project's first branch.
const FIRST: &str = "main";

/// The role of a branch, which never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A project's first branch.
    Production,
    /// Every other branch.
    Preview,
}

impl Role {
    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Preview => "preview",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Self::Production, Self::Preview]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Error::internal(format!("a branch has the unknown role {text}")))
    }
}

/// A branch.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The branch's ID.
    pub id: BranchId,
    /// The branch's name; no two live branches of a project share one.
    pub git_name: String,
    /// Whether this is the project's default branch, for databases that are created without a branch.
    pub is_default: bool,
    /// The branch's role.
    pub role: Role,
    /// When the branch was created.
    pub created_at: Timestamp,
    /// When the branch was last changed.
    pub updated_at: Timestamp,
    /// The branch's project.
    pub project: ProjectId,
    /// The name of the branch's project.
    pub project_name: String,
}

impl Branch {
    /// The fields that the audit log records.
    fn audited(&self) -> serde_json::Value {
        serde_json::json!({"gitName": self.git_name, "isDefault": self.is_default, "role": self.role.as_str()})
    }

    fn change(&self, action: &'static str, before: Option<&Self>, after: Option<&Self>) -> Change {
        Change {
            action,
            resource: Resource::new("branch", self.id, &self.git_name),
            project: Some(self.project),
            before: before.map(Self::audited),
            after: after.map(Self::audited),
        }
    }
}

/// The branch for a database, as a caller names it.
#[derive(Clone, Debug)]
pub enum Placement {
    /// The project's default branch.
    Default,
    /// The branch with this ID.
    Branch(BranchId),
    /// The branch with this name, which is created if missing.
    GitName(BranchName),
}

/// Filters for branches.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All branches.
    All,
    /// The branch with this name.
    GitName(BranchName),
    /// Branches whose name contains this text.
    GitNameContains(BranchName),
}

/// Creates the first branch of a new project, which is its default and production branch.
pub async fn create_first(tx: &Tx, now: Timestamp, project: ProjectId) -> Result<()> {
    let name = BranchName::parse(FIRST)?;
    let id = BranchId::generate(now);
    store::insert(tx, project, id, &name, Role::Production, now).await?;
    store::make_default(tx, project, id, now).await
}

/// Creates a preview branch, optionally as the default branch.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have; [`Error::Conflict`] when a
/// live branch of it has the name.
pub async fn create(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    project: ProjectId,
    git_name: &BranchName,
    is_default: bool,
) -> Result<Branch> {
    if !store::lock_project(tx, &actor.scope(), project).await? {
        return Err(Error::not_found("project", project));
    }
    actor.may_change()?;
    let id = BranchId::generate(now);
    if !store::insert(tx, project, id, git_name, Role::Preview, now).await? {
        return Err(Error::conflict(
            format!("gitName: the project already has a branch named {:?}", git_name.as_str()),
            "Use that branch (list the branches with gitName to find it), or choose another name.",
        ));
    }
    if is_default {
        store::make_default(tx, project, id, now).await?;
    }
    let branch = get(tx, actor, id).await?;
    audit::record(tx, actor, now, branch.change("create_branch", None, Some(&branch))).await?;
    Ok(branch)
}

/// The branch with this id.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live branch.
pub async fn get(session: &Session, actor: &Principal, id: BranchId) -> Result<Branch> {
    store::get(session, &actor.scope(), id).await?.ok_or_else(|| Error::not_found("branch", id))
}

/// A project's branches, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for a project that the caller does not have.
pub async fn list(
    session: &Session,
    actor: &Principal,
    project: ProjectId,
    filter: &Filter,
    page: PageRequest<BranchId>,
) -> Result<Page<Branch>> {
    projects::get(session, actor, project).await?;
    let rows = store::list(session, project, filter, page).await?;
    Ok(Page::cut(rows, page.limit, |branch| branch.id.bare()))
}

/// Makes a branch the default branch of its project and returns it. Roles are unchanged.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such live branch; [`Error::Invalid`] when the
/// default branch is to be none.
pub async fn update(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    id: BranchId,
    is_default: Option<bool>,
) -> Result<Branch> {
    let branch = lock(tx, actor, id).await?;
    match (branch.is_default, is_default) {
        (true, Some(false)) => {
            return Err(Error::invalid(
                "isDefault: a project always has a default branch",
                "Make another branch the default branch instead.",
            ));
        }
        (false, Some(true)) => store::make_default(tx, branch.project, id, now).await?,
        (true, Some(true)) | (false, Some(false)) | (_, None) => {}
    }
    let after = get(tx, actor, id).await?;
    audit::record(tx, actor, now, after.change("update_branch", Some(&branch), Some(&after))).await?;
    Ok(after)
}

/// Deletes a branch without databases. Its name can be used again.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Invalid`] for the default branch and for that of production;
/// [`Error::Conflict`] when it has databases.
pub async fn delete(tx: &Tx, actor: &Principal, now: Timestamp, id: BranchId) -> Result<()> {
    let branch = lock(tx, actor, id).await?;
    check_deletable(tx, &branch).await?;
    store::mark_deleted(tx, id, now).await?;
    audit::record(tx, actor, now, branch.change("delete_branch", Some(&branch), None)).await
}

/// Whether a branch can be deleted now.
///
/// # Errors
/// [`Error::Invalid`] for the default branch and for that of production; [`Error::Conflict`] when it has
/// databases.
pub async fn check_deletable(session: &Session, branch: &Branch) -> Result<()> {
    if branch.is_default {
        return Err(Error::invalid(
            "the default branch of a project cannot be deleted",
            "Make another branch the default branch first, or delete the project.",
        ));
    }
    if branch.role == Role::Production {
        return Err(Error::invalid(
            "the production branch of a project cannot be deleted",
            "Delete the project instead.",
        ));
    }
    match store::count_databases(session, &[branch.id]).await?.get(&branch.id) {
        None => Ok(()),
        Some(databases) => Err(Error::conflict(
            format!("the branch {:?} still has databases ({databases})", branch.git_name),
            "Delete the databases or move them to another branch first.",
        )),
    }
}

/// The branches among these that can be deleted now.
pub async fn deletable(session: &Session, branches: &[Branch]) -> Result<HashSet<BranchId>> {
    let may_be = branches.iter().filter(|branch| !branch.is_default && branch.role == Role::Preview);
    let ids: Vec<BranchId> = may_be.map(|branch| branch.id).collect();
    let occupied = store::count_databases(session, &ids).await?;
    Ok(ids.into_iter().filter(|id| !occupied.contains_key(id)).collect())
}

/// Resolves the branch for a database. The caller has checked access to the project and locked it.
///
/// # Errors
/// [`Error::NotFound`] when the project has no such live branch.
pub async fn place(tx: &Tx, now: Timestamp, project: ProjectId, placement: &Placement) -> Result<BranchId> {
    let found = match placement {
        Placement::Default => store::find_default(tx, project).await?,
        Placement::Branch(id) => {
            return store::find(tx, project, *id).await?.ok_or_else(|| Error::not_found("branch", id));
        }
        Placement::GitName(name) => {
            // Does nothing if the branch exists or is created concurrently.
            store::insert(tx, project, BranchId::generate(now), name, Role::Preview, now).await?;
            store::find_by_name(tx, project, name).await?
        }
    };
    found.ok_or_else(|| Error::internal(format!("the project {project} lacks a branch that it must have")))
}

/// Locks a branch's project, and with it all of its branches, until the transaction ends.
async fn lock(tx: &Tx, actor: &Principal, id: BranchId) -> Result<Branch> {
    let branch = get(tx, actor, id).await?;
    if !store::lock_project(tx, &actor.scope(), branch.project).await? {
        return Err(Error::not_found("branch", id));
    }
    actor.may_change()?;
    get(tx, actor, id).await
}
