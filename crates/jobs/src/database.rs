//! Creation and deletion of databases.

use base::name::TENANT_DATABASE;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_postgres::NoTls;

use super::backup::{engine_vault, from_backup, look_at_archive, try_to_back_up_whole};
use super::{restore, unknown};
use crate::context::JobCtx;
use base::disk::Level;
use base::error::{Result, describe};
use base::id::{DatabaseId, InstanceId};
use credential::issue_probe;
use domain::audit::{self, Consequence};
use domain::databases::{self, Plan, Status};
use domain::restores::SourceType;
use domain::{backups, restores, usage};
use engine::backups::{BackupError, BackupFacts, Vault};
use engine::bounded::Bounded;
use engine::{EngineError, Major};
use queue::{Job, Reason, StepError};

/// The longest time until a last measurement is recorded.
const MEASUREMENT_LOOKS: u32 = 20;
const MEASUREMENT_LOOK: Duration = Duration::from_millis(100);
/// How long the last changes of a database may take to be archived when its delete is to free room.
const LAST_ARCHIVING: Duration = Duration::from_secs(30);
/// One probe's limit: a start after a crash may take this long.
const PROBE_LIMIT: Duration = Duration::from_secs(45);
/// The most bytes that an instance may send in a probe.
const MOST_OF_PROBE: usize = 64 << 10;

// Reasons for the owner of a database. The operator reads the engine's own errors, which may name things that a tenant
// must not learn.
const NO_PROGRAMS: &str =
    "the required PostgreSQL version is not installed on the server; Howdah is retrying until the operator installs it";
const NO_SLOT: &str =
    "the server is running its maximum number of databases; Howdah is retrying until one of them is idle";
const NO_ROOM: &str = "the server's disk is full; Howdah is retrying until there is space";
const NO_ROOM_FOR_BACKUP: &str =
    "no final backup was created, because the server's disk was almost full; changes that were not archived are lost";
/// The action in the audit log for a skipped final backup.
const SKIP_LAST_BACKUP: &str = "skip_last_backup";
const NOT_STARTED: &str = "the PostgreSQL instance could not be created or started; the reason is in the server's log";
const NOT_KEPT: &str = "the latest changes of the database cannot be backed up and would be lost";
const NO_ANSWER: &str = "the database does not respond through the gateway; details are in the server's log";

/// The steps of `provision_database` and `copy_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionStep {
    /// Take an instance from the pool of prepared instances, or restore one from the source.
    CreateInstance,
    /// Run SQL through the gateway's listening address, and mark the database as ready.
    ProveReady,
}

impl ProvisionStep {
    /// All steps, in order.
    pub const ALL: [Self; 2] = [Self::CreateInstance, Self::ProveReady];

    /// The step's name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateInstance => databases::PROVISION.first_step,
            Self::ProveReady => "prove_ready",
        }
    }
}

/// The steps of `delete_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteStep {
    /// Create a final backup, if deleted databases are kept.
    KeepBackup,
    /// Close sessions, stop the server, remove the directory.
    DestroyInstance,
    /// Remove the rows, or mark them for removal when the database can no longer be restored.
    Forget,
}

impl DeleteStep {
    /// All steps, in order.
    pub const ALL: [Self; 3] = [Self::KeepBackup, Self::DestroyInstance, Self::Forget];

    /// The step's name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeepBackup => databases::DELETE.first_step,
            Self::DestroyInstance => "destroy_instance",
            Self::Forget => "forget",
        }
    }
}

/// Runs one step of `provision_database` or `copy_database`.
pub async fn provision(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    let plan = databases::plan(&store.session().await?, job.subject.into()).await?;
    let Some(plan) = plan.filter(|plan| plan.deleted_at.is_none()) else {
        let tx = store.begin().await?;
        job.give_way(&tx).await?;
        return Ok(tx.commit().await?);
    };
    let done = make(ctx, job, &plan, step).await;
    let reason = match &done {
        Err(StepError::Wait(reason)) => Some(reason.explanation()),
        Err(StepError::Retry(_) | StepError::Fail(_)) | Ok(()) => None,
    };
    if plan.status_reason.as_deref() != reason {
        databases::explain(&store.session().await?, plan.id, reason).await?;
    }
    done
}

async fn make(ctx: &JobCtx, job: &Job, plan: &Plan, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    match ProvisionStep::ALL.into_iter().find(|known| known.name() == step) {
        Some(ProvisionStep::CreateInstance) => {
            match restores::find(&store.session().await?, plan.id).await? {
                Some(restore) => restore::bring_back(ctx, job, &restore).await?,
                None => {
                    let major = major(ctx, plan).await?;
                    ctx.instances.ensure_created(instance(plan)?, major).await.map_err(from_engine)?;
                }
            }
            let tx = store.begin().await?;
            job.advance(&tx, ProvisionStep::ProveReady.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(ProvisionStep::ProveReady) => {
            prove(ctx, plan).await?;
            let tx = store.begin().await?;
            databases::mark_ready(&tx, plan.id).await?;
            job.succeed(&tx).await?;
            if restores::find(&tx, plan.id).await?.is_some() {
                restores::finish(&tx, plan.id).await?;
                if ctx.app.scheduled_backups {
                    databases::back_up_now(&tx, ctx.app.clock.now(), &ctx.app.keyring, plan.id).await?;
                }
            }
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", step)),
    }
}

/// Runs one step of `delete_database`.
pub async fn delete(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let step = DeleteStep::ALL.into_iter().find(|known| known.name() == step);
    let store = &ctx.app.store;
    let plan = databases::plan(&store.session().await?, job.subject.into()).await?;
    match step {
        Some(DeleteStep::KeepBackup) => {
            if let Some(plan) = &plan {
                // During a restore in place, the data before the restore is kept.
                let is_there = plan.status == Status::Ready || plan.status == Status::Recovering;
                if let Some(instance) = plan.instance.filter(|_| is_there && !ctx.app.undelete.is_zero()) {
                    // Retried for as long as the deleted database would be kept.
                    if plan.deleted_at.is_some_and(|since| since + ctx.app.undelete <= ctx.app.clock.now()) {
                        leave_end(ctx, plan, instance, "nothing could be archived during the retention period").await?;
                    } else if ctx.app.level() >= Level::Scarce {
                        free_room_first(ctx, plan, instance).await?;
                    } else {
                        match keep_backup(ctx, job, plan, instance).await {
                            Err(StepError::Fail(reason)) => leave_end(ctx, plan, instance, &reason.to_string()).await?,
                            kept => kept?,
                        }
                    }
                }
            }
            let tx = store.begin().await?;
            job.advance(&tx, DeleteStep::DestroyInstance.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(DeleteStep::DestroyInstance) => {
            if let Some(plan) = &plan {
                let restore = restores::find(&store.session().await?, plan.id).await?;
                let restored = restore.into_iter().flat_map(|restore| [Some(restore.instance), restore.replaced]);
                // A running verification notices the deletion at its next step, so there is no need to wait for it.
                let on_trial = backups::trial_instances(&store.session().await?, Some(plan.id)).await?;
                for instance in restored.flatten().chain(on_trial).chain(plan.instance) {
                    ctx.instances.ensure_destroyed(instance).await.map_err(from_engine)?;
                }
            }
            let tx = store.begin().await?;
            job.advance(&tx, DeleteStep::Forget.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(DeleteStep::Forget) => {
            let mut has_last_backup = true;
            if let Some(plan) = &plan {
                has_last_backup = !audit::has_consequence(&store.session().await?, SKIP_LAST_BACKUP, plan.id).await?;
                forget(ctx, plan).await?;
            }
            let tx = store.begin().await?;
            if has_last_backup {
                job.succeed(&tx).await?;
            } else {
                job.succeed_with(&tx, &Reason::new(NO_ROOM_FOR_BACKUP, NO_ROOM_FOR_BACKUP)).await?;
            }
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", job.step())),
    }
}

/// Archives the latest commits before the instance is removed by a delete or a restore in place. Fails until that is
/// done; the caller decides for how long. An instance that is lost, or that repeatedly does not start, does not block
/// either: its repository then ends with the WAL archived so far.
pub(super) async fn keep_backup(ctx: &JobCtx, job: &Job, plan: &Plan, instance: InstanceId) -> Result<(), StepError> {
    if !ctx.instances.list().await.map_err(from_engine)?.iter().any(|facts| facts.id == instance) {
        return leave_end(ctx, plan, instance, "its files were lost").await;
    }
    let error = match bring_to_vault(ctx, job, plan, instance).await {
        // Otherwise the repository would be closed with the stale state of failing archiving.
        Ok(()) => return look_at_archive(ctx, instance).await,
        Err(Unkept::Never(reason)) => return Err(StepError::Fail(reason)),
        Err(Unkept::Now(error)) => error,
    };
    if job.is_overdue()
        && let Err(fault @ (EngineError::Failed { .. } | EngineError::Missing(_))) =
            ctx.instances.attach_probe(instance).await
    {
        return leave_end(ctx, plan, instance, &format!("it does not start: {fault}")).await;
    }
    let (StepError::Retry(reason) | StepError::Wait(reason) | StepError::Fail(reason)) = &error;
    let reason = Reason::new(reason.to_string(), format!("{NOT_KEPT}: {}", reason.explanation()));
    Err(match error {
        StepError::Wait(_) => StepError::Wait(reason),
        // Data is only given up after many attempts.
        StepError::Retry(_) | StepError::Fail(_) => StepError::Retry(reason),
    })
}

/// Deletes without a final backup, because the disk is almost full and the delete frees space. WAL that is not archived
/// yet gets a short time to be archived.
async fn free_room_first(ctx: &JobCtx, plan: &Plan, instance: InstanceId) -> Result<(), StepError> {
    ctx.instances.ensure_ended(instance).await.map_err(from_engine)?;
    let archive = async {
        let session = ctx.app.store.session().await?;
        let known = backups::vault(&session, &ctx.app.keyring, instance).await?;
        let has_backup = backups::newest(&session, instance).await?.is_some();
        drop(session);
        let Some(known) = known.filter(|_| has_backup) else { return Ok(false) };
        let vault = engine_vault(&known);
        ctx.instances.flush_archive(&vault).await.map_err(from_backup)?;
        reaches_the_end(ctx, &vault).await.map_err(from_backup)
    };
    let archived: Result<bool, StepError> = tokio::time::timeout(LAST_ARCHIVING, archive).await.unwrap_or(Ok(false));
    match archived {
        Ok(true) => return look_at_archive(ctx, instance).await,
        Ok(false) => leave_end(ctx, plan, instance, NO_ROOM_FOR_BACKUP).await?,
        Err(error) => leave_end(ctx, plan, instance, &format!("{NO_ROOM_FOR_BACKUP} ({error})")).await?,
    }
    let tx = ctx.app.store.begin().await?;
    let consequence = Consequence { action: SKIP_LAST_BACKUP, database: plan.id, reason: NO_ROOM_FOR_BACKUP };
    audit::record_consequence(&tx, ctx.app.clock.now(), plan.project, consequence).await?;
    Ok(tx.commit().await?)
}

/// Why the latest WAL of an instance is not in its repository.
enum Unkept {
    /// A retry may succeed.
    Now(StepError),
    /// The instance's files cannot be backed up.
    Never(Reason),
}

impl<Cause: Into<StepError>> From<Cause> for Unkept {
    fn from(cause: Cause) -> Self {
        Self::Now(cause.into())
    }
}

async fn bring_to_vault(ctx: &JobCtx, job: &Job, plan: &Plan, instance: InstanceId) -> Result<(), Unkept> {
    let used = stop_and_measure(ctx, plan.id, instance).await?;
    let session = ctx.app.store.session().await?;
    let known = backups::vault(&session, &ctx.app.keyring, instance).await?;
    let has_backup = backups::newest(&session, instance).await?.is_some();
    drop(session);
    let is_empty = !used && plan.source == SourceType::Empty;
    if is_empty && !has_backup {
        return Ok(());
    }
    if let Some(known) = known.filter(|_| has_backup) {
        let vault = engine_vault(&known);
        ctx.instances.flush_archive(&vault).await.map_err(from_backup)?;
        if reaches_the_end(ctx, &vault).await.map_err(from_backup)? {
            return Ok(());
        }
    }
    match try_to_back_up_whole(ctx, job, plan.id, instance).await? {
        Err(error @ BackupError::Foreign(_)) => {
            let (StepError::Retry(reason) | StepError::Wait(reason) | StepError::Fail(reason)) = from_backup(error);
            Err(Unkept::Never(reason))
        }
        backed_up => Ok(backed_up.map_err(from_backup)?),
    }
}

/// Whether recovery from a backup in the repository reaches the latest archived WAL, without a gap after the backup.
/// Reads the repository, because the list in the store may name backups that are gone.
async fn reaches_the_end(ctx: &JobCtx, vault: &Vault) -> Result<bool, BackupError> {
    let gaps = ctx.instances.archive_status(vault.instance).await?.gaps;
    let lost = gaps.into_iter().map(|gap| gap.last_segment).max();
    let there = ctx.instances.backups(vault).await?;
    let is_after = |facts: &BackupFacts| lost.as_ref().is_none_or(|lost| facts.first_segment > *lost);
    Ok(there.iter().any(|facts| facts.restorable && is_after(facts)))
}

/// Records that the repository of an instance ends with the WAL archived so far, without the latest changes.
async fn leave_end(ctx: &JobCtx, plan: &Plan, instance: InstanceId, why: &str) -> Result<(), StepError> {
    tracing::warn!(
        database.id = %plan.id, instance.id = %instance,
        "removing the instance of {} without its latest changes: its backup repository ends with the WAL archived so far: {why}",
        plan.id
    );
    let tx = ctx.app.store.begin().await?;
    backups::record_lost_end(&tx, instance, ctx.app.clock.now()).await?;
    Ok(tx.commit().await?)
}

/// Closes the sessions, stops the instance, and returns whether the database was ever used: an unused database needs no
/// backup. The instance is measured when it stops, and the measurement is recorded a moment later; without a
/// measurement the database counts as used.
async fn stop_and_measure(ctx: &JobCtx, database: DatabaseId, instance: InstanceId) -> Result<bool, StepError> {
    let begun = ctx.app.clock.now();
    let facts = ctx.instances.list().await.map_err(from_engine)?;
    let runs = facts.iter().any(|facts| facts.id == instance && facts.running);
    ctx.instances.ensure_ended(instance).await.map_err(from_engine)?;
    for _ in 0..MEASUREMENT_LOOKS {
        let (used, measured_at) = usage::activity(&ctx.app.store.session().await?, database).await?;
        if used || !runs || measured_at.is_some_and(|at| at >= begun) {
            return Ok(used);
        }
        tokio::time::sleep(MEASUREMENT_LOOK).await;
    }
    Ok(true)
}

/// Closes the repositories of a deleted database, or removes them if it cannot be restored.
async fn forget(ctx: &JobCtx, plan: &Plan) -> Result<(), StepError> {
    let (store, now) = (&ctx.app.store, ctx.app.clock.now());
    let session = store.session().await?;
    let restorable = !ctx.app.undelete.is_zero() && backups::window(&session, plan.id, now).await?.end().is_some();
    let vaults = backups::vaults(&session, &ctx.app.keyring, plan.id).await?;
    drop(session);
    if !restorable {
        for vault in &vaults {
            ctx.instances.ensure_forgotten(&engine_vault(vault)).await.map_err(from_backup)?;
        }
    }
    let tx = store.begin().await?;
    databases::hold_to_forget(&tx, plan).await?;
    for vault in &vaults {
        if restorable {
            backups::close_vault(&tx, vault.instance, now).await?;
        } else {
            backups::forget_vault(&tx, vault.instance).await?;
        }
    }
    restores::finish(&tx, plan.id).await?;
    databases::forget(&tx, plan, restorable.then(|| now + ctx.app.undelete)).await?;
    Ok(tx.commit().await?)
}

/// The database's instance, which every database has that is not deleted.
fn instance(plan: &Plan) -> Result<InstanceId, StepError> {
    plan.instance.ok_or_else(|| StepError::Retry(format!("the database {} has no instance", plan.id).into()))
}

/// The PostgreSQL major version of the database, or the newest installed one.
async fn major(ctx: &JobCtx, plan: &Plan) -> Result<Major, StepError> {
    if let Some(major) = plan.major {
        return Ok(Major(major));
    }
    let newest = ctx.instances.majors().await.first().copied().ok_or_else(|| {
        let cause = "PostgreSQL 15 or newer is not installed on this machine; install its server package";
        StepError::Wait(Reason::new(cause, NO_PROGRAMS))
    })?;
    let session = ctx.app.store.session().await?;
    Ok(Major(databases::choose_major(&session, plan.id, newest.0).await?))
}

/// Connects through the gateway as a client would, and runs a query.
pub(super) async fn prove(ctx: &JobCtx, plan: &Plan) -> Result<(), StepError> {
    // Started here first, because the engine's error tells whether a retry is worthwhile.
    let _started = ctx.instances.attach_probe(instance(plan)?).await.map_err(from_engine)?;
    let probe = issue_probe(&ctx.app.store.session().await?, plan.id).await?;
    let gateway = reachable(ctx.gateway);
    let mut config = tokio_postgres::Config::new();
    config.user(&probe.user).password(probe.password.expose()).dbname(TENANT_DATABASE).application_name("howdah probe");
    // These override settings of the database or the role that the tenant has made.
    config.options("-c local_preload_libraries= -c statement_timeout=0 -c lock_timeout=0 -c role=none");
    let asked = async {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        let (client, connection) = config.connect_raw(Bounded::new(stream, MOST_OF_PROBE), NoTls).await?;
        let answer = async {
            let rows = client.simple_query("SELECT 1").await;
            drop(client);
            rows
        };
        let (rows, ended) = tokio::join!(answer, connection);
        ended.and(rows)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    match tokio::time::timeout(PROBE_LIMIT, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let cause = format!("the database does not respond through the gateway yet: {}", describe(&*error));
            Err(StepError::Retry(Reason::new(cause, NO_ANSWER)))
        }
        Err(_) => {
            let cause = "the database did not respond through the gateway in time";
            Err(StepError::Retry(Reason::new(cause, NO_ANSWER)))
        }
    }
}

/// Engine errors are retried. Missing programs and missing space have no deadline, since the operator has to act.
pub(super) fn from_engine(error: EngineError) -> StepError {
    let reason = |explanation| Reason::new(error.to_string(), explanation);
    match error {
        EngineError::MajorMissing(_) => StepError::Wait(reason(NO_PROGRAMS)),
        EngineError::Full { .. } => StepError::Wait(reason(NO_SLOT)),
        EngineError::NoSpace { .. } | EngineError::HeldBack { .. } => StepError::Wait(reason(NO_ROOM)),
        EngineError::Missing(_) | EngineError::Failed { .. } => StepError::Retry(reason(NOT_STARTED)),
    }
}

/// The address of the gateway for a probe: loopback if the gateway listens on every address.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
