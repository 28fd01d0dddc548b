//! Vaults of the in-memory engine. What an instance holds is one text, which tests write.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{FakeEngine, FakeInstance, State, Verb};
use crate::EngineError;
use crate::backups::{
    ArchiveStatus, BackupError, BackupFacts, BackupKind, BackupLabel, Backups, CheckFacts, Gap, Obstacle, Progress,
    ProgressSink, RecoverTo, RestoreFacts, Retention, Vault,
};
use base::id::InstanceId;
use base::secret::Secret;

/// The text in an instance that a check finds damaged.
pub const NOT_WHOLE: &str = "not whole";
/// How large everything is.
const SIZE: u64 = 1 << 20;

/// One vault.
pub(super) struct FakeVault {
    key: Secret,
    archiving: bool,
    unlocked: bool,
    timeline: u32,
    /// What was committed when, in the vault and not yet.
    archived: Vec<(Timestamp, String)>,
    pending: Vec<(Timestamp, String)>,
    failing_since: Option<Timestamp>,
    gaps: Vec<Gap>,
    backups: BTreeMap<BackupLabel, FakeBackup>,
    /// How many segments were lost or are needed by backups.
    segments: usize,
}

#[derive(Clone)]
struct FakeBackup {
    facts: BackupFacts,
    content: String,
    damaged: bool,
}

impl FakeEngine {
    /// Commits a text in the instance.
    pub fn write(&self, id: InstanceId, text: &str) {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(instance) = state.instances.get_mut(&id) {
            text.clone_into(&mut instance.content);
        }
        if let Some(vault) = state.vaults.get_mut(&id).filter(|vault| vault.archiving) {
            vault.pending.push((now, text.to_owned()));
        }
    }

    /// The text that was committed last.
    pub fn read(&self, id: InstanceId) -> Option<String> {
        self.state().instances.get(&id).map(|instance| instance.content.clone())
    }

    /// Makes the repository answer, or not.
    pub fn set_repository_reachable(&self, reachable: bool) {
        self.state().repository_gone = !reachable;
    }

    /// Gives up what waits to be archived.
    pub fn lose_wal(&self, id: InstanceId) {
        let at = self.clock.now();
        if let Some(vault) = self.state().vaults.get_mut(&id) {
            vault.pending.clear();
            vault.failing_since = None;
            let lost = vault.next_segment();
            vault.gaps.push(Gap { first_segment: lost.clone(), last_segment: lost, at, archived_until: None });
        }
    }

    /// Makes the disk full for restores, or not.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Makes files share their blocks from now on.
    pub fn share_blocks(&self) {
        self.state().shares = true;
    }

    /// Loses the WAL that the backups so far need, so that none of them can be restored.
    pub fn lose_wal_of_backups(&self, id: InstanceId) {
        if let Some(vault) = self.state().vaults.get_mut(&id) {
            vault.backups.values_mut().for_each(|backup| backup.facts.restorable = false);
        }
    }

    /// Changes a byte of a backup in the repository.
    pub fn damage_backup(&self, id: InstanceId, label: &BackupLabel) {
        if let Some(backup) = self.state().vaults.get_mut(&id).and_then(|vault| vault.backups.get_mut(label)) {
            backup.damaged = true;
        }
    }

    /// Forgets every key, as a process that has just been started has.
    pub fn lock_vaults(&self) {
        for vault in self.state().vaults.values_mut() {
            vault.unlocked = false;
        }
    }
}

#[async_trait]
impl Backups for FakeEngine {
    async fn ensure_archiving(&self, vault: &Vault) -> Result<(), BackupError> {
        self.call(Verb::EnsureArchiving, Some(vault.instance)).await?;
        let mut state = self.state();
        if !state.instances.contains_key(&vault.instance) {
            return Err(EngineError::Missing(vault.instance).into());
        }
        state.reach("start archiving")?;
        state.vaults.entry(vault.instance).or_insert_with(|| FakeVault::new(vault));
        let found = state.open(vault)?;
        (found.archiving, found.unlocked) = (true, true);
        Ok(())
    }

    async fn archive_pending(&self) -> Result<(), EngineError> {
        self.call(Verb::ArchivePending, None).await?;
        let now = self.clock.now();
        let mut state = self.state();
        let gone = state.repository_gone;
        for vault in state.vaults.values_mut().filter(|vault| vault.unlocked) {
            vault.push(gone, now);
        }
        Ok(())
    }

    async fn archive_status(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError> {
        self.call(Verb::ArchiveStatus, Some(id)).await?;
        let now = self.clock.now();
        let state = self.state();
        if !state.instances.contains_key(&id) {
            return Err(EngineError::Missing(id).into());
        }
        let Some(vault) = state.vaults.get(&id).filter(|vault| vault.archiving) else {
            return Ok(ArchiveStatus::default());
        };
        Ok(ArchiveStatus {
            enabled: true,
            unlocked: vault.unlocked,
            last_segment: vault.archived.last().map(|_| segment(vault.archived.len())),
            archived_until: if vault.pending.is_empty() { Some(now) } else { vault.archived.last().map(|(at, _)| *at) },
            pending_segments: vault.pending.len(),
            pending_bytes: vault.pending.len() as u64 * SIZE,
            failing_since: vault.failing_since,
            reason: vault.failing_since.map(|_| UNREACHABLE.to_owned()),
            obstacle: vault.failing_since.map(|_| Obstacle::Unreachable),
            gaps: vault.gaps.clone(),
        })
    }

    async fn flush_archive(&self, vault: &Vault) -> Result<(), BackupError> {
        self.call(Verb::FlushArchive, Some(vault.instance)).await?;
        let now = self.clock.now();
        let mut state = self.state();
        let gone = state.repository_gone;
        state.open(vault)?.push(gone, now);
        state.reach("archive the latest WAL")
    }

    async fn back_up(
        &self,
        vault: &Vault,
        kind: BackupKind,
        progress: ProgressSink,
    ) -> Result<BackupFacts, BackupError> {
        self.ensure_archiving(vault).await?;
        progress(Progress { done: 0, total: SIZE });
        self.call(Verb::BackUp, Some(vault.instance)).await?;
        progress(Progress { done: SIZE, total: SIZE });
        let now = self.clock.now();
        let mut state = self.state();
        state.reach("back up the instance")?;
        let instance = state.instances.get(&vault.instance).filter(|instance| instance.server.is_some());
        let content = instance.ok_or(EngineError::Missing(vault.instance))?.content.clone();
        let found = state.open(vault)?;
        found.push(false, now);
        Ok(found.add(kind, content, now))
    }

    async fn backups(&self, vault: &Vault) -> Result<Vec<BackupFacts>, BackupError> {
        self.call(Verb::Backups, Some(vault.instance)).await?;
        let mut state = self.state();
        state.reach("list the backups")?;
        match state.open(vault) {
            Ok(found) => Ok(found.backups.values().map(|backup| backup.facts.clone()).collect()),
            Err(BackupError::MissingVault(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn restore(
        &self,
        target: InstanceId,
        source: &Vault,
        label: &BackupLabel,
        to: RecoverTo,
        progress: ProgressSink,
    ) -> Result<RestoreFacts, BackupError> {
        progress(Progress { done: 0, total: SIZE });
        self.call(Verb::Restore, Some(target)).await?;
        progress(Progress { done: SIZE, total: SIZE });
        let mut state = self.state();
        if let Some(there) = state.instances.get(&target) {
            return there.restored.clone().ok_or_else(already_there);
        }
        state.reach("restore the backup")?;
        if state.full {
            return Err(EngineError::NoSpace { doing: "restore the backup" }.into());
        }
        let (major, system_identifier) = state.lineage(source);
        let found = state.open(source)?;
        let backup = found.backups.get(label).ok_or_else(|| BackupError::MissingBackup(label.clone()))?;
        if !backup.facts.restorable {
            return Err(BackupError::Gap(backup.facts.last_segment.clone()));
        }
        let builds_on_damage = |label| found.backups.get(label).is_some_and(|base| base.damaged);
        if backup.damaged || backup.facts.requires.iter().any(builds_on_damage) {
            return Err(BackupError::Damaged("a file of the backup has a wrong checksum".into()));
        }
        let (content, last_commit_at) = found.at(backup, to)?;
        let facts = RestoreFacts { last_commit_at, timeline: found.timeline + 1, bytes: SIZE, milliseconds: 500 };
        let mut instance = FakeInstance::new(major, system_identifier);
        instance.content = content;
        instance.timeline = facts.timeline;
        instance.restored = Some(facts.clone());
        state.instances.insert(target, instance);
        Ok(facts)
    }

    async fn copy(
        &self,
        target: InstanceId,
        source: InstanceId,
        _asleep: Box<dyn Send>,
    ) -> Result<Option<RestoreFacts>, BackupError> {
        self.call(Verb::Copy, Some(target)).await?;
        let mut state = self.state();
        if let Some(there) = state.instances.get(&target) {
            return there.restored.clone().map(Some).ok_or_else(already_there);
        }
        let sleeper = state.instances.get(&source).filter(|origin| state.shares && origin.server.is_none());
        let Some(sleeper) = sleeper else { return Ok(None) };
        let facts = RestoreFacts { last_commit_at: None, timeline: sleeper.timeline, bytes: SIZE, milliseconds: 1 };
        let mut instance = FakeInstance::new(sleeper.major, sleeper.system_identifier);
        instance.content.clone_from(&sleeper.content);
        instance.timeline = sleeper.timeline;
        instance.restored = Some(facts.clone());
        state.instances.insert(target, instance);
        Ok(Some(facts))
    }

    async fn check(&self, id: InstanceId, progress: ProgressSink) -> Result<CheckFacts, BackupError> {
        self.call(Verb::Check, Some(id)).await?;
        progress(Progress { done: SIZE, total: SIZE });
        let state = self.state();
        let instance = state.instances.get(&id).ok_or(EngineError::Missing(id))?;
        match instance.restored {
            Some(_) if instance.content == NOT_WHOLE => Err(BackupError::Corrupt("the test wrote it so".into())),
            Some(_) => Ok(CheckFacts { relations: 1 }),
            None => {
                let reason = "the instance was not created by a restore".to_owned();
                Err(BackupError::Failed { doing: "check the restored instance", reason })
            }
        }
    }

    async fn expire(&self, vault: &Vault, retention: Retention) -> Result<(), BackupError> {
        self.call(Verb::Expire, Some(vault.instance)).await?;
        let horizon = self.clock.now() - SignedDuration::from_hours(24 * i64::from(retention.days));
        let mut state = self.state();
        state.reach("remove old backups")?;
        let found = state.open(vault)?;
        let full = |backup: &&FakeBackup| backup.facts.kind == BackupKind::Full && backup.facts.stopped_at <= horizon;
        let oldest_kept = found.backups.values().filter(full).map(|backup| backup.facts.label.clone()).max();
        if let Some(oldest_kept) = oldest_kept {
            found.backups.retain(|label, _| *label >= oldest_kept);
        }
        Ok(())
    }

    async fn remove_backup(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError> {
        self.call(Verb::RemoveBackup, Some(vault.instance)).await?;
        let mut state = self.state();
        state.reach("remove the backup")?;
        let found = state.open(vault)?;
        found.backups.retain(|other, backup| other != label && !backup.facts.requires.contains(label));
        Ok(())
    }

    async fn verify(&self, vault: &Vault) -> Result<(), BackupError> {
        self.call(Verb::Verify, Some(vault.instance)).await?;
        let mut state = self.state();
        state.reach("verify the backups")?;
        match state.open(vault)?.backups.values().find(|backup| backup.damaged) {
            Some(backup) => {
                Err(BackupError::Damaged(format!("the backup {} has a wrong checksum", backup.facts.label)))
            }
            None => Ok(()),
        }
    }

    async fn ensure_forgotten(&self, vault: &Vault) -> Result<(), BackupError> {
        self.call(Verb::Forget, Some(vault.instance)).await?;
        let mut state = self.state();
        state.reach("forget the backups")?;
        state.vaults.remove(&vault.instance);
        Ok(())
    }
}

const UNREACHABLE: &str = "the test has the repository out of reach";

impl State {
    fn reach(&self, doing: &'static str) -> Result<(), BackupError> {
        match self.repository_gone {
            true => Err(BackupError::Unreachable { doing, reason: UNREACHABLE.into() }),
            false => Ok(()),
        }
    }

    fn open(&mut self, vault: &Vault) -> Result<&mut FakeVault, BackupError> {
        let timeline = self.instances.get(&vault.instance).map_or(1, |instance| instance.timeline);
        let found = self.vaults.get_mut(&vault.instance).ok_or(BackupError::MissingVault(vault.instance))?;
        if found.key != vault.key {
            return Err(BackupError::Damaged("the key does not open it".into()));
        }
        found.timeline = found.timeline.max(timeline);
        Ok(found)
    }

    /// What a restored instance has in common with the source of its vault.
    fn lineage(&self, source: &Vault) -> (crate::Major, u64) {
        let newest = self.majors.first().copied().unwrap_or(crate::Major(15));
        self.instances
            .get(&source.instance)
            .map_or((newest, source.instance.uuid().as_u64_pair().1), |origin| (origin.major, origin.system_identifier))
    }
}

impl FakeVault {
    fn new(vault: &Vault) -> Self {
        Self {
            key: vault.key.clone(),
            archiving: false,
            unlocked: false,
            timeline: 1,
            archived: Vec::new(),
            pending: Vec::new(),
            failing_since: None,
            gaps: Vec::new(),
            backups: BTreeMap::new(),
            segments: 0,
        }
    }

    fn next_segment(&mut self) -> String {
        self.segments += 1;
        segment(self.segments)
    }

    fn push(&mut self, gone: bool, now: Timestamp) {
        if self.pending.is_empty() {
            return;
        }
        if gone {
            self.failing_since.get_or_insert(now);
        } else {
            self.failing_since = None;
            self.archived.append(&mut self.pending);
        }
    }

    fn add(&mut self, wanted: BackupKind, content: String, now: Timestamp) -> BackupFacts {
        let full = self.backups.values().rev().find(|backup| backup.facts.kind == BackupKind::Full);
        let kind = if full.is_some() { wanted } else { BackupKind::Full };
        let requires: Vec<BackupLabel> = match kind {
            BackupKind::Full => Vec::new(),
            BackupKind::Differential => full.into_iter().map(|full| full.facts.label.clone()).collect(),
            BackupKind::Incremental => {
                let last = self.backups.values().next_back();
                last.into_iter()
                    .flat_map(|last| [last.facts.requires.clone(), vec![last.facts.label.clone()]].concat())
                    .collect()
            }
        };
        // Two backups of the same second do not share a name.
        let last = self.backups.values().next_back().map(|last| last.facts.stopped_at + SignedDuration::from_secs(1));
        let at = last.map_or(now, |last| last.max(now));
        let moment = at.strftime("%Y%m%d-%H%M%S");
        let text = match (kind, requires.first()) {
            (BackupKind::Differential, Some(full)) => format!("{full}_{moment}D"),
            (BackupKind::Incremental, Some(full)) => format!("{full}_{moment}I"),
            _ => format!("{moment}F"),
        };
        let label = BackupLabel::parse(&text).unwrap_or_else(|| unreachable!("{text} is a label"));
        let own_segment = self.next_segment();
        let facts = BackupFacts {
            label: label.clone(),
            kind,
            started_at: at,
            stopped_at: at,
            size: SIZE,
            stored: SIZE,
            first_segment: own_segment.clone(),
            last_segment: own_segment,
            timeline: self.timeline,
            requires,
            damaged_pages: false,
            restorable: true,
        };
        self.backups.insert(label, FakeBackup { facts: facts.clone(), content, damaged: false });
        facts
    }

    fn at(&self, backup: &FakeBackup, to: RecoverTo) -> Result<(String, Option<Timestamp>), BackupError> {
        let from = backup.facts.stopped_at;
        let until = match to {
            RecoverTo::Immediate => return Ok((backup.content.clone(), None)),
            RecoverTo::Latest => Timestamp::MAX,
            RecoverTo::Time(moment) if moment < from => return Err(BackupError::BeforeBackup),
            RecoverTo::Time(moment) => moment,
        };
        if let Some(gap) = self.gaps.iter().find(|gap| from <= gap.at && gap.at <= until) {
            return Err(BackupError::Gap(gap.first_segment.clone()));
        }
        let replayed = self.archived.iter().rev().find(|(at, _)| from < *at && *at <= until);
        Ok(replayed.map_or((backup.content.clone(), None), |(at, text)| (text.clone(), Some(*at))))
    }
}

fn already_there() -> BackupError {
    BackupError::Failed { doing: "restore the backup", reason: "the instance to restore into already exists".into() }
}

fn segment(number: usize) -> String {
    format!("{:08X}{:08X}{number:08X}", 1, 0)
}
