//! Backups with pgBackRest, and every way back, on real PostgreSQL.

#![expect(unreachable_pub, reason = "tests are one crate; pub says what other tests may use of this")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base::store::Channel;
use rand::prelude::{IndexedRandom as _, RngExt as _, SeedableRng as _, StdRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Disk, Howdah, Person, ask, connection_string, eventually, postgres_program};

/// A database with something in it, somebody who has it, and its connection string.
pub struct Kept {
    pub owner: Person,
    pub project: String,
    pub id: String,
    pub connection: String,
}

impl Kept {
    pub async fn new(howdah: &Howdah) -> Self {
        let owner = howdah.owner();
        let made = owner.create_project("kept").await;
        let connection = connection_string(&made);
        ask(&connection, "CREATE TABLE notes (n serial PRIMARY KEY, note text)");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self { owner, project: text(&made["id"]), id: text(&made["database"]["id"]), connection }
    }

    pub fn path(&self) -> String {
        format!("/v1/databases/{}", self.id)
    }

    pub fn note(&self, note: &str) {
        ask(&self.connection, &format!("INSERT INTO notes (note) VALUES ('{note}')"));
    }

    /// A backup that is complete.
    pub async fn back_up(&self) -> Value {
        self.back_up_as(json!({})).await
    }

    async fn back_up_as(&self, wanted: Value) -> Value {
        let made = self.owner.post(&format!("{}/backups", self.path()), wanted).await;
        let backup = made.data(202).clone();
        assert_eq!(backup["status"], "running");
        let ended = self.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        let listed = self.backups().await;
        let found = listed["data"].as_array().unwrap().iter().find(|listed| listed["id"] == backup["id"]).cloned();
        let found = found.unwrap_or_else(|| panic!("{backup} is not in {listed}"));
        assert_eq!(found["status"], "completed");
        found
    }

    pub async fn backups(&self) -> Value {
        let answer = self.owner.get(&format!("{}/backups", self.path())).await;
        answer.data(200);
        answer.body
    }

    /// A new database from a source; its connection string.
    pub async fn make_from(&self, name: &str, source: Value) -> String {
        let body = json!({"projectId": self.project, "name": name, "source": source});
        let made = self.owner.post("/v1/databases", body).await;
        let database = made.data(201).clone();
        let ended = self.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        connection_string(&database)
    }

    pub async fn restore_in_place(&self, source: Value) -> Value {
        let begun = self.owner.post(&format!("{}/restore", self.path()), json!({"source": source})).await;
        assert_eq!(begun.data(200)["status"], "recovering");
        self.owner.ended(begun.headers["howdah-operation"].to_str().unwrap()).await
    }

    /// Waits until no work on it is left, such as the first backup after a restore.
    pub async fn settled(&self) {
        eventually("all operations to end", async || self.is_settled().await.then_some(())).await;
    }

    async fn is_settled(&self) -> bool {
        let path = format!("/v1/operations?databaseId={}", self.id);
        let all = self.owner.get(&path).await.data(200).clone();
        all.as_array().unwrap().iter().all(|operation| operation["endedAt"].is_string())
    }
}

/// A connection string after another start, which has brought another port.
pub fn at(howdah: &Howdah, connection: &str) -> String {
    let (head, rest) = connection.split_once('@').unwrap();
    let (_, path) = rest.split_once('/').unwrap();
    format!("{head}@{}/{path}", howdah.gateway())
}

/// A moment that lies between what was committed before and what is committed afterwards.
pub fn moment(connection: &str) -> String {
    ask(connection, "SELECT pg_sleep(0.05)");
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let moment = ask(connection, now);
    ask(connection, "SELECT pg_sleep(0.05)");
    moment
}

pub fn notes(connection: &str) -> String {
    ask(connection, "SELECT coalesce(string_agg(note, ' ' ORDER BY n), '') FROM notes")
}

fn checksum(connection: &str) -> String {
    ask(connection, "SELECT md5(string_agg(a::text, '' ORDER BY aid)) FROM pgbench_accounts a")
}

/// pgbench at work until it is dropped.
struct Load(Child);

impl Load {
    fn on(connection: &str) -> Self {
        Self::with(&[], connection)
    }

    fn with(options: &[&str], connection: &str) -> Self {
        let child = Command::new(postgres_program("pgbench"))
            .args(["-n", "-c", "2", "-T", "600"])
            .args(options)
            .arg(connection)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn database_under_load_is_restored_in_every_way() {
    let howdah = Howdah::start_with(&["--backup-every", "0", "--archive-timeout", "1s"]).await;
    let kept = Kept::new(&howdah).await;
    let initialised =
        Command::new(postgres_program("pgbench")).args(["-i", "-q", "-s", "1", &kept.connection]).output().unwrap();
    assert!(initialised.status.success());
    let load = Load::on(&kept.connection);
    kept.note("before");
    let backup = kept.back_up().await;
    assert_eq!((&backup["backupType"], &backup["size"].is_i64()), (&json!("full"), &true));
    drop(load);
    kept.note("after");
    let (then, sum) = (moment(&kept.connection), checksum(&kept.connection));
    ask(&kept.connection, "UPDATE pgbench_accounts SET abalance = abalance + 1; DELETE FROM notes");
    kept.note("too late");

    let project = format!("/v1/projects/{}", kept.project);
    assert_eq!(kept.owner.patch(&project, json!({"backupRetentionDays": 3})).await.data(200)["backupRetentionDays"], 3);
    for bad in [0, 366] {
        kept.owner.patch(&project, json!({"backupRetentionDays": bad})).await.assert_error(422, "validation-error");
    }
    let listed = eventually("the moment to be archived", async || {
        let listed = kept.backups().await;
        (listed["meta"]["latestRestorableTime"].as_str().unwrap() >= then.as_str()).then_some(listed)
    })
    .await;
    assert_eq!(listed["meta"]["backupRetentionDays"], 3);
    assert_eq!(listed["meta"]["earliestRestorableTime"], backup["completedAt"]);

    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": backup["id"], "targetTime": then});
    let copy = kept.make_from("then", source.clone()).await;
    assert_eq!((notes(&copy).as_str(), checksum(&copy)), ("before after", sum.clone()), "at that moment");
    let clone = kept.make_from("clone", json!({"type": "database", "databaseId": kept.id})).await;
    assert_eq!(notes(&clone), "too late", "as it is now");

    // What the founding document has: to a new database by name.
    let way = format!("{}/backups/{}/restore", kept.path(), backup["id"].as_str().unwrap());
    let restored = kept.owner.post(&way, json!({"targetDatabaseName": "end of backup"})).await;
    let data = restored.data(202).clone();
    kept.owner.ended(restored.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(notes(&connection_string(&data)), "before");
    assert_eq!(data["source"]["backupId"], backup["id"]);
    let taken = kept.owner.post(&way, json!({"targetDatabaseName": "end of backup"})).await;
    taken.assert_error(409, "client-error");
    let nameless = kept.owner.post(&way, json!({"targetDatabaseName": ""})).await;
    nameless.assert_error(422, "validation-error");
    let said = nameless.body["error"]["message"].as_str().unwrap();
    assert!(said.starts_with("targetDatabaseName: "), "{said}");

    // In place: the same credentials, and sessions end.
    let (client, session) = tokio_postgres::connect(&kept.connection, tokio_postgres::NoTls).await.unwrap();
    let ended = kept.restore_in_place(source).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(session.await.is_err(), "the session was ended");
    drop(client);
    assert_eq!((notes(&kept.connection).as_str(), checksum(&kept.connection)), ("before after", sum));
    assert_eq!(kept.owner.get(&kept.path()).await.data(200)["status"], "ready");
    kept.settled().await;
    kept.owner.delete(&format!("/v1/projects/{}", kept.project)).await.data(204);
    howdah.assert_tidy().await;
    assert_eq!(vaults(&howdah), 0, "nothing is left of its backups");
}

fn vaults(howdah: &Howdah) -> usize {
    let names = directory_of(howdah).read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != "howdah-backups").count()
}

pub fn directory_of(howdah: &Howdah) -> PathBuf {
    howdah.directory().path().join("backups")
}

#[tokio::test]
async fn each_backup_generation_stays_restorable() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let backup = kept.back_up().await;
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": backup["id"]});
    let mut moments = Vec::new();
    for era in ["first", "second", "third"] {
        kept.note(era);
        moments.push((era, moment(&kept.connection)));
        kept.note("lost");
        if era != "third" {
            assert_eq!(kept.restore_in_place(source.clone()).await["state"], "succeeded");
            assert_eq!(notes(&kept.connection), "one");
            kept.settled().await;
        }
    }
    for (era, moment) in moments {
        let source = json!({"type": "database", "databaseId": kept.id, "targetTime": moment});
        let copy = kept.make_from(era, source).await;
        assert_eq!(notes(&copy), format!("one {era}"));
    }
    let outside = json!({"type": "database", "databaseId": kept.id, "targetTime": "2001-01-01T00:00:00Z"});
    let body = json!({"projectId": kept.project, "source": outside});
    let refused = kept.owner.post("/v1/databases", body).await;
    refused.assert_error(422, "validation-error");
    let earliest = kept.backups().await["meta"]["earliestRestorableTime"].as_str().unwrap().to_owned();
    assert!(refused.body["error"]["message"].as_str().unwrap().contains(&earliest), "{}", refused.body);
}

#[tokio::test]
async fn a_deleted_database_can_be_brought_back_for_a_while() {
    let howdah = Howdah::start_with(&["--backup-every", "0", "--undelete", "1h"]).await;
    let kept = Kept::new(&howdah).await;
    let other = kept.owner.create_project("other").await["id"].as_str().unwrap().to_owned();
    kept.note("precious");
    let unused = kept.owner.post("/v1/databases", json!({"projectId": kept.project, "name": "unused"})).await;
    let unused = unused.data(201)["id"].as_str().unwrap().to_owned();
    kept.owner.delete(&format!("/v1/databases/{unused}")).await.data(200);
    kept.owner.delete(&format!("/v1/projects/{}", kept.project)).await.data(204);
    kept.owner.get(&kept.path()).await.assert_error(404, "resource-not-found");
    howdah.assert_tidy().await;
    assert_eq!(howdah.directory().instances().len(), 1, "the instances are gone");

    let path = format!("/v1/projects/{}/deleted-databases", kept.project);
    let deleted = kept.owner.get(&path).await.data(200).clone();
    let ids: Vec<&Value> = deleted.as_array().unwrap().iter().map(|deleted| &deleted["id"]).collect();
    assert_eq!(ids, [&json!(kept.id)], "what was never used left nothing to keep");
    assert!(deleted[0]["restorableUntil"].as_str() > deleted[0]["deletedAt"].as_str());
    howdah.stranger().await.get(&path).await.assert_error(404, "resource-not-found");

    let source = json!({"type": "database", "databaseId": kept.id});
    let body = json!({"projectId": other, "name": "again", "source": source});
    let made = kept.owner.post("/v1/databases", body).await;
    let database = made.data(201).clone();
    kept.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(notes(&connection_string(&database)), "precious");
}

/// Kills the server of the one database that is awake.
async fn kill_a_server(howdah: &Howdah) {
    let instances = howdah.directory().path().join("instances");
    let server = || howdah.directory().servers().into_iter().find(|(_, data)| data.starts_with(&instances));
    let (pid, _) = server().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the server to be gone", async || server().is_none().then_some(())).await;
}

#[tokio::test]
async fn sessions_per_database_is_kept_and_may_change_between_a_backup_and_its_restore() {
    let arguments = ["--backup-every", "0", "--idle-stop", "1s", "--sessions-per-database"];
    let mut howdah = Howdah::start_with(&[&arguments[..], &["40"]].concat()).await;
    let mut kept = Kept::new(&howdah).await;
    let asleep = async |howdah: &Howdah| {
        let one = async || (howdah.directory().servers().len() == 1).then_some(());
        eventually("the database to sleep", one).await; // the metadata instance does not
    };
    asleep(&howdah).await;
    howdah.stop().await;
    howdah.replace_argument("--sessions-per-database", "60");
    howdah.launch().await;
    kept.owner = howdah.owner();
    kept.connection = at(&howdah, &kept.connection);
    let mut sessions = Vec::new();
    for _ in 0..60 {
        let (client, mut session) = tokio_postgres::connect(&kept.connection, tokio_postgres::NoTls).await.unwrap();
        // Without a transaction it would be ended when the instance is idle.
        tokio::select! {
            begun = client.batch_execute("BEGIN") => begun.unwrap(),
            ended = &mut session => panic!("{ended:?}"),
        }
        sessions.push((client, session));
    }
    let refused = tokio_postgres::connect(&kept.connection, tokio_postgres::NoTls).await.err().unwrap();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "53300");
    assert!(refused.message().contains("at most 60 sessions"), "{refused:?}");
    drop(sessions);
    let connect = async || tokio_postgres::connect(&kept.connection, tokio_postgres::NoTls).await.ok().map(drop);
    eventually("the sessions to end", connect).await;
    kept.note("of 60");
    assert_eq!(ask(&kept.connection, "SHOW max_connections"), "75");
    let backup = kept.back_up().await["id"].clone();
    asleep(&howdah).await;
    howdah.stop().await;
    howdah.replace_argument("--sessions-per-database", "2");
    howdah.launch().await;
    kept.owner = howdah.owner();
    kept.connection = at(&howdah, &kept.connection);
    let locks = "SELECT current_setting('max_connections')::int * current_setting('max_locks_per_transaction')::int";
    assert!(ask(&kept.connection, locks).parse::<u32>().unwrap() >= 6400, "as many as a stock server");
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": backup});
    let restored = kept.make_from("of_60", source).await;
    assert_eq!(ask(&restored, "SELECT note FROM notes"), "of 60");
    assert_eq!(ask(&restored, "SHOW max_connections"), "55");
}

#[tokio::test]
async fn copy_of_a_sleeping_database_shares_its_files() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can mount a file system
    }
    let disk = Disk::that_shares();
    let arguments = ["--backup-every", "0", "--idle-stop", "1s"];
    let mut howdah = Howdah::start_on(disk.path().join("data"), &arguments).await;
    let mut kept = Kept::new(&howdah).await;
    kept.note("one");
    ask(&kept.connection, "CREATE TABLE large AS SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) AS n");
    let used = || {
        let facts = rustix::fs::statvfs(disk.path()).unwrap();
        (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    };
    let asleep = async || (howdah.directory().servers().len() == 1).then_some(());
    eventually("the database to sleep", asleep).await; // the metadata instance does not
    let (before, source) = (used(), json!({"type": "database", "databaseId": kept.id}));
    let copy = kept.make_from("copy", source.clone()).await;
    let grown = used().saturating_sub(before);
    assert!(grown < 30_000_000, "the files of the copy are not the origin's: the disk holds {grown} bytes more");
    assert_eq!(kept.backups().await["data"], json!([]), "none was needed");
    assert_eq!(ask(&copy, "SELECT count(*) FROM large"), "60000");

    // They are two from then on, and stay so.
    ask(&copy, "INSERT INTO notes (note) VALUES ('copy'); DELETE FROM large WHERE n % 2 = 0");
    kept.note("two");
    howdah.kill();
    howdah.launch().await;
    kept.owner = howdah.owner();
    let copy = at(&howdah, &copy);
    kept.connection = at(&howdah, &kept.connection);
    assert_eq!((notes(&copy), notes(&kept.connection)), ("one copy".to_owned(), "one two".to_owned()));
    assert_eq!(ask(&kept.connection, "SELECT count(*) FROM large"), "60000");

    // One that did not end cleanly is not copied as it lies there.
    eventually("the databases to sleep", async || (howdah.directory().servers().len() == 1).then_some(())).await;
    kept.note("three");
    kill_a_server(&howdah).await;
    let copy = kept.make_from("crashed", source).await;
    assert_eq!(notes(&copy), "one two three");
    assert_eq!(kept.backups().await["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn copy_of_a_crashed_database_has_its_last_commits() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    kept.back_up().await;
    kept.note("two");
    kill_a_server(&howdah).await;
    let copy = kept.make_from("copy", json!({"type": "database", "databaseId": kept.id})).await;
    assert_eq!(notes(&copy), "one two");
}

#[tokio::test]
async fn restore_in_place_first_backs_up_the_current_data() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let model = Kept::new(&howdah).await;
    model.note("model");
    let backup = model.back_up().await;
    let kept = Kept::new(&howdah).await;
    kept.note("mine");
    let source = json!({"type": "backup", "databaseId": model.id, "backupId": backup["id"]});
    let ended = kept.restore_in_place(source).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(notes(&kept.connection), "model");
    kept.settled().await;
    let listed = kept.backups().await["data"].clone();
    let before = listed.as_array().unwrap().last().unwrap();
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": before["id"]});
    assert_eq!(notes(&kept.make_from("before", source).await), "mine");
}

#[tokio::test]
async fn repositories_are_removed_when_they_expire() {
    let mut howdah = Howdah::start_with(&["--undelete", "2s", "--steady-clock", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    kept.back_up().await;
    let before = vaults(&howdah);
    assert!(before > 0);
    let made = kept.owner.post("/v1/databases", json!({"projectId": kept.project, "name": "gone"})).await;
    let gone = Kept {
        id: made.data(201)["id"].as_str().unwrap().to_owned(),
        connection: connection_string(made.data(201)),
        owner: howdah.owner(),
        project: kept.project.clone(),
    };
    ask(&gone.connection, "CREATE TABLE notes (n serial PRIMARY KEY, note text)");
    gone.back_up().await;
    assert_eq!(vaults(&howdah), before + 1);
    gone.owner.delete(&gone.path()).await.data(200);
    howdah.assert_tidy().await;
    let listed = format!("/v1/projects/{}/deleted-databases", kept.project);
    eventually("the time to restore it to be over", async || {
        kept.owner.get(&listed).await.data(200).as_array().unwrap().is_empty().then_some(())
    })
    .await;
    // Retention is looked after at every start.
    howdah.stop().await;
    howdah.launch().await;
    eventually("its vault to be removed", async || (vaults(&howdah) == before).then_some(())).await;
}

#[tokio::test]
async fn delete_continues_once_the_latest_writes_are_archived() {
    let howdah = Howdah::start_with(&["--undelete", "1h"]).await;
    let kept = Kept::new(&howdah).await;
    kept.back_up().await;
    kept.note("last");
    let (place, aside) = (directory_of(&howdah), howdah.directory().path().join("aside"));
    std::fs::rename(&place, &aside).unwrap();
    let other = kept.owner.create_project("other").await;
    let deleted = kept.owner.delete(&format!("/v1/projects/{}", kept.project)).await;
    deleted.data(204);
    let operation = format!("/v1/operations/{}", deleted.headers["howdah-operation"].to_str().unwrap());
    let (store, tasks) = howdah.store();
    // As if it had been tried for half an hour.
    let often = async || {
        let session = store.session().await.unwrap();
        let often = "UPDATE workflows SET attempts = attempts + 60, run_after = now() WHERE kind = 'delete_database'";
        session.execute(often, &[]).await.unwrap();
        session.execute("SELECT pg_notify($1, '')", &[&Channel::WorkflowStarted.name()]).await.unwrap();
    };
    let waiting = async |attempts: i64| {
        eventually("it to be tried", async || {
            let operation = kept.owner.get(&operation).await.data(200).clone();
            (operation["attempts"].as_i64().unwrap() >= attempts && operation["state"] == "waiting")
                .then_some(operation)
        })
        .await
    };
    waiting(1).await;
    often().await;
    let told = waiting(62).await["reason"].as_str().unwrap().to_owned();
    assert!(told.contains("latest changes of the database") && told.contains("is missing"), "{told}");
    kept.owner.get(&kept.path()).await.assert_error(404, "resource-not-found");
    assert_eq!(howdah.directory().instances().len(), 2, "its instance is still there");
    assert!(!place.exists(), "nothing is put where nothing is mounted");

    std::fs::rename(&aside, &place).unwrap();
    often().await;
    tasks.stop();
    howdah.assert_tidy().await;
    assert_eq!(howdah.directory().instances().len(), 1);
    let kept = Kept { project: other["id"].as_str().unwrap().to_owned(), ..kept };
    let copy = kept.make_from("back", json!({"type": "database", "databaseId": kept.id})).await;
    assert_eq!(notes(&copy), "last");
}

#[tokio::test]
async fn lost_backup_directory_is_only_replaced_on_request() {
    let mut howdah = Howdah::start_with(&["--backup-every", "24h"]).await;
    howdah.expect_errors(&["the backup storage cannot be used", "backup of Howdah's metadata failed"]);
    let kept = Kept::new(&howdah).await;
    let lost = kept.back_up().await;
    kept.note("kept");
    let metadata = |howdah: &Howdah| howdah.log().matches("backed up Howdah's metadata").count();
    eventually("a backup of the metadata", async || (metadata(&howdah) == 1).then_some(())).await;
    howdah.stop().await;
    let (place, mark) = (directory_of(&howdah), howdah.directory().path().join("backup-place"));
    std::fs::rename(&place, howdah.directory().path().join("aside")).unwrap();
    std::fs::create_dir(&place).unwrap();

    // The disk may not be mounted: nothing is put there, and that is said.
    howdah.launch().await;
    assert!(howdah.log().contains(mark.to_str().unwrap()), "the way out is in the log");
    let kept = Kept { owner: kept.owner.on(&howdah), connection: at(&howdah, &kept.connection), ..kept };
    let begun = kept.owner.post(&format!("{}/backups", kept.path()), json!({})).await;
    let operation = begun.headers["howdah-operation"].to_str().unwrap().to_owned();
    eventually("the reason", async || {
        let operation = kept.owner.get(&format!("/v1/operations/{operation}")).await.data(200).clone();
        operation["reason"].as_str().is_some_and(|reason| reason.contains("is missing or was replaced")).then_some(())
    })
    .await;
    assert!(place.read_dir().unwrap().next().is_none(), "nothing is there");
    howdah.stop().await;

    // It is meant: what was there is listed no more, and everything is backed up anew.
    std::fs::remove_file(mark).unwrap();
    howdah.launch().await;
    let kept = Kept { owner: kept.owner.on(&howdah), connection: at(&howdah, &kept.connection), ..kept };
    assert_eq!(kept.owner.ended(&operation).await["state"], "succeeded");
    eventually("the other backup to be listed no more", async || {
        let listed = kept.backups().await;
        let completed = listed["data"].as_array().unwrap().iter().filter(|backup| backup["status"] == "completed");
        let ids: Vec<&Value> = completed.map(|backup| &backup["id"]).collect();
        (ids.len() == 1 && *ids[0] != lost["id"] && listed["meta"]["archiving"]["state"] == "ok").then_some(())
    })
    .await;
    let clone = kept.make_from("clone", json!({"type": "database", "databaseId": kept.id})).await;
    assert_eq!(notes(&clone), "kept");
    eventually("another backup of the metadata", async || (metadata(&howdah) == 2).then_some(())).await;
}

#[tokio::test]
async fn backup_dated_in_the_future_blocks_backups_until_a_restore_in_place() {
    let mut howdah = Howdah::start().await;
    howdah.expect_errors(&["workflow failed"]);
    let kept = Kept::new(&howdah).await;
    kept.back_up().await;
    kept.note("kept");
    // pgBackRest knows the labels of all backups that there ever were by the names of these files.
    let instance = howdah.directory().instances().pop().unwrap();
    let history = directory_of(&howdah).join(&instance).join("backup").join(&instance).join("backup.history/2099");
    std::fs::create_dir_all(&history).unwrap();
    std::fs::write(history.join("20990101-000000F.manifest.gz"), "").unwrap();
    let made = kept.owner.post(&format!("{}/backups", kept.path()), json!({})).await;
    let ended = kept.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(ended["state"], "failed");
    assert!(ended["reason"].as_str().unwrap().contains("clock was ahead"), "{ended}");

    let now = json!({"type": "database", "databaseId": kept.id, "targetTime": moment(&kept.connection)});
    assert_eq!(kept.restore_in_place(now).await["state"], "succeeded");
    kept.settled().await;
    assert_eq!(notes(&kept.connection), "kept");
    kept.back_up().await;
}

#[tokio::test]
async fn failed_restore_changes_nothing() {
    let mut howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let backup = kept.back_up().await;
    kept.note("two");
    let restore = format!("{}/restore", kept.path());
    let source = |id: &Value| json!({"source": {"type": "backup", "databaseId": kept.id, "backupId": id}});
    for (body, status, code) in [
        (json!({}), 422, "validation-error"),
        (json!({"source": {"type": "empty"}}), 422, "validation-error"),
        (json!({"source": {"type": "backup", "databaseId": kept.id}}), 422, "validation-error"),
        (source(&json!("bak_00000000000000000000000000")), 404, "resource-not-found"),
    ] {
        kept.owner.post(&restore, body).await.assert_error(status, code);
    }
    howdah.expect_errors(&["workflow failed", "the database keeps its previous data", "cannot be restored"]);
    // A flipped byte in the backup: found out, said, and the database is what it was.
    flip_a_byte(&largest(&directory_of(&howdah), "bundle"));
    let ended = kept.restore_in_place(source(&backup["id"])["source"].clone()).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(ended["reason"].as_str().unwrap().contains("damaged"), "{ended}");
    assert_eq!(notes(&kept.connection), "one two");
    let shown = kept.owner.get(&kept.path()).await.data(200).clone();
    assert_eq!(shown["status"], "ready");
    assert!(shown["statusReason"].as_str().unwrap().contains("the last restore failed"), "{shown}");
    let body = json!({"projectId": kept.project, "name": "broken", "source": source(&backup["id"])["source"]});
    let made = kept.owner.post("/v1/databases", body).await;
    let ended = kept.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    let broken = made.data(201)["id"].as_str().unwrap();
    assert_eq!(kept.owner.get(&format!("/v1/databases/{broken}")).await.data(200)["status"], "failure");
    // What was never made has nothing to be brought back to; the operation that failed is its way.
    let refused = kept.owner.post(&format!("/v1/databases/{broken}/restore"), source(&backup["id"])).await;
    refused.assert_error(409, "client-error");
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("never created"), "{}", refused.body);
    kept.owner.delete(&format!("/v1/projects/{}", kept.project)).await.data(204);
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn restore_avoids_damaged_backups() {
    let mut howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let full = json!({"backupType": "full"});
    let back_up = async || kept.back_up_as(full.clone()).await;
    let (first, second) = (back_up().await, back_up().await);
    kept.note("two");
    let then = moment(&kept.connection);
    kept.note("three");
    howdah.expect_errors(&["cannot be restored"]);
    let newest = full_backups(&directory_of(&howdah)).pop().unwrap();
    flip_a_byte(&largest(&newest, "bundle"));
    // To a moment: the other backup leads there too.
    let at = json!({"type": "database", "databaseId": kept.id, "targetTime": then});
    assert_eq!(notes(&kept.make_from("then", at).await), "one two");
    let listed = kept.backups().await;
    let failure = |backup: &Value| {
        let all = listed["data"].as_array().unwrap();
        all.iter().find(|listed| listed["id"] == backup["id"]).unwrap()["verificationFailure"].clone()
    };
    assert_eq!(failure(&first), Value::Null, "{listed}");
    assert!(failure(&second).as_str().unwrap().contains("damaged"), "{listed}");
    assert_eq!(listed["meta"]["earliestRestorableTime"], first["completedAt"]);
}

/// Moments are promised while there are writes, too, and each of them can be restored.
#[tokio::test]
async fn the_first_moment_of_a_backup_can_be_restored_under_load() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    let script = howdah.directory().path().join("load.sql");
    std::fs::write(&script, "INSERT INTO notes (note) VALUES (clock_timestamp()::text);").unwrap();
    let load = Load::with(&["-R", "200", "-f", script.to_str().unwrap()], &kept.connection);
    let (first, second) = (kept.back_up().await, kept.back_up().await);
    assert_eq!(kept.backups().await["meta"]["earliestRestorableTime"], first["completedAt"]);
    let end = |backup: &Value| backup["completedAt"].as_str().unwrap().to_owned();
    assert!(end(&second) <= moment(&kept.connection), "it is not in the future");
    let second_of = end(&second)[..19].to_owned();
    let thirds = [".000Z", ".500Z", ".999Z"].map(|part| format!("{second_of}{part}"));
    eventually("that second to be over", async || (moment(&kept.connection) > thirds[2]).then_some(())).await;
    drop(load);
    let moments = [end(&first), end(&second)].into_iter().chain(thirds.into_iter().filter(|at| *at >= end(&first)));
    let kept = &kept;
    let restored = moments.map(|at| async move {
        let copy = kept.make_from(&at, json!({"type": "database", "databaseId": kept.id, "targetTime": at})).await;
        let right = format!("SELECT count(*) > 0 AND max(note::timestamptz) <= '{at}' FROM notes");
        assert_eq!(ask(&copy, &right), "t", "{at}");
    });
    futures_util::future::join_all(restored).await;
}

#[tokio::test]
async fn the_newest_backup_is_tried_by_itself_and_runs_nothing_of_a_tenant_s() {
    let mut howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let mut kept = Kept::new(&howdah).await;
    kept.note("one");
    // What would fail if it were evaluated, and settings that would be in the way.
    ask(
        &kept.connection,
        "CREATE FUNCTION trap(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$; \
         CREATE INDEX ON notes (trap(note)); \
         CREATE OR REPLACE FUNCTION trap(text) RETURNS text IMMUTABLE LANGUAGE plpgsql \
         AS $$ BEGIN RAISE EXCEPTION 'a trap'; END $$",
    );
    ask(&kept.connection, "CREATE DATABASE own");
    ask(&kept.connection, "ALTER DATABASE own SET default_transaction_read_only = on");
    ask(&kept.connection, "ALTER DATABASE own SET statement_timeout = 1");
    ask(&kept.connection, "ALTER DATABASE own SET search_path = public");
    let backup = kept.back_up().await;
    assert_eq!((&backup["verifiedAt"], &backup["restoreBytesPerSecond"]), (&Value::Null, &Value::Null));

    // It is looked for what is due at every start.
    howdah.stop().await;
    howdah.add_arguments(&["--drill-every", "1h"]);
    howdah.launch().await;
    kept.owner = howdah.owner();
    let tried = eventually("a trial", async || {
        let backup = kept.backups().await["data"][0].clone();
        assert_eq!(backup["verificationFailure"], Value::Null, "{backup}");
        backup["verifiedAt"].is_string().then_some(backup)
    })
    .await;
    assert!(tried["restoreBytesPerSecond"].as_i64() > Some(0), "{tried}");
    // Three databases, each with some 270 tables and indexes of its own.
    assert!(tried["verifiedRelations"].as_i64() > Some(700), "{tried}");
    let operations = kept.owner.get(&format!("/v1/operations?databaseId={}", kept.id)).await.data(200).clone();
    assert_eq!((&operations[0]["kind"], &operations[0]["state"]), (&json!("verify_backup"), &json!("succeeded")));
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn failed_verification_is_reported_and_removes_its_instance() {
    let mut howdah = Howdah::start_with(&["--backup-every", "0", "--metrics", "127.0.0.1:0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let backup = kept.back_up().await;
    let verify = format!("{}/backups/{}/verify", kept.path(), backup["id"].as_str().unwrap());
    let asked = kept.owner.post(&verify, json!({})).await;
    assert_eq!(asked.data(202)["id"], backup["id"]);
    kept.owner.post(&verify, json!({})).await.assert_error(409, "client-error");
    let ended = kept.owner.ended(asked.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!((&ended["kind"], &ended["state"]), (&json!("verify_backup"), &json!("succeeded")), "{ended}");
    let good = kept.backups().await["data"][0].clone();
    assert!(good["verifiedAt"].is_string() && good["restoreBytesPerSecond"].as_i64() > Some(0), "{good}");

    howdah.expect_errors(&["verification of backup"]);
    flip_a_byte(&largest(&directory_of(&howdah), "bundle"));
    let asked = kept.owner.post(&verify, json!({})).await;
    asked.data(202);
    let ended = kept.owner.ended(asked.headers["howdah-operation"].to_str().unwrap()).await;
    assert_eq!(ended["state"], "failed", "{ended}");
    assert!(ended["reason"].as_str().unwrap().contains("damaged"), "{ended}");
    assert!(howdah.log().contains("verification of backup"), "the log says so");
    let metrics = crate::metrics::metrics(&howdah).await;
    assert!(metrics.contains(&"howdah_backup_trials{outcome=\"failed\"} 1".to_owned()), "{metrics:#?}");
    let bad = kept.backups().await["data"][0].clone();
    assert_eq!(bad["verificationFailure"], ended["reason"]);
    assert_eq!((&bad["status"], &bad["verifiedAt"]), (&json!("completed"), &good["verifiedAt"]));
    assert_eq!(notes(&kept.connection), "one");
    // Nothing is built on it.
    kept.note("two");
    let next = kept.back_up().await;
    assert_eq!((&next["backupType"], &next["verificationFailure"]), (&json!("full"), &Value::Null));
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": next["id"]});
    assert_eq!(notes(&kept.make_from("next", source).await), "one two");
    howdah.assert_tidy().await;
    let left = howdah.directory().path().join("restores");
    assert!(left.read_dir().unwrap().next().is_none(), "nothing is left of the restore");
}

#[tokio::test]
async fn second_restore_is_rejected_and_a_delete_waits_for_none() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    let backup = kept.back_up().await;
    let body = json!({"source": {"type": "backup", "databaseId": kept.id, "backupId": backup["id"]}});
    let restore = format!("{}/restore", kept.path());
    let both = tokio::join!(kept.owner.post(&restore, body.clone()), kept.owner.post(&restore, body.clone()));
    let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
    statuses.sort();
    assert_eq!(statuses, [200, 409]);
    let project = format!("/v1/projects/{}", kept.project);
    let refused = kept.owner.delete(&project).await;
    // It may have been done by then.
    if refused.status != 204 {
        refused.assert_error(400, "client-error");
        kept.settled().await;
        kept.owner.delete(&project).await.data(204);
    }
    howdah.assert_tidy().await;
}

#[tokio::test]
async fn backups_are_kept_as_the_project_the_workspace_or_the_server_says() {
    let howdah = Howdah::start_with(&["--backup-every", "0"]).await;
    let kept = Kept::new(&howdah).await;
    let workspace = format!("/v1/workspaces/{}", kept.owner.workspace_id().await);
    let project = format!("/v1/projects/{}", kept.project);
    let days = |thing: &Value| thing["backupRetentionDays"].clone();
    let holds = async || days(&kept.backups().await["meta"]);
    assert_eq!((days(kept.owner.get(&workspace).await.data(200)), holds().await), (Value::Null, json!(7)));
    assert_eq!(days(kept.owner.patch(&workspace, json!({"backupRetentionDays": 30})).await.data(200)), 30);
    assert_eq!((days(kept.owner.get(&project).await.data(200)), holds().await), (Value::Null, json!(30)));
    kept.owner.patch(&project, json!({"backupRetentionDays": 2})).await.data(200);
    assert_eq!(holds().await, 2);
    for bad in [json!(0), json!(366), json!(-1), json!(1.5), json!("7"), json!(5_000_000_000_i64)] {
        for path in [&workspace, &project] {
            let refused = kept.owner.patch(path, json!({"backupRetentionDays": bad})).await;
            refused.assert_error(422, "validation-error");
        }
    }
    // What is left out stays.
    kept.owner.patch(&workspace, json!({})).await.data(200);
    kept.owner.patch(&project, json!({"name": "same"})).await.data(200);
    assert_eq!((days(kept.owner.get(&workspace).await.data(200)), holds().await), (json!(30), json!(2)));
    let nothing = json!({"backupRetentionDays": null});
    assert_eq!(days(kept.owner.patch(&project, nothing.clone()).await.data(200)), Value::Null);
    assert_eq!(holds().await, 30);
    assert_eq!(days(kept.owner.patch(&workspace, nothing).await.data(200)), Value::Null);
    assert_eq!(holds().await, 7);
    let log = kept.owner.get(&format!("{workspace}/audit-log?action=update_workspace")).await.data(200).clone();
    let seen: Vec<(Value, Value)> =
        log.as_array().unwrap().iter().map(|entry| (days(&entry["before"]), days(&entry["after"]))).collect();
    assert_eq!(seen.last(), Some(&(Value::Null, json!(30))));
    assert_eq!(seen.first(), Some(&(json!(30), Value::Null)));
    assert_eq!(log[0]["resource"]["type"], "workspace");
}

/// How often something is killed.
const KILLS: usize = 20;

#[tokio::test]
async fn kill_9_of_howdah_or_pgbackrest_at_any_moment_leaves_backups_that_restore() {
    let seed = std::env::var("HOWDAH_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    eprintln!("HOWDAH_TEST_SEED={seed} has the same instants again");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut howdah = Howdah::start_with(&["--backup-every", "0", "--stock", "1"]).await;
    let mut kept = Kept::new(&howdah).await;
    let mut asked_after = HashMap::new();
    let (mut killed_howdah, mut killed_pgbackrest) = (0, 0);
    let begun = Instant::now();
    for round in 0..KILLS {
        kept.note(&format!("r{round}"));
        let asked = kept.owner.post(&format!("{}/backups", kept.path()), json!({})).await;
        match asked.status.as_u16() {
            202 => drop(asked_after.insert(asked.data(202)["id"].as_str().unwrap().to_owned(), round)),
            // The one before is under way, or is tried again.
            409 => {}
            _ => panic!("{}", asked.body),
        }
        // The instant is what this is about; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..800))).await;
        if dice.random_bool(0.5) {
            // The next one that there is, or one of several; none, when the backup is done.
            let victim = eventually("pgBackRest to work, or not to be needed", async || {
                let found = pgbackrests(howdah.directory().path());
                match found.choose(&mut dice) {
                    Some(pid) => Some(Some(*pid)),
                    None => kept.is_settled().await.then_some(None),
                }
            })
            .await;
            // It may have ended by itself.
            killed_pgbackrest += usize::from(victim.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok()));
        } else {
            killed_howdah += 1;
            howdah.kill();
            // Its work is taken up at once, and not when nobody has heard of it for a while.
            let (store, tasks) = howdah.store();
            let orphaned = "UPDATE workflows SET lease_expires_at = now() - interval '1 s' WHERE state = 'running'";
            store.session().await.unwrap().execute(orphaned, &[]).await.unwrap();
            tasks.stop();
            howdah.launch().await;
            kept.owner = howdah.owner();
            kept.connection = at(&howdah, &kept.connection);
        }
        if dice.random_bool(0.25) {
            kept.settled().await;
        }
    }
    kept.settled().await;
    let rounds = begun.elapsed().as_secs();
    let listed = kept.backups().await["data"].clone();
    let listed = listed.as_array().unwrap();
    let completed: Vec<&Value> = listed.iter().filter(|backup| backup["status"] == "completed").collect();
    eprintln!(
        "killed Howdah {killed_howdah} times and pgBackRest {killed_pgbackrest} times in {rounds} s: {} of {} backups \
         are complete",
        completed.len(),
        listed.len()
    );
    assert!(!completed.is_empty(), "{listed:?}");
    let all: Vec<String> = (0..KILLS).map(|round| format!("r{round}")).collect();
    let restored = completed.iter().map(|backup| async {
        let id = backup["id"].as_str().unwrap();
        let source = json!({"type": "backup", "databaseId": kept.id, "backupId": id});
        (id, kept.make_from(id, source).await)
    });
    for (id, copy) in futures_util::future::join_all(restored).await {
        // What was committed before it was asked for is in it, and nothing out of order.
        let (found, least) = (notes(&copy), asked_after.get(id).map_or(0, |round| *round));
        assert!(found.starts_with(&all[..=least].join(" ")), "{id} was asked for after r{least}: {found}");
        assert!(all.join(" ").starts_with(&found), "{found}");
    }
    assert_eq!(notes(&kept.connection), all.join(" "));
}

/// The processes of pgBackRest that work for the Howdah on this directory.
pub fn pgbackrests(directory: &Path) -> Vec<Pid> {
    let ours = directory.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for process in Path::new("/proc").read_dir().unwrap().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let read = |name: &str| std::fs::read(process.path().join(name)).unwrap_or_default();
        // All that it is told is in its environment, and in that of the processes that it starts.
        let is_one = read("comm").starts_with(b"pgbackrest");
        if is_one && read("environ").windows(ours.len()).any(|part| part == ours) {
            found.push(pid);
        }
    }
    found.sort_by_key(|pid| pid.as_raw_nonzero());
    found
}

/// The directories of the full backups below a directory, oldest first.
fn full_backups(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let below = folder.read_dir().unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_dir());
        let (labels, others): (Vec<PathBuf>, Vec<PathBuf>) =
            below.map(|entry| entry.path()).partition(|path| path.to_string_lossy().ends_with('F'));
        found.extend(labels);
        folders.extend(others);
    }
    found.sort();
    found
}

/// The largest file below a directory whose path has this in it.
pub fn largest(directory: &Path, part: &str) -> PathBuf {
    let mut files = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => files.push((entry.metadata().unwrap().len(), entry.path())),
            }
        }
    }
    files.retain(|(_, path)| path.to_string_lossy().contains(part));
    files.into_iter().max().map(|(_, path)| path).unwrap_or_else(|| panic!("no file of {part} in {directory:?}"))
}

pub fn flip_a_byte(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

/// How many segments wait to be archived in each instance.
fn waiting(howdah: &Howdah) -> usize {
    let marks = |instance: String| {
        howdah.directory().path().join("instances").join(instance).join("data/pg_wal/archive_status")
    };
    let count = |directory: PathBuf| {
        let names = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".ready")).count()
    };
    howdah.directory().instances().into_iter().map(marks).map(count).max().unwrap_or_default()
}

#[tokio::test]
async fn flood_of_writes_respects_the_queue_and_other_databases_and_is_restorable() {
    let arguments = ["--backup-every", "24h", "--backup-queue", "24", "--archive-timeout", "1s"];
    let mut howdah = Howdah::start_with(&arguments).await;
    howdah.expect_errors(&["discarded"]);
    let (flooding, quiet) = (Kept::new(&howdah).await, Kept::new(&howdah).await);
    quiet.back_up().await;

    // A backup is asked for in the middle of a load.
    let load = flooding.connection.clone();
    ask(&load, "CREATE TABLE bulk (n int, text text)");
    let is_enough = Arc::new(AtomicBool::new(false));
    let until = is_enough.clone();
    let flood = std::thread::spawn(move || {
        let rows = "SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 20000) AS n";
        let mut parts = 0;
        while parts < 4 || parts < 100 && !until.load(Ordering::Relaxed) {
            ask(&load, &format!("INSERT INTO bulk {rows}"));
            parts += 1;
        }
        parts
    });
    let asked = flooding.owner.post(&format!("{}/backups", flooding.path()), json!({"backupType": "full"})).await;
    asked.data(202);
    quiet.note("meanwhile");
    let written = moment(&quiet.connection);
    let (mut most, mut archived_meanwhile) = (0, false);
    while !flood.is_finished() {
        most = most.max(waiting(&howdah));
        let latest = quiet.backups().await["meta"]["latestRestorableTime"].as_str().unwrap().to_owned();
        archived_meanwhile |= latest >= written;
        is_enough.store(archived_meanwhile, Ordering::Relaxed);
    }
    let parts: usize = flood.join().unwrap();
    assert!(archived_meanwhile, "the others are archived during the flood");
    // What is on its way, and what is written between two looks, comes on top.
    assert!(most < 24 + 64 + 150, "{most} segments waited");

    let operation = asked.headers["howdah-operation"].to_str().unwrap();
    let path = format!("/v1/operations/{operation}");
    let ended = eventually("the backup", async || {
        let shown = flooding.owner.get(&path).await.data(200).clone();
        let reason = shown["reason"].as_str().unwrap_or_default().to_owned();
        assert!(!reason.contains("does not respond"), "{shown}");
        shown["endedAt"].is_string().then_some(shown)
    })
    .await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let copy = flooding.make_from("copy", json!({"type": "database", "databaseId": flooding.id})).await;
    assert_eq!(ask(&copy, "SELECT count(*) FROM bulk"), (parts * 20_000).to_string());
}

#[tokio::test]
async fn copy_starts_a_backup_unless_scheduled_backups_are_off() {
    for (every, by_itself) in [("0", 0), ("24h", 1)] {
        let howdah = Howdah::start_with(&["--backup-every", every]).await;
        let kept = Kept::new(&howdah).await;
        let body =
            json!({"projectId": kept.project, "name": "copy", "source": {"type": "database", "databaseId": kept.id}});
        let made = kept.owner.post("/v1/databases", body).await;
        let copy = made.data(201)["id"].as_str().unwrap().to_owned();
        kept.owner.ended(made.headers["howdah-operation"].to_str().unwrap()).await;
        let of_copy = async || {
            let all = kept.owner.get(&format!("/v1/operations?databaseId={copy}")).await.data(200).clone();
            all.as_array().unwrap().iter().filter(|operation| operation["kind"] == "back_up_database").count()
        };
        assert_eq!(of_copy().await, by_itself, "--backup-every {every}");
        let asked = kept.owner.post(&format!("/v1/databases/{copy}/backups"), json!({"backupType": "full"})).await;
        asked.data(202);
        let ended = kept.owner.ended(asked.headers["howdah-operation"].to_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
}
