//! Backups and restores on real PostgreSQL and pgBackRest.

use base::name::TENANT_DATABASE;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::*;
use crate::backups::{Obstacle, Progress, Vault, no_progress};
use crate::local::tests::{LocalSandbox, tenant};
use crate::local::{process, users};
use crate::{Endpoint, Engine as _};

/// Waits for something that comes to be by itself.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn session(sandbox: &LocalSandbox, id: InstanceId) -> Client {
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    tenant(&endpoint, TENANT_DATABASE).await.unwrap()
}

async fn text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// A checksum of everything that pgbench and the tests write.
const CHECKSUM: &str = "SELECT pg_catalog.md5(pg_catalog.string_agg(line, '' ORDER BY line)) FROM (\
    SELECT 'a' || pg_catalog.concat_ws(',', aid, abalance) AS line FROM pgbench_accounts UNION ALL \
    SELECT 'h' || pg_catalog.concat_ws(',', tid, bid, aid, delta, mtime) FROM pgbench_history UNION ALL \
    SELECT 'n' || note FROM notes) AS lines";

/// pgbench in the background, as the tenant.
struct Load(Child);

impl Load {
    fn on(sandbox: &LocalSandbox, endpoint: &Endpoint, arguments: &[&str]) -> Self {
        let program = sandbox.engine.machine.newest().unwrap().path("pgbench");
        let mut command = Command::new(program);
        command.arg("-h").arg(&endpoint.directory).args(["-U", "tenant"]).args(arguments).arg(TENANT_DATABASE);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.0.wait().unwrap();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// An instance with the tables of pgbench and of the tests.
async fn filled(sandbox: &LocalSandbox, number: u128) -> (InstanceId, Client) {
    let id = sandbox.created(number).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let mut filling = Load::on(sandbox, &endpoint, &["-i", "-s", "1", "-q"]);
    assert!(filling.0.wait().unwrap().success());
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE notes (note text)").await.unwrap();
    (id, client)
}

/// An instance with the table of the tests alone.
async fn with_notes(sandbox: &LocalSandbox) -> (InstanceId, Client) {
    let id = sandbox.created(1).await;
    let client = session(sandbox, id).await;
    client.batch_execute("CREATE TABLE notes (note text)").await.unwrap();
    (id, client)
}

async fn note(client: &Client, note: &str) {
    client.execute("INSERT INTO notes VALUES ($1)", &[&note]).await.unwrap();
}

/// Where the vault is.
fn vault_directory(sandbox: &LocalSandbox, id: InstanceId) -> PathBuf {
    sandbox.directory.path().join("backups").join(id.bare())
}

/// A moment between what was committed before and what will be after, by PostgreSQL's clock.
async fn moment(client: &Client) -> Timestamp {
    let now = client.query_one("SELECT pg_catalog.clock_timestamp()", &[]).await.unwrap().get(0);
    sleep(Duration::from_millis(5)).await;
    now
}

#[tokio::test]
async fn data_of_a_point_in_time_is_restored() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = filled(&sandbox, 1).await;
    let vault = Vault::generate(id);
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    note(&client, "before").await;

    // A backup while pgbench writes.
    let load = Load::on(&sandbox, &endpoint, &["-c", "2", "-T", "600", "-R", "100"]);
    let (seen, watch) = {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = seen.clone();
        let watch: ProgressSink = std::sync::Arc::new(move |progress| sink.lock().unwrap().push(progress));
        (seen, watch)
    };
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, watch.clone()).await.unwrap();
    assert_eq!((full.kind, full.restorable, full.timeline), (BackupKind::Full, true, 1));
    {
        let seen = seen.lock().unwrap();
        assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done), "{seen:?}");
        assert_eq!(seen.last().map(|progress| progress.done), seen.last().map(|progress| progress.total));
    }
    note(&client, "after the full one").await;
    let incremental = sandbox.engine.back_up(&vault, BackupKind::Incremental, no_progress()).await.unwrap();
    assert_eq!(incremental.requires, std::slice::from_ref(&full.label));
    load.end();

    // Two moments of quiet, with a change between them, and one after that is forgotten.
    note(&client, "first").await;
    let (first, at_first) = (text(&client, CHECKSUM).await, moment(&client).await);
    client.batch_execute("UPDATE pgbench_accounts SET abalance = 1 WHERE aid % 7 = 0").await.unwrap();
    let (second, at_second) = (text(&client, CHECKSUM).await, moment(&client).await);
    client.batch_execute("DROP TABLE pgbench_history CASCADE; DELETE FROM notes").await.unwrap();
    sandbox.engine.flush_archive(&vault).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), [full.clone(), incremental.clone()]);
    sandbox.engine.verify(&vault).await.unwrap();

    let origin = sandbox.engine.place(id).read_manifest().unwrap();
    for (number, label, at, checksum) in
        [(2, &full.label, at_first, &first), (3, &incremental.label, at_second, &second)]
    {
        let target = InstanceId::from(uuid::Uuid::from_u128(number));
        let facts = sandbox.engine.restore(target, &vault, label, RecoverTo::Time(at), no_progress()).await.unwrap();
        assert_eq!(facts.timeline, 2);
        assert!(facts.last_commit_at.is_some_and(|commit| commit <= at), "{facts:?} at {at}");
        // Again: nothing changes.
        let again = sandbox.engine.restore(target, &vault, label, RecoverTo::Latest, no_progress()).await.unwrap();
        assert_eq!(again, facts);
        let there = session(&sandbox, target).await;
        assert_eq!(&text(&there, CHECKSUM).await, checksum);
        assert_eq!(text(&there, "SELECT pg_catalog.current_setting('archive_mode')").await, "on");
        let restored = sandbox.engine.place(target).read_manifest().unwrap();
        assert_ne!(restored.system_identifier, origin.system_identifier);
        assert!(restored.uid.is_none() || restored.uid != origin.uid);
        note(&there, "goes on").await;
    }

    // To the end, of an origin that is gone; and a moment after the end is the end.
    sandbox.engine.ensure_destroyed(id).await.unwrap();
    for (number, to) in
        [(4, RecoverTo::Latest), (5, RecoverTo::Time(full.stopped_at + jiff::SignedDuration::from_hours(1)))]
    {
        let target = InstanceId::from(uuid::Uuid::from_u128(number));
        sandbox.engine.restore(target, &vault, &incremental.label, to, no_progress()).await.unwrap();
        let there = session(&sandbox, target).await;
        assert_eq!(text(&there, "SELECT pg_catalog.count(*)::text FROM notes").await, "0");
        assert!(there.batch_execute("SELECT FROM pgbench_history").await.is_err());
    }

    // To the end of the backup only.
    let target = InstanceId::from(uuid::Uuid::from_u128(6));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Immediate, no_progress()).await.unwrap();
    let there = session(&sandbox, target).await;
    assert_eq!(text(&there, "SELECT pg_catalog.string_agg(note, ',') FROM notes").await, "before");

    // What cannot be.
    let target = InstanceId::from(uuid::Uuid::from_u128(7));
    let early = RecoverTo::Time(full.started_at - jiff::SignedDuration::from_secs(1));
    let refused = sandbox.engine.restore(target, &vault, &full.label, early, no_progress()).await;
    assert!(matches!(refused, Err(BackupError::BeforeBackup)), "{refused:?}");
    let absent = BackupLabel::parse("20200101-000000F").unwrap();
    let refused = sandbox.engine.restore(target, &vault, &absent, RecoverTo::Latest, no_progress()).await;
    assert!(matches!(refused, Err(BackupError::MissingBackup(_))), "{refused:?}");
    let wrong = Vault::generate(id);
    let refused = sandbox.engine.restore(target, &wrong, &full.label, RecoverTo::Latest, no_progress()).await;
    assert!(matches!(refused, Err(BackupError::Damaged(_))), "{refused:?}");
    assert!(matches!(sandbox.engine.ensure_started(target).await, Err(EngineError::Missing(_))));
    assert_eq!(fs::read_dir(sandbox.engine.machine.restores()).unwrap().count(), 0);

    sandbox.engine.ensure_forgotten(&vault).await.unwrap();
    sandbox.engine.ensure_forgotten(&vault).await.unwrap();
    assert!(!vault_directory(&sandbox, id).exists());
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), []);
}

/// A sink of progress, and what hears of it.
fn told() -> (ProgressSink, tokio::sync::mpsc::UnboundedReceiver<Progress>) {
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    let sink = move |progress| {
        let _ = told.send(progress);
    };
    (std::sync::Arc::new(sink), heard)
}

/// The processes of pgBackRest that work on this vault.
fn pgbackrest_on(vault: &std::path::Path) -> Vec<rustix::process::Pid> {
    let place = format!("PGBACKREST_REPO1_PATH={}\0", vault.display());
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.windows(place.len()).any(|part| part == place.as_bytes())
    })
    .filter_map(|entry| rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
    .collect()
}

#[tokio::test]
async fn a_killed_backup_leaves_nothing_that_counts() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = filled(&sandbox, 1).await;
    let vault = Vault::generate(id);
    for _ in 0..2 {
        let (watch, mut heard) = told();
        let killing = async {
            heard.recv().await.unwrap();
            for pid in pgbackrest_on(&vault_directory(&sandbox, id)) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        };
        let (killed, ()) = tokio::join!(sandbox.engine.back_up(&vault, BackupKind::Full, watch), killing);
        assert!(killed.is_err());
        assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), []);
    }
    // Nor does one that its caller gave up, whose processes end with it.
    let (watch, mut heard) = told();
    tokio::select! {
        _ = sandbox.engine.back_up(&vault, BackupKind::Full, watch) => panic!("it is given up before its end"),
        _ = heard.recv() => {}
    }
    until("its processes end", async || pgbackrest_on(&vault_directory(&sandbox, id)).is_empty()).await;
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), []);

    note(&client, "kept").await;
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), std::slice::from_ref(&full));

    // Two restores at once, and meanwhile nothing is removed.
    let checksum = text(&client, CHECKSUM).await;
    let [one, other] = [2, 3].map(|number| InstanceId::from(uuid::Uuid::from_u128(number)));
    let restore = |target| sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress());
    let (first, second, removed) = tokio::join!(restore(one), restore(other), async {
        sleep(Duration::from_millis(50)).await;
        [
            sandbox.engine.expire(&vault, Retention { days: 1 }).await,
            sandbox.engine.remove_backup(&vault, &full.label).await,
            sandbox.engine.ensure_forgotten(&vault).await,
        ]
    });
    assert!(removed.iter().all(|removed| matches!(removed, Err(BackupError::Busy(_)))), "{removed:?}");
    first.unwrap();
    second.unwrap();
    for target in [one, other] {
        assert_eq!(text(&session(&sandbox, target).await, CHECKSUM).await, checksum);
    }

    // A killed restore can be repeated.
    let target = InstanceId::from(uuid::Uuid::from_u128(4));
    let (watch, mut heard) = told();
    let killing = async {
        heard.recv().await.unwrap();
        for pid in pgbackrest_on(&vault_directory(&sandbox, id)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    };
    let restoring = sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, watch);
    let (killed, ()) = tokio::join!(restoring, killing);
    assert!(killed.is_err());
    assert!(matches!(sandbox.engine.ensure_started(target).await, Err(EngineError::Missing(_))));
    restore(target).await.unwrap();
    assert_eq!(text(&session(&sandbox, target).await, CHECKSUM).await, checksum);
    sandbox.engine.expire(&vault, Retention { days: 1 }).await.unwrap();
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap().len(), 1);
}

#[tokio::test]
async fn restore_interrupted_by_a_crash_is_removed() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = filled(&sandbox, 1).await;
    let vault = Vault::generate(id);
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    note(&client, "kept").await;
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    let restores = sandbox.engine.machine.restores();
    tokio::select! {
        _ = sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()) => {}
        () = until("it recovers", async || restores.join(target.bare()).join("data/postmaster.pid").exists()) => {}
    }
    let sandbox = sandbox.reopened().await;
    assert_eq!(fs::read_dir(&restores).unwrap().count(), 0);

    // The key is handed in again, and nothing that was written meanwhile is missing.
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert!(status.enabled && !status.unlocked, "{status:?}");
    client.batch_execute("SELECT pg_catalog.pg_sleep(0)").await.unwrap();
    sandbox.engine.archive_pending().await.unwrap();
    sandbox.engine.ensure_archiving(&vault).await.unwrap();
    note(&client, "after the crash").await;
    sandbox.engine.ensure_stopped(id).await.unwrap();
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert_eq!((status.pending_segments, status.failing_since, status.unlocked), (0, None, true));
    assert!(status.archived_until.is_some_and(|until| until >= full.started_at));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()).await.unwrap();
    let there = session(&sandbox, target).await;
    assert_eq!(text(&there, "SELECT pg_catalog.string_agg(note, ',') FROM notes").await, "kept,after the crash");
}

/// Changes a byte in the middle of a file.
fn damage(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The largest file below a directory.
fn largest(directory: &std::path::Path) -> PathBuf {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => found.push((entry.metadata().unwrap().len(), entry.path())),
            }
        }
    }
    found.into_iter().max().unwrap().1
}

#[tokio::test]
async fn damaged_repository_is_detected_and_not_restored() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = filled(&sandbox, 1).await;
    let vault = Vault::generate(id);
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    note(&client, "after").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();
    sandbox.engine.verify(&vault).await.unwrap();

    let last = sandbox.engine.archive_status(id).await.unwrap().last_segment.unwrap();
    let wal = vault_directory(&sandbox, id).join("archive").join(id.bare()).join("15-1").join(&last[..16]);
    let segment =
        fs::read_dir(wal).unwrap().flatten().find(|file| file.file_name().to_str().unwrap().starts_with(&last));
    let segment = segment.unwrap().path();
    let sound = fs::read(&segment).unwrap();
    damage(&segment);
    let found = sandbox.engine.verify(&vault).await;
    assert!(matches!(&found, Err(BackupError::Damaged(what)) if what.contains(&last)), "{found:?}");
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    let restored = sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()).await;
    assert!(matches!(restored, Err(BackupError::Gap(_))), "it is not the backup that is damaged: {restored:?}");
    fs::write(&segment, sound).unwrap();
    sandbox.engine.verify(&vault).await.unwrap();

    damage(&largest(&vault_directory(&sandbox, id).join("backup").join(id.bare()).join(full.label.as_str())));
    assert!(matches!(sandbox.engine.verify(&vault).await, Err(BackupError::Damaged(_))));
    let restored = sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()).await;
    assert!(matches!(restored, Err(BackupError::Damaged(_))), "{restored:?}");
    assert!(matches!(sandbox.engine.ensure_started(target).await, Err(EngineError::Missing(_))));
    sandbox.engine.ensure_destroyed(target).await.unwrap();
    assert_eq!(fs::read_dir(sandbox.engine.machine.restores()).unwrap().count(), 0);
}

#[tokio::test]
async fn users_of_instances_cannot_read_repositories() {
    if !users::is_root() {
        return;
    }
    let sandbox = LocalSandbox::new().await;
    let (id, _client) = filled(&sandbox, 1).await;
    let other = sandbox.created(2).await;
    let vault = Vault::generate(id);
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let directory = vault_directory(&sandbox, id);
    let work = sandbox.engine.machine.backup_work(id);
    let info = directory.join("backup").join(id.bare()).join("backup.info");
    for instance in [id, other] {
        let uid = sandbox.engine.place(instance).read_manifest().unwrap().uid;
        for (program, arguments) in [
            ("ls", vec![directory.clone()]),
            ("ls", vec![work.clone()]),
            ("cat", vec![info.clone()]),
            ("touch", vec![directory.join("x")]),
            ("rm", vec![info.clone()]),
            ("mv", vec![directory.clone(), directory.with_extension("away")]),
        ] {
            let mut command = process::command(&PathBuf::from("/bin").join(program), uid);
            let done = command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
            assert!(!done.success(), "{program} {arguments:?}");
        }
    }
    // Nor does the backup user get into an instance outside the instance's group.
    let mut command = process::command(&PathBuf::from("/bin/ls"), sandbox.engine.machine.backup_user);
    let place = sandbox.engine.place(id);
    assert!(!command.arg(place.data()).stderr(Stdio::null()).status().unwrap().success());
    // The role that pgBackRest used has no password any more.
    let question =
        "SELECT rolcanlogin OR rolpassword IS NOT NULL FROM pg_catalog.pg_authid WHERE rolname = 'howdah_backup'";
    let left = crate::local::session::ask_for_text(&place, question).await;
    assert_eq!(left.ok().flatten().as_deref(), Some("f"));

    // What the instance's user puts in its data directory leads nowhere.
    let link = place.data().join("base/link");
    std::os::unix::fs::symlink(&info, &link).unwrap();
    let refused = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await;
    assert!(matches!(&refused, Err(BackupError::Foreign(what)) if what.contains("a link")), "{refused:?}");
    fs::remove_file(link).unwrap();
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
}

#[tokio::test]
async fn pgbackrest_is_kept_to_its_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let (mine, other) = (directory.path().join("mine"), directory.path().join("other"));
    for path in [&mine, &other] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "text").unwrap();
    }
    let runs = async |program: &str, path: PathBuf| {
        let mut command = process::command(&PathBuf::from("/bin").join(program), None);
        command.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        let readable = [mine.clone()];
        confine::spawn(command, &readable, &[]).unwrap().wait().await.unwrap().success()
    };
    assert!(runs("cat", mine.join("file")).await);
    for path in [other.join("file"), "/proc/self/environ".into()] {
        assert!(!runs("cat", path.clone()).await, "{path:?} (does this kernel have Landlock?)");
    }
    assert!(!runs("touch", mine.join("new")).await);
    // This process itself is not.
    fs::read(other.join("file")).unwrap();
}

#[tokio::test]
async fn failing_archive_is_reported_and_recovers() {
    let sandbox = LocalSandbox::with(|config| config.backups.queue_limit = 6 << 20).await;
    let (id, client) = filled(&sandbox, 1).await;
    let vault = Vault::generate(id);
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let archive = vault_directory(&sandbox, id).join("archive");
    let aside = archive.with_extension("aside");
    let finish_segment = async |text: &str| {
        note(&client, text).await;
        let place = sandbox.engine.place(id);
        let switch = "SELECT pg_catalog.pg_switch_wal()";
        assert!(crate::local::session::ask_for_text(&place, switch).await.is_ok());
    };

    // The repository does not answer: what is written waits, and nobody else does.
    fs::rename(&archive, &aside).unwrap();
    finish_segment("while it is away").await;
    sandbox.engine.archive_pending().await.unwrap();
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert!(status.failing_since.is_some() && status.reason.is_some(), "{status:?}");
    assert!((1..=3).contains(&status.pending_segments), "{status:?}");
    assert!(sandbox.engine.flush_archive(&vault).await.is_err());
    fs::rename(&aside, &archive).unwrap();
    until("it goes on by itself", async || {
        sandbox.engine.archive_pending().await.unwrap();
        sandbox.engine.archive_status(id).await.unwrap().pending_segments == 0
    })
    .await;
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert_eq!((status.failing_since, status.gaps.len()), (None, 0));

    // For too long: it is given up, which is told, and later backups work.
    fs::rename(&archive, &aside).unwrap();
    finish_segment("lost at first").await;
    assert!(sandbox.engine.flush_archive(&vault).await.is_err());
    for number in 1..8 {
        finish_segment(&format!("lost {number}")).await;
    }
    let _ = sandbox.engine.flush_archive(&vault).await;
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert_eq!((status.gaps.len(), status.pending_segments), (1, 0), "{status:?}");
    assert!(status.failing_since.is_some(), "nothing was archived since: {status:?}");
    fs::rename(&aside, &archive).unwrap();
    finish_segment("after the gap").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    let refused = sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()).await;
    assert!(matches!(&refused, Err(BackupError::Gap(first)) if *first == status.gaps[0].first_segment), "{refused:?}");
    assert_eq!(sandbox.engine.archive_status(id).await.unwrap().failing_since, None);
    let next = sandbox.engine.back_up(&vault, BackupKind::Incremental, no_progress()).await.unwrap();
    sandbox.engine.restore(target, &vault, &next.label, RecoverTo::Latest, no_progress()).await.unwrap();
    let there = session(&sandbox, target).await;
    assert_eq!(text(&there, "SELECT pg_catalog.count(*)::text FROM notes").await, "10");
    // Back to a moment before the gap.
    let target = InstanceId::from(uuid::Uuid::from_u128(3));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Immediate, no_progress()).await.unwrap();
}

#[tokio::test]
async fn lost_repository_is_created_again() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = with_notes(&sandbox).await;
    let vault = Vault::generate(id);
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    note(&client, "before").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();

    // It is noticed when something is archived.
    fs::remove_dir_all(vault_directory(&sandbox, id)).unwrap();
    let expired = sandbox.engine.expire(&vault, Retention { days: 1 }).await;
    assert!(matches!(expired, Err(BackupError::MissingVault(_))), "{expired:?}");
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), []);
    note(&client, "meanwhile").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();
    let status = sandbox.engine.archive_status(id).await.unwrap();
    assert_eq!((status.gaps.len(), status.pending_segments, status.failing_since), (1, 0, None), "{status:?}");
    let next = sandbox.engine.back_up(&vault, BackupKind::Differential, no_progress()).await.unwrap();
    assert_eq!((next.kind, next.restorable), (BackupKind::Full, true));

    // And when there is nothing to be archived, by the next backup.
    fs::remove_dir_all(vault_directory(&sandbox, id)).unwrap();
    let next = sandbox.engine.back_up(&vault, BackupKind::Differential, no_progress()).await.unwrap();
    assert_eq!(sandbox.engine.archive_status(id).await.unwrap().gaps.len(), 2);
    note(&client, "after").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    sandbox.engine.restore(target, &vault, &next.label, RecoverTo::Latest, no_progress()).await.unwrap();
    let there = session(&sandbox, target).await;
    assert_eq!(text(&there, "SELECT pg_catalog.string_agg(note, ',') FROM notes").await, "before,meanwhile,after");
}

#[tokio::test]
async fn interrupted_creation_of_a_repository_is_completed() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = with_notes(&sandbox).await;
    let vault = Vault::generate(id);
    let [archive, backup] = ["archive", "backup"].map(|part| vault_directory(&sandbox, id).join(part).join(id.bare()));
    let remove = |paths: &[PathBuf]| paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    let info = |directory: &std::path::Path, name: &str| {
        [directory.join(name), directory.join(format!("{name}.copy"))].to_vec()
    };
    let place = sandbox.engine.place(id);
    let begin = || fs::write(place.vault_intent(), "").unwrap();
    // Before it was written down that it is there: a first part of it, and a part of that.
    for left in ["archive.info", "archive.info.pgbackrest.tmp", ""] {
        sandbox.engine.ensure_archiving(&vault).await.unwrap();
        assert!(!place.vault_intent().exists());
        fs::remove_file(place.archive_record()).unwrap();
        begin();
        remove(&info(&backup, "backup.info"));
        match left {
            "archive.info" => {}
            "" => {
                remove(&info(&archive, "archive.info"));
                fs::remove_dir_all(backup.parent().unwrap()).unwrap();
            }
            partial => {
                remove(&info(&archive, "archive.info"));
                fs::write(archive.join(partial), "[back").unwrap();
            }
        }
        assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), [], "{left}");
        sandbox.engine.ensure_archiving(&vault).await.unwrap();
        note(&client, "kept").await;
        sandbox.engine.flush_archive(&vault).await.unwrap();
        sandbox.engine.ensure_forgotten(&vault).await.unwrap();
    }
    // While a lost one was replaced.
    sandbox.engine.ensure_archiving(&vault).await.unwrap();
    remove(&info(&backup, "backup.info"));
    note(&client, "kept").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();
    let damaged = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await;
    assert!(damaged.is_err(), "it was whole before: nobody throws away what is left of it");
    assert!(archive.join("archive.info").exists());
    begin();
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Latest, no_progress()).await.unwrap();
    let there = session(&sandbox, target).await;
    assert_eq!(text(&there, "SELECT pg_catalog.count(*)::text FROM notes").await, "4");
}

#[tokio::test]
async fn backups_are_only_written_to_the_marked_directory() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = with_notes(&sandbox).await;
    let vault = Vault::generate(id);
    sandbox.engine.hold_to_repository().await.unwrap();
    sandbox.engine.ensure_archiving(&vault).await.unwrap();
    note(&client, "one").await;
    sandbox.engine.flush_archive(&vault).await.unwrap();

    // Not mounted, with the directory that it is mounted on and without.
    let place = sandbox.directory.path().join("backups");
    let aside = place.with_extension("aside");
    fs::rename(&place, &aside).unwrap();
    note(&client, "two").await;
    for is_there in [false, true] {
        if is_there {
            fs::create_dir(&place).unwrap();
        }
        let refused = [
            sandbox.engine.flush_archive(&vault).await,
            sandbox.engine.backups(&vault).await.map(drop),
            sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.map(drop),
            sandbox.engine.ensure_forgotten(&vault).await,
        ];
        assert!(refused.iter().all(|refused| matches!(refused, Err(BackupError::WrongPlace(_)))), "{refused:?}");
        let status = sandbox.engine.archive_status(id).await.unwrap();
        assert_eq!((status.obstacle, status.pending_segments > 0), (Some(Obstacle::WrongPlace), true), "{status:?}");
        assert_eq!((place.exists(), is_there && place.read_dir().unwrap().next().is_some()), (is_there, false));
    }
    let sandbox = sandbox.reopened().await;
    assert!(matches!(sandbox.engine.hold_to_repository().await, Err(BackupError::WrongPlace(_))), "nor at a start");
    fs::remove_dir(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    sandbox.engine.flush_archive(&vault).await.unwrap();
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();

    // The operator means another one.
    fs::rename(&place, &aside).unwrap();
    fs::remove_file(sandbox.directory.path().join("backup-place")).unwrap();
    assert!(sandbox.engine.backups(&vault).await.is_err(), "that is for the next start");
    let sandbox = sandbox.reopened().await;
    sandbox.engine.hold_to_repository().await.unwrap();
    assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), []);
}

#[tokio::test]
async fn instances_from_before_there_were_backups_are_brought_up_to_date() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let place = sandbox.engine.place(id);
    // As they were made then.
    let closed = Command::new("chmod").args(["-R", "go="]).arg(place.data()).arg(place.socket()).status().unwrap();
    assert!(closed.success());
    let manifest = place.read_manifest().unwrap();
    let text = serde_json::json!({
        "major": manifest.major, "uid": manifest.uid, "system_identifier": manifest.system_identifier
    });
    fs::write(place.root.join("instance.json"), text.to_string()).unwrap();
    let client = session(&sandbox, id).await;
    client.batch_execute("CREATE TABLE notes (note text)").await.unwrap();
    let vault = Vault::generate(id);
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    assert_eq!(place.read_manifest().unwrap().group_access, manifest.uid.is_some());

    // A server that was started then is told by its record, and restarted when it is quiet.
    let record = place.server_record();
    let mut changed: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    changed.as_object_mut().unwrap().remove("archives");
    fs::write(&record, changed.to_string()).unwrap();
    let sandbox = sandbox.reopened().await;
    assert!(sandbox.engine.instances().await.unwrap().iter().all(|facts| facts.outdated));

    // What is not archived does not pile up.
    let other = sandbox.created(2).await;
    sandbox.engine.ensure_started(other).await.unwrap();
    let place = sandbox.engine.place(other);
    let question = "SELECT pg_catalog.pg_switch_wal()";
    assert!(crate::local::session::ask_for_text(&place, question).await.is_ok());
    assert!(!queue::Queue::open(&place).unwrap().is_empty().unwrap());
    sandbox.engine.archive_pending().await.unwrap();
    assert!(queue::Queue::open(&place).unwrap().is_empty().unwrap());
    assert_eq!(sandbox.engine.archive_status(other).await.unwrap(), ArchiveStatus::default());
}

#[tokio::test]
async fn damage_that_no_checksum_of_the_backup_tells_is_found_by_a_check() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = filled(&sandbox, 1).await;
    note(&client, "one").await;
    let vault = Vault::generate(id);
    let backup = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let path = text(&client, "SELECT pg_catalog.pg_relation_filepath('pgbench_accounts')").await;
    let refused = sandbox.engine.check(id, no_progress()).await;
    assert!(matches!(refused, Err(BackupError::Failed { .. })), "somebody's own is not checked: {refused:?}");

    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    let restored = sandbox.engine.restore(target, &vault, &backup.label, RecoverTo::Immediate, no_progress()).await;
    assert!(restored.unwrap().milliseconds > 0);
    for _ in 0..2 {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
        let sink = seen.clone();
        let watch: ProgressSink = std::sync::Arc::new(move |progress| *sink.lock().unwrap() = Some(progress));
        let facts = sandbox.engine.check(target, watch).await.unwrap();
        assert!(facts.relations > 250, "{facts:?}");
        let seen: Progress = seen.lock().unwrap().unwrap();
        assert!(seen.done == seen.total && seen.total > 10 << 20, "{seen:?}");
    }
    assert!(sandbox.engine.instances().await.unwrap().iter().all(|facts| facts.id != target || !facts.running));
    let marks = sandbox.engine.place(target).data().join("pg_wal/archive_status");
    assert!(marks.read_dir().unwrap().next().is_none(), "it archives nothing");

    let file = sandbox.engine.place(target).data().join(path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[20_000] ^= 0xff;
    fs::write(&file, bytes).unwrap();
    let found = sandbox.engine.check(target, no_progress()).await;
    assert!(matches!(&found, Err(BackupError::Corrupt(what)) if what.contains("pgbench_accounts")), "{found:?}");
    sandbox.engine.ensure_destroyed(target).await.unwrap();
    assert!(!sandbox.engine.place(target).root.exists());
}

#[tokio::test]
async fn names_that_a_list_of_files_cannot_hold_are_refused_and_all_others_are_kept() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = with_notes(&sandbox).await;
    let vault = Vault::generate(id);
    for name in
        ["a=b", "[target:file]", "#x", " blank ", "\"\"quoted\"\"", "back\\slash", "{\"\"a\"\":1}", "\u{e4}", "x={}"]
    {
        client.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await.unwrap();
    }
    let names = "SELECT pg_catalog.string_agg(datname::text, '|' ORDER BY datname) FROM pg_catalog.pg_database";
    let there = text(&client, names).await;
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Immediate, no_progress()).await.unwrap();
    assert_eq!(text(&session(&sandbox, target).await, names).await, there);

    let injected = "two\n[target:file]\nlines";
    client.batch_execute(&format!("CREATE DATABASE \"{injected}\"")).await.unwrap();
    for _ in 0..2 {
        let refused = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await;
        let Err(BackupError::Foreign(why)) = &refused else { panic!("{refused:?}") };
        assert!(why.contains(r#""two\n[target:file]\nlines""#) && why.contains("RENAME"), "{why}");
        assert_eq!(sandbox.engine.backups(&vault).await.unwrap(), std::slice::from_ref(&full));
    }
    client.batch_execute(&format!("ALTER DATABASE \"{injected}\" RENAME TO fine")).await.unwrap();
    sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
}

#[tokio::test]
async fn settings_of_a_tenant_do_not_reach_a_check() {
    let sandbox = LocalSandbox::new().await;
    let (id, client) = with_notes(&sandbox).await;
    let vault = Vault::generate(id);
    client.batch_execute("CREATE DATABASE own").await.unwrap();
    for setting in ["local_preload_libraries = 'missing'", "statement_timeout = 1"] {
        client.batch_execute(&format!("ALTER DATABASE own SET {setting}")).await.unwrap();
    }
    let full = sandbox.engine.back_up(&vault, BackupKind::Full, no_progress()).await.unwrap();
    let target = InstanceId::from(uuid::Uuid::from_u128(2));
    sandbox.engine.restore(target, &vault, &full.label, RecoverTo::Immediate, no_progress()).await.unwrap();
    let checked = sandbox.engine.check(target, no_progress()).await.unwrap();
    assert!(checked.relations > 100, "{checked:?}");
}
