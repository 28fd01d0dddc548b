//! Integrations over HTTP. Nobody can consent to one yet, so the tests put them into the store.

use base::clock::Clock;
use base::id::{IntegrationId, UserId, WorkspaceId};
use serde_json::{Value, json};

use crate::harness::Howdah;

/// Lets an application act in a workspace; answers the integration's id.
pub(crate) async fn consent(howdah: &Howdah, workspace: &str, client: &str) -> String {
    let now = Clock::system().now();
    let id = IntegrationId::generate(now);
    let (store, tasks) = howdah.store();
    let tx = store.begin().await.unwrap();
    // One who has not let this application act here; the first is Ada.
    let user = tx
        .query_one(
            "WITH free AS (SELECT u.id
                             FROM users u
                            WHERE NOT EXISTS (SELECT
                                                FROM integrations i
                                               WHERE i.workspace_id = $3 AND i.client_id = $4 AND i.user_id = u.id)
                            ORDER BY u.id
                            LIMIT 1),
                  made AS (INSERT INTO users (id, email, created_at)
                           SELECT $1, CASE WHEN EXISTS (SELECT FROM users) THEN $1::uuid || '@example.com'
                                           ELSE 'ada@example.com' END, $2
                            WHERE NOT EXISTS (SELECT FROM free)
                        RETURNING id)
             SELECT id FROM free UNION ALL SELECT id FROM made",
            &[&UserId::generate(now).uuid(), &now, &WorkspaceId::parse(workspace).unwrap().uuid(), &client],
        )
        .await
        .unwrap();
    let user = UserId::from(user.get::<_, uuid::Uuid>("id"));
    tx.execute(
        "INSERT INTO oauth_clients (id, name, created_at) VALUES ($1, 'secret_client', $2) ON CONFLICT DO NOTHING",
        &[&client, &now],
    )
    .await
    .unwrap();
    tx.execute(
        "INSERT INTO integrations (id, workspace_id, client_id, user_id, scopes, created_at)
         VALUES ($1, $2, $3, $4, '{workspace:admin,offline_access}', $5)",
        &[&id.uuid(), &WorkspaceId::parse(workspace).unwrap().uuid(), &client, &user.uuid(), &now],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    tasks.stop();
    id.to_string()
}

#[tokio::test]
async fn integrations_are_listed_and_ended() {
    let howdah = Howdah::start().await;
    let (owner, stranger) = (howdah.owner(), howdah.stranger().await);
    let workspace = owner.workspace_id().await;
    let of_workspace = format!("/v1/workspaces/{workspace}/integrations");
    let flat = format!("/v1/integrations?workspaceId={workspace}");
    assert_eq!(owner.get(&of_workspace).await.data(200), &json!([]));

    let mut ids = Vec::new();
    for client in ["cmm3lndn701oo0uefvxzo0ivw", "another", "cmm3lndn701oo0uefvxzo0ivw"] {
        ids.push(consent(&howdah, &workspace, client).await);
    }
    let theirs = consent(&howdah, &stranger.workspace_id().await, "another").await;
    let listed = async |path: &str| -> Vec<Value> {
        owner.get(path).await.data(200).as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
    };
    for path in [&of_workspace, &flat] {
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(listed(path).await, sorted);
    }
    let first = owner.get(&format!("{of_workspace}?limit=2")).await;
    assert_eq!((first.data(200).as_array().unwrap().len(), &first.body["pagination"]["hasMore"]), (2, &json!(true)));
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap();
    for path in [format!("{of_workspace}?cursor={cursor}"), format!("{flat}&cursor={cursor}")] {
        assert_eq!(listed(&path).await.len(), 1);
    }

    let one = format!("/v1/integrations/{}", ids[0]);
    let shown = owner.get(&one).await.data(200).clone();
    assert_eq!(shown["url"], format!("{}{one}", howdah.url()));
    assert_eq!(shown["scopes"], json!(["workspace:admin", "offline_access"]));
    assert_eq!(shown["client"]["id"], "itgr_cmm3lndn701oo0uefvxzo0ivw");
    assert_eq!(shown["client"]["name"], "Command line");
    assert!(shown["client"]["createdAt"].as_str() <= shown["createdAt"].as_str());
    assert_eq!(shown["createdByUser"]["email"], "ada@example.com");
    assert_eq!(shown["createdByUser"]["displayName"], Value::Null);
    assert!(shown.get("type").is_none());

    // Nobody else's, and none for a token that is limited to a project.
    let project = owner.post("/v1/projects", json!({"createDatabase": false})).await.data(201)["id"].clone();
    let narrow = owner.create_token(json!({"name": "narrow", "projectIds": [project]})).await.person;
    let reader = owner.create_token(json!({"name": "reader", "readOnly": true})).await.person;
    for path in [&of_workspace, &flat] {
        assert_eq!(narrow.get(path).await.data(200), &json!([]));
        assert_eq!(reader.get(path).await.data(200).as_array().unwrap().len(), 3);
    }
    assert_eq!(stranger.get(&flat).await.data(200), &json!([]));
    stranger.get(&of_workspace).await.assert_error(404, "resource-not-found");
    owner.get(&format!("/v1/integrations/{theirs}")).await.assert_error(404, "resource-not-found");
    let of_client = format!("{of_workspace}/cmm3lndn701oo0uefvxzo0ivw");
    for path in [&one, &of_client] {
        for nobody in [&stranger, &narrow] {
            nobody.delete(path).await.assert_error(404, "resource-not-found");
        }
        reader.delete(path).await.assert_error(403, "permission-denied");
    }
    assert_eq!(listed(&flat).await.len(), 3);

    // All of an application's at once, and one alone.
    owner.delete(&of_client).await.data(204);
    owner.delete(&of_client).await.assert_error(404, "resource-not-found");
    assert_eq!(listed(&flat).await, [json!(ids[1])]);
    owner.delete(&format!("/v1/integrations/{}", ids[1].trim_start_matches("itgr_"))).await.data(204);
    owner.delete(&format!("/v1/integrations/{}", ids[1])).await.assert_error(404, "resource-not-found");
    assert_eq!(listed(&flat).await, Vec::<Value>::new());
    assert_eq!(stranger.get(&format!("/v1/integrations/{theirs}")).await.data(200)["id"], theirs);
}

#[tokio::test]
async fn invalid_integration_ids_and_filters_are_rejected() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let workspace = owner.workspace_id().await;
    let missing = owner.get("/v1/integrations").await;
    missing.assert_error(422, "validation-error");
    assert!(missing.body["error"]["message"].as_str().unwrap().contains("workspaceId"), "{}", missing.body);
    for nothing in ["x", "", "wksp_00000000000000000000000000", "%00"] {
        assert_eq!(owner.get(&format!("/v1/integrations?workspaceId={nothing}")).await.data(200), &json!([]));
    }
    for bad in ["limit=0", "limit=1001", "cursor=x", "limit=x"] {
        owner
            .get(&format!("/v1/integrations?workspaceId={workspace}&{bad}"))
            .await
            .assert_error(422, "validation-error");
        owner
            .get(&format!("/v1/workspaces/{workspace}/integrations?{bad}"))
            .await
            .assert_error(422, "validation-error");
    }
    for unknown in
        ["/v1/integrations/nonsense", "/v1/integrations/%00", "/v1/integrations/itgr_00000000000000000000000000"]
    {
        owner.get(unknown).await.assert_error(404, "resource-not-found");
        owner.delete(unknown).await.assert_error(404, "resource-not-found");
    }
    for client in ["nonsense", "UPPER", "%00", "itgr_"] {
        let path = format!("/v1/workspaces/{workspace}/integrations/{client}");
        owner.delete(&path).await.assert_error(404, "resource-not-found");
    }
}
