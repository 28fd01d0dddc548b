//! The audit log: every change, allowed or refused, and its stream.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Howdah, Person, answer, eventually};

async fn log(person: &Person, query: &str) -> Vec<Value> {
    let path = format!("/v1/workspaces/{}/audit-log{query}", person.workspace_id().await);
    person.get(&path).await.data(200).as_array().unwrap().clone()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_change_is_in_the_log_with_who_and_what_and_without_secrets() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let request = owner.request(Method::POST, "/v1/projects").header("x-request-id", "known-by-us");
    let made = answer(&Method::POST, "/v1/projects", request.json(&json!({"name": "p"})).send().await.unwrap()).await;
    let project = made.data(201)["id"].as_str().unwrap().to_owned();
    let database = made.body["data"]["database"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/projects/{project}");
    owner.patch(&path, json!({"name": "renamed", "settings": {"secret": "sk_hidden"}})).await.data(200);
    owner.patch(&format!("/v1/databases/{database}"), json!({"name": "d"})).await.data(200);
    let connections = format!("/v1/databases/{database}/connections");
    let connection = owner.post(&connections, json!({"name": "web"})).await.data(200)["id"].clone();
    let connection = format!("/v1/connections/{}", connection.as_str().unwrap());
    owner.post(&format!("{connection}/rotate"), json!({})).await.data(200);
    owner.delete(&connection).await.data(204);
    let branch = owner.post(&format!("{path}/branches"), json!({"gitName": "b"})).await.data(201)["id"].clone();
    owner.delete(&format!("/v1/branches/{}", branch.as_str().unwrap())).await.data(204);
    let token = owner.create_token(json!({"name": "ci", "readOnly": true})).await;
    let tokens = format!("/v1/workspaces/{}/service-tokens", owner.workspace_id().await);
    owner.delete(&format!("{tokens}/{}", token.id)).await.data(204);
    owner.delete(&path).await.data(204);

    let entries = log(&owner, "").await;
    assert_eq!(
        actions(&entries),
        [
            "delete_project",
            "delete_service_token",
            "create_service_token",
            "delete_branch",
            "create_branch",
            "delete_connection",
            "rotate_connection",
            "create_connection",
            "update_database",
            "update_project",
            "create_database",
            "create_project"
        ]
    );
    let (newest, first) = (&entries[0], &entries[11]);
    assert_eq!((&first["requestId"], &first["address"]), (&json!("known-by-us"), &json!("127.0.0.1")));
    assert_eq!((&first["actor"]["name"], &first["outcome"]), (&json!("Initial token"), &json!("allowed")));
    assert_eq!(first["resource"], json!({"type": "project", "id": project, "name": "p"}));
    assert_eq!((&first["before"], &first["after"]["name"]), (&Value::Null, &json!("p")));
    assert_eq!((&newest["before"]["name"], &newest["after"]), (&json!("renamed"), &Value::Null));
    let update = &entries[9];
    assert_eq!((&update["before"]["name"], &update["after"]["name"]), (&json!("p"), &json!("renamed")));
    let whole = serde_json::to_string(&entries).unwrap();
    for secret in ["sk_", "postgres://", token.made["value"].as_str().unwrap(), "hidden"] {
        assert!(!whole.contains(secret), "{secret} is in the log: {whole}");
    }
    let shown = token.made["valueHint"].as_str().unwrap();
    assert!(whole.contains(shown), "a hint tells tokens apart");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn what_was_refused_is_in_the_log_too() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("p").await;
    let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
    let reader = owner.create_token(json!({"name": "reader", "readOnly": true})).await;
    reader.person.delete(&path).await.assert_error(403, "permission-denied");
    owner.post("/v1/projects", json!({"region": "mars"})).await.assert_error(422, "validation-error");
    let (stranger, token) = howdah.stranger_with_token().await;
    stranger.delete(&path).await.assert_error(404, "resource-not-found");
    reader.person.get("/v1/projects/proj_nothing").await.assert_error(404, "resource-not-found");

    let refused = log(&owner, "?outcome=refused").await;
    assert_eq!(actions(&refused), ["create_project", "delete_project"]);
    assert_eq!((&refused[0]["status"], &refused[1]["status"]), (&json!(422), &json!(403)));
    assert_eq!(refused[1]["reason"], "This token is read-only.");
    assert_eq!(refused[1]["actor"]["id"], reader.id);
    assert_eq!(refused[1]["resource"], json!({"type": "project", "id": project["id"], "name": null}));
    let about = format!("?outcome=refused&projectId={}", project["id"].as_str().unwrap());
    assert_eq!(actions(&log(&owner, &about).await), ["delete_project"]);
    assert_eq!(actions(&log(&stranger, "").await), ["delete_project"], "in the log of the one who tried");

    // A transfer is in both logs.
    let body = json!({"recipientAccessToken": token});
    owner.post(&format!("{path}/transfer"), body).await.data(200);
    for person in [&owner, &stranger] {
        let entries = log(person, "?action=transfer_project").await;
        assert_eq!(entries.len(), 1);
        assert!(!entries[0].to_string().contains(&token));
        assert_ne!(entries[0]["before"]["workspaceId"], entries[0]["after"]["workspaceId"]);
        let own = person.get("/v1/me").await.data(200)["credential"]["id"].clone();
        assert_eq!(entries[0]["actor"]["id"], own, "each side sees its own token");
    }
    stranger.delete(&path).await.data(204);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn the_log_has_filters_and_pages_and_limits() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let new = |name: &str| json!({"name": name, "createDatabase": false});
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        ids.push(owner.post("/v1/projects", new(name)).await.data(201)["id"].as_str().unwrap().to_owned());
    }
    let narrow = owner.create_token(json!({"name": "narrow", "projectIds": [ids[1]]})).await;
    narrow.person.patch(&format!("/v1/projects/{}", ids[1]), json!({"name": "d"})).await.data(200);

    assert_eq!(log(&owner, &format!("?projectId={}", ids[0])).await.len(), 1);
    assert_eq!(actions(&log(&owner, &format!("?tokenId={}", narrow.id)).await), ["update_project"]);
    assert_eq!(actions(&log(&owner, &format!("?resourceId={}", ids[2])).await), ["create_project"]);
    let entries = log(&owner, "?action=create_project").await;
    assert_eq!(entries.len(), 3);
    let (oldest, newest) = (entries[2]["at"].as_str().unwrap(), entries[0]["at"].as_str().unwrap());
    assert!(log(&owner, &format!("?until={oldest}")).await.is_empty());
    assert!(!log(&owner, &format!("?since={newest}")).await.is_empty());
    // A token that is limited to a project sees what is about it.
    let seen = log(&narrow.person, "").await;
    assert_eq!(actions(&seen), ["update_project", "create_project"]);

    let path = format!("/v1/workspaces/{}/audit-log", owner.workspace_id().await);
    let first = owner.get(&format!("{path}?limit=2")).await;
    assert_eq!(first.data(200).as_array().unwrap().len(), 2);
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap();
    let rest = owner.get(&format!("{path}?cursor={cursor}")).await;
    assert_eq!(rest.data(200).as_array().unwrap().len(), 3);
    for bad in ["outcome=maybe", "since=yesterday", "until=x", "cursor=x", "limit=0"] {
        owner.get(&format!("{path}?{bad}")).await.assert_error(422, "validation-error");
    }
    assert_eq!(owner.get(&format!("{path}?action=%00")).await.data(200), &json!([]));
}

#[tokio::test]
async fn the_log_is_streamed_to_a_file_whatever_was_recorded_before() {
    let mut howdah = Howdah::start().await;
    howdah.owner().post("/v1/projects", json!({"name": "before", "createDatabase": false})).await.data(201);
    assert!(howdah.stop().await.success());
    let file = howdah.directory().path().with_extension("audit.jsonl");
    howdah.add_arguments(&["--audit-stream", file.to_str().unwrap()]);
    howdah.launch().await;
    let owner = howdah.owner();
    owner.post("/v1/projects", json!({"name": "after", "createDatabase": false})).await.data(201);
    owner.post("/v1/projects", json!({"region": "mars"})).await.assert_error(422, "validation-error");
    let lines = eventually("three lines", async || {
        let text = std::fs::read_to_string(&file).ok()?;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    assert_eq!(actions(&lines), ["create_project", "create_project", "create_project"]);
    assert_eq!(lines[0]["after"]["name"], "before");
    assert_eq!((&lines[1]["after"]["name"], &lines[2]["outcome"]), (&json!("after"), &json!("refused")));
    let listed = log(&owner, "").await;
    assert_eq!(listed[0]["id"], lines[2]["id"]);
    assert!(howdah.stop().await.success());
    std::fs::remove_file(&file).unwrap();
}
