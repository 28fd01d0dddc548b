//! One order of locks in the metadata store: no two transactions ever wait for each other.

use std::time::Duration;

use base::id::DatabaseId;
use base::store::{Session, Store};
use domain::databases;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Howdah, eventually};

/// How many deadlocks PostgreSQL has broken.
async fn deadlocks(store: &Store) -> i64 {
    let session = store.session().await.unwrap();
    let row = session.query_one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()", &[]);
    row.await.unwrap().get(0)
}

/// Until another session waits for a lock.
async fn blocked(session: &Session) {
    eventually("a transaction to wait for a lock", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'howdah'";
        let count: i64 = session.query_one(waiting, &[]).await.unwrap().get(0);
        (count > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn database_is_locked_before_its_probes_even_when_it_is_deleted() {
    let howdah = Howdah::start().await;
    let project = howdah.owner().create_project("both").await;
    let id = DatabaseId::parse(project["database"]["id"].as_str().unwrap()).unwrap();
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    for is_deleted in [false, true] {
        if is_deleted {
            session.execute("UPDATE databases SET deleted_at = now() WHERE id = $1", &[&id.uuid()]).await.unwrap();
        }
        for becomes_ready in [true, false] {
            let probe = "INSERT INTO probes (user_name, database_id, verifier, expires_at)
                         VALUES ('probe', $1, '', now() + interval '1 minute')";
            session.execute(probe, &[&id.uuid()]).await.unwrap();

            // As a cancel or a delete does: first the database, then what belongs to it.
            let other = store.begin().await.unwrap();
            databases::hold(&other, id).await.unwrap();
            let step = async {
                let tx = store.begin().await.unwrap();
                let written = if becomes_ready {
                    databases::mark_ready(&tx, id).await
                } else {
                    databases::mark_failed(&tx, id, "a reason").await
                };
                written.expect("it waits, and is not chosen to break a deadlock");
                tx.commit().await.unwrap();
            };
            let goes_on = async {
                blocked(&session).await;
                let ended = other.execute("DELETE FROM probes WHERE database_id = $1", &[&id.uuid()]).await;
                assert_eq!(ended.expect("nobody else has a lock on the probes"), 1);
                other.commit().await.unwrap();
            };
            tokio::join!(step, goes_on);
        }
    }
    tasks.stop();
}

#[tokio::test]
async fn concurrent_creates_deletes_cancels_backups_and_transfers_never_deadlock() {
    let howdah = Howdah::start_with(&["--address-rate-limit", "0", "--rate-limit", "0"]).await;
    let owner = howdah.owner();
    let (stranger, recipient) = howdah.stranger_with_token().await;
    let (store, tasks) = howdah.store();
    let before = deadlocks(&store).await;
    let send = async |method: Method, path: &str, body: serde_json::Value| {
        let response = owner.request(method, path).json(&body).send().await.unwrap();
        let status = response.status().as_u16();
        let answer = response.text().await.unwrap();
        // On a busy machine the metadata store may take too long; a deadlock has another message.
        let is_slow = status == 503 && answer.contains("the metadata store is not responding");
        assert!(status < 500 || is_slow, "{path} answered {status}: {answer}\n{}", howdah.metadata_log());
    };
    let list = async |path: &str| {
        let answer = owner.get(path).await;
        if answer.status == 503 { Vec::new() } else { answer.data(200).as_array().unwrap().clone() }
    };
    let creates = async {
        for round in 0..6 {
            let body = json!({"name": format!("racing{round}")});
            let all = (0..5).map(|_| send(Method::POST, "/v1/projects", body.clone()));
            futures_util::future::join_all(all).await;
        }
    };
    let over = std::cell::Cell::new(false);
    let creates = async {
        creates.await;
        over.set(true);
    };
    let deletes = async {
        // Everything that can be seen goes, whatever its database is doing.
        loop {
            let last = over.get();
            for project in list("/v1/projects").await.iter().step_by(2) {
                send(Method::DELETE, &format!("/v1/projects/{}", project["id"].as_str().unwrap()), json!({})).await;
            }
            if last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let changes = async {
        while !over.get() {
            for operation in list("/v1/operations?state=running").await {
                let id = operation["id"].as_str().unwrap();
                send(Method::POST, &format!("/v1/operations/{id}/cancel"), json!({})).await;
            }
            for database in list("/v1/databases").await.iter().step_by(3) {
                let id = database["id"].as_str().unwrap();
                send(Method::POST, &format!("/v1/databases/{id}/backups"), json!({})).await;
                let project = database["project"]["id"].as_str().unwrap();
                let body = json!({"recipientAccessToken": recipient});
                send(Method::POST, &format!("/v1/projects/{project}/transfer"), body).await;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::join!(creates, deletes, changes);
    for person in [&owner, &stranger] {
        for project in person.get("/v1/projects").await.data(200).as_array().unwrap() {
            let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
            eventually("the project to be deleted", async || {
                let response = person.request(Method::DELETE, &path).send().await.unwrap();
                [204, 404].contains(&response.status().as_u16()).then_some(())
            })
            .await;
        }
    }
    howdah.assert_tidy().await;
    assert!(!howdah.log().contains("deadlock detected"), "{}", howdah.log());
    assert_eq!(deadlocks(&store).await, before, "PostgreSQL broke a deadlock: {}", howdah.metadata_log());
    tasks.stop();
}
