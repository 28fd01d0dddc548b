//! Archiving: what waits in an instance's queue goes to its vault, in order, one by one.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::program::{Failure, PgBackRest};
use super::queue::{Queue, Taken};
use super::record::Record;
use super::segment::Segment;
use crate::base::disk::Level;
use crate::base::id::InstanceId;
use crate::base::secret::Secret;
use crate::engine::EngineError;
use crate::engine::backups::{ArchiveStatus, BackupError, Gap, Obstacle, Vault};
use crate::engine::local::place::{Place, make_directory, sync_directory, write_private};
use crate::engine::local::process::Server;
use crate::engine::local::session::{Unanswered, ask_for_text};
use crate::engine::local::template::{SEGMENT_BYTES, failed};
use crate::engine::local::{LocalEngine, blocking, control_file};

const DOING: &str = "archive what was written";
/// How many instances are archived at a time.
const INSTANCES_AT_ONCE: usize = 4;
/// Looking into one queue takes one part of the time in this many at most, however many files are in it.
const SHARE_OF_LOOKS: u32 = 100;
/// A look that takes no longer needs no rest.
const SHORT_LOOK: Duration = Duration::from_millis(10);
/// How long one file may take on its way.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a stop waits until everything is archived: that of one instance, and that of all together.
const LAST_WORDS: Duration = Duration::from_secs(20);
const ALL_LAST_WORDS: Duration = Duration::from_secs(12);
/// How long to wait after a failure: doubled with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is known of every instance's archiving.
#[derive(Default)]
pub(in crate::engine::local) struct Archives {
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
    /// What waits when looked at first.
    Now,
    /// Until nothing waits.
    Empty,
}

impl Archives {
    pub(super) fn of(&self, id: InstanceId) -> Arc<Archive> {
        lock(&self.all).entry(id).or_default().clone()
    }

    pub(in crate::engine::local) fn forget(&self, id: InstanceId) {
        lock(&self.all).remove(&id);
        lock(&self.lookout).remove(&id);
    }

    pub(in crate::engine::local) fn look_out_for(&self, id: InstanceId) {
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
            tracing::info!(instance.id = %id, "what {id} writes is archived again");
        }
    }

    fn note_failure(&self, id: InstanceId, now: Timestamp, error: &BackupError) {
        let mut trouble = lock(&self.trouble);
        let pause = trouble.as_ref().map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        if trouble.is_none() {
            tracing::warn!(instance.id = %id, error = %error, "what {id} writes cannot be archived; it waits, and is tried again");
        }
        let since = trouble.as_ref().map_or(now, |before| before.since);
        let (reason, obstacle, next_try) = (error.to_string(), Obstacle::from(error), Instant::now() + pause);
        *trouble = Some(Trouble { since, reason, obstacle, pause, next_try });
    }
}

impl LocalEngine {
    /// Makes sure that the instance has a vault and that its WAL is kept for it.
    pub(super) async fn begin_archiving(&self, vault: &Vault) -> Result<(), BackupError> {
        const DOING: &str = "begin to archive the instance";
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
        tracing::info!(instance.id = %id, instance.major = %manifest.major(), "what {id} writes is archived from now on");
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
                tracing::warn!(instance.id = %id, "the making of the vault of {id} was interrupted; it is begun again");
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
        const DOING: &str = "begin a vault anew";
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
            "the backups of {id} are no longer where they were kept; what it writes is archived there anew, and a \
             backup is needed"
        );
        if let Some(lost) = record.reached.last_segment.take() {
            let (at, archived_until) = (self.machine.config.clock.now(), record.reached.archived_until.take());
            record.gaps.push(Gap { first_segment: lost.clone(), last_segment: lost, at, archived_until });
        }
        let written =
            blocking(DOING, move || record.write(&place).and_then(|()| record.note(&place)).map_err(failed(DOING)));
        written.await.map(|()| true).map_err(BackupError::from)
    }

    /// A directory that holds nothing of the instance but its control file, by which pgBackRest
    /// knows whose WAL it handles: so it need not look into the instance's own.
    pub(super) async fn stand_in(&self, vault: &Vault, place: &Place) -> Result<PathBuf, BackupError> {
        const DOING: &str = "prepare the instance's vault";
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

    /// One round for everybody.
    pub(super) async fn archive_everything(&self) -> Result<(), EngineError> {
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
        let Queues { waiting, empty, looks } = blocking(DOING, move || Ok(sort_queues(places))).await?;
        lock(&self.archives.lookout).retain(|id| !empty.contains(id));
        for (id, look) in looks {
            self.archives.of(id).rest_after(look);
        }
        stream::iter(waiting)
            .for_each_concurrent(INSTANCES_AT_ONCE, |id| async move {
                let archive = self.archives.of(id);
                if !archive.has_to_wait() {
                    // What is wrong has been noted, and is tried again.
                    let _ = self.push(id, Until::Empty).await;
                }
            })
            .await;
        Ok(())
    }

    /// Archives what a server that has just stopped has left, if that can be done now.
    pub(in crate::engine::local) async fn archive_after_stop(&self, id: InstanceId) {
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
        const DOING: &str = "archive what was written last";
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
        self.push(id, Until::Now).await
    }

    /// Archives what waits now, whatever happened before.
    pub(super) async fn push_now(&self, id: InstanceId) -> Result<(), BackupError> {
        self.push(id, Until::Now).await
    }

    async fn push(&self, id: InstanceId, until: Until) -> Result<(), BackupError> {
        let archive = self.archives.of(id);
        let _one_at_a_time = archive.pushing.lock().await;
        let pushed = match self.machine.has_no_room_for(id, Level::Scarce) {
            true => Err(BackupError::Full { doing: DOING }),
            false => self.push_all(id, &archive, until).await,
        };
        match &pushed {
            Ok(true) => archive.note_success(id),
            // Nothing was put there, so nothing is known of the place; what waited may have been given up.
            Ok(false) => {}
            Err(error) => archive.note_failure(id, self.machine.config.clock.now(), error),
        }
        if !matches!(pushed, Ok(false)) {
            self.archives.note_change(id);
        }
        pushed.map(drop)
    }

    /// Says whether anything was put into the vault.
    async fn push_all(&self, id: InstanceId, archive: &Archive, until: Until) -> Result<bool, BackupError> {
        let (place, mut put) = (self.place(id), false);
        if !place.exists() {
            return Ok(put);
        }
        'look: loop {
            let (limit, now) = (self.machine.config.backups.queue_limit, self.machine.config.clock.now());
            let looking = place.clone();
            let found = blocking(DOING, move || look(&looking, id, limit, now).map_err(failed(DOING))).await?;
            let Some(Look { mut record, ready, lost }) = found else { return Ok(put) };
            if lost {
                self.archives.note_change(id);
            }
            if ready.is_empty() {
                return Ok(put);
            }
            // Without the key it waits; the status says so.
            let Some(key) = lock(&archive.key).clone() else { return Ok(put) };
            let vault = Vault { instance: id, key };
            for name in ready {
                match self.push_one(&vault, &place, &name, &mut record).await {
                    Ok(there) => put |= there,
                    Err(BackupError::MissingVault(_)) if self.replace_lost_vault(&vault).await? => continue 'look,
                    Err(BackupError::MissingVault(_)) => {
                        let reason = "a part of the vault is no longer in the repository, such as its archive.info";
                        return Err(BackupError::Failed { doing: DOING, reason: reason.into() });
                    }
                    Err(error) => return Err(error),
                }
            }
            if until == Until::Now {
                return Ok(put);
            }
        }
    }

    /// Says whether it was there to be put into the vault.
    async fn push_one(
        &self,
        vault: &Vault,
        place: &Place,
        name: &str,
        record: &mut Record,
    ) -> Result<bool, BackupError> {
        self.check_repository().await?;
        let (machine, id) = (self.machine.clone(), vault.instance);
        let (from, wanted) = (place.clone(), name.to_owned());
        let taken: Option<Taken> = blocking(DOING, move || {
            let take = || -> io::Result<Option<Taken>> {
                machine.make_vault(id)?;
                let into = machine.backup_work(id).join("push");
                machine.make_for_backup_user(&into)?;
                Queue::open(&from)?.take(&wanted, &into, machine.backup_user)
            };
            take().map_err(failed(DOING))
        })
        .await?;
        let Some(taken) = taken else {
            return self.note_missing(place, name, record).await.map(|()| false);
        };
        let path = taken.path.to_string_lossy().into_owned();
        let command = PgBackRest::new(&self.machine, vault)?.that_writes(&self.machine, id);
        let pushed = timeout(PATIENCE, command.run(&["archive-push", &path])).await;
        let _ = fs::remove_file(&taken.path);
        match pushed {
            Ok(Err(failure)) if failure.misses_vault() => return Err(BackupError::MissingVault(id)),
            Ok(pushed) => pushed.map_err(Failure::into_archive_error)?,
            Err(_) => {
                let reason = "the repository does not answer".into();
                return Err(BackupError::Failed { doing: DOING, reason });
            }
        };
        if Segment::parse(name).is_some() {
            record.reached.last_segment = Some(name.to_owned());
            record.reached.archived_until = taken.finished_at.or(record.reached.archived_until);
        }
        let (place, name, record) = (place.clone(), name.to_owned(), record.clone());
        let noted = blocking(DOING, move || {
            Queue::open(&place).and_then(|queue| queue.done(&name)).map_err(failed(DOING))?;
            record.note(&place).map_err(failed(DOING))
        });
        noted.await?;
        Ok(true)
    }

    /// PostgreSQL removes nothing that waits; so somebody in the instance did.
    async fn note_missing(&self, place: &Place, name: &str, record: &mut Record) -> Result<(), BackupError> {
        if Segment::parse(name).is_some() {
            record.note_loss(name, self.machine.config.clock.now());
        }
        let (place, name, record) = (place.clone(), name.to_owned(), record.clone());
        let noted = blocking(DOING, move || {
            record.write(&place).map_err(failed(DOING))?;
            Queue::open(&place).and_then(|queue| queue.drop_mark(&name)).map_err(failed(DOING))
        });
        Ok(noted.await?)
    }

    pub(super) async fn status_of_archive(&self, id: InstanceId) -> Result<ArchiveStatus, BackupError> {
        const DOING: &str = "look how the archiving goes";
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
            Err(error) => tracing::debug!(instance.id = %id, %error, "cannot look into the queue of {id}"),
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

/// What waits, after what has become too much was given up. `None`: the instance is not archived.
fn look(place: &Place, id: InstanceId, limit: u64, now: Timestamp) -> io::Result<Option<Look>> {
    let queue = Queue::open(place)?;
    let Some(mut record) = Record::read(place)? else {
        queue.discard()?;
        return Ok(None);
    };
    let gaps = record.gaps.clone();
    let ready = forget_missing(&queue, queue.ready()?, place, &mut record, now)?;
    let segments: Vec<&String> = ready.iter().filter(|name| Segment::parse(name).is_some()).collect();
    let waiting = segments.len() as u64 * SEGMENT_BYTES;
    let bounds = segments.first().zip(segments.last()).filter(|_| waiting > limit);
    let Some((first, last)) = bounds else {
        let lost = record.gaps != gaps;
        return Ok(Some(Look { record, ready, lost }));
    };
    let archived_until = record.reached.archived_until;
    let gap = Gap { first_segment: (*first).clone(), last_segment: (*last).clone(), at: now, archived_until };
    tracing::error!(
        instance.id = %id,
        "gave up {} MiB of WAL of {id}, which could not be archived and would have filled the disk: it can be restored \
         to no moment from now until its next backup",
        waiting >> 20
    );
    record.gaps.push(gap);
    record.write(place)?;
    ready.iter().try_for_each(|name| queue.done(name))?;
    Ok(Some(Look { record, ready: Vec::new(), lost: true }))
}

/// Removes the marks whose files are missing, and notes a gap for each row of them. PostgreSQL removes nothing
/// that is marked: so somebody in the instance removed the file, or made the mark.
fn forget_missing(
    queue: &Queue,
    ready: Vec<String>,
    place: &Place,
    record: &mut Record,
    at: Timestamp,
) -> io::Result<Vec<String>> {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for name in ready {
        if queue.has(&name)? { present.push(name) } else { missing.push(name) }
    }
    if missing.is_empty() {
        return Ok(present);
    }
    for name in missing.iter().filter(|name| Segment::parse(name).is_some()) {
        record.note_loss(name, at);
    }
    record.write(place)?;
    missing.iter().try_for_each(|name| queue.drop_mark(name))?;
    Ok(present)
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
        let Look { record, ready, lost } = look(&place, id, u64::MAX, Timestamp::UNIX_EPOCH).unwrap().unwrap();
        assert!(lost);
        assert_eq!(ready, [name(1), name(1500)]);
        let gaps: Vec<_> =
            record.gaps.iter().map(|gap| (gap.first_segment.clone(), gap.last_segment.clone())).collect();
        assert_eq!(gaps, [(name(2), name(1499))]);
        assert_eq!(Record::read(&place).unwrap().unwrap().gaps, record.gaps);
        assert_eq!(fs::read_dir(wal.join("archive_status")).unwrap().count(), 2);
    }
}
