//! The audit log: every change, allowed or refused, and its stream.

use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, PASSWORD};
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
async fn rejected_changes_are_in_the_audit_log() {
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
    // By a part of a name, in letters of either case; what is no part of one, whatever it looks like, is nobody's.
    assert_eq!(actions(&log(&owner, "?actorName=NARR").await), ["update_project"]);
    assert_eq!(log(&owner, "?actorName=initial%20tok&action=create_project").await.len(), 3);
    for nobody in ["%25", "_", "narrow%0AInitial", "%00", ".*"] {
        assert!(log(&owner, &format!("?actorName={nobody}")).await.is_empty(), "{nobody}");
    }
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
async fn action_has_the_same_name_on_every_route() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let made = owner.create_project("p").await;
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let (project, database) = (id(&made), id(&made["database"]));
    for (route, new, action) in [
        ("/v1/databases".to_owned(), json!({"projectId": project, "name": ""}), "create_database"),
        (format!("/v1/projects/{project}/databases"), json!({"name": ""}), "create_database"),
        ("/v1/connections".to_owned(), json!({"databaseId": database, "name": ""}), "create_connection"),
        (format!("/v1/databases/{database}/connections"), json!({"name": ""}), "create_connection"),
    ] {
        owner.post(&route, new).await.assert_error(422, "validation-error");
        let refused = log(&owner, "?outcome=refused").await;
        assert_eq!(refused[0]["action"], action, "{route}");
    }
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

#[tokio::test]
async fn rejected_console_changes_are_in_the_audit_log() {
    let howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut vera = ada.invite(&howdah, &workspace, "vera", "viewer").await;
    let owner = howdah.owner();
    let project = owner.post("/v1/projects", json!({"name": "p", "createDatabase": false})).await.data(201).clone();
    let id = project["id"].as_str().unwrap();
    let page = format!("{workspace}/projects/{}", id.trim_start_matches("proj_"));

    vera.get(&page).await;
    vera.submit(&format!("{page}/delete"), &[("confirm", "p")]).await.assert_says(403, "Permission denied");
    ada.get(&format!("{page}/settings")).await;
    ada.submit(&format!("{page}/settings"), &[("name", "")]).await.assert_says(422, "id=\"name-problem\"");
    ada.submit(&format!("{page}/delete"), &[("confirm", "q")]).await.assert_says(422, "does not match");
    owner.patch(&format!("/v1/projects/{id}"), json!({"deleteProtection": true})).await.data(200);
    ada.submit(&format!("{page}/delete"), &[("confirm", "p")]).await.assert_says(422, "elete protection");
    ada.submit(&format!("{workspace}/projects/nothing/delete"), &[("confirm", "p")])
        .await
        .assert_says(404, "Page not found");
    // What is no change, or goes nowhere, is not in it.
    vera.get(&format!("{page}/settings")).await.assert_says(403, "Permission denied");
    ada.submit(&format!("{workspace}/nothing"), &[]).await.assert_says(404, "Page not found");
    ada.get(&format!("{workspace}/audit?since=x")).await.assert_says(200, "since-problem");

    let refused = log(&owner, "?outcome=refused").await;
    let told = |entry: &Value| (entry["action"].clone(), entry["status"].clone(), entry["actor"]["name"].clone());
    let expected = [
        ("delete_project", 404, "ada@example.com"),
        ("delete_project", 422, "ada@example.com"),
        ("delete_project", 422, "ada@example.com"),
        ("update_project", 422, "ada@example.com"),
        ("delete_project", 403, "vera@example.com"),
    ];
    let expected = expected.map(|(action, status, name)| (json!(action), json!(status), json!(name)));
    assert_eq!(refused.iter().map(told).collect::<Vec<_>>(), expected);
    for (entry, words) in refused.iter().zip(["proj", "elete protection is on", "does not match", "name", "viewer"]) {
        assert!(entry["reason"].as_str().unwrap().contains(words), "{words}: {entry}");
    }
    assert_eq!(refused[4]["resource"], json!({"type": "project", "id": id, "name": null}));
    assert_eq!((&refused[4]["projectId"], &refused[4]["address"]), (&json!(id), &json!("127.0.0.1")));
}

#[tokio::test]
async fn changes_of_accounts_are_in_the_audit_log_of_the_installation() {
    let mut howdah = Howdah::start().await;
    let mut ada = Browser::administrator(&howdah).await;
    let workspace = ada.workspace().await;
    let mut vera = ada.invite(&howdah, &workspace, "vera", "owner").await;
    let people = ada.get("/console/people").await;
    let id = people.text.rsplit_once("href=\"/console/people/").unwrap().1.split('"').next().unwrap().to_owned();
    let person = format!("/console/people/{id}");

    // Who may not, and what cannot be.
    vera.get("/console/account").await;
    vera.submit(&format!("{person}/administrator"), &[("administrator", "on")]).await.assert_says(403, "Only admin");
    vera.get("/console/audit").await.assert_says(403, "Only administrators");
    vera.submit(
        "/console/account/password",
        &[("current", "typed-in-the-wrong-field"), ("password", "x"), ("again", "x")],
    )
    .await
    .assert_says(422, "Wrong password");
    let own = people.between("href=\"/console/people/", "\"");
    ada.submit(&format!("/console/people/{own}/administrator"), &[]).await.assert_says(422, "last administrator");

    // What is done.
    let page = ada.submit(&format!("{person}/reset"), &[]).await;
    let link = page.between("/console/reset/", "<");
    let new = [("password", "another-fine-tusk-7"), ("again", "another-fine-tusk-7")];
    vera.get(&format!("/console/reset/{link}")).await;
    assert_eq!(vera.submit(&format!("/console/reset/{link}"), &new).await.location(), "/console/sign-in");
    ada.get(&person).await;
    ada.submit(&format!("{person}/administrator"), &[("administrator", "on")]).await.location();
    ada.submit(&format!("{person}/disable"), &[("confirm", "vera@example.com")]).await.location();
    ada.submit(&format!("{person}/enable"), &[]).await.location();
    ada.get("/console/account").await;
    let changed = [("current", PASSWORD), ("password", "yet-another-tusk-8"), ("again", "yet-another-tusk-8")];
    ada.submit("/console/account/password", &changed).await.location();
    let mut browser = Browser::new(&howdah);
    eventually("too many attempts", async || {
        browser.get("/console/sign-in").await;
        let page = browser.submit("/console/sign-in", &[("email", "vera@example.com"), ("password", PASSWORD)]).await;
        (page.status == 429).then_some(())
    })
    .await;
    browser.submit("/console/sign-in", &[("email", "vera@example.com"), ("password", PASSWORD)]).await;
    for _ in 0..12 {
        browser.get("/console/sign-in").await;
        browser.submit("/console/sign-in", &[("email", "password-as-address"), ("password", PASSWORD)]).await;
    }

    // The page for administrators, and the stream.
    let page = eventually("the limit to be told", async || {
        let page = ada.get("/console/audit").await;
        page.text.contains("Sign in").then_some(page)
    })
    .await;
    for words in ["Create account", "Make reset link", "Reset password", "Disable account", "Enable account"] {
        page.assert_says(200, words);
    }
    assert_eq!(ada.get("/console/audit?action=sign+in").await.text.matches("<tr>").count(), 2, "the head and one");
    let seen = ada.get("/console/audit?actor=vera&outcome=refused").await;
    assert!(seen.text.contains("Set administrator") && seen.text.contains("Change password"), "{}", seen.text);
    assert!(!seen.text.contains("ada@example.com</bdi>"), "{}", seen.text);
    // None of it is in a workspace's log.
    let logged = log(&howdah.owner(), "").await;
    assert!(actions(&logged).iter().all(|action| !action.contains("account") && !action.contains("password")));

    assert!(howdah.stop().await.success());
    let file = howdah.directory().path().with_extension("audit.jsonl");
    howdah.add_arguments(&["--audit-stream", file.to_str().unwrap()]);
    howdah.launch().await;
    let text = eventually("the stream", async || {
        let text = std::fs::read_to_string(&file).ok()?;
        text.contains("sign_in").then_some(text)
    })
    .await;
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entries: Vec<&Value> = entries.iter().filter(|entry| entry["workspaceId"].is_null()).collect();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry["action"].as_str().unwrap(),
                entry["outcome"].as_str().unwrap(),
                entry["actor"]["name"].as_str().unwrap(),
            )
        })
        .collect();
    let (ada, vera) = ("ada@example.com", "vera@example.com");
    assert_eq!(
        told,
        [
            ("create_account", "allowed", ada),
            ("create_account", "allowed", vera),
            ("set_administrator", "refused", vera),
            ("change_password", "refused", vera),
            ("set_administrator", "refused", ada),
            ("make_reset_link", "allowed", ada),
            ("reset_password", "allowed", vera),
            ("set_administrator", "allowed", ada),
            ("disable_account", "allowed", ada),
            ("enable_account", "allowed", ada),
            ("change_password", "allowed", ada),
            ("sign_in", "refused", "somebody"),
        ]
    );
    let limit = entries.last().unwrap();
    assert_eq!((&limit["actor"]["type"], &limit["actor"]["id"]), (&json!("anonymous"), &Value::Null));
    assert_eq!((&limit["status"], &limit["resource"]["name"]), (&json!(429), &json!(vera)));
    assert_eq!(entries[7]["before"], json!({"isAdministrator": false}));
    for secret in [PASSWORD, "typed-in", "another", &link, "password-as-address", "$argon2"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    assert!(howdah.stop().await.success());
    std::fs::remove_file(&file).unwrap();
}
