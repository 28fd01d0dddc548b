//! Reconcilers: they take no input, compare what should be with what is, and mend the difference.

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

/// How often instances are looked at for idleness.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// How often the stock is looked at when nothing nudges it.
const STOCK_ROUND: Duration = Duration::from_secs(30);
/// How long the stock waits after it could not be filled.
const STOCK_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a change of any database there is time to fill the stock.
const LULL: Duration = Duration::from_millis(500);
/// How often old rows are forgotten and instances compared with rows.
const HOUSEKEEPING_ROUND: Duration = Duration::from_secs(3600);
/// How long entries of the audit log are kept: a year.
const AUDIT_RETENTION: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Keeps the stock full: after every change of a database, and on a timer. Preparing an instance
/// is work for processor and disk that creates in a burst would wait for, so while the stock is
/// more than half full it waits for a lull.
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
                tracing::warn!(error = %describe(&error), "cannot fill the stock of prepared instances; trying again");
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

/// Stops what is idle.
pub async fn idle_stop(ctx: Arc<JobCtx>) {
    let tasks = ctx.app.tasks.clone();
    while !tasks.is_stopping() {
        if let Err(error) = ctx.instances.stop_idle().await {
            tracing::warn!(error = %describe(&error), "cannot stop an idle instance; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(IDLE_ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

/// Forgets old workflows, probes and usage, and says which instances no database owns.
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
            tracing::warn!(error = %describe(&error), "housekeeping did not finish; trying again later");
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING_ROUND) => {}
            () = tasks.stopping() => {}
        }
    }
}

/// An instance without a row cannot come from a create or a delete, whose rows come before the
/// instance and go after it. It means that metadata was lost, so it is kept and reported.
async fn report_orphans(ctx: &JobCtx) -> Result<()> {
    for instance in orphans(ctx).await? {
        tracing::error!(
            instance.id = %instance,
            "instance {instance} belongs to no database of the metadata store; it is kept: restore the metadata, or remove its directory"
        );
    }
    Ok(())
}

/// The instances that neither a database stands for nor a restore or a trial is at work on.
pub async fn orphans(ctx: &JobCtx) -> Result<Vec<InstanceId>> {
    let existing = ctx.instances.list().await.map_err(Error::internal)?;
    let session = ctx.app.store.session().await?;
    let mut owned = databases::instances(&session).await?;
    owned.extend(restores::instances(&session).await?);
    owned.extend(backups::trial_instances(&session, None).await?);
    Ok(existing.into_iter().map(|instance| instance.id).filter(|id| !owned.contains(id)).collect())
}
