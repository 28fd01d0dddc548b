//! Branches over HTTP.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Howdah, Person};

async fn empty_project(owner: &Person, name: &str) -> String {
    let project = owner.post("/v1/projects", json!({"name": name, "createDatabase": false})).await.data(201).clone();
    text(&project["id"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn a_project_has_one_default_branch_from_the_beginning() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = empty_project(&owner, "branched").await;
    let branches = format!("/v1/projects/{project}/branches");
    let main = owner.get(&branches).await.data(200)[0].clone();
    assert_eq!(owner.get(&branches).await.data(200).as_array().unwrap().len(), 1);
    assert_eq!(
        (&main["gitName"], &main["isDefault"], &main["role"]),
        (&json!("main"), &json!(true), &json!("production"))
    );
    assert_eq!((&main["type"], &main["project"]["id"]), (&json!("branch"), &json!(project)));
    assert!(text(&main["id"]).starts_with("br_"));
    let path = |branch: &Value| format!("/v1/branches/{}", text(&branch["id"]));
    assert_eq!(owner.get(&path(&main)).await.data(200), &main);
    assert_eq!(owner.get(&path(&main).replace("br_", "")).await.data(200), &main);

    // Another one takes the default flag and nothing else.
    let feature = owner.post(&branches, json!({"gitName": "feature/one"})).await.data(201).clone();
    assert_eq!((&feature["isDefault"], &feature["role"]), (&json!(false), &json!("preview")));
    owner.post(&branches, json!({"gitName": "feature/one"})).await.assert_error(409, "client-error");
    let changed = owner.patch(&path(&feature), json!({"isDefault": true})).await.data(200).clone();
    assert_eq!((&changed["isDefault"], &changed["role"]), (&json!(true), &json!("preview")));
    let main = owner.get(&path(&main)).await.data(200).clone();
    assert_eq!((&main["isDefault"], &main["role"]), (&json!(false), &json!("production")));
    assert_eq!(owner.patch(&path(&feature), json!({})).await.data(200), &changed);
    assert_eq!(owner.patch(&path(&feature), json!({"isDefault": null})).await.data(200), &changed);
    assert_eq!(owner.patch(&path(&main), json!({"isDefault": false})).await.data(200), &main);
    let third = owner.post(&branches, json!({"gitName": "third", "isDefault": true})).await.data(201).clone();
    assert_eq!((&third["isDefault"], &third["role"]), (&json!(true), &json!("preview")));

    for bad in [
        json!({"isDefault": false}),
        json!({"gitName": "renamed"}),
        json!({"role": "production"}),
        json!({"isDefault": true, "other": 1}),
        json!({"isDefault": "yes"}),
    ] {
        owner.patch(&path(&third), bad).await.assert_error(422, "validation-error");
    }
    let long = "x".repeat(257);
    for bad in [
        json!({}),
        json!({"gitName": ""}),
        json!({"gitName": null}),
        json!({"gitName": long}),
        json!({"gitName": "a\u{0}"}),
        json!({"gitName": "ok", "isDefault": null}),
        json!({"gitName": "ok", "role": "production"}),
    ] {
        let answer = owner.post(&branches, bad).await;
        answer.assert_error(422, "validation-error");
    }

    // The default one and the one for production stay; a deleted name is free.
    for kept in [&third, &main] {
        owner.delete(&path(kept)).await.assert_error(422, "validation-error");
    }
    owner.delete(&path(&feature)).await.data(204);
    owner.get(&path(&feature)).await.assert_error(404, "resource-not-found");
    owner.delete(&path(&feature)).await.assert_error(404, "resource-not-found");
    owner.patch(&path(&feature), json!({"isDefault": true})).await.assert_error(404, "resource-not-found");
    owner.post(&branches, json!({"gitName": "feature/one"})).await.data(201);

    owner.delete(&format!("/v1/projects/{project}")).await.data(204);
    owner.get(&path(&main)).await.assert_error(404, "resource-not-found");
    owner.get(&branches).await.assert_error(404, "resource-not-found");
}

#[tokio::test]
async fn branches_are_listed_in_pages_and_by_name() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let branches = format!("/v1/projects/{}/branches", empty_project(&owner, "listed").await);
    for name in ["b", "a", "Ab", "c%"] {
        owner.post(&branches, json!({"gitName": name})).await.data(201);
    }
    let names = async |query: &str| -> Vec<String> {
        let answer = owner.get(&format!("{branches}{query}")).await;
        answer.data(200).as_array().unwrap().iter().map(|branch| text(&branch["gitName"]).to_owned()).collect()
    };
    assert_eq!(names("").await, ["main", "b", "a", "Ab", "c%"]);
    assert_eq!(names("?gitName=a").await, ["a"]);
    assert_eq!(names("?gitNameContains=a").await, ["main", "a"]);
    assert_eq!(names("?gitNameContains=A").await, ["Ab"]);
    assert_eq!(names("?gitNameContains=%25").await, ["c%"]);
    assert!(names("?gitName=nothing").await.is_empty());
    for bad in ["gitName=a&gitNameContains=a", "gitName=%00", "gitNameContains=", "limit=0", "cursor=x"] {
        owner.get(&format!("{branches}?{bad}")).await.assert_error(422, "validation-error");
    }
    let first = owner.get(&format!("{branches}?limit=2")).await;
    let cursor = text(&first.body["pagination"]["nextCursor"]).to_owned();
    owner.delete(&format!("/v1/branches/{}", text(&first.data(200)[1]["id"]))).await.data(204);
    assert_eq!(names(&format!("?limit=2&cursor={cursor}")).await, ["a", "Ab"]);
}

#[tokio::test]
async fn a_project_never_has_two_default_branches_or_none() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let branches = format!("/v1/projects/{}/branches", empty_project(&owner, "contended").await);
    let names = ["a", "b", "c", "d", "e", "f"];
    let made = join_all(names.map(|name| owner.post(&branches, json!({"gitName": name, "isDefault": true})))).await;
    for answer in &made {
        answer.data(201);
    }
    let swapped = join_all(made.iter().map(|answer| {
        let path = format!("/v1/branches/{}", text(&answer.data(201)["id"]));
        let owner = owner.clone();
        async move { owner.patch(&path, json!({"isDefault": true})).await }
    }));
    for answer in swapped.await {
        answer.data(200);
    }
    let same = join_all([0; 6].map(|_| owner.post(&branches, json!({"gitName": "same"})))).await;
    assert_eq!(same.iter().filter(|answer| answer.status == 201).count(), 1);
    assert_eq!(same.iter().filter(|answer| answer.status == 409).count(), 5);
    let listed = owner.get(&branches).await.data(200).clone();
    assert_eq!(listed.as_array().unwrap().len(), 8);
    assert_eq!(listed.as_array().unwrap().iter().filter(|branch| branch["isDefault"] == true).count(), 1);
}
