//! The main job: one call makes a database, and `psql` is in it.

use serde_json::json;

use crate::harness::{Howdah, ask, connection_string, eventually, psql, with_sslmode};

#[tokio::test]
async fn database_is_created_by_one_call_and_survives_a_restart() {
    let mut howdah = Howdah::start().await;
    let project = howdah.owner().create_project("my_project").await;
    assert_eq!(project["database"]["status"], "ready");
    let connection = with_sslmode(&connection_string(&project), "require");
    ask(&connection, "CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 1000)");
    assert!(howdah.stop().await.success());
    assert!(howdah.directory().servers().is_empty(), "a clean stop stops every server");
    assert!(!howdah.directory().path().join("run/addresses.json").exists());

    // The gateway has another port now: the string's port is the old one.
    let old_port = howdah.gateway().port();
    howdah.launch().await;
    let connection = connection.replace(&format!(":{old_port}/"), &format!(":{}/", howdah.gateway().port()));
    assert_eq!(ask(&connection, "SELECT sum(n) FROM kept"), "500500");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn kill_9_leaves_databases_running_and_the_next_start_adopts_them() {
    let mut howdah = Howdah::start().await;
    let project = howdah.owner().create_project("survivor").await;
    let connection = connection_string(&project);
    ask(&connection, "CREATE TABLE kept AS SELECT 42 AS n");
    let servers = howdah.directory().servers();
    howdah.kill();
    assert_eq!(howdah.directory().servers(), servers, "servers outlive Howdah");

    let old_port = howdah.gateway().port();
    howdah.launch().await;
    assert_eq!(howdah.directory().servers(), servers, "and are adopted, not started again");
    let connection = connection.replace(&format!(":{old_port}/"), &format!(":{}/", howdah.gateway().port()));
    assert_eq!(ask(&connection, "SELECT n FROM kept"), "42");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn idle_database_is_suspended_and_the_next_connection_wakes_it() {
    let howdah = Howdah::start_with(&["--idle-stop", "1s"]).await;
    let connection = connection_string(&howdah.owner().create_project("sleeper").await);
    ask(&connection, "CREATE TABLE kept AS SELECT 7 AS n");
    let asleep = async || (howdah.directory().servers().len() == 1).then_some(());
    eventually("the database to sleep", asleep).await; // the metadata instance does not
    assert_eq!(ask(&connection, "SELECT n FROM kept"), "7");
}

#[tokio::test]
async fn a_session_keeps_its_database_awake_only_with_a_transaction() {
    let howdah = Howdah::start_with(&["--idle-stop", "1s"]).await;
    let connection = connection_string(&howdah.owner().create_project("holder").await);
    let (client, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    let ended = async { session.await.unwrap_err() };
    let work = async {
        client.batch_execute("BEGIN; CREATE TABLE kept AS SELECT 1 AS n").await.unwrap();
        // Longer than the limit: an open transaction is not idle.
        client.batch_execute("SELECT pg_sleep(2.5)").await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! { error = ended => error, () = work => unreachable!() };
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::ADMIN_SHUTDOWN), "{error:?}");
    assert_eq!(ask(&connection, "SELECT n FROM kept"), "1");
}

#[tokio::test]
async fn deleting_ends_sessions_and_leaves_nothing() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.create_project("short_lived").await;
    let connection = connection_string(&project);
    let (client, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
    owner.delete(&path).await.data(204);
    let ended = tokio::time::timeout(crate::harness::LIMIT, session).await.expect("the session ends");
    assert!(ended.is_err());
    drop(client);
    let error = String::from_utf8(psql(&connection, "SELECT 1").stderr).unwrap();
    assert!(error.contains("password authentication failed"), "{error}");
    owner.get(&path).await.assert_error(404, "resource-not-found");
    howdah.assert_tidy().await;
    assert_eq!(howdah.directory().instances(), Vec::<String>::new());
}

#[tokio::test]
async fn a_project_may_have_more_databases_and_connections() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.post("/v1/projects", json!({"createDatabase": false, "name": "empty"})).await.data(201).clone();
    assert!(project["database"].is_null());
    let databases = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
    let database = owner.post(&databases, json!({"name": "second", "region": "inherit"})).await.data(201).clone();
    assert_eq!((&database["status"], &database["isDefault"]), (&json!("ready"), &json!(false)));
    let path = format!("/v1/databases/{}", database["id"].as_str().unwrap());

    let connections = format!("{path}/connections");
    let connection = owner.post(&connections, json!({"name": "web"})).await.data(200).clone();
    let string = connection["endpoints"]["direct"]["connectionString"].as_str().unwrap();
    assert_eq!(string, connection["connectionString"]);
    assert_eq!(ask(string, "SELECT current_database()"), "postgres");
    assert_eq!(owner.get(&connections).await.data(200).as_array().unwrap().len(), 2);
    let one = format!("/v1/connections/{}", connection["id"].as_str().unwrap());
    let shown = owner.get(&one).await.data(200).clone();
    assert!(!shown.to_string().contains("sk_"), "a secret is shown once: {shown}");
    owner.delete(&one).await.data(204);
    assert!(!psql(string, "SELECT 1").status.success());
    assert!(psql(&connection_string(&database), "SELECT 1").status.success(), "others are still good");

    let gone = owner.delete(&path).await.data(200).clone();
    assert_eq!(gone["id"], database["id"]);
    owner.get(&path).await.assert_error(404, "resource-not-found");
    howdah.assert_tidy().await;
}
