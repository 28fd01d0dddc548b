//! Branches: what a project's databases stand on, named after the branches of its source. They
//! hold no data of their own.

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

/// The git name of a project's first branch.
const FIRST: &str = "main";

/// What a branch is for. It never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A project's first branch.
    Production,
    /// Every other one.
    Preview,
}

impl Role {
    /// Its word on the wire and in the store.
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
    /// Its id.
    pub id: BranchId,
    /// Its name; no two live branches of a project share one.
    pub git_name: String,
    /// Whether databases go here when nobody says where; true for one branch of each project.
    pub is_default: bool,
    /// What it is for.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Its project.
    pub project: ProjectId,
    /// Its project's name.
    pub project_name: String,
}

impl Branch {
    /// What the audit log says of it.
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

/// Which branch a database is to stand on.
#[derive(Clone, Debug)]
pub enum Placement {
    /// The project's default branch.
    Default,
    /// This one.
    Branch(BranchId),
    /// The one with this name, which is made when there is none.
    GitName(BranchName),
}

/// Which branches to list.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All of them.
    All,
    /// The one with this name.
    GitName(BranchName),
    /// Those whose name has this in it.
    GitNameContains(BranchName),
}

/// Makes the first branch of a new project: its default one, for production.
pub async fn create_first(tx: &Tx, now: Timestamp, project: ProjectId) -> Result<()> {
    let name = BranchName::parse(FIRST)?;
    let id = BranchId::generate(now);
    store::insert(tx, project, id, &name, Role::Production, now).await?;
    store::make_default(tx, project, id, now).await
}

/// Makes a branch for previews; the default one, if asked for.
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
            format!("gitName: another branch of this project has the name {:?}", git_name.as_str()),
            "List the project's branches with gitName to find it: use it, or choose another name.",
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

/// Makes a branch its project's default one, in place of the one that is, and answers what it is
/// then. Roles stay as they are.
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
                "Make another branch the default one instead.",
            ));
        }
        (false, Some(true)) => store::make_default(tx, branch.project, id, now).await?,
        (true, Some(true)) | (false, Some(false)) | (_, None) => {}
    }
    let after = get(tx, actor, id).await?;
    audit::record(tx, actor, now, after.change("update_branch", Some(&branch), Some(&after))).await?;
    Ok(after)
}

/// Deletes a branch on which no database stands. Its name is free from the commit on.
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
            "Make another branch the default one first, or delete the project.",
        ));
    }
    if branch.role == Role::Production {
        return Err(Error::invalid("the production branch of a project cannot be deleted", "Delete the project."));
    }
    match store::count_databases(session, &[branch.id]).await?.get(&branch.id) {
        None => Ok(()),
        Some(databases) => Err(Error::conflict(
            format!("the branch {:?} has databases ({databases})", branch.git_name),
            "Delete its databases or move them to another branch first.",
        )),
    }
}

/// Those of these branches that can be deleted now.
pub async fn deletable(session: &Session, branches: &[Branch]) -> Result<HashSet<BranchId>> {
    let may_be = branches.iter().filter(|branch| !branch.is_default && branch.role == Role::Preview);
    let ids: Vec<BranchId> = may_be.map(|branch| branch.id).collect();
    let occupied = store::count_databases(session, &ids).await?;
    Ok(ids.into_iter().filter(|id| !occupied.contains_key(id)).collect())
}

/// The branch that a database of a project is to stand on. The caller has checked whose project
/// it is, and holds a lock on it.
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
            // Whoever makes it at the same time makes the same one.
            store::insert(tx, project, BranchId::generate(now), name, Role::Preview, now).await?;
            store::find_by_name(tx, project, name).await?
        }
    };
    found.ok_or_else(|| Error::internal(format!("the project {project} lacks a branch that it must have")))
}

/// Keeps a branch's project, and with it what is decided about its branches, as it is until the
/// transaction ends.
async fn lock(tx: &Tx, actor: &Principal, id: BranchId) -> Result<Branch> {
    let branch = get(tx, actor, id).await?;
    if !store::lock_project(tx, &actor.scope(), branch.project).await? {
        return Err(Error::not_found("branch", id));
    }
    actor.may_change()?;
    get(tx, actor, id).await
}
