//! The SQL of members and invitations.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Invitation, Member};
use crate::workspaces::Workspace;
use auth::users::User;
use auth::{Principal, Role};
use base::error::{Error, Result};
use base::id::{InvitationId, UserId, WorkspaceId};
use base::store::{Session, Tx};

pub(super) async fn role(session: &Session, workspace: WorkspaceId, user: UserId) -> Result<Option<Role>> {
    let statement =
        session.prepare_cached("SELECT role FROM memberships WHERE workspace_id = $1 AND user_id = $2").await?;
    let row = session.query_opt(&statement, &[&workspace.uuid(), &user.uuid()]).await?;
    row.map(|row| read_role(&row)).transpose()
}

pub(super) async fn workspaces_of(session: &Session, user: UserId) -> Result<Vec<(Workspace, Role)>> {
    let statement = session
        .prepare_cached(
            "SELECT w.id, w.name, w.created_at, w.backup_retention_days, m.role
               FROM memberships m
               JOIN workspaces w ON w.id = m.workspace_id
              WHERE m.user_id = $1
              ORDER BY w.id",
        )
        .await?;
    let rows = session.query(&statement, &[&user.uuid()]).await?;
    rows.iter()
        .map(|row| {
            let workspace = Workspace {
                id: row.get::<_, Uuid>("id").into(),
                name: row.get("name"),
                created_at: row.get("created_at"),
                backup_retention_days: row.get("backup_retention_days"),
            };
            Ok((workspace, read_role(row)?))
        })
        .collect()
}

pub(super) async fn insert(tx: &Tx, workspace: WorkspaceId, user: UserId, role: Role, now: Timestamp) -> Result<()> {
    tx.execute(
        "INSERT INTO memberships (workspace_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)",
        &[&workspace.uuid(), &user.uuid(), &role.as_str(), &now],
    )
    .await?;
    Ok(())
}

pub(super) async fn list(session: &Session, workspace: WorkspaceId) -> Result<Vec<Member>> {
    let rows = session
        .query(
            "SELECT u.id, u.email, u.display_name, u.is_administrator, m.role, m.created_at
               FROM memberships m
               JOIN users u ON u.id = m.user_id
              WHERE m.workspace_id = $1
              ORDER BY m.created_at, u.id",
            &[&workspace.uuid()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let user = User {
                id: row.get::<_, Uuid>("id").into(),
                email: row.get("email"),
                display_name: row.get("display_name"),
                is_administrator: row.get("is_administrator"),
            };
            Ok(Member { user, role: read_role(row)?, since: row.get("created_at") })
        })
        .collect()
}

pub(super) async fn is_member(session: &Session, workspace: WorkspaceId, email: &str) -> Result<bool> {
    let row = session
        .query_opt(
            "SELECT FROM memberships m JOIN users u ON u.id = m.user_id
              WHERE m.workspace_id = $1 AND lower(u.email) = lower($2)",
            &[&workspace.uuid(), &email],
        )
        .await?;
    Ok(row.is_some())
}

pub(super) async fn set_role(tx: &Tx, workspace: WorkspaceId, user: UserId, role: Role) -> Result<()> {
    tx.execute(
        "UPDATE memberships SET role = $3 WHERE workspace_id = $1 AND user_id = $2",
        &[&workspace.uuid(), &user.uuid(), &role.as_str()],
    )
    .await?;
    Ok(())
}

pub(super) async fn remove(tx: &Tx, workspace: WorkspaceId, user: UserId) -> Result<()> {
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&workspace.uuid(), &user.uuid()];
    tx.execute("DELETE FROM integrations WHERE workspace_id = $1 AND user_id = $2", &values).await?;
    tx.execute("DELETE FROM memberships WHERE workspace_id = $1 AND user_id = $2", &values).await?;
    Ok(())
}

/// The locks order those who would each leave the other as the last one.
pub(super) async fn has_another_owner(tx: &Tx, workspace: WorkspaceId, user: UserId) -> Result<bool> {
    let rows = tx
        .query(
            "SELECT user_id
               FROM memberships
              WHERE workspace_id = $1 AND role = 'owner'
              ORDER BY user_id
                FOR NO KEY UPDATE",
            &[&workspace.uuid()],
        )
        .await?;
    Ok(rows.iter().any(|row| row.get::<_, Uuid>("user_id") != user.uuid()))
}

const INVITATION: &str = "SELECT i.id, i.email, i.role, i.invited_by, i.created_at, i.expires_at,
        w.id AS workspace_id, w.name AS workspace_name, w.created_at AS workspace_created_at, w.backup_retention_days
   FROM invitations i
   JOIN workspaces w ON w.id = i.workspace_id
   JOIN memberships m ON m.workspace_id = i.workspace_id
                     AND m.user_id = i.inviter_id
                     AND (m.role = 'owner' OR m.role = 'admin' AND i.role <> 'owner')";

pub(super) async fn list_invitations(
    session: &Session,
    workspace: WorkspaceId,
    now: Timestamp,
) -> Result<Vec<Invitation>> {
    let select = format!("{INVITATION} WHERE i.workspace_id = $1 AND i.expires_at > $2 ORDER BY i.id");
    session.query(&select, &[&workspace.uuid(), &now]).await?.iter().map(read_invitation).collect()
}

pub(super) async fn find_invitation(
    session: &Session,
    now: Timestamp,
    token_hash: &[u8],
) -> Result<Option<Invitation>> {
    let select = format!("{INVITATION} WHERE i.token_hash = $1 AND i.expires_at > $2");
    session.query_opt(&select, &[&token_hash, &now]).await?.as_ref().map(read_invitation).transpose()
}

/// Whether anybody has invited this address, and the invitation is good.
pub(super) async fn is_invited(session: &Session, now: Timestamp, email: &str) -> Result<bool> {
    let select = format!("{INVITATION} WHERE lower(i.email) = lower($1) AND i.expires_at > $2 LIMIT 1");
    Ok(session.query_opt(&select, &[&email, &now]).await?.is_some())
}

#[expect(clippy::too_many_arguments, reason = "one for each column")]
pub(super) async fn insert_invitation(
    tx: &Tx,
    id: InvitationId,
    actor: &Principal,
    email: &str,
    role: Role,
    token_hash: &[u8],
    inviter: &User,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<()> {
    let (id, workspace, role) = (id.uuid(), actor.workspace().uuid(), role.as_str());
    let (inviter, invited_by) = (inviter.id.uuid(), inviter.name());
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
        [&id, &workspace, &email, &role, &token_hash, &invited_by, &now, &expires_at, &inviter];
    tx.execute(
        "INSERT INTO invitations (id, workspace_id, email, role, token_hash, invited_by, created_at, expires_at, inviter_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &values,
    )
    .await?;
    Ok(())
}

/// What a member has given out that they may not give any more: all of it, or, for who stays an admin, what
/// makes owners.
pub(super) async fn remove_invitations_by(
    tx: &Tx,
    workspace: WorkspaceId,
    inviter: UserId,
    only_of_owners: bool,
) -> Result<()> {
    tx.execute(
        "DELETE FROM invitations WHERE workspace_id = $1 AND inviter_id = $2 AND (NOT $3 OR role = 'owner')",
        &[&workspace.uuid(), &inviter.uuid(), &only_of_owners],
    )
    .await?;
    Ok(())
}

pub(super) async fn remove_all_invitations_by(tx: &Tx, inviter: UserId) -> Result<()> {
    tx.execute("DELETE FROM invitations WHERE inviter_id = $1", &[&inviter.uuid()]).await?;
    Ok(())
}

pub(super) async fn remove_invitations_of(tx: &Tx, workspace: WorkspaceId, email: &str) -> Result<()> {
    tx.execute(
        "DELETE FROM invitations WHERE workspace_id = $1 AND lower(email) = lower($2)",
        &[&workspace.uuid(), &email],
    )
    .await?;
    Ok(())
}

pub(super) async fn remove_invitation(tx: &Tx, workspace: WorkspaceId, id: InvitationId) -> Result<Option<String>> {
    let delete = "DELETE FROM invitations WHERE workspace_id = $1 AND id = $2 RETURNING email";
    Ok(tx.query_opt(delete, &[&workspace.uuid(), &id.uuid()]).await?.map(|row| row.get("email")))
}

fn read_role(row: &Row) -> Result<Role> {
    let role: &str = row.get("role");
    Role::parse(role).ok_or_else(|| Error::internal(format!("a membership has the unknown role {role}")))
}

fn read_invitation(row: &Row) -> Result<Invitation> {
    Ok(Invitation {
        id: row.get::<_, Uuid>("id").into(),
        workspace: Workspace {
            id: row.get::<_, Uuid>("workspace_id").into(),
            name: row.get("workspace_name"),
            created_at: row.get("workspace_created_at"),
            backup_retention_days: row.get("backup_retention_days"),
        },
        email: row.get("email"),
        role: read_role(row)?,
        invited_by: row.get("invited_by"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
    })
}
