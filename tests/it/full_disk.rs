//! A full disk: the instance that fills it is stopped, and everything else goes on.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio_postgres::NoTls;
use tokio_postgres::error::DbError;

use crate::harness::{Disk, Howdah, Person, ask, complaint, connection_string, eventually, psql};

const MEBIBYTE: u64 = 1 << 20;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn free_bytes(path: &Path) -> u64 {
    let facts = rustix::fs::statvfs(path).unwrap();
    facts.f_bavail * facts.f_frsize
}

/// How much room a file takes.
fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or(0, |facts| facts.blocks() * 512)
}

/// Takes the room that is left, but for so much, and says in which file.
fn fill(directory: &Path, but: u64) -> std::path::PathBuf {
    let path = directory.join("filler");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![1; MEBIBYTE as usize];
    while free_bytes(directory) >= but + MEBIBYTE && file.write_all(&block).is_ok() {}
    if but == 0 {
        while file.write_all(&block[..4096]).is_ok() {}
    }
    file.sync_all().unwrap();
    path
}

async fn readiness(person: &Person) -> String {
    person.request(Method::GET, "/readyz").send().await.unwrap().text().await.unwrap()
}

/// Inserts until the session ends, and says why.
async fn fill_by_sql(connection: &str) -> DbError {
    let rows = "INSERT INTO filler SELECT repeat(md5(n::text), 30) FROM generate_series(1, 4000) AS n";
    repeat_until_the_end(connection, "CREATE TABLE IF NOT EXISTS filler (text text)", rows).await
}

/// Creates tables, three files each, until the session ends, and says why.
async fn fill_by_tables(connection: &str) -> DbError {
    let tables = "DO $$ BEGIN FOR n IN 1..20 LOOP \
                  EXECUTE format('CREATE TABLE t%s (t text)', nextval('number')); END LOOP; END $$";
    repeat_until_the_end(connection, "CREATE SEQUENCE number", tables).await
}

async fn repeat_until_the_end(connection: &str, begin: &str, statement: &str) -> DbError {
    let (client, session) = tokio_postgres::connect(connection, NoTls).await.unwrap();
    let insert = async {
        client.batch_execute(begin).await?;
        loop {
            client.batch_execute(statement).await?;
        }
    };
    // It is said to the statement that goes on, or to the session when none does.
    let (stopped, ended): (Result<(), tokio_postgres::Error>, _) = tokio::join!(insert, session);
    let said = [stopped.err(), ended.err()];
    let found = said.iter().flatten().find_map(|error| error.as_db_error());
    found.unwrap_or_else(|| panic!("the server says why: {said:?}")).clone()
}

#[tokio::test]
async fn start_works_with_no_byte_free() {
    if !is_root() {
        return; // only root can mount a small file system
    }
    let disk = Disk::of_mebibytes(1024);
    let ballast = disk.path().join("ballast");
    let mut howdah = Howdah::start_on(disk.path().to_owned(), &[]).await;
    howdah.expect_errors(&["is almost full"]);
    let project = howdah.owner().create_project("tenant").await;
    ask(&connection_string(&project), "CREATE TABLE kept AS SELECT 7 AS n");
    let reserve = 56 * MEBIBYTE; // a sixteenth of what the file system has of 1 GiB, about
    eventually("the reserve to be set aside", async || (size(&ballast) >= reserve).then_some(())).await;
    for kill in [false, true] {
        if kill {
            howdah.kill()
        } else {
            howdah.stop().await;
        }
        let filler = fill(disk.path(), 0);
        assert!(free_bytes(disk.path()) < 64 << 10, "{} bytes are free", free_bytes(disk.path()));
        howdah.launch().await;
        assert!(howdah.log().contains("of the reserve so that Howdah can start"), "{}", howdah.log());
        let owner = howdah.owner();
        let answer = owner.post("/v1/projects", json!({"name": "no room"})).await;
        answer.assert_error(503, "service-unavailable");
        let said = readiness(&owner).await;
        assert!(said.starts_with("ready; the disk of the data directory is getting full"), "{said}");
        let id = project["database"]["id"].as_str().unwrap();
        let connections = format!("/v1/databases/{id}/connections");
        let made = owner.post(&connections, json!({"name": format!("after {kill}")})).await;
        let connection = made.data(200)["endpoints"]["direct"]["connectionString"].as_str().unwrap().to_owned();
        assert_eq!(ask(&connection, "SELECT n FROM kept"), "7");

        std::fs::remove_file(filler).unwrap();
        eventually("the reserve to be set aside again", async || (size(&ballast) >= reserve).then_some(())).await;
        eventually("plenty of room", async || (readiness(&owner).await == "ready\n").then_some(())).await;
    }
    howdah.owner().create_project("room").await;
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn tenant_that_fills_the_disk_is_stopped_and_can_clean_up() {
    if !is_root() {
        return; // only root can mount a small file system
    }
    let disk = Disk::of_mebibytes(1536);
    let mut howdah = Howdah::start_on(disk.path().to_owned(), &[]).await;
    howdah.expect_errors(&["is almost full"]);
    let owner = howdah.owner();
    let (filler, other) = (owner.create_project("filler").await, owner.create_project("other").await);
    let connection = connection_string(&filler);
    let neighbour = connection_string(&other);
    ask(&neighbour, "CREATE TABLE kept (n int)");
    let (client, session) = tokio_postgres::connect(&neighbour, NoTls).await.unwrap();

    let go_on = async {
        for n in 0.. {
            client.execute("INSERT INTO kept VALUES ($1)", &[&n]).await.expect("the neighbour goes on");
            owner.get("/v1/projects").await.data(200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let fill_and_clean_up = async {
        let begun = Instant::now();
        let said = fill_by_sql(&connection).await;
        eprintln!("stopped after {:?} with {} MiB free", begun.elapsed(), free_bytes(disk.path()) / MEBIBYTE);
        assert_eq!(said.code().code(), "53100", "{said}");
        assert!(said.message().contains("the database grew while the server's disk was almost full"), "{said}");
        let refused = owner.post("/v1/projects", json!({"name": "no room"})).await;
        refused.assert_error(503, "service-unavailable");

        // It comes in again, by itself or to clean up.
        let refused = complaint(&connection, "SELECT 1");
        assert!(refused.contains("connect again in") && refused.contains("to delete data"), "{refused}");
        eventually("the owner to be let in", async || psql(&connection, "SELECT 1").status.success().then_some(()))
            .await;
        let warned = psql(&connection, "SELECT 1");
        let warned = String::from_utf8_lossy(&warned.stderr).into_owned();
        assert!(warned.contains("WARNING:  the server's disk is almost full"), "{warned}");
        let refused = complaint(&connection, "INSERT INTO filler VALUES ('more')");
        assert!(refused.contains("cannot execute INSERT in a read-only transaction"), "{refused}");
        ask(&connection, "BEGIN READ WRITE; DROP TABLE filler; COMMIT");
        eventually("plenty of room", async || (readiness(&owner).await == "ready\n").then_some(())).await;
        ask(&connection, "CREATE TABLE again AS SELECT 1");

        // One who goes on and on stays out, and a delete frees the room, which needs no other backup.
        let said = fill_by_sql(&connection).await;
        assert_eq!(said.code().code(), "53100", "{said}");
        let project = filler["id"].as_str().unwrap();
        owner.delete(&format!("/v1/projects/{project}")).await.data(204);
        eventually("plenty of room", async || (readiness(&owner).await == "ready\n").then_some(())).await;
        owner.create_project("afterwards").await;
    };
    tokio::select! {
        () = go_on => {}
        () = fill_and_clean_up => {}
        ended = session => panic!("the neighbour's session ended: {ended:?}"),
    }
    assert!(ask(&neighbour, "SELECT count(*) FROM kept").parse::<u32>().unwrap() > 10);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn delete_frees_the_room_without_a_last_backup_and_says_so() {
    if !is_root() {
        return; // only root can mount a small file system
    }
    let disk = Disk::of_mebibytes(1024);
    let mut howdah = Howdah::start_on(disk.path().to_owned(), &["--undelete", "168h"]).await;
    howdah.expect_errors(&["is almost full"]);
    let owner = howdah.owner();
    let project = owner.create_project("filler").await;
    ask(&connection_string(&project), "CREATE TABLE kept AS SELECT 1 AS n");
    // The rest of the disk is somebody else's.
    let filler = fill(disk.path(), 150 * MEBIBYTE);
    eventually("the level to be known", async || readiness(&owner).await.contains("getting full").then_some(())).await;
    let before = free_bytes(disk.path());
    owner.delete(&format!("/v1/projects/{}", project["id"].as_str().unwrap())).await.data(204);
    let ended = eventually("the delete to end", async || {
        let operations = owner.get("/v1/operations").await.data(200).clone();
        let mut all = operations.as_array().unwrap().iter();
        all.find(|found| found["kind"] == "delete_database" && found["endedAt"].is_string()).cloned()
    })
    .await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(ended["reason"].as_str().unwrap().starts_with("no final backup was created"), "{ended}");
    assert!(free_bytes(disk.path()) > before, "the room is free again");
    let workspace = owner.workspace_id().await;
    let log = owner.get(&format!("/v1/workspaces/{workspace}/audit-log?action=skip_last_backup")).await;
    let entry = &log.data(200)[0];
    assert_eq!(entry["resource"]["id"], project["database"]["id"], "{entry}");
    assert!(entry["reason"].as_str().unwrap().starts_with("no final backup was created"), "{entry}");
    std::fs::remove_file(filler).unwrap();
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn parallel_queries_do_not_use_what_is_common_to_all_servers() {
    let howdah = Howdah::start().await;
    let connection = connection_string(&howdah.owner().create_project("parallel").await);
    assert_eq!(ask(&connection, "SHOW dynamic_shared_memory_type"), "mmap");
    ask(&connection, "CREATE TABLE numbers AS SELECT generate_series(1, 100000) AS n; ANALYZE numbers");
    let parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;";
    let plan = ask(&connection, &format!("{parallel} EXPLAIN (ANALYZE) SELECT count(*) FROM numbers"));
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    assert_eq!(ask(&connection, &format!("{parallel} SELECT sum(n) FROM numbers")), "5000050000");
}

#[tokio::test]
async fn tenant_that_uses_up_the_inodes_is_stopped() {
    if !is_root() {
        return; // only root can mount a small file system
    }
    let disk = Disk::of_inodes(20_000);
    let mut howdah = Howdah::start_on(disk.path().to_owned(), &[]).await;
    howdah.expect_errors(&["is almost full"]);
    let owner = howdah.owner();
    let (filler, other) = (owner.create_project("filler").await, owner.create_project("other").await);
    let neighbour = connection_string(&other);
    ask(&neighbour, "CREATE TABLE kept AS SELECT 1 AS n");
    let said = fill_by_tables(&connection_string(&filler)).await;
    assert_eq!(said.code().code(), "53100", "{said}");
    assert!(said.message().contains("the database grew while the server's disk was almost full"), "{said}");
    let notice = readiness(&owner).await;
    assert!(notice.contains("inodes are free"), "{notice}");
    owner.post("/v1/projects", json!({"name": "no room"})).await.assert_error(503, "service-unavailable");
    ask(&neighbour, "CREATE TABLE more AS SELECT n FROM kept");
    owner.delete(&format!("/v1/projects/{}", filler["id"].as_str().unwrap())).await.data(204);
    eventually("plenty of room", async || (readiness(&owner).await == "ready\n").then_some(())).await;
    ask(&neighbour, "CREATE TABLE again AS SELECT n FROM more");
    howdah.assert_tidy().await;
}
