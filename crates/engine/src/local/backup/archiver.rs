//! Archiving: what waits in an instance's queue goes to its vault, in order and in batches.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::program::{Failure, PgBackRest};
use super::queue::{Queue, Taken};
use super::record::Record;
use super::segment::Segment;
use crate::EngineError;
use crate::backups::{ArchiveStatus, BackupError, Gap, Obstacle, Vault};
use crate::local::place::{Place, make_directory, sync_directory, write_private};
use crate::local::process::Server;
use crate::local::session::{Unanswered, ask_for_text};
use crate::local::template::{SEGMENT_BYTES, failed};
use crate::local::{LocalEngine, blocking, control_file, tree};
use base::disk::Level;
use base::id::InstanceId;
use base::secret::Secret;

const DOING: &str = "archive WAL";
/// How many instances are archived at a time.
const INSTANCES_AT_ONCE: usize = 4;
/// Looking into one queue takes one part of the time in this many at most, however many files are in it.
const SHARE_OF_LOOKS: u32 = 100;
/// A look that takes no longer needs no rest.
const SHORT_LOOK: Duration = Duration::from_millis(10);
/// How often all queues are looked into while some are emptied.
const ROUND: Duration = Duration::from_secs(1);
/// The most files that one run of pgBackRest pushes. It bounds how long others wait for their turn, and the disk
/// that copies on their way take.
const BATCH: usize = 64;
/// How long a run may take, and how much longer for each file.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_FOR_FILE: Duration = Duration::from_secs(10);
/// How long a stop waits until everything is archived: that of one instance, and that of all together.
const LAST_WORDS: Duration = Duration::from_secs(20);
const ALL_LAST_WORDS: Duration = Duration::from_secs(12);
/// How long to wait after a failure: doubled with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of every instance's archiving.
#[derive(Default)]
pub(in crate::local) struct Archives {
    all: Mutex<HashMap<InstanceId, Arc<Archive>>>,
    /// Instances that do not run, and in whose queues something may wait.
    lookout: Mutex<HashSet<InstanceId>>,
    /// No stop archives what its server has left: everything stops, and then that is done for all.
    all_stop: AtomicBool,
    /// Instances whose status has changed since somebody asked.
    changed: Mutex<HashSet<InstanceId>>,
    change: Notify,
}

/// The archiving of one instance, and who is at work on its vault.
#[derive(Default)]
pub(super) struct Archive {
    key: Mutex<Option<Secret>>,
    /// One at a time empties the queue.
    pushing: tokio::sync::Mutex<()>,
    /// One backup goes on at a time.
    pub(super) backing_up: tokio::sync::Mutex<()>,
    /// Backups and restores share it; who removes something from the vault has it alone.
    pub(super) vault: tokio::sync::RwLock<()>,
    trouble: Mutex<Option<Trouble>>,
    /// The last file of the batch that is on its way: what comes after it may be given up meanwhile.
    on_its_way: Mutex<Option<String>>,
    /// Held while gaps are read, changed and written.
    gaps: Mutex<()>,
    /// Not before then is its queue looked into by itself.
    next_look: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Trouble {
    since: Timestamp,
    reason: String,
    obstacle: Obstacle,
    pause: Duration,
    next_try: Instant,
}

/// How much of a queue to empty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// One batch.
    Batch,
    /// What waits when looked at first.
    Now,
    /// Until nothing waits.
    Empty,
}

impl Archives {
    pub(super) fn of(&self, id: InstanceId) -> Arc<Archive> {
        lock(&self.all).entry(id).or_default().clone()
    }

    pub(in crate::local) fn forget(&self, id: InstanceId) {
        lock(&self.all).remove(&id);
        lock(&self.lookout).remove(&id);
    }

    pub(in crate::local) fn look_out_for(&self, id: InstanceId) {
        lock(&self.lookout).insert(id);
    }

    fn note_change(&self, id: InstanceId) {
        lock(&self.changed).insert(id);
        self.change.notify_one();
    }
}

impl Archive {
    pub(super) fn unlock(&self, key: &Secret) {
        *lock(&self.key) = Some(key.clone());
    }

    pub(super) fn lock_again(&self) {
        *lock(&self.key) = None;
        *lock(&self.trouble) = None;
    }

    /// Waits for what is on its way into the vault, and keeps the next back.
    pub(super) async fn pushing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.pushing.lock().await
    }

    fn has_to_wait(&self) -> bool {
        lock(&self.trouble).as_ref().is_some_and(|trouble| trouble.next_try > Instant::now())
    }

    fn rests(&self) -> bool {
        lock(&self.next_look).is_some_and(|next| next > Instant::now())
    }

    fn rest_after(&self, look: Duration) {
        if look > SHORT_LOOK {
            *lock(&self.next_look) = Some(Instant::now() + look * SHARE_OF_LOOKS);
        }
    }

    fn note_success(&self, id: InstanceId) {
        if lock(&self.trouble).take().is_some() {
            tracing::info!(instance.id = %id, "WAL archiving of {id} has recovered");
        }
    }

    fn note_failure(&self, id: InstanceId, now: Timestamp, error: &BackupError) {
        let mut trouble = lock(&self.trouble);
        let pause = trouble.as_ref().map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        if trouble.is_none() {
            tracing::warn!(instance.id = %id, error = %error, "WAL archiving of {id} failed; retrying");
        }
        let since = trouble.as_ref().map_or(now, |before| before.since);
        let (reason, obstacle, next_try) = (error.to_string(), Obstacle::from(error), Instant::now() + pause);
        *trouble = Some(Trouble { since, reason, obstacle, pause, next_try });
    }
}

impl LocalEngine {
    /// Makes sure that the instance has a vault and that its WAL is kept for it.
    pub(super) async fn begin_archiving(&self, vault: &Vault) -> Result<(), BackupError> {
        const DOING: &str = "start archiving the instance";
        let id = vault.instance;
        let manifest = self.manifest(id)?;
        let (place, archive) = (self.place(id), self.archives.of(id));
        let reading = place.clone();
        if blocking(DOING, move || Record::read(&reading).map_err(failed(DOING))).await?.is_some() {
            archive.unlock(&vault.key);
            return Ok(());
        }
        let _alone = archive.pushing.lock().await;
        self.make_stanza(vault, &place, DOING).await?;
        tracing::info!(instance.id = %id, instance.major = %manifest.major(), "started WAL archiving of {id}");
        blocking(DOING, move || {
            // What was written before is in no backup's way.
            Queue::open(&place).and_then(|queue| queue.discard()).map_err(failed(DOING))?;
            Record::default().write(&place).map_err(failed(DOING))
        })
        .await?;
        archive.unlock(&vault.key);
        Ok(())
    }

    async fn make_stanza(&self, vault: &Vault, place: &Place, doing: &'static str) -> Result<(), BackupError> {
        self.check_repository().await?;
        let control = self.stand_in(vault, place).await?;
        let create = async || {
            let command = PgBackRest::new(&self.machine, vault)?.that_writes(&self.machine, vault.instance);
            let created = command.with("PG1_PATH", control.clone()).run(&["--no-online", "stanza-create"]).await;
            created.map(drop).map_err(|failure| failure.while_doing(doing))
        };
        // What is there in part was damaged, unless it was begun here on nothing.
        let is_ours = place.vault_intent().exists();
        if !is_ours && self.is_empty(vault, doing).await? {
            let place = place.clone();
            let note = move || write_private(&place.vault_intent(), b"").and_then(|()| sync_directory(&place.root));
            blocking(doing, move || note().map_err(failed(doing))).await?;
        }
        match create().await {
            Err(BackupError::Failed { .. }) if is_ours && self.is_unfinished(vault, doing).await.unwrap_or(false) => {
                let id = vault.instance;
                tracing::warn!(instance.id = %id, "creation of the backup repository of {id} was interrupted; restarting it");
                self.empty_vault(vault, doing).await?;
                create().await?;
            }
            created => created?,
        }
        let _ = fs::remove_file(place.vault_intent());
        Ok(())
    }

    /// Makes the vault of an instance that is archived anew, if nothing of it is in the repository. What was
    /// archived so far is lost with it: that is a gap. Says whether it was so.
    pub(super) async fn ensure_vault(&self, vault: &Vault) -> Result<bool, BackupError> {
        let archive = self.archives.of(vault.instance);
        let _alone = archive.pushing.lock().await;
        self.replace_lost_vault(vault).await
    }

    async fn replace_lost_vault(&self, vault: &Vault) -> Result<bool, BackupError> {
        const DOING: &str = "replace a lost backup repository";
        if !self.is_gone(vault, DOING).await? {
            return Ok(false);
        }
        let (id, place) = (vault.instance, self.place(vault.instance));
        let reading = place.clone();
        let recorded = blocking(DOING, move || Record::read(&reading).map_err(failed(DOING))).await?;
        let Some(mut record) = recorded else { return Ok(false) };
        self.make_stanza(vault, &place, DOING).await?;
        tracing::warn!(
            instance.id = %id,
            "the backup repository of {id} is gone; created a new one and restarted WAL archiving; a new backup is \
             needed"
        );
        if let Some(lost) = record.reached.last_segment.take() {
            let (at, archived_until) = (self.machine.config.clock.now(), record.reached.archived_until.take());
            record.gaps.push(Gap { first_segment: lost.clone(), last_segment: lost, at, archived_until });
        }
        let archive = self.archives.of(id);
        let written = blocking(DOING, move || {
            let gaps = record.gaps.clone();
            let changed = archive.change_gaps(&place, |there| there.gaps = gaps);
            changed.and_then(|()| record.note(&place)).map_err(failed(DOING))
        });
        written.await.map(|()| true).map_err(BackupError::from)
    }

    /// A directory that holds nothing of the instance but its control file, by which pgBackRest
    /// knows whose WAL it handles: so it need not look into the instance's own.
    pub(super) async fn stand_in(&self, vault: &Vault, place: &Place) -> Result<PathBuf, BackupError> {
        const DOING: &str = "prepare the backup repository";
        let (machine, instance, place) = (self.machine.clone(), vault.instance, place.clone());
        let made = blocking(DOING, move || {
            let make = || -> io::Result<PathBuf> {
                machine.make_vault(instance)?;
                let directory = machine.backup_work(instance).join("control");
                machine.make_for_backup_user(&directory)?;
                machine.make_for_backup_user(&directory.join("global"))?;
                let file = directory.join("global/pg_control");
                fs::write(&file, place.read_control_file()?)?;
                std::os::unix::fs::chown(&file, machine.backup_user, machine.backup_user)?;
                Ok(directory)
            };
            make().map_err(failed(DOING))
        });
        Ok(made.await?)
    }

    /// Returns the instances whose status has changed, as soon as there are any.
    pub(super) async fn changed_archives(&self) -> Vec<InstanceId> {
        loop {
            let changed = std::mem::take(&mut *lock(&self.archives.changed));
            if !changed.is_empty() {
                return changed.into_iter().collect();
            }
            self.archives.change.notified().await;
        }
    }

    /// Archives what waits, of some instances at a time and of each a batch in its turn, until nothing more can be
    /// archived. No flood of one keeps the others waiting, and what waits is bounded meanwhile.
    pub(super) async fn archive_everything(&self) -> Result<(), EngineError> {
        let (mut turns, mut pushing) = (VecDeque::new(), FuturesUnordered::new());
        let mut busy = HashSet::new();
        let mut looked = Instant::now();
        turns.extend(self.look_into_queues().await?);
        loop {
            while busy.len() < INSTANCES_AT_ONCE
                && let Some(id) = turns.pop_front()
            {
                let archive = self.archives.of(id);
                // Somebody else empties that queue, or it is tried again later.
                if archive.has_to_wait() || archive.pushing.try_lock().is_err() {
                    continue;
                }
                busy.insert(id);
                pushing.push(async move { (id, self.push(id, Until::Batch).await) });
            }
            if pushing.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some((id, pushed)) = pushing.next() => {
                    busy.remove(&id);
                    // What is wrong has been noted, and is tried again.
                    if matches!(pushed, Ok(More::Waits)) {
                        turns.push_back(id);
                    }
                }
                () = tokio::time::sleep_until(looked + ROUND) => {
                    looked = Instant::now();
                    let waiting = self.look_into_queues().await?;
                    let new = waiting.into_iter().filter(|id| !busy.contains(id) && !turns.contains(id));
                    let new: Vec<InstanceId> = new.collect();
                    turns.extend(new);
                }
            }
        }
    }

    /// Looks into all queues, gives up what is too much, and says whose are not empty.
    async fn look_into_queues(&self) -> Result<Vec<InstanceId>, EngineError> {
        let servers: Vec<(InstanceId, Arc<Server>)> = {
            let servers = lock(&self.servers);
            servers.iter().filter(|(_, server)| server.is_alive()).map(|(id, server)| (*id, server.clone())).collect()
        };
        let running: Vec<InstanceId> = servers.iter().map(|(id, _)| *id).collect();
        let woken: Vec<(Place, Arc<Server>)> =
            servers.into_iter().map(|(id, server)| (self.place(id), server)).collect();
        blocking(DOING, move || {
            woken.iter().for_each(|(place, server)| server.wake_checkpointer(place));
            Ok(())
        })
        .await?;
        let mut looked_out_for: HashSet<InstanceId> = lock(&self.archives.lookout).clone();
        for id in &running {
            looked_out_for.remove(id);
        }
        let asleep: Vec<InstanceId> = looked_out_for.into_iter().collect();
        let places: Vec<(InstanceId, Place, bool)> = running
            .into_iter()
            .map(|id| (id, true))
            .chain(asleep.into_iter().map(|id| (id, false)))
            .filter(|(id, _)| !self.archives.of(*id).rests())
            .map(|(id, runs)| (id, self.place(id), runs))
            .collect();
        let (archives, limit) = (places.iter().map(|(id, ..)| self.archives.of(*id)).collect::<Vec<_>>(), self.limit());
        let now = self.machine.config.clock.now();
        let looked = blocking(DOING, move || {
            let all = archives.iter().zip(&places);
            all.for_each(|(archive, (id, place, _))| archive.bound(place, *id, limit, now));
            Ok(sort_queues(places))
        });
        let Queues { waiting, empty, looks } = looked.await?;
        lock(&self.archives.lookout).retain(|id| !empty.contains(id));
        for (id, look) in looks {
            self.archives.of(id).rest_after(look);
        }
        Ok(waiting)
    }

    fn limit(&self) -> u64 {
        self.machine.config.backups.queue_limit
    }

    /// Archives what a server that has just stopped has left, if that can be done now.
    pub(in crate::local) async fn archive_after_stop(&self, id: InstanceId) {
        self.archives.look_out_for(id);
        if !self.archives.all_stop.load(Ordering::Relaxed) && !self.archives.of(id).has_to_wait() {
            let _ = timeout(LAST_WORDS, self.push(id, Until::Empty)).await;
        }
        self.archives.note_change(id);
    }

    /// From now on stops leave to [`LocalEngine::archive_last_words`] what is to be archived: each would
    /// wait for itself when the repository does not answer.
    pub fn expect_all_to_stop(&self) {
        self.machine.stop.cancel();
        self.archives.all_stop.store(true, Ordering::Relaxed);
    }

    /// Archives what all servers that have stopped have left, as far as that can be done in a few seconds,
    /// and says whose still waits. It waits on the disk, and is archived when Howdah runs again.
    ///
    /// # Errors
    /// When it cannot be told whose still waits.
    pub async fn archive_last_words(&self) -> Result<Vec<InstanceId>, EngineError> {
        // What comes of it is seen in the queues.
        let _ = timeout(ALL_LAST_WORDS, self.archive_everything()).await;
        let left: Vec<InstanceId> = lock(&self.archives.lookout).iter().copied().collect();
        let places = left.into_iter().map(|id| (id, self.place(id), false)).collect();
        let Queues { mut waiting, .. } = blocking(DOING, move || Ok(sort_queues(places))).await?;
        waiting.sort_unstable();
        Ok(waiting)
    }

    /// Archives everything that was committed before.
    pub(super) async fn flush(&self, vault: &Vault) -> Result<(), BackupError> {
        const DOING: &str = "archive the latest WAL";
        let id = vault.instance;
        self.manifest(id)?;
        self.archives.of(id).unlock(&vault.key);
        let place = self.place(id);
        if self.known(id).is_some_and(|server| server.is_alive()) {
            ask_for_text(&place, "SELECT pg_catalog.pg_switch_wal()")
                .await
                .map_err(|error| unanswered(DOING, error))?;
        } else if !self.is_cleanly_stopped(&place).await {
            return Err(BackupError::Unclean);
        }
        self.push_now(id).await
    }

    /// Archives what waits now, whatever happened before.
    pub(super) async fn push_now(&self, id: InstanceId) -> Result<(), BackupError> {
        self.push(id, Until::Now).await.map(drop)
    }

    async fn push(&self, id: InstanceId, until: Until) -> Result<More, BackupError> {
        let archive = self.archives.of(id);
        let _one_at_a_time = archive.pushing.lock().await;
        let mut put = false;
        let pushed = match self.machine.has_no_room_for(id, Level::Scarce) {
            true => Err(BackupError::Full { doing: DOING }),
            false => self.push_all(id, &archive, until, &mut put).await,
        };
        *lock(&archive.on_its_way) = None;
        match &pushed {
            Ok(_) if put => archive.note_success(id),
            // Nothing was put there, so nothing is known of the place; what waited may have been given up.
            Ok(_) => {}
            Err(error) => archive.note_failure(id, self.machine.config.clock.now(), error),
        }
        if put || pushed.is_err() {
            self.archives.note_change(id);
        }
        pushed
    }

    /// Sets `put` once anything was put into the vault.
    async fn push_all(
        &self,
        id: InstanceId,
        archive: &Arc<Archive>,
        until: Until,
        put: &mut bool,
    ) -> Result<More, BackupError> {
        let (place, mut left) = (self.place(id), None);
        if !place.exists() {
            return Ok(More::Nothing);
        }
        loop {
            let (limit, now) = (self.limit(), self.machine.config.clock.now());
            let (looking, looker) = (place.clone(), archive.clone());
            let found =
                blocking(DOING, move || looker.look(&looking, id, limit, now, true).map_err(failed(DOING))).await?;
            let Some(Look { mut record, ready, lost }) = found else { return Ok(More::Nothing) };
            if lost {
                self.archives.note_change(id);
            }
            // Without the key it waits; the status says so.
            let Some(key) = lock(&archive.key).clone().filter(|_| !ready.is_empty()) else { return Ok(More::Nothing) };
            let vault = Vault { instance: id, key };
            let count = ready.len();
            let batch: Vec<String> = ready.into_iter().take(BATCH).collect();
            let done = match self.push_batch(&vault, &place, archive, &batch, &mut record).await {
                Ok(done) => done,
                Err(BackupError::MissingVault(_)) if self.replace_lost_vault(&vault).await? => continue,
                Err(BackupError::MissingVault(_)) => {
                    let reason = "a part of the backup repository is missing, such as its archive.info";
                    return Err(BackupError::Failed { doing: DOING, reason: reason.into() });
                }
                Err(error) => return Err(error),
            };
            *put |= done > 0;
            let left = left.get_or_insert(count);
            *left = left.saturating_sub(done.max(1));
            match until {
                Until::Batch if count > done => return Ok(More::Waits),
                Until::Batch => return Ok(More::Nothing),
                Until::Now if *left == 0 => return Ok(More::Nothing),
                Until::Now | Until::Empty => {}
            }
        }
    }

    /// Puts files into the vault, and says how many of the first ones are there. None when the first is missing,
    /// which is noted.
    async fn push_batch(
        &self,
        vault: &Vault,
        place: &Place,
        archive: &Arc<Archive>,
        names: &[String],
        record: &mut Record,
    ) -> Result<usize, BackupError> {
        self.check_repository().await?;
        let control = self.stand_in(vault, place).await?;
        *lock(&archive.on_its_way) = names.last().cloned();
        let (machine, id, batch) = (self.machine.clone(), vault.instance, Batch { wal: control.join("pg_wal") });
        let (from, wanted, into) = (place.clone(), names.to_vec(), batch.wal.clone());
        let taken: Vec<Taken> = blocking(DOING, move || {
            let take = || -> io::Result<Vec<Taken>> {
                remove_batch(&into)?;
                remove_batch(&machine.backup_work(id).join("spool"))?;
                machine.make_vault_work(id)?;
                machine.make_for_backup_user(&into)?;
                machine.make_for_backup_user(&into.join("archive_status"))?;
                let (queue, mut taken) = (Queue::open(&from)?, Vec::new());
                for name in wanted {
                    let Some(file) = queue.take(&name, &into, machine.backup_user)? else { break };
                    let mark = into.join("archive_status").join(name + ".ready");
                    fs::write(&mark, b"")?;
                    std::os::unix::fs::chown(&mark, machine.backup_user, machine.backup_user)?;
                    taken.push(file);
                }
                Ok(taken)
            };
            take().map_err(failed(DOING))
        })
        .await?;
        let Some(first) = names.first().filter(|_| taken.is_empty()) else {
            let done = self.push_taken(vault, &batch, control, &taken, names).await;
            let done = self.note_archived(place, &batch, names, &taken, record, done).await?;
            return Ok(done);
        };
        self.note_missing(place, archive, first).await.map(|()| 0)
    }

    /// Runs pgBackRest on a batch. How much of it is in the vault stands in its spool, whatever comes of that.
    async fn push_taken(
        &self,
        vault: &Vault,
        batch: &Batch,
        control: PathBuf,
        taken: &[Taken],
        names: &[String],
    ) -> Result<usize, BackupError> {
        let id = vault.instance;
        let command = PgBackRest::new(&self.machine, vault)?
            .that_writes(&self.machine, id)
            .with("PG1_PATH", control)
            .with("ARCHIVE_ASYNC", "y");
        // It pushes what is marked as ready there, with some processes at a time, and says for each file in its
        // spool how that went.
        let path = batch.wal.to_string_lossy().into_owned();
        let patience = PATIENCE + PATIENCE_FOR_FILE * u32::try_from(taken.len()).unwrap_or(u32::MAX);
        let pushed = timeout(patience, command.run(&["archive-push:async", &path])).await;
        let out = self.machine.backup_work(id).join("spool/archive").join(id.bare()).join("out");
        let asked: Vec<String> = names.iter().take(taken.len()).cloned().collect();
        let said = blocking(DOING, move || Ok(Spooled::read(&out, &asked))).await?;
        match (said.failure, pushed) {
            _ if said.done > 0 => Ok(said.done),
            (Some(failure), _) | (None, Ok(Err(failure))) if failure.misses_vault() => {
                Err(BackupError::MissingVault(id))
            }
            (Some(failure), _) | (None, Ok(Err(failure))) => Err(failure.into_archive_error()),
            (None, Ok(Ok(_))) => {
                let reason = "pgBackRest did not report the result for a file".into();
                Err(BackupError::Failed { doing: DOING, reason })
            }
            (None, Err(_)) => {
                let reason = "the repository is not responding".into();
                Err(BackupError::Unreachable { doing: DOING, reason })
            }
        }
    }

    /// Lets PostgreSQL go on without what is in the vault.
    async fn note_archived(
        &self,
        place: &Place,
        batch: &Batch,
        names: &[String],
        taken: &[Taken],
        record: &mut Record,
        done: Result<usize, BackupError>,
    ) -> Result<usize, BackupError> {
        let wal = batch.wal.clone();
        let archived: Vec<String> = names.iter().take(*done.as_ref().unwrap_or(&0)).cloned().collect();
        for (name, file) in archived.iter().zip(taken) {
            if Segment::parse(name).is_some() {
                record.reached.last_segment = Some(name.clone());
                record.reached.archived_until = file.finished_at.or(record.reached.archived_until);
            }
        }
        let (place, record) = (place.clone(), record.clone());
        let noted = blocking(DOING, move || {
            let note = || -> io::Result<()> {
                let queue = Queue::open(&place)?;
                archived.iter().try_for_each(|name| queue.done(name))?;
                if !archived.is_empty() {
                    record.note(&place)?;
                }
                remove_batch(&wal)
            };
            note().map_err(failed(DOING))
        });
        noted.await?;
        done
    }

    /// PostgreSQL removes nothing that waits; so somebody in the instance did.
    async fn note_missing(&self, place: &Place, archive: &Arc<Archive>, name: &str) -> Result<(), BackupError> {
        let now = self.machine.config.clock.now();
        let (place, name, archive) = (place.clone(), name.to_owned(), archive.clone());
        let noted = blocking(DOING, move || {
            let note = || -> io::Result<()> {
                if Segment::parse(&name).is_some() {
                    archive.change_gaps(&place, |record| record.note_loss(&name, now))?;
                }
                Queue::open(&place).and_then(|queue| queue.drop_mark(&name))
            };
            note().map_err(failed(DOING))
        });
        Ok(noted.await?)
    }

    pub(super) async fn status_of_archive(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError> {
        const DOING: &str = "check the archiving";
        self.manifest(id)?;
        let place = self.place(id);
        let archive = self.archives.of(id);
        let looking = place.clone();
        let looked = blocking(DOING, move || {
            let look = || -> io::Result<_> { Ok((Record::read(&looking)?, Queue::open(&looking)?.ready()?.len())) };
            look().map_err(failed(DOING))
        });
        let (Some(record), pending_segments) = looked.await? else { return Ok(ArchiveStatus::default()) };
        let now = self.machine.config.clock.now();
        let runs = self.known(id).is_some_and(|server| server.is_alive());
        let archived_until = if pending_segments == 0 && !runs && self.is_cleanly_stopped(&place).await {
            Some(now)
        } else {
            // A moment that has not come yet is one of a clock that was set back since.
            record.reached.archived_until.filter(|until| *until <= now)
        };
        let trouble = lock(&archive.trouble).clone();
        let unlocked = lock(&archive.key).is_some();
        Ok(ArchiveStatus {
            enabled: true,
            unlocked,
            last_segment: record.reached.last_segment,
            archived_until,
            pending_segments,
            pending_bytes: pending_segments as u64 * SEGMENT_BYTES,
            failing_since: trouble.as_ref().map(|trouble| trouble.since),
            obstacle: trouble.as_ref().map(|trouble| trouble.obstacle),
            reason: trouble.map(|trouble| trouble.reason),
            gaps: record.gaps,
        })
    }

    /// Whether the server that ran last ended with everything written.
    async fn is_cleanly_stopped(&self, place: &Place) -> bool {
        let place = place.clone();
        let looked = blocking(DOING, move || place.read_control_file().map_err(failed(DOING))).await;
        looked.is_ok_and(|control| control_file::is_shut_down(&control))
    }
}

/// What a look into some queues found.
#[derive(Default)]
struct Queues {
    /// Something waits in these.
    waiting: Vec<InstanceId>,
    /// These are empty, and their instances asleep.
    empty: HashSet<InstanceId>,
    /// How long it took to look into each.
    looks: Vec<(InstanceId, Duration)>,
}

/// Removes the directory of a batch. It holds no more than a batch does, so a stop, which still archives what was
/// written last, waits for it.
fn remove_batch(directory: &Path) -> io::Result<()> {
    tree::remove(directory, &CancellationToken::new())
}

/// Looks into queues. What instances write that are not archived is let go.
fn sort_queues(places: Vec<(InstanceId, Place, bool)>) -> Queues {
    let Queues { mut waiting, mut empty, mut looks } = Queues::default();
    for (id, place, runs) in places {
        let begun = Instant::now();
        let look = || -> io::Result<bool> {
            let queue = Queue::open(&place)?;
            if Record::read(&place)?.is_none() {
                queue.discard()?;
            }
            queue.is_empty()
        };
        match look() {
            Ok(false) => waiting.push(id),
            Ok(true) if !runs => drop(empty.insert(id)),
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => drop(empty.insert(id)),
            Err(error) => tracing::debug!(instance.id = %id, %error, "could not read the archive queue of {id}"),
        }
        looks.push((id, begun.elapsed()));
    }
    Queues { waiting, empty, looks }
}

/// What a look into the queue of an instance that is archived found.
struct Look {
    record: Record,
    /// What waits, in order.
    ready: Vec<String>,
    /// Something was lost.
    lost: bool,
}

impl Archive {
    /// Gives up what waits if that is too much. It is done for all while others are served.
    fn bound(&self, place: &Place, id: InstanceId, limit: u64, now: Timestamp) {
        if let Err(error) = self.look(place, id, limit, now, false)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(instance.id = %id, %error, "could not read the archive queue of {id}");
        }
    }

    /// What waits, after what has become too much was given up, and with `check` what is missing. `None`: the
    /// instance is not archived.
    fn look(&self, place: &Place, id: InstanceId, limit: u64, now: Timestamp, check: bool) -> io::Result<Option<Look>> {
        let queue = Queue::open(place)?;
        if Record::read(place)?.is_none() {
            queue.discard()?;
            return Ok(None);
        }
        let mut ready = queue.ready()?;
        let mut lost = false;
        if check {
            (ready, lost) = self.forget_missing(&queue, ready, place, now)?;
        }
        let on_its_way = lock(&self.on_its_way).clone();
        let waits =
            |name: &&String| Segment::parse(name).is_some() && on_its_way.as_ref().is_none_or(|last| *name > last);
        let segments: Vec<String> = ready.iter().filter(waits).cloned().collect();
        let waiting = segments.len() as u64 * SEGMENT_BYTES;
        if let Some((first, last)) = segments.first().zip(segments.last()).filter(|_| waiting > limit) {
            tracing::error!(
                instance.id = %id,
                "discarded {} MiB of WAL of {id}, which could not be archived and would have filled the disk; moments \
                 from now until its next backup cannot be restored",
                waiting >> 20
            );
            self.change_gaps(place, |record| {
                let archived_until = record.reached.archived_until;
                let (first_segment, last_segment) = (first.clone(), last.clone());
                record.gaps.push(Gap { first_segment, last_segment, at: now, archived_until });
            })?;
            segments.iter().try_for_each(|name| queue.done(name))?;
            ready.retain(|name| !segments.contains(name));
            lost = true;
        }
        let record = Record::read(place)?;
        Ok(record.map(|record| Look { record, ready, lost }))
    }

    /// Removes the marks whose files are missing, and notes a gap for each row of them. PostgreSQL removes nothing
    /// that is marked: so somebody in the instance removed the file, or made the mark.
    fn forget_missing(
        &self,
        queue: &Queue,
        ready: Vec<String>,
        place: &Place,
        at: Timestamp,
    ) -> io::Result<(Vec<String>, bool)> {
        let (mut present, mut missing) = (Vec::new(), Vec::new());
        for name in ready {
            if queue.has(&name)? { present.push(name) } else { missing.push(name) }
        }
        let lost: Vec<&String> = missing.iter().filter(|name| Segment::parse(name).is_some()).collect();
        if !lost.is_empty() {
            self.change_gaps(place, |record| lost.iter().for_each(|name| record.note_loss(name, at)))?;
        }
        missing.iter().try_for_each(|name| queue.drop_mark(name))?;
        Ok((present, !lost.is_empty()))
    }

    fn change_gaps(&self, place: &Place, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let _alone = lock(&self.gaps);
        let Some(mut record) = Record::read(place)? else { return Ok(()) };
        change(&mut record);
        record.write(place)
    }
}

/// Whether more waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Waits,
    Nothing,
}

/// Files on their way, in a directory like PostgreSQL's.
struct Batch {
    wal: PathBuf,
}

/// What pgBackRest has written in its spool about a batch.
struct Spooled {
    /// How many of the first files are in the vault.
    done: usize,
    /// Why the next one is not.
    failure: Option<Failure>,
}

impl Spooled {
    fn read(out: &Path, names: &[String]) -> Self {
        let done = names.iter().take_while(|name| out.join(format!("{name}.ok")).exists()).count();
        let error = |name: &str| fs::read_to_string(out.join(format!("{name}.error"))).ok();
        let said = names.get(done).and_then(|name| error(name).or_else(|| error("global")));
        Self { done, failure: said.map(|said| Failure::spooled(&said)) }
    }
}

pub(super) fn unanswered(doing: &'static str, error: Unanswered) -> BackupError {
    error.while_doing(doing).into()
}

impl Failure {
    fn into_archive_error(self) -> BackupError {
        self.while_doing(DOING)
    }
}

impl super::super::Machine {
    /// Makes a directory that is the backup user's alone.
    pub(super) fn make_for_backup_user(&self, path: &Path) -> io::Result<()> {
        make_directory(path, 0o700)?;
        std::os::unix::fs::chown(path, self.backup_user, self.backup_user)
    }
}

/// None of these locks is held across an await or while anything can panic half-way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_without_files_are_removed_at_once_and_leave_one_gap() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        let wal = place.data().join("pg_wal");
        fs::create_dir_all(wal.join("archive_status")).unwrap();
        Record::default().write(&place).unwrap();
        let name = |number: u64| format!("0000000100000000{number:08X}");
        for number in 1..=1500 {
            fs::write(wal.join("archive_status").join(name(number) + ".ready"), "").unwrap();
        }
        fs::write(wal.join(name(1)), "wal").unwrap();
        fs::write(wal.join(name(1500)), "wal").unwrap();
        let id = InstanceId::from(uuid::Uuid::from_u128(1));
        let look = Archive::default().look(&place, id, u64::MAX, Timestamp::UNIX_EPOCH, true);
        let Look { record, ready, lost } = look.unwrap().unwrap();
        assert!(lost);
        assert_eq!(ready, [name(1), name(1500)]);
        let gaps: Vec<_> =
            record.gaps.iter().map(|gap| (gap.first_segment.clone(), gap.last_segment.clone())).collect();
        assert_eq!(gaps, [(name(2), name(1499))]);
        assert_eq!(Record::read(&place).unwrap().unwrap().gaps, record.gaps);
        assert_eq!(fs::read_dir(wal.join("archive_status")).unwrap().count(), 2);
    }

    #[test]
    fn queue_over_its_limit_is_discarded_except_the_current_batch() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        let wal = place.data().join("pg_wal");
        fs::create_dir_all(wal.join("archive_status")).unwrap();
        Record::default().write(&place).unwrap();
        let name = |number: u64| format!("0000000100000000{number:08X}");
        for number in 1..=9 {
            fs::write(wal.join("archive_status").join(name(number) + ".ready"), "").unwrap();
            fs::write(wal.join(name(number)), "wal").unwrap();
        }
        let (id, archive) = (InstanceId::from(uuid::Uuid::from_u128(1)), Archive::default());
        *lock(&archive.on_its_way) = Some(name(3));
        archive.bound(&place, id, 6 * SEGMENT_BYTES, Timestamp::UNIX_EPOCH);
        assert_eq!(Record::read(&place).unwrap().unwrap().gaps, [], "six wait, besides those on their way");
        archive.bound(&place, id, 5 * SEGMENT_BYTES, Timestamp::UNIX_EPOCH);
        let gaps = Record::read(&place).unwrap().unwrap().gaps;
        assert_eq!((gaps[0].first_segment.clone(), gaps[0].last_segment.clone()), (name(4), name(9)));
        assert_eq!(Queue::open(&place).unwrap().ready().unwrap(), [name(1), name(2), name(3)]);
    }

    #[test]
    fn segments_count_as_archived_up_to_the_first_gap() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"].map(str::to_owned);
        fs::write(directory.path().join("a.ok"), "").unwrap();
        fs::write(directory.path().join("c.ok"), "0\nit was there").unwrap();
        fs::write(directory.path().join("b.error"), "64\nunable to write: [28] No space left on device").unwrap();
        let said = Spooled::read(directory.path(), &names);
        assert_eq!(said.done, 1);
        let error = said.failure.unwrap().into_archive_error();
        assert!(matches!(error, BackupError::Full { .. }), "{error}");
    }
}
