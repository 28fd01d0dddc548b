//! Making a database and taking it away.

use std::time::Duration;

use tokio_postgres::NoTls;

use super::unknown;
use crate::app::JobCtx;
use crate::base::error::{Result, describe};
use crate::domain::connections::credential::issue_probe;
use crate::domain::databases::{self, Plan};
use crate::engine::{EngineError, Major, TENANT_DATABASE};
use crate::queue::{Job, Reason, StepError};

/// One probe's limit: a start after a crash may take this long.
const PROBE_LIMIT: Duration = Duration::from_secs(45);

/// What the owner of a database reads; the operator reads the engine's own words, which may name
/// what is no business of a tenant's.
const NO_PROGRAMS: &str =
    "its version of PostgreSQL is not installed on the server; it is made as soon as the operator has installed it";
const NO_SLOT: &str = "the server runs as many databases as it may; it is made as soon as one of them is idle";
const NO_ROOM: &str = "the server's disk is full; it is made as soon as there is room";
const NOT_STARTED: &str = "its PostgreSQL server could not be made or started; the server's log says why";
const NO_ANSWER: &str = "it does not answer through the gateway; the server's log says more";

/// The steps of `provision_database`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionStep {
    /// Take an instance out of the stock.
    CreateInstance,
    /// Run SQL through the gateway's listening address, and call the database ready.
    ProveReady,
}

impl ProvisionStep {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::CreateInstance, Self::ProveReady];

    /// Its name in the queue.
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
    /// End sessions, stop the server, remove the directory.
    DestroyInstance,
    /// Remove the rows.
    Forget,
}

impl DeleteStep {
    /// All of them, in order.
    pub const ALL: [Self; 2] = [Self::DestroyInstance, Self::Forget];

    /// Its name in the queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::DestroyInstance => databases::DELETE.first_step,
            Self::Forget => "forget",
        }
    }
}

/// Runs one step of `provision_database`.
pub async fn provision(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    let store = &ctx.app.store;
    let plan = databases::plan(&store.session().await?, job.subject.into()).await?;
    let Some(plan) = plan.filter(|plan| !plan.deleted) else {
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
            let major = major(ctx, plan).await?;
            ctx.instances.ensure_created(plan.instance, major).await.map_err(from_engine)?;
            let tx = store.begin().await?;
            job.advance(&tx, ProvisionStep::ProveReady.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(ProvisionStep::ProveReady) => {
            prove(ctx, plan).await?;
            let tx = store.begin().await?;
            databases::mark_ready(&tx, plan.id).await?;
            job.succeed(&tx).await?;
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
        Some(DeleteStep::DestroyInstance) => {
            if let Some(plan) = plan {
                ctx.instances.ensure_destroyed(plan.instance).await.map_err(from_engine)?;
            }
            let tx = store.begin().await?;
            job.advance(&tx, DeleteStep::Forget.name()).await?;
            Ok(tx.commit().await?)
        }
        Some(DeleteStep::Forget) => {
            let tx = store.begin().await?;
            if let Some(plan) = plan {
                databases::forget(&tx, &plan).await?;
            }
            job.succeed(&tx).await?;
            Ok(tx.commit().await?)
        }
        None => Err(unknown("step", job.step())),
    }
}

/// The major that was chosen for the database, or the newest one now.
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

/// Logs in through the gateway as a customer would, and asks something.
async fn prove(ctx: &JobCtx, plan: &Plan) -> Result<(), StepError> {
    // Started here first: the engine's own words say whether it is worth waiting.
    let _started = ctx.instances.attach_probe(plan.instance).await.map_err(from_engine)?;
    let probe = issue_probe(&ctx.app.store.session().await?, plan.id).await?;
    let gateway = reachable(ctx.gateway);
    let mut config = tokio_postgres::Config::new();
    config
        .host(gateway.ip().to_string())
        .port(gateway.port())
        .user(&probe.user)
        .password(probe.password.expose())
        .dbname(TENANT_DATABASE)
        .application_name("howdah probe");
    let asked = async {
        let (client, connection) = config.connect(NoTls).await?;
        let answer = async {
            let rows = client.simple_query("SELECT 1").await;
            drop(client);
            rows
        };
        let (rows, ended) = tokio::join!(answer, connection);
        rows?;
        ended
    };
    match tokio::time::timeout(PROBE_LIMIT, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let cause = format!("the database does not answer through the gateway yet: {}", describe(&error));
            Err(StepError::Retry(Reason::new(cause, NO_ANSWER)))
        }
        Err(_) => {
            let cause = "the database did not answer through the gateway in time";
            Err(StepError::Retry(Reason::new(cause, NO_ANSWER)))
        }
    }
}

/// Every fault of an engine may pass. What an operator installs, or room, may take long to come.
fn from_engine(error: EngineError) -> StepError {
    let reason = |explanation| Reason::new(error.to_string(), explanation);
    match error {
        EngineError::MajorMissing(_) => StepError::Wait(reason(NO_PROGRAMS)),
        EngineError::Full { .. } => StepError::Wait(reason(NO_SLOT)),
        EngineError::NoSpace { .. } => StepError::Wait(reason(NO_ROOM)),
        EngineError::Missing(_) | EngineError::Failed { .. } => StepError::Retry(reason(NOT_STARTED)),
    }
}

/// Where a probe goes when the gateway listens on every address.
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
