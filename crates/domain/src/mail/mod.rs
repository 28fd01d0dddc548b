//! Mails to members and accounts. A mail is written in the transaction of the change that it is about, and a
//! workflow sends it after the commit. Requests do not wait for it.

mod letters;
mod store;

use std::collections::HashMap;
use std::net::IpAddr;

use askama::Template;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::letters::plain;
use crate::members::Invitation;
use auth::users::User;
use base::error::{Error, Result};
use base::id::{BackupId, DatabaseId, InvitationId, MailId, WorkflowId, WorkspaceId};
use base::keyring::Keyring;
use base::secret::Secret;
use base::store::{Session, Tx};

/// The workflow that sends a mail.
pub const SEND: queue::Kind = queue::Kind { name: "send_mail", first_step: "send" };

/// Sending a mail is given up after this time.
const WORTH_SENDING: SignedDuration = SignedDuration::from_hours(24);
/// The shortest time between two mails to a workspace about failing archiving.
const TELL_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// How long archiving must fail before a mail is sent. Shorter failures usually pass by themselves.
const STUCK_FOR: SignedDuration = SignedDuration::from_mins(10);

/// A mail that is not sent yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic, one word for the log.
    pub topic: String,
    pub letter: Letter,
    pub created_at: Timestamp,
    /// When sending is given up.
    pub expires_at: Timestamp,
}

/// The content of a mail. It may contain a secret link, so `Debug` shows nothing.
#[derive(Clone, Deserialize, Serialize)]
pub struct Letter {
    /// The recipient's address.
    pub to: String,
    pub subject: String,
    pub text: String,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[letter]")
    }
}

/// The delivery state of an invitation's mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Not sent yet, with the reason if an attempt has failed.
    OnItsWay(Option<String>),
    /// Accepted by the mail server.
    Delivered,
    /// Given up, for this reason.
    GivenUp(String),
}

/// A change of an account that its owner is notified about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// The password was changed.
    Password,
    /// Two-factor authentication was turned off.
    AuthenticatorRemoved,
}

/// Writes mails, if a mail server is configured.
#[derive(Clone, Copy)]
pub struct Outbox<'a> {
    keyring: &'a Keyring,
    /// The public address of the console. All links begin with it, regardless of the request's `Host`.
    root: &'a str,
}

impl<'a> Outbox<'a> {
    pub fn new(keyring: &'a Keyring, root: &'a str) -> Self {
        Self { keyring, root }
    }

    /// Mails an invitation.
    pub async fn send_invitation(
        &self,
        tx: &Tx,
        now: Timestamp,
        invitation: &Invitation,
        inviter: &User,
        token: &Secret,
    ) -> Result<()> {
        let letter = letters::Invitation {
            inviter: plain(inviter.name()),
            inviter_email: &inviter.email,
            workspace: plain(&invitation.workspace.name),
            root: self.root,
            role: invitation.role.as_str(),
            link: &format!("{}/console/invitations/{}", self.root, token.expose()),
            until: letters::moment(invitation.expires_at),
        };
        self.post(tx, now, "invitation", &invitation.email, &letter, invitation.expires_at, Some(invitation.id)).await
    }

    /// Mails a password reset link that expires at `until`. `asked`: the user requested it, not an administrator.
    pub async fn send_reset(
        &self,
        tx: &Tx,
        now: Timestamp,
        user: &User,
        token: &Secret,
        until: Timestamp,
        asked: bool,
    ) -> Result<()> {
        let letter = letters::Reset {
            email: &user.email,
            root: self.root,
            link: &format!("{}/console/reset/{}", self.root, token.expose()),
            until: letters::moment(until),
            asked,
        };
        self.post(tx, now, "reset", &user.email, &letter, until, None).await
    }

    /// Notifies the owner of an account about a change, with the address that it came from.
    pub async fn tell_of_change(
        &self,
        tx: &Tx,
        now: Timestamp,
        user: &User,
        change: AccountChange,
        from: Option<IpAddr>,
    ) -> Result<()> {
        let (what, sentence) = match change {
            AccountChange::Password => {
                ("The password of your Howdah account was changed", "The password of your account was changed.")
            }
            AccountChange::AuthenticatorRemoved => (
                "Two-factor authentication of your Howdah account was turned off",
                "Two-factor authentication of your account was turned off. Your password alone signs you in.",
            ),
        };
        let letter = letters::Changed {
            what,
            sentence,
            email: &user.email,
            root: self.root,
            when: letters::moment(now),
            origin: from.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string()),
        };
        self.post(tx, now, "account", &user.email, &letter, now, None).await
    }

    /// Notifies a new administrator.
    pub async fn tell_administrator(&self, tx: &Tx, now: Timestamp, user: &User, by: &User) -> Result<()> {
        let letter =
            letters::Administrator { email: &user.email, by: plain(by.name()), by_email: &by.email, root: self.root };
        self.post(tx, now, "administrator", &user.email, &letter, now, None).await
    }

    /// Notifies the admins and owners of the workspace that a backup failed verification, once per backup.
    pub async fn tell_of_failed_trial(
        &self,
        tx: &Tx,
        now: Timestamp,
        database: DatabaseId,
        backup: BackupId,
        reason: &str,
    ) -> Result<()> {
        let Some(place) = store::place_of_news(tx, database, backup).await? else { return Ok(()) };
        let letter = letters::TrialFailed {
            database: plain(&place.database),
            project: plain(&place.project),
            workspace: plain(&place.workspace),
            reason,
            backup: backup.to_string(),
            root: self.root,
            workspace_id: place.workspace_id.bare(),
            database_id: database.bare(),
        };
        for address in store::administrators(tx, place.workspace_id).await? {
            self.post(tx, now, "trial", &address, &letter, now, None).await?;
        }
        Ok(())
    }

    /// Notifies the admins and owners of each workspace about databases whose archiving fails or works again, once
    /// per change.
    pub async fn tell_of_archives(&self, tx: &Tx, now: Timestamp) -> Result<()> {
        let mut news: HashMap<WorkspaceId, letters::Archiving<'_>> = HashMap::new();
        let (stuck_since, told_before) = (now - STUCK_FOR, now - TELL_EVERY);
        for found in store::take_archive_news(tx, now, stuck_since, told_before).await? {
            let letter = news.entry(found.workspace_id).or_insert_with(|| letters::Archiving {
                workspace: plain(&found.workspace),
                root: self.root,
                workspace_id: found.workspace_id.bare(),
                stuck: Vec::new(),
                moving: Vec::new(),
            });
            let told = letters::Archive {
                id: found.database_id.bare(),
                database: plain(&found.database),
                project: plain(&found.project),
                since: found.failing_since.map(letters::moment).unwrap_or_default(),
                reason: found.reason.unwrap_or_default(),
            };
            if found.failing_since.is_some() { letter.stuck.push(told) } else { letter.moving.push(told) }
        }
        for (workspace, letter) in news {
            for address in store::administrators(tx, workspace).await? {
                self.post(tx, now, "archiving", &address, &letter, now, None).await?;
            }
        }
        Ok(())
    }

    /// Queues a mail. The first line of the text is the subject. The mail expires at `over`, if that is in the future.
    #[expect(clippy::too_many_arguments, reason = "one for each column")]
    async fn post(
        &self,
        tx: &Tx,
        now: Timestamp,
        topic: &str,
        to: &str,
        text: &impl Template,
        over: Timestamp,
        invitation: Option<InvitationId>,
    ) -> Result<()> {
        let id = MailId::generate(now);
        let rendered = text.render().map_err(Error::internal)?;
        let (subject, text) = rendered.split_once('\n').unwrap_or((&rendered, ""));
        let letter = Letter { to: to.to_owned(), subject: subject.to_owned(), text: format!("{}\n", text.trim()) };
        let sealed = self.keyring.seal(&purpose(id), &serde_json::to_vec(&letter).map_err(Error::internal)?)?;
        let worth_until = now + WORTH_SENDING;
        let expires_at = if over > now { over.min(worth_until) } else { worth_until };
        store::insert(tx, id, topic, &sealed, now, expires_at, invitation).await?;
        queue::start(tx, WorkflowId::generate(now), SEND, id.uuid()).await
    }
}

fn purpose(id: MailId) -> String {
    format!("mail {id}")
}

/// A mail that is not sent yet. `None` if it was sent or given up, or if its subject was deleted.
pub async fn find(session: &Session, keyring: &Keyring, id: MailId) -> Result<Option<Outgoing>> {
    let Some(found) = store::find(session, id).await? else { return Ok(None) };
    let plain = keyring.open(&purpose(id), &found.sealed)?;
    let letter = serde_json::from_slice(&plain).map_err(Error::internal)?;
    let store::Found { topic, created_at, expires_at, .. } = found;
    Ok(Some(Outgoing { topic, letter, created_at, expires_at }))
}

/// Marks a mail as sent and removes its text.
pub async fn mark_delivered(tx: &Tx, now: Timestamp, id: MailId) -> Result<()> {
    store::mark_delivered(tx, id, now).await
}

/// Marks a mail as given up and removes its text.
pub async fn mark_failed(tx: &Tx, id: MailId, reason: &str) -> Result<()> {
    store::mark_failed(tx, id, reason).await
}

/// The delivery states of a workspace's mailed invitations.
pub async fn deliveries(session: &Session, workspace: WorkspaceId) -> Result<HashMap<InvitationId, Delivery>> {
    store::deliveries(session, workspace).await
}

/// Removes the records of old mails.
pub async fn forget_old(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_before(session, now - SignedDuration::from_hours(30 * 24)).await
}
