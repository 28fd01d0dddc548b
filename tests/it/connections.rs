//! Connections over HTTP: the flat routes, and rotating a credential.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Howdah, LIMIT, ask, complaint, connection_string};

#[tokio::test]
async fn rotating_a_connection_ends_its_old_credential_and_keeps_its_name() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("rotated").await;
    let old = connection_string(&project);
    let (_client, session) = tokio_postgres::connect(&old, tokio_postgres::NoTls).await.unwrap();
    let connection = &project["database"]["connections"][0];
    let path = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
    // No body and no content type: that is how command lines call it.
    let rotated = owner.send(Method::POST, &format!("{path}/rotate"), None).await.data(200).clone();
    assert_eq!((&rotated["id"], &rotated["name"]), (&connection["id"], &connection["name"]));
    let ended = tokio::time::timeout(LIMIT, session).await.expect("the old credential's session ends");
    assert!(ended.is_err());
    assert!(complaint(&old, "SELECT 1").contains("password authentication failed"));
    let new = rotated["endpoints"]["direct"]["connectionString"].as_str().unwrap();
    assert_eq!(new, rotated["connectionString"]);
    assert_eq!(ask(new, "SELECT 1"), "1");

    let again = owner.post(&format!("{path}/rotate"), json!({})).await.data(200).clone();
    assert_ne!(again["user"], rotated["user"]);
    assert!(!owner.get(&path).await.data(200).to_string().contains("sk_"), "a secret is shown once");
    let database = format!("/v1/databases/{}", project["database"]["id"].as_str().unwrap());
    assert_eq!(owner.get(&database).await.data(200)["defaultConnectionId"], connection["id"]);
    owner.delete(&path).await.data(204);
    owner.send(Method::POST, &format!("{path}/rotate"), None).await.assert_error(404, "resource-not-found");
}

#[tokio::test]
async fn connections_of_all_databases_are_in_one_list() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let (one, two) = (owner.create_project("one").await, owner.create_project("two").await);
    let database = two["database"]["id"].as_str().unwrap();
    let body = json!({"databaseId": database, "name": "web"});
    let made = owner.post("/v1/connections", body).await.data(201).clone();
    assert_eq!(ask(made["connectionString"].as_str().unwrap(), "SELECT 1"), "1");
    let ids = [&one["database"]["connections"][0]["id"], &two["database"]["connections"][0]["id"], &made["id"]];
    let listed = async |query: &str| -> Vec<serde_json::Value> {
        let answer = owner.get(&format!("/v1/connections{query}")).await;
        answer.data(200).as_array().unwrap().iter().map(|connection| connection["id"].clone()).collect()
    };
    assert_eq!(listed("").await.iter().collect::<Vec<_>>(), ids);
    assert_eq!(listed(&format!("?databaseId={database}")).await.iter().collect::<Vec<_>>(), ids[1..]);
    assert_eq!(listed(&format!("?databaseId={}", database.trim_start_matches("db_"))).await.len(), 2);
    for nothing in ["db_00000000000000000000000000", "nonsense", "%00", "proj_x"] {
        assert!(listed(&format!("?databaseId={nothing}")).await.is_empty(), "{nothing}");
    }

    // The cursor is the place of a row that is gone by the time of the next page.
    let first = owner.get("/v1/connections?limit=2").await;
    assert_eq!(first.data(200).as_array().unwrap().len(), 2);
    let cursor = first.body["pagination"]["nextCursor"].as_str().unwrap().to_owned();
    owner.delete(&format!("/v1/connections/{}", ids[1].as_str().unwrap())).await.data(204);
    assert_eq!(listed(&format!("?limit=2&cursor={cursor}")).await.iter().collect::<Vec<_>>(), ids[2..]);
    assert!(howdah.stranger().await.get("/v1/connections").await.data(200).as_array().unwrap().is_empty());

    let unknown = json!({"databaseId": "db_00000000000000000000000000", "name": "web"});
    owner.post("/v1/connections", unknown).await.assert_error(404, "resource-not-found");
    owner.post("/v1/connections", json!({"name": "web"})).await.assert_error(422, "validation-error");
    let short = json!({"databaseId": database, "name": ""});
    owner.post("/v1/connections", short).await.assert_error(422, "validation-error");
}

#[tokio::test]
async fn deleting_a_connection_and_its_database_at_once_is_no_deadlock() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("p").await["id"].as_str().unwrap().to_owned();
    for _ in 0..6 {
        let made = owner.post("/v1/databases", json!({"projectId": project})).await.data(201).clone();
        let database = format!("/v1/databases/{}", made["id"].as_str().unwrap());
        let connection = format!("/v1/connections/{}", made["defaultConnectionId"].as_str().unwrap());
        let both = tokio::join!(owner.delete(&connection), owner.delete(&database));
        assert!([204, 404].contains(&both.0.status.as_u16()), "{}", both.0.body);
        both.1.data(200);
    }
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn connection_names_have_1_to_256_characters_that_can_be_seen() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("named").await;
    let database = &project["database"]["id"];
    let create = async |name: &str| owner.post("/v1/connections", json!({"databaseId": database, "name": name})).await;
    for name in ["c", "ci", &format!("dev-{}", "h".repeat(64)), &"é".repeat(256), "\u{645}\u{6cc}\u{200c}\u{62e}"] {
        let created = create(name).await.data(201).clone();
        assert_eq!(created["name"], name);
        let port = created["endpoints"]["direct"]["port"].as_u64().unwrap();
        assert_eq!(created["directConnection"]["port"], port, "{created}");
    }
    for name in
        ["", " ", &"c".repeat(257), "web\u{202e}nimda", "ad\u{200b}min", "a\nb", &format!("a{}", "\u{301}".repeat(9))]
    {
        let answer = create(name).await;
        answer.assert_error(422, "validation-error");
        assert!(answer.body["error"]["message"].as_str().unwrap().starts_with("name: "), "{}", answer.body);
    }
}
