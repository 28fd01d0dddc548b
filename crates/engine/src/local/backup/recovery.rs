//! Recovering a restored instance to a moment.
//!
//! Its server runs as a standby without a source: it goes through what is in `pg_wal`, waits for
//! more, and ends the recovery by itself when it comes to the target. Howdah brings it segment
//! after segment out of the vault, each compared with its checksum, and tells it to end the
//! recovery when there are no more. So the server runs no restore command. One whose target comes
//! after the last transaction waits at the end; PostgreSQL would call it a failure to end there, so
//! it is started once more without a target.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use tokio::time::{Instant, sleep};

use super::archiver::lock;
use super::program::PgBackRest;
use super::segment::{Segment, parse_position};
use super::vault::Holdings;
use crate::EngineError;
use crate::backups::{BackupError, BackupFacts, Progress, ProgressSink, RecoverTo, Vault};
use crate::local::configuration::{MOST_SESSIONS, connections};
use crate::local::metadata::purpose_of;
use crate::local::place::{Manifest, Place};
use crate::local::process::{Says, Server, says};
use crate::local::session::{ask, ask_for_text};
use crate::local::template::{SEGMENT_BYTES, failed};
use crate::local::untrusted::Untrusted;
use crate::local::{LocalEngine, blocking, start};
use base::id::InstanceId;

const DOING: &str = "recover the restored instance";
/// How often to look how far the server is.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long it may go without any sign of progress.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many segments to bring before the server has gone through them.
const AHEAD: u64 = 128;
/// How long a server that has nothing more to read is watched before it is believed.
const QUIET: Duration = Duration::from_millis(500);

/// A private server in recovery. It ends with this.
pub(super) struct Recovery<'a> {
    engine: &'a LocalEngine,
    target: InstanceId,
    source: &'a Vault,
    holdings: &'a Holdings,
    place: &'a Place,
    manifest: &'a Manifest,
    to: RecoverTo,
    server: Arc<Server>,
    scratch: PathBuf,
    /// The checksums of the segments in the vault, by the directory that they are in there.
    checksums: Mutex<HashMap<String, Arc<HashMap<String, String>>>>,
}

impl LocalEngine {
    /// A directory for what one restore needs beside the instance's own.
    pub(super) async fn scratch(&self, target: InstanceId, source: &Vault) -> Result<PathBuf, BackupError> {
        let (machine, source) = (self.machine.clone(), source.instance);
        let made = blocking(DOING, move || {
            let make = || -> io::Result<PathBuf> {
                machine.make_vault_work(source)?;
                let scratch = machine.backup_work(source).join(format!("restore-{}", target.bare()));
                for directory in ["", "lock", "spool", "wal", "control", "control/global"] {
                    machine.make_for_backup_user(&scratch.join(directory))?;
                }
                Ok(scratch)
            };
            make().map_err(failed(DOING))
        });
        Ok(made.await?)
    }
}

impl<'a> Recovery<'a> {
    pub(super) async fn begin(
        engine: &'a LocalEngine,
        target: InstanceId,
        source: &'a Vault,
        holdings: &'a Holdings,
        place: &'a Place,
        manifest: &'a Manifest,
        to: RecoverTo,
    ) -> Result<Self, BackupError> {
        let scratch = engine.scratch(target, source).await?;
        let (control, from, reader) =
            (scratch.join("control/global/pg_control"), place.clone(), engine.machine.backup_user);
        blocking(DOING, move || {
            let copy = || -> io::Result<()> {
                fs::write(&control, from.read_control_file()?)?;
                std::os::unix::fs::chown(&control, reader, reader)
            };
            copy().map_err(failed(DOING))
        })
        .await?;
        let server = launch(engine, target, place, manifest, to).await?;
        let checksums = Mutex::default();
        Ok(Self { engine, target, source, holdings, place, manifest, to, server, scratch, checksums })
    }

    /// Brings the server what it needs, until it has left the recovery where it should.
    pub(super) async fn go_through_wal(
        &mut self,
        backup: &BackupFacts,
        progress: &ProgressSink,
    ) -> Result<(), BackupError> {
        let bounds = (Segment::parse(&backup.first_segment), Segment::parse(&backup.last_segment));
        let (Some(first), Some(needed)) = bounds else {
            return Err(BackupError::Damaged("the backup does not name the WAL that it needs".into()));
        };
        let last = match self.to {
            RecoverTo::Immediate => needed,
            RecoverTo::Latest | RecoverTo::Time(_) => self.holdings.last_segment.unwrap_or(needed).max(needed),
        };
        let total = backup.size + (first.until(last) + 1) * SEGMENT_BYTES;
        let mut next = first;
        while next <= last && self.is_recovering().await? {
            let brought = match self.bring(next).await {
                // The backup is whole without it: as if it were lost.
                Err(BackupError::Damaged(reason)) if next > needed => {
                    tracing::error!(instance.id = %self.source.instance, %reason, "the WAL segment {next} is damaged");
                    false
                }
                brought => brought?,
            };
            if !brought {
                // All that is wanted came before the loss, whether or not the target was seen in it.
                if self.ends_before(next) {
                    break;
                }
                // The server may come to its target before it gets here.
                return match self.comes_to_an_end().await? {
                    true => self.until_out_of_recovery().await,
                    false => Err(BackupError::Gap(next.to_string())),
                };
            }
            next = next.next();
            progress(Progress { done: backup.size + first.until(next) * SEGMENT_BYTES, total });
            self.wait_for_server(next).await?;
        }
        if matches!(self.to, RecoverTo::Time(_)) && !self.comes_to_an_end().await? {
            start::stop(self.place, self.manifest, Some(self.server.clone())).await?;
            self.server = launch(self.engine, self.target, self.place, self.manifest, RecoverTo::Latest).await?;
        }
        // It goes through all that is there before it obeys.
        self.promote().await?;
        self.until_out_of_recovery().await?;
        progress(Progress { done: total, total });
        Ok(())
    }

    /// Whether everything that was committed before the target is archived before this segment, with
    /// which WAL was lost.
    fn ends_before(&self, missing: Segment) -> bool {
        let RecoverTo::Time(moment) = self.to else { return false };
        let gap = self.holdings.gaps.iter().find(|gap| Segment::parse(&gap.first_segment) == Some(missing));
        gap.and_then(|gap| gap.archived_until).is_some_and(|until| moment <= until)
    }

    /// Ends the server: a fast shutdown.
    pub(super) async fn stop(self) -> Result<(), EngineError> {
        start::stop(self.place, self.manifest, Some(self.server.clone())).await?;
        let _ = fs::remove_dir_all(&self.scratch);
        Ok(())
    }

    /// Puts one segment into the server's reach. False: it is not in the vault.
    async fn bring(&self, segment: Segment) -> Result<bool, BackupError> {
        let name = segment.to_string();
        let Some(checksum) = self.checksum(&name).await? else { return Ok(false) };
        let fetched = self.scratch.join("wal").join(&name);
        let path = fetched.to_string_lossy().into_owned();
        let command = PgBackRest::new(&self.engine.machine, self.source)?
            .writing(self.scratch.clone())
            .with("LOCK_PATH", self.scratch.join("lock"))
            .with("PG1_PATH", self.scratch.join("control"));
        command.run(&["archive-get", &name, &path]).await.map_err(|failure| failure.while_doing(DOING))?;
        let (place, uid) = (self.place.clone(), self.manifest.uid);
        let same = blocking(DOING, move || {
            let put = || -> io::Result<bool> {
                let bytes = fs::read(&fetched)?;
                fs::remove_file(&fetched)?;
                let same = hexadecimal(&Sha1::digest(&bytes)) == checksum;
                if same {
                    Untrusted::open(&place.data())?.directory("pg_wal")?.replace(&name, &bytes, uid)?;
                }
                Ok(same)
            };
            put().map_err(failed(DOING))
        });
        if !same.await? {
            return Err(BackupError::Damaged(format!("the WAL segment {segment} has a wrong checksum")));
        }
        Ok(true)
    }

    /// What pgBackRest has written down as the checksum of a segment: it stands in its name.
    async fn checksum(&self, segment: &str) -> Result<Option<String>, BackupError> {
        let directory = segment.get(..16).unwrap_or_default().to_owned();
        let known = lock(&self.checksums).get(&directory).cloned();
        let listed = match known {
            Some(listed) => listed,
            None => {
                let path = format!("archive/{}/{}/{directory}", self.source.instance.bare(), self.holdings.archive);
                let command = PgBackRest::new(&self.engine.machine, self.source)?;
                let said = command.run(&["--output=json", "repo-ls", &path]).await;
                let said = said.map_err(|failure| failure.while_doing(DOING))?;
                let listed = Arc::new(read_checksums(&said.text));
                lock(&self.checksums).insert(directory, listed.clone());
                listed
            }
        };
        Ok(listed.get(segment).cloned())
    }

    /// Whether the server is still in recovery. An error when it has ended.
    async fn is_recovering(&self) -> Result<bool, BackupError> {
        if !self.server.is_alive() {
            return Err(explain_end(start::reason_of_end(self.place, &self.server)));
        }
        // It takes sessions while it recovers, too, once it has come far enough.
        let out = says(self.place) == Says::Ready
            && ask(self.place, "SELECT NOT pg_catalog.pg_is_in_recovery()").await.is_ok_and(|out| out);
        Ok(!out)
    }

    /// Keeps what is brought from running far ahead of the server, which removes what it has gone
    /// through: the disk need not hold all of it at once.
    async fn wait_for_server(&self, next: Segment) -> Result<(), BackupError> {
        let mut deadline = Instant::now() + PATIENCE;
        let mut before = 0;
        while (next.start() / SEGMENT_BYTES).is_multiple_of(32)
            && says(self.place) == Says::Ready
            && self.is_recovering().await?
        {
            let Some((position, _)) = self.position().await else { return Ok(()) };
            if position + AHEAD * SEGMENT_BYTES >= next.start() {
                return Ok(());
            }
            if position > before {
                (before, deadline) = (position, Instant::now() + PATIENCE);
            }
            self.give_up_after(deadline)?;
            sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Whether the server leaves the recovery by itself, rather than wait for more.
    async fn comes_to_an_end(&self) -> Result<bool, BackupError> {
        let mut last = None;
        let mut since = Instant::now();
        while self.is_recovering().await? {
            let now = self.position().await;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            // One that does not answer has not come far enough for questions.
            let patience = if now.is_some_and(|(_, waits)| waits) { QUIET } else { PATIENCE };
            if since.elapsed() >= patience {
                return Ok(false);
            }
            sleep(INTERVAL).await;
        }
        Ok(true)
    }

    /// How far the server has gone through the WAL, and whether it waits for more. `None`: it does
    /// not answer now.
    async fn position(&self) -> Option<(u64, bool)> {
        let question = "SELECT pg_catalog.concat(pg_catalog.pg_last_wal_replay_lsn(), ' ', (SELECT wait_event \
                        FROM pg_catalog.pg_stat_activity WHERE backend_type = 'startup'))";
        let answer = ask_for_text(self.place, question).await.ok().flatten()?;
        let (position, event) = answer.split_once(' ')?;
        Some((parse_position(position)?, event == "RecoveryRetrieveRetryInterval"))
    }

    async fn promote(&self) -> Result<(), BackupError> {
        let deadline = Instant::now() + PATIENCE;
        // Before it listens to signals this one would kill it.
        while says(self.place) == Says::Nothing && self.is_recovering().await? {
            self.give_up_after(deadline)?;
            sleep(INTERVAL).await;
        }
        let (place, uid, server) = (self.place.clone(), self.manifest.uid, self.server.clone());
        let told = blocking(DOING, move || {
            let tell = || -> io::Result<()> {
                Untrusted::open(&place.data())?.replace("promote", b"", uid)?;
                match server.promote() {
                    // It has ended, which is told with its reason.
                    Err(_) if !server.is_alive() => Ok(()),
                    told => told,
                }
            };
            tell().map_err(failed(DOING))
        });
        Ok(told.await?)
    }

    async fn until_out_of_recovery(&self) -> Result<(), BackupError> {
        let mut deadline = Instant::now() + PATIENCE;
        let mut work = 0;
        loop {
            if !self.is_recovering().await? {
                return Ok(());
            }
            // It goes through what it has, however long that takes.
            let now = self.server.processor_time();
            if now > work {
                (work, deadline) = (now, Instant::now() + PATIENCE);
            }
            self.give_up_after(deadline)?;
            sleep(INTERVAL).await;
        }
    }

    fn give_up_after(&self, deadline: Instant) -> Result<(), BackupError> {
        match Instant::now() < deadline {
            true => Ok(()),
            false => Err(BackupError::Failed { doing: DOING, reason: "the server is not making progress".into() }),
        }
    }
}

impl Drop for Recovery<'_> {
    fn drop(&mut self) {
        self.server.abandon();
    }
}

async fn launch(
    engine: &LocalEngine,
    target: InstanceId,
    place: &Place,
    manifest: &Manifest,
    to: RecoverTo,
) -> Result<Arc<Server>, EngineError> {
    let access = engine.machine.access.without_password();
    start::launch(&engine.machine, place, manifest, purpose_of(target), access, settings(to)).await
}

/// What a server that recovers is told beside what every one is.
fn settings(to: RecoverTo) -> Vec<OsString> {
    let mut settings = vec![
        "archive_mode=off".to_owned(),
        "hot_standby=on".to_owned(),
        // PostgreSQL refuses to recover with fewer than the WAL was written with (Hot Standby, Administrator's
        // Overview), and --sessions-per-database may have been larger then.
        format!("max_connections={}", connections(MOST_SESSIONS)),
        // Nothing that a tenant wrote runs before the instance is theirs again.
        "autovacuum=off".to_owned(),
        "wal_retrieve_retry_interval=10ms".to_owned(),
        "wal_recycle=off".to_owned(),
        "recovery_target_timeline=current".to_owned(),
        "recovery_target_action=promote".to_owned(),
    ];
    match to {
        RecoverTo::Immediate => settings.push("recovery_target=immediate".to_owned()),
        RecoverTo::Time(moment) => {
            settings.push(format!("recovery_target_time={}", moment.strftime("%Y-%m-%d %H:%M:%S%.6f+00")));
        }
        RecoverTo::Latest => {}
    }
    settings.into_iter().map(OsString::from).collect()
}

/// What the end of a server in recovery says about the backup.
fn explain_end(error: EngineError) -> BackupError {
    match error {
        EngineError::Failed { reason, .. } if reason.contains("before consistent recovery point") => {
            match reason.contains("requested recovery stop point") {
                true => BackupError::BeforeBackup,
                false => BackupError::Damaged(reason),
            }
        }
        EngineError::Failed { reason, .. } if reason.contains("before end of online backup") => {
            BackupError::Damaged(reason)
        }
        other => other.into(),
    }
}

/// Segments and their checksums out of a list of files named `<segment>-<checksum>.<compression>`. What
/// could not be written whole has one more ending, and is nothing.
pub(super) fn read_checksums(listed: &str) -> HashMap<String, String> {
    let files: HashMap<String, serde_json::Value> = serde_json::from_str(listed).unwrap_or_default();
    let read = |name: &String| {
        let (segment, rest) = name.split_once('-')?;
        let (checksum, _) = rest.split_once('.').filter(|(_, compression)| !compression.contains('.'))?;
        (Segment::parse(segment).is_some() && checksum.len() == 40).then(|| (segment.to_owned(), checksum.to_owned()))
    };
    files.keys().filter_map(read).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_stand_in_names() {
        let listed = r#"{".":{"type":"path"},"000000010000000000000008-0f74dd2c5f223f7488b9236b837749f981be5ae2.zst":{"type":"file"},
                         "00000001000000000000000A-0f74dd2c5f223f7488b9236b837749f981be5ae2.zst.pgbackrest.tmp":{"type":"file"},
                         "000000010000000000000009.00000028.backup":{"type":"file"}}"#;
        let read = read_checksums(listed);
        assert_eq!(read.len(), 1);
        assert_eq!(read["000000010000000000000008"], "0f74dd2c5f223f7488b9236b837749f981be5ae2");
    }

    #[test]
    fn the_moment_is_given_exactly() {
        let moment = "2026-11-25T10:27:33.664224Z".parse().unwrap();
        let told = settings(RecoverTo::Time(moment));
        assert!(told.contains(&"recovery_target_time=2026-11-25 10:27:33.664224+00".into()), "{told:?}");
    }

    #[test]
    fn reasons_of_an_end_are_distinguished() {
        let ended = |reason: &str| explain_end(EngineError::Failed { doing: DOING, reason: reason.into() });
        let early = ended("requested recovery stop point is before consistent recovery point");
        assert!(matches!(early, BackupError::BeforeBackup));
        assert!(matches!(ended("WAL ends before consistent recovery point"), BackupError::Damaged(_)));
        assert!(matches!(ended("WAL ends before end of online backup"), BackupError::Damaged(_)));
        assert!(matches!(ended("something else"), BackupError::Engine(_)));
    }
}
