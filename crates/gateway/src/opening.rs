//! From the password to an open session on the instance: waiting, waking, opening.

use base::name::TENANT_DATABASE;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::admission::{Entry, Place};
use super::backend::{self, Backend, Opened};
use super::refusal::{self, Refusal};
use super::scram::Subject;
use super::startup::{Access, Startup};
use super::{Shared, login};
use base::error::{Error, describe};
use base::store::{Announcement, Channel};
use credential::{Credential, Readiness};
use engine::{Attachment, EngineError, PLATFORM_DATABASE, TENANT_ROLE};

/// How long an instance that starts and stops under our hands is tried again.
const OPEN_WAIT: Duration = Duration::from_secs(10);
/// The pause before it is tried again.
const OPEN_PAUSE: Duration = Duration::from_millis(50);
/// The pause before a sleeping database for which there is no room is tried again.
const ROOM_PAUSE: Duration = Duration::from_millis(250);
/// How often a database that is being provisioned is looked at when nothing is announced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a session did not come about.
pub(super) enum Stop {
    /// For a reason that the client is told.
    Refused(Refusal),
    /// In the instance's own words.
    RefusedByInstance(Vec<u8>),
    /// A newer connection got its place.
    Evicted,
    /// The client went away or was too slow; nobody is told.
    Closed,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Somebody who knew the password.
pub(super) struct Login {
    credential: Credential,
    /// [`super::admission::Admission::generation`] of before the lookup.
    generation: u64,
}

/// An open session, and what it holds on to.
pub(super) struct Open {
    pub(super) credential: Credential,
    pub(super) attachment: Attachment,
    pub(super) backend: Backend,
    /// Given back when the session is over.
    pub(super) held: (Option<Place>, Option<Entry>),
}

/// Checks the password. Nothing is woken here.
pub(super) async fn log_in<S: AsyncBufRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut S,
    startup: &Startup,
    end_point: Option<&[u8]>,
) -> Result<Login, Stop> {
    let user = startup.user()?;
    if startup.wants_replication() {
        return Err(Refusal::Replication.into());
    }
    if let Some(message) = startup.negotiation() {
        stream.write_all(&message).await?;
    }
    let generation = shared.admission.generation();
    let found = tokio::select! {
        found = shared.lookup.find(&user) => found.map_err(unanswered)?,
        () = closed(stream) => return Err(Stop::Closed),
    };
    let verifier = found.as_ref().map(|credential| &credential.verifier);
    let subject = Subject::new(verifier, &user, &shared.mock_secret);
    let answer = login::authenticate(stream, subject, &user, end_point).await??;
    let Some(credential) = found else { return Err(Refusal::Password { user }.into()) };
    stream.write_all(&answer).await?;
    stream.flush().await?;
    Ok(Login { credential, generation })
}

/// Waits until the client closes its side. What it sends early stays in the buffer, and a close behind that is not
/// seen here.
pub(super) async fn closed<S: AsyncBufRead + Unpin>(client: &mut S) {
    if matches!(client.fill_buf().await, Ok([_, ..])) {
        std::future::pending().await
    }
}

fn unanswered(cause: Error) -> Refusal {
    tracing::warn!(error = %describe(&cause), "could not look up a connection");
    Refusal::Metadata
}

/// Opens the session. `kick` is cancelled when its credential ends.
pub(super) async fn open(
    shared: &Shared,
    startup: &Startup,
    login: Login,
    kick: &CancellationToken,
) -> Result<Open, Stop> {
    // The instance refuses it too, in words about its configuration.
    if startup.database() == Some(PLATFORM_DATABASE.as_bytes()) {
        return Err(Refusal::PlatformDatabase.into());
    }
    let place = match login.credential.connection {
        Some(_) => Some(shared.admission.admit(login.credential.database, &shared.limits)?),
        None => None,
    };
    let patience = Instant::now() + shared.limits.provisioning;
    let (credential, entry) = wait_until_ready(shared, startup, login, kick, patience).await?;
    let mut attachment = attach(shared, &credential, patience).await?;
    let deadline = Instant::now() + OPEN_WAIT;
    loop {
        let access = if attachment.is_for_clean_up() { Access::CleanUp } else { Access::Full };
        let message = startup.for_instance(TENANT_ROLE, TENANT_DATABASE, access);
        let opened = tokio::select! {
            opened = timeout_at(deadline, backend::open(attachment.endpoint(), &message)) => opened,
            _ = attachment.ended() => Ok(Ok(Opened::NotNow)),
        };
        match opened {
            Ok(Ok(Opened::Ready(mut backend))) => {
                if attachment.is_for_clean_up() {
                    backend.greeting.extend(refusal::warning_of_clean_up());
                }
                return Ok(Open { credential, attachment, backend, held: (place, entry) });
            }
            Ok(Ok(Opened::Refused(message))) => return Err(Stop::RefusedByInstance(message)),
            Ok(Ok(Opened::NotNow)) => {}
            Ok(Err(cause)) => {
                tracing::debug!(instance.id = %credential.instance, %cause, "could not open a session on an instance; retrying");
            }
            Err(_) => {}
        }
        drop(attachment);
        if Instant::now() + OPEN_PAUSE >= deadline {
            return Err(Refusal::Instance.into());
        }
        sleep(OPEN_PAUSE).await;
        attachment = attach(shared, &credential, deadline).await?;
    }
}

/// Wakes the instance if it sleeps. While the server has no room for it a session waits, as it does for a database
/// that is being provisioned.
async fn attach(shared: &Shared, credential: &Credential, deadline: Instant) -> Result<Attachment, Refusal> {
    let attached = loop {
        let attached = match credential.connection {
            Some(_) => shared.instances.attach(credential.instance).await,
            None => shared.instances.attach_probe(credential.instance).await,
        };
        match attached {
            Err(EngineError::Full { .. })
                if credential.connection.is_some() && Instant::now() + ROOM_PAUSE < deadline =>
            {
                sleep(ROOM_PAUSE).await;
            }
            attached => break attached,
        }
    };
    attached.map_err(|error| {
        match &error {
            EngineError::Missing(_) | EngineError::HeldBack { .. } => {}
            EngineError::Full { .. }
            | EngineError::MajorMissing(_)
            | EngineError::NoSpace { .. }
            | EngineError::Failed { .. } => {
                tracing::warn!(
                    database.id = %credential.database,
                    instance.id = %credential.instance,
                    %error,
                    "could not start an instance for a session"
                );
            }
        }
        Refusal::Engine(error)
    })
}

/// Waits for a database that is being made or brought back, and enters the session under its
/// credential as that is then. A platform probe does not wait: it is how a database becomes ready.
async fn wait_until_ready(
    shared: &Shared,
    startup: &Startup,
    login: Login,
    kick: &CancellationToken,
    deadline: Instant,
) -> Result<(Credential, Option<Entry>), Refusal> {
    let user = startup.user()?;
    let Login { mut credential, mut generation } = login;
    let mut announcements = None;
    loop {
        match (&credential.readiness, credential.connection) {
            (Readiness::Failed(reason), _) => return Err(Refusal::Failed { reason: reason.clone() }),
            (Readiness::Ready | Readiness::Provisioning, None) => return Ok((credential, None)),
            (Readiness::Ready, Some(connection)) => {
                if let Some(entry) = shared.admission.enter(connection, &user, kick.clone(), generation) {
                    return Ok((credential, Some(entry)));
                }
            }
            (Readiness::Provisioning, Some(_)) => match &mut announcements {
                // Listen first, then look again: a change in between is not missed.
                None => announcements = Some(shared.lookup.announcements()),
                Some(announcements) => {
                    let id = credential.database.bare();
                    let changed = async {
                        loop {
                            match announcements.recv().await {
                                Ok(Announcement::Of(Channel::DatabaseChanged, changed)) if changed == id => return,
                                Ok(Announcement::Of(..)) => {}
                                Ok(Announcement::Missed) | Err(_) => return,
                            }
                        }
                    };
                    let look_again = (Instant::now() + LOOK_AGAIN).min(deadline);
                    let lagging = timeout_at(look_again, changed).await.is_err();
                    if lagging && Instant::now() >= deadline {
                        return Err(Refusal::Provisioning { waited_s: shared.limits.provisioning.as_secs() });
                    }
                }
            },
        }
        generation = shared.admission.generation();
        let found = shared.lookup.find(&user).await.map_err(unanswered)?;
        // The password was checked against this very credential; a newer one asks for a new login.
        credential = found
            .filter(|found| found.connection == credential.connection && found.verifier == credential.verifier)
            .ok_or(Refusal::Deleted)?;
    }
}
