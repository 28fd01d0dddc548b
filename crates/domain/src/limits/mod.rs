//! Limits: how much a workspace may have. The server is told what holds for all workspaces; a row
//! in the store says otherwise for one.
//!
//! A limit holds however many create at once: what is counted is counted under a lock, on the
//! workspace or, for connections, on the database. It stops what is new; what exists stays when a
//! limit is lowered.

mod store;

use crate::workspaces;
use auth::Principal;
use base::error::{Error, Result};
use base::id::{DatabaseId, WorkspaceId};
use base::store::{Session, Tx};

/// How much there may be of each; `None`: as much as anybody likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Projects of a workspace.
    pub projects: Option<u32>,
    /// Databases in all projects of a workspace.
    pub databases: Option<u32>,
    /// Connections of each database.
    pub connections_per_database: Option<u32>,
}

/// How much there is of one thing, and how much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How much there may be; `None`: no limit.
    pub limit: Option<u32>,
    /// How much there is.
    pub used: u32,
}

/// How a workspace stands with each limit.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The workspace's projects.
    pub projects: Quota,
    /// The databases in all of its projects.
    pub databases: Quota,
    /// The connections of the database that has most of them.
    pub connections_per_database: Quota,
}

impl Quota {
    /// Whether nothing more of it can be made.
    pub fn is_reached(self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// Whether so many that were just made are within the limit; `used` has them in it.
    fn allow(self, added: u32, what: Counted) -> Result<()> {
        let used = self.used.saturating_sub(added);
        match self.limit {
            Some(limit) if self.used > limit && added > 0 => Err(what.reached(limit, used, added)),
            _ => Ok(()),
        }
    }
}

/// What is counted, in words.
#[derive(Clone, Copy)]
enum Counted {
    Projects,
    Databases,
    Connections,
}

impl Counted {
    fn reached(self, limit: u32, used: u32, added: u32) -> Error {
        let (owner, what) = match self {
            Self::Projects => ("workspace", "projects"),
            Self::Databases => ("workspace", "databases"),
            Self::Connections => ("database", "connections"),
        };
        let room = if added > 1 { format!(", and {added} more were requested") } else { String::new() };
        Error::LimitReached {
            message: format!("The {owner} has reached its limit of {limit} {what}."),
            hint: format!(
                "{used} of {limit} {what} are used{room}. Delete {what} that are no longer needed, or ask the operator of \
                 this server to raise the limit."
            ),
        }
    }
}

/// How a workspace stands.
///
/// # Errors
/// [`Error::NotFound`] for any that the caller does not reach; [`Error::Forbidden`] when it does not see
/// all of it.
pub async fn get(session: &Session, actor: &Principal, quotas: &Quotas, workspace: WorkspaceId) -> Result<Standing> {
    workspaces::get(session, actor, workspace).await?;
    actor.may_see_all()?;
    store::standing(session, quotas, workspace).await
}

/// Whether a workspace has as many projects or databases as it may have.
///
/// # Errors
/// [`Error::NotFound`] for any that the caller does not reach.
pub async fn is_blocked(session: &Session, actor: &Principal, quotas: &Quotas, workspace: WorkspaceId) -> Result<bool> {
    workspaces::get(session, actor, workspace).await?;
    let standing = store::standing(session, quotas, workspace).await?;
    Ok(standing.projects.is_reached() || standing.databases.is_reached())
}

/// Checks a transaction that has added a project to a workspace. Others that add to it wait until
/// the transaction ends.
///
/// # Errors
/// [`Error::LimitReached`] when that is one too many.
pub async fn check_projects(tx: &Tx, quotas: &Quotas, workspace: WorkspaceId) -> Result<()> {
    let Some(limit) = store::lock(tx, quotas, workspace).await?.projects else { return Ok(()) };
    let used = store::count_projects(tx, workspace).await?;
    Quota { limit: Some(limit), used }.allow(1, Counted::Projects)
}

/// Checks a transaction that has added so many databases to a workspace. Others that add to it wait
/// until the transaction ends.
///
/// # Errors
/// [`Error::LimitReached`] when those are too many.
pub async fn check_databases(tx: &Tx, quotas: &Quotas, workspace: WorkspaceId, added: u32) -> Result<()> {
    let Some(limit) = store::lock(tx, quotas, workspace).await?.databases else { return Ok(()) };
    let used = store::count_databases(tx, workspace).await?;
    Quota { limit: Some(limit), used }.allow(added, Counted::Databases)
}

/// Checks a transaction that has added a connection to a database, which it holds a lock on.
///
/// # Errors
/// [`Error::LimitReached`] when that is one too many.
pub async fn check_connections(tx: &Tx, quotas: &Quotas, workspace: WorkspaceId, database: DatabaseId) -> Result<()> {
    let quota = store::connections(tx, quotas, workspace, database).await?;
    quota.allow(1, Counted::Connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(limit: Option<u32>, used: u32, added: u32) -> Option<String> {
        match (Quota { limit, used }).allow(added, Counted::Databases) {
            Ok(()) => None,
            Err(Error::LimitReached { hint, .. }) => Some(hint),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn quota_rejects_new_resources_and_reports_the_usage() {
        assert_eq!(refused(None, 1_000_000, 1), None);
        assert_eq!(refused(Some(5), 5, 1), None, "the last one");
        assert!(refused(Some(5), 6, 1).unwrap().starts_with("5 of 5 databases are used. Delete databases"));
        assert!(refused(Some(5), 9, 1).unwrap().starts_with("8 of 5"), "the limit was lowered");
        assert_eq!(refused(Some(5), 9, 0), None, "nothing was added");
        assert!(refused(Some(5), 7, 4).unwrap().starts_with("3 of 5 databases are used, and 4 more were requested"));
    }

    #[test]
    fn a_limit_is_reached_when_nothing_more_fits() {
        assert!(!Quota { limit: Some(2), used: 1 }.is_reached());
        assert!(Quota { limit: Some(2), used: 2 }.is_reached());
        assert!(!Quota { limit: None, used: 2 }.is_reached());
    }
}
