//! Every operation of the document, for everybody who may call. An operation that is
//! missing here fails the test: it belongs in the table before it works.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Howdah;
use crate::integrations::consent;

/// A call of an operation, and what each caller gets.
struct Call {
    method: Method,
    /// The path in the document.
    operation: &'static str,
    path: String,
    body: Option<Value>,
    stranger: Stranger,
    /// The status for the owner.
    owner: u16,
}

impl Call {
    /// What a token of the owner's workspace gets that is limited to a project with nothing in it.
    fn narrow(&self) -> u16 {
        match (self.operation, self.method.as_str()) {
            ("/v1/workspaces/{id}", "PATCH" | "DELETE") | ("/v1/workspaces/{id}/limits", _) => 403,
            // It sees its workspace, but adds nothing to it.
            (
                "/v1/workspaces/{id}"
                | "/v1/workspaces/{id}/subscription"
                | "/v1/workspaces/{id}/audit-log"
                | "/v1/workspaces/{workspaceId}/integrations",
                _,
            ) => 200,
            ("/v1/projects" | "/v1/workspaces/{workspaceId}/service-tokens", "POST") => 403,
            _ => match self.stranger {
                Stranger::NotFound => 404,
                Stranger::Forbidden => 403,
                Stranger::OwnOnly(status) => status,
            },
        }
    }
}

/// What a stranger gets: a workspace of their own, and nothing of anybody else's.
enum Stranger {
    /// The thing does not exist for them.
    NotFound,
    /// Nobody may, with a service token.
    Forbidden,
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
    let operation_id = second["operationId"].as_str().unwrap().to_owned();
    let workspace_id = id(&owner.get("/v1/workspaces").await.data(200)[0]);
    let tokens = format!("/v1/workspaces/{workspace_id}/service-tokens");
    let empty = owner.post("/v1/projects", json!({"name": "empty", "createDatabase": false})).await.data(201).clone();
    let reader = owner.create_token(json!({"name": "reader", "readOnly": true})).await;
    let narrow = owner.create_token(json!({"name": "narrow", "projectIds": [empty["id"]]})).await;
    let full = owner.create_token(json!({"name": "secret_full"})).await;
    let revoked = owner.create_token(json!({"name": "secret_revoked"})).await;
    owner.delete(&format!("{tokens}/{}", revoked.id)).await.data(204);
    let token = owner.create_token(json!({"name": "secret_token"})).await;
    let integration = consent(&howdah, &workspace_id, "secretone").await;
    consent(&howdah, &workspace_id, "secrettwo").await;

    let call = |method, operation, path: String, body, stranger, owner| Call {
        method,
        operation,
        path,
        body,
        stranger,
        owner,
    };
    let get = |operation: &'static str, path: String, stranger| call(Method::GET, operation, path, None, stranger, 200);
    let post = |operation: &'static str, path: String, body, stranger, status| {
        call(Method::POST, operation, path, Some(body), stranger, status)
    };
    let patch = |operation: &'static str, path: String, body, status| {
        call(Method::PATCH, operation, path, Some(body), Stranger::NotFound, status)
    };
    let delete = |operation: &'static str, path: String, status| {
        call(Method::DELETE, operation, path, None, Stranger::NotFound, status)
    };
    let (project, database) = (format!("/v1/projects/{project_id}"), format!("/v1/databases/{default}"));
    let (second, connection) = (format!("/v1/databases/{second_id}"), format!("/v1/connections/{connection}"));
    let workspace = format!("/v1/workspaces/{workspace_id}");
    let databases = format!("{project}/databases");
    let (connections, used) = (format!("{database}/connections"), format!("{database}/usage"));
    let to_owner = json!({"recipientAccessToken": howdah.token()});
    let of_owner = json!({"projectId": project_id, "name": "secret_flat"});
    let (branches, of_project_branches) = (format!("{project}/branches"), "/v1/projects/{projectId}/branches");
    let branch = owner.post(&branches, json!({"gitName": "secret_branch"})).await.data(201).clone();
    let branch = format!("/v1/branches/{}", id(&branch));
    let none = json!({"createDatabase": false});
    let of_default = json!({"databaseId": default, "name": "job"});
    let of_project = "/v1/projects/{projectId}/databases";
    let of_workspace_tokens = "/v1/workspaces/{workspaceId}/service-tokens";
    let of_database = "/v1/databases/{databaseId}/connections";
    let operation = format!("/v1/operations/{operation_id}");
    let spare = owner.create_project("secret_spare").await;
    let spare = format!("/v1/databases/{}", id(&spare["database"]));
    let (restore_backup, to_copy) =
        ("/v1/databases/{databaseId}/backups/{backupId}/restore", json!({"targetDatabaseName": "secret_copy"}));
    let restore = "/v1/databases/{targetDatabaseId}/restore";
    let from_backup =
        json!({"source": {"type": "backup", "databaseId": default, "backupId": "bak_00000000000000000000000000"}});
    let (cancel, retry) = ("/v1/operations/{operationId}/cancel", "/v1/operations/{operationId}/retry");
    let of_client = "/v1/workspaces/{workspaceId}/integrations/{clientId}";
    // In an order in which the owner's calls work one after the other.
    let table = vec![
        get("/v1/workspaces", "/v1/workspaces".into(), Stranger::OwnOnly(200)),
        post("/v1/workspaces", "/v1/workspaces".into(), json!({"displayName": "mine"}), Stranger::Forbidden, 403),
        get("/v1/workspaces/{id}", workspace.clone(), Stranger::NotFound),
        patch("/v1/workspaces/{id}", workspace.clone(), json!({"backupRetentionDays": 8}), 200),
        // A service token is nobody's.
        delete("/v1/workspaces/{id}", workspace.clone(), 403),
        get("/v1/workspaces/{id}/subscription", format!("{workspace}/subscription"), Stranger::NotFound),
        get("/v1/workspaces/{id}/limits", format!("{workspace}/limits"), Stranger::NotFound),
        get("/v1/workspaces/{id}/audit-log", format!("{workspace}/audit-log"), Stranger::NotFound),
        get("/v1/operations", "/v1/operations".into(), Stranger::OwnOnly(200)),
        get("/v1/operations/{operationId}", operation.clone(), Stranger::NotFound),
        // One that has ended well: a conflict, and so the owner's next calls find it as it is.
        post(cancel, format!("{operation}/cancel"), json!({}), Stranger::NotFound, 409),
        post(retry, format!("{operation}/retry"), json!({}), Stranger::NotFound, 409),
        get("/v1/databases/{databaseId}/backups", format!("{database}/backups"), Stranger::NotFound),
        // Something that is not there: the owner's next calls find the database as it is.
        post(
            restore_backup,
            format!("{database}/backups/bak_00000000000000000000000000/restore"),
            to_copy,
            Stranger::NotFound,
            404,
        ),
        post(
            "/v1/databases/{databaseId}/backups/{backupId}/verify",
            format!("{database}/backups/bak_00000000000000000000000000/verify"),
            json!({}),
            Stranger::NotFound,
            404,
        ),
        post(restore, format!("{database}/restore"), from_backup, Stranger::NotFound, 404),
        get("/v1/projects/{projectId}/deleted-databases", format!("{project}/deleted-databases"), Stranger::NotFound),
        post("/v1/databases/{databaseId}/backups", format!("{spare}/backups"), json!({}), Stranger::NotFound, 202),
        get("/v1/databases/{databaseId}/operations", format!("{database}/operations"), Stranger::NotFound),
        get("/v1/me", "/v1/me".into(), Stranger::OwnOnly(200)),
        get(of_workspace_tokens, tokens.clone(), Stranger::OwnOnly(200)),
        post(of_workspace_tokens, tokens.clone(), json!({"name": "secret_later"}), Stranger::NotFound, 201),
        delete("/v1/workspaces/{workspaceId}/service-tokens/{serviceTokenId}", format!("{tokens}/{}", token.id), 204),
        get("/v1/integrations", format!("/v1/integrations?workspaceId={workspace_id}"), Stranger::OwnOnly(200)),
        get("/v1/integrations/{id}", format!("/v1/integrations/{integration}"), Stranger::NotFound),
        delete("/v1/integrations/{id}", format!("/v1/integrations/{integration}"), 204),
        get("/v1/workspaces/{workspaceId}/integrations", format!("{workspace}/integrations"), Stranger::NotFound),
        delete(of_client, format!("{workspace}/integrations/secrettwo"), 204),
        get("/v1/regions", "/v1/regions".into(), Stranger::OwnOnly(200)),
        get("/v1/regions/accelerate", "/v1/regions/accelerate".into(), Stranger::OwnOnly(200)),
        get("/v1/regions/postgres", "/v1/regions/postgres".into(), Stranger::OwnOnly(200)),
        get("/v1/projects", "/v1/projects".into(), Stranger::OwnOnly(200)),
        post("/v1/projects", "/v1/projects".into(), none, Stranger::OwnOnly(201), 201),
        get("/v1/projects/{id}", project.clone(), Stranger::NotFound),
        patch("/v1/projects/{id}", project.clone(), json!({"name": "secret_renamed"}), 200),
        // To oneself: a conflict, and so the owner still has it for the next calls.
        post("/v1/projects/{id}/transfer", format!("{project}/transfer"), to_owner, Stranger::NotFound, 409),
        get(of_project, databases.clone(), Stranger::NotFound),
        post(of_project, databases, json!({"name": "third"}), Stranger::NotFound, 201),
        get(of_project_branches, branches.clone(), Stranger::NotFound),
        post(of_project_branches, branches, json!({"gitName": "secret_later"}), Stranger::NotFound, 201),
        get("/v1/branches/{branchId}", branch.clone(), Stranger::NotFound),
        patch("/v1/branches/{branchId}", branch.clone(), json!({"isDefault": false}), 200),
        delete("/v1/branches/{branchId}", branch, 204),
        get("/v1/databases", "/v1/databases".into(), Stranger::OwnOnly(200)),
        post("/v1/databases", "/v1/databases".into(), of_owner, Stranger::NotFound, 201),
        get("/v1/databases/{databaseId}", database.clone(), Stranger::NotFound),
        patch("/v1/databases/{databaseId}", database, json!({"name": "secret_renamed"}), 200),
        get("/v1/databases/{databaseId}/usage", used, Stranger::NotFound),
        get(of_database, connections.clone(), Stranger::NotFound),
        post(of_database, connections, json!({"name": "web"}), Stranger::NotFound, 200),
        get("/v1/connections/{id}", connection.clone(), Stranger::NotFound),
        get("/v1/connections", "/v1/connections".into(), Stranger::OwnOnly(200)),
        post("/v1/connections", "/v1/connections".into(), of_default, Stranger::NotFound, 201),
        post("/v1/connections/{id}/rotate", format!("{connection}/rotate"), json!({}), Stranger::NotFound, 200),
        delete("/v1/connections/{id}", connection, 204),
        delete("/v1/databases/{databaseId}", second, 200),
        delete("/v1/projects/{id}", project, 204),
    ];

    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let declared: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    // For everybody, with a token or without one.
    let open = ["/v1/ca.pem"].map(|path| ("GET".to_owned(), path.to_owned()));
    let checked = table.iter().map(|call| (call.method.to_string(), call.operation.to_owned()));
    let tested = checked.chain(open.clone()).collect();
    assert_eq!(declared, tested, "every operation of openapi.json stands in this table, and no other");

    let expired = howdah.expired().await;
    for (_, path) in &open {
        let everybody =
            [&anonymous, &revoked.person, &expired, &stranger, &narrow.person, &reader.person, &full.person];
        for person in everybody {
            let answer = person.get(path).await;
            assert_eq!(answer.status, 200, "GET {path}: {}", answer.body);
            assert!(!answer.body.to_string().contains("secret_"), "GET {path}: {}", answer.body);
        }
    }
    for (who, nobody) in [("anonymous", &anonymous), ("a revoked token", &revoked.person), ("an expired one", &expired)]
    {
        for Call { method, operation, path, body, .. } in &table {
            let answer = nobody.send(method.clone(), path, body.clone()).await;
            assert_eq!(answer.status, 401, "{method} {operation} for {who}: {}", answer.body);
        }
    }
    for Call { method, operation, path, body, stranger: expected, .. } in &table {
        let answer = stranger.send(method.clone(), path, body.clone()).await;
        match expected {
            Stranger::NotFound => answer.assert_error(404, "resource-not-found"),
            Stranger::Forbidden => answer.assert_error(403, "permission-denied"),
            Stranger::OwnOnly(status) => {
                answer.data(*status);
                assert!(!answer.body.to_string().contains("secret_"), "{method} {operation}: {}", answer.body);
            }
        }
    }
    for call in &table {
        let Call { method, operation, path, body, .. } = call;
        let answer = narrow.person.send(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, call.narrow(), "{method} {operation} for a limited token: {}", answer.body);
        assert!(!answer.body.to_string().contains("secret_"), "{method} {operation}: {}", answer.body);
    }
    for Call { method, operation, path, body, owner: status, .. } in &table {
        let answer = reader.person.send(method.clone(), path, body.clone()).await;
        let expected = if method == Method::GET { *status } else { 403 };
        assert_eq!(answer.status, expected, "{method} {operation} for a read-only token: {}", answer.body);
        let challenge = answer.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
        let is_the_token_s =
            answer.body["error"]["message"].as_str().is_some_and(|text| text.starts_with("This token"));
        let scope = is_the_token_s.then_some("Bearer error=\"insufficient_scope\"");
        assert_eq!(challenge, scope, "{method} {operation}: {}", answer.body);
    }
    for Call { method, operation, path, body, owner: status, .. } in &table {
        let answer = full.person.send(method.clone(), path, body.clone()).await;
        assert_eq!(answer.status, *status, "{method} {operation} for a full token: {}", answer.body);
    }
    howdah.assert_tidy().await;
}
