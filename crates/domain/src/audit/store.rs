//! The SQL of the audit log.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Actor, Consequence, Entry, Filter, Of, Outcome, Resource};
use base::error::{Error, Result};
use base::id::{AuditEntryId, DatabaseId, ProjectId, WorkspaceId};
use base::page::PageRequest;
use base::store::{Conditions, Session, Tx};

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
        &entry.workspace.map(|id| id.uuid()),
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

/// False: it is there already, or nothing says who deleted the database.
pub(super) async fn insert_consequence(
    tx: &Tx,
    id: AuditEntryId,
    now: Timestamp,
    project: ProjectId,
    consequence: Consequence<'_>,
) -> Result<bool> {
    let statement = tx
        .prepare_cached(&format!(
            "INSERT INTO audit_log ({COLUMNS})
             SELECT $1, workspace_id, project_id, $2, $3, outcome, NULL, $4, actor_id, actor_name,
                    address, request_id, 'database', $5, NULL, NULL, NULL, actor_type, application
               FROM audit_log
              WHERE outcome = 'allowed'
                AND (action, resource_id) IN (('delete_database', $5), ('delete_project', $6))
                AND NOT EXISTS (SELECT FROM audit_log WHERE action = $3 AND resource_id = $5)
              ORDER BY id DESC
              LIMIT 1"
        ))
        .await?;
    let (database, project) = (consequence.database.to_string(), project.to_string());
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&id.uuid(), &now, &consequence.action, &consequence.reason, &database, &project];
    Ok(tx.execute(&statement, &values).await? == 1)
}

pub(super) async fn has_consequence(session: &Session, action: &str, database: DatabaseId) -> Result<bool> {
    let statement =
        session.prepare_cached("SELECT EXISTS (SELECT FROM audit_log WHERE action = $1 AND resource_id = $2)").await?;
    Ok(session.query_one(&statement, &[&action, &database.to_string()]).await?.get(0))
}

pub(super) async fn list(
    session: &Session,
    of: &Of,
    filter: &Filter,
    page: PageRequest<AuditEntryId>,
) -> Result<Vec<Entry>> {
    let (limit, after) = (i64::from(page.limit) + 1, page.after.map(|id| id.uuid()));
    let (actor, project) = (filter.actor.and_then(Actor::uuid), filter.project.map(|id| id.uuid()));
    let workspace = filter.workspace.map(|id| id.uuid());
    let outcome = filter.outcome.map(Outcome::as_str);
    let mut wanted = Conditions::of([&limit]);
    match of {
        Of::Workspace { id, projects } => {
            wanted.add("workspace_id = $?", Some(id));
            wanted.add("project_id = ANY ($?)", projects.as_ref());
        }
        Of::Installation => {}
    }
    wanted.add("workspace_id = $?", workspace.as_ref());
    wanted.add("action = $?", filter.action.as_ref());
    wanted.add("outcome = $?", outcome.as_ref());
    wanted.add("actor_id = $?", actor.as_ref());
    // No pattern: what is looked for may have any character in it.
    wanted.add(
        "position(lower($?) IN lower(concat_ws(E'\\n', actor_name, application))) > 0",
        filter.actor_name.as_ref(),
    );
    wanted.add("project_id = $?", project.as_ref());
    wanted.add("resource_id = $?", filter.resource.as_ref());
    wanted.add("recorded_at >= $?", filter.since.as_ref());
    wanted.add("recorded_at < $?", filter.until.as_ref());
    wanted.add("id < $?", after.as_ref());
    let whose = match of {
        Of::Workspace { .. } => "true",
        Of::Installation => "(workspace_id IS NULL OR workspace_id IN (SELECT id FROM deleted_workspaces))",
    };
    let statement = session
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM audit_log WHERE {whose} {} ORDER BY id DESC LIMIT $1",
            wanted.sql()
        ))
        .await?;
    session.query(&statement, wanted.values()).await?.iter().map(read).collect()
}

pub(super) async fn deleted_workspaces(session: &Session) -> Result<Vec<(WorkspaceId, String)>> {
    let rows = session.query("SELECT id, name FROM deleted_workspaces ORDER BY deleted_at DESC, id", &[]).await?;
    Ok(rows.iter().map(|row| (row.get::<_, Uuid>("id").into(), row.get("name"))).collect())
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
    session.execute("DELETE FROM deleted_workspaces WHERE deleted_at < $1", &[&moment]).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Entry> {
    let outcome = match row.get("outcome") {
        "allowed" => Outcome::Allowed,
        "refused" => Outcome::Refused,
        other => return Err(Error::internal(format!("an audit entry has the unknown outcome {other}"))),
    };
    let actor = match (row.get("actor_type"), row.get::<_, Option<Uuid>>("actor_id")) {
        ("service_token", Some(id)) => Actor::ServiceToken(id.into()),
        ("user", Some(id)) => Actor::User(id.into()),
        ("anonymous", None) => Actor::Anonymous,
        (other, _) => return Err(Error::internal(format!("an audit entry has the unknown actor {other}"))),
    };
    let resource = row.get::<_, Option<String>>("resource_type").zip(row.get("resource_id"));
    Ok(Entry {
        id: row.get::<_, Uuid>("id").into(),
        workspace: row.get::<_, Option<Uuid>>("workspace_id").map(Into::into),
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
