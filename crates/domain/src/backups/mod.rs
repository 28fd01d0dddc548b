//! Backups of databases, and the moments that databases can be restored to. Workflows create backups; the list in the
//! store mirrors the backup repository.
//!
//! Each instance has its own backup repository (*vault*). A restore in place gives a database a new instance with a new
//! repository, so the repositories of a database cover consecutive periods (*eras*).

mod store;
mod window;

use std::collections::HashMap;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use uuid::Uuid;

pub use window::{Era, Loss, Span, Window};

use crate::audit::{self, Change, Resource};
use crate::databases::{self, Database, Status};
use crate::operations;
use auth::Principal;
use base::error::{Error, Result};
use base::id::{BackupId, DatabaseId, InstanceId, ProjectId, WorkflowId};
use base::keyring::Keyring;
use base::secret::Secret;
use base::store::{Session, Tx};
use queue::Reason;

/// The longest that backups can be kept, in days.
pub const LONGEST_RETENTION: i32 = 365;

/// Creates a backup of a database.
pub const BACK_UP: queue::Kind = queue::Kind { name: "back_up_database", first_step: "copy_files" };
/// Verifies a backup: restores it into a test instance and reads all data.
pub const VERIFY: queue::Kind = queue::Kind { name: "verify_backup", first_step: "restore_for_trial" };

/// The default retention in days.
pub const RETENTION_DAYS: i32 = 7;
/// How long failed backups stay in the list.
const FAILED_LISTED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The shortest time between a failed backup and the next backup of the database.
const RETRY_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// Archiving is behind when more than this many bytes of WAL are waiting.
const BEHIND: i64 = 64 << 20;
/// The longest time between full backups.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The type of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All files.
    Full,
    /// The changes since the last full backup.
    Differential,
    /// The changes since the last backup of any type.
    Incremental,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Full, Self::Differential, Self::Incremental];

    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Incremental => "incremental",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The state of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The backup is running.
    Running,
    /// The backup is in the repository.
    Completed,
    /// The backup failed.
    Failed,
}

impl State {
    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        [Self::Running, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| Error::internal(format!("a backup has the unknown state {text}")))
    }
}

/// A backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The backup's ID.
    pub id: BackupId,
    /// The backed-up database.
    pub database: DatabaseId,
    /// The instance in whose repository the backup is.
    pub instance: InstanceId,
    /// The backup's label in the repository, once it is there.
    pub label: Option<String>,
    /// The backup's type.
    pub kind: Kind,
    /// The backup's state.
    pub state: State,
    /// When the backup started.
    pub created_at: Timestamp,
    /// When the backup was complete, which is the earliest moment that it can be restored to.
    pub completed_at: Option<Timestamp>,
    /// The size of the database's files in bytes.
    pub size: Option<i64>,
    /// Why the backup failed.
    pub failure_reason: Option<String>,
    /// When the backup was last verified successfully.
    pub verified_at: Option<Timestamp>,
    /// The restore speed in that verification, in bytes per second.
    pub restore_bytes_per_second: Option<i64>,
    /// The number of tables and indexes read in that verification.
    pub verified_relations: Option<i64>,
    /// Why the last verification failed, if it did.
    pub verification_failure: Option<String>,
    /// Whether the backup, or a backup that it depends on, cannot be restored.
    pub damaged: bool,
    /// The first WAL segment that a restore needs; `None` if unknown.
    pub first_segment: Option<String>,
    /// The labels in the repository when the backup started; `None` before that.
    pub labels_before: Option<Vec<String>>,
}

/// A running verification of a backup, for its workflow.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The backup.
    pub backup: BackupId,
    /// The backed-up database.
    pub database: DatabaseId,
    /// The test instance, which clients cannot reach.
    pub instance: InstanceId,
    /// The restore speed in bytes per second, once restored.
    pub bytes_per_second: Option<i64>,
    /// The number of sound tables and indexes, once read.
    pub relations: Option<i64>,
    /// Why the verification failed, if it did.
    pub failure: Option<Reason>,
    /// Whether the verification failed because of the backup, and not for another reason.
    pub damaged: bool,
}

/// A backup in the repository.
#[derive(Clone, Debug)]
pub struct Held {
    /// The backup's label.
    pub label: String,
    /// The backup's type.
    pub kind: Kind,
    /// When the backup started.
    pub started_at: Timestamp,
    /// The latest possible time of its completion: labels have a resolution of one second.
    pub completed_at: Timestamp,
    /// The size of the instance's files in bytes.
    pub size: i64,
    /// The first WAL segment that a restore needs.
    pub first_segment: String,
}

/// The backup repository of an instance, with its key.
pub struct Vault {
    /// The backed-up database.
    pub database: DatabaseId,
    /// The instance.
    pub instance: InstanceId,
    /// The key.
    pub key: Secret,
    /// Whether the instance still archives to it.
    pub open: bool,
}

/// The archiving state of an instance.
#[derive(Clone, Debug, Default)]
pub struct ArchiveState {
    /// Everything committed before this is archived.
    pub archived_until: Option<Timestamp>,
    /// Since when archiving has been failing.
    pub failing_since: Option<Timestamp>,
    /// Why archiving is failing, for the owner.
    pub failing_reason: Option<String>,
    /// The amount of waiting WAL in bytes.
    pub waiting: i64,
    /// The lost WAL.
    pub lost: Vec<Loss>,
}

/// The state of archiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchivingState {
    /// WAL is archived.
    Ok,
    /// WAL is archived more slowly than it is written.
    Behind,
    /// Archiving is failing.
    Stuck,
    /// WAL was lost, and there is no backup since then.
    Lost,
}

/// The state of archiving with its reason.
#[derive(Clone, Debug)]
pub struct Archiving {
    /// The state.
    pub state: ArchivingState,
    /// Since when the state is not `Ok`.
    pub since: Option<Timestamp>,
    /// Why the state is not `Ok`.
    pub reason: Option<String>,
}

/// The number of sound and damaged backups of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Completed backups that are not known to be damaged.
    pub sound: i64,
    /// Completed backups that cannot be restored, or that depend on such a backup.
    pub damaged: i64,
}

/// A database that is due for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The database.
    pub database: DatabaseId,
    /// The type of the backup.
    pub kind: Kind,
}

/// The backups of a database, newest first, including those from before a restore in place. Also returns whether there
/// are more than `limit`.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such database.
pub async fn list(
    session: &Session,
    actor: &Principal,
    database: DatabaseId,
    limit: u32,
) -> Result<(Vec<Backup>, bool)> {
    databases::get(session, actor, database).await?;
    let mut found = store::list(session, database, i64::from(limit) + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    Ok((found, more))
}

/// The number of sound and damaged backups of a database.
pub async fn health(session: &Session, database: DatabaseId) -> Result<Health> {
    Ok(store::health(session, &[database]).await?.remove(&database).unwrap_or_default())
}

/// The same for several databases. Databases without completed backups are missing.
pub async fn health_of_all(session: &Session, databases: &[DatabaseId]) -> Result<HashMap<DatabaseId, Health>> {
    store::health(session, databases).await
}

/// The moments that a database can be restored to.
pub async fn window(session: &Session, database: DatabaseId, now: Timestamp) -> Result<Window> {
    Ok(Window::of(store::eras(session, database).await?, now))
}

/// The archiving state of a database; `None` before its first backup.
pub async fn archiving(session: &Session, database: DatabaseId) -> Result<Option<Archiving>> {
    store::archiving(session, database).await
}

/// Checks a retention in days. `Some(None)` inherits the setting; `None` leaves it unchanged.
///
/// # Errors
/// [`Error::Invalid`] for less than one day and for more than [`LONGEST_RETENTION`].
pub fn parse_retention(days: Option<Option<i32>>) -> Result<Option<Option<i32>>> {
    match days {
        None | Some(None | Some(1..=LONGEST_RETENTION)) => Ok(days),
        Some(Some(days)) => Err(Error::invalid(
            format!("backupRetentionDays: {days} is out of range"),
            format!("Give a number of days from 1 to {LONGEST_RETENTION}."),
        )),
    }
}

/// The effective retention of a project's databases in days.
pub async fn retention_days(session: &Session, project: ProjectId) -> Result<i32> {
    Ok(store::retention_days(session, project).await?.unwrap_or(RETENTION_DAYS))
}

/// Starts a requested backup.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such database; [`Error::Conflict`] when it is not
/// `ready`, or a requested backup or a backup of another type is running.
pub async fn create(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    keyring: &Keyring,
    database: DatabaseId,
    kind: Option<Kind>,
) -> Result<(Backup, WorkflowId)> {
    let of = databases::get(tx, actor, database).await?;
    actor.may_change()?;
    let started = match begin(tx, now, keyring, &of, kind, true).await? {
        Some(started) => Some(started),
        None => adopt(tx, database, kind).await?,
    };
    let (backup, operation) = started.ok_or_else(|| {
        Error::conflict(
            format!("a backup of the database {database} is already running"),
            "Wait until it ends, or cancel its operation.",
        )
    })?;
    let after = serde_json::json!({"databaseId": database.to_string(), "backupType": backup.kind.as_str()});
    let change = Change {
        action: "create_backup",
        resource: Resource { kind: "backup".into(), id: backup.id.to_string(), name: None },
        project: Some(of.project),
        before: None,
        after: Some(after),
    };
    audit::record(tx, actor, now, change).await?;
    Ok((backup, operation))
}

/// Turns a running scheduled backup of the wanted type into a requested one, and returns it.
async fn adopt(tx: &Tx, database: DatabaseId, kind: Option<Kind>) -> Result<Option<(Backup, WorkflowId)>> {
    let Some((id, operation)) = store::adopt(tx, database, kind).await? else { return Ok(None) };
    Ok(store::get(tx, database, id).await?.map(|backup| (backup, operation)))
}

/// Starts a scheduled backup, unless a backup is running.
///
/// # Errors
/// [`Error::Conflict`] when the database is not `ready`.
pub async fn start(tx: &Tx, now: Timestamp, keyring: &Keyring, database: &Database) -> Result<()> {
    begin(tx, now, keyring, database, None, false).await.map(drop)
}

async fn begin(
    tx: &Tx,
    now: Timestamp,
    keyring: &Keyring,
    database: &Database,
    kind: Option<Kind>,
    requested: bool,
) -> Result<Option<(Backup, WorkflowId)>> {
    let Some(instance) = store::lock_instance(tx, database.id).await?.filter(|_| database.status == Status::Ready)
    else {
        return Err(Error::conflict(
            format!("the database {} is {}", database.id, database.status.as_str()),
            "Only databases with the status ready can be backed up.",
        ));
    };
    if store::is_running(tx, database.id).await? {
        return Ok(None);
    }
    ensure_vault(tx, now, keyring, database.id, instance).await?;
    let kind = match kind {
        // Do not base new backups on a damaged one.
        _ if store::is_base_damaged(tx, instance).await? => Kind::Full,
        Some(kind) => kind,
        None => store::kind_due(tx, instance, now - FULL_EVERY).await?,
    };
    let id = BackupId::generate(now);
    store::insert(tx, id, database.id, instance, kind, requested, now).await?;
    let operation = operations::start_beside(tx, now, BACK_UP, database.id, database.id.uuid()).await?;
    let backup = store::get(tx, database.id, id).await?;
    let backup = backup.ok_or_else(|| Error::internal(format!("the backup {id} is not where it was put")))?;
    Ok(Some((backup, operation)))
}

/// Creates the repository of an instance if it has none.
pub async fn ensure_vault(
    tx: &Tx,
    now: Timestamp,
    keyring: &Keyring,
    database: DatabaseId,
    instance: InstanceId,
) -> Result<()> {
    let key = base::secret::random_text::<32>();
    let sealed = keyring.seal(&purpose(instance), key.as_bytes())?;
    store::insert_vault(tx, instance, database, &sealed, now).await
}

/// The repository of an instance; `None` if it was never backed up.
pub async fn vault(session: &Session, keyring: &Keyring, instance: InstanceId) -> Result<Option<Vault>> {
    let found = store::vault(session, instance).await?;
    found.map(|sealed| sealed.open(keyring)).transpose()
}

/// The repositories of a database, oldest first.
pub async fn vaults(session: &Session, keyring: &Keyring, database: DatabaseId) -> Result<Vec<Vault>> {
    let found = store::vaults_of(session, database).await?;
    found.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

/// All repositories.
pub async fn all_vaults(session: &Session, keyring: &Keyring) -> Result<Vec<Vault>> {
    store::all_vaults(session).await?.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

fn purpose(instance: InstanceId) -> String {
    format!("backups of {instance}")
}

/// The running backup of a database, if any.
pub async fn running(session: &Session, database: DatabaseId) -> Result<Option<Backup>> {
    store::running(session, database).await
}

/// Whether a requested backup of a database is running.
pub async fn is_requested(session: &Session, database: DatabaseId) -> Result<bool> {
    store::is_requested(session, database).await
}

/// The backup with this ID of this database, without an access check.
pub async fn find(session: &Session, database: DatabaseId, id: BackupId) -> Result<Option<Backup>> {
    store::get(session, database, id).await
}

/// The newest completed backup of an instance that is not known to be damaged.
pub async fn newest(session: &Session, instance: InstanceId) -> Result<Option<Backup>> {
    store::newest(session, instance).await
}

/// The labels of the damaged backups of an instance.
pub async fn damaged(session: &Session, instance: InstanceId) -> Result<Vec<String>> {
    store::damaged(session, instance).await
}

/// Marks a backup as damaged. Another backup is then created soon, no backup is based on it, and restores avoid it.
/// Returns false if it was already marked.
pub async fn mark_damaged(tx: &Tx, id: BackupId, reason: &Reason, now: Timestamp) -> Result<bool> {
    store::mark_damaged(tx, id, reason.explanation(), now).await
}

/// Adds a backup in the repository to the list, unless it is listed.
pub async fn add(tx: &Tx, vault: &Vault, now: Timestamp, held: &Held) -> Result<()> {
    store::hold(tx, vault.database).await?;
    store::insert_held(tx, BackupId::generate(now), vault, &known_by(now, held)).await
}

/// Records the labels in the repository when a backup starts, unless they are recorded.
pub async fn mark_begun(session: &Session, id: BackupId, labels: &[&str]) -> Result<()> {
    store::mark_begun(session, id, labels).await
}

/// Marks a backup as completed after it was found in the repository.
pub async fn mark_completed(tx: &Tx, backup: &Backup, now: Timestamp, held: &Held) -> Result<()> {
    store::hold(tx, backup.database).await?;
    store::mark_completed(tx, backup.id, &known_by(now, held)).await
}

/// Limits the completion time of a backup in the repository to now, rounded up to milliseconds as in the API.
fn known_by(now: Timestamp, held: &Held) -> Held {
    let up = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Ceil);
    let completed_at = held.completed_at.min(now.round(up).unwrap_or(now));
    Held { completed_at, ..held.clone() }
}

/// Marks the running backup of a database as failed.
pub async fn mark_failed(tx: &Tx, database: DatabaseId, reason: &str) -> Result<()> {
    store::hold(tx, database).await?;
    store::mark_failed(tx, database, reason).await
}

/// Updates the list from the repository: removes missing backups and adds new ones.
pub async fn sync(tx: &Tx, vault: &Vault, now: Timestamp, held: &[Held]) -> Result<()> {
    store::hold(tx, vault.database).await?;
    let labels: Vec<&str> = held.iter().map(|held| held.label.as_str()).collect();
    store::remove_missing(tx, vault.instance, &labels, now - FAILED_LISTED).await?;
    for held in held {
        store::insert_held(tx, BackupId::generate(now), vault, &known_by(now, held)).await?;
    }
    Ok(())
}

/// Records the archiving state of an instance.
pub async fn record_archive(
    session: &Session,
    instance: InstanceId,
    now: Timestamp,
    state: &ArchiveState,
) -> Result<()> {
    store::record_archive(session, instance, now, state).await
}

/// Records that the latest commits of an instance could not be archived.
pub async fn record_lost_end(tx: &Tx, instance: InstanceId, now: Timestamp) -> Result<()> {
    let state = ArchiveState { failing_since: Some(now), ..ArchiveState::default() };
    store::record_archive(tx, instance, now, &state).await
}

/// The time up to which all commits of an instance are known to be archived.
pub async fn archived_until(session: &Session, instance: InstanceId) -> Result<Option<Timestamp>> {
    store::archived_until(session, instance).await
}

/// Closes the repository of an instance that was replaced or destroyed.
pub async fn close_vault(tx: &Tx, instance: InstanceId, now: Timestamp) -> Result<()> {
    store::close_vault(tx, instance, now).await
}

/// Removes the record of a deleted repository and its backups.
pub async fn forget_vault(tx: &Tx, instance: InstanceId) -> Result<()> {
    store::forget_vault(tx, instance).await
}

/// The databases that are due for a backup: with activity since a last backup older than `every`, without a backup
/// after `first`, with lost WAL since the last backup, or with a damaged backup since then. Backups dated more than
/// `every` in the future, by a clock that was ahead, do not count.
pub async fn due(session: &Session, now: Timestamp, first: SignedDuration, every: SignedDuration) -> Result<Vec<Due>> {
    store::due(session, now - first, now - every, now - FULL_EVERY, now + every, now - RETRY_AFTER).await
}

/// The newest completed backup of the active database whose last verification is the oldest, or missing. `None` if all
/// were verified after `before`, or a verification is running. A database is active if it was backed up since its last
/// verification; an unused database is not.
pub async fn due_for_trial(
    session: &Session,
    before: Timestamp,
    now: Timestamp,
) -> Result<Option<(DatabaseId, BackupId)>> {
    store::due_for_trial(session, before, now).await
}

/// Starts a scheduled verification of a backup and returns its operation; `None` if one is running, or the backup is
/// gone.
pub async fn start_trial(
    tx: &Tx,
    now: Timestamp,
    database: DatabaseId,
    backup: BackupId,
) -> Result<Option<WorkflowId>> {
    // A concurrent start of a verification of the same backup waits here.
    if !store::mark_tried(tx, database, backup, now).await? || store::trial(tx, backup).await?.is_some() {
        return Ok(None);
    }
    store::insert_trial(tx, backup, database, InstanceId::generate(now)).await?;
    operations::start_beside(tx, now, VERIFY, database, backup.uuid()).await.map(Some)
}

/// Starts a requested verification of a backup.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such database, or that has no such backup;
/// [`Error::Conflict`] when the backup is not complete or is already being verified.
pub async fn verify(
    tx: &Tx,
    actor: &Principal,
    now: Timestamp,
    database: DatabaseId,
    id: BackupId,
) -> Result<(Backup, WorkflowId)> {
    let of = databases::get(tx, actor, database).await?;
    actor.may_change()?;
    let backup = find(tx, database, id).await?.ok_or_else(|| Error::not_found("backup", id))?;
    if backup.state != State::Completed {
        return Err(Error::conflict(
            format!("the backup {id} is {}", backup.state.as_str()),
            "Only completed backups can be verified; GET /v1/databases/{databaseId}/backups lists them.",
        ));
    }
    let operation = start_trial(tx, now, database, id).await?.ok_or_else(|| {
        Error::conflict(
            format!("the backup {id} is already being verified"),
            "Wait until the verification ends; GET /v1/databases/{databaseId}/operations shows its progress.",
        )
    })?;
    let change = Change {
        action: "verify_backup",
        resource: Resource { kind: "backup".into(), id: id.to_string(), name: None },
        project: Some(of.project),
        before: None,
        after: Some(serde_json::json!({"databaseId": database.to_string()})),
    };
    audit::record(tx, actor, now, change).await?;
    Ok((backup, operation))
}

/// The running verification of a backup, if any.
pub async fn trial(session: &Session, backup: BackupId) -> Result<Option<Trial>> {
    store::trial(session, backup).await
}

/// Records the restore speed of a verification.
pub async fn record_speed(tx: &Tx, backup: BackupId, bytes_per_second: i64) -> Result<()> {
    store::record_speed(tx, backup, bytes_per_second).await
}

/// Records the number of sound tables and indexes of a verification.
pub async fn record_relations(tx: &Tx, backup: BackupId, relations: i64) -> Result<()> {
    store::record_relations(tx, backup, relations).await
}

/// Records that a verification failed, before its instance is removed: because of the backup if `damaged`, or for
/// another reason.
pub async fn record_trial_failure(tx: &Tx, backup: BackupId, reason: &Reason, damaged: bool) -> Result<()> {
    store::record_trial_failure(tx, backup, reason, damaged).await
}

/// Finishes a verification after its instance is removed, and records the result. If the backup is damaged, the backup
/// that it depends on is verified next, since the damage may be there.
pub async fn finish_trial(tx: &Tx, now: Timestamp, trial: &Trial) -> Result<()> {
    store::hold(tx, trial.database).await?;
    store::remove_trial(tx, trial.backup).await?;
    match &trial.failure {
        Some(reason) if trial.damaged => {
            store::mark_damaged(tx, trial.backup, reason.explanation(), now).await?;
            if let Some(base) = store::base(tx, trial.backup).await? {
                start_trial(tx, now, trial.database, base).await?;
            }
            Ok(())
        }
        Some(reason) => store::mark_suspect(tx, trial.backup, reason.explanation()).await,
        None => store::mark_verified(tx, trial, now).await,
    }
}

/// Removes the record of an obsolete verification whose instance is removed.
pub async fn forget_trial(tx: &Tx, backup: BackupId) -> Result<()> {
    store::remove_trial(tx, backup).await
}

/// The test instances of verifications, of one database or all.
pub async fn trial_instances(session: &Session, database: Option<DatabaseId>) -> Result<Vec<InstanceId>> {
    store::trial_instances(session, database).await
}

/// Closed repositories older than the retention of their database, and the repositories of deleted databases that are
/// no longer kept.
pub async fn outlived(session: &Session, keyring: &Keyring, now: Timestamp) -> Result<Vec<Vault>> {
    let found = store::outlived(session, now, RETENTION_DAYS).await?;
    found.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

/// The open repositories, with the retention of their database in days.
pub async fn retentions(session: &Session) -> Result<Vec<(InstanceId, i32)>> {
    let rows = store::retentions(session).await?;
    Ok(rows.into_iter().map(|(id, days)| (InstanceId::from(id), days.unwrap_or(RETENTION_DAYS))).collect::<Vec<_>>())
}

/// A repository as stored.
pub(super) struct SealedVault {
    instance: Uuid,
    database: Uuid,
    sealed_key: Vec<u8>,
    open: bool,
}

impl SealedVault {
    fn open(self, keyring: &Keyring) -> Result<Vault> {
        let instance = InstanceId::from(self.instance);
        let key = keyring.open(&purpose(instance), &self.sealed_key)?;
        let key = std::str::from_utf8(&key).map_err(Error::internal)?;
        Ok(Vault { database: self.database.into(), instance, key: Secret::new(key), open: self.open })
    }
}
