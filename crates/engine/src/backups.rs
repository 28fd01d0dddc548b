//! What the engine knows of backups: where they are kept, what they are, what can go wrong.
//!
//! One instance has one [`Vault`], and archives one timeline into it: a restore always makes
//! another instance, which gets a vault of its own. So no two timelines ever meet in one vault,
//! and the vault of an instance that has been replaced or destroyed stays restorable as it was.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{EngineError, Major};
use base::id::InstanceId;
use base::secret::{Secret, random_text};

/// The part of an engine that is about backups. As with [`super::Engine`], every verb may be
/// called at any time, twice, after a crash in the middle of the same verb.
///
/// * A vault that is not in the repository any more begins anew, empty, with what waits; the status has a gap
///   then. It is noticed when something is to be put there.
/// * After `ensure_archiving` the instance's vault exists, and all WAL that is written from then
///   on goes there: within about a minute after a write, and before `ensure_stopped` returns,
///   unless the repository does not answer; then it waits on the disk and is tried again. Before
///   the first call WAL is not kept. The key is held in memory only, so after an engine is opened
///   the call is to be repeated for every instance that has a vault; nothing is lost until then,
///   and a repetition is cheap.
/// * `archive_pending` does one round of that work for all instances, and returns when nothing
///   more can be archived now. When more waits on the disk than the engine is set to allow, what
///   waits is given up, and the status has a gap: make a backup then.
/// * `flush_archive`: everything committed before the call is in the vault when it returns, or it
///   fails. The instance may run or have ended cleanly ([`BackupError::Unclean`]).
/// * `back_up` makes a backup of a running instance, and waits until the WAL that it needs is in
///   the vault too. It calls `ensure_archiving` itself. Without a full backup to build on it makes
///   a full one, whatever the kind. Dropping the future ends it; what was copied by then may serve
///   the next attempt. Unlike the other verbs it may go on beside them, except that one of an
///   instance goes on at a time ([`BackupError::Busy`]), and that a stop interrupts it.
/// * `backups` lists what the vault holds, oldest first. An instance without a vault has none.
/// * After `restore` the target exists, stopped, out of recovery, with what the source of the vault
///   held at that moment; nothing of it is archived. The target must be new; a call for one that
///   exists changes nothing and fails, unless a restore made it, whose facts are then told again.
///   A failed or interrupted one leaves nothing that counts, and can be repeated. Each can be read
///   by several at the same time.
/// * `copy` does what `restore` does, out of an instance that sleeps: `asleep` keeps it from being started, and
///   is dropped as soon as its files are copied, also when the future is dropped before. `None`: it does not
///   sleep, or the files of the two cannot share their blocks, and nothing is left of the target.
/// * `check` reads all tables and indexes of an instance that a restore has made for it, and that
///   nobody else uses: [`BackupError::Corrupt`] when they are not whole. It has a server of its own,
///   which archives nothing and has ended when it returns; nothing that a tenant wrote is run. The
///   instance is good for nothing else afterwards. Dropping the future ends it.
/// * `expire` removes backups and WAL that retention does not want any more, `remove_backup` one
///   backup and those that need it. Both are [`BackupError::Busy`] while a backup or a restore of
///   the vault goes on. `remove_backup` of one that is not there is fine.
/// * `verify` reads everything in the vault: [`BackupError::Damaged`] when it is not what was put there.
/// * After `ensure_forgotten` nothing of the vault is left. The instance is not touched, except
///   that it is not archived any more. Without a vault that is fine.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// See the contract above.
    async fn ensure_archiving(&self, vault: &Vault) -> Result<(), BackupError>;
    /// See the contract above.
    async fn archive_pending(&self) -> Result<(), EngineError>;
    /// Returns the instances whose [`ArchiveStatus`] has changed since the last call, once there are any. Other
    /// changes are seen by asking.
    async fn archive_changes(&self) -> Vec<InstanceId> {
        std::future::pending().await
    }
    /// How the archiving of the instance goes.
    async fn archive_status(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError>;
    /// See the contract above.
    async fn flush_archive(&self, vault: &Vault) -> Result<(), BackupError>;
    /// See the contract above.
    async fn back_up(
        &self,
        vault: &Vault,
        kind: BackupKind,
        progress: ProgressSink,
    ) -> Result<BackupFacts, BackupError>;
    /// See the contract above.
    async fn backups(&self, vault: &Vault) -> Result<Vec<BackupFacts>, BackupError>;
    /// See the contract above.
    async fn restore(
        &self,
        target: InstanceId,
        source: &Vault,
        label: &BackupLabel,
        to: RecoverTo,
        progress: ProgressSink,
    ) -> Result<RestoreFacts, BackupError>;
    /// See the contract above.
    async fn copy(
        &self,
        target: InstanceId,
        source: InstanceId,
        asleep: Box<dyn Send>,
    ) -> Result<Option<RestoreFacts>, BackupError>;
    /// See the contract above.
    async fn check(&self, id: InstanceId, progress: ProgressSink) -> Result<CheckFacts, BackupError>;
    /// See the contract above.
    async fn expire(&self, vault: &Vault, retention: Retention) -> Result<(), BackupError>;
    /// See the contract above.
    async fn remove_backup(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError>;
    /// See the contract above.
    async fn verify(&self, vault: &Vault) -> Result<(), BackupError>;
    /// See the contract above.
    async fn ensure_forgotten(&self, vault: &Vault) -> Result<(), BackupError>;
}

/// What opens the backups of one instance. It outlives the instance.
#[derive(Clone, Debug)]
pub struct Vault {
    /// The instance whose backups and WAL are in it.
    pub instance: InstanceId,
    /// What everything in it is encrypted with. Without it nothing can be restored, so the caller
    /// keeps it as long as the vault is not forgotten.
    pub key: Secret,
}

impl Vault {
    /// A vault for this instance, with a new key of 256 random bits.
    pub fn generate(instance: InstanceId) -> Self {
        Self { instance, key: Secret::new(random_text::<32>()) }
    }
}

/// How much a backup holds by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// Everything.
    Full,
    /// What has changed since the last full one.
    Differential,
    /// What has changed since the last one of any kind.
    Incremental,
}

/// The name of a backup in its vault, such as `20260102-030405F_20260103-030405I`. Labels of
/// later backups sort later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupLabel(String);

impl BackupLabel {
    /// Reads a label; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = |text: &str| {
            text.len() == 15
                && text.bytes().enumerate().all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
        };
        let fits = match text.split_once('_') {
            None => text.strip_suffix('F').is_some_and(moment),
            Some((full, own)) => {
                full.strip_suffix('F').is_some_and(moment) && own.strip_suffix(['D', 'I']).is_some_and(moment)
            }
        };
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backup, as the vault holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// Its name.
    pub label: BackupLabel,
    /// How much it holds by itself.
    pub kind: BackupKind,
    /// When it began; whole seconds.
    pub started_at: Timestamp,
    /// When it was complete at the latest: every moment from then on can be restored to. Whole seconds,
    /// rounded up, so that it may lie a second after the backup's end.
    pub stopped_at: Timestamp,
    /// How large the instance's files were, in bytes.
    pub size: u64,
    /// How much the vault has grown by it, in bytes.
    pub stored: u64,
    /// The first WAL segment that a restore needs.
    pub first_segment: String,
    /// The last WAL segment that a restore to [`RecoverTo::Immediate`] needs.
    pub last_segment: String,
    /// The timeline that it is on.
    pub timeline: u32,
    /// The earlier backups that it cannot be restored without.
    pub requires: Vec<BackupLabel>,
    /// Pages with a wrong checksum were met: PostgreSQL's own files were damaged by then.
    pub damaged_pages: bool,
    /// The WAL that it needs is in the vault too. False for a moment after the backup, while its
    /// last segment is on its way, and for ever when that was lost.
    pub restorable: bool,
}

/// How far to recover a restored instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverTo {
    /// To the end of the backup, and no further.
    Immediate,
    /// To the last transaction that had committed at this moment. A moment after the end of the
    /// archive is its end.
    Time(Timestamp),
    /// To the end of the archive.
    Latest,
}

/// What a restore has brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreFacts {
    /// When the last transaction that is in it was committed; `None` when none was replayed, since
    /// nothing had been written after the backup, or it is a copy of an instance.
    pub last_commit_at: Option<Timestamp>,
    /// The timeline that the new instance is on.
    pub timeline: u32,
    /// How many bytes of files were brought.
    pub bytes: u64,
    /// How long it took until the instance was out of recovery and stopped, in milliseconds.
    #[serde(default)]
    pub milliseconds: u64,
}

/// What a check has found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFacts {
    /// How many tables and indexes were read, PostgreSQL's own among them.
    pub relations: u64,
}

/// How far a backup or a restore has come, in bytes. The total is an estimate while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// All there is to do.
    pub total: u64,
}

/// Who is told of progress: called often, so it must not wait for anything.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// For those whom progress does not interest.
pub fn no_progress() -> ProgressSink {
    Arc::new(|_| {})
}

/// How long to keep what can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Every moment of so many days stays restorable; so the newest full backup that is older is
    /// kept, and what is older than that goes. At least 1.
    pub days: u32,
}

/// WAL that was given up, because it could not be archived and would have filled the disk. No
/// restore can pass it: a backup made after it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first lost segment.
    pub first_segment: String,
    /// The last lost segment.
    pub last_segment: String,
    /// When it was given up.
    pub at: Timestamp,
    /// Everything that was committed before this moment was archived before it; `None`: not known.
    #[serde(default)]
    pub archived_until: Option<Timestamp>,
}

/// What is in the way of archiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// pgBackRest is missing.
    NotInstalled,
    /// The repository, or the disk, is full.
    Full,
    /// The repository answers, and does not let Howdah put anything into it.
    Refused,
    /// What is there is not the place that backups were kept in so far.
    WrongPlace,
    /// The repository cannot be reached, or does not answer in time.
    Unreachable,
    /// Anything else.
    Other,
}

impl From<&BackupError> for Obstacle {
    fn from(error: &BackupError) -> Self {
        match error {
            BackupError::NotInstalled => Self::NotInstalled,
            BackupError::Full { .. } => Self::Full,
            BackupError::Refused { .. } => Self::Refused,
            BackupError::Unreachable { .. } => Self::Unreachable,
            BackupError::WrongPlace(_) => Self::WrongPlace,
            _ => Self::Other,
        }
    }
}

/// How the archiving of an instance goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// Archiving has begun.
    pub enabled: bool,
    /// The key is known to the engine: [`Backups::ensure_archiving`] was called since it was
    /// opened. Until then segments wait.
    pub unlocked: bool,
    /// The segment that was archived last.
    pub last_segment: Option<String>,
    /// Everything that was committed before this moment is in the vault; `None`: not known. Of an instance that
    /// runs it is when the last segment that is in the vault was finished.
    pub archived_until: Option<Timestamp>,
    /// How many segments wait.
    pub pending_segments: usize,
    /// How much disk they take, in bytes.
    pub pending_bytes: u64,
    /// Since when nothing could be archived.
    pub failing_since: Option<Timestamp>,
    /// Why, for an operator.
    pub reason: Option<String>,
    /// Why, for whoever has the instance.
    pub obstacle: Option<Obstacle>,
    /// What was lost, oldest first.
    pub gaps: Vec<Gap>,
}

/// Why something about backups could not be done. Texts are for an operator, without secrets.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The instance could not be made, started or stopped.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// pgBackRest is missing.
    #[error("pgBackRest is not installed on this machine; install it (Debian, Ubuntu: apt-get install pgbackrest)")]
    NotInstalled,
    /// Something else is at work on the same vault; try again when it has ended.
    #[error("{0} is running; try again when it has ended")]
    Busy(&'static str),
    /// There is no such backup, or no longer.
    #[error("the backup {0} does not exist")]
    MissingBackup(BackupLabel),
    /// The instance has no vault in the repository: nothing was ever backed up, or it was forgotten.
    #[error("instance {0} has no backup repository")]
    MissingVault(InstanceId),
    /// What is in the repository is not what was put there, or the key does not open it. Trying
    /// again does not help; another backup may.
    #[error("the repository is damaged: {0}")]
    Damaged(String),
    /// Tables or indexes of a restored instance are not what PostgreSQL writes. The backup was made of
    /// files that were damaged by then, or was changed in a way that its checksums do not tell.
    #[error("the restored instance is damaged: {0}")]
    Corrupt(String),
    /// What looks at a restored instance is missing.
    #[error(
        "pg_amcheck of PostgreSQL {0} and its extension amcheck are not installed on this machine; install PostgreSQL's contrib package"
    )]
    CheckMissing(Major),
    /// WAL between the backup and the target was lost; choose a backup that was made after it.
    #[error("WAL from segment {0} on was lost, so this backup cannot be restored beyond it; restore a later backup")]
    Gap(String),
    /// WAL that the backup needs was lost before it was archived: more was written than could be archived, or
    /// somebody removed it. Another try may succeed.
    #[error("WAL that the backup needs was discarded, because it was written faster than it could be archived")]
    Lost,
    /// The target lies before the end of the backup; choose an earlier one.
    #[error("the moment is before the end of the backup; restore an earlier backup")]
    BeforeBackup,
    /// The instance is stopped and did not end cleanly: what it committed last is known after it was
    /// started again.
    #[error("the instance was not shut down cleanly; start it once")]
    Unclean,
    /// The instance's files include something that PostgreSQL does not create, such as links. Trying again does
    /// not help until it is removed.
    #[error("the instance cannot be backed up: {0}")]
    Foreign(String),
    /// The instance was stopped or destroyed meanwhile.
    #[error("the instance was stopped before the work ended")]
    Interrupted,
    /// What is where backups are kept is not the place that they were kept in so far, such as the directory
    /// that a disk is to be mounted on. Nothing is put there.
    #[error("{0}")]
    WrongPlace(String),
    /// The newest backup bears a time that has not come yet: the clock was ahead when it was made. No other
    /// can follow it before that.
    #[error(
        "the newest backup is dated in the future, because the clock was ahead when it was created ({0}); the next backup can be created after that time"
    )]
    ClockWasAhead(String),
    /// The repository, or the disk that what is on its way there waits on, is full.
    #[error("{doing}: no space left in the repository or on the disk")]
    Full {
        /// What was being done.
        doing: &'static str,
    },
    /// The repository answers, and does not let Howdah do it: its settings or rights have to be changed.
    #[error("{doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// The repository cannot be reached, or does not answer in time.
    #[error("{doing}: {reason}")]
    Unreachable {
        /// What was being done.
        doing: &'static str,
        /// What is known of it.
        reason: String,
    },
    /// Anything else that may pass.
    #[error("{doing}: {reason}")]
    Failed {
        /// What was being done, such as `back up the instance`.
        doing: &'static str,
        /// Why it failed, for people.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_recognised() {
        for label in ["20260102-030405F", "20260102-030405F_20260103-030405D", "20260102-030405F_20260103-030405I"] {
            assert_eq!(BackupLabel::parse(label).unwrap().as_str(), label);
        }
        for other in
            ["", "20260102-030405", "20260102-030405D", "2026010x-030405F", "20260102-030405F_x", "--set=x", "../F"]
        {
            assert_eq!(BackupLabel::parse(other), None, "{other}");
        }
    }

    #[test]
    fn repository_key_is_not_printed() {
        let vault = Vault::generate(InstanceId::from(uuid::Uuid::from_u128(1)));
        assert!(!format!("{vault:?}").contains(vault.key.expose()));
        assert_eq!(vault.key.expose().len(), 43);
    }
}
