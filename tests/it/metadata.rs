//! The metadata store dies under load: tenants go on, the API comes back, and nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Howdah, Person, ask, connection_string, eventually};

const KILLS: usize = 50;

/// The process of the metadata instance's server.
fn server(howdah: &Howdah) -> Option<i32> {
    let data = howdah.directory().path().join("metadata/data");
    howdah.directory().servers().into_iter().find(|(_, of)| *of == data).map(|(pid, _)| pid)
}

async fn is_ready(howdah: &Howdah) -> bool {
    reqwest::get(format!("{}/readyz", howdah.url())).await.unwrap().status() == 200
}

/// Sends a request that the death of the metadata store may get in the way of; `None` when it did.
async fn try_to(person: &Person, method: Method, path: &str, body: Option<Value>) -> Option<Value> {
    let mut request = person.request(method.clone(), path);
    if let Some(body) = &body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let (status, waits) = (response.status(), response.headers().contains_key("retry-after"));
    let answer: Value = response.json().await.unwrap();
    assert!(status.is_success() || (status == 503 && waits), "{method} {path} answered {status}: {answer}");
    status.is_success().then(|| answer["data"].clone())
}

#[tokio::test]
async fn probe_says_that_the_metadata_instance_cannot_be_restarted() {
    let mut howdah = Howdah::start().await;
    howdah.expect_errors(&["the metadata instance ended unexpectedly", "the metadata instance could not be restarted"]);
    let (control, aside) = ("metadata/data/global/pg_control", "metadata/data/global/aside");
    let path = |name| howdah.directory().path().join(name);
    std::fs::rename(path(control), path(aside)).unwrap();
    kill_process(Pid::from_raw(server(&howdah).unwrap()).unwrap(), Signal::KILL).unwrap();
    let probe = async || reqwest::get(format!("{}/readyz", howdah.url())).await.unwrap();
    let said = eventually("a second attempt to fail", async || {
        let text = probe().await.text().await.unwrap();
        text.contains("2 attempts failed").then_some(text)
    })
    .await;
    assert!(said.starts_with("the metadata instance ended "), "{said}");
    assert_eq!(probe().await.status(), 503);
    assert!(howdah.log().contains("could not open file"), "the log has the reason");

    std::fs::rename(path(aside), path(control)).unwrap();
    eventually("the metadata instance to be back", async || is_ready(&howdah).await.then_some(())).await;
    howdah.owner().create_project("afterwards").await;
}

#[tokio::test]
async fn metadata_instance_killed_fifty_times_under_load_loses_nothing() {
    let mut howdah = Howdah::start().await;
    howdah.expect_errors(&["the metadata instance ended unexpectedly"]);
    let owner = howdah.owner();
    let connection = connection_string(&owner.create_project("tenant").await);
    let (tenant, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    ask(&connection, "CREATE TABLE kept (n int)");

    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let create = async {
        let mut created = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let body = json!({"name": "made", "createDatabase": false});
            if let Some(project) = try_to(&owner, Method::POST, "/v1/projects", Some(body)).await {
                let path = format!("/v1/projects/{}", project["id"].as_str().unwrap());
                created.push(path.clone());
                made.fetch_add(1, Ordering::Relaxed);
                // Another answer than 200 and 503 fails the test: what was answered is there.
                try_to(&owner, Method::GET, &path, None).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        created
    };
    let write = async {
        let mut written = 0;
        while !over.load(Ordering::Relaxed) {
            tenant.execute("INSERT INTO kept VALUES ($1)", &[&written]).await.expect("the tenant's session goes on");
            written += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        written
    };
    let kill = async {
        let mut longest = Duration::ZERO;
        for kill in 0..KILLS {
            let pid = eventually("the metadata instance to run", async || server(&howdah)).await;
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            let (killed, before) = (Instant::now(), made.load(Ordering::Relaxed));
            eventually("the API to be back", async || {
                let health = reqwest::get(format!("{}/healthz", howdah.url())).await.unwrap();
                assert_eq!(health.status(), 200, "an outage of seconds is not unhealthy");
                let back = server(&howdah).is_some_and(|now| now != pid) && is_ready(&howdah).await;
                (back && made.load(Ordering::Relaxed) > before).then_some(())
            })
            .await;
            longest = longest.max(killed.elapsed());
            // The next one at another moment of what goes on.
            tokio::time::sleep(Duration::from_millis(7 * (kill as u64 % 10))).await;
        }
        over.store(true, Ordering::Relaxed);
        longest
    };
    let work = async { tokio::join!(create, write, kill) };
    let (created, written, longest) = tokio::select! {
        done = work => done,
        ended = session => panic!("the tenant's session ended: {ended:?}"),
    };

    eprintln!("{} projects and {written} rows through {KILLS} kills; longest outage {longest:?}", created.len());
    assert!(created.len() >= KILLS && written > 0);
    for path in &created {
        owner.get(path).await.data(200);
    }
    assert_eq!(ask(&connection, "SELECT count(*) FROM kept"), written.to_string());
    let again = connection_string(&owner.create_project("afterwards").await);
    assert_eq!(ask(&again, "SELECT 1"), "1");
    let restarts = howdah.log().matches("the metadata instance runs again").count();
    assert_eq!(restarts, KILLS, "each restart is in the log");
    howdah.assert_tidy().await;
}
