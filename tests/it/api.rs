//! The envelope, the lists, and everything that is refused.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::document::DOCUMENT;
use crate::harness::{Howdah, LIMIT, Person, answer};

#[tokio::test]
async fn bad_input_gets_a_clear_error_and_changes_nothing() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let long = "x".repeat(257);
    let cases = [
        (json!({"name": 5}), 422, "validation-error", "name"),
        (json!({"name": ""}), 422, "validation-error", "too short"),
        (json!({"name": long}), 422, "validation-error", "too long"),
        (json!({"region": "mars-1"}), 422, "validation-error", "mars-1"),
        (json!({"createDatabase": "maybe"}), 422, "validation-error", "createDatabase"),
        (json!({"logicalId": "Not Plain"}), 422, "validation-error", "logicalId"),
        (json!({"workspaceId": "wksp_00000000000000000000000000"}), 404, "resource-not-found", "workspace"),
        (json!({"name": "a\u{0}b"}), 422, "validation-error", "U+0000"),
        (json!({"region": "\u{0}"}), 422, "validation-error", "region"),
        (json!({"logicalId": "\u{0}"}), 422, "validation-error", "logicalId"),
        (json!({"workspaceId": "\u{0}"}), 404, "resource-not-found", "workspace"),
        (json!([1]), 422, "validation-error", "body"),
    ];
    for (body, status, code, mentions) in cases {
        let answer = owner.post("/v1/projects", body.clone()).await;
        answer.assert_error(status, code);
        let message = answer.body["error"]["message"].as_str().unwrap();
        assert!(message.contains(mentions) || message.contains("invalid type"), "{body}: {message}");
    }
    let raw = async |body: String, kind: &str| {
        let request = owner.request(Method::POST, "/v1/projects").header("content-type", kind).body(body);
        answer(&Method::POST, "/v1/projects", request.send().await.unwrap()).await
    };
    raw("{\"name\":".into(), "application/json").await.assert_error(400, "client-error");
    raw("{} {}".into(), "application/json").await.assert_error(400, "client-error");
    raw("[".repeat(100_000), "application/json").await.assert_error(422, "validation-error");
    raw("name=x".into(), "application/x-www-form-urlencoded").await.assert_error(415, "client-error");
    raw(format!("{{\"name\":\"{}\"}}", "x".repeat(300_000)), "application/json")
        .await
        .assert_error(413, "client-error");
    assert_eq!(owner.get("/v1/projects").await.data(200), &json!([]));
    assert_eq!(howdah.directory().instances(), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_with_an_unknown_field_is_refused_and_changes_nothing() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let mut refused = 0;
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for method in [Method::POST, Method::PATCH] {
            if item.get(method.as_str().to_lowercase()).is_none() {
                continue;
            }
            let path = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let answer = owner.send(method.clone(), &path, Some(json!({"noSuchField": 1}))).await;
            answer.assert_error(422, "validation-error");
            let message = answer.body["error"]["message"].as_str().unwrap();
            assert_eq!(message, "noSuchField: unknown field", "{method} {path}");
            refused += 1;
        }
    }
    assert!(refused >= 20, "{refused}");
    for (path, body, field, hint) in [
        (
            "/v1/connections",
            json!({"databaseId": "db_x", "name": "report", "readOnly": true}),
            "readOnly",
            "Allowed fields: databaseId, name.",
        ),
        ("/v1/projects", json!({"createDatabse": false}), "createDatabse", "Did you mean createDatabase?"),
        ("/v1/projects", json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}), "jsonrpc", "name,"),
        (
            "/v1/databases",
            json!({"projectId": "proj_x", "source": {"type": "database", "databaseId": "db_x", "targettime": "now"}}),
            "source.targettime",
            "Did you mean targetTime?",
        ),
        (
            "/v1/databases/db_x/restore",
            json!({"source": {"type": "backup", "databaseId": "db_x", "backupId": "bak_x", "dryRun": true}}),
            "source.dryRun",
            "Allowed fields: databaseId, backupId, targetTime.",
        ),
    ] {
        let answer = owner.post(path, body).await;
        answer.assert_error(422, "validation-error");
        let error = &answer.body["error"];
        assert!(error["message"].as_str().unwrap().starts_with(&format!("{field}: ")), "{error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{error}");
    }
    let project = owner.create_project("protected").await;
    let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
    let answer = owner.send(Method::PATCH, &path, Some(json!({"deleteProtectoin": true}))).await;
    answer.assert_error(422, "validation-error");
    assert!(answer.body["error"]["hint"].as_str().unwrap().starts_with("Did you mean deleteProtection?"));
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn unknown_things_are_404_and_unknown_methods_405() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    for path in [
        "/v1/nothing",
        "/v1/projects/nothing",
        "/v1/projects/proj_00000000000000000000000000",
        "/v1/projects/db_00000000000000000000000000",
        "/v1/databases/db_00000000000000000000000000",
        "/v1/projects/%00",
        "/v1/projects/%ff",
        "/v1/projects/%ff/databases",
        "/v1/databases/%00",
        "/v1/databases/%c3%28/connections",
        "/v1/connections/%ff",
        "/v1/%ff",
        "/v1/databases/db_00000000000000000000000000/connections",
        "/v1/projects/proj_00000000000000000000000000/databases",
        "/v1/connections/con_x12345678",
    ] {
        owner.get(path).await.assert_error(404, "resource-not-found");
    }
    let answer = owner.send(Method::PUT, "/v1/projects", None).await;
    answer.assert_error(405, "client-error");
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"));
}

#[tokio::test]
async fn tokens_are_checked() {
    let howdah = Howdah::start().await;
    let token = howdah.token();
    let parts: Vec<&str> = token.split('.').collect();
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let changed = format!("{}.{}x.{}", parts[0], parts[1], parts[2]);
    for bad in [String::new(), "nonsense".into(), unsigned, changed, token[..token.len() - 2].to_owned()] {
        let answer = Person::new(howdah.url(), Some(bad)).get("/v1/projects").await;
        answer.assert_error(401, "authentication-failed");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    howdah.anonymous().get("/v1/projects").await.assert_error(401, "authentication-failed");
    // The claims that the original's command line reads.
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let workspaces = howdah.owner().get("/v1/workspaces").await;
    let workspace = workspaces.data(200)[0]["id"].as_str().unwrap().trim_start_matches("wksp_").to_owned();
    assert_eq!(claims["sub"], format!("workspace:{workspace}"));
    assert_eq!(howdah.owner().get(&format!("/v1/workspaces/{workspace}")).await.data(200), &workspaces.body["data"][0]);

    let (store, tasks) = howdah.store();
    store.session().await.unwrap().batch_execute("UPDATE service_tokens SET revoked_at = now()").await.unwrap();
    tasks.stop();
    howdah.owner().get("/v1/projects").await.assert_error(401, "authentication-failed");
}

#[tokio::test]
async fn lists_have_pages_whose_cursor_survives_deletes() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let mut ids = Vec::new();
    for n in 0..5 {
        let body = json!({"name": format!("p{n}"), "createDatabase": false, "logicalId": format!("p{n}")});
        ids.push(owner.post("/v1/projects", body).await.data(201)["id"].as_str().unwrap().to_owned());
    }
    let first = owner.get("/v1/projects?limit=2").await;
    assert_eq!(first.data(200).as_array().unwrap().len(), 2);
    assert_eq!(first.body["pagination"]["hasMore"], true);
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap().to_owned();
    owner.delete(&format!("/v1/projects/{}", ids[1])).await.data(204);
    let rest = owner.get(&format!("/v1/projects?limit=3&cursor={cursor}")).await;
    let names: Vec<&str> = rest.data(200).as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["p2", "p3", "p4"]);
    assert_eq!(rest.body["pagination"], json!({"nextCursor": null, "hasMore": false}));
    let found = owner.get("/v1/projects?logicalId=p3&cursor=").await;
    assert_eq!(found.data(200)[0]["id"], ids[3]);
    let bare = ids[3].trim_start_matches("proj_");
    assert_eq!(owner.get(&format!("/v1/projects/{bare}")).await.data(200)["id"], ids[3]);
    let clash = owner.post("/v1/projects", json!({"createDatabase": false, "logicalId": "p3"})).await;
    clash.assert_error(409, "client-error");
    let strange = ["cursor=%00", "cursor=%ff", "limit=%00", "logicalId=%00", "logicalId=%ff", "logicalId="];
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "cursor=nonsense"].into_iter().chain(strange) {
        owner.get(&format!("/v1/projects?{bad}")).await.assert_error(422, "validation-error");
    }
}

#[tokio::test]
async fn pagination_is_stable_during_creates_and_deletes() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let create = async || {
        let made = owner.post("/v1/projects", json!({"createDatabase": false})).await;
        made.data(201)["id"].as_str().unwrap().to_owned()
    };
    let (mut stay, mut go) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        stay.push(create().await);
        go.push(create().await);
    }
    stay.sort();
    let paged = async {
        let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
        loop {
            let page = owner.get(&format!("/v1/projects?{query}")).await;
            seen.extend(page.data(200).as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page.body["pagination"]["nextCursor"].as_str() else { return seen };
            query = format!("limit=2&cursor={cursor}");
        }
    };
    let changed = async {
        for id in &go {
            let path = format!("/v1/projects/{id}");
            let (gone, _) = tokio::join!(owner.delete(&path), create());
            gone.data(204);
        }
    };
    let (seen, ()) = tokio::join!(paged, changed);
    assert!(seen.is_sorted_by(|one, next| one < next), "in one order, and nothing twice: {seen:?}");
    let stayed: Vec<_> = seen.iter().filter(|id| stay.contains(id)).collect();
    assert_eq!(stayed, stay.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn default_databases_have_rules() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("rules").await;
    let databases = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
    owner.post(&databases, json!({"isDefault": true})).await.assert_error(400, "client-error");
    owner.post(&databases, json!({"source": {"type": "backup"}})).await.assert_error(422, "validation-error");
    let copy = json!({"fromDatabase": {"id": project["database"]["id"]}});
    let copied = owner.post(&databases, copy).await;
    assert_eq!(copied.data(201)["source"], json!({"type": "database", "databaseId": project["database"]["id"]}));
    let both = json!({"fromDatabase": {"id": project["database"]["id"]}, "source": {"type": "empty"}});
    owner.post(&databases, both).await.assert_error(400, "client-error");
    let default = format!("/v1/databases/{}", project["database"]["id"].as_str().unwrap());
    owner.delete(&default).await.assert_error(403, "permission-denied");
    let connections = format!("{default}/connections");
    owner.post(&connections, json!({"name": ""})).await.assert_error(422, "validation-error");
    owner.post(&connections, json!({})).await.assert_error(422, "validation-error");
    assert_eq!(owner.get(&default).await.data(200)["project"]["name"], "rules");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn regions_are_listed_and_requests_have_ids() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let regions = owner.get("/v1/regions").await;
    assert_eq!(regions.data(200).as_array().unwrap().len(), 6);
    assert_eq!(regions.body["data"][0]["product"], "postgres");
    assert_eq!(owner.get("/v1/regions/postgres").await.data(200)[0]["status"], "available");
    assert_eq!(owner.get("/v1/regions?product=postgres").await.data(200), regions.data(200));
    assert_eq!(owner.get("/v1/regions?product=accelerate").await.data(200), &json!([]));
    assert_eq!(owner.get("/v1/regions/accelerate").await.data(200), &json!([]));
    owner.get("/v1/regions?product=moon").await.assert_error(422, "validation-error");
    let request = owner.request(Method::GET, "/v1/regions").header("x-request-id", "mine-1");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "mine-1");
    let document = howdah.anonymous().get("/v1/doc").await;
    assert_eq!(document.body["openapi"], "3.1.0");
    assert_eq!(document.body["servers"][0]["url"], howdah.url());
    for path in ["/healthz", "/readyz"] {
        assert_eq!(howdah.anonymous().get(path).await.status, 200);
    }
}

#[tokio::test]
async fn body_that_does_not_arrive_gets_408() {
    let howdah = Howdah::start().await;
    let head = format!(
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        howdah.token()
    );
    let address = howdah.url().trim_start_matches("http://").to_owned();
    let send = async |breaks_off: bool, trickles: bool| {
        let (mut reading, mut writing) = TcpStream::connect(&address).await.unwrap().into_split();
        writing.write_all(head.as_bytes()).await.unwrap();
        if breaks_off {
            writing.shutdown().await.unwrap();
        }
        let trickle = async {
            // Until the server does not take any more.
            while trickles && writing.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut answer = String::new();
        let answered = async {
            tokio::select! {
                read = reading.read_to_string(&mut answer) => read,
                () = trickle => unreachable!("it never ends by itself"),
            }
        };
        tokio::time::timeout(LIMIT, answered).await.expect("it is answered").unwrap();
        answer
    };
    let (slow, trickling, broken) = tokio::join!(send(false, false), send(false, true), send(true, false));
    for slow in [slow, trickling] {
        assert!(slow.starts_with("HTTP/1.1 408") && slow.contains(r#""code":"client-error""#), "{slow}");
        assert!(slow.contains("x-request-id: ") && slow.contains("connection: close"), "{slow}");
    }
    assert!(broken.is_empty() || broken.starts_with("HTTP/1.1 400"), "{broken}");
}

#[tokio::test]
async fn browsers_may_use_the_api() {
    let howdah = Howdah::start().await;
    let preflight = howdah
        .anonymous()
        .request(Method::OPTIONS, "/v1/projects")
        .header("origin", "https://console.example.com")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    let answer = preflight.send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    assert_eq!(answer.headers()["access-control-allow-headers"], "authorization,content-type");
}
