//! The SQL of the audit log.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Actor, Entry, Filter, Outcome, Resource};
use crate::auth::Scope;
use crate::base::error::{Error, Result};
use crate::base::id::AuditEntryId;
use crate::base::page::PageRequest;
use crate::base::store::{Session, Tx};

const COLUMNS: &str =
    "id, workspace_id, project_id, recorded_at, action, outcome, status, reason, actor_id, actor_name,
        address, request_id, resource_type, resource_id, resource_name, before, after, actor_type, application";

pub(super) async fn insert(tx: &Tx, entry: &Entry) -> Result<()> {
    let statement = tx
        .prepare_cached(&format!(
            "INSERT INTO audit_log ({COLUMNS})
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
        ))
        .await?;
    let resource = entry.resource.as_ref();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 19] = [
        &entry.id.uuid(),
        &entry.workspace.uuid(),
        &entry.project.map(|id| id.uuid()),
        &entry.at,
        &entry.action,
        &entry.outcome.as_str(),
        &entry.status.and_then(|status| i16::try_from(status).ok()),
        &entry.reason,
        &entry.actor.uuid(),
        &entry.actor_name,
        &entry.address,
        &entry.request_id,
        &resource.map(|resource| &resource.kind),
        &resource.map(|resource| &resource.id),
        &resource.and_then(|resource| resource.name.as_ref()),
        &entry.before,
        &entry.after,
        &entry.actor.kind(),
        &entry.application,
    ];
    tx.execute(&statement, &values).await?;
    Ok(())
}

pub(super) async fn list(
    session: &Session,
    scope: &Scope,
    filter: &Filter,
    page: PageRequest<AuditEntryId>,
) -> Result<Vec<Entry>> {
    let statement = session
        .prepare_cached(&format!(
            "SELECT {COLUMNS}
               FROM audit_log
              WHERE workspace_id = $1
                AND ($2::uuid[] IS NULL OR project_id = ANY ($2))
                AND ($3::text IS NULL OR action = $3)
                AND ($4::text IS NULL OR outcome = $4)
                AND ($5::uuid IS NULL OR actor_id = $5)
                AND ($6::uuid IS NULL OR project_id = $6)
                AND ($7::text IS NULL OR resource_id = $7)
                AND ($8::timestamptz IS NULL OR recorded_at >= $8)
                AND ($9::timestamptz IS NULL OR recorded_at < $9)
                AND ($10::uuid IS NULL OR id < $10)
              ORDER BY id DESC
              LIMIT $11"
        ))
        .await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
        &scope.workspace,
        &scope.projects,
        &filter.action,
        &filter.outcome.map(Outcome::as_str),
        &filter.actor.map(Actor::uuid),
        &filter.project.map(|id| id.uuid()),
        &filter.resource,
        &filter.since,
        &filter.until,
        &page.after.map(|id| id.uuid()),
        &(i64::from(page.limit) + 1),
    ];
    session.query(&statement, &values).await?.iter().map(read).collect()
}

pub(super) async fn take_unstreamed(tx: &Tx, most: i64) -> Result<Vec<Entry>> {
    let statement = tx
        .prepare_cached(&format!(
            "UPDATE audit_log
                SET streamed = true
              WHERE id IN (SELECT id FROM audit_log WHERE NOT streamed ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
          RETURNING {COLUMNS}"
        ))
        .await?;
    let mut entries: Vec<Entry> = tx.query(&statement, &[&most]).await?.iter().map(read).collect::<Result<_>>()?;
    entries.sort_by_key(|entry| entry.id);
    Ok(entries)
}

pub(super) async fn forget_before(session: &Session, moment: Timestamp) -> Result<()> {
    session.execute("DELETE FROM audit_log WHERE recorded_at < $1", &[&moment]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Entry> {
    let outcome = match row.get("outcome") {
        "allowed" => Outcome::Allowed,
        "refused" => Outcome::Refused,
        other => return Err(Error::internal(format!("an audit entry has the unknown outcome {other}"))),
    };
    let actor: Uuid = row.get("actor_id");
    let actor = match row.get("actor_type") {
        "service_token" => Actor::ServiceToken(actor.into()),
        "user" => Actor::User(actor.into()),
        other => return Err(Error::internal(format!("an audit entry has the unknown actor {other}"))),
    };
    let resource = row.get::<_, Option<String>>("resource_type").zip(row.get("resource_id"));
    Ok(Entry {
        id: row.get::<_, Uuid>("id").into(),
        workspace: row.get::<_, Uuid>("workspace_id").into(),
        project: row.get::<_, Option<Uuid>>("project_id").map(Into::into),
        at: row.get("recorded_at"),
        action: row.get("action"),
        outcome,
        status: row.get::<_, Option<i16>>("status").map(i16::unsigned_abs),
        reason: row.get("reason"),
        actor,
        actor_name: row.get("actor_name"),
        application: row.get("application"),
        address: row.get("address"),
        request_id: row.get("request_id"),
        resource: resource.map(|(kind, id)| Resource { kind, id, name: row.get("resource_name") }),
        before: row.get("before"),
        after: row.get("after"),
    })
}
