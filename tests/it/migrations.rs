//! Migrations on a store that is in use.

use base::secret::random_bytes;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::harness::Directory;

#[tokio::test]
async fn existing_projects_get_a_branch_and_existing_databases_stand_on_it() {
    let directory = Directory::new();
    let metadata = directory.metadata_instance().await;
    let config = metadata.ensure_started().await.unwrap();
    let (client, connection) = config.connect(NoTls).await.unwrap();
    let work = async {
        let before = [
            include_str!("../../migrations/V0001__main_job.sql"),
            include_str!("../../migrations/V0002__status_reason.sql"),
        ];
        client.batch_execute(&before.concat()).await.unwrap();
        let [workspace, live, deleted, database] = [(); 4].map(|()| Uuid::from_bytes(random_bytes()));
        let insert = format!(
            "INSERT INTO workspaces VALUES ('{workspace}', 'w', now());
             INSERT INTO projects (id, workspace_id, name, created_at, deleted_at)
             VALUES ('{live}', '{workspace}', 'p', now(), NULL), ('{deleted}', '{workspace}', 'q', now(), now());
             INSERT INTO databases (id, project_id, name, region, is_default, status, instance_id, created_at)
             VALUES ('{database}', '{live}', 'd', 'us-east-1', true, 'ready', gen_random_uuid(), now());
             INSERT INTO connections VALUES (gen_random_uuid(), '{database}', 'Default', 'u', 'v', now());"
        );
        client.batch_execute(&insert).await.unwrap();
        // As the runner does it: each file in one transaction.
        let migration = include_str!("../../migrations/V0003__branches.sql");
        client.batch_execute(&format!("BEGIN; {migration}; COMMIT")).await.unwrap();
        let select = "SELECT b.id, b.git_name, b.is_default, b.role
                        FROM branches b JOIN databases d ON d.branch_id = b.id AND d.project_id = b.project_id";
        let row = client.query_one(select, &[]).await.unwrap();
        assert_eq!(row.get::<_, Uuid>("id"), live, "the branch is as old as its project");
        assert_eq!((row.get("git_name"), row.get("is_default"), row.get("role")), ("main", true, "production"));
        drop(client);
    };
    let ((), ended) = tokio::join!(work, connection);
    ended.unwrap();
    metadata.ensure_stopped().await.unwrap();
}
