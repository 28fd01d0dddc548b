//! The suite that every driver passes.

#![cfg(test)]

use base::name::TENANT_DATABASE;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::TENANT_ROLE;
use super::fake::{FakeEngine, Verb};
use super::instances::EndReason;
use super::local::tests::{LocalSandbox, kill_server};
use super::{Attachment, Counters, Endpoint, Engine, EngineError, InstanceFacts, Instances, Limits, Major, Measured};
use base::clock::Clock;
use base::id::InstanceId;
use base::tasks::Tasks;

/// What the suite does to instances behind the engine's back.
#[async_trait]
trait Meddler: Send + Sync {
    /// Ends the server as a crash does.
    async fn crash(&self, id: InstanceId);
    /// Opens a transaction in it.
    async fn occupy(&self, id: InstanceId, endpoint: &Endpoint);
    /// Ends that transaction.
    async fn release(&self, id: InstanceId);
    /// Carries out so many transactions in a session that ends.
    async fn work(&self, id: InstanceId, endpoint: &Endpoint, transactions: u64);
}

struct World {
    engine: Arc<dyn Engine>,
    meddler: Box<dyn Meddler>,
    clock: Clock,
    tasks: Tasks,
    ids: std::sync::atomic::AtomicU64,
}

const IDLE: Duration = Duration::from_secs(300);

impl World {
    fn new(engine: Arc<dyn Engine>, meddler: Box<dyn Meddler>) -> Self {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        Self { engine, meddler, clock, tasks: Tasks::default(), ids: Default::default() }
    }

    fn id(&self) -> InstanceId {
        let number = self.ids.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        InstanceId::from(uuid::Uuid::from_u128(u128::from(number) + 1))
    }

    async fn major(&self) -> Major {
        self.engine.majors().await[0]
    }

    async fn created(&self) -> InstanceId {
        let id = self.id();
        self.engine.ensure_created(id, self.major().await).await.unwrap();
        id
    }

    async fn facts(&self, id: InstanceId) -> Option<InstanceFacts> {
        self.engine.instances().await.unwrap().into_iter().find(|facts| facts.id == id)
    }

    async fn runs(&self, id: InstanceId) -> bool {
        self.facts(id).await.unwrap().running
    }

    /// A running instance's measurement, once its sessions have ended and reported.
    async fn measured(&self, id: InstanceId) -> Measured {
        loop {
            let measured = self.engine.measure(id).await.unwrap().expect("it runs");
            if measured.sessions == 0 {
                return measured;
            }
            tokio::task::yield_now().await;
        }
    }

    fn instances(&self, max_running: usize) -> Arc<Instances> {
        let limits = Limits { idle_stop: Some(IDLE), max_running };
        Instances::new(self.engine.clone(), limits, self.clock.clone(), self.tasks.clone())
    }

    fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

/// Asks as the tenant, the way the gateway does.
async fn ask(endpoint: &Endpoint, query: &str) -> Result<String, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(TENANT_ROLE).dbname(TENANT_DATABASE);
    let (client, connection) = config.connect_raw(endpoint.connect().await.unwrap(), NoTls).await?;
    let rows = tokio::select! {
        rows = client.simple_query(query) => rows?,
        ended = connection => { ended?; Vec::new() }
    };
    let value = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}

async fn assert_sql_works(endpoint: &Endpoint) {
    assert_eq!(ask(endpoint, "SELECT 1").await.unwrap(), "1");
}

/// Waits for the end as the gateway does: then it lets go.
async fn leave_when_ended(attachment: Attachment) -> EndReason {
    attachment.ended().await
}

async fn run(world: &World) {
    create_is_idempotent(world).await;
    missing_things_are_told(world).await;
    start_and_stop_are_idempotent(world).await;
    destroy_leaves_nothing(world).await;
    no_two_share_an_identifier(world).await;
    concurrent_attaches_share_one_start(world).await;
    an_attach_during_a_stop_restarts(world).await;
    at_the_cap_the_least_recently_used_makes_room(world).await;
    idle_instances_are_stopped_and_busy_ones_are_not(world).await;
    probes_are_no_activity(world).await;
    transactions_of_clients_are_counted(world).await;
    running_instances_are_measured_and_once_more_when_they_stop(world).await;
    an_exit_ends_attachments_and_is_repaired(world).await;
    running_instances_are_adopted(world).await;
    shutdown_stops_everything(world).await;
}

async fn create_is_idempotent(world: &World) {
    let id = world.created().await;
    let before = world.facts(id).await.unwrap();
    world.engine.ensure_created(id, world.major().await).await.unwrap();
    let after = world.facts(id).await.unwrap();
    assert_eq!(before.system_identifier, after.system_identifier);
    assert!(!after.running && !after.outdated);
    assert_eq!(after.major, world.major().await);
}

async fn missing_things_are_told(world: &World) {
    let id = world.id();
    assert!(matches!(world.engine.ensure_started(id).await, Err(EngineError::Missing(missing)) if missing == id));
    world.engine.ensure_stopped(id).await.unwrap();
    world.engine.ensure_destroyed(id).await.unwrap();
    assert!(!world.engine.is_busy(id).await.unwrap());
    world.engine.has_exited(id).await;
    let none = world.engine.ensure_created(id, Major(99)).await;
    assert!(matches!(none, Err(EngineError::MajorMissing(Major(99)))));
    assert!(world.facts(id).await.is_none());
}

async fn start_and_stop_are_idempotent(world: &World) {
    let id = world.created().await;
    for _ in 0..2 {
        let endpoint = world.engine.ensure_started(id).await.unwrap();
        assert_eq!(world.engine.ensure_started(id).await.unwrap(), endpoint);
        assert!(world.runs(id).await);
        assert_sql_works(&endpoint).await;
        world.engine.ensure_stopped(id).await.unwrap();
        world.engine.ensure_stopped(id).await.unwrap();
        assert!(!world.runs(id).await);
        world.engine.has_exited(id).await;
    }
}

async fn destroy_leaves_nothing(world: &World) {
    let id = world.created().await;
    let before = world.facts(id).await.unwrap();
    let endpoint = world.engine.ensure_started(id).await.unwrap();
    world.engine.ensure_destroyed(id).await.unwrap();
    world.engine.ensure_destroyed(id).await.unwrap();
    assert!(world.facts(id).await.is_none());
    assert!(!endpoint.directory.exists());
    assert!(matches!(world.engine.ensure_started(id).await, Err(EngineError::Missing(_))));
    world.engine.ensure_created(id, world.major().await).await.unwrap();
    assert_ne!(world.facts(id).await.unwrap().system_identifier, before.system_identifier);
}

/// The first comes out of the stock, the others are made while it is empty.
async fn no_two_share_an_identifier(world: &World) {
    world.engine.replenish_stock().await.unwrap();
    for _ in 0..4 {
        world.created().await;
    }
    let all = world.engine.instances().await.unwrap();
    let different: std::collections::HashSet<u64> = all.iter().map(|facts| facts.system_identifier).collect();
    assert_eq!(different.len(), all.len());
}

async fn concurrent_attaches_share_one_start(world: &World) {
    let instances = world.instances(1);
    let id = world.created().await;
    let attached = join_all((0..20).map(|_| instances.attach(id))).await;
    let attached: Vec<Attachment> = attached.into_iter().map(Result::unwrap).collect();
    assert_sql_works(attached[0].endpoint()).await;
    drop(attached);
    instances.ensure_destroyed(id).await.unwrap();
}

async fn an_attach_during_a_stop_restarts(world: &World) {
    let instances = world.instances(5);
    let id = world.created().await;
    for _ in 0..3 {
        let (stopped, attached) = tokio::join!(instances.ensure_stopped(id), instances.attach(id));
        stopped.unwrap();
        let attached = attached.unwrap();
        assert_sql_works(attached.endpoint()).await;
        drop(attached);
        world.pass(1000);
        let (stopped, attached) = tokio::join!(instances.stop_idle(), instances.attach(id));
        stopped.unwrap();
        assert_sql_works(attached.unwrap().endpoint()).await;
    }
    instances.ensure_stopped(id).await.unwrap();
}

async fn at_the_cap_the_least_recently_used_makes_room(world: &World) {
    let instances = world.instances(2);
    let (first, second, third) = (world.created().await, world.created().await, world.created().await);
    drop(instances.attach(first).await.unwrap());
    world.pass(10);
    let in_second = instances.attach(second).await.unwrap();
    in_second.touch(false);
    world.pass(10);
    // Used again, and so not the least recently used one any more.
    drop(instances.attach(first).await.unwrap());
    world.pass(10);
    let (in_third, reason) = tokio::join!(instances.attach(third), leave_when_ended(in_second));
    let in_third = in_third.unwrap();
    assert_eq!(reason, EndReason::Idle);
    assert!(world.runs(first).await && !world.runs(second).await && world.runs(third).await);
    let in_first = instances.attach(first).await.unwrap();
    in_first.touch(true);
    in_third.touch(true);
    assert!(matches!(instances.attach(second).await, Err(EngineError::Full { running: 2 })));
    // Quiet sessions, but a transaction that the server knows of.
    in_third.touch(false);
    world.meddler.occupy(third, in_third.endpoint()).await;
    assert!(matches!(instances.attach(second).await, Err(EngineError::Full { running: 2 })));
    world.meddler.release(third).await;
    drop(in_third);
    instances.attach(second).await.unwrap();
    assert!(!world.runs(third).await);
    for id in [first, second, third] {
        instances.ensure_destroyed(id).await.unwrap();
    }
    assert_eq!(in_first.ended().await, EndReason::Gone);
}

async fn idle_instances_are_stopped_and_busy_ones_are_not(world: &World) {
    let instances = world.instances(5);
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    attached.touch(true);
    world.pass(1000);
    instances.stop_idle().await.unwrap();
    assert!(world.runs(id).await, "a session is busy");
    attached.touch(false);
    instances.stop_idle().await.unwrap();
    assert!(world.runs(id).await, "there was traffic just now");
    world.pass(1000);
    world.meddler.occupy(id, attached.endpoint()).await;
    instances.stop_idle().await.unwrap();
    assert!(world.runs(id).await, "a transaction is open");
    world.meddler.release(id).await;
    assert!(attached.touch_before_sending());
    attached.touch(false);
    world.pass(1000);
    let (stopped, reason) = tokio::join!(instances.stop_idle(), async {
        let reason = attached.ended().await;
        assert!(!attached.touch_before_sending());
        drop(attached);
        reason
    });
    stopped.unwrap();
    assert_eq!(reason, EndReason::Idle);
    assert!(!world.runs(id).await);
    assert_sql_works(instances.attach(id).await.unwrap().endpoint()).await;
    instances.ensure_stopped(id).await.unwrap();
}

async fn probes_are_no_activity(world: &World) {
    let instances = world.instances(5);
    let id = world.created().await;
    drop(instances.attach(id).await.unwrap());
    world.pass(1000);
    let probe = instances.attach_probe(id).await.unwrap();
    assert_sql_works(probe.endpoint()).await;
    probe.touch(false);
    drop(probe);
    instances.stop_idle().await.unwrap();
    assert!(!world.runs(id).await);
}

/// The counters of the databases that clients worked in.
fn used(measured: &Measured) -> Vec<Counters> {
    measured.databases.iter().filter(|counters| counters.active > 0).copied().collect()
}

async fn transactions_of_clients_are_counted(world: &World) {
    let id = world.created().await;
    assert_eq!(world.engine.measure(id).await.unwrap(), None, "it is stopped");
    let endpoint = world.engine.ensure_started(id).await.unwrap();
    let new = world.measured(id).await;
    assert!(new.databases.iter().all(|counters| counters.transactions == 0 && counters.active == 0), "{new:?}");
    assert!(new.storage_bytes > 1 << 20);

    world.meddler.work(id, &endpoint, 5).await;
    let worked = used(&world.measured(id).await);
    assert_eq!(worked.iter().map(|counters| counters.transactions).collect::<Vec<_>>(), [5]);
    for _ in 0..3 {
        world.engine.is_busy(id).await.unwrap();
        assert_eq!(used(&world.measured(id).await), worked, "the platform's own sessions do not count");
    }

    world.engine.ensure_stopped(id).await.unwrap();
    assert_eq!(world.engine.measure(id).await.unwrap(), None);
    let endpoint = world.engine.ensure_started(id).await.unwrap();
    let kept = used(&world.measured(id).await);
    assert_eq!(
        (kept[0].database, kept[0].since, kept[0].active),
        (worked[0].database, worked[0].since, worked[0].active)
    );
    world.meddler.work(id, &endpoint, 2).await;
    let more = used(&world.measured(id).await);
    assert!(more[0].transactions >= 7 && more[0].active > worked[0].active, "{more:?}");

    world.meddler.crash(id).await;
    world.engine.has_exited(id).await;
    let endpoint = world.engine.ensure_started(id).await.unwrap();
    assert!(used(&world.measured(id).await).is_empty());
    world.meddler.work(id, &endpoint, 1).await;
    assert!(used(&world.measured(id).await)[0].since != worked[0].since, "they began anew, and say so");
    world.engine.ensure_destroyed(id).await.unwrap();
    assert_eq!(world.engine.measure(id).await.unwrap(), None, "it is gone");
}

async fn running_instances_are_measured_and_once_more_when_they_stop(world: &World) {
    let instances = world.instances(5);
    let mut measurements = instances.measurements();
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    world.meddler.work(id, attached.endpoint(), 3).await;
    world.measured(id).await;
    instances.measure_running().await;
    let first = measurements.try_recv().unwrap();
    assert_eq!((first.instance, first.at, used(&first.measured)[0].transactions), (id, world.clock.now(), 3));

    world.meddler.work(id, attached.endpoint(), 4).await;
    attached.touch(false);
    drop(attached);
    world.pass(1000);
    instances.stop_idle().await.unwrap();
    assert!(!world.runs(id).await, "to be measured keeps nothing awake");
    let mut last = measurements.try_recv().unwrap();
    while let Ok(later) = measurements.try_recv() {
        last = later;
    }
    assert!(used(&last.measured)[0].transactions >= 7, "{last:?}");
    instances.measure_running().await;
    assert!(!world.runs(id).await && measurements.is_empty(), "to be measured wakes nothing");

    drop(instances.attach(id).await.unwrap());
    instances.shutdown().await;
    assert_eq!(measurements.recv().await.unwrap().instance, id);
    while let Some(measurement) = measurements.recv().await {
        assert_eq!(measurement.instance, id);
    }
}

async fn an_exit_ends_attachments_and_is_repaired(world: &World) {
    let instances = world.instances(1);
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    world.meddler.crash(id).await;
    assert_eq!(leave_when_ended(attached).await, EndReason::Gone);
    assert_sql_works(instances.attach(id).await.unwrap().endpoint()).await;
    instances.ensure_destroyed(id).await.unwrap();
}

async fn running_instances_are_adopted(world: &World) {
    let id = world.created().await;
    world.engine.ensure_started(id).await.unwrap();
    let instances = world.instances(5);
    instances.adopt().await.unwrap();
    // Waits for the adoption, and is no activity.
    drop(instances.attach_probe(id).await.unwrap());
    instances.stop_idle().await.unwrap();
    assert!(world.runs(id).await);
    world.pass(1000);
    instances.stop_idle().await.unwrap();
    assert!(!world.runs(id).await);
}

async fn shutdown_stops_everything(world: &World) {
    let instances = world.instances(5);
    let (first, second) = (world.created().await, world.created().await);
    let attached = instances.attach(first).await.unwrap();
    attached.touch(true);
    world.engine.ensure_started(second).await.unwrap();
    let ((), reason) = tokio::join!(instances.shutdown(), leave_when_ended(attached));
    assert_eq!(reason, EndReason::Shutdown);
    assert!(world.engine.instances().await.unwrap().iter().all(|facts| !facts.running));
    assert!(instances.attach(first).await.is_err());
}

struct FakeMeddler(Arc<FakeEngine>);

#[async_trait]
impl Meddler for FakeMeddler {
    async fn crash(&self, id: InstanceId) {
        self.0.crash(id);
    }
    async fn occupy(&self, id: InstanceId, _: &Endpoint) {
        self.0.set_busy(id, true);
    }
    async fn release(&self, id: InstanceId) {
        self.0.set_busy(id, false);
    }
    async fn work(&self, id: InstanceId, _: &Endpoint, transactions: u64) {
        self.0.work(id, transactions);
    }
}

struct LocalMeddler {
    data_directory: PathBuf,
    sessions: Mutex<HashMap<InstanceId, Client>>,
}

#[async_trait]
impl Meddler for LocalMeddler {
    async fn crash(&self, id: InstanceId) {
        kill_server(&self.data_directory.join("instances").join(id.bare()));
    }
    async fn occupy(&self, id: InstanceId, endpoint: &Endpoint) {
        let client = super::local::tests::tenant(endpoint, TENANT_DATABASE).await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        self.sessions.lock().await.insert(id, client);
    }
    async fn release(&self, id: InstanceId) {
        let client = self.sessions.lock().await.remove(&id).unwrap();
        client.batch_execute("COMMIT").await.unwrap();
    }
    async fn work(&self, _: InstanceId, endpoint: &Endpoint, transactions: u64) {
        let client = super::local::tests::tenant(endpoint, TENANT_DATABASE).await.unwrap();
        for _ in 0..transactions {
            client.batch_execute("SELECT 1").await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_fake_engine_conforms() {
    let engine = FakeEngine::new().unwrap();
    run(&World::new(engine.clone(), Box::new(FakeMeddler(engine)))).await;
}

#[tokio::test]
async fn the_local_engine_conforms() {
    let sandbox = LocalSandbox::new().await;
    let meddler = LocalMeddler { data_directory: sandbox.directory.path().to_owned(), sessions: Mutex::default() };
    run(&World::new(sandbox.engine.clone(), Box::new(meddler))).await;
}

fn fake_world() -> (Arc<FakeEngine>, World) {
    let engine = FakeEngine::new().unwrap();
    (engine.clone(), World::new(engine.clone(), Box::new(FakeMeddler(engine))))
}

#[tokio::test]
async fn a_failed_start_is_shared_and_then_tried_again() {
    let (engine, world) = fake_world();
    let instances = world.instances(1);
    let id = world.created().await;
    engine.fail_next(Verb::Start, 1);
    let gate = engine.hold_up(Verb::Start);
    let (attached, ()) = tokio::join!(join_all((0..10).map(|_| instances.attach(id))), async {
        while engine.count(Verb::Start) == 0 {
            tokio::task::yield_now().await;
        }
        gate.open();
    });
    assert!(attached.iter().all(Result::is_err));
    assert_eq!(engine.count(Verb::Start), 1);
    instances.attach(id).await.unwrap();
    // The failed start gave its seat back.
    assert_eq!(engine.count(Verb::Start), 2);
}

#[tokio::test]
async fn abandoned_attach_does_not_end_a_start() {
    let (engine, world) = fake_world();
    let instances = world.instances(1);
    let id = world.created().await;
    let gate = engine.hold_up(Verb::Start);
    tokio::select! {
        _ = instances.attach(id) => panic!("the start is held up"),
        () = async { while engine.count(Verb::Start) == 0 { tokio::task::yield_now().await } } => {}
    }
    gate.open();
    instances.attach(id).await.unwrap();
    assert_eq!(engine.count(Verb::Start), 1);
}

#[tokio::test]
async fn traffic_during_the_idle_check_prevents_the_stop() {
    let (engine, world) = fake_world();
    let instances = world.instances(1);
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    attached.touch(false);
    world.pass(1000);
    let gate = engine.hold_up(Verb::IsBusy);
    let (stopped, ()) = tokio::join!(instances.stop_idle(), async {
        while engine.count(Verb::IsBusy) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(attached.touch_before_sending());
        gate.open();
    });
    stopped.unwrap();
    assert!(engine.is_running(id));
    assert!(attached.touch_before_sending());
    assert_eq!(engine.count(Verb::Stop), 0);
}

#[tokio::test]
async fn an_outdated_instance_is_stopped_when_it_is_quiet() {
    let (engine, world) = fake_world();
    let instances = world.instances(1);
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    engine.set_outdated(id);
    attached.touch(true);
    world.pass(5);
    instances.stop_idle().await.unwrap();
    assert!(engine.is_running(id));
    attached.touch(false);
    world.pass(5);
    let (stopped, reason) = tokio::join!(instances.stop_idle(), leave_when_ended(attached));
    stopped.unwrap();
    assert_eq!(reason, EndReason::Idle);
    assert!(!engine.is_running(id));
    instances.attach(id).await.unwrap();
    assert!(!world.facts(id).await.unwrap().outdated);
}

#[tokio::test]
async fn an_instance_that_does_not_answer_keeps_no_other_awake() {
    let (engine, world) = fake_world();
    let instances = world.instances(5);
    let (first, second) = (world.created().await, world.created().await);
    drop(instances.attach(first).await.unwrap());
    drop(instances.attach(second).await.unwrap());
    world.pass(1000);
    engine.fail_next(Verb::IsBusy, 1);
    assert!(instances.stop_idle().await.is_err());
    assert!(engine.is_running(first) != engine.is_running(second));
    instances.stop_idle().await.unwrap();
    assert!(!engine.is_running(first) && !engine.is_running(second));
}

#[tokio::test]
async fn an_instance_that_does_not_answer_keeps_no_other_from_making_room() {
    let (engine, world) = fake_world();
    let instances = world.instances(2);
    let (first, second, third) = (world.created().await, world.created().await, world.created().await);
    drop(instances.attach(first).await.unwrap());
    world.pass(10);
    drop(instances.attach(second).await.unwrap());
    world.pass(10);
    let gate = engine.hold_up(Verb::IsBusy);
    let (attached, ()) = tokio::join!(instances.attach(third), async {
        while engine.count(Verb::IsBusy) < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        gate.open();
    });
    attached.unwrap();
    assert!(engine.is_running(first), "the instance that did not answer runs on");
    assert!(!engine.is_running(second));
}

#[tokio::test]
async fn quiet_instance_is_not_measured_again() {
    let (engine, world) = fake_world();
    let instances = world.instances(5);
    let id = world.created().await;
    let attached = instances.attach(id).await.unwrap();
    instances.measure_running().await;
    assert_eq!(engine.count(Verb::Measure), 0, "nobody takes measurements");
    let mut measurements = instances.measurements();
    attached.touch(false);
    // The first time what the session did may not be reported yet.
    for expected in [1, 2, 2] {
        instances.measure_running().await;
        assert_eq!(engine.count(Verb::Measure), expected);
        world.pass(60);
    }
    attached.touch(true);
    for expected in [3, 4] {
        world.pass(60);
        instances.measure_running().await;
        assert_eq!(engine.count(Verb::Measure), expected, "a session is at work");
    }
    attached.touch(false);
    world.pass(60);
    instances.measure_running().await;
    drop(attached);
    world.pass(1000);
    instances.stop_idle().await.unwrap();
    assert_eq!((engine.count(Verb::Measure), engine.count(Verb::Stop)), (5, 1), "a stop need not measure it once more");
    // One that is not idle is.
    let attached = instances.attach(id).await.unwrap();
    let (stopped, _) = tokio::join!(instances.ensure_stopped(id), leave_when_ended(attached));
    stopped.unwrap();
    assert_eq!(engine.calls()[engine.calls().len() - 2..], [(Verb::Measure, Some(id)), (Verb::Stop, Some(id))]);
    for _ in 0..6 {
        measurements.try_recv().unwrap();
    }
    assert!(measurements.is_empty());
}

#[tokio::test]
async fn failing_measurement_blocks_nothing() {
    let (engine, world) = fake_world();
    let instances = world.instances(5);
    let mut measurements = instances.measurements();
    let id = world.created().await;
    drop(instances.attach(id).await.unwrap());
    engine.fail_next(Verb::Measure, 1);
    world.pass(1000);
    instances.stop_idle().await.unwrap();
    assert!(!engine.is_running(id) && measurements.is_empty());

    drop(instances.attach(id).await.unwrap());
    let gate = engine.hold_up(Verb::Measure);
    let (((), stopped), ()) =
        tokio::join!(async { tokio::join!(instances.measure_running(), instances.ensure_destroyed(id)) }, async {
            settle().await;
            assert!(!engine.exists(id), "a destroy does not wait for it");
            gate.open();
        });
    stopped.unwrap();
    assert!(measurements.try_recv().is_err());
}

/// Lets everything go on that can.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn abandoned_verb_keeps_the_next_one_waiting() {
    let (engine, world) = fake_world();
    let instances = world.instances(1);
    let (id, major) = (world.id(), world.major().await);
    let creates = engine.hold_up(Verb::Create);
    tokio::select! {
        _ = instances.ensure_created(id, major) => panic!("the create is held up"),
        () = settle() => {}
    }
    let destroys = engine.hold_up(Verb::Destroy);
    tokio::select! {
        _ = instances.ensure_destroyed(id) => panic!("the create is under way"),
        () = settle() => {}
    }
    assert_eq!(engine.count(Verb::Destroy), 0);
    creates.open();
    tokio::select! {
        _ = instances.ensure_destroyed(id) => panic!("the destroy is held up"),
        () = settle() => {}
    }
    assert!(engine.exists(id));
    let (attached, ()) = tokio::join!(instances.attach(id), async {
        settle().await;
        assert_eq!(engine.count(Verb::Start), 0);
        destroys.open();
    });
    assert!(matches!(attached, Err(EngineError::Missing(_))));
    assert!(!engine.exists(id));
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_up_no_adoption_of_others() {
    let (engine, world) = fake_world();
    let (slow, gone, asleep) = (world.created().await, world.created().await, world.created().await);
    for id in [slow, gone] {
        world.engine.ensure_started(id).await.unwrap();
    }
    let instances = world.instances(2);
    let gate = engine.hold_up(Verb::Start);
    instances.adopt().await.unwrap();
    engine.crash(gone);
    settle().await;
    assert_eq!(engine.count(Verb::Start), 3, "what has ended is not started again");
    let (attached, ()) = tokio::join!(instances.attach(slow), async {
        settle().await;
        // The one who attaches waits for the adoption, and does not start it once more.
        assert_eq!(engine.count(Verb::Start), 3);
        gate.open();
    });
    assert_sql_works(attached.unwrap().endpoint()).await;
    // There is one seat left, that of the one that ended.
    instances.attach(asleep).await.unwrap();
}

#[tokio::test]
async fn stopped_instances_are_forgotten() {
    let (engine, world) = fake_world();
    let instances = world.instances(5);
    let (stopped, crashed, destroyed) = (world.created().await, world.created().await, world.created().await);
    let missing = world.id();
    for id in [stopped, crashed, destroyed] {
        drop(instances.attach(id).await.unwrap());
    }
    let stays = world.created().await;
    let attached = instances.attach(stays).await.unwrap();
    assert!(instances.attach(missing).await.is_err());
    instances.ensure_stopped(stopped).await.unwrap();
    engine.crash(crashed);
    instances.ensure_destroyed(destroyed).await.unwrap();
    settle().await;
    instances.stop_idle().await.unwrap();
    assert_eq!(instances.known(), [stays]);
    drop(attached);
}
