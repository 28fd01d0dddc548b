//! Delivery of mail to the mail server.

use super::unknown;
use crate::context::JobCtx;
use base::error::Result;
use base::id::MailId;
use domain::mail;
use queue::{Job, Reason, StepError};
use smtp::{Mail, MailError};

const REFUSED: &str = "the mail server refused the address";
const WAITS: &str = "the mail server does not accept the mail; see the server's log";
const NO_SERVER: &str = "no mail server is configured";

/// Runs one step of `send_mail`. Retried until the mail expires, since the operator may fix the fault by then.
pub async fn send(ctx: &JobCtx, job: &Job, step: &str) -> Result<(), StepError> {
    if step != mail::SEND.first_step {
        return Err(unknown("step", step));
    }
    let app = &ctx.app;
    let id = MailId::from(job.subject);
    let found = mail::find(&app.store.session().await?, &app.keyring, id).await?;
    let Some(outgoing) = found else {
        // The subject of the mail is gone, such as a revoked invitation.
        let tx = app.store.begin().await?;
        job.succeed(&tx).await?;
        return Ok(tx.commit().await?);
    };
    let sent = match &ctx.mailer {
        _ if app.clock.now() >= outgoing.expires_at => Err(StepError::Fail(Reason::new(
            format!("{id} ({}) was not delivered in time", outgoing.topic),
            "the mail could not be sent in time",
        ))),
        None => Err(StepError::Wait(Reason::new(format!("{id} ({}): {NO_SERVER}", outgoing.topic), NO_SERVER))),
        Some(mailer) => {
            let mail = Mail {
                id,
                to: &outgoing.letter.to,
                subject: &outgoing.letter.subject,
                text: &outgoing.letter.text,
                written_at: outgoing.created_at,
            };
            mailer.send(&mail).await.map_err(|error| from_mail(id, &outgoing.topic, &error))
        }
    };
    match sent {
        // This was the last attempt, so its reason is the final one.
        Err(StepError::Wait(reason)) if app.clock.now() >= outgoing.expires_at => return Err(StepError::Fail(reason)),
        sent => sent?,
    }
    let tx = app.store.begin().await?;
    mail::mark_delivered(&tx, app.clock.now(), id).await?;
    job.succeed(&tx).await?;
    tx.commit().await?;
    tracing::info!(mail.id = %id, mail.topic = outgoing.topic, "sent {id} to the mail server");
    Ok(())
}

fn from_mail(id: MailId, topic: &str, error: &MailError) -> StepError {
    let cause = format!("{id} ({topic}): {error}");
    match error {
        MailError::Refused { .. } => StepError::Fail(Reason::new(cause, REFUSED)),
        MailError::NotLetIn { .. } | MailError::Unavailable { .. } => StepError::Wait(Reason::new(cause, WAITS)),
    }
}

/// Sends mail to administrators about databases whose archiving is failing or has recovered.
pub async fn tell_of_archives(ctx: &JobCtx) -> Result<()> {
    let Some(outbox) = ctx.app.outbox() else { return Ok(()) };
    let tx = ctx.app.store.begin().await?;
    outbox.tell_of_archives(&tx, ctx.app.clock.now()).await?;
    tx.commit().await
}
