//! Keeps the keys that sign tokens young, and what this process knows of them up to date.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::context::JobCtx;
use auth::signing;
use base::error::{Result, describe};
use base::store::{Announcement, Channel};

/// How often the keys are looked at when nothing nudges it.
const ROUND: Duration = Duration::from_secs(600);

/// Makes a new key when the newest is older than `after`, if that is given, and takes those that other
/// processes make.
pub async fn keep(ctx: Arc<JobCtx>, after: Option<SignedDuration>) {
    let tasks = ctx.app.tasks.clone();
    let mut announcements = ctx.app.store.announcements();
    while !tasks.is_stopping() {
        if let Err(error) = look(&ctx, after).await {
            tracing::warn!(error = %describe(&error), "cannot look after the keys that sign tokens; trying again later");
        }
        let made = async {
            loop {
                match announcements.recv().await {
                    Ok(Announcement::Of(Channel::KeyMade, _) | Announcement::Missed) | Err(_) => return,
                    Ok(Announcement::Of(..)) => {}
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(ROUND, made) => {}
            () = tasks.stopping() => {}
        }
    }
}

async fn look(ctx: &JobCtx, after: Option<SignedDuration>) -> Result<()> {
    let app = &ctx.app;
    if let Some(after) = after {
        let tx = app.store.begin().await?;
        if signing::rotate(&tx, &app.keyring, app.clock.now(), after).await? {
            tracing::info!("made a new key, which signs tokens an hour from now on");
        }
        tx.commit().await?;
    }
    app.signer.reload(&app.store.session().await?, &app.keyring).await
}
