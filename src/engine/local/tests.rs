//! What only this driver can show; what every driver has to do is in the conformance suite.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::engine::{TENANT_DATABASE, TENANT_ROLE};

/// A data directory that the users of instances can reach.
pub(in crate::engine) fn data_directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("howdah-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

/// Servers end with the test, however it ends.
struct Sandbox {
    engine: Arc<LocalEngine>,
    directory: TempDir,
}

impl Sandbox {
    async fn new() -> Self {
        let directory = data_directory();
        let engine = LocalEngine::open(LocalConfig::new(directory.path().to_owned())).await.unwrap();
        Self { engine, directory }
    }

    async fn created(&self, number: u128) -> InstanceId {
        let id = InstanceId::from(uuid::Uuid::from_u128(number));
        let major = self.engine.majors().await[0];
        self.engine.ensure_created(id, major).await.unwrap();
        id
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        end_servers(self.directory.path());
    }
}

/// Kills every server below a directory, and waits for it.
pub(in crate::engine) fn end_servers(directory: &Path) {
    let mut all = vec![Place::new(directory.join("metadata"))];
    all.extend(places(&directory.join("instances")).unwrap_or_default());
    for place in all {
        let Ok(text) = fs::read_to_string(place.data().join("postmaster.pid")) else { continue };
        let Some(pid) = text.lines().next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw)
        else {
            continue;
        };
        let cwd = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero()));
        if cwd.is_ok_and(|cwd| cwd == place.data()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            while rustix::process::test_kill_process(pid).is_ok() && place.data().join("postmaster.pid").exists() {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}

/// A session of the tenant's, as the gateway opens it. It ends with the returned client.
pub(in crate::engine) async fn tenant(endpoint: &Endpoint, database: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(TENANT_ROLE).dbname(database);
    let (client, connection) = config.connect_raw(endpoint.connect().await.unwrap(), NoTls).await?;
    crate::base::tasks::Tasks::default().spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

#[tokio::test]
async fn a_whole_life() {
    let sandbox = Sandbox::new().await;
    let engine = &sandbox.engine;
    let since = Instant::now();
    engine.replenish_stock().await.unwrap();
    eprintln!("template and first stock item: {:?}", since.elapsed());
    let since = Instant::now();
    assert_eq!(engine.replenish_stock().await.unwrap().ready, 2);
    eprintln!("second stock item: {:?}", since.elapsed());
    let since = Instant::now();
    let id = sandbox.created(1).await;
    eprintln!("create: {:?}", since.elapsed());
    for _ in 0..3 {
        let since = Instant::now();
        let endpoint = engine.ensure_started(id).await.unwrap();
        eprintln!("start: {:?}", since.elapsed());
        let client = tenant(&endpoint, TENANT_DATABASE).await.unwrap();
        client.batch_execute("CREATE TABLE IF NOT EXISTS kept (row int); INSERT INTO kept VALUES (1)").await.unwrap();
        eprintln!("start to first row: {:?}", since.elapsed());
        let since = Instant::now();
        engine.ensure_stopped(id).await.unwrap();
        eprintln!("stop: {:?}", since.elapsed());
    }
    engine.ensure_destroyed(id).await.unwrap();
    assert!(engine.instances().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_metadata_instance_starts_and_stops() {
    let sandbox = Sandbox::new().await;
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
