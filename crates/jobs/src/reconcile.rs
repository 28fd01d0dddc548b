//! Reconcilers: they take no input, compare the wanted state with the actual one, and correct the difference.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::sync::broadcast;

use crate::context::JobCtx;
use auth::oauth::{clients, grants};
use auth::{attempts, links, sessions};
use base::error::{Error, Result, describe};
use base::id::InstanceId;
use base::store::{Announcement, Channel};
use credential::forget_expired_probes;
use domain::{audit, backups, databases, idempotency, mail, restores, usage};
use queue::Runner;

/// How often to check for idle instances.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// How often to check the pool of prepared instances without a notification.
const STOCK_ROUND: Duration = Duration::from_secs(30);
/// How long to wait after the pool could not be filled.
const STOCK_PAUSE: Duration = Duration::from_secs(5);
/// The pool is filled after this time without a change of any database.
const LULL: Duration = Duration::from_millis(500);
/// How often to remove old rows and to compare instances with rows.
const HOUSEKEEPING_ROUND: Duration = Duration::from_secs(3600);
/// How long entries of the audit log are kept: a year.
const AUDIT_RETENTION: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Keeps the pool of prepared instances full: after every change of a database, and on a timer. Preparing an instance
/// takes CPU and disk that a burst of creates needs, so a pool that is more than half full is only filled after a
/// lull.
pub async fn stock(ctx: Arc<JobCtx>) {
    let tasks = ctx.app.tasks.clone();
    let mut announcements = ctx.app.store.announcements();
    while !tasks.is_stopping() {
        let (pause, spare) = match ctx.instances.replenish_stock().await {
            Ok(level) => {
                let pause = if level.ready < level.target { Duration::ZERO } else { STOCK_ROUND };
                (pause, level.ready.saturating_sub(level.target / 2))
            }
            Err(error) => {
                tracing::warn!(error = %describe(&error), "could not fill the pool of prepared instances; retrying");
                (STOCK_PAUSE, 0)
            }
        };
        let due = async {
            let _ = tokio::time::timeout(pause, database_changed(&mut announcements)).await;
            for _ in 0..spare {
                if tokio::time::timeout(LULL, database_changed(&mut announcements)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = due => {}
            () = tasks.stopping() => {}
        }
    }
}

/// Returns when a database has changed, or may have while the announcements were missed.
async fn database_changed(announcements: &mut broadcast::Receiver<Announcement>) {
    loop {
        match announcements.recv().await {
            Ok(Announcement::Of(Channel::DatabaseChanged, _) | Announcement::Missed) | Err(_) => return,
            Ok(Announcement::Of(..)) => {}
        }
    }
}

/// Stops idle instances.
pub async fn idle_stop(ctx: Arc<JobCtx>) {
    let tasks = ctx.app.tasks.clone();
    while !tasks.is_stopping() {
        if let Err(error) = ctx.instances.stop_idle().await {
            tracing::warn!(error = %describe(&error), "could not stop an idle instance; retrying");
        }
        tokio::select! {
            () = tokio::time::sleep(IDLE_ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

/// Removes old workflows, probes and usage, and reports instances without a database.
pub async fn housekeeping(ctx: Arc<JobCtx>, runner: Runner) {
    let tasks = ctx.app.tasks.clone();
    while !tasks.is_stopping() {
        let round = async {
            runner.forget().await?;
            let session = ctx.app.store.session().await?;
            forget_expired_probes(&session).await?;
            idempotency::forget_expired(&session).await?;
            audit::forget_before(&session, ctx.app.clock.now() - AUDIT_RETENTION).await?;
            usage::forget_old(&session, ctx.app.clock.now()).await?;
            attempts::forget_expired(&session).await?;
            sessions::forget_ended(&session, ctx.app.clock.now()).await?;
            mail::forget_old(&session, ctx.app.clock.now()).await?;
            links::forget_expired(&session, ctx.app.clock.now()).await?;
            grants::forget_expired(&session, ctx.app.clock.now()).await?;
            clients::forget_unused(&session, ctx.app.clock.now()).await?;
            drop(session);
            report_orphans(&ctx).await
        };
        if let Err(error) = round.await {
            tracing::warn!(error = %describe(&error), "housekeeping failed; retrying later");
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING_ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

/// Creates write the row before the instance exists, and deletes remove it after the instance is gone. So an instance
/// without a row means that metadata was lost, and it is kept and reported.
async fn report_orphans(ctx: &JobCtx) -> Result<()> {
    for instance in orphans(ctx).await? {
        tracing::error!(
            instance.id = %instance,
            "instance {instance} belongs to no database in the metadata store and is kept: restore the metadata, or remove its directory"
        );
    }
    Ok(())
}

/// The instances that belong to no database, restore or verification.
pub async fn orphans(ctx: &JobCtx) -> Result<Vec<InstanceId>> {
    let existing = ctx.instances.list().await.map_err(Error::internal)?;
    let session = ctx.app.store.session().await?;
    let mut owned = databases::instances(&session).await?;
    owned.extend(restores::instances(&session).await?);
    owned.extend(backups::trial_instances(&session, None).await?);
    Ok(existing.into_iter().map(|instance| instance.id).filter(|id| !owned.contains(id)).collect())
}
