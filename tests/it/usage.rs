//! Usage over HTTP: what databases did and how large they are, read while they sleep.

use jiff::SignedDuration;
use serde_json::{Value, json};

use base::clock::{Clock, format_timestamp};
use base::id::DatabaseId;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Howdah, Person, ask, complaint, connection_string, eventually};

/// Where a project's default database has its usage.
fn usage_of(project: &Value) -> String {
    format!("/v1/databases/{}/usage", project["database"]["id"].as_str().unwrap())
}

async fn operations(person: &Person, path: &str) -> u64 {
    let answer = person.get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["metrics"]["operations"]["used"].as_u64().unwrap()
}

/// Waits until only the metadata instance runs.
async fn asleep(howdah: &Howdah) {
    eventually("the database to sleep", async || (howdah.directory().servers().len() == 1).then_some(())).await;
}

/// Waits until so many operations are counted. More would be wrong.
async fn counted(howdah: &Howdah, path: &str, expected: u64) {
    eventually(&format!("{expected} operations to be counted"), async || {
        let used = operations(&howdah.owner(), path).await;
        assert!(used <= expected, "{used} operations are counted, there were {expected}");
        (used == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn usage_is_read_while_the_database_sleeps() {
    let howdah = Howdah::start_with(&["--idle-stop", "1s"]).await;
    let owner = howdah.owner();
    let project = owner.create_project("used").await;
    let (connection, path) = (connection_string(&project), usage_of(&project));
    asleep(&howdah).await;
    // Made, proven and gone to sleep: that was the platform's own work.
    eventually("it to be measured", async || owner.get(&path).await.body["measuredAt"].is_string().then_some(())).await;
    assert_eq!(operations(&owner, &path).await, 0);

    ask(&connection, "CREATE TABLE kept AS SELECT repeat('x', 1000) AS n FROM generate_series(1, 20000)");
    ask(&connection, "SELECT 1");
    // One transaction is one operation, however many statements are in it and however it ends.
    ask(&connection, "BEGIN; INSERT INTO kept VALUES ('a'); INSERT INTO kept VALUES ('b'); COMMIT");
    ask(&connection, "BEGIN; DELETE FROM kept; ROLLBACK");
    complaint(&connection, "SELECT 1 / 0");
    // In another database of the instance too.
    ask(&connection, "CREATE DATABASE other");
    ask(&connection.replace("/postgres?", "/other?"), "SELECT 1");
    asleep(&howdah).await;
    counted(&howdah, &path, 7).await;
    let servers = howdah.directory().servers();
    let answer = owner.get(&path).await;
    assert_eq!(howdah.directory().servers(), servers, "it was not woken");
    assert_eq!(answer.body["metrics"]["operations"]["unit"], "ops");
    assert_eq!(answer.body["metrics"]["storage"]["unit"], "GiB");
    let storage = answer.body["metrics"]["storage"]["used"].as_f64().unwrap();
    assert!((0.02..0.2).contains(&storage), "{storage}");

    // The count goes on where it was, and the size is that of now.
    ask(&connection, "DROP TABLE kept");
    ask(&connection, "DROP DATABASE other");
    asleep(&howdah).await;
    counted(&howdah, &path, 9).await;
    let smaller = owner.get(&path).await.body["metrics"]["storage"]["used"].as_f64().unwrap();
    assert!(smaller < storage - 0.018, "{storage} GiB, then {smaller}");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn counts_survive_kill_9_and_restarts() {
    let mut howdah = Howdah::start_with(&["--idle-stop", "1s"]).await;
    let project = howdah.owner().create_project("survivor").await;
    let path = usage_of(&project);
    let connection = |howdah: &Howdah| {
        let (rest, _) =
            connection_string(&project).rsplit_once("@").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        format!("{rest}@{}/postgres?sslmode=disable", howdah.gateway())
    };
    for _ in 0..3 {
        ask(&connection(&howdah), "SELECT 1");
    }
    howdah.kill();
    howdah.launch().await;
    asleep(&howdah).await;
    counted(&howdah, &path, 3).await;

    // A session that is still open when Howdah stops, and what it did just now.
    let (client, session) = tokio_postgres::connect(&connection(&howdah), tokio_postgres::NoTls).await.unwrap();
    let work = async {
        client.batch_execute("SELECT 1").await.unwrap();
        client.batch_execute("SELECT 2").await.unwrap();
        howdah.stop().await
    };
    let (ended, status) = tokio::join!(session, work);
    assert!(ended.is_err() && status.success());
    howdah.launch().await;
    assert_eq!(howdah.directory().servers().len(), 1);
    assert_eq!(operations(&howdah.owner(), &path).await, 5);

    // A crash of the server takes its counters along, but not what was recorded.
    ask(&connection(&howdah), "SELECT 1");
    let instances = howdah.directory().path().join("instances");
    let servers = howdah.directory().servers();
    let (server, _) = servers.iter().find(|(_, data)| data.starts_with(&instances)).expect("it is awake");
    kill_process(Pid::from_raw(*server).unwrap(), Signal::KILL).unwrap();
    asleep(&howdah).await;
    let before = operations(&howdah.owner(), &path).await;
    assert!([5, 6].contains(&before), "{before}");
    eventually("the database to answer again", async || {
        crate::harness::psql(&connection(&howdah), "SELECT 1").status.success().then_some(())
    })
    .await;
    asleep(&howdah).await;
    counted(&howdah, &path, before + 1).await;
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn usage_is_summed_by_hour_and_deleted_with_the_database() {
    let howdah = Howdah::start().await;
    let (owner, (stranger, token)) = (howdah.owner(), howdah.stranger_with_token().await);
    let project = owner.create_project("counted").await;
    let path = usage_of(&project);
    let id = DatabaseId::parse(project["database"]["id"].as_str().unwrap()).unwrap();
    let (store, tasks) = howdah.store();
    let session = store.session().await.unwrap();
    for (hour, operations, gibibytes) in
        [("2020-01-31T22", 1i64, 1i64), ("2020-01-31T23", 10, 2), ("2020-02-01T00", 100, 3)]
    {
        let insert = format!(
            "INSERT INTO usage_hours VALUES ($1, '{hour}:00:00Z', $2, $3::bigint << 30, '{hour}:30:00Z'::timestamptz)"
        );
        session.execute(&insert, &[&id.uuid(), &operations, &gibibytes]).await.unwrap();
    }
    drop(session);
    tasks.stop();
    let used = async |start: &str, end: &str| {
        let answer = owner.get(&format!("{path}?startDate={start}&endDate={end}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let metrics = &answer.body["metrics"];
        (metrics["operations"]["used"].as_u64().unwrap(), metrics["storage"]["used"].as_f64().unwrap())
    };
    assert_eq!(used("2020-01-31T22:00:00Z", "2020-02-01T01:00:00Z").await, (111, 3.0));
    // Whole hours add up; an hour that is touched counts.
    assert_eq!(used("2020-01-31T22:00:00Z", "2020-01-31T23:00:00Z").await, (1, 1.0));
    assert_eq!(used("2020-01-31T23:00:00Z", "2020-02-01T00:00:00Z").await, (10, 2.0));
    assert_eq!(used("2020-01-31T22:59:59Z", "2020-01-31T23:00:01Z").await, (11, 2.0));
    assert_eq!(used("2020-02-01T02:30:00%2B02:00", "2020-02-01T02:45:00%2B02:00").await, (100, 3.0));
    // The size of a quiet time is that of before it, and nothing is known of the time before.
    assert_eq!(used("2020-03-01T00:00:00Z", "2020-03-02T00:00:00Z").await, (0, 3.0));
    assert_eq!(used("2019-03-01T00:00:00Z", "2019-03-02T00:00:00Z").await, (0, 0.0));
    assert_eq!(used("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z").await.0, 111);

    let now = Clock::system().now();
    let answer = owner.get(&path).await;
    let period = &answer.body["period"];
    assert!(period["start"].as_str().unwrap().ends_with("-01T00:00:00.000Z"), "{period}");
    assert!(period["end"].as_str().unwrap() >= format_timestamp(now).as_str());
    assert_eq!(period["end"], answer.body["generatedAt"]);
    let tomorrow = format_timestamp(now + SignedDuration::from_hours(24));
    let clamped = owner.get(&format!("{path}?endDate={tomorrow}")).await;
    assert!(clamped.body["period"]["end"].as_str().unwrap().ends_with("T23:59:59.999Z"), "{}", clamped.body);

    for bad in [
        "startDate=yesterday",
        "startDate=",
        "endDate=2020-01-01",
        "endDate=2020-01-01T00:00:00",
        "endDate=%00",
        "endDate=%ff",
        "startDate=2020-01-01T00:00:00Z&startDate=2020-01-01T00:00:00Z",
        "startDate=2020-01-02T00:00:00Z&endDate=2020-01-01T00:00:00Z",
        "startDate=2999-01-01T00:00:00Z",
        "endDate=2020-01-01T00:00:00Z",
    ] {
        owner.get(&format!("{path}?{bad}")).await.assert_error(400, "client-error");
    }
    for unknown in ["db_00000000000000000000000000", "nonsense", "%00"] {
        owner.get(&format!("/v1/databases/{unknown}/usage")).await.assert_error(404, "resource-not-found");
    }

    let transfer = format!("/v1/projects/{}/transfer", project["id"].as_str().unwrap());
    stranger.get(&path).await.assert_error(404, "resource-not-found");
    owner.post(&transfer, json!({"recipientAccessToken": token})).await.data(200);
    owner.get(&path).await.assert_error(404, "resource-not-found");
    assert_eq!(
        operations(&stranger, &format!("{path}?startDate=2020-01-01T00:00:00Z&endDate=2020-03-01T00:00:00Z")).await,
        111
    );
}
