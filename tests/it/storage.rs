//! Where backups live: a bucket, and a place that is full or does not answer.

#![expect(unreachable_pub, reason = "tests are one crate; pub says what other tests may use of this")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::backups::{Kept, at, moment, notes};
use crate::harness::{Directory, Howdah, ask, eventually};

/// A server of S3's protocol with a bucket `kept`, over TLS with a certificate that nobody else trusts.
pub struct Bucket {
    server: Child,
    directory: Directory,
    facts: Value,
}

impl Bucket {
    pub async fn start() -> Self {
        let directory = Directory::new();
        std::fs::create_dir(directory.path()).unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // pgBackRest compares a certificate's names with the host only, no addresses.
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("certificate.pem"), made.cert.pem()).unwrap();
        std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/s3/bin/python");
        assert!(python.exists(), "{} is missing; script/bootstrap --test installs it", python.display());
        let mut server = Command::new(python);
        server.arg(root.join("tests/s3/server.py")).arg(file("certificate.pem")).arg(file("key.pem"));
        let said = file("facts.json");
        let (out, log) = (std::fs::File::create(&said).unwrap(), std::fs::File::create(file("log")).unwrap());
        let server = server.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).stdout(out).stderr(log).spawn();
        let mut bucket = Self { server: server.unwrap(), directory, facts: Value::Null };
        bucket.facts = eventually("the bucket's server to be ready", async || {
            let ended = bucket.server.try_wait().unwrap();
            assert!(ended.is_none(), "{}", std::fs::read_to_string(bucket.directory.path().join("log")).unwrap());
            serde_json::from_str(&std::fs::read_to_string(&said).unwrap()).ok()
        })
        .await;
        bucket
    }

    /// It takes connections from now on, and never says anything.
    fn fall_silent(&self) {
        kill_process(Pid::from_child(&self.server), Signal::STOP).unwrap();
    }

    fn come_back(&self) {
        kill_process(Pid::from_child(&self.server), Signal::CONT).unwrap();
    }

    fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap()
    }

    fn endpoint(&self) -> String {
        format!("localhost:{}", self.facts["port"])
    }

    fn ca_file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    pub fn environment(&self) -> [(&str, &str); 2] {
        [("HOWDAH_BACKUP_S3_KEY", self.fact("key")), ("HOWDAH_BACKUP_S3_KEY_SECRET", self.fact("secret"))]
    }

    pub fn arguments(&self) -> Vec<String> {
        [
            "--backup-s3-bucket",
            "kept",
            "--backup-s3-endpoint",
            &self.endpoint(),
            "--backup-s3-prefix",
            "howdah/one",
            "--backup-s3-ca-file",
            &self.ca_file().display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// One of pgBackRest's own commands on what is below a path, without any database's key.
    fn look(&self, path: &str, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("pgbackrest");
        command.args(["--no-config", "--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"]);
        command.args(["--stanza=none", "--repo1-type=s3", "--repo1-s3-uri-style=path", "--repo1-path", path]);
        command.args(["--repo1-s3-bucket=kept", "--repo1-s3-region=us-east-1", "--repo1-s3-endpoint=localhost"]);
        command.arg(format!("--repo1-storage-port={}", self.facts["port"]));
        command.arg(format!("--repo1-storage-ca-file={}", self.ca_file().display()));
        command.env("PGBACKREST_REPO1_S3_KEY", self.fact("key"));
        command.env("PGBACKREST_REPO1_S3_KEY_SECRET", self.fact("secret"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The names of all objects in it, after `howdah/`, which they all begin with.
    pub fn objects(&self) -> Vec<String> {
        let listed = |path, arguments: &[&str]| -> Value {
            serde_json::from_slice(&self.look(path, &[&["--output=json", "repo-ls"], arguments].concat())).unwrap()
        };
        let top = listed("/", &[]);
        assert!(top.as_object().unwrap().keys().all(|name| [".", "howdah"].contains(&name.as_str())), "{top}");
        let listed = listed("/howdah", &["--recurse"]);
        let files = listed.as_object().unwrap().iter().filter(|(_, facts)| facts["type"] == "file");
        files.map(|(name, _)| name.clone()).collect()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Storage that is dead in the worst way: it takes every connection, and never says anything.
pub struct Silence(std::net::TcpListener);

impl Silence {
    pub fn new() -> Self {
        // The kernel takes connections for it; nobody reads them.
        Self(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.0.local_addr().unwrap().port())
    }
}

/// Looks into the arguments of all processes for a secret until it is told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Watch {
    fn on(secret: &str) -> Self {
        let (stop, secret) = (Arc::new(AtomicBool::new(false)), secret.to_owned());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut seen, mut found) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                std::thread::yield_now();
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    let Ok(line) = std::fs::read(process.path().join("cmdline")) else { continue };
                    let line = String::from_utf8_lossy(&line).into_owned();
                    seen += usize::from(line.contains("pgbackrest"));
                    if line.contains(&secret) {
                        found.push(line);
                    }
                }
            }
            (seen, found)
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let (seen, found) = self.thread.take().unwrap().join().unwrap();
        assert!(seen > 0, "pgBackRest was at work meanwhile");
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// The files below a directory that hold this text.
fn files_with(directory: &Path, text: &str) -> Vec<PathBuf> {
    let found = Command::new("grep").args(["-r", "-l", "-F", "-e", text]).arg(directory).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(PathBuf::from).collect()
}

#[tokio::test]
async fn a_bucket_holds_backups_and_every_way_back() {
    let bucket = Bucket::start().await;
    let arguments = bucket.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--backup-every", "0"]).collect();
    let howdah = Howdah::start_in(&bucket.environment(), &arguments).await;
    assert_eq!(bucket.objects(), Vec::<String>::new(), "what the start has tried is gone");

    let kept = Kept::new(&howdah).await;
    kept.note("before");
    let watch = Watch::on(bucket.fact("secret"));
    let backup = kept.back_up().await;
    watch.end();
    kept.note("after");
    let then = moment(&kept.connection);
    kept.note("too late");

    // Every object is below the prefix and the instance's own name, and none can be read as it is.
    let objects = bucket.objects();
    assert!(objects.iter().all(|name| name.starts_with("one/")), "{objects:#?}");
    let info = objects.iter().find(|name| name.ends_with("/backup.info")).unwrap();
    assert!(bucket.look("/howdah", &["repo-get", "--raw", info]).starts_with(b"Salted__"), "{info}");

    let at = json!({"type": "database", "databaseId": kept.id, "targetTime": then});
    assert_eq!(notes(&kept.make_from("then", at).await), "before after");
    let source = json!({"type": "backup", "databaseId": kept.id, "backupId": backup["id"], "targetTime": then});
    let ended = kept.restore_in_place(source).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(notes(&kept.connection), "before after");
    kept.settled().await;
    assert_eq!(kept.backups().await["meta"]["archiving"]["state"], "ok");

    for secret in [bucket.fact("secret"), bucket.fact("key")] {
        assert!(!howdah.log().contains(secret));
        let found = files_with(howdah.directory().path(), secret);
        assert!(found.is_empty(), "{found:?}");
    }
    kept.owner.delete(&format!("/v1/projects/{}", kept.project)).await.data(204);
    howdah.assert_tidy().await;
    assert_eq!(bucket.objects(), Vec::<String>::new(), "nothing is left of its backups");
    let work = howdah.directory().path().join("pgbackrest");
    assert_eq!(work.read_dir().unwrap().count(), 0, "nor of the work on them");
}

#[tokio::test]
async fn start_fails_if_the_bucket_rejects_the_key_but_not_if_it_is_unreachable() {
    let bucket = Bucket::start().await;
    let refusal = |environment: &[(&str, &str)], more: &[&str]| {
        let directory = Directory::new();
        let mut arguments = bucket.arguments();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let mut command = Howdah::command(directory.path(), &arguments);
        let output = command.env("RUST_LOG", "error").envs(environment.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        text
    };
    let good = bucket.environment();
    let said = refusal(&good[..1], &[]);
    assert!(said.contains("HOWDAH_BACKUP_S3_KEY_SECRET is not set"), "{said}");
    let said = refusal(&good, &["--backup-dir", "/tmp"]);
    assert!(said.contains("--backup-dir") && said.contains("--backup-s3-bucket"), "{said}");
    let said = refusal(&[good[0], ("HOWDAH_BACKUP_S3_KEY_SECRET", "wrong secret")], &[]);
    assert!(said.contains("SignatureDoesNotMatch") && said.contains("HOWDAH_BACKUP_S3_KEY"), "{said}");
    assert!(!said.contains("wrong secret") && !said.contains(good[0].1), "{said}");

    let otherwise = |option: &str, value: &str| {
        let mut arguments = bucket.arguments();
        let at = arguments.iter().position(|argument| argument == option).unwrap() + 1;
        arguments[at] = value.to_owned();
        arguments
    };
    for (option, value, reason) in [
        ("--backup-s3-bucket", "elsewhere", "NoSuchBucket"),
        ("--backup-s3-endpoint", &format!("127.0.0.1:{}", bucket.facts["port"]), "certificate"),
        ("--backup-s3-ca-file", "/nonexistent.pem", "certificate"),
    ] {
        let directory = Directory::new();
        let mut command = Howdah::command(directory.path(), &otherwise(option, value));
        let output = command.env("RUST_LOG", "error").envs(good).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.lines().count() == 1 && text.contains(reason), "{text}");
        assert!(text.contains("cannot be used for backups") && text.contains("--backup-s3-"), "{text}");
    }

    // Nobody listens there: databases work, and what keeps their backups from being made is told.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let away = otherwise("--backup-s3-endpoint", &format!("localhost:{free}"));
    let away: Vec<&str> = away.iter().map(String::as_str).collect();
    let howdah = Howdah::start_in(&good, &away).await;
    assert!(howdah.log().contains("the backup bucket kept is not responding"), "{}", howdah.log());
    let kept = Kept::new(&howdah).await;
    kept.note("works");
    assert_eq!(notes(&kept.connection), "works");
}

#[tokio::test]
async fn stop_does_not_wait_for_unreachable_storage() {
    let bucket = Bucket::start().await;
    let arguments = bucket.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--backup-every", "24h"]).collect();
    let mut howdah = Howdah::start_in(&bucket.environment(), &arguments).await;
    let kept = Kept::new(&howdah).await;
    kept.note("before");
    kept.back_up().await;
    eventually("a backup of the metadata", async || howdah.log().contains("backed up Howdah's metadata").then_some(()))
        .await;

    bucket.fall_silent();
    kept.note("after");
    // More than a segment, so that its push is under way when the stop comes, and a backup is.
    ask(&kept.connection, "CREATE TABLE bulk AS SELECT generate_series(1, 400000)");
    kept.owner.post(&format!("{}/backups", kept.path()), json!({})).await.data(202);
    let work = howdah.directory().path().join("pgbackrest").display().to_string();
    eventually("a push to be under way", async || {
        let lines = std::fs::read_dir("/proc").unwrap().flatten().map(|process| process.path().join("cmdline"));
        let mut lines = lines.filter_map(|path| Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned()));
        lines.any(|line| line.contains("archive-push") && line.contains(&work)).then_some(())
    })
    .await;
    let begun = Instant::now();
    howdah.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let log = howdah.log();
    let told = log.lines().find(|line| line.contains("not archived: the latest WAL of")).unwrap_or(&log);
    let instance = howdah.directory().instances().pop().unwrap();
    assert!(told.contains(&instance) && told.contains("Howdah's metadata"), "{told}");
    assert!(!log.contains("not everything stopped in time"), "{log}");
    assert!(howdah.directory().servers().is_empty());

    // Nothing is lost: it is archived when both are back, and the backup is made.
    bucket.come_back();
    howdah.launch().await;
    let connection = at(&howdah, &kept.connection);
    assert_eq!(notes(&connection), "before after");
    eventually("everything to be archived", async || {
        let answer = kept.owner.on(&howdah).get(&format!("{}/backups", kept.path())).await;
        let made = answer.data(200).as_array().unwrap().iter().filter(|backup| backup["status"] == "completed").count();
        (made == 2 && answer.body["meta"]["archiving"]["state"] == "ok").then_some(())
    })
    .await;
    howdah.stop().await;
    let log = howdah.log();
    assert_eq!(log.matches("not archived: ").count(), 1, "the second stop leaves nothing: {log}");
}

/// A small place for backups, which can be filled to the last byte. Where file systems cannot be mounted,
/// it is a directory that is out of reach when it should be full.
struct SmallDisk {
    place: Directory,
    mounted: bool,
}

impl SmallDisk {
    fn new() -> Self {
        let place = Directory::new();
        std::fs::create_dir(place.path()).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m,mode=0755", "tmpfs"]).arg(place.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        Self { place, mounted }
    }

    fn vaults(&self) -> PathBuf {
        self.place.path().join("vaults")
    }

    fn fill(&self) {
        if !self.mounted {
            return std::fs::rename(self.vaults(), self.place.path().join("aside")).unwrap();
        }
        let mut filler = std::fs::File::create(self.place.path().join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(1), &mut filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        if self.mounted {
            return std::fs::remove_file(self.place.path().join("filler")).unwrap();
        }
        let _ = std::fs::remove_dir_all(self.vaults());
        std::fs::rename(self.place.path().join("aside"), self.vaults()).unwrap();
    }

    /// What is told while it is full.
    fn reason(&self) -> &'static str {
        if self.mounted { "is full" } else { "the backup storage" }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: whatever still has a file open there keeps no other test from its end.
            let _ = Command::new("umount").arg("--lazy").arg(self.place.path()).status();
        }
    }
}

#[tokio::test]
async fn full_backup_storage_is_reported_and_leaves_a_visible_gap() {
    let disk = SmallDisk::new();
    let vaults = disk.vaults().display().to_string();
    let arguments = ["--backup-dir", &vaults, "--backup-queue", "4", "--backup-every", "0"];
    let mut howdah = Howdah::start_with(&arguments).await;
    howdah.expect_errors(&["discarded", "the disk of the backups is almost full"]);
    let kept = Kept::new(&howdah).await;
    kept.note("one");
    kept.back_up().await;
    kept.note("two");
    let before = moment(&kept.connection);
    kept.back_up().await;
    kept.note("three");

    disk.fill();
    let asked = kept.owner.post(&format!("{}/backups", kept.path()), json!({"backupType": "full"})).await;
    asked.data(202);
    let operation = asked.headers["howdah-operation"].to_str().unwrap().to_owned();
    let path = format!("/v1/operations/{operation}");
    eventually("the operation to say what is in its way", async || {
        let shown = kept.owner.get(&path).await.data(200).clone();
        shown["reason"].as_str().is_some_and(|reason| reason.contains(disk.reason())).then_some(())
    })
    .await;
    kept.note("four");
    let write = "CREATE TABLE IF NOT EXISTS bulk (text text); \
                 INSERT INTO bulk SELECT repeat(md5(n::text), 100) FROM generate_series(1, 500) AS n";
    ask(&kept.connection, write);
    let stuck = eventually("the list of backups to say that archiving is stuck", async || {
        let archiving = kept.backups().await["meta"]["archiving"].clone();
        (archiving["state"] == "stuck").then_some(archiving)
    })
    .await;
    assert!(stuck["since"].is_string() && stuck["reason"].as_str().unwrap().contains(disk.reason()), "{stuck}");

    // The database goes on, and so much waits that it is given up.
    let lost = moment(&kept.connection);
    eventually("what waits to be given up", async || {
        ask(&kept.connection, write);
        howdah.log().contains("discarded").then_some(())
    })
    .await;
    assert_eq!(notes(&kept.connection), "one two three four");
    disk.make_room();

    // The backup that was asked for comes about by itself.
    let ended = kept.owner.ended(&operation).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    kept.note("five");
    let after = moment(&kept.connection);
    let meta = eventually("archiving to go on", async || {
        let meta = kept.backups().await["meta"].clone();
        (meta["archiving"]["state"] == "ok").then_some(meta)
    })
    .await;
    let windows = meta["restorableWindows"].as_array().unwrap();
    assert_eq!(windows.len(), 2, "{meta}");
    assert!(windows[0]["until"].as_str().unwrap() < lost.as_str(), "{meta}");
    assert!(windows[1]["from"].as_str().unwrap() > lost.as_str(), "{meta}");

    let source = |then: &str| json!({"type": "database", "databaseId": kept.id, "targetTime": then});
    let body = json!({"projectId": kept.project, "name": "lost", "source": source(&lost)});
    let refused = kept.owner.post("/v1/databases", body).await;
    refused.assert_error(422, "validation-error");
    let said = refused.body["error"]["message"].as_str().unwrap();
    for bound in windows.iter().flat_map(|window| [&window["from"], &window["until"]]).take(3) {
        assert!(said.contains(bound.as_str().unwrap()), "{said}");
    }
    assert_eq!(notes(&kept.make_from("before", source(&before)).await), "one two");
    assert_eq!(notes(&kept.make_from("after", source(&after)).await), "one two three four five");
    // The last moment before the gap, though no later commit tells that it was reached.
    let last = windows[0]["until"].as_str().unwrap();
    assert!(notes(&kept.make_from("last", source(last)).await).starts_with("one two"));
}

#[tokio::test]
async fn backups_deleted_from_the_bucket_are_unlisted_and_made_again() {
    let bucket = Bucket::start().await;
    let arguments = bucket.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let howdah = Howdah::start_in(&bucket.environment(), &arguments).await;
    let kept = Kept::new(&howdah).await;
    kept.back_up().await;
    bucket.look("/howdah/one", &["--recurse", "repo-rm"]);
    kept.note("kept");
    let made = kept.back_up().await;
    assert_eq!(made["backupType"], "full");
    kept.settled().await;
    assert_eq!(kept.backups().await["data"].as_array().unwrap().len(), 1);
    let copy = kept.make_from("copy", json!({"type": "database", "databaseId": kept.id})).await;
    assert_eq!(notes(&copy), "kept");
}
