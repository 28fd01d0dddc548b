//! Service tokens over HTTP: shown once, limited, revoked at once.

use serde_json::{Value, json};

use crate::harness::Howdah;

#[tokio::test]
async fn a_token_is_shown_once_and_its_end_is_at_once() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let tokens = format!("/v1/workspaces/{}/service-tokens", owner.workspace_id().await);
    let token = owner.create_token(json!({"name": "ci"})).await;
    let value = token.made["value"].as_str().unwrap();
    assert_eq!(value.split('.').count(), 3, "a JWT");

    let me = token.person.get("/v1/me").await.data(200).clone();
    assert_eq!(me["user"], Value::Null);
    assert_eq!(me["credential"], json!({"type": "service_token", "id": token.id, "name": "ci"}));

    let listed = owner.get(&tokens).await;
    let newest = listed.data(200)[0].clone();
    assert_eq!((&newest["id"], &newest["name"]), (&json!(token.id), &json!("ci")));
    let hint: Vec<&str> = newest["valueHint"].as_str().unwrap().split('…').collect();
    assert!(value.starts_with(hint[0]) && value.ends_with(hint[1]), "{hint:?}");
    assert_eq!((&newest["readOnly"], &newest["projectIds"]), (&json!(false), &Value::Null));
    assert!(!listed.body.to_string().contains(value));

    let first = owner.get(&format!("{tokens}?limit=1")).await;
    assert_eq!(first.data(200).as_array().unwrap().len(), 1);
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap();
    let second = owner.get(&format!("{tokens}?limit=1&cursor={cursor}")).await;
    assert_eq!(second.data(200)[0]["name"], "Initial token");
    assert_eq!(second.body["pagination"]["hasMore"], false);
    owner.get(&format!("{tokens}?limit=101")).await.assert_error(422, "validation-error");

    owner.delete(&format!("{tokens}/{}", token.id)).await.data(204);
    token.person.get("/v1/me").await.assert_error(401, "authentication-failed");
    owner.delete(&format!("{tokens}/{}", token.id)).await.assert_error(404, "resource-not-found");
}

#[tokio::test]
async fn last_token_with_full_access_cannot_be_revoked() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let tokens = format!("/v1/workspaces/{}/service-tokens", owner.workspace_id().await);
    let own = owner.get("/v1/me").await.data(200)["credential"]["id"].as_str().unwrap().to_owned();
    owner.create_token(json!({"name": "reader", "readOnly": true})).await;
    owner.delete(&format!("{tokens}/{own}")).await.assert_error(409, "client-error");
    let other = owner.create_token(json!({"name": "other"})).await;
    // Two that revoke each other: one of them stays.
    let (one, two) = (format!("{tokens}/{own}"), format!("{tokens}/{}", other.id));
    let both = tokio::join!(other.person.delete(&one), owner.delete(&two));
    assert!([both.0.status.as_u16(), both.1.status.as_u16()].contains(&204));
    let left = [&owner, &other.person].map(|person| person.get("/v1/me"));
    let left = futures_util::future::join_all(left).await;
    assert_eq!(left.iter().filter(|answer| answer.status == 200).count(), 1);

    // Whoever has lost every token makes another one on the machine itself.
    let mut command = crate::harness::binary();
    let issued = command.args(["issue-token", "--data-dir"]).arg(howdah.directory().path()).output().unwrap();
    let value = String::from_utf8(issued.stdout).unwrap().trim().to_owned();
    crate::harness::Person::new(howdah.url(), Some(value)).get("/v1/projects").await.data(200);
}

#[tokio::test]
async fn a_limited_token_does_its_work_and_no_more() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let (mine, other) = (owner.create_project("mine").await, owner.create_project("other").await);
    let worker = owner.create_token(json!({"name": "worker", "projectIds": [mine["id"]]})).await.person;

    let projects = worker.get("/v1/projects").await;
    assert_eq!(projects.data(200).as_array().unwrap().len(), 1);
    assert_eq!(worker.get("/v1/databases").await.data(200).as_array().unwrap().len(), 1);
    assert_eq!(worker.get("/v1/connections").await.data(200).as_array().unwrap().len(), 1);
    let new = json!({"projectId": mine["id"], "name": "more"});
    worker.post("/v1/databases", new).await.data(201);
    let hidden = json!({"projectId": other["id"], "name": "more"});
    worker.post("/v1/databases", hidden).await.assert_error(404, "resource-not-found");

    // It sees no other token, and makes none.
    let tokens = format!("/v1/workspaces/{}/service-tokens", owner.workspace_id().await);
    let seen = worker.get(&tokens).await.data(200).clone();
    assert_eq!(seen.as_array().unwrap().iter().map(|token| &token["name"]).collect::<Vec<_>>(), ["worker"]);
    worker.post(&tokens, json!({"name": "another"})).await.assert_error(403, "permission-denied");

    // Another workspace's token that may not create projects takes none.
    let reader = owner.create_token(json!({"name": "reader", "readOnly": true})).await;
    let (stranger, _) = howdah.stranger_with_token().await;
    let theirs = stranger.create_project("theirs").await;
    let transfer = format!("/v1/projects/{}/transfer", theirs["id"].as_str().unwrap());
    let body = json!({"recipientAccessToken": reader.made["value"]});
    stranger.post(&transfer, body).await.assert_error(400, "client-error");

    for project in [&mine, &other] {
        owner.delete(&format!("/v1/projects/{}", project["id"].as_str().unwrap())).await.data(204);
    }
    stranger.delete(&format!("/v1/projects/{}", theirs["id"].as_str().unwrap())).await.data(204);
}

#[tokio::test]
async fn invalid_limits_of_a_token_are_rejected() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let tokens = format!("/v1/workspaces/{}/service-tokens", owner.workspace_id().await);
    for (body, status, code) in [
        (json!({}), 422, "validation-error"),
        (json!({"name": ""}), 422, "validation-error"),
        (json!({"name": "x", "expiresAt": "tomorrow"}), 422, "validation-error"),
        (json!({"name": "x", "expiresAt": "2001-01-01T00:00:00Z"}), 422, "validation-error"),
        (json!({"name": "x", "projectIds": []}), 422, "validation-error"),
        (json!({"name": "x", "projectIds": ["proj_nothing"]}), 404, "resource-not-found"),
    ] {
        owner.post(&tokens, body).await.assert_error(status, code);
    }
    assert_eq!(owner.get(&tokens).await.data(200).as_array().unwrap().len(), 1, "nothing was made");

    let short = owner.create_token(json!({"name": "short", "expiresAt": "2100-01-01T00:00:00Z"})).await;
    assert_eq!(short.made["expiresAt"], "2100-01-01T00:00:00.000Z");
    short.person.post(&tokens, json!({"name": "longer"})).await.assert_error(403, "permission-denied");
    short.person.post(&tokens, json!({"name": "same", "expiresAt": "2100-01-01T00:00:00Z"})).await.data(201);
}
