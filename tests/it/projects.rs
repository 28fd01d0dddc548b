//! Projects over HTTP: changing one, and giving one away.

use serde_json::{Value, json};

use crate::harness::{Howdah, Person, ask, connection_string, psql};

#[tokio::test]
async fn a_project_is_renamed_and_keeps_settings_that_are_never_shown() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = owner.post("/v1/projects", json!({"createDatabase": false, "name": "before"})).await;
    let path = format!("/v1/projects/{}", project.data(201)["id"].as_str().unwrap());
    let renamed = owner.patch(&path, json!({"name": "after"})).await.data(200).clone();
    assert_eq!((&renamed["name"], &renamed["id"]), (&json!("after"), &project.body["data"]["id"]));
    let settings = json!({"settings": {"hidden": ["\u{0}", {"deep": 1.5e300}]}});
    let kept = owner.patch(&path, settings).await.data(200).clone();
    assert_eq!(kept, renamed, "settings are write-only, and the name stays");
    assert_eq!(owner.patch(&path, json!({})).await.data(200), &renamed);
    assert_eq!(owner.get(&path).await.data(200), &renamed);
    let long = "x".repeat(257);
    for bad in [json!({"name": ""}), json!({"name": long}), json!({"name": 1}), json!({"settings": [1]})] {
        owner.patch(&path, bad).await.assert_error(422, "validation-error");
    }
    owner
        .patch("/v1/projects/proj_00000000000000000000000000", json!({}))
        .await
        .assert_error(404, "resource-not-found");
}

#[tokio::test]
async fn a_transferred_project_works_on_for_the_recipient_only() {
    let howdah = Howdah::start().await;
    let (giver, (recipient, token)) = (howdah.owner(), howdah.stranger_with_token().await);
    let project = giver.create_project("given").await;
    let (connection, id) = (connection_string(&project), project["id"].as_str().unwrap());
    ask(&connection, "CREATE TABLE kept AS SELECT 42 AS n");
    let (client, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "this test waits for it")]
    let session = tokio::task::spawn(session);
    let (path, database) =
        (format!("/v1/projects/{id}"), format!("/v1/databases/{}", text(&project["database"]["id"])));
    let before = giver.get(&database).await.data(200).clone();

    let given = giver.post(&format!("{path}/transfer"), json!({"recipientAccessToken": token})).await.data(200).clone();
    assert_eq!(given["id"], project["id"]);
    assert_eq!(given["workspace"]["name"], "Elsewhere");
    assert_eq!(recipient.get(&path).await.data(200), &given);
    assert_eq!(recipient.get(&database).await.data(200), &before, "ids, names and connections stay");
    assert_eq!(client.query_one("SELECT n FROM kept", &[]).await.unwrap().get::<_, i32>(0), 42);
    assert_eq!(ask(&connection, "SELECT n FROM kept"), "42");
    for gone in [path.clone(), database.clone(), format!("{database}/connections"), format!("{path}/databases")] {
        giver.get(&gone).await.assert_error(404, "resource-not-found");
    }
    assert_eq!(giver.get("/v1/projects").await.data(200), &json!([]));
    assert_eq!(giver.get("/v1/connections").await.data(200), &json!([]));
    giver
        .post(&format!("{path}/transfer"), json!({"recipientAccessToken": token}))
        .await
        .assert_error(404, "resource-not-found");
    giver.delete(&path).await.assert_error(404, "resource-not-found");

    recipient.delete(&path).await.data(204);
    assert!(!psql(&connection, "SELECT 1").status.success());
    assert!(session.await.unwrap().is_err());
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn failed_transfer_changes_nothing() {
    let howdah = Howdah::start().await;
    let (giver, (recipient, token)) = (howdah.owner(), howdah.stranger_with_token().await);
    let body = json!({"createDatabase": false, "name": "kept", "logicalId": "same"});
    let project = giver.post("/v1/projects", body.clone()).await.data(201).clone();
    let path = format!("/v1/projects/{}", text(&project["id"]));
    let transfer = async |caller: &Person, body: Value| caller.post(&format!("{path}/transfer"), body).await;

    let parts: Vec<&str> = token.split('.').collect();
    let foreign = base::secret::random_text::<64>();
    let foreign = format!("{}.{}.{foreign}", parts[0], parts[1]);
    for bad in ["", "nonsense", "\u{0}", &foreign] {
        let answer = transfer(&giver, json!({"recipientAccessToken": bad})).await;
        answer.assert_error(400, "client-error");
        assert!(text(&answer.body["error"]["message"]).contains("recipient"), "{}", answer.body);
    }
    for bad in [json!({}), json!({"recipientAccessToken": null}), json!({"recipientAccessToken": 5})] {
        transfer(&giver, bad).await.assert_error(422, "validation-error");
    }
    transfer(&giver, json!({"recipientAccessToken": howdah.token()})).await.assert_error(409, "client-error");
    // The recipient cannot take it: the project is not theirs to give, whatever token they show.
    for token in [&token, &howdah.token()] {
        transfer(&recipient, json!({"recipientAccessToken": token})).await.assert_error(404, "resource-not-found");
    }
    let clash = recipient.post("/v1/projects", body).await.data(201).clone();
    let answer = transfer(&giver, json!({"recipientAccessToken": token})).await;
    answer.assert_error(409, "client-error");
    assert!(text(&answer.body["error"]["message"]).contains("logicalId"), "{}", answer.body);
    assert_eq!(giver.get(&path).await.data(200)["workspace"], project["workspace"]);

    let (store, tasks) = howdah.store();
    let revoke = "UPDATE service_tokens SET expires_at = now() - interval '1 second' WHERE name = 'made by the test'";
    store.session().await.unwrap().batch_execute(revoke).await.unwrap();
    tasks.stop();
    transfer(&giver, json!({"recipientAccessToken": token})).await.assert_error(400, "client-error");
    assert_eq!(text(&clash["name"]), "kept");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}
