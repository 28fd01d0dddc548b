//! The SQL of mail.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::Delivery;
use base::error::Result;
use base::id::{BackupId, DatabaseId, InvitationId, MailId, WorkspaceId};
use base::store::{Session, Tx};

/// A mail that is not sent yet.
pub(super) struct Found {
    pub(super) topic: String,
    pub(super) sealed: Vec<u8>,
    pub(super) created_at: Timestamp,
    pub(super) expires_at: Timestamp,
}

/// The names of a database and what it belongs to.
pub(super) struct Place {
    pub(super) workspace_id: WorkspaceId,
    pub(super) workspace: String,
    pub(super) project: String,
    pub(super) database: String,
}

/// A database whose archiving fails, or works again if `failing_since` is `None`.
pub(super) struct ArchiveNews {
    pub(super) workspace_id: WorkspaceId,
    pub(super) workspace: String,
    pub(super) database_id: DatabaseId,
    pub(super) project: String,
    pub(super) database: String,
    pub(super) failing_since: Option<Timestamp>,
    pub(super) reason: Option<String>,
}

pub(super) async fn insert(
    tx: &Tx,
    id: MailId,
    topic: &str,
    sealed: &[u8],
    now: Timestamp,
    expires_at: Timestamp,
    invitation: Option<InvitationId>,
) -> Result<()> {
    tx.execute(
        "INSERT INTO mails (id, topic, sealed, created_at, expires_at, invitation_id) VALUES ($1, $2, $3, $4, $5, $6)",
        &[&id.uuid(), &topic, &sealed, &now, &expires_at, &invitation.map(|id| id.uuid())],
    )
    .await?;
    Ok(())
}

pub(super) async fn find(session: &Session, id: MailId) -> Result<Option<Found>> {
    let row = session
        .query_opt(
            "SELECT topic, sealed, created_at, expires_at FROM mails WHERE id = $1 AND sealed IS NOT NULL",
            &[&id.uuid()],
        )
        .await?;
    Ok(row.map(|row| Found {
        topic: row.get("topic"),
        sealed: row.get("sealed"),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
    }))
}

pub(super) async fn mark_delivered(tx: &Tx, id: MailId, now: Timestamp) -> Result<()> {
    tx.execute("UPDATE mails SET delivered_at = $2, sealed = NULL WHERE id = $1", &[&id.uuid(), &now]).await?;
    Ok(())
}

pub(super) async fn mark_failed(tx: &Tx, id: MailId, reason: &str) -> Result<()> {
    let update = "UPDATE mails SET failure_reason = $2, sealed = NULL WHERE id = $1 AND delivered_at IS NULL";
    tx.execute(update, &[&id.uuid(), &reason]).await?;
    Ok(())
}

pub(super) async fn forget_before(session: &Session, before: Timestamp) -> Result<()> {
    session.execute("DELETE FROM mails WHERE created_at < $1", &[&before]).await?;
    Ok(())
}

pub(super) async fn deliveries(session: &Session, workspace: WorkspaceId) -> Result<HashMap<InvitationId, Delivery>> {
    let rows = session
        .query(
            "SELECT m.invitation_id, m.delivered_at IS NOT NULL AS delivered, m.failure_reason,
                    (SELECT w.explanation FROM workflows w WHERE w.subject = m.id ORDER BY w.id DESC LIMIT 1)
                        AS explanation
               FROM mails m
               JOIN invitations i ON i.id = m.invitation_id
              WHERE i.workspace_id = $1",
            &[&workspace.uuid()],
        )
        .await?;
    let read = |row: &tokio_postgres::Row| match (row.get("delivered"), row.get("failure_reason")) {
        (true, _) => Delivery::Delivered,
        (false, Some(reason)) => Delivery::GivenUp(reason),
        (false, None) => Delivery::OnItsWay(row.get("explanation")),
    };
    Ok(rows.iter().map(|row| (row.get::<_, Uuid>("invitation_id").into(), read(row))).collect())
}

/// The addresses of a workspace's admins and owners.
pub(super) async fn administrators(tx: &Tx, workspace: WorkspaceId) -> Result<Vec<String>> {
    let rows = tx
        .query(
            "SELECT u.email
               FROM memberships m
               JOIN users u ON u.id = m.user_id
              WHERE m.workspace_id = $1 AND m.role IN ('admin', 'owner') AND u.disabled_at IS NULL
              ORDER BY u.id",
            &[&workspace.uuid()],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get("email")).collect())
}

/// The names of a database, if the backup has not failed verification before.
pub(super) async fn place_of_news(tx: &Tx, database: DatabaseId, backup: BackupId) -> Result<Option<Place>> {
    let row = tx
        .query_opt(
            "SELECT w.id AS workspace_id, w.name AS workspace, p.name AS project, d.name AS database
               FROM databases d
               JOIN projects p ON p.id = d.project_id
               JOIN workspaces w ON w.id = p.workspace_id
               JOIN backups b ON b.database_id = d.id
              WHERE d.id = $1 AND b.id = $2 AND b.verification_failure IS NULL",
            &[&database.uuid(), &backup.uuid()],
        )
        .await?;
    Ok(row.map(|row| Place {
        workspace_id: row.get::<_, Uuid>("workspace_id").into(),
        workspace: row.get("workspace"),
        project: row.get("project"),
        database: row.get("database"),
    }))
}

/// The databases whose archiving has failed since `stuck_since` or works again, as far as no mail was sent about
/// it. Marks them as sent. Workspaces with a mail after `told_before` wait.
pub(super) async fn take_archive_news(
    tx: &Tx,
    now: Timestamp,
    stuck_since: Timestamp,
    told_before: Timestamp,
) -> Result<Vec<ArchiveNews>> {
    let rows = tx
        .query(
            "UPDATE vaults v
                SET stuck_told_at = CASE WHEN v.failing_since IS NULL THEN NULL ELSE $1::timestamptz END
               FROM databases d
               JOIN projects p ON p.id = d.project_id
               JOIN workspaces w ON w.id = p.workspace_id
              WHERE d.instance_id = v.instance_id
                AND d.deleted_at IS NULL
                AND v.closed_at IS NULL
                AND (v.failing_since IS NULL AND v.stuck_told_at IS NOT NULL
                     OR v.failing_since <= $2
                        AND v.stuck_told_at IS NULL
                        AND NOT EXISTS (SELECT
                                          FROM vaults o
                                          JOIN databases od ON od.instance_id = o.instance_id
                                          JOIN projects op ON op.id = od.project_id
                                         WHERE op.workspace_id = w.id AND o.stuck_told_at > $3))
          RETURNING w.id AS workspace_id, w.name AS workspace, d.id AS database_id, p.name AS project,
                    d.name AS database, v.failing_since, v.failing_reason",
            &[&now, &stuck_since, &told_before],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| ArchiveNews {
            workspace_id: row.get::<_, Uuid>("workspace_id").into(),
            workspace: row.get("workspace"),
            database_id: row.get::<_, Uuid>("database_id").into(),
            project: row.get("project"),
            database: row.get("database"),
            failing_since: row.get("failing_since"),
            reason: row.get("failing_reason"),
        })
        .collect())
}
