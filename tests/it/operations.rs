//! Operations over HTTP: nothing is stuck without a reason and a way out.

use serde_json::{Value, json};

use crate::harness::{Answer, Howdah, Person, ask, connection_string, eventually};

fn operation_of(answer: &Answer) -> String {
    answer.headers["howdah-operation"].to_str().unwrap().to_owned()
}

fn path(operation: &str) -> String {
    format!("/v1/operations/{operation}")
}

/// A database that has to wait for room: the one instance that may run is busy as long as the session lives.
async fn crowded(howdah: &Howdah) -> (tokio_postgres::Client, Answer, Person) {
    let owner = howdah.owner();
    let first = connection_string(&owner.create_project("first").await);
    let (client, session) = tokio_postgres::connect(&first, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with its client")]
    tokio::spawn(session);
    client.batch_execute("BEGIN").await.unwrap();
    let made = owner.post("/v1/projects", json!({"name": "second"})).await;
    assert_eq!(made.data(201)["database"]["status"], "provisioning");
    (client, made, owner)
}

#[tokio::test]
async fn create_returns_its_operation() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let made = owner.post("/v1/projects", json!({"name": "p"})).await;
    let database = &made.data(201)["database"];
    let id = operation_of(&made);
    assert_eq!(database["operationId"], id);
    let operation = owner.get(&path(&id)).await.data(200).clone();
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("provision_database"), &json!("succeeded")));
    assert_eq!(operation["database"]["id"], database["id"]);
    assert_eq!((&operation["reason"], &operation["attempts"]), (&Value::Null, &json!(0)));
    assert!(operation["endedAt"].as_str() >= operation["createdAt"].as_str());
    assert_eq!((&operation["canCancel"], &operation["canRetry"]), (&json!(false), &json!(false)));
    for verb in ["cancel", "retry"] {
        owner.post(&format!("{}/{verb}", path(&id)), json!({})).await.assert_error(409, "client-error");
    }

    let project = made.body["data"]["id"].as_str().unwrap();
    let second = owner.post("/v1/databases", json!({"projectId": project, "name": "other"})).await;
    let other = format!("/v1/databases/{}", second.data(201)["id"].as_str().unwrap());
    let made = eventually("the second create to end", async || {
        let operation = owner.get(&path(&operation_of(&second))).await.data(200).clone();
        (operation["state"] == "succeeded").then_some(operation)
    });
    let made = made.await;
    assert_eq!(owner.get(&format!("{other}/operations")).await.data(200), &json!([made]));
    let newest = owner.get("/v1/operations?limit=1").await;
    assert_eq!(newest.data(200)[0]["id"], operation_of(&second));
    let cursor = newest.body["pagination"]["nextCursor"].as_str().unwrap();
    assert_eq!(owner.get(&format!("/v1/operations?cursor={cursor}")).await.data(200)[0]["id"], id);

    // What a delete does can be followed after the thing is gone.
    let deleted = owner.delete(&other).await;
    assert_eq!(deleted.data(200)["operationId"], operation_of(&deleted));
    let gone = eventually("the delete to end", async || {
        let operation = owner.get(&path(&operation_of(&deleted))).await.data(200).clone();
        (operation["state"] == "succeeded").then_some(operation)
    });
    assert_eq!(gone.await["kind"], "delete_database");
    owner.get(&format!("{other}/operations")).await.assert_error(404, "resource-not-found");
    let database = second.body["data"]["id"].as_str().unwrap();
    let both = owner.get(&format!("/v1/operations?databaseId={database}")).await.data(200).clone();
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_eq!(owner.get("/v1/operations?state=failed").await.data(200), &json!([]));
    owner.get("/v1/operations?state=lost").await.assert_error(422, "validation-error");

    let whole = owner.delete(&format!("/v1/projects/{project}")).await;
    whole.data(204);
    assert!(operation_of(&whole).starts_with("op_"));
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn waiting_operation_says_why_and_can_be_cancelled_and_retried() {
    let howdah = Howdah::start_with(&["--max-running", "1"]).await;
    let (busy, made, owner) = crowded(&howdah).await;
    let id = operation_of(&made);
    let database = format!("/v1/databases/{}", made.body["data"]["database"]["id"].as_str().unwrap());
    let waiting = eventually("the operation to say why it waits", async || {
        let operation = owner.get(&path(&id)).await.data(200).clone();
        operation["reason"].is_string().then_some(operation)
    })
    .await;
    assert!(waiting["reason"].as_str().unwrap().contains("its maximum number of databases"), "{waiting}");
    assert_eq!(waiting["canCancel"], true);
    let shown = owner.get(&database).await.data(200).clone();
    assert_eq!((&shown["status"], &shown["statusReason"]), (&json!("provisioning"), &waiting["reason"]));

    let cancelled = owner.post(&format!("{}/cancel", path(&id)), json!({})).await.data(200).clone();
    assert_eq!((&cancelled["state"], &cancelled["canRetry"]), (&json!("cancelled"), &json!(true)));
    let shown = owner.get(&database).await.data(200).clone();
    assert_eq!((&shown["status"], &shown["statusReason"]), (&json!("failure"), &cancelled["reason"]));
    owner.post(&format!("{}/cancel", path(&id)), json!({})).await.assert_error(409, "client-error");

    busy.batch_execute("COMMIT").await.unwrap();
    drop(busy);
    owner.post(&format!("{}/retry", path(&id)), json!({})).await.data(200);
    eventually("the database to be ready", async || {
        (owner.get(&database).await.data(200)["status"] == "ready").then_some(())
    })
    .await;
    assert_eq!(ask(&connection_string(&made.body["data"]), "SELECT 1"), "1", "with the secret of the first answer");
    assert_eq!(owner.get(&path(&id)).await.data(200)["state"], "succeeded");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn a_failed_provision_shows_why_and_can_be_deleted() {
    let howdah = Howdah::start_with(&["--max-running", "1"]).await;
    let (busy, made, owner) = crowded(&howdah).await;
    let id = operation_of(&made);
    owner.post(&format!("{}/cancel", path(&id)), json!({})).await.data(200);
    let project = format!("/v1/projects/{}", made.body["data"]["id"].as_str().unwrap());
    owner.delete(&project).await.data(204);
    owner.post(&format!("{}/retry", path(&id)), json!({})).await.assert_error(409, "client-error");
    drop(busy);
    howdah.assert_tidy().await;
    assert_eq!(howdah.directory().instances().len(), 1);
}

#[tokio::test]
async fn protected_project_cannot_be_deleted() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let made = owner.create_project("kept").await;
    let project = format!("/v1/projects/{}", made["id"].as_str().unwrap());
    let second = owner.post(&format!("{project}/databases"), json!({"name": "second"})).await.data(201).clone();
    let second = format!("/v1/databases/{}", second["id"].as_str().unwrap());
    assert_eq!(owner.patch(&project, json!({"deleteProtection": true})).await.data(200)["deleteProtection"], true);
    owner.delete(&project).await.assert_error(400, "client-error");
    owner.delete(&second).await.assert_error(403, "permission-denied");
    owner.get(&second).await.data(200);

    owner.patch(&project, json!({"deleteProtection": false})).await.data(200);
    // Who is told that it is protected can rely on that, whatever was asked for at the same time.
    for round in 0..12 {
        let new = json!({"name": format!("r{round}"), "createDatabase": false});
        let raced = format!("/v1/projects/{}", owner.post("/v1/projects", new).await.data(201)["id"].as_str().unwrap());
        let both = tokio::join!(owner.patch(&raced, json!({"deleteProtection": true})), owner.delete(&raced));
        let both = (both.0.status.as_u16(), both.1.status.as_u16());
        assert!([(200, 400), (404, 204)].contains(&both), "{both:?}");
    }
    let (store, tasks) = howdah.store();
    let set = async |status: &str| {
        let session = store.session().await.unwrap();
        session.execute("UPDATE databases SET status = $1 WHERE is_default", &[&status]).await.unwrap();
    };
    set("recovering").await;
    let refused = owner.delete(&project).await;
    refused.assert_error(400, "client-error");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("being restored"));
    set("ready").await;
    tasks.stop();
    owner.delete(&project).await.data(204);
    howdah.assert_tidy().await;
}
