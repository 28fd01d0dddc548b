//! Rotation of the token signing keys, and reloading of keys that other processes created.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::context::JobCtx;
use auth::signing;
use base::error::{Result, describe};
use base::store::{Announcement, Channel};

/// How often to check the keys without a notification.
const ROUND: Duration = Duration::from_secs(600);

/// Creates a new key when the newest is older than `after`, if given, and loads the keys of other processes.
pub async fn keep(ctx: Arc<JobCtx>, after: Option<SignedDuration>) {
    let tasks = ctx.app.tasks.clone();
    let mut announcements = ctx.app.store.announcements();
    while !tasks.is_stopping() {
        if let Err(error) = look(&ctx, after).await {
            tracing::warn!(error = %describe(&error), "could not rotate or load the token signing keys; retrying");
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
            tracing::info!("created a new token signing key, which takes effect in an hour");
        }
        tx.commit().await?;
    }
    app.signer.reload(&app.store.session().await?, &app.keyring).await
}
