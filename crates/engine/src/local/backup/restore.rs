//! Restoring a backup into a new instance.
//!
//! The files come into a fresh directory that only the backup user and Howdah can reach, and are
//! then given to the new instance's own user. A private server recovers them: nobody but Howdah
//! can log in to it. When it is out of recovery it is stopped, gets an identifier of its own, and
//! is moved to where instances are. Until then it does not count, and is removed at the next
//! attempt or the next start.

use std::fs;
use std::io;
use std::path::Path;

use jiff::SignedDuration;
use rustix::fs::{AtFlags, FileType, Gid, Uid};
use tokio::time::Instant;

use super::archiver::unanswered;
use super::back_up::part_of;
use super::program::{LONG_IO_TIMEOUT, PgBackRest, percentage};
use super::recovery::Recovery;
use super::vault::{Holdings, REMOVAL};
use crate::backups::{BackupError, BackupFacts, BackupLabel, Progress, ProgressSink, RecoverTo, RestoreFacts, Vault};
use crate::local::configuration::Purpose;
use crate::local::metadata::purpose_of;
use crate::local::place::{GROUP_ACCESS, Manifest, Place, make_directory};
use crate::local::session::{ask_for_text, renew_password};
use crate::local::template::failed;
use crate::local::{LocalEngine, blocking, process, start, stock, tree};
use crate::{BACKUP_ROLE, EngineError, Major};
use base::disk::Level;
use base::id::InstanceId;

const DOING: &str = "restore the backup";

impl LocalEngine {
    pub(super) async fn restore_into(
        &self,
        target: InstanceId,
        source: &Vault,
        label: &BackupLabel,
        to: RecoverTo,
        progress: ProgressSink,
    ) -> Result<RestoreFacts, BackupError> {
        if let Some(facts) = self.brought_back(target)? {
            return Ok(facts);
        }
        let archive = self.archives.of(source.instance);
        let Ok(_not_removed) = archive.vault.try_read() else { return Err(BackupError::Busy(REMOVAL)) };
        self.abandon_restore(target).await?;
        let begun = Instant::now();
        let holdings = self.holdings(source).await?;
        let backup = choose(&holdings, label, to)?;
        if self.holds_links(source, label).await? {
            return Err(BackupError::Damaged(format!(
                "the backup {label} contains links that PostgreSQL did not create"
            )));
        }
        self.machine.finder.of(holdings.major).ok_or(EngineError::MajorMissing(holdings.major))?;

        let (place, manifest) = self.make_room(target, holdings.major, backup.size).await?;
        self.copy_out(target, source, &backup, &place, &manifest, &progress).await?;
        let (here, uid) = (place.clone(), manifest.uid);
        let prepare = move || -> io::Result<()> {
            disinherit(&here)?;
            fs::write(here.data().join("standby.signal"), "")?;
            hand_over(&here.data(), uid)
        };
        blocking(DOING, move || prepare().map_err(failed(DOING))).await?;

        let mut recovery = Recovery::begin(self, target, source, &holdings, &place, &manifest, to).await?;
        recovery.go_through_wal(&backup, &progress).await?;
        let facts = self.take_over(target, &place, backup.size).await?;
        recovery.stop().await?;
        let facts = RestoreFacts { milliseconds: milliseconds_since(begun), ..facts };
        self.finish(target, &place, manifest, &facts).await?;
        tracing::info!(
            instance.id = %target,
            "restored the backup {label} of {} into {target}, on timeline {}",
            source.instance,
            facts.timeline
        );
        Ok(facts)
    }

    /// What an earlier call has brought back into this instance; an error when it is another one.
    pub(super) fn brought_back(&self, target: InstanceId) -> Result<Option<RestoreFacts>, BackupError> {
        match self.manifest(target) {
            Err(EngineError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(manifest) => {
                let reason = "the instance to restore into already exists".to_owned();
                manifest.restored.map(Some).ok_or(BackupError::Failed { doing: DOING, reason })
            }
        }
    }

    /// An empty place for an instance with so many bytes of files.
    pub(super) async fn make_room(
        &self,
        target: InstanceId,
        major: Major,
        size: u64,
    ) -> Result<(Place, Manifest), BackupError> {
        let machine = self.machine.clone();
        let place = self.place_of_restore(target);
        let made = place.clone();
        let manifest = blocking(DOING, move || {
            let left = machine.config.disk.look().map_err(failed(DOING))?.after_writing(size);
            if left.level() >= Level::Critical {
                return Err(EngineError::NoSpace { doing: DOING });
            }
            let uid = machine.users.take().map_err(|reason| EngineError::Failed { doing: DOING, reason })?;
            let manifest = Manifest {
                major: major.0,
                uid,
                system_identifier: stock::new_identifier(),
                group_access: uid.is_some(),
                restored: None,
            };
            let make = || -> io::Result<()> {
                place.make_directories(uid)?;
                place.write_manifest(&manifest)
            };
            match make() {
                Ok(()) => Ok(manifest),
                Err(error) => {
                    if place.remove(&machine.stop).is_ok() {
                        machine.users.give_back(uid);
                    }
                    Err(failed(DOING)(error))
                }
            }
        });
        Ok((made, manifest.await?))
    }

    /// Has pgBackRest copy the files of the backup.
    async fn copy_out(
        &self,
        target: InstanceId,
        source: &Vault,
        backup: &BackupFacts,
        place: &Place,
        manifest: &Manifest,
        progress: &ProgressSink,
    ) -> Result<(), BackupError> {
        let scratch = self.scratch(target, source).await?;
        let (data, uid, backup_user) = (place.data(), manifest.uid, self.machine.backup_user);
        let make = move || -> io::Result<()> {
            make_directory(&data, if uid.is_some() { GROUP_ACCESS } else { 0o700 })?;
            std::os::unix::fs::chown(data, backup_user, uid)
        };
        blocking(DOING, move || make().map_err(failed(DOING))).await?;
        let command = PgBackRest::new(&self.machine, source)?
            .in_group_of(manifest.uid)
            .writing(place.data())
            .writing(scratch.clone())
            // Several may read the vault at the same time.
            .with("LOCK_PATH", scratch.join("lock"))
            .with("SPOOL_PATH", scratch.join("spool"))
            .with("PG1_PATH", place.data())
            .with("IO_TIMEOUT", LONG_IO_TIMEOUT)
            .with("LOG_LEVEL_CONSOLE", "detail");
        let set = format!("--set={}", backup.label);
        let watch = |line: &str| {
            if let Some(percent) = percentage(line) {
                progress(Progress { done: part_of(backup.size, percent), total: backup.size });
            }
        };
        let copied = command.run_and_watch(&[&set, "--type=none", "restore"], watch).await;
        copied.map(drop).map_err(|failure| failure.while_doing(DOING))
    }

    /// Notes what has been brought back, and takes from the instance what it shares with its origin.
    pub(super) async fn take_over(
        &self,
        target: InstanceId,
        place: &Place,
        bytes: u64,
    ) -> Result<RestoreFacts, BackupError> {
        let say = |error| unanswered(DOING, error);
        let commit = "SELECT pg_catalog.to_char(pg_catalog.pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', \
                      'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let last_commit_at = ask_for_text(place, commit).await.map_err(say)?.and_then(|text| text.parse().ok());
        let file = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())";
        let file = ask_for_text(place, file).await.map_err(say)?.unwrap_or_default();
        let timeline = file.get(..8).and_then(|text| u32::from_str_radix(text, 16).ok());
        let timeline = timeline.ok_or_else(|| {
            let reason = format!("the server's WAL file has an unexpected name, {file:?}");
            BackupError::Failed { doing: DOING, reason }
        })?;

        let exists = format!("SELECT pg_catalog.count(*) FROM pg_catalog.pg_roles WHERE rolname = '{BACKUP_ROLE}'");
        if ask_for_text(place, &exists).await.map_err(say)?.as_deref() == Some("1") {
            let dismiss = format!("ALTER ROLE {BACKUP_ROLE} NOLOGIN PASSWORD NULL");
            ask_for_text(place, &dismiss).await.map_err(say)?;
        }
        if purpose_of(target) == Purpose::Tenant && !self.machine.access.separate_users {
            renew_password(place).await.map_err(say)?;
        }
        Ok(RestoreFacts { last_commit_at, timeline, bytes, milliseconds: 0 })
    }

    /// Gives the stopped instance an identifier of its own, and puts it where instances are.
    pub(super) async fn finish(
        &self,
        target: InstanceId,
        place: &Place,
        manifest: Manifest,
        facts: &RestoreFacts,
    ) -> Result<(), BackupError> {
        let (machine, place, facts) = (self.machine.clone(), place.clone(), facts.clone());
        let (home, major) = (self.place(target), manifest.major());
        let finished = blocking(DOING, move || {
            let programs = machine.finder.of(major).ok_or(EngineError::MajorMissing(major))?;
            stock::identify(&programs, &place, manifest.uid, manifest.system_identifier)?;
            place.write_manifest(&Manifest { restored: Some(facts), ..manifest }).map_err(failed(DOING))?;
            stock::move_to(&place, &home.root).map_err(failed(DOING))?;
            Ok(())
        });
        finished.await?;
        let scratch = self.machine.backup_work(target);
        let _ = fs::remove_dir_all(scratch);
        Ok(())
    }

    pub(in crate::local) fn place_of_restore(&self, target: InstanceId) -> Place {
        Place::new(self.machine.restores().join(target.bare()))
    }

    /// Removes what an interrupted restore into this instance has left.
    pub(in crate::local) async fn abandon_restore(&self, target: InstanceId) -> Result<(), EngineError> {
        self.abandon(&self.place_of_restore(target)).await
    }

    pub(super) async fn abandon(&self, place: &Place) -> Result<(), EngineError> {
        const DOING: &str = "remove the remains of an interrupted restore";
        if !place.root.exists() {
            return Ok(());
        }
        if let Ok(manifest) = place.read_manifest() {
            match manifest.uid.filter(|_| self.machine.users.are_separate()) {
                Some(uid) => process::end_all_of(uid).await.map_err(failed(DOING))?,
                None => start::stop(place, &manifest, None).await?,
            }
        }
        let (machine, place) = (self.machine.clone(), place.clone());
        let discard = move || machine.throw_away(&place).and_then(|thrown| machine.discard(&thrown));
        blocking(DOING, move || discard().map_err(failed(DOING))).await
    }
}

/// The backup, if it can be restored so far.
fn choose(holdings: &Holdings, label: &BackupLabel, to: RecoverTo) -> Result<BackupFacts, BackupError> {
    let backup = holdings.backups.iter().find(|backup| backup.label == *label);
    let backup = backup.ok_or_else(|| BackupError::MissingBackup(label.clone()))?;
    if !backup.restorable {
        return Err(BackupError::Gap(backup.last_segment.clone()));
    }
    // Within the second in which it ended only the server can tell, which knows where the backup ends.
    if matches!(to, RecoverTo::Time(moment) if moment < backup.stopped_at - SignedDuration::from_secs(1)) {
        return Err(BackupError::BeforeBackup);
    }
    Ok(backup.clone())
}

pub(super) fn milliseconds_since(begun: Instant) -> u64 {
    begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}

/// Takes from a data directory what its origin was configured to, and was doing.
pub(super) fn disinherit(place: &Place) -> io::Result<()> {
    let data = place.data();
    for name in
        ["recovery.signal", "standby.signal", "postmaster.pid", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"]
    {
        match fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::write(data.join("postgresql.auto.conf"), "")
}

/// Gives restored files to the instance's user. A backup that holds anything but files and directories is refused.
pub(super) fn hand_over(data: &Path, uid: Option<u32>) -> io::Result<()> {
    let (owner, group) = (uid.map(Uid::from_raw), uid.map(Gid::from_raw));
    tree::visit(data, tree::DEEPEST, &mut |parent, name, facts| match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory | FileType::RegularFile => {
            Ok(rustix::fs::chownat(parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        _ => Err(tree::foreign("something that is neither a file nor a directory")),
    })?;
    std::os::unix::fs::lchown(data, uid, uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_in_a_restored_directory_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        fs::create_dir_all(place.data().join("base")).unwrap();
        for name in ["postgresql.auto.conf", "postgresql.conf", "recovery.signal"] {
            fs::write(place.data().join(name), "shared_preload_libraries = '/tmp/evil.so'").unwrap();
        }
        disinherit(&place).unwrap();
        assert_eq!(fs::read(place.data().join("postgresql.auto.conf")).unwrap(), b"");
        assert!(!place.data().join("postgresql.conf").exists() && !place.data().join("recovery.signal").exists());
        hand_over(&place.data(), None).unwrap();
        std::os::unix::fs::symlink("/etc", place.data().join("base/1")).unwrap();
        assert!(hand_over(&place.data(), None).unwrap_err().to_string().contains("neither a file nor a directory"));
    }
}
