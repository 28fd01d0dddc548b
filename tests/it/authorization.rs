//! Every operation of the document, for anonymous, stranger and owner. An operation that is
//! missing here fails the test: it belongs in the table before it works.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Howdah;

/// What a stranger gets: a workspace of their own, and nothing of anybody else's.
enum Stranger {
    /// The thing does not exist for them.
    NotFound,
    /// A list or a thing of their own; nothing of the owner's in it.
    OwnOnly(u16),
}

#[tokio::test]
async fn every_operation_checks_who_is_calling() {
    let howdah = Howdah::start().await;
    let (owner, stranger, anonymous) = (howdah.owner(), howdah.stranger().await, howdah.anonymous());
    let project = owner.create_project("secret_project").await;
    let second = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
    let second = owner.post(&second, json!({"name": "secret_second"})).await.data(201).clone();
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let (project_id, default, second_id) = (id(&project), id(&project["database"]), id(&second));
    let connection = id(&second["connections"][0]);

    // In an order in which the owner's calls work one after the other.
    let table: Vec<(Method, &str, String, Option<Value>, Stranger, u16)> = vec![
        (Method::GET, "/v1/workspaces", "/v1/workspaces".into(), None, Stranger::OwnOnly(200), 200),
        (Method::GET, "/v1/regions", "/v1/regions".into(), None, Stranger::OwnOnly(200), 200),
        (Method::GET, "/v1/regions/postgres", "/v1/regions/postgres".into(), None, Stranger::OwnOnly(200), 200),
        (Method::GET, "/v1/projects", "/v1/projects".into(), None, Stranger::OwnOnly(200), 200),
        (
            Method::POST,
            "/v1/projects",
            "/v1/projects".into(),
            Some(json!({"createDatabase": false})),
            Stranger::OwnOnly(201),
            201,
        ),
        (Method::GET, "/v1/projects/{id}", format!("/v1/projects/{project_id}"), None, Stranger::NotFound, 200),
        (
            Method::GET,
            "/v1/projects/{projectId}/databases",
            format!("/v1/projects/{project_id}/databases"),
            None,
            Stranger::NotFound,
            200,
        ),
        (
            Method::POST,
            "/v1/projects/{projectId}/databases",
            format!("/v1/projects/{project_id}/databases"),
            Some(json!({"name": "third"})),
            Stranger::NotFound,
            201,
        ),
        (Method::GET, "/v1/databases/{databaseId}", format!("/v1/databases/{default}"), None, Stranger::NotFound, 200),
        (
            Method::GET,
            "/v1/databases/{databaseId}/connections",
            format!("/v1/databases/{default}/connections"),
            None,
            Stranger::NotFound,
            200,
        ),
        (
            Method::POST,
            "/v1/databases/{databaseId}/connections",
            format!("/v1/databases/{default}/connections"),
            Some(json!({"name": "web"})),
            Stranger::NotFound,
            200,
        ),
        (Method::GET, "/v1/connections/{id}", format!("/v1/connections/{connection}"), None, Stranger::NotFound, 200),
        (Method::DELETE, "/v1/connections/{id}", format!("/v1/connections/{connection}"), None, Stranger::NotFound, 204),
        (
            Method::DELETE,
            "/v1/databases/{databaseId}",
            format!("/v1/databases/{second_id}"),
            None,
            Stranger::NotFound,
            200,
        ),
        (Method::DELETE, "/v1/projects/{id}", format!("/v1/projects/{project_id}"), None, Stranger::NotFound, 204),
    ];

    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let declared: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())))
        .collect();
    let tested = table.iter().map(|(method, path, ..)| (method.to_string(), (*path).to_owned())).collect();
    assert_eq!(declared, tested, "every operation of openapi.json stands in this table, and no other");

    for (method, template, path, body, _, _) in &table {
        let answer = anonymous.send(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, 401, "{method} {template} for anonymous: {}", answer.body);
    }
    for (method, template, path, body, expected, _) in &table {
        let answer = stranger.send(method.clone(), path, body.clone()).await;
        match expected {
            Stranger::NotFound => answer.assert_error(404, "resource-not-found"),
            Stranger::OwnOnly(status) => {
                answer.data(*status);
                assert!(!answer.body.to_string().contains("secret_"), "{method} {template}: {}", answer.body);
            }
        }
    }
    for (method, template, path, body, _, status) in &table {
        let answer = owner.send(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, *status, "{method} {template} for the owner: {}", answer.body);
    }
    howdah.assert_tidy().await;
}
