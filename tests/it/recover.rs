//! Losing the machine: everything comes back on an empty one, from the repository and the master key.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Directory, Howdah, Person, ask, binary, complaint, connection_string, eventually, postgres_program,
};
use crate::storage::{Bucket, Silence};

/// What is not on the machine that is lost: the backups, and a copy of the key.
struct Elsewhere {
    directory: Directory,
    /// What the backups are in, if it is no directory.
    bucket: Option<Bucket>,
    /// More arguments of `serve`.
    more: Vec<String>,
}

impl Elsewhere {
    fn new() -> Self {
        let directory = Directory::new();
        std::fs::create_dir(directory.path()).unwrap();
        // As root the backup user passes through, as through any directory that an operator makes.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self { directory, bucket: None, more: Vec::new() }
    }

    async fn with_bucket() -> Self {
        Self { bucket: Some(Bucket::start().await), ..Self::new() }
    }

    fn backups(&self) -> PathBuf {
        self.directory.path().join("backups")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("master.key")
    }

    fn place(&self) -> Vec<String> {
        match &self.bucket {
            Some(bucket) => bucket.arguments(),
            None => ["--backup-dir", self.backups().to_str().unwrap()].map(str::to_owned).to_vec(),
        }
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.bucket.iter().flat_map(Bucket::environment).collect()
    }

    fn arguments(&self) -> Vec<String> {
        [vec!["--backup-every".to_owned(), "24h".to_owned()], self.place(), self.more.clone()].concat()
    }

    async fn serve(&self, data: &Path) -> Howdah {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let howdah = Howdah::start_on_in(data.to_owned(), &self.environment(), &arguments).await;
        std::fs::copy(data.join("keys/master.key"), self.key()).unwrap();
        howdah
    }

    fn recover(&self, data: &Path) -> Command {
        let mut command = self.recover_from(data, &self.place(), &self.key());
        command.envs(self.environment());
        command
    }

    fn recover_with(&self, data: &Path, backups: &Path, key: &Path) -> Command {
        self.recover_from(data, &["--backup-dir".to_owned(), backups.display().to_string()], key)
    }

    fn recover_from(&self, data: &Path, place: &[String], key: &Path) -> Command {
        let mut command = binary();
        command.arg("recover").arg("--data-dir").arg(data).args(place).arg("--master-key-file").arg(key);
        command
    }

    /// What it says when it works.
    fn recovered(&self, data: &Path) -> String {
        let output = self.recover(data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The one line that a command says which must refuse.
fn refusal(mut command: Command) -> String {
    let output = command.env("RUST_LOG", "error").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("howdah: "), "{text}");
    text
}

/// Has every server finish the WAL that it is in, which it does by itself after a minute, and waits until
/// that is archived.
async fn archive_now(howdah: &Howdah) {
    for (_, data) in howdah.directory().servers() {
        let place = data.parent().unwrap();
        let mut psql = Command::new(postgres_program("psql"));
        psql.args(["-X", "-q", "-U", "howdah", "-d", "howdah", "-c", "SELECT pg_switch_wal()"]);
        psql.arg("-h").arg(place.join("socket")).stdin(Stdio::null());
        if let Ok(password) = std::fs::read_to_string(place.join("secret")) {
            psql.env("PGPASSWORD", password);
        }
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let marks = data.join("pg_wal/archive_status");
        eventually("the WAL to be archived", async || {
            let mut names = std::fs::read_dir(&marks).unwrap().map(|entry| entry.unwrap().file_name());
            (!names.any(|name| name.to_string_lossy().ends_with(".ready"))).then_some(())
        })
        .await;
    }
}

/// kill -9 of everything at once, and the disk is gone.
async fn lose(mut howdah: Howdah) {
    let data = howdah.directory().path().to_owned();
    howdah.kill();
    for (pid, _) in howdah.directory().servers() {
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
    eventually("every server to be gone", async || howdah.directory().servers().is_empty().then_some(())).await;
    std::fs::remove_dir_all(data).unwrap();
}

async fn metadata_is_backed_up(howdah: &Howdah) {
    eventually("a backup of the metadata", async || howdah.log().contains("backed up Howdah's metadata").then_some(()))
        .await;
}

async fn ended(person: &Person, kind: &str, database: &str) -> Value {
    let path = format!("/v1/operations?databaseId={database}");
    eventually("an operation to end", async || {
        let all = person.get(&path).await.data(200).clone();
        let found = all.as_array().unwrap().iter().find(|operation| operation["kind"] == kind).cloned();
        found.filter(|operation| operation["endedAt"].is_string())
    })
    .await
}

/// A database and how to reach it, as its owner wrote that down.
struct Noted {
    id: String,
    connection: String,
    port: u16,
}

impl Noted {
    async fn new(howdah: &Howdah, person: &Person, name: &str) -> Self {
        let made = person.create_project(name).await;
        let connection = connection_string(&made);
        ask(&connection, "CREATE TABLE notes (n serial PRIMARY KEY, note text)");
        let id = made["database"]["id"].as_str().unwrap().to_owned();
        Self { id, connection, port: howdah.gateway().port() }
    }

    /// The same string; the gateway has its port by chance here.
    fn at(&self, howdah: &Howdah) -> String {
        self.connection.replace(&format!(":{}/", self.port), &format!(":{}/", howdah.gateway().port()))
    }

    fn note(&self, howdah: &Howdah, note: &str) {
        ask(&self.at(howdah), &format!("INSERT INTO notes (note) VALUES ('{note}')"));
    }

    fn notes(&self, howdah: &Howdah) -> String {
        ask(&self.at(howdah), "SELECT string_agg(note, ' ' ORDER BY n) FROM notes")
    }

    async fn back_up(&self, person: &Person) {
        person.post(&format!("/v1/databases/{}/backups", self.id), json!({})).await.data(202);
        assert_eq!(ended(person, "back_up_database", &self.id).await["state"], "succeeded");
    }

    async fn is_back(&self, person: &Person) {
        let ended = ended(person, "recover_database", &self.id).await;
        assert_eq!(ended["state"], "succeeded", "{ended}");
        assert_eq!(person.get(&format!("/v1/databases/{}", self.id)).await.data(200)["status"], "ready");
    }
}

#[tokio::test]
async fn installation_is_recovered_twice_on_empty_machines() {
    let elsewhere = Elsewhere::new();
    let machines = [Directory::new(), Directory::new(), Directory::new()];
    let mut howdah = elsewhere.serve(machines[0].path()).await;
    assert!(howdah.log().contains("keys/master.key: keep a copy on another machine"));
    let token = howdah.token();
    let owner = howdah.owner();
    let ca = owner.get("/v1/ca.pem").await.body;
    let (first, second) = (Noted::new(&howdah, &owner, "first").await, Noted::new(&howdah, &owner, "second").await);
    first.note(&howdah, "one");
    metadata_is_backed_up(&howdah).await;
    first.back_up(&owner).await;
    second.back_up(&owner).await;
    // After every backup, of the databases and of the metadata.
    first.note(&howdah, "two");
    second.note(&howdah, "three");
    let unlucky = Noted::new(&howdah, &owner, "unlucky").await;
    let other = owner.create_token(json!({"name": "made late"})).await;
    archive_now(&howdah).await;
    assert!(elsewhere.backups().join("metadata").is_dir());

    let stray = base::id::InstanceId::generate(base::clock::Clock::system().now()).bare();
    std::fs::create_dir(elsewhere.backups().join(&stray)).unwrap();
    lose(howdah).await;

    let data = machines[1].path();
    refuses_what_cannot_be_recovered(&elsewhere, data);
    // Killed in the middle, nothing serves from what is half there, and the same command goes on.
    let mut recovering = elsewhere.recover(data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the restore to begin", async || {
        let mut restores = std::fs::read_dir(data.join("restores")).ok()?;
        restores.next().map(drop)
    })
    .await;
    recovering.kill().unwrap();
    recovering.wait().unwrap();
    let text = refusal(Howdah::command(data, &elsewhere.arguments()));
    assert!(text.contains("howdah recover"), "{text}");
    let said = elsewhere.recovered(data);
    assert!(
        said.contains("databases to recover from their backups and archived WAL: 3") && said.contains(&stray),
        "{said}"
    );
    assert!(said.contains("howdah serve"), "{said}");
    assert!(machines[1].servers().is_empty(), "nothing is left running");
    let text = refusal(elsewhere.recover(data));
    assert!(text.contains("is in use"), "{text}");

    howdah = elsewhere.serve(data).await;
    howdah.expect_errors(&["workflow failed"]);
    let owner = Person::new(howdah.url(), Some(token.clone()));
    for noted in [&first, &second] {
        noted.is_back(&owner).await;
    }
    assert_eq!((first.notes(&howdah), second.notes(&howdah)), ("one two".into(), "three".into()));
    assert_eq!(owner.get("/v1/ca.pem").await.body, ca, "clients go on to trust the gateway");
    assert_eq!(other.person.on(&howdah).get("/v1/projects").await.data(200).as_array().unwrap().len(), 3);
    assert_eq!(ended(&owner, "recover_database", &unlucky.id).await["state"], "failed");
    let failed = owner.get(&format!("/v1/databases/{}", unlucky.id)).await.data(200).clone();
    assert_eq!(failed["status"], "failure");
    let told = "lost before its first backup";
    assert!(failed["statusReason"].as_str().unwrap().contains(told), "{failed}");
    assert!(complaint(&unlucky.at(&howdah), "SELECT 1").contains(told));

    // Each has begun a new era, with a backup, so that the second disaster is like the first.
    metadata_is_backed_up(&howdah).await;
    for noted in [&first, &second] {
        eventually("the first backup of the new era", async || {
            let listed = owner.get(&format!("/v1/databases/{}/backups", noted.id)).await.data(200).clone();
            let made = listed.as_array().unwrap().iter().filter(|backup| backup["status"] == "completed").count();
            (made == 2).then_some(())
        })
        .await;
        noted.note(&howdah, "four");
    }
    archive_now(&howdah).await;
    lose(howdah).await;

    elsewhere.recovered(machines[2].path());
    howdah = elsewhere.serve(machines[2].path()).await;
    let owner = Person::new(howdah.url(), Some(token));
    for noted in [&first, &second] {
        noted.is_back(&owner).await;
    }
    assert_eq!((first.notes(&howdah), second.notes(&howdah)), ("one two four".into(), "three four".into()));
    let still = owner.get(&format!("/v1/databases/{}", unlucky.id)).await.data(200)["status"].clone();
    assert_eq!(still, "failure");
    howdah.stop().await;
}

/// How many segments of WAL came into the vaults of a directory after a moment.
fn archived_since(directory: &Path, moment: SystemTime) -> usize {
    let mut left = vec![directory.to_owned()];
    let mut found = 0;
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let facts = entry.metadata().unwrap();
            match facts.is_dir() {
                true => left.push(entry.path()),
                false if entry.file_name().to_string_lossy().ends_with(".zst") => {
                    found += usize::from(facts.modified().unwrap() > moment && facts.len() > 0);
                }
                false => {}
            }
        }
    }
    found
}

/// PostgreSQL's checkpointer ignores `archive_timeout` in its first sleep, of five minutes, after each start and
/// after each crash of a session.
#[tokio::test]
async fn a_write_after_a_wake_or_a_crash_outlives_the_machine() {
    let mut elsewhere = Elsewhere::new();
    elsewhere.more = ["--archive-timeout", "2s"].map(str::to_owned).to_vec();
    let machines = [Directory::new(), Directory::new()];
    let mut howdah = elsewhere.serve(machines[0].path()).await;
    let token = howdah.token();
    let noted = Noted::new(&howdah, &howdah.owner(), "first").await;
    metadata_is_backed_up(&howdah).await;
    noted.back_up(&howdah.owner()).await;
    let latest = async |howdah: &Howdah| {
        let path = format!("/v1/databases/{}/backups", noted.id);
        let listed = howdah.owner().get(&path).await;
        listed.data(200);
        listed.body["meta"]["latestRestorableTime"].as_str().unwrap().to_owned()
    };
    let in_the_vault = async |howdah: &Howdah, moment: &str| {
        eventually("the write to be in the vault", async || (latest(howdah).await.as_str() >= moment).then_some(()))
            .await;
    };

    // Each server is started anew.
    howdah.stop().await;
    howdah.launch().await;
    noted.note(&howdah, "awake");
    let moment = crate::backups::moment(&noted.at(&howdah));
    assert!(latest(&howdah).await < moment, "it is not archived yet");
    in_the_vault(&howdah, &moment).await;

    // All processes of the server are started anew by the first one.
    let connection = noted.at(&howdah);
    let (client, session) = tokio_postgres::connect(&connection, tokio_postgres::NoTls).await.unwrap();
    let crash = async {
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        kill_process(Pid::from_raw(row.get(0)).unwrap(), Signal::KILL).unwrap();
    };
    let ((), ended) = tokio::join!(crash, session);
    assert!(ended.is_err(), "the session has crashed");
    eventually("the database to recover", async || {
        let output = Command::new(postgres_program("psql")).args([&connection, "-c", "SELECT 1"]).output().unwrap();
        output.status.success().then_some(())
    })
    .await;
    noted.note(&howdah, "crashed");
    let owner = howdah.owner();
    let late = Noted::new(&howdah, &owner, "late").await;
    let written = SystemTime::from(base::clock::Clock::system().now());
    in_the_vault(&howdah, &crate::backups::moment(&connection)).await;
    // The second one was finished after that.
    eventually("the metadata to be archived", async || {
        (archived_since(&elsewhere.backups().join("metadata"), written) >= 2).then_some(())
    })
    .await;
    lose(howdah).await;

    elsewhere.recovered(machines[1].path());
    howdah = elsewhere.serve(machines[1].path()).await;
    howdah.expect_errors(&["workflow failed"]);
    let owner = Person::new(howdah.url(), Some(token));
    noted.is_back(&owner).await;
    assert_eq!(noted.notes(&howdah), "awake crashed");
    owner.get(&format!("/v1/databases/{}", late.id)).await.data(200);
    howdah.stop().await;
}

/// Each refusal is one line, and leaves the directory as it was.
fn refuses_what_cannot_be_recovered(elsewhere: &Elsewhere, data: &Path) {
    let wrong = elsewhere.directory.path().join("wrong.key");
    std::fs::write(&wrong, [7; 32]).unwrap();
    let text = refusal(elsewhere.recover_with(data, &elsewhere.backups(), &wrong));
    assert!(text.contains("does not decrypt") && text.contains("master key"), "{text}");
    assert_eq!(std::fs::read_dir(data).unwrap().count(), 0, "nothing is left");

    std::fs::write(&wrong, "short").unwrap();
    let text = refusal(elsewhere.recover_with(data, &elsewhere.backups(), &wrong));
    assert!(text.contains("32-byte"), "{text}");
    let text = refusal(elsewhere.recover_with(data, &elsewhere.backups(), Path::new("/nonexistent.key")));
    assert!(text.contains("--master-key-file"), "{text}");

    let empty = elsewhere.directory.path().join("empty");
    let text = refusal(elsewhere.recover_with(data, &empty, &elsewhere.key()));
    assert!(text.contains("does not exist"), "{text}");
    std::fs::create_dir(&empty).unwrap();
    let text = refusal(elsewhere.recover_with(data, &empty, &elsewhere.key()));
    assert!(text.contains("no backup of the metadata"), "{text}");

    let inside = data.join("backups");
    std::fs::create_dir(&inside).unwrap();
    let text = refusal(elsewhere.recover_with(data, &inside, &elsewhere.key()));
    assert!(text.contains("inside the data directory"), "{text}");
    std::fs::remove_dir(&inside).unwrap();

    std::fs::write(data.join("holiday.jpg"), "").unwrap();
    let text = refusal(elsewhere.recover(data));
    assert!(text.contains("holiday.jpg") && text.contains("--data-dir"), "{text}");
    std::fs::remove_file(data.join("holiday.jpg")).unwrap();

    let mut command = elsewhere.recover(data);
    command.args(["--metadata-url", "postgres://nobody:secret@127.0.0.1:1/none"]);
    let text = refusal(command);
    assert!(text.contains("--metadata-url") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn installation_is_recovered_from_a_bucket_alone() {
    let elsewhere = Elsewhere::with_bucket().await;
    let bucket = elsewhere.bucket.as_ref().unwrap();
    let machines = [Directory::new(), Directory::new()];
    let howdah = elsewhere.serve(machines[0].path()).await;
    let (token, owner) = (howdah.token(), howdah.owner());
    let noted = Noted::new(&howdah, &owner, "noted").await;
    noted.note(&howdah, "one");
    metadata_is_backed_up(&howdah).await;
    noted.back_up(&owner).await;
    noted.note(&howdah, "two");
    archive_now(&howdah).await;
    lose(howdah).await;

    let data = machines[1].path();
    let silence = Silence::new();
    let otherwise = |option: &str, value: &str| {
        let mut place = bucket.arguments();
        let at = place.iter().position(|argument| argument == option).unwrap() + 1;
        place[at] = value.to_owned();
        let mut command = elsewhere.recover_from(data, &place, &elsewhere.key());
        command.envs(bucket.environment());
        command
    };
    let mut wrong = elsewhere.recover(data);
    wrong.env("HOWDAH_BACKUP_S3_KEY_SECRET", "wrong secret");
    let mut missing = elsewhere.recover(data);
    missing.env_remove("HOWDAH_BACKUP_S3_KEY");
    for (command, reasons) in [
        (wrong, ["the bucket kept cannot be used for backups", "HOWDAH_BACKUP_S3_KEY_SECRET"]),
        (missing, ["HOWDAH_BACKUP_S3_KEY is not set", "the bucket kept"]),
        (otherwise("--backup-s3-bucket", "other"), ["the bucket other cannot be used", "404"]),
        (otherwise("--backup-s3-prefix", "howdah"), ["no backup of the metadata", "the bucket kept below howdah;"]),
        (otherwise("--backup-s3-endpoint", &silence.endpoint()), ["the backup bucket kept", "is not responding"]),
    ] {
        let text = refusal(command);
        assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
        assert!(!text.contains("wrong secret"), "{text}");
        assert_eq!(std::fs::read_dir(data).unwrap().count(), 0, "nothing is left");
    }

    let before = bucket.objects();
    let said = elsewhere.recovered(data);
    assert!(said.contains("archived WAL: 1") && said.contains("--backup-s3-bucket kept"), "{said}");
    assert_eq!(bucket.objects(), before, "nothing is written into it");
    let howdah = elsewhere.serve(data).await;
    let owner = Person::new(howdah.url(), Some(token));
    noted.is_back(&owner).await;
    assert_eq!(noted.notes(&howdah), "one two");
    noted.note(&howdah, "three");
    assert_eq!(noted.notes(&howdah), "one two three");
}

#[tokio::test]
async fn an_external_metadata_store_is_not_howdah_s_to_back_up() {
    let elsewhere = Directory::new();
    let external = elsewhere.metadata_instance().await;
    external.ensure_started().await.unwrap();
    let url = format!("postgres://howdah@/howdah?host={}", elsewhere.path().join("metadata/socket").display());
    {
        let mut howdah = Howdah::start_with(&["--metadata-url", &url, "--backup-every", "24h"]).await;
        howdah.owner().create_project("external").await;
        howdah.stop().await;
        assert!(!howdah.directory().path().join("backups/metadata").exists());
    }
    external.ensure_stopped().await.unwrap();
}

#[tokio::test]
async fn failing_metadata_backup_is_reported() {
    let mut howdah = Howdah::start_with(&["--backup-every", "24h", "--backup-dir", "/proc/howdah-backups"]).await;
    howdah.expect_errors(&["backup of Howdah's metadata failed", "the backup storage cannot be used"]);
    let ready = format!("{}/readyz", howdah.url());
    let said = eventually("the probe to say so", async || {
        let answer = reqwest::get(&ready).await.unwrap();
        assert_eq!(answer.status(), 200, "it serves all the same");
        Some(answer.text().await.unwrap()).filter(|text| text.contains("cannot be backed up"))
    })
    .await;
    assert!(!said.contains("/proc"), "{said}");
    assert!(howdah.log().contains("backup of Howdah's metadata failed"));
}
