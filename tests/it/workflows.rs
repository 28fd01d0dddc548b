//! Every workflow, with each step executed twice and with a failure before and after each step,
//! and in between acting and writing. A new workflow is one line in `every_workflow`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use howdah::app::{App, JobCtx, PublicAddresses, Rates};
use howdah::auth::signing::Signer;
use howdah::auth::{Limits, Principal};
use howdah::base::clock::Clock;
use howdah::base::error::Error;
use howdah::base::id::{BackupId, DatabaseId, InstanceId, ServiceTokenId, WorkflowId};
use howdah::base::keyring::Keyring;
use howdah::base::name::{DatabaseName, ProjectName};
use howdah::base::store::Store;
use howdah::base::tasks::Tasks;
use howdah::domain::backups;
use howdah::domain::branches::Placement;
use howdah::domain::connections::credential;
use howdah::domain::databases::{self, NewDatabase};
use howdah::domain::limits::Quotas;
use howdah::domain::projects::{self, NewProject};
use howdah::domain::recoveries::{self, RECOVER};
use howdah::domain::regions::Regions;
use howdah::domain::restores::{self, Source};
use howdah::domain::usage::{self, Period, Sample, Usage};
use howdah::domain::workspaces;
use howdah::engine::fake::{FakeEngine, Verb};
use howdah::engine::local::{LocalConfig, MetadataInstance};
use howdah::engine::{self, Instances, Major};
use howdah::gateway::{self, Gateway, tls};
use howdah::jobs::Workflows;
use howdah::jobs::backup::BackUpStep;
use howdah::jobs::database::{DeleteStep, ProvisionStep};
use howdah::jobs::recovery::RecoverStep;
use howdah::jobs::restore::RestoreStep;
use howdah::metadata;
use howdah::queue::{Fault, Runner, State};
use jiff::SignedDuration;

use crate::harness::{Directory, eventually};

/// A Howdah inside the test: a real metadata store and a real gateway in front of a fake engine.
struct World {
    ctx: Arc<JobCtx>,
    engine: Arc<FakeEngine>,
    tasks: Tasks,
    actor: Principal,
    metadata: MetadataInstance,
    _directory: Directory,
}

impl World {
    async fn new() -> Self {
        Self::with_room_for(10).await
    }

    /// At most `max_running` instances run at a time.
    async fn with_room_for(max_running: usize) -> Self {
        let directory = Directory::new();
        let metadata = MetadataInstance::open(LocalConfig::new(directory.path().to_owned())).await.unwrap();
        let config = metadata.ensure_started().await.unwrap();
        metadata::migrate(&config).await.unwrap();
        let (tasks, clock) = (Tasks::default(), Clock::system());
        let store = Store::open(config, 8, &tasks).unwrap();
        let engine = FakeEngine::new().unwrap();
        let limits = engine::Limits { idle_stop: None, max_running };
        let instances = Instances::new(engine.clone(), limits, clock.clone(), tasks.clone());
        let (certificate, key) = tls::self_signed(&["localhost".to_owned()]).unwrap();
        let gateway = Gateway::bind(
            gateway::Config {
                listen: "127.0.0.1:0".parse().unwrap(),
                tls: tls::server_config(&certificate, &key).unwrap(),
                mock_secret: [0; 32],
                limits: gateway::Limits::default(),
            },
            store.clone(),
            instances.clone(),
            tasks.clone(),
        )
        .unwrap();
        let address = gateway.local_address();
        tasks.spawn(gateway.serve());
        let now = clock.now();
        let tx = store.begin().await.unwrap();
        let signer = Signer::load_or_create(&tx, &Keyring::new(&[0; 32]), now).await.unwrap();
        let workspace = workspaces::create(&tx, "Tests", now).await.unwrap();
        tx.commit().await.unwrap();
        let public = PublicAddresses {
            api: String::new(),
            gateway_host: address.ip().to_string(),
            gateway_port: address.port(),
        };
        let keyring = Keyring::new(&[0; 32]);
        let app = Arc::new(App {
            store,
            clock,
            signer,
            keyring,
            regions: Regions::default(),
            public,
            trusted_proxies: Vec::new(),
            rates: Rates::default(),
            quotas: Quotas::default(),
            undelete: jiff::SignedDuration::ZERO,
            metadata_at_risk: std::sync::atomic::AtomicBool::default(),
            tasks: tasks.clone(),
        });
        Self {
            ctx: Arc::new(JobCtx { app, instances, gateway: address }),
            engine,
            tasks,
            actor: Principal::new(workspace.id, ServiceTokenId::generate(now), "test".into(), Limits::default()),
            metadata,
            _directory: directory,
        }
    }

    fn runner(&self) -> Runner {
        Runner::new(self.ctx.app.store.clone(), Arc::new(Workflows(self.ctx.clone())), self.tasks.clone())
    }

    /// Records a project with a database, as a request does.
    async fn create(&self) -> (projects::Project, DatabaseId, WorkflowId) {
        let now = self.ctx.app.clock.now();
        let tx = self.ctx.app.store.begin().await.unwrap();
        let new = NewProject { name: Some(ProjectName::parse("p").unwrap()), region: None, logical_id: None };
        let project = projects::create(&tx, &self.actor, now, &self.ctx.app.quotas, new).await.unwrap();
        let new = NewDatabase {
            name: DatabaseName::parse("d").unwrap(),
            region: "us-east-1".into(),
            is_default: true,
            placement: Placement::Default,
            logical_id: None,
            source: None,
        };
        let created = databases::create(&tx, &self.actor, now, &self.ctx.app.quotas, project.id, new).await.unwrap();
        tx.commit().await.unwrap();
        (project, created.database, created.workflow)
    }

    /// Records that a project is to go; answers the workflow that takes its database away.
    async fn delete(&self, project: &projects::Project, database: DatabaseId) -> WorkflowId {
        let tx = self.ctx.app.store.begin().await.unwrap();
        projects::delete(&tx, &self.actor, self.ctx.app.clock.now(), project.id).await.unwrap();
        let select = "SELECT id FROM workflows WHERE subject = $1 AND kind = 'delete_database'";
        let row = tx.query_one(select, &[&database.uuid()]).await.unwrap();
        tx.commit().await.unwrap();
        row.get::<_, uuid::Uuid>("id").into()
    }

    /// A backup that is complete.
    async fn back_up(&self, database: DatabaseId) -> BackupId {
        let (app, tx) = (&self.ctx.app, self.ctx.app.store.begin().await.unwrap());
        let (backup, workflow) =
            backups::create(&tx, &self.actor, app.clock.now(), &app.keyring, database, None).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(self.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
        backup.id
    }

    /// Every instance is gone, and the metadata has been brought back.
    async fn lose_machine(&self) {
        for facts in self.ctx.instances.list().await.unwrap() {
            self.ctx.instances.ensure_destroyed(facts.id).await.unwrap();
        }
        let tx = self.ctx.app.store.begin().await.unwrap();
        recoveries::begin(&tx, self.ctx.app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The one workflow on a database that has not ended.
    async fn open_workflow(&self, database: DatabaseId) -> WorkflowId {
        let session = self.ctx.app.store.session().await.unwrap();
        let select = "SELECT id FROM workflows WHERE subject = $1 AND state = 'waiting'";
        session.query_one(select, &[&database.uuid()]).await.unwrap().get::<_, uuid::Uuid>("id").into()
    }

    async fn status(&self, database: DatabaseId) -> databases::Database {
        databases::get(&self.ctx.app.store.session().await.unwrap(), &self.actor, database).await.unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        let session = self.ctx.app.store.session().await.unwrap();
        session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
    }

    /// Makes something of workflows true that only time would.
    async fn set(&self, change: &str) {
        let session = self.ctx.app.store.session().await.unwrap();
        session.execute(&format!("UPDATE workflows SET {change}"), &[]).await.unwrap();
    }

    async fn instance_count(&self) -> usize {
        self.ctx.instances.list().await.unwrap().len()
    }

    async fn end(self) {
        self.ctx.instances.shutdown().await;
        self.tasks.stop();
        self.tasks.finished().await;
        self.metadata.ensure_stopped().await.unwrap();
    }
}

/// Injects `fault` the first time that `step` of `kind` begins, and nothing else.
fn once(kind: &'static str, step: &'static str, fault: Fault) -> howdah::queue::Faults {
    let seen = Mutex::new(false);
    Arc::new(move |at_kind, at_step| {
        let mut seen = seen.lock().unwrap();
        if *seen || (at_kind, at_step) != (kind, step) {
            return None;
        }
        *seen = true;
        Some(fault)
    })
}

/// The lease has run out.
const WORKER_DIED: &str = "lease_expires_at = CASE WHEN state = 'running' THEN now() - interval '1 second' END";
/// The step has not worked for too long.
const OVERDUE: &str = "step_deadline = now() - interval '1 second'";

const FAULTS: [Fault; 4] = [Fault::Before, Fault::BeforeWrite, Fault::After, Fault::Repeat];

#[tokio::test]
async fn every_workflow_survives_a_failure_at_every_step() {
    let world = World::new().await;
    let every_workflow: [(&str, Vec<&str>); 2] = [
        (databases::PROVISION.name, ProvisionStep::ALL.iter().map(|step| step.name()).collect()),
        (databases::DELETE.name, DeleteStep::ALL.iter().map(|step| step.name()).collect()),
    ];
    for (kind, steps) in every_workflow {
        for step in steps {
            for fault in FAULTS {
                let runner = world.runner().with_faults(once(kind, step, fault));
                let (project, database, workflow) = world.create().await;
                assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
                let made = world.status(database).await;
                assert_eq!(made.status, databases::Status::Ready, "{kind} {step} {fault:?}");
                assert_eq!(world.instance_count().await, 1);
                let workflow = world.delete(&project, database).await;
                assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
                let left: HashMap<&str, i64> = HashMap::from([
                    ("projects", world.count("projects").await),
                    ("branches", world.count("branches").await),
                    ("databases", world.count("databases").await),
                    ("connections", world.count("connections").await),
                    ("probes", world.count("probes").await),
                ]);
                assert!(left.values().all(|count| *count == 0), "{kind} {step} {fault:?} leaves {left:?}");
                assert_eq!(world.instance_count().await, 0, "{kind} {step} {fault:?} leaves an instance");
            }
        }
    }
    world.end().await;
}

#[tokio::test]
async fn backups_and_restores_survive_a_failure_at_every_step() {
    let world = World::new().await;
    let (project, database, workflow) = world.create().await;
    world.runner().drive(workflow).await.unwrap();
    let every_workflow: [(&str, Vec<&str>); 2] = [
        (backups::BACK_UP.name, BackUpStep::ALL.iter().map(|step| step.name()).collect()),
        (restores::RESTORE.name, RestoreStep::ALL.iter().map(|step| step.name()).collect()),
    ];
    let (store, clock) = (&world.ctx.app.store, &world.ctx.app.clock);
    for (kind, steps) in every_workflow {
        for step in steps {
            for fault in FAULTS {
                let runner = world.runner().with_faults(once(kind, step, fault));
                let tx = store.begin().await.unwrap();
                let now = clock.now();
                let keyring = &world.ctx.app.keyring;
                let (backup, workflow) =
                    backups::create(&tx, &world.actor, now, keyring, database, None).await.unwrap();
                tx.commit().await.unwrap();
                assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
                let found = backups::find(&store.session().await.unwrap(), database, backup.id).await.unwrap();
                assert_eq!(found.unwrap().state, backups::State::Completed, "{kind} {step} {fault:?}");

                let tx = store.begin().await.unwrap();
                let source = Source::Backup { database, backup: backup.id, to: None };
                let started = restores::start_in_place(&tx, &world.actor, now, database, &source).await.unwrap();
                tx.commit().await.unwrap();
                assert_eq!(started.0.status, databases::Status::Recovering);
                assert_eq!(runner.drive(started.1).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
                assert_eq!(world.status(database).await.status, databases::Status::Ready, "{kind} {step} {fault:?}");
                assert_eq!((world.instance_count().await, world.count("restores").await), (1, 0));
                // The first backup of what was restored, which nobody asked for.
                let select = "SELECT id FROM workflows WHERE state = 'waiting'";
                let row = store.session().await.unwrap().query_one(select, &[]).await.unwrap();
                let first = row.get::<_, uuid::Uuid>("id").into();
                assert_eq!(runner.drive(first).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
            }
        }
    }
    let workflow = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    for table in ["databases", "vaults", "backups", "restores"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    world.end().await;
}

#[tokio::test]
async fn recoveries_survive_a_failure_at_every_step() {
    let world = World::new().await;
    let (project, database, workflow) = world.create().await;
    world.runner().drive(workflow).await.unwrap();
    world.back_up(database).await;
    for step in RecoverStep::ALL.iter().map(|step| step.name()) {
        for fault in FAULTS {
            let runner = world.runner().with_faults(once(RECOVER.name, step, fault));
            world.lose_machine().await;
            assert_eq!(world.status(database).await.status, databases::Status::Recovering);
            let workflow = world.open_workflow(database).await;
            assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{step} {fault:?}");
            assert_eq!(world.status(database).await.status, databases::Status::Ready, "{step} {fault:?}");
            assert_eq!((world.instance_count().await, world.count("restores").await), (1, 0));
            // The machine may be lost again before the first backup of the new era.
            if fault != Fault::After {
                let first = world.open_workflow(database).await;
                assert_eq!(runner.drive(first).await.unwrap(), Some(State::Succeeded), "{step} {fault:?}");
            }
        }
    }
    let workflow = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    for table in ["databases", "vaults", "backups", "restores"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_was_under_way_when_the_machine_was_lost_is_settled() {
    let world = World::new().await;
    let runner = world.runner();
    let (store, clock) = (&world.ctx.app.store, &world.ctx.app.clock);
    let made = async || {
        let (project, database, workflow) = world.create().await;
        runner.drive(workflow).await.unwrap();
        (project, database)
    };
    let (_, unfinished, provision) = world.create().await;
    world.set("step = 'prove_ready'").await;
    let (_, without_backup) = made().await;
    let (going, deleted) = made().await;
    let delete = world.delete(&going, deleted).await;
    let (_, restored) = made().await;
    let backup = world.back_up(restored).await;
    let tx = store.begin().await.unwrap();
    let source = Source::Backup { database: restored, backup, to: None };
    let (_, restore) = restores::start_in_place(&tx, &world.actor, clock.now(), restored, &source).await.unwrap();
    tx.commit().await.unwrap();
    let session = store.session().await.unwrap();
    // Its instance was there, and went with the machine.
    session.execute("UPDATE workflows SET step = 'take_over' WHERE id = $1", &[&restore.uuid()]).await.unwrap();
    let (_, backed_up) = made().await;
    let tx = store.begin().await.unwrap();
    let keyring = &world.ctx.app.keyring;
    let (_, backup) = backups::create(&tx, &world.actor, clock.now(), keyring, backed_up, None).await.unwrap();
    tx.commit().await.unwrap();

    world.lose_machine().await;
    // Twice is as good as once.
    world.lose_machine().await;
    assert_eq!(runner.drive(backup).await.unwrap(), Some(State::Failed));
    assert_eq!(runner.drive(provision).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.status(unfinished).await.status, databases::Status::Ready);
    assert_eq!(runner.drive(delete).await.unwrap(), Some(State::Succeeded));
    assert!(databases::plan(&session, deleted).await.unwrap().is_none());
    assert_eq!(runner.drive(restore).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.status(restored).await.status, databases::Status::Ready);
    for database in [without_backup, backed_up] {
        let recovery = world.open_workflow(database).await;
        assert_eq!(runner.drive(recovery).await.unwrap(), Some(State::Failed));
        let failed = world.status(database).await;
        assert_eq!(failed.status, databases::Status::Failure);
        assert!(failed.status_reason.unwrap().contains("lost before its first backup"));
    }
    assert_eq!((world.count("restores").await, world.instance_count().await), (0, 2));
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn what_was_used_is_due_for_a_backup_and_nothing_else() {
    let world = World::new().await;
    let (_, database, workflow) = world.create().await;
    world.runner().drive(workflow).await.unwrap();
    let (app, hour) = (&world.ctx.app, SignedDuration::from_hours(1));
    let due = async |later: SignedDuration| {
        let now = app.clock.now() + later;
        let session = app.store.session().await.unwrap();
        let due = backups::due(&session, now, hour, SignedDuration::from_hours(24)).await.unwrap();
        due.into_iter().map(|due| (due.database, due.kind)).collect::<Vec<_>>()
    };
    let day = SignedDuration::from_hours(25);
    assert_eq!(due(day).await, [], "nothing was done in it");
    let work = async |after: SignedDuration| {
        let session = app.store.session().await.unwrap();
        let insert = "INSERT INTO usage_hours VALUES ($1, date_trunc('hour', $2::timestamptz), 1, 1, $2)";
        session.execute(insert, &[&database.uuid(), &(app.clock.now() + after)]).await.unwrap();
    };
    work(SignedDuration::from_secs(1)).await;
    assert_eq!(due(SignedDuration::ZERO).await, [], "it is too young");
    assert_eq!(due(hour * 2).await, [(database, backups::Kind::Full)]);

    let tx = app.store.begin().await.unwrap();
    let now = app.clock.now() + hour * 2;
    let (_, workflow) = backups::create(&tx, &world.actor, now, &app.keyring, database, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(due(day * 2).await, [], "something is under way");
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(due(day * 2).await, [], "nothing was done in it since");
    work(hour * 3).await;
    assert_eq!(due(hour * 4).await, [], "it was backed up lately");
    assert_eq!(due(hour * 3 + day).await, [(database, backups::Kind::Differential)]);
    assert_eq!(due(day * 9).await, [(database, backups::Kind::Full)], "a full one each week");
    world.end().await;
}

#[tokio::test]
async fn a_delete_wins_over_a_provision_at_every_step() {
    let world = World::new().await;
    for step in ProvisionStep::ALL {
        // The provision stops before this step; the delete comes; the provision's worker comes back.
        let (project, database, provision) = world.create().await;
        let stuck: howdah::queue::Faults = Arc::new(move |_, at| (at == step.name()).then_some(Fault::BeforeWrite));
        let runner = world.runner().with_faults(stuck);
        let begun = tokio::time::timeout(Duration::from_millis(300), runner.drive(provision)).await;
        assert!(begun.is_err(), "it does not get past the step");
        world.set(WORKER_DIED).await;
        let delete = world.delete(&project, database).await;
        let runner = world.runner();
        assert_eq!(runner.drive(provision).await.unwrap(), Some(State::Superseded));
        assert_eq!(runner.drive(delete).await.unwrap(), Some(State::Succeeded));
        assert_eq!((world.instance_count().await, world.count("databases").await), (0, 0));
    }
    world.end().await;
}

#[tokio::test]
async fn an_engine_that_fails_is_tried_again_and_its_reason_is_kept() {
    let world = World::new().await;
    world.engine.fail_next(Verb::Create, 3);
    world.engine.fail_next(Verb::Start, 2);
    let (_, database, workflow) = world.create().await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.status(database).await.status, databases::Status::Ready);
    world.end().await;
}

#[tokio::test]
async fn a_provision_that_cannot_succeed_says_why_and_can_be_deleted() {
    let world = World::new().await;
    world.engine.fail_next(Verb::Create, usize::MAX);
    let (project, database, workflow) = world.create().await;
    world.set(OVERDUE).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Failed));
    let failed = world.status(database).await;
    assert_eq!(failed.status, databases::Status::Failure);
    let reason = failed.status_reason.unwrap();
    assert!(!reason.contains("the test wants"), "the engine's own words are for the operator: {reason}");
    let session = world.ctx.app.store.session().await.unwrap();
    let kept = session.query_one("SELECT reason FROM workflows", &[]).await.unwrap();
    assert!(kept.get::<_, &str>("reason").contains("the test wants"), "{kept:?}");
    drop(session);
    let delete = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(delete).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.count("databases").await, 0);
    world.end().await;
}

#[tokio::test]
async fn a_provision_that_waits_for_room_or_programs_has_no_deadline_and_says_so() {
    let world = World::with_room_for(1).await;
    let (_, first, workflow) = world.create().await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    let session = world.ctx.app.store.session().await.unwrap();
    let first = databases::plan(&session, first).await.unwrap().unwrap().instance.unwrap();
    for lack in ["room", "programs"] {
        match lack {
            "room" => world.engine.set_busy(first, true),
            _ => world.engine.set_majors(Vec::new()),
        }
        let (_, database, workflow) = world.create().await;
        for _ in 0..2 {
            world.set(OVERDUE).await;
            let driven = tokio::time::timeout(Duration::from_millis(300), world.runner().drive(workflow)).await;
            assert!(driven.is_err(), "it cannot be made yet");
            world.set(WORKER_DIED).await;
            let kept = "SELECT reason IS NOT NULL FROM workflows WHERE id = $1";
            assert!(session.query_one(kept, &[&workflow.uuid()]).await.unwrap().get::<_, bool>(0));
            let waiting = world.status(database).await;
            assert_eq!(waiting.status, databases::Status::Provisioning);
            let reason = waiting.status_reason.unwrap();
            assert!(!reason.contains("--") && !reason.contains("instance"), "{reason}");
        }
        match lack {
            "room" => world.engine.set_busy(first, false),
            _ => world.engine.set_majors(vec![Major(17)]),
        }
        assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
        let made = world.status(database).await;
        assert_eq!((made.status, made.status_reason), (databases::Status::Ready, None));
    }
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_fails_nothing() {
    let world = World::new().await;
    let (_, database, workflow) = world.create().await;
    world.set(OVERDUE).await;
    world.engine.fail_next(Verb::Create, 2);
    let gate = world.engine.hold_up(Verb::Create);
    let (runner, other) = (world.runner(), world.runner());
    let late = runner.drive(workflow);
    let meanwhile = async {
        eventually("the step to begin", async || (world.engine.count(Verb::Create) == 1).then_some(())).await;
        world.set(&format!("step_deadline = NULL, {WORKER_DIED}")).await;
        let taken_over = async || {
            let session = world.ctx.app.store.session().await.unwrap();
            let claimed = "SELECT fence = 2 AND state = 'running' FROM workflows";
            session.query_one(claimed, &[]).await.unwrap().get::<_, bool>(0).then_some(())
        };
        eventually("another worker to take over", taken_over).await;
        gate.open();
    };
    let (late, other, ()) = tokio::join!(late, other.drive(workflow), meanwhile);
    assert_eq!((late.unwrap(), other.unwrap()), (Some(State::Succeeded), Some(State::Succeeded)));
    assert_eq!(world.status(database).await.status, databases::Status::Ready);
    world.end().await;
}

#[tokio::test]
async fn each_step_begins_with_a_full_lease() {
    let world = World::new().await;
    let (_, _, workflow) = world.create().await;
    let (create, start) = (world.engine.hold_up(Verb::Create), world.engine.hold_up(Verb::Start));
    let runner = world.runner();
    let watched = async {
        eventually("the first step", async || (world.engine.count(Verb::Create) == 1).then_some(())).await;
        world.set("lease_expires_at = now() + interval '1 second'").await;
        create.open();
        eventually("the second step", async || (world.engine.count(Verb::Start) == 1).then_some(())).await;
        let session = world.ctx.app.store.session().await.unwrap();
        let left = "SELECT lease_expires_at - now() > interval '10 seconds' FROM workflows";
        assert!(session.query_one(left, &[]).await.unwrap().get::<_, bool>(0));
        start.open();
    };
    let (ended, ()) = tokio::join!(runner.drive(workflow), watched);
    assert_eq!(ended.unwrap(), Some(State::Succeeded));
    world.end().await;
}

#[tokio::test]
async fn a_workflow_that_another_one_holds_up_is_not_polled_for() {
    let world = World::new().await;
    let (project, database, workflow) = world.create().await;
    let gate = world.engine.hold_up(Verb::Create);
    let runner = world.runner();
    let watched = async {
        eventually("the provision to run", async || (world.engine.count(Verb::Create) == 1).then_some(())).await;
        world.delete(&project, database).await;
        assert!(runner.pause().await >= Duration::from_secs(4), "{:?}", runner.pause().await);
        gate.open();
    };
    let (ended, ()) = tokio::join!(runner.drive(workflow), watched);
    assert!(ended.unwrap().is_some());
    assert!(runner.pause().await < Duration::from_secs(1), "the delete is due");
    world.end().await;
}

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_and_its_connection_used_again() {
    let world = World::new().await;
    let config = world.metadata.ensure_started().await.unwrap();
    let store = Store::open(config, 1, &world.tasks).unwrap();
    let process = async || {
        let tx = store.begin().await.unwrap();
        let row = tx.query_one("SELECT pg_backend_pid(), count(*) FROM workspaces", &[]).await.unwrap();
        tx.execute("DELETE FROM workspaces", &[]).await.unwrap();
        (row.get::<_, i32>(0), row.get::<_, i64>(1))
    };
    let first = process().await;
    assert_eq!(first.1, 1);
    assert_eq!(process().await, first);
    // Given up while it begins, and in the middle of a statement.
    assert!(futures_util::FutureExt::now_or_never(store.begin()).is_none());
    assert_eq!(process().await, first);
    let tx = store.begin().await.unwrap();
    let asleep = tx.batch_execute("DELETE FROM workspaces; SELECT pg_sleep(0.2)");
    assert!(tokio::time::timeout(Duration::from_millis(50), asleep).await.is_err());
    drop(tx);
    assert_eq!(process().await, first);
    world.end().await;
}

#[tokio::test]
async fn probes_that_a_crash_left_are_forgotten() {
    let world = World::new().await;
    let (_, database, _) = world.create().await;
    let session = world.ctx.app.store.session().await.unwrap();
    for _ in 0..2 {
        credential::issue_probe(&session, database).await.unwrap();
        credential::forget_expired_probes(&session).await.unwrap();
        assert_eq!(world.count("probes").await, 1, "one that is still good is kept");
        session.execute("UPDATE probes SET expires_at = now() - interval '1 second'", &[]).await.unwrap();
    }
    credential::forget_expired_probes(&session).await.unwrap();
    assert_eq!(world.count("probes").await, 0);
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn what_runs_is_measured_and_recorded_until_the_last_stop() {
    let world = World::new().await;
    let (project, database, workflow) = world.create().await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    let session = world.ctx.app.store.session().await.unwrap();
    let instance = databases::plan(&session, database).await.unwrap().unwrap().instance.unwrap();
    let now = || world.ctx.app.clock.now();
    let used = async || {
        let period = Period::parse(None, None, now()).unwrap();
        usage::get(&session, &world.actor, database, &period).await.unwrap()
    };
    assert_eq!(used().await, Usage { operations: 0, storage_bytes: 0, measured_at: None });

    // The first one is the question that proved it.
    world.engine.work(instance, 11);
    let measurements = world.ctx.instances.measurements();
    world.tasks.spawn(howdah::jobs::usage::record(world.ctx.clone(), measurements));
    world.tasks.spawn(howdah::jobs::usage::measure(world.ctx.clone()));
    eventually("the timer's measurement", async || (used().await.operations == 10).then_some(())).await;
    let measured = used().await;
    assert!(measured.storage_bytes > 0 && measured.measured_at.unwrap() <= now());

    // What another instance did, and a database that is still being made, change nothing.
    let stray = Sample { instance: InstanceId::generate(now()), at: now(), counters: Vec::new(), storage_bytes: 1 };
    let tx = world.ctx.app.store.begin().await.unwrap();
    usage::record(&tx, &stray).await.unwrap();
    tx.execute("UPDATE databases SET status = 'provisioning'", &[]).await.unwrap();
    usage::record(&tx, &Sample { instance, ..stray.clone() }).await.unwrap();
    drop(tx);
    assert_eq!(used().await, measured);

    // Old hours go, but not the one that holds the size.
    let later = now() + SignedDuration::from_hours(24 * 500);
    session
        .execute(
            "INSERT INTO usage_hours SELECT database_id, hour - interval '1 hour', 1, 1, measured_at FROM usage_hours",
            &[],
        )
        .await
        .unwrap();
    usage::forget_old(&session, later).await.unwrap();
    assert_eq!((used().await, world.count("usage_hours").await), (measured, 1));

    // Shutdown measures it a last time, and what records that has ended when the tasks have.
    world.engine.work(instance, 5);
    world.ctx.instances.shutdown().await;
    eventually("the last measurement", async || (used().await.operations == 15).then_some(())).await;
    world.delete(&project, database).await;
    session.execute("DELETE FROM databases", &[]).await.unwrap();
    assert_eq!((world.count("usage_hours").await, world.count("usage_counters").await), (0, 0));
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn text_that_cannot_be_stored_is_the_caller_s_mistake() {
    let world = World::new().await;
    let tx = world.ctx.app.store.begin().await.unwrap();
    let refused = workspaces::create(&tx, "\0", world.ctx.app.clock.now()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    drop(tx);
    world.end().await;
}
