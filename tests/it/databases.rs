//! Databases over HTTP: the flat routes, branches and logical ids.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Howdah, ask};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn databases_stand_on_branches() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("placed").await;
    let id = text(&project["id"]);
    let branches = format!("/v1/projects/{id}/branches");
    let main = owner.get(&branches).await.data(200)[0]["id"].clone();
    assert_eq!(project["database"]["branchId"], main);

    // Made with the database, by name, and the second time found.
    let new = json!({"projectId": id, "name": "preview", "branchGitName": "feature", "region": "inherit"});
    let made = owner.post("/v1/databases", new).await.data(201).clone();
    // A busy machine may answer before it is ready; a connect waits for it then.
    assert!(["provisioning", "ready"].contains(&text(&made["status"])), "{made}");
    assert_eq!(made["isDefault"], json!(false));
    assert_eq!((&made["source"], &made["logicalId"]), (&json!({"type": "empty"}), &Value::Null));
    assert_eq!((&made["region"]["id"], &made["project"]["id"]), (&json!("us-east-1"), &json!(id)));
    assert!(made.get("apiKeys").is_none() && made.get("connectionString").is_none());
    assert_eq!(ask(text(&made["connections"][0]["endpoints"]["direct"]["connectionString"]), "SELECT 1"), "1");
    let feature = owner.get(&format!("{branches}?gitName=feature")).await.data(200)[0].clone();
    assert_eq!((&made["branchId"], &feature["role"]), (&feature["id"], &json!("preview")));
    let branch = format!("/v1/branches/{}", text(&feature["id"]));
    owner.delete(&branch).await.assert_error(409, "client-error");

    let path = format!("/v1/databases/{}", text(&made["id"]));
    let moved = owner.patch(&path, json!({"branchId": main, "name": "moved"})).await.data(200).clone();
    assert_eq!((&moved["branchId"], &moved["name"]), (&main, &json!("moved")));
    let connection = format!("/v1/connections/{}", text(&made["connections"][0]["id"]));
    assert_eq!(owner.get(&connection).await.data(200)["database"]["name"], "moved");
    owner.delete(&branch).await.data(204);
    owner.patch(&path, json!({"branchId": feature["id"]})).await.assert_error(404, "resource-not-found");

    // Whoever names a missing branch at the same time gets the same one.
    let default = format!("/v1/databases/{}", text(&project["database"]["id"]));
    let moves =
        join_all([&path, &default, &path, &default].map(|path| owner.patch(path, json!({"branchGitName": "shared"}))));
    for answer in moves.await {
        answer.data(200);
    }
    let shared = owner.get(&branches).await.data(200).clone();
    let shared: Vec<&Value> = shared.as_array().unwrap().iter().filter(|one| one["gitName"] == "shared").collect();
    assert_eq!(shared.len(), 1);
    assert_eq!(owner.get(&path).await.data(200)["branchId"], shared[0]["id"]);

    let listed =
        async |query: String| owner.get(&format!("/v1/databases?{query}")).await.data(200).as_array().unwrap().len();
    assert_eq!(listed("branchGitName=shared".into()).await, 2);
    assert_eq!(listed(format!("branchId={}", text(&shared[0]["id"]))).await, 2);
    assert_eq!(listed(format!("branchId={}", text(&main))).await, 0);
    assert_eq!(listed("branchId=unassigned".into()).await, 0);
    assert_eq!(listed(format!("projectId={id}")).await, 2);
    for nothing in ["projectId=proj_00000000000000000000000000", "projectId=x", "branchGitName=main", "logicalId=x"] {
        assert_eq!(listed(nothing.into()).await, 0, "{nothing}");
    }
    for bad in ["branchGitName=%00", "logicalId=A", "limit=0", "cursor=x"] {
        owner.get(&format!("/v1/databases?{bad}")).await.assert_error(422, "validation-error");
    }
    let first = owner.get("/v1/databases?limit=1").await;
    assert_eq!(first.data(200)[0]["id"], project["database"]["id"]);
    assert!(!first.body.to_string().contains("sk_"));
    let cursor = text(&first.body["pagination"]["nextCursor"]).to_owned();
    assert_eq!(owner.get(&format!("/v1/databases?cursor={cursor}")).await.data(200)[0]["id"], made["id"]);
    assert_eq!(howdah.stranger().await.get("/v1/databases").await.data(200), &json!([]));
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn logical_ids_are_unique_on_a_branch() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("declared").await;
    let (id, first) = (text(&project["id"]), format!("/v1/databases/{}", text(&project["database"]["id"])));
    let declared = owner.post("/v1/databases", json!({"projectId": id, "logicalId": "store"})).await.data(201).clone();
    assert_eq!(declared["logicalId"], "store");
    let second = format!("/v1/databases/{}", text(&declared["id"]));
    let clash = owner.post("/v1/databases", json!({"projectId": id, "logicalId": "store"})).await;
    clash.assert_error(409, "client-error");
    assert!(text(&clash.body["error"]["message"]).contains("logicalId"), "{}", clash.body);
    owner.patch(&first, json!({"logicalId": "store"})).await.assert_error(409, "client-error");
    assert_eq!(owner.get("/v1/databases?logicalId=store").await.data(200)[0]["id"], declared["id"]);

    // The same one on another branch, which then cannot move back.
    owner.patch(&first, json!({"branchGitName": "other"})).await.data(200);
    assert_eq!(owner.patch(&first, json!({"logicalId": "store"})).await.data(200)["logicalId"], "store");
    let back = owner.patch(&first, json!({"branchGitName": "main"})).await;
    back.assert_error(409, "client-error");
    assert!(text(&back.body["error"]["message"]).contains("store"), "{}", back.body);
    assert_eq!(owner.get("/v1/databases?logicalId=store").await.data(200).as_array().unwrap().len(), 2);
    owner.delete(&second).await.data(200);
    owner.patch(&first, json!({"branchGitName": "main"})).await.data(200);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn rejected_creates_leave_nothing() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("refused").await;
    let elsewhere = owner.post("/v1/projects", json!({"createDatabase": false})).await.data(201)["id"].clone();
    let foreign = owner.get(&format!("/v1/projects/{}/branches", text(&elsewhere))).await.data(200)[0]["id"].clone();
    let (id, branch) = (&project["id"], &project["database"]["branchId"]);
    for (body, status, code) in [
        (json!({}), 422, "validation-error"),
        (json!({"projectId": "proj_00000000000000000000000000"}), 404, "resource-not-found"),
        (json!({"projectId": "nonsense"}), 404, "resource-not-found"),
        (json!({"projectId": id, "isDefault": true}), 400, "client-error"),
        (json!({"projectId": id, "branchId": null}), 400, "client-error"),
        (json!({"projectId": id, "branchGitName": null}), 400, "client-error"),
        (json!({"projectId": id, "branchId": branch, "branchGitName": "x"}), 400, "client-error"),
        (json!({"projectId": id, "logicalId": "x", "branchGitName": "x"}), 400, "client-error"),
        (json!({"projectId": id, "branchId": foreign}), 404, "resource-not-found"),
        (json!({"projectId": id, "branchId": "br_x"}), 404, "resource-not-found"),
        (json!({"projectId": id, "branchGitName": ""}), 422, "validation-error"),
        (json!({"projectId": id, "logicalId": "Not Plain"}), 422, "validation-error"),
        (json!({"projectId": id, "name": ""}), 422, "validation-error"),
        (json!({"projectId": id, "region": "mars-1"}), 422, "validation-error"),
        (json!({"projectId": id, "isDefault": "no"}), 422, "validation-error"),
        (
            json!({"projectId": id, "source": {"type": "backup", "databaseId": "db_x", "backupId": "x"}}),
            404,
            "resource-not-found",
        ),
        (json!({"projectId": id, "source": {"type": "backup"}}), 422, "validation-error"),
        (json!({"projectId": id, "source": {"type": "database", "databaseId": "db_x"}}), 404, "resource-not-found"),
        (json!({"projectId": id, "source": {"type": "moon"}}), 422, "validation-error"),
        (json!({"projectId": id, "source": "empty"}), 422, "validation-error"),
    ] {
        let answer = owner.post("/v1/databases", body.clone()).await;
        assert_eq!((answer.status.as_u16(), text(&answer.body["error"]["code"])), (status, code), "{body}");
    }
    let path = format!("/v1/databases/{}", text(&project["database"]["id"]));
    for (body, status) in [
        (json!({"name": ""}), 422),
        (json!({"branchId": null}), 422),
        (json!({"branchGitName": null}), 422),
        (json!({"branchId": branch, "branchGitName": "x"}), 422),
        (json!({"branchId": branch, "logicalId": "x"}), 422),
        (json!({"branchGitName": "x", "logicalId": "x"}), 422),
        (json!({"branchId": foreign}), 404),
    ] {
        assert_eq!(owner.patch(&path, body.clone()).await.status, status, "{body}");
    }
    assert_eq!(owner.patch(&path, json!({})).await.data(200), owner.get(&path).await.data(200));
    assert_eq!(owner.get("/v1/databases").await.data(200).as_array().unwrap().len(), 1);
    let branches = owner.get(&format!("/v1/projects/{}/branches", text(id))).await;
    assert_eq!(branches.data(200).as_array().unwrap().len(), 1, "a request that is refused makes no branch");
    let default = json!({"projectId": elsewhere, "source": {"type": "empty"}, "isDefault": true});
    let default = owner.post("/v1/databases", default).await.data(201).clone();
    assert_eq!(default["name"], default["project"]["name"], "a default database is called like its project");
    let other = owner.post("/v1/databases", json!({"projectId": elsewhere})).await.data(201).clone();
    assert_ne!(other["name"], other["project"]["name"]);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn a_database_names_its_branch_and_its_region_is_this_server() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("branched").await;
    assert_eq!(project["database"]["branchGitName"], "main");
    let body = json!({"projectId": project["id"], "name": "preview", "branchGitName": "feature/one"});
    let created = owner.post("/v1/databases", body).await.data(201).clone();
    let shown = owner.get(&format!("/v1/databases/{}", created["id"].as_str().unwrap())).await.data(200).clone();
    for database in [&created, &shown] {
        assert_eq!(database["branchGitName"], "feature/one");
        assert_eq!(database["region"]["name"], "This server");
    }
    let regions = owner.get("/v1/regions/postgres").await.data(200).clone();
    assert!(regions.as_array().unwrap().iter().all(|region| region["name"] == "This server"), "{regions}");
}
