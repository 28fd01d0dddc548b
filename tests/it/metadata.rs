//! The metadata store dies or freezes: tenants go on, everybody else is told in time, and nothing is lost.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::store::{Session, Store, in_background};
use base::tasks::Tasks;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Directory, Howdah, Person, ask, connection_string, eventually};

const KILLS: usize = 50;

/// The process of the metadata instance's server.
fn server(howdah: &Howdah) -> Option<i32> {
    let data = howdah.directory().path().join("metadata/data");
    howdah.directory().servers().into_iter().find(|(_, of)| *of == data).map(|(pid, _)| pid)
}

async fn is_ready(person: &Person) -> bool {
    person.request(Method::GET, "/readyz").send().await.unwrap().status() == 200
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
    let owner = howdah.owner();
    let said = eventually("a second attempt to fail", async || {
        let response = owner.request(Method::GET, "/readyz").send().await.unwrap();
        assert_eq!(response.status(), 503);
        let text = response.text().await.unwrap();
        text.contains(" attempts failed, see the log").then_some(text)
    })
    .await;
    assert!(said.starts_with("the metadata instance ended "), "{said}");
    assert!(howdah.log().contains("could not open file"), "the log has the reason");

    std::fs::rename(path(aside), path(control)).unwrap();
    eventually("the metadata instance to be back", async || is_ready(&owner).await.then_some(())).await;
    owner.create_project("afterwards").await;
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
                let health = owner.request(Method::GET, "/healthz").send().await.unwrap();
                assert_eq!(health.status(), 200, "an outage of seconds is not unhealthy");
                let back = server(&howdah).is_some_and(|now| now != pid) && is_ready(&owner).await;
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
    let restarts = howdah.log().matches("the metadata instance is running again").count();
    assert_eq!(restarts, KILLS, "each restart is in the log");
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn connection_with_an_abandoned_statement_is_given_to_nobody_else() {
    let howdah = Howdah::start().await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(howdah.directory().path().join("metadata/socket")).user("howdah").dbname("howdah");
    let tasks = Tasks::default();
    let store = Store::open(config, 1, &tasks).unwrap();
    let process =
        async |session: &Session| -> i32 { session.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0) };
    let abandon = async |session: Session, statement: &str| {
        let given_up = tokio::time::timeout(Duration::from_millis(100), session.batch_execute(statement)).await;
        assert!(given_up.is_err(), "{statement} goes on");
    };

    let session = store.session().await.unwrap();
    let first = process(&session).await;
    let begun = Instant::now();
    abandon(session, "SELECT pg_sleep(2)").await;
    let session = store.session().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "the only connection is free after {:?}", begun.elapsed());
    assert_eq!(process(&session).await, first, "it is used again after the statement has ended");

    abandon(session, "SELECT pg_sleep(600)").await;
    let second = in_background(async { process(&store.session().await.unwrap()).await }).await;
    assert_ne!(second, first, "it is closed when the statement does not end");
    tasks.stop();
}

/// Sends a signal to the server of the metadata store and to all of its processes.
fn signal_all(data: &Path, signal: Signal) {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let server = text.lines().next().unwrap();
    let signal_one = |pid: &str| kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), signal);
    signal_one(server).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
    for child in children.split_whitespace() {
        let _ = signal_one(child);
    }
}

/// What the gateway tells a new session, and after how long.
async fn refused_session(connection: &str) -> (Duration, tokio_postgres::Error) {
    let begun = Instant::now();
    let refused = tokio_postgres::connect(connection, tokio_postgres::NoTls).await;
    (begun.elapsed(), refused.err().expect("a session needs the metadata store"))
}

/// What an address of the API or the console answers, and after how long.
async fn answered(person: &Person, path: &str) -> (Duration, StatusCode, bool, String) {
    let begun = Instant::now();
    let response = person.request(Method::GET, path).send().await.unwrap();
    let (status, waits) = (response.status(), response.headers().contains_key("retry-after"));
    (begun.elapsed(), status, waits, response.text().await.unwrap())
}

/// Freezes the store in this data directory, and looks at everything that needs it.
async fn freeze_and_thaw(howdah: &mut Howdah, data: &Path) {
    howdah.expect_errors(&["the metadata store is not responding", "backup of Howdah's metadata failed"]);
    let owner = howdah.owner();
    let connection = connection_string(&owner.create_project("before").await);
    let (tenant, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    let tenant_goes_on = async || assert_eq!(tenant.query_one("SELECT 7", &[]).await.unwrap().get::<_, i32>(0), 7);
    let bound = Duration::from_secs(5);

    let frozen = async {
        tenant_goes_on().await;
        let under_way = owner.request(Method::POST, "/v1/projects").json(&json!({"name": "meanwhile"}));
        // Somewhere in the middle of the create.
        let create = async {
            let begun = Instant::now();
            (under_way.send().await.unwrap().status(), begun.elapsed())
        };
        let freeze = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            signal_all(data, Signal::STOP);
            let probe = answered(&owner, "/readyz");
            let requests = join_all((0..60).map(|_| answered(&owner, "/v1/projects")));
            let sessions = join_all((0..20).map(|_| refused_session(&connection)));
            let page = answered(&owner, "/console/sign-in");
            tokio::join!(probe, requests, sessions, page)
        };
        let ((status, after), (probe, requests, sessions, page)) = tokio::join!(create, freeze);
        assert!(status == 201 || status == 503, "{status}");
        assert!(after < bound, "a request that was under way took {after:?}");
        let (after, status, waits, said) = probe;
        assert!(after < Duration::from_secs(2) && status == 503 && waits, "/readyz: {status} after {after:?}: {said}");
        for (after, status, waits, said) in requests {
            assert!(after < bound && status == 503 && waits, "API: {status} after {after:?}: {said}");
            assert!(said.contains("the metadata store is not responding"), "{said}");
        }
        for (after, refused) in sessions {
            let said = refused.as_db_error().unwrap_or_else(|| panic!("no sentence after {after:?}: {refused}"));
            assert!(after < bound, "a session was refused after {after:?}");
            assert_eq!(said.code().code(), "57P03", "{said}");
            assert!(said.message().contains("cannot look up connections right now"), "{said}");
        }
        let (after, status, _, said) = page;
        assert!(after < bound && status == 503, "console: {status} after {after:?}: {said}");
        assert!(said.contains("<html") && said.contains("the metadata store is not responding"), "{said}");

        // Once that is known, nobody waits any more.
        let mut waited = Vec::new();
        for _ in 0..20 {
            let (after, status, ..) = answered(&owner, "/v1/projects").await;
            assert!(status == 503 && after < bound, "API: {status} after {after:?}");
            waited.push(after);
        }
        waited.sort();
        assert!(waited[10] < Duration::from_millis(500), "while the store is silent requests fail at once: {waited:?}");
        tenant_goes_on().await;

        signal_all(data, Signal::CONT);
        let thawed = Instant::now();
        eventually("everything to be back", async || {
            let (.., probe, _, _) = answered(&owner, "/readyz").await;
            let (.., status, _, _) = answered(&owner, "/v1/projects").await;
            let enters = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.is_ok();
            (probe == 200 && status == 200 && enters).then_some(())
        })
        .await;
        eprintln!("back {:?} after the store went on", thawed.elapsed());
        assert!(thawed.elapsed() < Duration::from_secs(10), "back after {:?}", thawed.elapsed());
        tenant_goes_on().await;
    };
    tokio::select! {
        () = frozen => {}
        ended = session => panic!("the tenant's session ended: {ended:?}"),
    }
    // Whatever was under way is finished, and what comes next works.
    let after = connection_string(&owner.create_project("afterwards").await);
    assert_eq!(ask(&after, "SELECT 1"), "1");
    for project in owner.get("/v1/projects").await.data(200).as_array().unwrap() {
        let path = format!("/v1/projects/{}/databases", project["id"].as_str().unwrap());
        eventually("each database to be ready", async || {
            (owner.get(&path).await.data(200)[0]["status"] == "ready").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn frozen_metadata_instance_is_reported_in_time_and_everything_goes_on_afterwards() {
    let mut howdah = Howdah::start().await;
    let data = howdah.directory().path().join("metadata/data");
    freeze_and_thaw(&mut howdah, &data).await;
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn frozen_external_metadata_store_is_reported_in_time_and_everything_goes_on_afterwards() {
    let directory = Directory::new();
    let external = directory.metadata_instance().await;
    external.ensure_started().await.unwrap();
    {
        let socket = directory.path().join("metadata/socket");
        let url = format!("host={} user=howdah dbname=howdah", socket.display());
        let mut howdah = Howdah::start_with(&["--metadata-url", &url]).await;
        freeze_and_thaw(&mut howdah, &directory.path().join("metadata/data")).await;
        howdah.stop().await;
    }
    external.ensure_stopped().await.unwrap();
}
