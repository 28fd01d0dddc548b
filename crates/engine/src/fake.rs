//! An in-memory engine for tests.
//!
//! It passes the suite that the real driver passes. Verbs can be made to fail or to wait, and
//! what it holds can be looked at. Its instances listen on real sockets and speak just enough
//! of the protocol for a session through the gateway: every query answers one row, `1`.

mod backups;

pub use self::backups::NOT_WHOLE;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::backups::FakeVault;
use super::backups::RestoreFacts;
use super::{Counters, DiskUsage, Endpoint, Engine, EngineError, InstanceFacts, Major, Measured, StockLevel};
use base::clock::Clock;
use base::id::InstanceId;
use base::secret::{random_bytes, random_hex};
use base::tasks::Tasks;

/// How large each instance is.
const EMPTY_BYTES: u64 = 22 << 20;

/// What an engine can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`Engine::ensure_created`].
    Create,
    /// [`Engine::ensure_started`].
    Start,
    /// [`Engine::ensure_stopped`].
    Stop,
    /// [`Engine::ensure_destroyed`].
    Destroy,
    /// [`Engine::is_busy`].
    IsBusy,
    /// [`Engine::measure`].
    Measure,
    /// [`Engine::instances`].
    List,
    /// [`Engine::replenish_stock`].
    Replenish,
    /// [`crate::backups::Backups::ensure_archiving`].
    EnsureArchiving,
    /// [`crate::backups::Backups::archive_pending`].
    ArchivePending,
    /// [`crate::backups::Backups::archive_status`].
    ArchiveStatus,
    /// [`crate::backups::Backups::flush_archive`].
    FlushArchive,
    /// [`crate::backups::Backups::back_up`].
    BackUp,
    /// [`crate::backups::Backups::backups`].
    Backups,
    /// [`crate::backups::Backups::restore`].
    Restore,
    /// [`crate::backups::Backups::copy`].
    Copy,
    /// [`crate::backups::Backups::check`].
    Check,
    /// [`crate::backups::Backups::expire`].
    Expire,
    /// [`crate::backups::Backups::remove_backup`].
    RemoveBackup,
    /// [`crate::backups::Backups::verify`].
    Verify,
    /// [`crate::backups::Backups::ensure_forgotten`].
    Forget,
}

/// The in-memory engine.
pub struct FakeEngine {
    directory: PathBuf,
    clock: Clock,
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    majors: Vec<Major>,
    instances: HashMap<InstanceId, FakeInstance>,
    stock: StockState,
    failures: HashMap<Verb, usize>,
    gates: HashMap<Verb, watch::Receiver<bool>>,
    calls: Vec<(Verb, Option<InstanceId>)>,
    vaults: HashMap<InstanceId, FakeVault>,
    repository_gone: bool,
    /// There is no room for what is restored.
    full: bool,
    /// Files can share their blocks.
    shares: bool,
}

#[derive(Default)]
struct StockState {
    ready: usize,
    target: usize,
}

struct FakeInstance {
    major: Major,
    system_identifier: u64,
    /// Cancelled when the server ends.
    server: Option<CancellationToken>,
    busy: bool,
    outdated: bool,
    /// All that it holds.
    content: String,
    timeline: u32,
    /// How the restore that made it went.
    restored: Option<RestoreFacts>,
    /// Those of its one database; none while nothing was done in it.
    counters: Option<Counters>,
    /// How often it has crashed.
    crashes: i64,
}

impl FakeInstance {
    fn new(major: Major, system_identifier: u64) -> Self {
        Self {
            major,
            system_identifier,
            server: None,
            busy: false,
            outdated: false,
            content: String::new(),
            timeline: 1,
            restored: None,
            counters: None,
            crashes: 0,
        }
    }
}

/// Holds up a verb until it is opened (or dropped).
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// Lets the calls that wait, and those that come, go on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }
}

impl FakeEngine {
    /// An empty engine with PostgreSQL 15 and 17 and a stock that should hold two.
    ///
    /// # Errors
    /// When there is no room for its sockets.
    pub fn new() -> io::Result<Arc<Self>> {
        Self::with_clock(Clock::system())
    }

    /// The same, with the time of this clock in what it archives and backs up.
    ///
    /// # Errors
    /// When there is no room for its sockets.
    pub fn with_clock(clock: Clock) -> io::Result<Arc<Self>> {
        let directory = std::env::temp_dir().join(format!("howdah-fake-{}", random_hex::<6>()));
        std::fs::create_dir(&directory)?;
        let state =
            State { majors: vec![Major(17), Major(15)], stock: StockState { ready: 0, target: 2 }, ..State::default() };
        Ok(Arc::new(Self { directory, clock, tasks: Tasks::default(), state: Mutex::new(state) }))
    }

    /// The next `times` calls of `verb` fail.
    pub fn fail_next(&self, verb: Verb, times: usize) {
        self.state().failures.insert(verb, times);
    }

    /// Calls of `verb` wait from now on until the gate is opened.
    pub fn hold_up(&self, verb: Verb) -> Gate {
        let (gate, closed) = watch::channel(false);
        self.state().gates.insert(verb, closed);
        Gate(gate)
    }

    /// Every call so far, in order.
    pub fn calls(&self) -> Vec<(Verb, Option<InstanceId>)> {
        self.state().calls.clone()
    }

    /// How often `verb` was called.
    pub fn count(&self, verb: Verb) -> usize {
        self.state().calls.iter().filter(|(called, _)| *called == verb).count()
    }

    /// Whether the instance exists.
    pub fn exists(&self, id: InstanceId) -> bool {
        self.state().instances.contains_key(&id)
    }

    /// Whether its server runs.
    pub fn is_running(&self, id: InstanceId) -> bool {
        self.state().instances.get(&id).is_some_and(|instance| instance.server.is_some())
    }

    /// Makes [`Engine::is_busy`] answer this while the instance runs.
    pub fn set_busy(&self, id: InstanceId, busy: bool) {
        if let Some(instance) = self.state().instances.get_mut(&id) {
            instance.busy = busy;
        }
    }

    /// Pretends that clients have done so many transactions in the instance.
    pub fn work(&self, id: InstanceId, transactions: u64) {
        if let Some(instance) = self.state().instances.get_mut(&id) {
            let since = instance.crashes;
            let counters = instance.counters.get_or_insert(Counters { database: 5, since, transactions: 0, active: 0 });
            counters.transactions += transactions;
            counters.active += transactions;
        }
    }

    /// Pretends that the instance's programs were replaced; a start takes the new ones.
    pub fn set_outdated(&self, id: InstanceId) {
        if let Some(instance) = self.state().instances.get_mut(&id) {
            instance.outdated = true;
        }
    }

    /// Which majors are installed.
    pub fn set_majors(&self, majors: Vec<Major>) {
        self.state().majors = majors;
    }

    /// Ends the server as a crash does.
    pub fn crash(&self, id: InstanceId) {
        self.end(id);
        if let Some(instance) = self.state().instances.get_mut(&id) {
            instance.counters = None;
            instance.crashes += 1;
        }
    }

    fn end(&self, id: InstanceId) {
        if let Some(server) = self.state().instances.get_mut(&id).and_then(|instance| instance.server.take()) {
            server.cancel();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self, id: InstanceId) -> Endpoint {
        Endpoint { directory: self.directory.join(id.bare()) }
    }

    /// Notes the call; waits and fails as the test wants.
    async fn call(&self, verb: Verb, id: Option<InstanceId>) -> Result<(), EngineError> {
        let gate = {
            let mut state = self.state();
            state.calls.push((verb, id));
            state.gates.get(&verb).cloned()
        };
        if let Some(mut gate) = gate {
            // A dropped gate is an open one.
            let _ = gate.wait_for(|open| *open).await;
        }
        let mut state = self.state();
        match state.failures.get_mut(&verb) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(EngineError::Failed { doing: "do as asked", reason: "the test wants a failure".into() })
            }
            _ => Ok(()),
        }
    }

    fn start(&self, id: InstanceId) -> Result<Endpoint, EngineError> {
        let endpoint = self.endpoint(id);
        let mut state = self.state();
        let installed = state.majors.clone();
        let instance = state.instances.get_mut(&id).ok_or(EngineError::Missing(id))?;
        if instance.server.is_some() {
            return Ok(endpoint);
        }
        if !installed.contains(&instance.major) {
            return Err(EngineError::MajorMissing(instance.major));
        }
        let listen = || {
            std::fs::create_dir_all(&endpoint.directory)?;
            match std::fs::remove_file(endpoint.socket()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            UnixListener::bind(endpoint.socket())
        };
        let listener =
            listen().map_err(|error| EngineError::Failed { doing: "start the instance", reason: error.to_string() })?;
        let server = CancellationToken::new();
        instance.server = Some(server.clone());
        instance.outdated = false;
        let major = instance.major;
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move {
            let sessions = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let server = server.clone();
                    tasks.spawn(async move {
                        tokio::select! {
                            _ = converse(stream, major) => {}
                            () = server.cancelled() => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = sessions => {}
                () = server.cancelled() => {}
            }
        });
        Ok(endpoint)
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        for instance in self.state().instances.values() {
            if let Some(server) = &instance.server {
                server.cancel();
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn majors(&self) -> Vec<Major> {
        self.state().majors.clone()
    }

    async fn ensure_created(&self, id: InstanceId, major: Major) -> Result<(), EngineError> {
        self.call(Verb::Create, Some(id)).await?;
        let mut state = self.state();
        if state.instances.contains_key(&id) {
            return Ok(());
        }
        if !state.majors.contains(&major) {
            return Err(EngineError::MajorMissing(major));
        }
        state.stock.ready = state.stock.ready.saturating_sub(1);
        let system_identifier = u64::from_ne_bytes(random_bytes());
        state.instances.insert(id, FakeInstance::new(major, system_identifier));
        Ok(())
    }

    async fn ensure_started(&self, id: InstanceId) -> Result<Endpoint, EngineError> {
        self.call(Verb::Start, Some(id)).await?;
        self.start(id)
    }

    async fn ensure_stopped(&self, id: InstanceId) -> Result<(), EngineError> {
        self.call(Verb::Stop, Some(id)).await?;
        self.end(id);
        let _ = std::fs::remove_file(self.endpoint(id).socket());
        Ok(())
    }

    async fn ensure_destroyed(&self, id: InstanceId) -> Result<(), EngineError> {
        self.call(Verb::Destroy, Some(id)).await?;
        self.end(id);
        self.state().instances.remove(&id);
        let _ = std::fs::remove_dir_all(self.endpoint(id).directory);
        Ok(())
    }

    async fn is_busy(&self, id: InstanceId) -> Result<bool, EngineError> {
        self.call(Verb::IsBusy, Some(id)).await?;
        Ok(self.state().instances.get(&id).is_some_and(|instance| instance.busy && instance.server.is_some()))
    }

    async fn measure(&self, id: InstanceId) -> Result<Option<Measured>, EngineError> {
        self.call(Verb::Measure, Some(id)).await?;
        let state = self.state();
        let running = state.instances.get(&id).filter(|instance| instance.server.is_some());
        Ok(running.map(|instance| Measured {
            databases: instance.counters.into_iter().collect(),
            storage_bytes: EMPTY_BYTES,
            sessions: 0,
        }))
    }

    async fn disk_usage(&self, _id: InstanceId) -> Result<DiskUsage, EngineError> {
        Ok(DiskUsage { bytes: EMPTY_BYTES, files: 1 })
    }

    async fn has_exited(&self, id: InstanceId) {
        let server = self.state().instances.get(&id).and_then(|instance| instance.server.clone());
        if let Some(server) = server {
            server.cancelled().await;
        }
    }

    async fn instances(&self) -> Result<Vec<InstanceFacts>, EngineError> {
        self.call(Verb::List, None).await?;
        let state = self.state();
        let facts = state.instances.iter().map(|(id, instance)| InstanceFacts {
            id: *id,
            major: instance.major,
            running: instance.server.is_some(),
            outdated: instance.outdated && instance.server.is_some(),
            system_identifier: instance.system_identifier,
        });
        Ok(facts.collect())
    }

    async fn replenish_stock(&self) -> Result<StockLevel, EngineError> {
        self.call(Verb::Replenish, None).await?;
        let mut state = self.state();
        state.stock.ready = state.stock.target.min(state.stock.ready + 1);
        Ok(StockLevel { ready: state.stock.ready, target: state.stock.target })
    }
}

/// One session of protocol 3.
async fn converse(mut stream: UnixStream, major: Major) -> io::Result<()> {
    loop {
        let length = read_length(&mut stream).await?;
        let mut startup = vec![0; length];
        stream.read_exact(&mut startup).await?;
        match startup.first_chunk().map(|code| u32::from_be_bytes(*code)) {
            // SSLRequest and GSSENCRequest.
            Some(80_877_103 | 80_877_104) => stream.write_all(b"N").await?,
            // CancelRequest.
            Some(80_877_102) | None => return Ok(()),
            Some(_) => break,
        }
    }
    let mut answer = Vec::new();
    put(&mut answer, b'R', &0u32.to_be_bytes());
    let version = format!("{major}.0");
    for (name, value) in [
        ("server_version", version.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        put(&mut answer, b'S', format!("{name}\0{value}\0").as_bytes());
    }
    put(&mut answer, b'K', &random_bytes::<8>());
    put(&mut answer, b'Z', b"I");
    stream.write_all(&answer).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = read_length(&mut stream).await?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let mut answer = Vec::new();
        match kind {
            b'Q' => {
                put(&mut answer, b'T', ROW_DESCRIPTION);
                put(&mut answer, b'D', ROW);
                put(&mut answer, b'C', b"SELECT 1\0");
                put(&mut answer, b'Z', b"I");
            }
            b'P' => put(&mut answer, b'1', b""),
            b'B' => put(&mut answer, b'2', b""),
            b'C' => put(&mut answer, b'3', b""),
            b'D' => {
                if body.first() == Some(&b'S') {
                    put(&mut answer, b't', &0u16.to_be_bytes());
                }
                put(&mut answer, b'T', ROW_DESCRIPTION);
            }
            b'E' => {
                put(&mut answer, b'D', ROW);
                put(&mut answer, b'C', b"SELECT 1\0");
            }
            b'S' => put(&mut answer, b'Z', b"I"),
            b'X' => return Ok(()),
            _ => {}
        }
        stream.write_all(&answer).await?;
    }
}

/// One column `?column?` of type int4, as text.
const ROW_DESCRIPTION: &[u8] = b"\0\x01?column?\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
/// One row: `1`.
const ROW: &[u8] = b"\0\x01\0\0\0\x011";

/// The length of what follows a length field, bounded.
async fn read_length(stream: &mut UnixStream) -> io::Result<usize> {
    let length = stream.read_u32().await? as usize;
    match length.checked_sub(4) {
        Some(length) if length <= 1 << 20 => Ok(length),
        _ => Err(io::Error::other("a message is too long or too short")),
    }
}

fn put(answer: &mut Vec<u8>, kind: u8, body: &[u8]) {
    answer.push(kind);
    answer.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    answer.extend_from_slice(body);
}
