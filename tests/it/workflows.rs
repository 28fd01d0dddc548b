//! Every workflow, with each step executed twice and with a failure before and after each step,
//! and in between acting and writing. A new workflow is one line in `every_workflow`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use howdah::app::{App, JobCtx, PublicAddresses};
use howdah::auth::Principal;
use howdah::auth::signing::Signer;
use howdah::base::clock::Clock;
use howdah::base::id::{DatabaseId, ServiceTokenId, WorkflowId};
use howdah::base::keyring::Keyring;
use howdah::base::name::{DatabaseName, ProjectName};
use howdah::base::store::Store;
use howdah::base::tasks::Tasks;
use howdah::domain::databases::{self, NewDatabase};
use howdah::domain::projects::{self, NewProject};
use howdah::domain::regions::Regions;
use howdah::domain::workspaces;
use howdah::engine::fake::{FakeEngine, Verb};
use howdah::engine::local::{LocalConfig, MetadataInstance};
use howdah::engine::{Instances, Limits};
use howdah::gateway::{self, Gateway, tls};
use howdah::jobs::Workflows;
use howdah::jobs::database::{DeleteStep, ProvisionStep};
use howdah::metadata;
use howdah::queue::{Fault, Runner, State};

use crate::harness::Directory;

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
        let directory = Directory::new();
        let metadata = MetadataInstance::open(LocalConfig::new(directory.path().to_owned())).await.unwrap();
        let config = metadata.ensure_started().await.unwrap();
        metadata::migrate(&config).await.unwrap();
        let (tasks, clock) = (Tasks::default(), Clock::system());
        let store = Store::open(config, 8, &tasks).unwrap();
        let engine = FakeEngine::new().unwrap();
        let limits = Limits { idle_stop: None, max_running: 10 };
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
        let app = Arc::new(App { store, clock, signer, regions: Regions::default(), public, tasks: tasks.clone() });
        Self {
            ctx: Arc::new(JobCtx { app, instances, gateway: address }),
            engine,
            tasks,
            actor: Principal { workspace: workspace.id, token: ServiceTokenId::generate(now) },
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
        let project = projects::create(&tx, &self.actor, now, new).await.unwrap();
        let new = NewDatabase { name: DatabaseName::parse("d").unwrap(), region: "us-east-1".into(), is_default: true };
        let created = databases::create(&tx, &self.actor, now, project.id, new).await.unwrap();
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

    async fn status(&self, database: DatabaseId) -> databases::Database {
        databases::get(&self.ctx.app.store.session().await.unwrap(), &self.actor, database).await.unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        let session = self.ctx.app.store.session().await.unwrap();
        session.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
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
async fn a_delete_wins_over_a_provision_at_every_step() {
    let world = World::new().await;
    for step in ProvisionStep::ALL {
        // The provision stops before this step; the delete comes; the provision's worker comes back.
        let (project, database, provision) = world.create().await;
        let stuck: howdah::queue::Faults = Arc::new(move |_, at| (at == step.name()).then_some(Fault::BeforeWrite));
        let runner = world.runner().with_faults(stuck);
        let begun = tokio::time::timeout(std::time::Duration::from_millis(300), runner.drive(provision)).await;
        assert!(begun.is_err(), "it does not get past the step");
        let session = world.ctx.app.store.session().await.unwrap();
        // As after the death of its worker: the lease has run out.
        let expire = "UPDATE workflows SET lease_expires_at = now() - interval '1 second' WHERE state = 'running'";
        session.execute(expire, &[]).await.unwrap();
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
    let session = world.ctx.app.store.session().await.unwrap();
    let overdue = "UPDATE workflows SET step_deadline = now() - interval '1 second'";
    session.execute(overdue, &[]).await.unwrap();
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Failed));
    let failed = world.status(database).await;
    assert_eq!(failed.status, databases::Status::Failure);
    assert!(failed.failure_reason.is_some_and(|reason| !reason.is_empty()));
    let delete = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(delete).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.count("databases").await, 0);
    world.end().await;
}
