//! Backups: what a database can be restored from, and to which moments. The list is what the
//! repository holds; a workflow puts it there.
//!
//! An instance has one vault. A restore in place gives a database another instance with a vault of
//! its own, so the vaults of a database are its eras, one after the other.

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

/// Makes a backup of a database.
pub const BACK_UP: queue::Kind = queue::Kind { name: "back_up_database", first_step: "copy_files" };
/// Restores a backup for a trial, and looks whether everything is there.
pub const VERIFY: queue::Kind = queue::Kind { name: "verify_backup", first_step: "restore_for_trial" };

/// How long every moment stays restorable, when nobody says.
pub const RETENTION_DAYS: i32 = 7;
/// Failed backups stay in the list for so long.
const FAILED_LISTED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// After a failed backup, the next one of the database starts no earlier than this.
const RETRY_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// An archive for which more than this waits is behind, in bytes.
const BEHIND: i64 = 64 << 20;
/// A full backup at least every so often.
const FULL_EVERY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How much a backup holds by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything.
    Full,
    /// What has changed since the last full one.
    Differential,
    /// What has changed since the last one of any kind.
    Incremental,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Differential, Self::Incremental];

    /// Its word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Incremental => "incremental",
        }
    }

    /// Reads its word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How a backup stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being made.
    Running,
    /// It is in the repository.
    Completed,
    /// It could not be made.
    Failed,
}

impl State {
    /// Its word on the wire and in the store.
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
    /// Its id.
    pub id: BackupId,
    /// The database that it is of.
    pub database: DatabaseId,
    /// The instance whose vault it is in.
    pub instance: InstanceId,
    /// Its name in the vault, once it is there.
    pub label: Option<String>,
    /// How much it holds by itself.
    pub kind: Kind,
    /// How it stands.
    pub state: State,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was complete: the earliest moment that it can be restored to.
    pub completed_at: Option<Timestamp>,
    /// How large the database's files were, in bytes.
    pub size: Option<i64>,
    /// Why it failed.
    pub failure_reason: Option<String>,
    /// When it was last restored for a trial and found whole.
    pub verified_at: Option<Timestamp>,
    /// How fast that was, in bytes a second.
    pub restore_bytes_per_second: Option<i64>,
    /// How many tables and indexes were read then.
    pub verified_relations: Option<i64>,
    /// Why the last trial failed, unless it went well.
    pub verification_failure: Option<String>,
    /// It does not restore, or builds on one that does not.
    pub damaged: bool,
    /// The first segment of WAL that a restore needs; `None`: not known.
    pub first_segment: Option<String>,
    /// The labels in the vault when it began; `None`: it has not.
    pub labels_before: Option<Vec<String>>,
}

/// A restore of a backup for a trial, as its workflow sees it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The backup.
    pub backup: BackupId,
    /// The database that it is of.
    pub database: DatabaseId,
    /// The instance that it is restored into, which nobody is routed to.
    pub instance: InstanceId,
    /// How fast the restore was, in bytes a second, once it is done.
    pub bytes_per_second: Option<i64>,
    /// How many tables and indexes were found whole, once they are.
    pub relations: Option<i64>,
    /// Why it has failed, when it has.
    pub failure: Option<Reason>,
    /// It has failed since the backup is not what it should be, and not for what was in its way.
    pub damaged: bool,
}

/// A backup as the vault holds it.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its name there.
    pub label: String,
    /// How much it holds by itself.
    pub kind: Kind,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was complete at the latest: what names it counts whole seconds.
    pub completed_at: Timestamp,
    /// How large the instance's files were, in bytes.
    pub size: i64,
    /// The first segment of WAL that a restore needs.
    pub first_segment: String,
}

/// The vault of an instance, and what opens it.
pub struct Vault {
    /// Whose backups are in it.
    pub database: DatabaseId,
    /// The instance.
    pub instance: InstanceId,
    /// The key.
    pub key: Secret,
    /// Whether anything still comes into it.
    pub open: bool,
}

/// What is known of a vault's archive.
#[derive(Clone, Debug, Default)]
pub struct ArchiveState {
    /// Everything that was committed before is in it.
    pub archived_until: Option<Timestamp>,
    /// Since when nothing could be archived.
    pub failing_since: Option<Timestamp>,
    /// Why, for whoever has the database.
    pub failing_reason: Option<String>,
    /// How much waits, in bytes.
    pub waiting: i64,
    /// What was lost.
    pub lost: Vec<Loss>,
}

/// Whether what a database writes gets into its vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchivingState {
    /// It does.
    Ok,
    /// It does, more slowly than it is written.
    Behind,
    /// It does not.
    Stuck,
    /// Some was lost, and no backup was made since.
    Lost,
}

/// How what a database writes gets into its vault.
#[derive(Clone, Debug)]
pub struct Archiving {
    /// Whether it does.
    pub state: ArchivingState,
    /// Since when it does not, or not in full.
    pub since: Option<Timestamp>,
    /// Why it does not, or not in full.
    pub reason: Option<String>,
}

/// How many completed backups a database has, by whether they restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Those that are not known to be damaged.
    pub sound: i64,
    /// Those that do not restore, or build on one that does not.
    pub damaged: i64,
}

/// A database that is due for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The database.
    pub database: DatabaseId,
    /// How much the backup is to hold.
    pub kind: Kind,
}

/// The backups of a database, newest first: those that it had before it was restored in place too.
/// Answers whether there are more than `limit`.
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

/// How many backups of a database restore, as far as is known, and how many do not.
pub async fn health(session: &Session, database: DatabaseId) -> Result<Health> {
    Ok(store::health(session, &[database]).await?.remove(&database).unwrap_or_default())
}

/// The same of each of these databases that has completed backups.
pub async fn health_of_all(session: &Session, databases: &[DatabaseId]) -> Result<HashMap<DatabaseId, Health>> {
    store::health(session, databases).await
}

/// The moments that a database can be restored to.
pub async fn window(session: &Session, database: DatabaseId, now: Timestamp) -> Result<Window> {
    Ok(Window::of(store::eras(session, database).await?, now))
}

/// How the archiving of a database goes; `None`: nothing of it was backed up yet.
pub async fn archiving(session: &Session, database: DatabaseId) -> Result<Option<Archiving>> {
    store::archiving(session, database).await
}

/// Reads for how many days somebody wants backups to be kept; `Some(None)` is for whoever is above to
/// say, and `None` says nothing.
///
/// # Errors
/// [`Error::Invalid`] for no days at all, and for more than [`LONGEST_RETENTION`].
pub fn parse_retention(days: Option<Option<i32>>) -> Result<Option<Option<i32>>> {
    match days {
        None | Some(None | Some(1..=LONGEST_RETENTION)) => Ok(days),
        Some(Some(days)) => Err(Error::invalid(
            format!("backupRetentionDays: {days} is out of range"),
            format!("Give a number of days from 1 to {LONGEST_RETENTION}."),
        )),
    }
}

/// For how many days every moment of a project's databases stays restorable.
pub async fn retention_days(session: &Session, project: ProjectId) -> Result<i32> {
    Ok(store::retention_days(session, project).await?.unwrap_or(RETENTION_DAYS))
}

/// Starts a backup that somebody asked for.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such database; [`Error::Conflict`] when it is not
/// `ready`, or a backup of it is under way that somebody asked for or that is of another kind.
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
            format!("a backup of the database {database} is under way"),
            "Wait until it has ended, or cancel its operation.",
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

/// The backup under way of a database that was started without anybody asking, if it is of the wanted kind. From
/// now on it is one that somebody asked for.
async fn adopt(tx: &Tx, database: DatabaseId, kind: Option<Kind>) -> Result<Option<(Backup, WorkflowId)>> {
    let Some((id, operation)) = store::adopt(tx, database, kind).await? else { return Ok(None) };
    Ok(store::get(tx, database, id).await?.map(|backup| (backup, operation)))
}

/// Starts a backup that nobody asked for; nothing happens when one is under way already.
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
            "Only a database that is ready can be backed up.",
        ));
    };
    if store::is_running(tx, database.id).await? {
        return Ok(None);
    }
    ensure_vault(tx, now, keyring, database.id, instance).await?;
    let kind = match kind {
        // Nothing is built on what does not restore.
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

/// Makes the vault of an instance, if it has none.
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

/// The vault of an instance; `None` when nothing of it was ever backed up.
pub async fn vault(session: &Session, keyring: &Keyring, instance: InstanceId) -> Result<Option<Vault>> {
    let found = store::vault(session, instance).await?;
    found.map(|sealed| sealed.open(keyring)).transpose()
}

/// The vaults of a database, oldest first.
pub async fn vaults(session: &Session, keyring: &Keyring, database: DatabaseId) -> Result<Vec<Vault>> {
    let found = store::vaults_of(session, database).await?;
    found.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

/// Every vault.
pub async fn all_vaults(session: &Session, keyring: &Keyring) -> Result<Vec<Vault>> {
    store::all_vaults(session).await?.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

fn purpose(instance: InstanceId) -> String {
    format!("backups of {instance}")
}

/// The backup that is being made of a database, if one is.
pub async fn running(session: &Session, database: DatabaseId) -> Result<Option<Backup>> {
    store::running(session, database).await
}

/// Whether a backup of a database is being made that somebody asked for.
pub async fn is_requested(session: &Session, database: DatabaseId) -> Result<bool> {
    store::is_requested(session, database).await
}

/// The backup with this id, of this database, whoever asks.
pub async fn find(session: &Session, database: DatabaseId, id: BackupId) -> Result<Option<Backup>> {
    store::get(session, database, id).await
}

/// The newest completed backup of an instance that is not known to be damaged.
pub async fn newest(session: &Session, instance: InstanceId) -> Result<Option<Backup>> {
    store::newest(session, instance).await
}

/// The labels of the backups in an instance's vault that are known to be damaged.
pub async fn damaged(session: &Session, instance: InstanceId) -> Result<Vec<String>> {
    store::damaged(session, instance).await
}

/// A restore has found that a backup does not: another one is made soon, nothing is built on it, and it is
/// chosen no more where there is another way. False when that is known already.
pub async fn mark_damaged(tx: &Tx, id: BackupId, reason: &Reason, now: Timestamp) -> Result<bool> {
    store::mark_damaged(tx, id, reason.explanation(), now).await
}

/// Adds a backup that is in the vault to the list, unless it is there.
pub async fn add(tx: &Tx, vault: &Vault, now: Timestamp, held: &Held) -> Result<()> {
    store::hold(tx, vault.database).await?;
    store::insert_held(tx, BackupId::generate(now), vault, &known_by(now, held)).await
}

/// Records what was in the vault when a backup began, unless that is recorded.
pub async fn mark_begun(session: &Session, id: BackupId, labels: &[&str]) -> Result<()> {
    store::mark_begun(session, id, labels).await
}

/// The backup is in the vault under this label, as was seen just now.
pub async fn mark_completed(tx: &Tx, backup: &Backup, now: Timestamp, held: &Held) -> Result<()> {
    store::hold(tx, backup.database).await?;
    store::mark_completed(tx, backup.id, &known_by(now, held)).await
}

/// What is in the vault now was complete by now, in milliseconds, which is what people are told.
fn known_by(now: Timestamp, held: &Held) -> Held {
    let up = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Ceil);
    let completed_at = held.completed_at.min(now.round(up).unwrap_or(now));
    Held { completed_at, ..held.clone() }
}

/// The backup that was being made of a database could not be.
pub async fn mark_failed(tx: &Tx, database: DatabaseId, reason: &str) -> Result<()> {
    store::hold(tx, database).await?;
    store::mark_failed(tx, database, reason).await
}

/// Makes the list what the vault holds: forgets what is gone, and adds what is missing.
pub async fn sync(tx: &Tx, vault: &Vault, now: Timestamp, held: &[Held]) -> Result<()> {
    store::hold(tx, vault.database).await?;
    let labels: Vec<&str> = held.iter().map(|held| held.label.as_str()).collect();
    store::remove_missing(tx, vault.instance, &labels, now - FAILED_LISTED).await?;
    for held in held {
        store::insert_held(tx, BackupId::generate(now), vault, &known_by(now, held)).await?;
    }
    Ok(())
}

/// Records how archiving goes.
pub async fn record_archive(
    session: &Session,
    instance: InstanceId,
    now: Timestamp,
    state: &ArchiveState,
) -> Result<()> {
    store::record_archive(session, instance, now, state).await
}

/// Records that what an instance committed last could not be brought into its vault, so that the vault
/// ends where archiving did.
pub async fn record_lost_end(tx: &Tx, instance: InstanceId, now: Timestamp) -> Result<()> {
    let state = ArchiveState { failing_since: Some(now), ..ArchiveState::default() };
    store::record_archive(tx, instance, now, &state).await
}

/// Up to when everything that an instance committed is known to be in its vault.
pub async fn archived_until(session: &Session, instance: InstanceId) -> Result<Option<Timestamp>> {
    store::archived_until(session, instance).await
}

/// Nothing comes into the vault of an instance any more: it was replaced or destroyed.
pub async fn close_vault(tx: &Tx, instance: InstanceId, now: Timestamp) -> Result<()> {
    store::close_vault(tx, instance, now).await
}

/// Forgets a vault and its backups; the repository has nothing of it any more.
pub async fn forget_vault(tx: &Tx, instance: InstanceId) -> Result<()> {
    store::forget_vault(tx, instance).await
}

/// The databases that are due for a backup: those with activity since the last one that is older than
/// `every`, those without any after `first`, those whose WAL has a gap since, and those with a damaged one
/// since. A backup that was made while the clock was ahead by more than `every` does not count.
pub async fn due(session: &Session, now: Timestamp, first: SignedDuration, every: SignedDuration) -> Result<Vec<Due>> {
    store::due(session, now - first, now - every, now - FULL_EVERY, now + every, now - RETRY_AFTER).await
}

/// The newest completed backup of the active database that was tried longest ago, or never; none when no
/// database was tried last before `before`, or a trial is under way. Active is a database that was backed up
/// since its last trial: one that nobody uses is not.
pub async fn due_for_trial(
    session: &Session,
    before: Timestamp,
    now: Timestamp,
) -> Result<Option<(DatabaseId, BackupId)>> {
    store::due_for_trial(session, before, now).await
}

/// Starts a trial of a backup that nobody asked for. Answers its operation; `None` when one is under way, or
/// the backup is not there any more.
pub async fn start_trial(
    tx: &Tx,
    now: Timestamp,
    database: DatabaseId,
    backup: BackupId,
) -> Result<Option<WorkflowId>> {
    // Who starts another trial of the same backup waits here.
    if !store::mark_tried(tx, database, backup, now).await? || store::trial(tx, backup).await?.is_some() {
        return Ok(None);
    }
    store::insert_trial(tx, backup, database, InstanceId::generate(now)).await?;
    operations::start_beside(tx, now, VERIFY, database, backup.uuid()).await.map(Some)
}

/// Starts a trial of a backup that somebody asked for.
///
/// # Errors
/// [`Error::NotFound`] when the caller has no such database, or that has no such backup;
/// [`Error::Conflict`] when the backup is not complete, or a trial of it is under way.
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
            "Only a completed backup can be verified; GET the database's backups to see which are.",
        ));
    }
    let operation = start_trial(tx, now, database, id).await?.ok_or_else(|| {
        Error::conflict(
            format!("the backup {id} is being verified"),
            "Wait until that has ended; GET the database's operations to see how it stands.",
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

/// The trial under way of a backup, if there is one.
pub async fn trial(session: &Session, backup: BackupId) -> Result<Option<Trial>> {
    store::trial(session, backup).await
}

/// The trial's restore is done, that fast.
pub async fn record_speed(tx: &Tx, backup: BackupId, bytes_per_second: i64) -> Result<()> {
    store::record_speed(tx, backup, bytes_per_second).await
}

/// The trial has found so many tables and indexes whole.
pub async fn record_relations(tx: &Tx, backup: BackupId, relations: i64) -> Result<()> {
    store::record_relations(tx, backup, relations).await
}

/// Records that a trial has failed, before its instance is removed: for what is wrong with the backup, when
/// it is `damaged`, or for what was in its way.
pub async fn record_trial_failure(tx: &Tx, backup: BackupId, reason: &Reason, damaged: bool) -> Result<()> {
    store::record_trial_failure(tx, backup, reason, damaged).await
}

/// Ends a trial whose instance is gone: the backup says how it went, if it is still there. When it is damaged
/// what it builds on is tried next: the damage may be there.
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

/// Forgets a trial that has become pointless, and whose instance is gone.
pub async fn forget_trial(tx: &Tx, backup: BackupId) -> Result<()> {
    store::remove_trial(tx, backup).await
}

/// The instances of trials: of a database, or all.
pub async fn trial_instances(session: &Session, database: Option<DatabaseId>) -> Result<Vec<InstanceId>> {
    store::trial_instances(session, database).await
}

/// Closed vaults whose every moment is older than the retention of their database, and the vaults of
/// databases that are to be forgotten.
pub async fn outlived(session: &Session, keyring: &Keyring, now: Timestamp) -> Result<Vec<Vault>> {
    let found = store::outlived(session, now, RETENTION_DAYS).await?;
    found.into_iter().map(|sealed| sealed.open(keyring)).collect()
}

/// The open vaults, with the days of their database's retention.
pub async fn retentions(session: &Session) -> Result<Vec<(InstanceId, i32)>> {
    let rows = store::retentions(session).await?;
    Ok(rows.into_iter().map(|(id, days)| (InstanceId::from(id), days.unwrap_or(RETENTION_DAYS))).collect::<Vec<_>>())
}

/// A vault as the store has it.
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
