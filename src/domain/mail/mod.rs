//! Mail to people: what is written to whom. A mail is written in the transaction of what it is about,
//! and a workflow hands it over when that has committed; nothing waits for it.

mod letters;
mod store;

use std::collections::HashMap;
use std::net::IpAddr;

use askama::Template;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::letters::plain;
use crate::auth::users::User;
use crate::base::error::{Error, Result};
use crate::base::id::{BackupId, DatabaseId, InvitationId, MailId, WorkflowId, WorkspaceId};
use crate::base::keyring::Keyring;
use crate::base::secret::Secret;
use crate::base::store::{Session, Tx};
use crate::domain::members::Invitation;
use crate::queue;

/// Hands a mail over to the mail server.
pub const SEND: queue::Kind = queue::Kind { name: "send_mail", first_step: "send" };

/// A mail that cannot be handed over for so long is given up.
const WORTH_SENDING: SignedDuration = SignedDuration::from_hours(24);
/// A workspace's administrators are told of archives that are stuck so often at most.
const TELL_EVERY: SignedDuration = SignedDuration::from_hours(1);
/// So long an archive is stuck before somebody is told: what passes by itself is no news.
const STUCK_FOR: SignedDuration = SignedDuration::from_mins(10);

/// A mail that is still to be handed over.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What it is about, in a word.
    pub topic: String,
    /// Who gets what.
    pub letter: Letter,
    /// When it was written.
    pub created_at: Timestamp,
    /// It is not worth handing over any more then.
    pub expires_at: Timestamp,
}

/// What is in a mail. There may be a link in it that lets whoever has it in.
#[derive(Clone, Deserialize, Serialize)]
pub struct Letter {
    /// The address.
    pub to: String,
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[letter]")
    }
}

/// How the mail of an invitation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is on its way to the mail server, which has refused or missed it for this reason, if at all.
    OnItsWay(Option<String>),
    /// The mail server has taken it.
    Delivered,
    /// It was given up, for this reason.
    GivenUp(String),
}

/// What was changed about an account that its owner should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// It has another password.
    Password,
    /// The password alone signs in.
    AuthenticatorRemoved,
}

/// Where mail is written, of an installation that has a mail server.
#[derive(Clone, Copy)]
pub struct Outbox<'a> {
    keyring: &'a Keyring,
    /// The console's address as people know it: all links begin with it, whatever a request says.
    root: &'a str,
}

impl<'a> Outbox<'a> {
    /// An outbox whose links begin with `root`.
    pub fn new(keyring: &'a Keyring, root: &'a str) -> Self {
        Self { keyring, root }
    }

    /// The link of an invitation, to whom it is for.
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

    /// A link that sets a user's password and is good until `until`, to them. `asked`: they asked for it
    /// themselves.
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

    /// Tells the owner of an account that it was changed, and from where.
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

    /// Tells somebody that they have become an administrator.
    pub async fn tell_administrator(&self, tx: &Tx, now: Timestamp, user: &User, by: &User) -> Result<()> {
        let letter =
            letters::Administrator { email: &user.email, by: plain(by.name()), by_email: &by.email, root: self.root };
        self.post(tx, now, "administrator", &user.email, &letter, now, None).await
    }

    /// Tells the administrators and owners of a database's workspace that a backup has failed its trial. They
    /// hear once of a backup that does so again and again.
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

    /// Tells the administrators and owners of each workspace which of its databases have not been archived for
    /// a while, and which are again; once of each.
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

    /// Puts a mail with this text, whose first line is the subject, into the queue. What it tells of is over
    /// at `over`, if that is to come.
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

/// A mail that is to be handed over; `None` when it was, when it was given up, or when what it is about is
/// gone.
pub async fn find(session: &Session, keyring: &Keyring, id: MailId) -> Result<Option<Outgoing>> {
    let Some(found) = store::find(session, id).await? else { return Ok(None) };
    let plain = keyring.open(&purpose(id), &found.sealed)?;
    let letter = serde_json::from_slice(&plain).map_err(Error::internal)?;
    let store::Found { topic, created_at, expires_at, .. } = found;
    Ok(Some(Outgoing { topic, letter, created_at, expires_at }))
}

/// The mail server has taken it; its text is forgotten.
pub async fn mark_delivered(tx: &Tx, now: Timestamp, id: MailId) -> Result<()> {
    store::mark_delivered(tx, id, now).await
}

/// It is given up; its text is forgotten.
pub async fn mark_failed(tx: &Tx, id: MailId, reason: &str) -> Result<()> {
    store::mark_failed(tx, id, reason).await
}

/// How the mails of a workspace's invitations stand, of those that were mailed.
pub async fn deliveries(session: &Session, workspace: WorkspaceId) -> Result<HashMap<InvitationId, Delivery>> {
    store::deliveries(session, workspace).await
}

/// Forgets mails that are long over.
pub async fn forget_old(session: &Session, now: Timestamp) -> Result<()> {
    store::forget_before(session, now - SignedDuration::from_hours(30 * 24)).await
}
