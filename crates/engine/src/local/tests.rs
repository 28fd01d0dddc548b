//! What only this driver can show; what every driver has to do is in the conformance suite.

use base::name::TENANT_DATABASE;
use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::{PLATFORM_DATABASE, PLATFORM_ROLE, TENANT_ROLE};

/// A data directory that the users of instances can reach.
fn data_directory() -> TempDir {
    let parent = std::env::var("HOWDAH_TEST_DIRECTORY").unwrap_or_else(|_| "/tmp".to_owned());
    let directory = tempfile::Builder::new().prefix("howdah-").tempdir_in(parent).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

/// An engine whose servers end with the test, however that ends.
pub(crate) struct LocalSandbox {
    pub(crate) engine: Arc<LocalEngine>,
    pub(crate) directory: TempDir,
}

impl LocalSandbox {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut LocalConfig)) -> Self {
        let directory = data_directory();
        let mut config = LocalConfig::new(directory.path().to_owned());
        change(&mut config);
        let engine = LocalEngine::open(config).await.unwrap();
        Self { engine, directory }
    }

    /// The same data directory after Howdah was killed: nothing was told to stop.
    pub(crate) async fn reopened(mut self) -> Self {
        self.engine = LocalEngine::open(self.engine.machine.config.clone()).await.unwrap();
        self
    }

    /// What an instance takes on the disk.
    fn bytes(&self, id: InstanceId) -> u64 {
        fn below(path: &Path) -> u64 {
            let facts = fs::symlink_metadata(path).unwrap();
            let entries = fs::read_dir(path).into_iter().flatten();
            facts.blocks() * 512 + entries.map(|entry| below(&entry.unwrap().path())).sum::<u64>()
        }
        below(&self.engine.place(id).root)
    }

    pub(crate) async fn created(&self, number: u128) -> InstanceId {
        let id = InstanceId::from(uuid::Uuid::from_u128(number));
        let major = self.engine.majors().await[0];
        self.engine.ensure_created(id, major).await.unwrap();
        id
    }
}

impl Drop for LocalSandbox {
    fn drop(&mut self) {
        let directory = self.directory.path();
        kill_server(&directory.join("metadata"));
        for parent in ["instances", "restores"] {
            for place in places(&directory.join(parent)).unwrap_or_default() {
                kill_server(&place.root);
            }
        }
    }
}

/// Kills the server in this place, if one runs, and waits until nothing of it is left.
pub(crate) fn kill_server(root: &Path) {
    let data = root.join("data");
    let ours = || -> Vec<rustix::process::Pid> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .filter_map(|entry| rustix::process::Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .collect()
    };
    while let Some(pid) = ours().first() {
        let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn server_pid(sandbox: &LocalSandbox, id: InstanceId) -> Option<i32> {
    sandbox.engine.known(id).map(|server| server.pid())
}

/// A session of the tenant's, as the gateway opens it. It ends with the returned client.
pub(crate) async fn tenant(endpoint: &Endpoint, database: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(TENANT_ROLE).dbname(database);
    let (client, connection) = config.connect_raw(endpoint.connect().await.unwrap(), NoTls).await?;
    base::tasks::Tasks::default().spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

#[tokio::test]
async fn servers_outlive_howdah_and_are_adopted() {
    let mut sandbox = LocalSandbox::new().await;
    let (id, asleep) = (sandbox.created(1).await, sandbox.created(2).await);
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    let pid = server_pid(&sandbox, id);

    // What an interrupted create and an interrupted destroy leave.
    for name in ["stock/0123.partial", "trash/gone"] {
        fs::create_dir(sandbox.directory.path().join(name)).unwrap();
    }
    // And what is no directory.
    fs::write(sandbox.directory.path().join("trash/odd"), "").unwrap();
    sandbox = sandbox.reopened().await;
    assert!(sandbox.engine.empty_trash().await.unwrap());
    for name in ["stock", "trash"] {
        assert_eq!(fs::read_dir(sandbox.directory.path().join(name)).unwrap().count(), 0);
    }
    let facts = sandbox.engine.instances().await.unwrap();
    let running: Vec<InstanceId> = facts.iter().filter(|facts| facts.running).map(|facts| facts.id).collect();
    assert_eq!(running, [id]);
    assert!(facts.iter().all(|facts| !facts.outdated));
    assert_eq!(server_pid(&sandbox, id), pid);
    assert_eq!(sandbox.engine.ensure_started(id).await.unwrap(), endpoint);
    client.simple_query("SELECT 1").await.unwrap();

    // The programs were replaced while it ran.
    let record = sandbox.engine.place(id).server_record();
    let mut changed: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    changed["program"]["inode"] = 1.into();
    fs::write(&record, changed.to_string()).unwrap();
    sandbox = sandbox.reopened().await;
    let facts = sandbox.engine.instances().await.unwrap();
    assert!(facts.iter().all(|facts| facts.outdated == (facts.id == id)));

    // A second engine that did not see the start stops the server all the same.
    sandbox.engine.ensure_stopped(id).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(5), sandbox.engine.has_exited(id)).await.is_ok());
    assert!(client.simple_query("SELECT 1").await.is_err());

    // A recycled pid: whoever has it now is neither adopted nor harmed.
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let lock = format!("{}\n{}\n1\n5432\n\n\n\nready\n", stranger.id(), "/elsewhere");
    let place = sandbox.engine.place(asleep);
    fs::write(place.data().join("postmaster.pid"), lock).unwrap();
    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, asleep), None);
    sandbox.engine.ensure_stopped(asleep).await.unwrap();
    let endpoint = sandbox.engine.ensure_started(asleep).await.unwrap();
    assert!(stranger.try_wait().unwrap().is_none());
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    // A killed postmaster, with a session that holds on to its memory for a moment.
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE kept AS SELECT 1 AS row").await.unwrap();
    let pid = server_pid(&sandbox, asleep).and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    sandbox.engine.has_exited(asleep).await;
    let endpoint = sandbox.engine.ensure_started(asleep).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    assert_eq!(client.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get::<_, i64>(0), 1);
    sandbox.engine.ensure_destroyed(asleep).await.unwrap();
    sandbox.engine.ensure_destroyed(id).await.unwrap();
}

/// Takes the right to look at other users' processes from this thread and those that it begins,
/// as containers take it from their root.
fn give_up_looking_into_processes() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
        set.remove(CapabilitySet::SYS_PTRACE);
    }
    set_capabilities(None, sets).unwrap();
}

#[tokio::test]
async fn servers_are_adopted_without_the_right_to_look_into_them() {
    if !users::is_root() {
        return;
    }
    give_up_looking_into_processes();
    let mut sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    let pid = server_pid(&sandbox, id).unwrap();
    let watched = rustix::process::Pid::from_raw(pid).unwrap();
    let watched = rustix::process::pidfd_open(watched, rustix::process::PidfdFlags::empty()).unwrap();
    assert!(fs::read_link(format!("/proc/{pid}/exe")).is_err(), "the right is still there");

    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, id), Some(pid));
    sandbox.engine.ensure_started(id).await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();

    // Without a record of it nobody can tell, and then it is neither adopted nor disturbed.
    let place = sandbox.engine.place(id);
    let record = fs::read(place.server_record()).unwrap();
    fs::remove_file(place.server_record()).unwrap();
    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, id), None);
    for refused in [sandbox.engine.ensure_started(id).await.err(), sandbox.engine.ensure_stopped(id).await.err()] {
        let reason = refused.unwrap().to_string();
        assert!(reason.contains(&format!("the process {pid} seems to be a server of this instance")), "{reason}");
    }
    assert!(place.data().join("postmaster.pid").exists());
    client.simple_query("SELECT 1").await.unwrap();

    // Nor does the record of another start count.
    let mut other: serde_json::Value = serde_json::from_slice(&record).unwrap();
    other["start_ticks"] = 1.into();
    fs::write(place.server_record(), other.to_string()).unwrap();
    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, id), None);

    // A destroy need not know who it is.
    sandbox.engine.ensure_destroyed(id).await.unwrap();
    assert!(client.simple_query("SELECT 1").await.is_err());
    assert!(process::has_ended(&watched));
}

#[tokio::test]
async fn lock_files_stay_while_somebody_may_be_behind_them() {
    let mut sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let place = sandbox.engine.place(id);
    let uid = place.read_manifest().unwrap().uid;
    let lock = place.data().join("postmaster.pid");
    let name_in_lock =
        |pid: u32| fs::write(&lock, format!("{pid}\n{}\n1\n5432\n\n\n\nready\n", place.data().display())).unwrap();

    // Its server runs, but the lock file names a stranger.
    sandbox.engine.ensure_started(id).await.unwrap();
    let pid = server_pid(&sandbox, id).unwrap();
    let written = fs::read(&lock).unwrap();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    name_in_lock(stranger.id());
    sandbox = sandbox.reopened().await;
    let reason = sandbox.engine.ensure_started(id).await.unwrap_err().to_string();
    assert!(reason.contains(&format!("the process {pid} seems to be a server of this instance")), "{reason}");
    assert!(lock.exists());
    fs::write(&lock, written).unwrap();
    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, id), Some(pid));
    sandbox.engine.ensure_stopped(id).await.unwrap();

    // It names a process of the instance's own user.
    if uid.is_some() {
        let mut own = process::command(Path::new("/bin/sleep"), uid).arg("1000").spawn().unwrap();
        name_in_lock(own.id());
        let reason = sandbox.engine.ensure_started(id).await.unwrap_err().to_string();
        assert!(reason.contains(&format!("the process {} seems", own.id())), "{reason}");
        assert!(lock.exists());
        own.kill().unwrap();
        own.wait().unwrap();
    }

    // It names one that has ended and that nobody has reaped.
    let mut ended = process::command(Path::new("/bin/true"), uid).spawn().unwrap();
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&ended)), options).unwrap();
    name_in_lock(ended.id());
    sandbox.engine.ensure_started(id).await.unwrap();
    ended.wait().unwrap();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// Makes a chain of directories that belong to the instance's user, deeper than any path may be long.
fn nest_directories(at: &Path, uid: Option<u32>) {
    use rustix::fs::{Gid, Mode, Uid, fchown, mkdirat, open, openat};
    let mut directory = open(at, tree::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..10_000 {
        mkdirat(&directory, c"d", Mode::RWXU).unwrap();
        directory = openat(&directory, c"d", tree::DIRECTORY, Mode::empty()).unwrap();
        fchown(&directory, uid.map(Uid::from_raw), uid.map(Gid::from_raw)).unwrap();
    }
}

#[tokio::test]
async fn files_of_a_tenant_hold_up_neither_a_start_nor_a_delete() {
    let mut sandbox = LocalSandbox::new().await;
    let (id, interrupted) = (sandbox.created(1).await, sandbox.created(2).await);
    let place = sandbox.engine.place(id);
    let uid = place.read_manifest().unwrap().uid;
    sandbox.engine.ensure_started(id).await.unwrap();
    let server = rustix::process::Pid::from_raw(server_pid(&sandbox, id).unwrap()).unwrap();
    let server = rustix::process::pidfd_open(server, rustix::process::PidfdFlags::empty()).unwrap();

    // A pipe in place of the lock file: the next Howdah does not find the server.
    let lock = place.data().join("postmaster.pid");
    fs::remove_file(&lock).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &lock, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let left = sandbox.engine.place(interrupted);
    nest_directories(&left.data().join("base"), left.read_manifest().unwrap().uid);
    fs::rename(&left.root, sandbox.engine.machine.restores().join(interrupted.bare())).unwrap();
    sandbox = sandbox.reopened().await;
    assert_eq!(server_pid(&sandbox, id), None);
    let reason = sandbox.engine.ensure_started(id).await.unwrap_err().to_string();
    assert!(reason.contains("seems to be a server of this instance"), "{reason}");
    assert_eq!(fs::read_dir(sandbox.engine.machine.restores()).unwrap().count(), 0);
    assert!(sandbox.engine.empty_trash().await.unwrap());
    assert_eq!(fs::read_dir(sandbox.engine.machine.trash()).unwrap().count(), 0);

    if uid.is_some() {
        sandbox.engine.ensure_ended(id).await.unwrap();
        assert!(process::has_ended(&server), "the server that the lock file hid runs on");
        sandbox.engine.ensure_started(id).await.unwrap();
    } else {
        kill_server(&place.root);
    }
    nest_directories(&place.data().join("base"), uid);
    sandbox.engine.ensure_destroyed(id).await.unwrap();
    assert!(!place.root.exists());
    assert_eq!(fs::read_dir(sandbox.engine.machine.trash()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_tenant_can_do_what_is_theirs_and_nothing_else() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let refused = tenant(&endpoint, PLATFORM_DATABASE).await;
    assert_eq!(refused.err().unwrap().code().unwrap().code(), "28000");
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    for allowed in [
        "CREATE TABLE things (id int); INSERT INTO things VALUES (1)",
        "CREATE SCHEMA other",
        "CREATE EXTENSION pgcrypto",
        "CREATE EXTENSION citext",
        "CREATE EXTENSION hstore",
        "CREATE EXTENSION pg_trgm",
        "CREATE DATABASE shadow",
        "ALTER DATABASE shadow RENAME TO shadow_two",
        "DROP DATABASE shadow_two",
        "CREATE DATABASE shadow_three",
        "ALTER ROLE tenant PASSWORD 'known'",
        "ALTER ROLE tenant SET search_path = other",
        "ALTER ROLE tenant SET statement_timeout = 1000",
        "SET session_replication_role = replica; RESET session_replication_role",
        "ALTER DATABASE shadow_three SET session_replication_role = replica",
        "SELECT pg_database_size(datname) FROM pg_database",
    ] {
        client.batch_execute(allowed).await.unwrap_or_else(|error| panic!("{allowed}: {error:?}"));
    }
    for refused in [
        "ALTER SYSTEM SET work_mem = '1GB'",
        "ALTER DATABASE postgres SET work_mem = '1GB'",
        "ALTER DATABASE postgres RENAME TO mine",
        "DROP DATABASE howdah",
        "ALTER ROLE howdah NOLOGIN",
        "ALTER ROLE howdah SET session_replication_role = replica",
        "ALTER DATABASE howdah SET session_replication_role = replica",
        "ALTER DATABASE postgres SET session_replication_role = replica",
        "ALTER ROLE tenant SUPERUSER",
        "SET SESSION AUTHORIZATION howdah",
        "SET ROLE howdah_owner",
        "GRANT pg_execute_server_program TO tenant",
        "GRANT pg_read_server_files TO tenant",
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION postgres_fdw",
        "CREATE EXTENSION file_fdw",
        "COPY things FROM PROGRAM 'id'",
        "COPY things TO '/tmp/things'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/tmp/f.so', 'f'",
        "SELECT pg_reload_conf()",
        "SET log_min_messages = debug5",
        "SET temp_file_limit = -1",
    ] {
        let code = client.batch_execute(refused).await.map_err(|error| error.code().unwrap().code().to_owned());
        // 58P01: the extension is not installed on this machine, which is as good.
        assert!(
            matches!(code.as_ref().map_err(String::as_str), Err("42501" | "42809" | "58P01" | "0A000")),
            "{refused}: {code:?}"
        );
    }
    // What tenants set for themselves locks neither the gateway nor the platform out.
    tenant(&endpoint, TENANT_DATABASE).await.unwrap().simple_query("SELECT 1").await.unwrap();
    // The server may still be at the end of that session.
    while sandbox.engine.is_busy(id).await.unwrap() {
        tokio::task::yield_now().await;
    }
    client.batch_execute("BEGIN").await.unwrap();
    assert!(sandbox.engine.is_busy(id).await.unwrap());
}

#[tokio::test]
async fn tenants_cannot_override_security_settings() {
    if users::is_root() {
        // This thread's only: a group that servers must not inherit.
        rustix::thread::set_thread_groups(&[rustix::process::Gid::from_raw(4)]).unwrap();
    }
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let place = sandbox.engine.place(id);
    let manifest = place.read_manifest().unwrap();
    let hostile = "listen_addresses = '*'\nhba_file = '/tmp/hba'\nunix_socket_permissions = 0777\n\
                   shared_preload_libraries = 'nowhere'\narchive_mode = off\narchive_command = 'touch /tmp/run'\nport = 5555\n\
                   unix_socket_directories = '/tmp'\nlog_min_messages = debug5\nssl = on\n";
    fs::write(place.data().join("postgresql.auto.conf"), hostile).unwrap();
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    for (setting, value) in [
        ("listen_addresses", ""),
        ("port", "5432"),
        ("archive_mode", "on"),
        ("archive_command", ""),
        ("ssl", "off"),
        ("log_min_messages", "fatal"),
        ("unix_socket_permissions", "0770"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("lc_collate", "C.UTF-8"),
        ("wal_segment_size", "1MB"),
        ("fsync", "on"),
    ] {
        let row = client.query_one("SELECT current_setting($1)", &[&setting]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{setting}");
    }
    let row = client.query_one("SELECT system_identifier FROM pg_control_system()", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0) as u64, manifest.system_identifier);
    let Some(uid) = manifest.uid else { return };

    // As root: what belongs to whom.
    use std::os::unix::fs::MetadataExt as _;
    for (name, owner, group, mode) in [
        ("", 0, uid, 0o750),
        ("data", uid, uid, 0o750),
        ("socket", uid, uid, 0o750),
        ("conf", 0, uid, 0o750),
        ("conf/pg_hba.conf", 0, uid, 0o640),
        ("log", 0, 0, 0o700),
        ("instance.json", 0, 0, 0o600),
    ] {
        let facts = fs::symlink_metadata(place.root.join(name)).unwrap();
        assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (owner, group, mode), "{name}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server_pid(&sandbox, id).unwrap())).unwrap();
    for line in
        [format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"), "NoNewPrivs:\t1".into(), "CapEff:\t0000000000000000".into()]
    {
        assert!(status.contains(&line), "{line} is not in {status}");
    }
    assert!(status.lines().any(|line| line.trim_end() == "Groups:" || line.trim_end() == format!("Groups:\t{uid}")));

    // The instance's own user cannot come back in.
    let psql = sandbox.engine.machine.newest().unwrap().path("psql");
    for role in [PLATFORM_ROLE, TENANT_ROLE] {
        let mut command = process::command(&psql, Some(uid));
        let output = command.arg("-h").arg(place.socket()).args(["-U", role, "-c", "SELECT 1", "postgres"]).output();
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains("Peer authentication failed"), "{said}");
    }

    // Nor can it put another instance's socket in the place of its own.
    let other = sandbox.created(2).await;
    let other = sandbox.engine.ensure_started(other).await.unwrap();
    fs::remove_file(endpoint.socket()).unwrap();
    std::os::unix::fs::symlink(other.socket(), endpoint.socket()).unwrap();
    assert_eq!(endpoint.connect().await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn killed_server_starts_again_though_a_session_of_it_goes_on() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    client.batch_execute("CREATE TABLE kept AS SELECT 1 AS n").await.unwrap();
    let busy = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    // The loop notices a cancel, but not that its server has ended.
    let looping = busy.batch_execute("DO $$ BEGIN LOOP END LOOP; END $$");
    assert!(tokio::time::timeout(Duration::from_secs(1), looping).await.is_err());

    let pid = rustix::process::Pid::from_raw(server_pid(&sandbox, id).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    sandbox.engine.has_exited(id).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    assert_eq!(client.query_one("SELECT n FROM kept", &[]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test]
async fn stop_ends_what_outlived_a_killed_server() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
    let busy = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
    let session: i32 = busy.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let looping = busy.batch_execute("DO $$ BEGIN LOOP END LOOP; END $$");
    assert!(tokio::time::timeout(Duration::from_secs(1), looping).await.is_err());

    let pid = rustix::process::Pid::from_raw(server_pid(&sandbox, id).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    sandbox.engine.has_exited(id).await;
    sandbox.engine.ensure_stopped(id).await.unwrap();
    // A process that has ended and was not reaped has no command line.
    let alive = fs::read(format!("/proc/{session}/cmdline")).is_ok_and(|line| !line.is_empty());
    assert!(!alive, "the session {session} of a stopped instance goes on");
}

#[tokio::test]
async fn failed_start_has_a_reason() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let place = sandbox.engine.place(id);

    // A server that could not be written down would not be found again.
    let obstacle = place.server_record().with_extension("partial");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(sandbox.engine.ensure_started(id).await, Err(EngineError::Failed { .. })));
    assert!(place.read_manifest().unwrap().uid.is_none_or(|uid| process::living_processes_of(uid).count() == 0));
    fs::remove_dir(obstacle).unwrap();

    fs::write(place.data().join("PG_VERSION"), "9.6\n").unwrap();
    let error = sandbox.engine.ensure_started(id).await.unwrap_err().to_string();
    assert!(error.starts_with("start the instance: the server exited during startup: "), "{error}");
    assert!(error.contains("incompatible") && error.contains("initialized by PostgreSQL version 9.6"), "{error}");
    let manifest = place.read_manifest().unwrap();
    place.write_manifest(&Manifest { major: 16384, ..manifest }).unwrap();
    assert!(matches!(sandbox.engine.ensure_started(id).await, Err(EngineError::MajorMissing(Major(16384)))));
}

#[tokio::test]
async fn interrupted_destroy_is_completed() {
    let directory = data_directory();
    // A single user beside the one for backups (numbers that nobody hands out), so that it is
    // seen to come back.
    let config = LocalConfig { uid_range: Some(65_532..=65_533), ..LocalConfig::new(directory.path().to_owned()) };
    let sandbox = LocalSandbox { engine: LocalEngine::open(config).await.unwrap(), directory };
    let id = sandbox.created(1).await;
    let trash = sandbox.engine.machine.trash();
    let removed = Place::new(trash.join(format!("{}.0123", id.bare())));
    let other = trash.join(format!("{}.0123", InstanceId::from(uuid::Uuid::from_u128(2)).bare()));
    fs::rename(sandbox.engine.place(id).root, &removed.root).unwrap();
    fs::remove_dir_all(removed.data()).unwrap();
    fs::create_dir(&other).unwrap();
    sandbox.engine.ensure_destroyed(id).await.unwrap();
    assert!(!removed.root.exists());
    assert!(other.exists());
    sandbox.created(3).await;
}

#[tokio::test]
async fn unfit_directories_are_refused_with_a_sentence() {
    let check = |path: &str| LocalConfig::new(path.into()).check();
    assert!(check("relative").unwrap_err().contains("not an absolute path"));
    assert!(check(&format!("/tmp/{}", "long".repeat(20))).unwrap_err().contains("too long"));
    if users::is_root() {
        let closed = data_directory();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let sentence = check(closed.path().join("data").to_str().unwrap()).unwrap_err();
        assert!(sentence.contains("chmod o+x"), "{sentence}");
    }
    let mut elsewhere = LocalConfig::new("/tmp/howdah-data".into());
    elsewhere.programs = Some("/nonexistent".into());
    assert!(elsewhere.check().unwrap_err().contains("/nonexistent"));
    elsewhere = LocalConfig { major: Some(Major(99)), ..LocalConfig::new("/tmp/howdah-data".into()) };
    assert!(elsewhere.check().unwrap_err().contains("PostgreSQL 99 is not installed"));
}

#[tokio::test]
async fn creates_that_find_the_pool_empty_each_get_an_instance_that_starts() {
    let sandbox = LocalSandbox::new().await;
    let ids = futures_util::future::join_all((1..=6).map(|number| sandbox.created(number))).await;
    let facts = sandbox.engine.instances().await.unwrap();
    let identifiers: HashSet<u64> = facts.iter().map(|facts| facts.system_identifier).collect();
    assert_eq!(identifiers.len(), ids.len());
    let users: HashSet<Option<u32>> = ids.iter().map(|id| sandbox.engine.manifest(*id).unwrap().uid).collect();
    assert_eq!(users.len(), if users::is_root() { ids.len() } else { 1 });
    for id in [ids[0], ids[5]] {
        let endpoint = sandbox.engine.ensure_started(id).await.unwrap();
        tenant(&endpoint, TENANT_DATABASE).await.unwrap().simple_query("SELECT 1").await.unwrap();
    }
    let prepared = sandbox.engine.machine.stock();
    let partial = places(&prepared).unwrap().into_iter().filter(|place| place.root.extension().is_some());
    assert_eq!(partial.count(), 0);
}

#[tokio::test]
async fn the_pool_grows_with_the_demand_of_the_last_minute() {
    let clock = Clock::manual(jiff::Timestamp::UNIX_EPOCH);
    let hand = clock.clone();
    let sandbox = LocalSandbox::with(|config| {
        config.stock_target = 1;
        config.clock = clock;
    })
    .await;
    assert_eq!(sandbox.engine.replenish_stock().await.unwrap(), StockLevel { ready: 1, target: 1 });
    for number in 1..=3 {
        sandbox.created(number).await;
    }
    assert_eq!(sandbox.engine.replenish_stock().await.unwrap(), StockLevel { ready: 3, target: 3 });
    hand.advance(jiff::SignedDuration::from_mins(1));
    assert_eq!(sandbox.engine.replenish_stock().await.unwrap(), StockLevel { ready: 3, target: 1 });
}

#[tokio::test]
async fn an_instance_in_which_nothing_was_done_takes_at_most_27_megabytes() {
    let sandbox = LocalSandbox::new().await;
    let id = sandbox.created(1).await;
    let bytes = sandbox.bytes(id);
    assert!(bytes <= 27_000_000, "it takes {bytes} bytes");
}

#[tokio::test]
async fn the_metadata_instance_starts_and_stops() {
    let sandbox = LocalSandbox::new().await;
    let metadata = sandbox.engine.metadata();
    for _ in 0..2 {
        let config = metadata.ensure_started().await.unwrap();
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::select! {
            answer = client.simple_query("SELECT 1") => drop(answer.unwrap()),
            _ = connection => panic!("the session ended"),
        }
        // Again while it runs, and as a Howdah that has just been started.
        metadata.ensure_started().await.unwrap();
        sandbox.engine.metadata().ensure_started().await.unwrap();
        metadata.ensure_stopped().await.unwrap();
        assert!(config.connect(NoTls).await.is_err());
    }
}
