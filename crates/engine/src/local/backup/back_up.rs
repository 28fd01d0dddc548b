//! Making a backup of a running instance.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FileType;
use tokio::time::{Instant, sleep};

use super::archiver::unanswered;
use super::program::{Failure, LONG_IO_TIMEOUT, PgBackRest, Said, percentage};
use super::record::Record;
use super::vault::REMOVAL;
use crate::backups::{BackupError, BackupFacts, BackupKind, BackupLabel, Gap, Progress, ProgressSink, Vault};
use crate::local::place::{Manifest, Place};
use crate::local::session::ask_for_text;
use crate::local::template::failed;
use crate::local::{LocalEngine, blocking, tree};
use crate::{BACKUP_ROLE, Endpoint, PLATFORM_DATABASE};
use base::disk::Level;
use base::id::InstanceId;
use base::scram::Verifier;
use base::secret::{Secret, random_text};

const DOING: &str = "back up the instance";
/// How often to archive while a backup goes on.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long one statement of pgBackRest's may take, in seconds. The longest waits for a checkpoint.
const SQL_TIMEOUT: &str = "600";
/// How long no segment of the WAL that a backup needs may come into the vault after it.
const PATIENCE: Duration = Duration::from_secs(60);

impl LocalEngine {
    pub(super) async fn back_up_running(
        &self,
        vault: &Vault,
        kind: BackupKind,
        progress: ProgressSink,
    ) -> Result<BackupFacts, BackupError> {
        let id = vault.instance;
        let (place, manifest, archive) = (self.place(id), self.manifest(id)?, self.archives.of(id));
        let Ok(_one_at_a_time) = archive.backing_up.try_lock() else { return Err(BackupError::Busy("another backup")) };
        let Ok(_not_removed) = archive.vault.try_read() else { return Err(BackupError::Busy(REMOVAL)) };
        if !self.known(id).is_some_and(|server| server.is_alive()) {
            return Err(BackupError::Failed { doing: DOING, reason: "the instance is not running".into() });
        }
        if self.machine.has_no_room_for(id, Level::Low) {
            return Err(BackupError::Full { doing: DOING });
        }
        self.begin_archiving(vault).await?;
        self.ensure_vault(vault).await?;
        let archives = ask_for_text(&place, "SELECT pg_catalog.current_setting('archive_mode')").await;
        if archives.map_err(|error| unanswered(DOING, error))?.as_deref() != Some("on") {
            let reason = "its server was started by a version of Howdah that could not archive; it can be backed up \
                          after its next start";
            return Err(BackupError::Failed { doing: DOING, reason: reason.into() });
        }
        refuse_names(&place).await?;
        let data = place.data();
        let total =
            blocking(DOING, move || Ok(size_of_plain_files(&data))).await?.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => BackupError::Foreign(error.to_string()),
                _ => BackupError::Engine(failed(DOING)(error)),
            })?;
        let password = Secret::new(random_text::<24>());
        admit(&place, &password).await?;
        let (copied, label) = self.copy(vault, &place, &manifest, kind, &password, total, progress).await?;
        dismiss(&place).await;
        copied.map_err(|failure| failure.while_doing(DOING))?;
        let label =
            label.ok_or_else(|| BackupError::Damaged("pgBackRest did not report which backup it created".into()))?;
        // Such a name may have come meanwhile.
        if let Err(error) = refuse_names(&place).await {
            self.throw_away(vault, &label).await?;
            return Err(error);
        }
        if self.holds_links(vault, &label).await? {
            self.throw_away(vault, &label).await?;
            return Err(BackupError::Foreign(tree::foreign("a link").to_string()));
        }
        self.complete(vault, &label).await
    }

    /// Runs pgBackRest, and archives meanwhile.
    #[expect(clippy::too_many_arguments, reason = "it is one part of a function that would be too long otherwise")]
    async fn copy(
        &self,
        vault: &Vault,
        place: &Place,
        manifest: &Manifest,
        kind: BackupKind,
        password: &Secret,
        total: u64,
        progress: ProgressSink,
    ) -> Result<(Result<Said, Failure>, Option<BackupLabel>), BackupError> {
        let command = PgBackRest::new(&self.machine, vault)?
            .that_writes(&self.machine, vault.instance)
            .in_group_of(manifest.uid)
            .reading(place.data())
            .reading(place.socket())
            .with("PG1_PATH", place.data())
            .with("PG1_SOCKET_PATH", place.socket())
            .with("PG1_PORT", Endpoint::PORT.to_string())
            .with("PG1_USER", BACKUP_ROLE)
            .with("PG1_DATABASE", PLATFORM_DATABASE)
            // It would insist on an archive command; what it needs is seen to below.
            .with("ARCHIVE_CHECK", "n")
            .with("IO_TIMEOUT", LONG_IO_TIMEOUT)
            .with("DB_TIMEOUT", SQL_TIMEOUT)
            .with("START_FAST", "y")
            .with("EXPIRE_AUTO", "n")
            .with("REPO1_BUNDLE", "y")
            .with("REPO1_RETENTION_FULL", "9999999")
            .with("LOG_LEVEL_CONSOLE", "detail")
            .with_password(password.expose());
        let kind = match kind {
            BackupKind::Full => "--type=full",
            BackupKind::Differential => "--type=diff",
            BackupKind::Incremental => "--type=incr",
        };
        let mut label = None;
        let watch = |line: &str| {
            if let Some(percent) = percentage(line) {
                progress(Progress { done: part_of(total, percent), total });
            } else if let Some(name) = line.strip_prefix("INFO: new backup label = ") {
                label = BackupLabel::parse(name.trim());
            }
        };
        let begun = self.gaps_of(vault.instance).await?.len();
        let losing = async {
            loop {
                // What is wrong has been noted; in the end it is looked at again.
                let _ = self.push_now(vault.instance).await;
                if self.machine.has_no_room_for(vault.instance, Level::Scarce) {
                    return BackupError::Full { doing: DOING };
                }
                match self.gaps_of(vault.instance).await {
                    // The backup would need the WAL that was lost.
                    Ok(gaps) if gaps.len() > begun => return BackupError::Lost,
                    Ok(_) => sleep(INTERVAL).await,
                    Err(error) => return error,
                }
            }
        };
        let arguments = [kind, "backup"];
        let copied = tokio::select! {
            copied = command.run_and_watch(&arguments, watch) => copied,
            // pgBackRest ends with this.
            error = losing => return Err(error),
        };
        Ok((copied, label))
    }

    async fn gaps_of(&self, id: InstanceId) -> Result<Vec<Gap>, BackupError> {
        let place = self.place(id);
        let read = blocking(DOING, move || Record::read(&place).map_err(failed(DOING)));
        Ok(read.await?.map(|record| record.gaps).unwrap_or_default())
    }

    /// Whether WAL was lost from this segment on.
    async fn has_lost_wal_of(&self, id: InstanceId, first: &str) -> Result<bool, BackupError> {
        Ok(self.gaps_of(id).await?.iter().any(|gap| gap.last_segment.as_str() >= first))
    }

    /// Sees to it that the WAL is there without which the backup is worth nothing.
    async fn complete(&self, vault: &Vault, label: &BackupLabel) -> Result<BackupFacts, BackupError> {
        let mut deadline = Instant::now() + PATIENCE;
        let mut reached = None;
        loop {
            let pushed = self.push_now(vault.instance).await;
            let holdings = self.holdings(vault).await?;
            if holdings.last_segment > reached {
                deadline = Instant::now() + PATIENCE;
                reached = holdings.last_segment;
            }
            let Some(facts) = holdings.backups.into_iter().find(|backup| backup.label == *label) else {
                return Err(BackupError::MissingBackup(label.clone()));
            };
            if facts.restorable {
                return Ok(facts);
            }
            let is_over = Instant::now() >= deadline;
            if is_over || self.status_of_archive(vault.instance).await?.pending_segments == 0 {
                return Err(match pushed {
                    Err(error) => error,
                    Ok(()) if is_over => {
                        let reason = "the WAL that the backup needs did not reach the repository".into();
                        BackupError::Failed { doing: DOING, reason }
                    }
                    Ok(()) => BackupError::Lost,
                });
            }
            if self.has_lost_wal_of(vault.instance, &facts.first_segment).await? {
                return Err(BackupError::Lost);
            }
            sleep(INTERVAL).await;
        }
    }

    /// Takes a backup out that must not be restored, with everything else if need be: pgBackRest
    /// does not part with the last one.
    async fn throw_away(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError> {
        match self.remove_from_vault(vault, label, "remove the backup").await {
            Ok(()) => Ok(()),
            Err(_) => {
                let own = self.machine.repository().directory_of(vault.instance);
                tracing::warn!(instance.id = %vault.instance, ?own, "could not remove only the backup {label}");
                Err(BackupError::Damaged(format!(
                    "the backup {label} holds links; forget the backups of this instance"
                )))
            }
        }
    }
}

/// Refuses an instance that has a database whose name pgBackRest's list of files cannot hold: each line of that
/// is a name and a value, or the begin of a section.
async fn refuse_names(place: &Place) -> Result<(), BackupError> {
    // As hexadecimal digits, since a name may be in any encoding, or in none.
    let question = "SELECT name FROM (SELECT pg_catalog.encode(pg_catalog.namesend(datname), 'hex') AS name \
                    FROM pg_catalog.pg_database) AS names WHERE name ~ '^(..)*([01].|7f)' LIMIT 1";
    let Some(name) = ask_for_text(place, question).await.map_err(|error| unanswered(DOING, error))? else {
        return Ok(());
    };
    let digits: Vec<char> = name.chars().collect();
    let bytes: Vec<u8> =
        digits.chunks(2).filter_map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect();
    Err(BackupError::Foreign(format!(
        "the name of its database \"{}\" contains a control character; rename that database (ALTER DATABASE … RENAME TO …)",
        String::from_utf8_lossy(&bytes).escape_debug()
    )))
}

/// Gives pgBackRest's role, which is made if it is missing, a password for this backup.
async fn admit(place: &Place, password: &Secret) -> Result<(), BackupError> {
    let say = |error| unanswered(DOING, error);
    let exists = format!("SELECT pg_catalog.count(*) FROM pg_catalog.pg_roles WHERE rolname = '{BACKUP_ROLE}'");
    if ask_for_text(place, &exists).await.map_err(say)?.as_deref() == Some("0") {
        ask_for_text(place, &format!("CREATE ROLE {BACKUP_ROLE} NOLOGIN")).await.map_err(say)?;
    }
    // Where tenants may create roles, one of them may have been first.
    let members = format!(
        "SELECT pg_catalog.count(*) FROM pg_catalog.pg_auth_members AS membership JOIN pg_catalog.pg_roles AS role \
         ON role.oid = membership.roleid WHERE role.rolname = '{BACKUP_ROLE}'"
    );
    if ask_for_text(place, &members).await.map_err(say)?.as_deref() != Some("0") {
        let reason =
            format!("it has a role named {BACKUP_ROLE} that Howdah did not create; drop the role and try again");
        return Err(BackupError::Failed { doing: DOING, reason });
    }
    let verifier = Verifier::of(password).to_text();
    let grants = format!(
        "GRANT CONNECT ON DATABASE {PLATFORM_DATABASE} TO {BACKUP_ROLE}; \
         GRANT pg_read_all_settings TO {BACKUP_ROLE}; \
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean), \
         pg_catalog.pg_switch_wal(), pg_catalog.pg_create_restore_point(text) TO {BACKUP_ROLE}; \
         ALTER ROLE {BACKUP_ROLE} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS \
         PASSWORD '{verifier}'"
    );
    ask_for_text(place, &grants).await.map(drop).map_err(say)
}

/// Lets pgBackRest's role log in no more. When that fails its password is still forgotten.
async fn dismiss(place: &Place) {
    if ask_for_text(place, &format!("ALTER ROLE {BACKUP_ROLE} NOLOGIN PASSWORD NULL")).await.is_err() {
        tracing::debug!("could not remove the password of the backup role");
    }
}

/// The bytes in the files of a data directory. Links, pipes and directories nested too deep are refused:
/// PostgreSQL creates none, and pgBackRest would follow them.
fn size_of_plain_files(directory: &Path) -> io::Result<u64> {
    let mut total = 0;
    tree::visit(directory, tree::DEEPEST, &mut |_, _, facts| match FileType::from_raw_mode(facts.st_mode) {
        FileType::Directory => Ok(()),
        FileType::RegularFile => {
            total += u64::try_from(facts.st_size).unwrap_or_default();
            Ok(())
        }
        FileType::Symlink => Err(tree::foreign("a link")),
        _ => Err(tree::foreign("something that is neither a file nor a directory")),
    })?;
    Ok(total)
}

/// So many parts of a hundred of all.
pub(super) fn part_of(total: u64, percent: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between nothing and all")]
    let hundredths = (percent.clamp(0.0, 100.0) * 100.0).round() as u64;
    u64::try_from(u128::from(total) * u128::from(hundredths) / 10_000).unwrap_or(total)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn links_pipes_and_deep_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("base")).unwrap();
        fs::write(directory.path().join("base/1"), "1234").unwrap();
        assert_eq!(size_of_plain_files(directory.path()).unwrap(), 4);
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("base/2")).unwrap();
        let reason = || size_of_plain_files(directory.path()).unwrap_err().to_string();
        assert!(reason().contains("a link"), "{}", reason());
        fs::remove_file(directory.path().join("base/2")).unwrap();

        let pipe = directory.path().join("base/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert!(reason().contains("neither a file nor a directory"), "{}", reason());
        fs::remove_file(pipe).unwrap();

        let nested = |levels: usize| directory.path().join("d/".repeat(levels));
        fs::create_dir_all(nested(tree::DEEPEST - 1)).unwrap();
        assert_eq!(size_of_plain_files(directory.path()).unwrap(), 4);
        fs::create_dir(nested(tree::DEEPEST)).unwrap();
        assert!(reason().contains("directories nested more than 32 levels deep"), "{}", reason());
    }

    #[test]
    fn parts_are_of_the_whole() {
        assert_eq!(part_of(1000, 95.7), 957);
        assert_eq!(part_of(u64::MAX, 100.0), u64::MAX);
        assert_eq!(part_of(7, -1.0), 0);
    }
}
