//! `Idempotency-Key`: what is asked for twice is done once.

use base::keyring::Keyring;
use domain::idempotency::{self, Begun, IdempotencyKey};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Howdah, answer, ask, connection_string, eventually};

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_changes_nothing_more() {
    let mut howdah = Howdah::start().await;
    let owner = howdah.owner();
    let new = json!({"name": "once"});
    let first = owner.send_with_key(Method::POST, "/v1/projects", "k-1", &new).await;
    first.data(201);
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let again = owner.send_with_key(Method::POST, "/v1/projects", "k-1", &new).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body), "with its secrets");
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.headers["howdah-operation"], first.headers["howdah-operation"]);
    assert_eq!(ask(&connection_string(&again.body["data"]), "SELECT 1"), "1");

    // Another body, another path, another method: not the same request.
    owner
        .send_with_key(Method::POST, "/v1/projects", "k-1", &json!({"name": "twice"}))
        .await
        .assert_error(422, "validation-error");
    let project = format!("/v1/projects/{}", first.body["data"]["id"].as_str().unwrap());
    owner.send_with_key(Method::PATCH, &project, "k-1", &new).await.assert_error(422, "validation-error");
    // The key is its principal's own: somebody else's is another one.
    let token = owner.create_token(json!({"name": "other"})).await.person;
    let other = token.send_with_key(Method::POST, "/v1/projects", "k-1", &json!({"createDatabase": false})).await;
    assert!(!other.headers.contains_key("idempotent-replayed"));
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 2);

    // PATCH and DELETE; and the answers outlive a restart.
    let renamed = owner.send_with_key(Method::PATCH, &project, "k-2", &json!({"name": "renamed"})).await;
    renamed.data(200);
    owner.send_with_key(Method::DELETE, &project, "k-3", &json!({})).await.data(204);
    howdah.assert_tidy().await;
    assert!(howdah.stop().await.success());
    howdah.launch().await;
    let owner = howdah.owner();
    let again = owner.send_with_key(Method::PATCH, &project, "k-2", &json!({"name": "renamed"})).await;
    assert_eq!(again.body, renamed.body);
    let again = owner.send_with_key(Method::DELETE, &project, "k-3", &json!({})).await;
    again.data(204);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let again = owner.send_with_key(Method::POST, "/v1/projects", "k-1", &new).await;
    assert_eq!(again.body, first.body);
    owner.get(&project).await.assert_error(404, "resource-not-found");

    // What is kept can't be read by who reads the store.
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    let rows = session.query("SELECT answer FROM idempotency_keys", &[]).await.unwrap();
    assert!(rows.len() >= 4);
    for row in rows {
        let kept: Vec<u8> = row.get("answer");
        assert!(!kept.windows(3).any(|part| part == b"sk_" || part == b"{\"s"));
    }
    // After 24 hours the key is free.
    session.execute("UPDATE idempotency_keys SET expires_at = now() - interval '1 second'", &[]).await.unwrap();
    tasks.stop();
    let fresh = owner.send_with_key(Method::POST, "/v1/projects", "k-1", &new).await;
    assert_ne!(fresh.data(201)["id"], first.body["data"]["id"]);
}

#[tokio::test]
async fn two_hundred_clients_with_one_key_make_one_project() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let new = json!({"name": "one", "region": "us-east-1"});
    let asked = (0..200).map(|_| owner.send_with_key(Method::POST, "/v1/projects", "the-same", &new));
    let answers = join_all(asked).await;
    let fresh = answers.iter().filter(|answer| !answer.headers.contains_key("idempotent-replayed")).count();
    assert_eq!(fresh, 1, "one was carried out");
    for answer in &answers {
        answer.data(201);
        assert_eq!(answer.body, answers[0].body);
    }
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 1);
    assert_eq!(owner.get("/v1/databases").await.data(200).as_array().unwrap().len(), 1);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn rejected_request_can_be_corrected_under_the_same_key() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    let project = json!({"createDatabase": false, "logicalId": "taken"});
    owner.post("/v1/projects", project.clone()).await.data(201);
    let send = async |body: &serde_json::Value| owner.send_with_key(Method::POST, "/v1/projects", "k", body).await;
    send(&json!({"name": ""})).await.assert_error(422, "validation-error");
    send(&project).await.assert_error(409, "client-error");
    send(&json!({"createDatabase": false, "logicalId": "free"})).await.data(201);
    for bad in ["", "two words", "x".repeat(256).as_str()] {
        owner.send_with_key(Method::POST, "/v1/projects", bad, &project).await.assert_error(422, "validation-error");
    }
    let twice =
        owner.request(Method::POST, "/v1/projects").header("idempotency-key", "a").header("idempotency-key", "b");
    answer(&Method::POST, "/v1/projects", twice.send().await.unwrap()).await.assert_error(422, "validation-error");
    // A GET is repeatable anyway.
    let get = owner.request(Method::GET, "/v1/projects").header("idempotency-key", "k");
    answer(&Method::GET, "/v1/projects", get.send().await.unwrap()).await.data(200);
}

#[tokio::test]
async fn abandoned_request_releases_its_key_or_stores_its_response() {
    let howdah = Howdah::start().await;
    let owner = howdah.owner();
    // Given up at every stage of the request; whatever became of it, a repetition settles it.
    for millis in [0, 1, 3, 10, 30, 60] {
        let new = json!({"name": "patient", "createDatabase": millis >= 30});
        let key = format!("given-up-{millis}");
        let request = owner.send_with_key(Method::POST, "/v1/projects", &key, &new);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(millis), request).await;
        let settled = eventually("the repetition to be answered", async || {
            let answer = owner.send_with_key(Method::POST, "/v1/projects", &key, &new).await;
            (answer.status != 409).then_some(answer)
        })
        .await;
        settled.data(201);
    }
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 6, "one for each key");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn kill_9_leaves_no_change_without_its_answer() {
    let mut howdah = Howdah::start().await;
    for round in 0..4 {
        let (owner, key) = (howdah.owner(), format!("round-{round}"));
        let new = json!({"name": format!("p{round}")});
        let request = owner.send_with_key(Method::POST, "/v1/projects", &key, &new);
        let given_up = tokio::time::timeout(std::time::Duration::from_millis(25 * round), async {
            tokio::select! { answer = request => drop(answer), () = std::future::pending() => {} }
        });
        let _ = given_up.await;
        howdah.kill();
        howdah.launch().await;
        let owner = howdah.owner();
        owner.send_with_key(Method::POST, "/v1/projects", &key, &new).await.data(201);
        let projects = owner.get("/v1/projects").await.data(200).clone();
        let named = projects.as_array().unwrap().iter().filter(|project| project["name"] == new["name"]).count();
        assert_eq!(named, 1, "round {round}");
    }
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn request_cut_off_by_kill_9_is_carried_out_by_its_first_repetition() {
    let mut howdah = Howdah::start().await;
    let (store, tasks) = howdah.store();
    // The request has its claim and waits for this lock when Howdah is killed.
    let lock = store.begin().await.unwrap();
    lock.batch_execute("LOCK TABLE projects IN EXCLUSIVE MODE").await.unwrap();
    let owner = howdah.owner();
    let new = json!({"name": "cut off"});
    let cut_off = owner.request(Method::POST, "/v1/projects").header("idempotency-key", "k").json(&new).send();
    let waiting = eventually("the request to wait for the lock", async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'projects'::regclass";
        let count: i64 = store.session().await.unwrap().query_one(sql, &[]).await.unwrap().get(0);
        (count > 0).then_some(())
    });
    tokio::select! {
        answer = cut_off => panic!("the request does not wait: {answer:?}"),
        () = waiting => {}
    }
    howdah.kill();
    lock.commit().await.unwrap();
    tasks.stop();

    howdah.launch().await;
    let owner = howdah.owner();
    let first = owner.send_with_key(Method::POST, "/v1/projects", "k", &new).await;
    first.data(201);
    let second = owner.send_with_key(Method::POST, "/v1/projects", "k", &new).await;
    assert_eq!(second.body, first.body);
    assert_eq!(second.headers["idempotent-replayed"], "true");
    assert_eq!(owner.get("/v1/projects").await.data(200).as_array().unwrap().len(), 1);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn claim_changes_hands_only_when_its_process_is_gone() {
    let howdah = Howdah::start().await;
    let keyring = Keyring::new(&[7; 32]);
    let [cut_off, unsettled] = ["cut-off", "unsettled"].map(|key| IdempotencyKey::parse(key.as_bytes()).unwrap());
    let begin = async |store: &base::store::Store, key: &IdempotencyKey| {
        let session = store.session().await.unwrap();
        idempotency::begin(&session, &keyring, Uuid::nil(), key, b"hash").await.unwrap()
    };
    // Two processes on one metadata store.
    let ((one, one_tasks), (other, other_tasks)) = (howdah.store(), howdah.store());
    let Begun::Fresh(lost) = begin(&one, &cut_off).await else { panic!("a new key is free") };
    let Begun::Fresh(claim) = begin(&one, &unsettled).await else { panic!("a new key is free") };
    let tx = one.begin().await.unwrap();
    idempotency::keep(&tx, &keyring, &claim, b"so far", false).await.unwrap();
    tx.commit().await.unwrap();
    for store in [&one, &other] {
        assert!(matches!(begin(store, &cut_off).await, Begun::UnderWay(_, None)));
        assert!(matches!(begin(store, &unsettled).await, Begun::UnderWay(_, Some(_))));
    }

    one_tasks.stop();
    drop(one);
    eventually("the claim to be free", async || matches!(begin(&other, &cut_off).await, Begun::Fresh(_)).then_some(()))
        .await;
    assert!(matches!(begin(&other, &unsettled).await, Begun::Answered(answer) if answer == b"so far"));
    let tx = other.begin().await.unwrap();
    assert!(idempotency::keep(&tx, &keyring, &lost, b"late", true).await.is_err(), "the claim was lost");
    drop(tx);
    other_tasks.stop();
}
