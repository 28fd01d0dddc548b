//! Every workflow, with each step executed twice and with a failure before and after each step,
//! and in between acting and writing. A new workflow is one line in `every_workflow`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::signing::Signer;
use auth::users::{self, User};
use auth::{Limits, Principal};
use base::clock::Clock;
use base::error::Error;
use base::id::{BackupId, DatabaseId, InstanceId, MailId, ServiceTokenId, WorkflowId};
use base::keyring::Keyring;
use base::name::{DatabaseName, Email, PersonName, ProjectName};
use base::store::Store;
use base::tasks::Tasks;
use domain::app::{App, PublicAddresses, Rates};
use domain::backups;
use domain::branches::Placement;
use domain::databases::{self, NewDatabase};
use domain::limits::Quotas;
use domain::mail::{self, Letter};
use domain::operations;
use domain::projects::{self, NewProject, ProjectChange};
use domain::recoveries::{self, RECOVER};
use domain::regions::Regions;
use domain::restores::{self, Recipe, Source, SourceType};
use domain::usage::{self, Period, Sample, Usage};
use domain::workspaces::{self, WorkspaceChange};
use engine::backups::BackupLabel;
use engine::fake::{FakeEngine, NOT_WHOLE, Verb};
use engine::local::MetadataInstance;
use engine::{Instances, Major};
use gateway::{Gateway, tls};
use howdah::metadata;
use jiff::SignedDuration;
use jobs::Workflows;
use jobs::backup::BackUpStep;
use jobs::context::JobCtx;
use jobs::database::{DeleteStep, ProvisionStep};
use jobs::reconcile;
use jobs::recovery::RecoverStep;
use jobs::restore::RestoreStep;
use jobs::retention::{self, Schedule};
use jobs::trial::TrialStep;
use queue::{Fault, Lane, Runner, State};
use smtp::Mailer;
use tokio::sync::watch;

use crate::harness::{Directory, eventually};
use crate::mail::MailServer;

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
        Self::with(10, SignedDuration::ZERO).await
    }

    /// At most `max_running` instances run at a time, and deleted databases are kept for `undelete`.
    async fn with(max_running: usize, undelete: SignedDuration) -> Self {
        Self::on(FakeEngine::new().unwrap(), max_running, undelete, None).await
    }

    async fn on(engine: Arc<FakeEngine>, max_running: usize, undelete: SignedDuration, mailer: Option<Mailer>) -> Self {
        let directory = Directory::new();
        let metadata = directory.metadata_instance().await;
        let config = metadata.ensure_started().await.unwrap();
        metadata::migrate(&config).await.unwrap();
        let (tasks, clock) = (Tasks::default(), Clock::system());
        let store = Store::open(config, 8, &tasks).unwrap();
        let limits = engine::Limits { idle_stop: None, max_running };
        let instances = Instances::new(engine.clone(), limits, clock.clone(), tasks.clone());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let tls = tls::server_config(&made.cert.pem(), &made.signing_key.serialize_pem()).unwrap();
        let gateway = Gateway::bind(
            gateway::Config {
                listen: "127.0.0.1:0".parse().unwrap(),
                tls: watch::channel(tls).1,
                mock_secret: [0; 32],
                limits: gateway::Limits::default(),
            },
            store.clone(),
            instances.clone(),
            tasks.clone(),
        )
        .unwrap();
        let address = gateway.local_address();
        tasks.spawn(async move { gateway.serve().await });
        let now = clock.now();
        let tx = store.begin().await.unwrap();
        let signer = Signer::load_or_create(&tx, &Keyring::new(&[0; 32]), now).await.unwrap();
        let workspace = workspaces::create(&tx, "Tests", now).await.unwrap();
        tx.commit().await.unwrap();
        let public = PublicAddresses {
            api: String::new(),
            auth: String::new(),
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
            authorities: None,
            provider: None,
            client_registration: true,
            mail: true,
            rates: Rates::default(),
            quotas: Quotas::default(),
            scheduled_backups: true,
            undelete,
            metadata_at_risk: std::sync::atomic::AtomicBool::default(),
            health: Arc::default(),
            disks: Vec::new(),
            tasks: tasks.clone(),
        });
        Self {
            ctx: Arc::new(JobCtx { app, instances, mailer, gateway: address }),
            engine,
            tasks,
            actor: Principal::of_service_token(
                workspace.id,
                ServiceTokenId::generate(now),
                "test".into(),
                Limits::default(),
            ),
            metadata,
            _directory: directory,
        }
    }

    fn runner(&self) -> Runner {
        Runner::new(self.ctx.app.store.clone(), Arc::new(Workflows(self.ctx.clone())), self.tasks.clone())
    }

    /// Records a project with a database, as a request does.
    async fn create(&self) -> (projects::Project, DatabaseId, WorkflowId) {
        self.create_from(None).await
    }

    /// The same, of a database that is made from something.
    async fn create_from(&self, source: Option<Recipe>) -> (projects::Project, DatabaseId, WorkflowId) {
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
            source,
        };
        let created = databases::create(&tx, &self.actor, now, &self.ctx.app.quotas, project.id, new).await.unwrap();
        tx.commit().await.unwrap();
        (project, created.database, created.workflow)
    }

    /// A database that is ready, with the instance that it has.
    async fn ready(&self) -> (projects::Project, DatabaseId, InstanceId) {
        let (project, database, workflow) = self.create().await;
        assert_eq!(self.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
        (project, database, self.instance(database).await)
    }

    async fn instance(&self, database: DatabaseId) -> InstanceId {
        let session = self.ctx.app.store.session().await.unwrap();
        databases::plan(&session, database).await.unwrap().unwrap().instance.unwrap()
    }

    /// Records that a backup is wanted; answers it and the workflow that makes it.
    async fn begin_backup(&self, database: DatabaseId) -> (BackupId, WorkflowId) {
        let (now, keyring) = (self.ctx.app.clock.now(), &self.ctx.app.keyring);
        let tx = self.ctx.app.store.begin().await.unwrap();
        let (backup, workflow) = backups::create(&tx, &self.actor, now, keyring, database, None).await.unwrap();
        tx.commit().await.unwrap();
        (backup.id, workflow)
    }

    /// A completed backup.
    async fn back_up(&self, database: DatabaseId) -> BackupId {
        let (backup, workflow) = self.begin_backup(database).await;
        assert_eq!(self.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
        backup
    }

    async fn backup(&self, database: DatabaseId, id: BackupId) -> backups::Backup {
        backups::find(&self.ctx.app.store.session().await.unwrap(), database, id).await.unwrap().unwrap()
    }

    async fn damage(&self, database: DatabaseId, id: BackupId) {
        let backup = self.backup(database, id).await;
        self.engine.damage_backup(backup.instance, &BackupLabel::parse(&backup.label.unwrap()).unwrap());
    }

    /// Records that a trial of a backup is wanted.
    async fn begin_trial(&self, database: DatabaseId, backup: BackupId) -> WorkflowId {
        let tx = self.ctx.app.store.begin().await.unwrap();
        let now = self.ctx.app.clock.now();
        let (_, workflow) = backups::verify(&tx, &self.actor, now, database, backup).await.unwrap();
        tx.commit().await.unwrap();
        workflow
    }

    /// Records that a database is to be restored in place.
    async fn begin_restore(&self, database: DatabaseId, backup: BackupId) -> Result<WorkflowId, Error> {
        let tx = self.ctx.app.store.begin().await.unwrap();
        let source = Source::Backup { database, backup, to: None };
        let now = self.ctx.app.clock.now();
        let (_, workflow) = restores::start_in_place(&tx, &self.actor, now, database, &source).await?;
        tx.commit().await.unwrap();
        Ok(workflow)
    }

    async fn cancel(&self, operation: WorkflowId) -> Result<operations::Operation, Error> {
        let tx = self.ctx.app.store.begin().await.unwrap();
        let cancelled = operations::cancel(&tx, &self.actor, self.ctx.app.clock.now(), operation).await?;
        tx.commit().await.unwrap();
        Ok(cancelled)
    }

    /// Drives a workflow to a step that it does not get past; then its worker dies.
    async fn drive_to(&self, workflow: WorkflowId, step: &'static str, fault: Fault) {
        let stuck: queue::Faults = Arc::new(move |_, at| (at == step).then_some(fault));
        let runner = self.runner().with_faults(stuck);
        let tried = async || {
            let session = self.ctx.app.store.session().await.unwrap();
            let tried = "SELECT step = $2 AND attempts > 0 FROM workflows WHERE id = $1";
            session.query_one(tried, &[&workflow.uuid(), &step]).await.unwrap().get::<_, bool>(0).then_some(())
        };
        tokio::select! {
            ended = runner.drive(workflow) => panic!("it got past {step}: {ended:?}"),
            () = eventually("the step to be tried", tried) => {}
        }
        self.set(WORKER_DIED).await;
    }

    /// The database has the instance that it had, and nothing else is left of a restore or a trial.
    async fn assert_as_before(&self, database: DatabaseId, instance: InstanceId, what: &str) {
        assert_eq!(self.status(database).await.status, databases::Status::Ready, "{what}");
        assert_eq!(self.instance(database).await, instance, "{what}");
        assert_eq!((self.instance_count().await, self.engine.exists(instance)), (1, true), "{what}");
        assert_eq!((self.count("restores").await, self.count("trials").await), (0, 0), "{what}");
        let shown = self.status(database).await;
        assert_eq!(
            (shown.source, shown.source_database, shown.source_backup),
            (SourceType::Empty, None, None),
            "{what}"
        );
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

    /// Every instance is gone, and the metadata has been brought back.
    async fn lose_machine(&self) {
        for facts in self.ctx.instances.list().await.unwrap() {
            self.ctx.instances.ensure_destroyed(facts.id).await.unwrap();
        }
        let tx = self.ctx.app.store.begin().await.unwrap();
        recoveries::begin(&tx, self.ctx.app.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Somebody with an account, and with a role in the workspace.
    async fn person(&self, name: &str, role: &str) -> User {
        let (email, name) = (Email::parse(&format!("{name}@example.com")).unwrap(), PersonName::parse(name).unwrap());
        let (tx, now) = (self.ctx.app.store.begin().await.unwrap(), self.ctx.app.clock.now());
        let user = users::create(&tx, now, &email, &name, None, false).await.unwrap();
        let insert = "INSERT INTO memberships (workspace_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)";
        tx.execute(insert, &[&self.actor.workspace().uuid(), &user.id.uuid(), &role, &now]).await.unwrap();
        tx.commit().await.unwrap();
        user
    }

    /// The mails that were written since the last time, to whom they are.
    async fn take_mails(&self) -> Vec<Letter> {
        let session = self.ctx.app.store.session().await.unwrap();
        let mut letters = Vec::new();
        for row in session.query("SELECT id FROM mails ORDER BY id", &[]).await.unwrap() {
            let id = MailId::from(row.get::<_, uuid::Uuid>("id"));
            letters.push(mail::find(&session, &self.ctx.app.keyring, id).await.unwrap().unwrap().letter);
        }
        session.execute("DELETE FROM mails", &[]).await.unwrap();
        letters.sort_by(|one, other| one.to.cmp(&other.to));
        letters
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
fn once(kind: &'static str, step: &'static str, fault: Fault) -> queue::Faults {
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
async fn backups_survive_a_failure_at_every_step() {
    survive_a_failure_at_each_of(backups::BACK_UP.name, BackUpStep::ALL.iter().map(|step| step.name())).await;
}

#[tokio::test]
async fn verifications_survive_a_failure_at_every_step() {
    survive_a_failure_at_each_of(backups::VERIFY.name, TrialStep::ALL.iter().map(|step| step.name())).await;
}

#[tokio::test]
async fn restores_in_place_survive_a_failure_at_every_step() {
    // The last two are what follows when it does not work.
    let steps = RestoreStep::ALL[..4].iter().map(|step| step.name());
    survive_a_failure_at_each_of(restores::RESTORE.name, steps).await;
}

/// A backup, its trial and a restore in place of it all work, whatever happens once at one of these steps.
async fn survive_a_failure_at_each_of(kind: &'static str, steps: impl Iterator<Item = &'static str>) {
    let world = World::new().await;
    let (project, database, workflow) = world.create().await;
    world.runner().drive(workflow).await.unwrap();
    let (store, clock) = (&world.ctx.app.store, &world.ctx.app.clock);
    for step in steps {
        for fault in FAULTS {
            let runner = world.runner().with_faults(once(kind, step, fault));
            let tx = store.begin().await.unwrap();
            let now = clock.now();
            let keyring = &world.ctx.app.keyring;
            let (backup, workflow) = backups::create(&tx, &world.actor, now, keyring, database, None).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
            let found = backups::find(&store.session().await.unwrap(), database, backup.id).await.unwrap();
            assert_eq!(found.unwrap().state, backups::State::Completed, "{kind} {step} {fault:?}");

            let workflow = world.begin_trial(database, backup.id).await;
            assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Succeeded), "{kind} {step} {fault:?}");
            let tried = world.backup(database, backup.id).await;
            assert!(tried.verified_at.is_some() && tried.restore_bytes_per_second == Some(2 << 20), "{tried:?}");
            assert_eq!((tried.verified_relations, tried.verification_failure), (Some(1), None));
            assert_eq!((world.instance_count().await, world.count("trials").await), (1, 0));

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
    let workflow = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    for table in ["databases", "vaults", "backups", "restores", "trials"] {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    world.end().await;
}

#[tokio::test]
async fn failed_restore_in_place_is_undone_despite_further_failures() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let damaged = world.back_up(database).await;
    world.damage(database, damaged).await;
    let steps = [RestoreStep::RestoreInstance, RestoreStep::PutBack, RestoreStep::DiscardRestored];
    for (step, fault) in steps.into_iter().flat_map(|step| FAULTS.map(|fault| (step, fault))) {
        let what = format!("{step:?} {fault:?}");
        let runner = world.runner().with_faults(once(restores::RESTORE.name, step.name(), fault));
        let workflow = world.begin_restore(database, damaged).await.unwrap();
        let ended = runner.drive(workflow).await.unwrap();
        // A last step that runs twice finds nothing left to do.
        let repeated = (step, fault) == (RestoreStep::DiscardRestored, Fault::Repeat);
        assert_eq!(ended, Some(if repeated { State::Succeeded } else { State::Failed }), "{what}");
        world.assert_as_before(database, instance, &what).await;
        let reason = world.status(database).await.status_reason.unwrap();
        assert!(reason.contains("the last restore failed") && reason.contains("damaged"), "{reason}");
    }
    for (step, fault) in TrialStep::ALL.into_iter().flat_map(|step| FAULTS.map(|fault| (step, fault))) {
        // Until the check what is in the backup makes no difference, and after a restore that fails none.
        world.engine.write(instance, NOT_WHOLE);
        let backup = if step == TrialStep::RestoreForTrial { damaged } else { world.back_up(database).await };
        let what = format!("{step:?} {fault:?}");
        let runner = world.runner().with_faults(once(backups::VERIFY.name, step.name(), fault));
        let workflow = world.begin_trial(database, backup).await;
        let ended = runner.drive(workflow).await.unwrap();
        let repeated = (step, fault) == (TrialStep::Discard, Fault::Repeat);
        assert_eq!(ended, Some(if repeated { State::Succeeded } else { State::Failed }), "{what}");
        world.assert_as_before(database, instance, &what).await;
        let tried = world.backup(database, backup).await;
        assert!(tried.verification_failure.is_some_and(|reason| reason.contains("damaged")), "{what}");
        assert_eq!((tried.state, tried.verified_at), (backups::State::Completed, None), "{what}");
    }
    world.end().await;
}

#[tokio::test]
async fn restore_that_does_not_respond_is_undone() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    for fault in FAULTS {
        let workflow = world.begin_restore(database, backup).await.unwrap();
        world.drive_to(workflow, RestoreStep::ProveReady.name(), Fault::Before).await;
        assert_ne!(world.instance(database).await, instance, "it has taken over");
        world.set(OVERDUE).await;
        world.engine.fail_next(Verb::Start, usize::MAX);
        let runner = world.runner().with_faults(once(restores::RESTORE.name, RestoreStep::PutBack.name(), fault));
        assert_eq!(runner.drive(workflow).await.unwrap(), Some(State::Failed), "{fault:?}");
        world.engine.fail_next(Verb::Start, 0);
        world.assert_as_before(database, instance, &format!("{fault:?}")).await;
        let closed = "SELECT count(*) FROM vaults WHERE closed_at IS NOT NULL";
        let session = world.ctx.app.store.session().await.unwrap();
        assert_eq!(session.query_one(closed, &[]).await.unwrap().get::<_, i64>(0), 0, "its vault is open again");
    }
    world.end().await;
}

/// Drives a workflow until its step was tried so often; nobody is at work on it then.
async fn tried(world: &World, workflow: WorkflowId, times: i32) {
    let runner = world.runner();
    let tried = async || {
        let session = world.ctx.app.store.session().await.unwrap();
        let attempts = "SELECT attempts FROM workflows WHERE id = $1";
        let attempts: i32 = session.query_one(attempts, &[&workflow.uuid()]).await.unwrap().get(0);
        (attempts >= times).then_some(())
    };
    tokio::select! {
        ended = runner.drive(workflow) => panic!("it did not wait: {ended:?}"),
        () = eventually("it to be tried", tried) => {}
    }
    world.set(WORKER_DIED).await;
}

#[tokio::test]
async fn restore_in_place_is_given_up_if_the_latest_writes_cannot_be_archived() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    world.engine.write(instance, "last words");
    let restore = world.begin_restore(database, backup).await.unwrap();
    world.drive_to(restore, RestoreStep::TakeOver.name(), Fault::Before).await;
    world.engine.set_repository_reachable(false);
    tried(&world, restore, 12).await;
    assert_eq!(world.instance(database).await, instance, "it has not taken over");
    world.set(OVERDUE).await;
    assert_eq!(world.runner().drive(restore).await.unwrap(), Some(State::Failed));
    world.assert_as_before(database, instance, "the repository is away").await;
    assert_eq!(world.engine.read(instance).as_deref(), Some("last words"));
    let reason = world.status(database).await.status_reason.unwrap();
    assert!(reason.contains("latest changes of the database") && reason.contains("is not responding"), "{reason}");

    // What was given up on its way there is in no backup either: one is made before it is destroyed.
    world.engine.set_repository_reachable(true);
    world.engine.lose_wal(instance);
    let restore = world.begin_restore(database, backup).await.unwrap();
    let made = world.engine.count(Verb::BackUp);
    assert_eq!(world.runner().drive(restore).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.count(Verb::BackUp), made + 1);
    assert_ne!(world.instance(database).await, instance);
    world.end().await;
}

#[tokio::test]
async fn instance_that_does_not_start_does_not_block_a_restore() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    let restore = world.begin_restore(database, backup).await.unwrap();
    world.drive_to(restore, RestoreStep::TakeOver.name(), Fault::Before).await;
    world.engine.fail_next(Verb::FlushArchive, usize::MAX);
    world.engine.fail_next(Verb::Start, 1);
    world.set(OVERDUE).await;
    assert_eq!(world.runner().drive(restore).await.unwrap(), Some(State::Succeeded));
    assert_ne!(world.instance(database).await, instance);
    world.end().await;
}

#[tokio::test]
async fn delete_waits_for_the_latest_writes_to_be_backed_up() {
    let week = SignedDuration::from_hours(24 * 7);
    let world = World::with(10, week).await;
    for is_back in [true, false] {
        let (project, database, instance) = world.ready().await;
        world.back_up(database).await;
        world.engine.write(instance, "last words");
        world.engine.set_repository_reachable(false);
        let delete = world.delete(&project, database).await;
        tried(&world, delete, 12).await;
        world.set(OVERDUE).await;
        tried(&world, delete, 14).await;
        assert!(world.engine.exists(instance), "it is not destroyed yet");
        let session = world.ctx.app.store.session().await.unwrap();
        let told = "SELECT explanation FROM workflows WHERE id = $1";
        let told: String = session.query_one(told, &[&delete.uuid()]).await.unwrap().get(0);
        assert!(told.contains("latest changes of the database") && told.contains("is not responding"), "{told}");
        let stuck = "UPDATE vaults SET failing_since = now(), archived_until = now() - interval '1 hour'";
        session.execute(stuck, &[]).await.unwrap();
        match is_back {
            true => world.engine.set_repository_reachable(true),
            // It would be forgotten by now in any case.
            false => {
                let earlier = "UPDATE databases SET deleted_at = deleted_at - interval '8 days' WHERE id = $1";
                session.execute(earlier, &[&database.uuid()]).await.unwrap();
            }
        }
        drop(session);
        assert_eq!(world.runner().drive(delete).await.unwrap(), Some(State::Succeeded), "{is_back}");
        assert!(!world.engine.exists(instance));
        if is_back {
            let to = world.ctx.app.clock.now();
            let tx = world.ctx.app.store.begin().await.unwrap();
            let source = Source::Database { database, to: None };
            let recipe = restores::resolve(&tx, &world.actor, to, &source).await.unwrap();
            drop(tx);
            let (_, copy, workflow) = world.create_from(Some(recipe)).await;
            assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
            let copy = world.instance(copy).await;
            assert_eq!(world.engine.read(copy).as_deref(), Some("last words"));
        }
    }
    world.end().await;
}

#[tokio::test]
async fn wait_for_a_free_place_has_a_limit() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    world.engine.set_full(true);
    let restore = world.begin_restore(database, backup).await.unwrap();
    assert_eq!(world.runner().drive(restore).await.unwrap(), Some(State::Failed));
    assert_eq!(world.engine.count(Verb::Restore), 21, "it was tried often");
    world.assert_as_before(database, instance, "restore").await;
    assert!(world.status(database).await.status_reason.unwrap().contains("disk is full"));
    let trial = world.begin_trial(database, backup).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Failed));
    world.assert_as_before(database, instance, "trial").await;
    world.engine.set_full(false);
    let trial = world.begin_trial(database, backup).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Succeeded));
    let tried = world.backup(database, backup).await;
    assert_eq!((tried.verified_at.is_some(), tried.verification_failure), (true, None), "the last trial counts");
    world.end().await;
}

#[tokio::test]
async fn restore_can_be_cancelled_until_it_takes_over() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;

    // While it waits for a worker.
    let waiting = world.begin_restore(database, backup).await.unwrap();
    world.cancel(waiting).await.unwrap();
    assert_eq!(world.status(database).await.status, databases::Status::Ready);
    let refused = world.begin_restore(database, backup).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { .. }), "it is still being put away: {refused:?}");
    let again = world.cancel(waiting).await.unwrap_err();
    assert!(matches!(again, Error::Conflict { .. }), "{again:?}");
    assert_eq!(world.runner().drive(waiting).await.unwrap(), Some(State::Cancelled));
    world.assert_as_before(database, instance, "waiting").await;
    assert_eq!(world.status(database).await.status_reason, None);

    // While a worker is at it, which then gets its instance done all the same.
    let running = world.begin_restore(database, backup).await.unwrap();
    let gate = world.engine.hold_up(Verb::Restore);
    let runner = world.runner();
    let meanwhile = async {
        eventually("the restore", async || (world.engine.count(Verb::Restore) == 1).then_some(())).await;
        let cancelled = world.cancel(running).await.unwrap();
        assert!(!cancelled.can_cancel() && !cancelled.state.has_ended());
        assert_eq!(world.status(database).await.status, databases::Status::Ready, "at once");
        let session = world.ctx.app.store.session().await.unwrap();
        let held = "SELECT lease_expires_at > now() FROM workflows WHERE id = $1";
        let held = session.query_one(held, &[&running.uuid()]).await.unwrap();
        assert!(held.get::<_, bool>(0), "nobody else begins while that worker may be at work");
        world.set(WORKER_DIED).await;
        gate.open();
    };
    let (ended, ()) = tokio::join!(runner.drive(running), meanwhile);
    assert_eq!(ended.unwrap(), Some(State::Cancelled));
    world.assert_as_before(database, instance, "running").await;

    // When it has taken over.
    let late = world.begin_restore(database, backup).await.unwrap();
    let gate = world.engine.hold_up(Verb::Destroy);
    let destroyed = world.engine.count(Verb::Destroy);
    let meanwhile = async {
        eventually("the end", async || (world.engine.count(Verb::Destroy) > destroyed).then_some(())).await;
        let refused = world.cancel(late).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict { .. }), "{refused:?}");
        // It is ready, and the old instance is still being removed: no fault of the server's.
        assert_eq!(world.status(database).await.status, databases::Status::Ready);
        let refused = world.begin_restore(database, backup).await.unwrap_err();
        assert!(matches!(refused, Error::Conflict { .. }), "{refused:?}");
        gate.open();
    };
    let (ended, ()) = tokio::join!(runner.drive(late), meanwhile);
    assert_eq!(ended.unwrap(), Some(State::Succeeded));
    assert_ne!(world.instance(database).await, instance);
    let shown = world.status(database).await;
    assert_eq!((shown.source, shown.source_backup), (SourceType::Backup, Some(backup)), "what it comes from now");
    world.end().await;
}

#[tokio::test]
async fn no_backup_builds_on_a_damaged_one_and_a_new_one_is_due() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let app = &world.ctx.app;
    // A backup is told from another one by the second that it began in.
    let next_second = async || {
        let now = app.clock.now().as_second();
        eventually("another second", async || (app.clock.now().as_second() > now).then_some(())).await;
    };
    let full = world.back_up(database).await;
    next_second().await;
    let differential = world.back_up(database).await;
    next_second().await;
    let due = async || {
        let (session, day) = (app.store.session().await.unwrap(), SignedDuration::from_hours(24));
        backups::due(&session, app.clock.now(), day, day).await.unwrap()
    };
    let window =
        async || backups::window(&app.store.session().await.unwrap(), database, app.clock.now()).await.unwrap();
    let newest = async || backups::newest(&app.store.session().await.unwrap(), instance).await.unwrap();
    assert_eq!((due().await, newest().await.unwrap().id), (Vec::new(), differential));

    // What was in the way of a trial says nothing of the backup.
    world.engine.set_full(true);
    let trial = world.begin_trial(database, differential).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Failed));
    world.engine.set_full(false);
    let tried = world.backup(database, differential).await;
    assert!(tried.verification_failure.is_some() && !tried.damaged);
    assert_eq!(due().await, []);

    // The one that was tried builds on the one that is damaged, which is tried next.
    world.damage(database, full).await;
    let trial = world.begin_trial(database, differential).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Failed));
    assert!(world.backup(database, differential).await.damaged && !world.backup(database, full).await.damaged);
    let session = app.store.session().await.unwrap();
    let select = "SELECT id FROM workflows WHERE subject = $1 AND state = 'waiting'";
    let next = session.query_one(select, &[&full.uuid()]).await.unwrap().get::<_, uuid::Uuid>("id");
    assert_eq!(world.runner().drive(next.into()).await.unwrap(), Some(State::Failed));
    assert!(world.backup(database, full).await.damaged);
    assert_eq!((newest().await.map(|backup| backup.id), window().await.latest()), (None, None));
    assert_eq!(due().await, [backups::Due { database, kind: backups::Kind::Full }], "soon, whether it was used or not");

    // Whatever somebody asks for, it holds everything.
    let tx = app.store.begin().await.unwrap();
    let kind = Some(backups::Kind::Differential);
    let made = backups::create(&tx, &world.actor, app.clock.now(), &app.keyring, database, kind).await;
    let (whole, workflow) = made.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(whole.kind, backups::Kind::Full);
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!((due().await, newest().await.unwrap().id), (Vec::new(), whole.id));
    assert!(window().await.latest().is_some());
    next_second().await;
    let next = world.back_up(database).await;
    assert_eq!(world.backup(database, next).await.kind, backups::Kind::Differential);
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn copy_of_a_live_database_avoids_damaged_backups() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    world.engine.write(instance, "now");
    world.damage(database, backup).await;
    let source_type = SourceType::Database;
    let recipe = Recipe { source_type, source_database: database, backup: None, target_time: None };
    let (_, copy, workflow) = world.create_from(Some(recipe)).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.read(world.instance(copy).await).as_deref(), Some("now"));
    assert!(world.backup(database, backup).await.damaged);
    let newest = backups::newest(&world.ctx.app.store.session().await.unwrap(), instance).await.unwrap().unwrap();
    assert_eq!((newest.kind, newest.damaged), (backups::Kind::Full, false));
    world.end().await;
}

#[tokio::test]
async fn copy_of_a_sleeping_database_needs_no_backup_with_reflinks() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    world.engine.share_blocks();
    world.engine.write(instance, "now");
    let source_type = SourceType::Database;
    let copy = async || {
        let recipe = Recipe { source_type, source_database: database, backup: None, target_time: None };
        world.create_from(Some(recipe)).await
    };
    world.ctx.instances.ensure_stopped(instance).await.unwrap();
    for fault in FAULTS {
        let (_, copy, workflow) = copy().await;
        let faults = once(databases::COPY.name, ProvisionStep::CreateInstance.name(), fault);
        let ended = world.runner().with_faults(faults).drive(workflow).await.unwrap();
        assert_eq!(ended, Some(State::Succeeded), "{fault:?}");
        let copied = world.instance(copy).await;
        assert_eq!(world.engine.read(copied).as_deref(), Some("now"));
        assert!(!world.engine.is_running(instance), "it sleeps on");
    }
    assert_eq!((world.engine.count(Verb::BackUp), world.engine.count(Verb::Restore)), (0, 0));

    // Who connects meanwhile waits, and the copy is what was there before.
    let gate = world.engine.hold_up(Verb::Copy);
    let (_, held_up, workflow) = copy().await;
    let (runner, copies) = (world.runner(), world.engine.count(Verb::Copy));
    let under_way =
        async || eventually("the copy", async || (world.engine.count(Verb::Copy) > copies).then_some(())).await;
    let (ended, session, ()) = tokio::join!(
        runner.drive(workflow),
        async {
            under_way().await;
            world.ctx.instances.attach(instance).await.unwrap()
        },
        async {
            under_way().await;
            tokio::task::yield_now().await;
            assert!(!world.engine.is_running(instance));
            gate.open();
        }
    );
    assert_eq!(ended.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.read(world.instance(held_up).await).as_deref(), Some("now"));

    // What is in use is copied out of a backup.
    world.engine.write(instance, "later");
    let (_, copied, workflow) = copy().await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.read(world.instance(copied).await).as_deref(), Some("later"));
    assert_eq!((world.engine.count(Verb::BackUp), world.engine.count(Verb::Restore)), (1, 1));
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn backups_that_build_on_a_damaged_one_are_damaged() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    world.back_up(database).await;
    let (app, seconds) = (&world.ctx.app, SignedDuration::from_secs);
    let session = app.store.session().await.unwrap();
    let full = "20260102-000000F";
    let labels = [
        (full, "full"),
        ("20260102-000000F_20260103-000000I", "incremental"),
        ("20260102-000000F_20260104-000000D", "differential"),
        ("20260102-000000F_20260105-000000I", "incremental"),
        ("20260102-000000F_20260106-000000D", "differential"),
        ("20260102-000000F_20260107-000000I", "incremental"),
        ("20260108-000000F", "full"),
    ];
    for (number, (label, kind)) in (0..).zip(labels) {
        let insert = "INSERT INTO backups (id, instance_id, database_id, label, kind, state, created_at, completed_at)
                      VALUES (gen_random_uuid(), $1, $2, $3, $4, 'completed', $5, $5)";
        let at = app.clock.now() + seconds(number);
        session.execute(insert, &[&instance.uuid(), &database.uuid(), &label, &kind, &at]).await.unwrap();
    }
    let spoilt = async |label: &str| {
        session.execute("UPDATE backups SET damaged_at = NULL", &[]).await.unwrap();
        session.execute("UPDATE backups SET damaged_at = now() WHERE label = $1", &[&label]).await.unwrap();
        let damaged = backups::damaged(&session, instance).await.unwrap();
        labels.map(|(label, _)| damaged.iter().any(|damaged| damaged == label))
    };
    assert_eq!(spoilt(full).await, [true, true, true, true, true, true, false]);
    assert_eq!(spoilt(labels[1].0).await, [false, true, false, false, false, false, false]);
    assert_eq!(spoilt(labels[2].0).await, [false, false, true, true, false, false, false]);
    // What was itself found whole since is whole.
    let verified = "UPDATE backups SET verified_at = now() + interval '1 hour' WHERE label = $1";
    session.execute(verified, &[&labels[4].0]).await.unwrap();
    assert_eq!(spoilt(full).await, [true, true, true, true, false, true, false]);
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn instances_that_are_being_restored_are_no_orphans() {
    let world = World::new().await;
    let (project, database, instance) = world.ready().await;
    let backup = world.back_up(database).await;
    let trial = world.begin_trial(database, backup).await;
    world.drive_to(trial, TrialStep::Check.name(), Fault::BeforeWrite).await;
    let restore = world.begin_restore(database, backup).await.unwrap();
    world.drive_to(restore, RestoreStep::TakeOver.name(), Fault::BeforeWrite).await;
    assert_eq!((world.instance_count().await, world.instance(database).await), (3, instance));
    assert_eq!(reconcile::orphans(&world.ctx).await.unwrap(), []);
    let stray = InstanceId::generate(world.ctx.app.clock.now());
    world.ctx.instances.ensure_created(stray, Major(17)).await.unwrap();
    assert_eq!(reconcile::orphans(&world.ctx).await.unwrap(), [stray]);
    world.ctx.instances.ensure_destroyed(stray).await.unwrap();

    // A delete takes everything with it, and its trial need not be waited for.
    let session = world.ctx.app.store.session().await.unwrap();
    session.execute("UPDATE databases SET status = 'ready'", &[]).await.unwrap();
    drop(session);
    let delete = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(restore).await.unwrap(), Some(State::Superseded));
    assert_eq!(world.runner().drive(delete).await.unwrap(), Some(State::Succeeded));
    assert_eq!((world.instance_count().await, world.count("trials").await), (0, 1));
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Superseded));
    assert_eq!((world.instance_count().await, world.count("trials").await), (0, 0));
    world.end().await;
}

#[tokio::test]
async fn large_copies_hold_up_no_create() {
    let world = World::with(20, SignedDuration::ZERO).await;
    let (_, database, _) = world.ready().await;
    let backup = world.back_up(database).await;
    let gate = world.engine.hold_up(Verb::Restore);
    let mut copies = Vec::new();
    for _ in 0..8 {
        let recipe = Recipe {
            source_type: SourceType::Backup,
            source_database: database,
            backup: Some(backup),
            target_time: None,
        };
        copies.push(world.create_from(Some(recipe)).await.1);
    }
    for lane in [Lane::AllBut(jobs::APART), Lane::Only(jobs::LONG)] {
        let runner = world.runner();
        world.tasks.spawn(async move { runner.serve(lane, 4).await });
    }
    eventually("the copies to be under way", async || (world.engine.count(Verb::Restore) >= 4).then_some(())).await;
    let is_ready = async |id| (world.status(id).await.status == databases::Status::Ready).then_some(());
    let (_, created, _) = world.create().await;
    eventually("the create", async || is_ready(created).await).await;
    for copy in &copies {
        assert_eq!(world.status(*copy).await.status, databases::Status::Provisioning);
    }
    gate.open();
    for copy in copies {
        eventually("the copies", async || is_ready(copy).await).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_copy_is_cancelled_and_tried_again_as_a_create_is() {
    let world = World::new().await;
    let (_, database, _) = world.ready().await;
    let backup = Some(world.back_up(database).await);
    let source_type = SourceType::Backup;
    let recipe = Recipe { source_type, source_database: database, backup, target_time: None };
    let (_, copy, workflow) = world.create_from(Some(recipe)).await;
    world.drive_to(workflow, ProvisionStep::CreateInstance.name(), Fault::BeforeWrite).await;
    let cancelled = world.cancel(workflow).await.unwrap();
    assert_eq!((cancelled.kind.as_str(), cancelled.state), ("copy_database", State::Cancelled));
    assert_eq!(world.status(copy).await.status, databases::Status::Failure);
    let tx = world.ctx.app.store.begin().await.unwrap();
    operations::retry(&tx, &world.actor, world.ctx.app.clock.now(), workflow).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.status(copy).await.status, databases::Status::Ready);
    world.end().await;
}

#[tokio::test]
async fn a_backup_without_its_wal_is_not_completed() {
    let world = World::new().await;
    let (_, database, instance) = world.ready().await;
    let (backup, workflow) = world.begin_backup(database).await;
    // The worker dies when the files are there, and the WAL that belongs to them is lost.
    world.drive_to(workflow, BackUpStep::CopyFiles.name(), Fault::BeforeWrite).await;
    world.engine.lose_wal_of_backups(instance);
    let made = world.engine.count(Verb::BackUp);
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.count(Verb::BackUp), made + 1, "another one was made");
    assert_eq!(
        (world.backup(database, backup).await.state, world.count("backups").await),
        (backups::State::Completed, 1)
    );
    let trial = world.begin_trial(database, backup).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Succeeded));

    world.engine.lose_wal_of_backups(instance);
    let trial = world.begin_trial(database, backup).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Failed), "and a trial finds such a one");
    world.back_up(database).await;
    assert_eq!(world.count("backups").await, 1, "what cannot be restored is not listed");
    world.end().await;
}

#[tokio::test]
async fn deleted_database_is_kept_for_the_undelete_time() {
    let day = SignedDuration::from_hours(24);
    let world = World::with(10, day * 30).await;
    let (project, database, instance) = world.ready().await;
    world.back_up(database).await;
    let delete = world.delete(&project, database).await;
    assert_eq!(world.runner().drive(delete).await.unwrap(), Some(State::Succeeded));
    let app = &world.ctx.app;
    let outlived = async |days: i32| {
        let session = app.store.session().await.unwrap();
        let found = backups::outlived(&session, &app.keyring, app.clock.now() + day * days).await.unwrap();
        found.into_iter().map(|vault| vault.instance).collect::<Vec<_>>()
    };
    // Every moment is restorable for seven days only; what was deleted, for thirty.
    assert_eq!(outlived(8).await, []);
    assert_eq!(outlived(29).await, []);
    assert_eq!(outlived(31).await, [instance]);
    world.end().await;
}

#[tokio::test]
async fn active_databases_are_verified_in_turn() {
    let world = World::new().await;
    let mut all = Vec::new();
    for _ in 0..2 {
        let (_, database, _) = world.ready().await;
        all.push((database, world.back_up(database).await));
    }
    let (app, week) = (&world.ctx.app, SignedDuration::from_hours(24 * 7));
    let due = async |later: SignedDuration| {
        let (session, now) = (app.store.session().await.unwrap(), app.clock.now() + later);
        backups::due_for_trial(&session, now - week, now).await.unwrap()
    };
    assert_eq!(due(SignedDuration::ZERO).await, Some(all[0]));
    let trial = world.begin_trial(all[0].0, all[0].1).await;
    assert_eq!(due(SignedDuration::ZERO).await, None, "one at a time");
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Succeeded));
    assert_eq!(due(SignedDuration::ZERO).await, Some(all[1]));
    world.damage(all[1].0, all[1].1).await;
    let trial = world.begin_trial(all[1].0, all[1].1).await;
    assert_eq!(world.runner().drive(trial).await.unwrap(), Some(State::Failed));
    assert_eq!(due(SignedDuration::ZERO).await, None, "none is tried again at once");
    assert_eq!(due(week * 2).await, None, "nobody has used them since");
    let newer = world.back_up(all[0].0).await;
    // A backup is told from another one by the second that it began in.
    let session = app.store.session().await.unwrap();
    let earlier = "UPDATE vaults SET tried_at = tried_at - interval '1 hour' WHERE database_id = $1";
    session.execute(earlier, &[&all[0].0.uuid()]).await.unwrap();
    drop(session);
    assert_eq!(due(SignedDuration::ZERO).await, None, "it was tried lately");
    assert_eq!(due(week * 2).await, Some((all[0].0, newer)));
    world.end().await;
}

/// What began is told by what was in the vault before, and what was lost by its place in the WAL.
#[tokio::test]
async fn clock_set_back_does_not_hide_backups_or_losses() {
    let hour = SignedDuration::from_hours(1);
    let clock = Clock::manual(Clock::system().now() + hour);
    let world = World::on(FakeEngine::with_clock(clock.clone()).unwrap(), 10, SignedDuration::ZERO, None).await;
    let (_, database, instance) = world.ready().await;
    let first = world.back_up(database).await;
    clock.advance(-hour);
    // The worker dies when the backup is made, before it can say so.
    let (second, workflow) = world.begin_backup(database).await;
    let made = world.engine.count(Verb::BackUp);
    world.drive_to(workflow, BackUpStep::CopyFiles.name(), Fault::BeforeWrite).await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    assert_eq!(world.engine.count(Verb::BackUp), made + 1, "one backup was made");
    let (first, second) = (world.backup(database, first).await, world.backup(database, second).await);
    assert!(first.label.is_some() && second.label.is_some() && first.label != second.label);

    let app = &world.ctx.app;
    let session = app.store.session().await.unwrap();
    let now = app.clock.now();
    let after = second.first_segment.clone().unwrap();
    for (lost, is_due) in [(first.first_segment.clone().unwrap(), false), (after, true)] {
        let loss = backups::Loss { from: None, until: now - hour * 2, last_segment: Some(lost.clone()) };
        let state = backups::ArchiveState { archived_until: Some(now), lost: vec![loss], ..Default::default() };
        backups::record_archive(&session, instance, now, &state).await.unwrap();
        let window = backups::window(&session, database, now).await.unwrap();
        assert_eq!(window.end() < Some(now), is_due, "{lost}: {window:?}");
        let state = backups::archiving(&session, database).await.unwrap().unwrap().state;
        let expected = if is_due { backups::ArchivingState::Lost } else { backups::ArchivingState::Ok };
        assert_eq!(state, expected, "{lost}");
        let due = backups::due(&session, now, SignedDuration::from_hours(24), SignedDuration::from_hours(24)).await;
        assert_eq!(!due.unwrap().is_empty(), is_due, "{lost}");
    }
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn a_shorter_retention_moves_the_window_and_removes_what_is_too_old() {
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let clock = Clock::manual(Clock::system().now() - DAY * 12);
    let world = World::on(FakeEngine::with_clock(clock.clone()).unwrap(), 10, SignedDuration::ZERO, None).await;
    let (project, database, workflow) = world.create().await;
    assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
    let (app, instances) = (&world.ctx.app, &world.ctx.instances);
    let workspace = world.actor.workspace();
    let keep = async |of_workspace: Option<i32>, of_project: Option<i32>| {
        let tx = app.store.begin().await.unwrap();
        let change = WorkspaceChange { backup_retention_days: Some(of_workspace), ..WorkspaceChange::default() };
        workspaces::update(&tx, &world.actor, app.clock.now(), workspace, &change).await.unwrap();
        let change = ProjectChange { backup_retention_days: Some(of_project), ..ProjectChange::default() };
        projects::update(&tx, &world.actor, app.clock.now(), project.id, &change).await.unwrap();
        tx.commit().await.unwrap();
        backups::retention_days(&app.store.session().await.unwrap(), project.id).await.unwrap()
    };
    assert_eq!(keep(Some(30), None).await, 30);
    // A full backup each four days; the last one is four days old.
    for _ in 0..3 {
        let tx = app.store.begin().await.unwrap();
        let full = Some(backups::Kind::Full);
        let (_, workflow) =
            backups::create(&tx, &world.actor, app.clock.now(), &app.keyring, database, full).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(world.runner().drive(workflow).await.unwrap(), Some(State::Succeeded));
        clock.advance(DAY * 4);
    }
    let ends = async || {
        let session = app.store.session().await.unwrap();
        let found = backups::list(&session, &world.actor, database, 100).await.unwrap().0;
        let mut ends: Vec<_> = found.iter().map(|backup| backup.completed_at.unwrap()).collect();
        ends.sort();
        ends
    };
    let listed = async || {
        let (ends, session) = (ends().await, app.store.session().await.unwrap());
        let window = backups::window(&session, database, app.clock.now()).await.unwrap();
        assert_eq!(window.earliest(), ends.first().copied(), "the window begins with the oldest backup");
        ends
    };
    let instance = databases::plan(&app.store.session().await.unwrap(), database).await.unwrap().unwrap().instance;
    let vault = backups::vault(&app.store.session().await.unwrap(), &app.keyring, instance.unwrap()).await.unwrap();
    let vault = engine::backups::Vault { instance: instance.unwrap(), key: vault.unwrap().key };
    let look_after = async |left: usize| {
        let looked = world.engine.count(Verb::ArchiveStatus);
        let never =
            Schedule { first: SignedDuration::ZERO, every: SignedDuration::ZERO, steady: Duration::from_secs(1) };
        tokio::select! {
            () = retention::retain(world.ctx.clone(), never) => unreachable!("it goes on"),
            // The list is looked after at the end of a round, too.
            () = eventually("a round", async || (world.engine.count(Verb::ArchiveStatus) >= looked + 2).then_some(())) => {}
        }
        assert_eq!(ends().await.len(), left + 1, "nothing goes before the clock is known to be steady");
        let never = Schedule { steady: Duration::ZERO, ..never };
        let reached = eventually("old backups to go", async || (ends().await.len() == left).then_some(()));
        tokio::select! {
            () = retention::retain(world.ctx.clone(), never) => unreachable!("it goes on"),
            () = reached => {}
        }
        assert_eq!(instances.backups(&vault).await.unwrap().len(), left, "the vault holds what is listed");
    };
    let all = listed().await;
    assert_eq!(all.len(), 3);
    // What reaches back to the first moment that is wanted stays.
    assert_eq!(keep(None, None).await, backups::RETENTION_DAYS);
    look_after(2).await;
    assert_eq!(listed().await, all[1..]);
    // The project's word counts before the workspace's.
    assert_eq!(keep(Some(3), Some(7)).await, 7);
    assert_eq!(keep(Some(3), None).await, 3);
    look_after(1).await;
    assert_eq!(listed().await, all[2..]);
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
async fn recovery_settles_interrupted_work() {
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
async fn only_used_databases_are_due_for_a_backup() {
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
    let session = app.store.session().await.unwrap();
    session.execute("UPDATE backups SET created_at = created_at + interval '90 days'", &[]).await.unwrap();
    drop(session);
    assert_eq!(due(hour * 4).await, [(database, backups::Kind::Differential)], "the clock was ahead once");
    world.end().await;
}

#[tokio::test]
async fn a_delete_wins_over_a_provision_at_every_step() {
    let world = World::new().await;
    for step in ProvisionStep::ALL {
        // The provision stops before this step; the delete comes; the provision's worker comes back.
        let (project, database, provision) = world.create().await;
        let stuck: queue::Faults = Arc::new(move |_, at| (at == step.name()).then_some(Fault::BeforeWrite));
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
async fn failed_provision_has_a_reason_and_can_be_deleted() {
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
async fn provision_waits_without_deadline_for_room_or_programs() {
    let world = World::with(1, SignedDuration::ZERO).await;
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
async fn worker_without_its_lease_cannot_fail_a_workflow() {
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
async fn blocked_workflow_is_not_polled() {
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
async fn measurements_are_recorded_until_the_last_stop() {
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
    world.tasks.spawn(jobs::usage::record(world.ctx.clone(), Arc::new(tokio::sync::Mutex::new(measurements))));
    world.tasks.spawn(jobs::usage::measure(world.ctx.clone()));
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
async fn text_with_nul_is_rejected() {
    let world = World::new().await;
    let tx = world.ctx.app.store.begin().await.unwrap();
    let refused = workspaces::create(&tx, "\0", world.ctx.app.clock.now()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    drop(tx);
    world.end().await;
}

#[tokio::test]
async fn administrators_get_one_mail_per_failing_backup() {
    let world = World::new().await;
    for (name, role) in [("ada", "owner"), ("bob", "admin"), ("carol", "developer"), ("dan", "viewer")] {
        world.person(name, role).await;
    }
    let out = world.person("eve", "owner").await;
    let session = world.ctx.app.store.session().await.unwrap();
    session.execute("UPDATE users SET disabled_at = now() WHERE id = $1", &[&out.id.uuid()]).await.unwrap();
    let to = |letters: &[Letter]| letters.iter().map(|letter| letter.to.clone()).collect::<Vec<_>>();
    let (project, database, instance) = world.ready().await;

    // A backup that fails its trial, and does so again.
    world.engine.write(instance, NOT_WHOLE);
    let backup = world.back_up(database).await;
    for count in 0..2 {
        let trial = world.begin_trial(database, backup).await;
        // Tried more than once, it is one change.
        let runner = world.runner().with_faults(once(backups::VERIFY.name, TrialStep::Check.name(), Fault::Before));
        assert_eq!(runner.drive(trial).await.unwrap(), Some(State::Failed));
        let letters = world.take_mails().await;
        if count == 0 {
            assert_eq!(to(&letters), ["ada@example.com", "bob@example.com"]);
            assert_eq!(
                letters[0].subject,
                format!("A backup of \"{}\" failed verification", world.status(database).await.name)
            );
            let text = &letters[0].text;
            assert!(
                text.contains(&backup.to_string()) && text.contains("damaged") && text.contains(&project.name),
                "{text}"
            );
        } else {
            assert_eq!(to(&letters), Vec::<String>::new());
        }
    }

    // An archive that is stuck, after a while, once, and that it goes on.
    let (_, second, other) = world.ready().await;
    world.back_up(second).await;
    let tell = async |change: &str| {
        session.execute(&format!("UPDATE vaults SET {change}"), &[]).await.unwrap();
        jobs::mail::tell_of_archives(&world.ctx).await.unwrap();
        world.take_mails().await
    };
    let stuck = |minutes: u32, of: InstanceId| {
        format!(
            "failing_since = now() - interval '{minutes} minutes', failing_reason = 'the place is full'
              WHERE instance_id = '{}'",
            of.uuid()
        )
    };
    assert_eq!(to(&tell(&stuck(9, instance)).await), Vec::<String>::new());
    let letters = tell(&stuck(11, instance)).await;
    assert_eq!(to(&letters), ["ada@example.com", "bob@example.com"]);
    assert_eq!(letters[0].subject, "Archiving is failing for databases in \"Tests\"");
    let text = &letters[0].text;
    assert!(
        text.contains("the place is full") && text.contains(&database.bare()) && !text.contains(&second.bare()),
        "{text}"
    );
    assert_eq!(to(&tell("failing_reason = 'the place is fuller'").await), Vec::<String>::new());
    assert_eq!(to(&tell(&stuck(20, other)).await), Vec::<String>::new(), "not again within the hour");
    let letters = tell("stuck_told_at = stuck_told_at - interval '2 hours'").await;
    assert_eq!(to(&letters), ["ada@example.com", "bob@example.com"]);
    assert!(
        letters[0].text.contains(&second.bare()) && !letters[0].text.contains(&database.bare()),
        "{}",
        letters[0].text
    );
    let letters = tell("failing_since = NULL, failing_reason = NULL").await;
    assert_eq!(to(&letters), ["ada@example.com", "bob@example.com"]);
    assert_eq!(letters[0].subject, "Archiving works again for databases in \"Tests\"");
    assert_eq!(to(&tell("failing_since = NULL").await), Vec::<String>::new());
    drop(session);
    world.end().await;
}

#[tokio::test]
async fn mail_survives_a_failure_at_every_step() {
    let server = MailServer::start().await;
    let world = World::on(FakeEngine::new().unwrap(), 1, SignedDuration::ZERO, Some(server.mailer())).await;
    let ada = world.person("ada", "owner").await;
    let app = &world.ctx.app;
    for fault in FAULTS {
        let before = server.all().len();
        let tx = app.store.begin().await.unwrap();
        app.outbox().unwrap().tell_administrator(&tx, app.clock.now(), &ada, &ada).await.unwrap();
        let row = tx.query_one("SELECT id FROM workflows WHERE state = 'waiting'", &[]).await.unwrap();
        tx.commit().await.unwrap();
        let runner = world.runner().with_faults(once(mail::SEND.name, mail::SEND.first_step, fault));
        let ended = runner.drive(WorkflowId::from(row.get::<_, uuid::Uuid>("id"))).await.unwrap();
        assert_eq!(ended, Some(State::Succeeded), "{fault:?}");
        // Whoever gets it twice can tell that it is one.
        let is_id = |line: &&str| line.starts_with("Message-ID: ");
        let all = server.all();
        let ids: std::collections::BTreeSet<&str> =
            all.iter().skip(before).map(|mail| mail.head().lines().find(is_id).unwrap()).collect();
        assert_eq!(ids.len(), 1, "{fault:?}: {ids:?}");
    }

    // What waits for too long is given up, and says why.
    let tx = app.store.begin().await.unwrap();
    app.outbox().unwrap().tell_administrator(&tx, app.clock.now(), &ada, &ada).await.unwrap();
    tx.execute("UPDATE mails SET expires_at = now() WHERE sealed IS NOT NULL", &[]).await.unwrap();
    let row = tx.query_one("SELECT id FROM workflows WHERE state = 'waiting'", &[]).await.unwrap();
    tx.commit().await.unwrap();
    let before = server.all().len();
    let ended = world.runner().drive(WorkflowId::from(row.get::<_, uuid::Uuid>("id"))).await.unwrap();
    assert_eq!((ended, server.all().len()), (Some(State::Failed), before));
    let session = app.store.session().await.unwrap();
    let row =
        session.query_one("SELECT sealed IS NULL, failure_reason FROM mails WHERE delivered_at IS NULL", &[]).await;
    let row = row.unwrap();
    assert!(row.get::<_, bool>(0) && row.get::<_, String>(1).contains("in time"));
    drop(session);
    world.end().await;
}
