//! The SQL of the numbers.

use super::Snapshot;
use base::error::Result;
use base::store::Session;

pub(super) async fn take(session: &Session) -> Result<Snapshot> {
    let count = async |what: &str| Ok::<_, base::error::Error>(session.query_one(what, &[]).await?.get(0));
    let by_one = async |what: &str| {
        let rows = session.query(what, &[]).await?;
        Ok::<_, base::error::Error>(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    };
    let by_two = async |what: &str| {
        let rows = session.query(what, &[]).await?;
        Ok::<_, base::error::Error>(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    };
    Ok(Snapshot {
        workspaces: count("SELECT count(*) FROM workspaces").await?,
        projects: count("SELECT count(*) FROM projects WHERE deleted_at IS NULL").await?,
        databases: by_one("SELECT status, count(*) FROM databases WHERE deleted_at IS NULL GROUP BY 1 ORDER BY 1")
            .await?,
        backups: by_two("SELECT kind, state, count(*) FROM backups GROUP BY 1, 2 ORDER BY 1, 2").await?,
        trials: by_one(
            "SELECT CASE WHEN verification_failure IS NULL THEN 'passed' ELSE 'failed' END, count(*)
               FROM backups
              WHERE verified_at IS NOT NULL OR verification_failure IS NOT NULL
              GROUP BY 1
              ORDER BY 1",
        )
        .await?,
        archives_stuck: count("SELECT count(*) FROM vaults WHERE failing_since IS NOT NULL AND closed_at IS NULL")
            .await?,
        operations: by_two(
            "SELECT w.kind, w.state, count(*)
               FROM operations o
               JOIN workflows w ON w.id = o.id
              WHERE w.updated_at > now() - interval '1 day' OR w.state IN ('waiting', 'running')
              GROUP BY 1, 2
              ORDER BY 1, 2",
        )
        .await?,
    })
}
