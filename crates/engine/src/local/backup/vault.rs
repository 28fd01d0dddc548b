//! What a vault holds, as pgBackRest says it, and taking things out of it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use super::archiver::Archive;
use super::program::{Failure, PgBackRest};
use super::record::Record;
use super::repository::{METADATA, Repository};
use super::segment::Segment;
use crate::backups::{BackupError, BackupFacts, BackupKind, BackupLabel, Gap, Retention, Vault};
use crate::local::metadata::{generate_id, is_metadata};
use crate::local::place::make_directory;
use crate::local::template::{failed, give};
use crate::local::{LocalEngine, Machine, blocking, passable, tree};
use crate::{EngineError, Major};
use base::disk::Level;
use base::id::InstanceId;
use base::secret::Secret;

/// How many of the files that a verification finds invalid are named.
const MOST_FINDINGS: usize = 20;

/// What pgBackRest says of a stanza.
mod status {
    pub(super) const MISSING_PATH: i64 = 1;
    pub(super) const NO_BACKUPS: i64 = 2;
    pub(super) const MISSING_DATA: i64 = 3;
    pub(super) const OK: i64 = 0;
}

/// Everything in a vault.
pub(super) struct Holdings {
    /// Oldest first.
    pub(super) backups: Vec<BackupFacts>,
    /// The major version that all of it is of.
    pub(super) major: Major,
    /// Where in the vault its WAL is.
    pub(super) archive: String,
    /// The last segment of WAL.
    pub(super) last_segment: Option<Segment>,
    /// What is missing before that, as far as the instance is still there to tell.
    pub(super) gaps: Vec<Gap>,
}

#[derive(Deserialize)]
pub(super) struct Stanza {
    status: Status,
    repo: Vec<Repo>,
    archive: Vec<Archived>,
    backup: Vec<Backup>,
    db: Vec<Database>,
}

/// What pgBackRest says of something in a repository.
#[derive(Deserialize)]
pub(super) struct Listed {
    /// Such as `path` and `file`.
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Repo {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Archived {
    id: String,
    max: Option<String>,
}

#[derive(Deserialize)]
struct Database {
    version: String,
}

#[derive(Deserialize)]
struct Backup {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    archive: Wal,
    error: Option<bool>,
    info: Sizes,
    reference: Option<Vec<String>>,
    timestamp: Times,
    /// Only when one backup is asked for.
    #[serde(default)]
    link: Option<serde_json::Value>,
    #[serde(default)]
    tablespace: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Wal {
    start: Option<String>,
    stop: Option<String>,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Stored,
}

#[derive(Deserialize)]
struct Stored {
    delta: Option<u64>,
}

#[derive(Deserialize)]
struct Times {
    start: i64,
    stop: i64,
}

impl LocalEngine {
    pub(super) async fn holdings(&self, vault: &Vault) -> Result<Holdings, BackupError> {
        const DOING: &str = "list the backups";
        let stanza = self.ask_repository(vault, &[], DOING).await?;
        let place = self.place(vault.instance);
        let gaps = blocking(DOING, move || Record::read(&place).map_err(failed(DOING)));
        let gaps = gaps.await?.map(|record| record.gaps).unwrap_or_default();
        read(stanza, &gaps).ok_or_else(|| BackupError::Damaged("pgBackRest lists something unknown".into()))
    }

    /// Whether the backup holds something besides the files of PostgreSQL's own that lie in its
    /// data directory: a link, and what that led to.
    pub(super) async fn holds_links(&self, vault: &Vault, label: &BackupLabel) -> Result<bool, BackupError> {
        let set = format!("--set={label}");
        let stanza = self.ask_repository(vault, &[&set], "read the backup").await?;
        let any = |value: &Option<serde_json::Value>| {
            value.as_ref().is_some_and(|value| value.as_array().is_none_or(|list| !list.is_empty()) && !value.is_null())
        };
        Ok(stanza.backup.iter().any(|backup| any(&backup.link) || any(&backup.tablespace)))
    }

    async fn ask_repository(
        &self,
        vault: &Vault,
        arguments: &[&str],
        doing: &'static str,
    ) -> Result<Stanza, BackupError> {
        self.adopt_vault(vault.instance, doing).await?;
        let command = PgBackRest::new(&self.machine, vault)?;
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--output=json", "info"]).collect();
        let said = command.run(&arguments).await.map_err(|failure| failure.while_doing(doing))?;
        // What a wrong key makes of a file is quoted as it is, and then this is no JSON.
        let unreadable = || BackupError::Damaged("the key does not open it, or its list of backups was changed".into());
        let mut stanzas: Vec<Stanza> = serde_json::from_str(&said.text).map_err(|_| unreadable())?;
        let Some(stanza) = stanzas.pop() else { return Err(BackupError::MissingVault(vault.instance)) };
        match stanza.status.code {
            status::OK | status::NO_BACKUPS => Ok(stanza),
            // What it may not look into it takes for nothing, and so what was only begun.
            status::MISSING_PATH
                if !self.place(vault.instance).vault_intent().exists()
                    && self.has_directory(vault.instance, doing).await? =>
            {
                Err(BackupError::Unreachable { doing, reason: "the vault's directory cannot be read".into() })
            }
            status::MISSING_PATH | status::MISSING_DATA => Err(BackupError::MissingVault(vault.instance)),
            _ => {
                let why = stanza.repo.first().map_or(&stanza.status.message, |repository| &repository.status.message);
                Err(match Failure::quoted(why).while_doing(doing) {
                    BackupError::Damaged(_) => unreadable(),
                    error => error,
                })
            }
        }
    }

    pub(super) async fn expire_backups(&self, vault: &Vault, retention: Retention) -> Result<(), BackupError> {
        const DOING: &str = "remove old backups";
        let archive = self.archives.of(vault.instance);
        let _alone = alone(&archive)?;
        self.adopt_vault(vault.instance, DOING).await?;
        let command = PgBackRest::new(&self.machine, vault)?
            .that_writes(&self.machine, vault.instance)
            .with("REPO1_RETENTION_FULL_TYPE", "time")
            .with("REPO1_RETENTION_FULL", retention.days.max(1).to_string());
        let Err(failure) = command.run(&["expire"]).await else { return Ok(()) };
        // What it says last is only that it failed.
        match self.is_gone(vault, DOING).await {
            Ok(true) => Err(BackupError::MissingVault(vault.instance)),
            _ => Err(failure.while_doing(DOING)),
        }
    }

    pub(super) async fn remove_one(&self, vault: &Vault, label: &BackupLabel) -> Result<(), BackupError> {
        const DOING: &str = "remove the backup";
        let archive = self.archives.of(vault.instance);
        let _alone = alone(&archive)?;
        self.remove_from_vault(vault, label, DOING).await
    }

    pub(super) async fn remove_from_vault(
        &self,
        vault: &Vault,
        label: &BackupLabel,
        doing: &'static str,
    ) -> Result<(), BackupError> {
        if !self.holdings(vault).await?.backups.iter().any(|backup| backup.label == *label) {
            return Ok(());
        }
        let set = format!("--set={label}");
        let command = PgBackRest::new(&self.machine, vault)?
            .that_writes(&self.machine, vault.instance)
            .with("REPO1_RETENTION_FULL", "9999999");
        command.run(&[&set, "expire"]).await.map(drop).map_err(|failure| failure.while_doing(doing))
    }

    pub(super) async fn verify_vault(&self, vault: &Vault) -> Result<(), BackupError> {
        const DOING: &str = "verify the backups";
        let archive = self.archives.of(vault.instance);
        let Ok(_reading) = archive.vault.try_read() else { return Err(BackupError::Busy(REMOVAL)) };
        self.adopt_vault(vault.instance, DOING).await?;
        let command = PgBackRest::new(&self.machine, vault)?.that_writes(&self.machine, vault.instance);
        let mut invalid = Vec::new();
        let command = command.with("LOG_LEVEL_CONSOLE", "info");
        let said = command
            .run_and_watch(&["--output=text", "--verbose", "verify"], |line| {
                let found = line.strip_prefix("INFO: ").filter(|text| text.starts_with("invalid "));
                if let Some(found) = found.filter(|_| invalid.len() < MOST_FINDINGS) {
                    invalid.push(found.to_owned());
                }
            })
            .await
            .map_err(|failure| failure.while_doing(DOING))?;
        match said.text.lines().any(|line| line.trim() == "status: ok") && invalid.is_empty() {
            true => Ok(()),
            false if invalid.is_empty() => Err(BackupError::Damaged(said.text.trim().replace('\n', "; "))),
            false => Err(BackupError::Damaged(invalid.join("; "))),
        }
    }

    pub(super) async fn forget_vault(&self, vault: &Vault) -> Result<(), BackupError> {
        const DOING: &str = "forget the backups";
        let (machine, id, place) = (self.machine.clone(), vault.instance, self.place(vault.instance));
        let archive = self.archives.of(id);
        let _alone = alone(&archive)?;
        let _quiet = archive.pushing().await;
        self.check_repository().await?;
        archive.lock_again();
        // First of all nothing is put into it any more.
        if place.exists() {
            blocking(DOING, move || Record::remove(&place).map_err(failed(DOING))).await?;
        }
        if let Repository::S3(_) = machine.repository() {
            self.empty_vault(vault, DOING).await?;
        }
        let removed = blocking(DOING, move || {
            let own = machine.repository().directory_of(id);
            let mut all = own.into_iter().chain([machine.backup_work(id)]);
            all.try_for_each(|path| tree::remove(&path, &machine.stop)).map_err(failed(DOING))
        });
        Ok(removed.await?)
    }

    /// Deletes everything in a vault, whether it can be read or not.
    pub(super) async fn empty_vault(&self, vault: &Vault, doing: &'static str) -> Result<(), BackupError> {
        self.adopt_vault(vault.instance, doing).await?;
        for part in PARTS {
            let command = PgBackRest::new(&self.machine, vault)?.that_writes(&self.machine, vault.instance);
            command.run(&["--recurse", "repo-rm", part]).await.map_err(|failure| failure.while_doing(doing))?;
        }
        Ok(())
    }

    /// Whether the making of a vault was interrupted: some of what describes it is missing, and there is no
    /// backup in it. pgBackRest takes that for damage, and neither completes it nor makes another.
    pub(super) async fn is_unfinished(&self, vault: &Vault, doing: &'static str) -> Result<bool, BackupError> {
        Ok(is_beginning(&self.list_vault(vault, doing).await?))
    }

    /// Whether no file of a vault is in the repository.
    pub(super) async fn is_empty(&self, vault: &Vault, doing: &'static str) -> Result<bool, BackupError> {
        Ok(self.list_vault(vault, doing).await?.values().all(|entry| entry.kind != "file"))
    }

    /// All files and directories of a vault, by their paths.
    async fn list_vault(&self, vault: &Vault, doing: &'static str) -> Result<HashMap<String, Listed>, BackupError> {
        let said = PgBackRest::new(&self.machine, vault)?.run(&["--recurse", "--output=json", "repo-ls"]).await;
        read_listing(&said.map_err(|failure| failure.while_doing(doing))?.text, doing)
    }

    /// Puts something into the repository and takes it out again, as a look whether that can be done.
    /// It takes a few seconds when the repository does not answer.
    ///
    /// # Errors
    /// [`BackupError::Refused`] when it answers, but not as it should.
    pub async fn try_repository(&self) -> Result<(), BackupError> {
        const DOING: &str = "check the backup storage";
        // No instance has this number, so nothing else is there.
        let vault = Vault::generate(InstanceId::from(uuid::Uuid::nil()));
        self.adopt_vault(vault.instance, DOING).await?;
        for arguments in [&["repo-put", "probe"][..], &["--recurse", "repo-rm"]] {
            let command = PgBackRest::new(&self.machine, &vault)?
                .that_writes(&self.machine, vault.instance)
                .with("IO_TIMEOUT", PATIENCE_AT_START);
            command.run(arguments).await.map_err(|failure| failure.while_doing(DOING))?;
        }
        let machine = self.machine.clone();
        let remove = move || tree::remove(&machine.backup_work(vault.instance), &machine.stop).map_err(failed(DOING));
        Ok(blocking(DOING, remove).await?)
    }

    /// The instances that have a vault in the repository, and the metadata instances that have one; each
    /// oldest first.
    pub async fn vaults(&self) -> Result<(Vec<InstanceId>, Vec<InstanceId>), BackupError> {
        let all = self.listed("").await?.into_iter().filter(|id| !is_metadata(*id) && !id.uuid().is_nil()).collect();
        let metadata = self.listed(METADATA).await?.into_iter().filter(|id| is_metadata(*id)).collect();
        Ok((all, metadata))
    }

    /// The vaults in this directory of the repository.
    async fn listed(&self, directory: &'static str) -> Result<Vec<InstanceId>, BackupError> {
        const DOING: &str = "read the repository";
        let names: Vec<String> = match self.machine.repository() {
            Repository::Directory(path) => {
                blocking(DOING, move || match fs::read_dir(path.join(directory)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                    entries => entries
                        .and_then(|entries| {
                            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
                        })
                        .map_err(failed(DOING)),
                })
                .await?
            }
            Repository::S3(s3) => {
                // Names of objects are no secret, and whose vault it would be does not matter.
                let nobody = Vault { instance: generate_id(Timestamp::UNIX_EPOCH), key: Secret::new("none") };
                let path = Path::new("/").join(&s3.prefix).join(directory);
                let command = PgBackRest::new(&self.machine, &nobody)?.with("REPO1_PATH", path);
                let command = command.with("IO_TIMEOUT", PATIENCE_AT_START);
                let said = command.run(&["--output=json", "repo-ls"]).await;
                let said = said.map_err(|failure| failure.while_doing(DOING))?;
                read_listing(&said.text, DOING)?.into_keys().collect()
            }
        };
        let mut ids: Vec<InstanceId> = names.iter().filter_map(|name| InstanceId::parse(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Makes the places that pgBackRest needs for a vault that is there: they may come from
    /// another machine, or have been lost with this one.
    pub(super) async fn adopt_vault(&self, id: InstanceId, doing: &'static str) -> Result<(), BackupError> {
        self.check_repository().await?;
        let machine = self.machine.clone();
        Ok(blocking(doing, move || machine.make_vault(id).map_err(failed(doing))).await?)
    }

    /// Whether nothing of a vault is in the repository, which answers, or no more than a beginning. What else is
    /// there in part was damaged.
    pub(super) async fn is_gone(&self, vault: &Vault, doing: &'static str) -> Result<bool, BackupError> {
        self.adopt_vault(vault.instance, doing).await?;
        let said = PgBackRest::new(&self.machine, vault)?.run(&["--output=json", "info"]).await;
        let said = said.map_err(|failure| failure.while_doing(doing))?;
        let stanzas: Vec<Stanza> = serde_json::from_str(&said.text).unwrap_or_default();
        let intent = self.place(vault.instance).vault_intent();
        match stanzas.first().map(|stanza| stanza.status.code) {
            Some(status::MISSING_PATH) => Ok(intent.exists() || !self.has_directory(vault.instance, doing).await?),
            Some(status::MISSING_DATA) => Ok(intent.exists() && self.is_unfinished(vault, doing).await?),
            Some(status::OK | status::NO_BACKUPS) => {
                // It is whole, and what is missing from now on was lost.
                let _ = fs::remove_file(intent);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Whether there is something of a vault where the repository is a directory, as Howdah's own user sees it.
    async fn has_directory(&self, id: InstanceId, doing: &'static str) -> Result<bool, EngineError> {
        let Some(own) = self.machine.repository().directory_of(id) else { return Ok(false) };
        blocking(doing, move || {
            let mut parts = PARTS.iter().map(|part| own.join(part).join(id.bare()).try_exists());
            parts.try_fold(false, |any, there| Ok(any | there?)).map_err(failed(doing))
        })
        .await
    }
}

/// The directories of a vault.
const PARTS: [&str; 2] = ["archive", "backup"];
/// How long a start waits for the repository, in seconds.
const PATIENCE_AT_START: &str = "5";
/// What keeps others from a vault.
pub(super) const REMOVAL: &str = "a removal of backups";

fn alone(archive: &Archive) -> Result<tokio::sync::RwLockWriteGuard<'_, ()>, BackupError> {
    archive.vault.try_write().map_err(|_| BackupError::Busy("a backup or a restore"))
}

/// What `repo-ls` says, by paths.
pub(super) fn read_listing(text: &str, doing: &'static str) -> Result<HashMap<String, Listed>, BackupError> {
    serde_json::from_str(text).map_err(|error| BackupError::Failed {
        doing,
        reason: format!("the list of pgBackRest cannot be parsed: {error}"),
    })
}

/// Whether files and directories, by their paths, are what an interrupted `stanza-create` leaves. WAL may have
/// come to it since, which is nothing without a backup.
pub(super) fn is_beginning(listed: &HashMap<String, Listed>) -> bool {
    let mut files = listed.iter().filter(|(_, entry)| entry.kind == "file").map(|(path, _)| path.as_str());
    let names = |part: &str| {
        let inside = format!("{part}/");
        listed
            .keys()
            .filter_map(move |path| path.strip_prefix(&inside)?.split_once('/').map(|(_, name)| name.to_owned()))
    };
    let is_described =
        |part: &str| names(part).any(|name| name == format!("{part}.info") || name == format!("{part}.info.copy"));
    files.next().is_some()
        && names("backup").all(|name| name.starts_with("backup.info"))
        && !(is_described("archive") && is_described("backup"))
}

impl Machine {
    /// Where vaults are kept.
    pub(super) fn repository(&self) -> Repository {
        let chosen = self.config.backups.repository.clone();
        chosen.unwrap_or_else(|| Repository::Directory(self.config.data_directory.join("backups")))
    }

    /// The vault of an instance, where it takes room on the disk of the data directory.
    pub(in crate::local) fn vault_on_this_disk(&self, id: InstanceId) -> Option<PathBuf> {
        let device = |path: &Path| fs::metadata(path).ok().map(|facts| facts.dev());
        let vault = self.repository().directory_of(id)?;
        let here = device(&self.config.data_directory)?;
        (device(vault.parent()?)? == here).then_some(vault)
    }

    /// Whether an instance has to wait with what it would put into its vault: the disk is almost full, and the vault
    /// is on it.
    pub(in crate::local) fn has_no_room_for(&self, id: InstanceId, tightest: Level) -> bool {
        self.config.disk.level() > tightest && !is_metadata(id) && self.vault_on_this_disk(id).is_some()
    }

    /// Where pgBackRest keeps what it needs while it works on a vault.
    pub(super) fn backup_work(&self, id: InstanceId) -> PathBuf {
        self.config.data_directory.join("pgbackrest").join(id.bare())
    }

    /// Makes the directories that work on a vault needs, for the backup user alone.
    pub(super) fn make_vault_work(&self, id: InstanceId) -> io::Result<()> {
        let work = self.backup_work(id);
        if let Some(parent) = work.parent() {
            make_directory(parent, passable())?;
        }
        ["", "lock", "spool"].iter().try_for_each(|name| self.make_for_backup_user(&work.join(name)))
    }

    /// Makes the directories of a vault, for the backup user alone.
    pub(super) fn make_vault(&self, id: InstanceId) -> io::Result<()> {
        self.make_vault_work(id)?;
        self.look_for_mark()?;
        let Some(own) = self.repository().directory_of(id) else { return Ok(()) };
        // What the operator has made is left as it is.
        if let Some(parent) = own.parent().filter(|parent| !parent.exists()) {
            make_directory(parent, passable())?;
        }
        let owner = fs::symlink_metadata(&own).ok().map(|facts| facts.uid());
        match (owner, self.backup_user) {
            // It comes from a machine on which the backup user was another.
            (Some(owner), Some(user)) if owner != user => give(&own, user),
            (Some(_), _) => Ok(()),
            (None, _) => self.make_for_backup_user(&own),
        }
    }
}

pub(super) fn read(stanza: Stanza, gaps: &[Gap]) -> Option<Holdings> {
    let major = stanza.db.last()?.version.split('.').next()?.parse().ok().map(Major)?;
    let last_segment = stanza.archive.iter().filter_map(|archived| Segment::parse(archived.max.as_deref()?)).max();
    let archive = stanza.archive.last().map(|archived| archived.id.clone()).unwrap_or_default();
    let mut backups = Vec::new();
    for backup in stanza.backup {
        let (first, last) = (Segment::parse(&backup.archive.start?)?, Segment::parse(&backup.archive.stop?)?);
        let lost = gaps.iter().any(|gap| {
            let bounds = (Segment::parse(&gap.first_segment), Segment::parse(&gap.last_segment));
            matches!(bounds, (Some(from), Some(to)) if from <= last && first <= to)
        });
        backups.push(BackupFacts {
            label: BackupLabel::parse(&backup.label)?,
            kind: match backup.kind.as_str() {
                "full" => BackupKind::Full,
                "diff" => BackupKind::Differential,
                "incr" => BackupKind::Incremental,
                _ => return None,
            },
            started_at: Timestamp::from_second(backup.timestamp.start).ok()?,
            // pgBackRest looks at the clock after the backup's end, and leaves out what is less than a second.
            stopped_at: Timestamp::from_second(backup.timestamp.stop.checked_add(1)?).ok()?,
            size: backup.info.size,
            stored: backup.info.repository.delta.unwrap_or_default(),
            first_segment: first.to_string(),
            last_segment: last.to_string(),
            timeline: first.timeline,
            requires: backup
                .reference
                .unwrap_or_default()
                .iter()
                .map(|l| BackupLabel::parse(l))
                .collect::<Option<_>>()?,
            damaged_pages: backup.error.unwrap_or_default(),
            restorable: !lost && last_segment.is_some_and(|end| last <= end),
        });
    }
    backups.sort_by(|one, other| (one.stopped_at, &one.label).cmp(&(other.stopped_at, &other.label)));
    Some(Holdings { backups, major, archive, last_segment, gaps: gaps.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"[{"archive":[{"database":{"id":1,"repo-key":1},"id":"15-1","max":"000000010000000000000017","min":"000000010000000000000008"}],
        "backup":[{"archive":{"start":"00000001000000000000000E","stop":"00000001000000000000000F"},"database":{"id":1,"repo-key":1},"error":false,
        "info":{"delta":30482244,"repository":{"delta":3983888,"size":3983888},"size":30482244},"label":"20261125-102656F","prior":null,"reference":null,
        "timestamp":{"start":1795602416,"stop":1795602418},"type":"full"},
        {"archive":{"start":"000000010000000000000018","stop":"000000010000000000000018"},"database":{"id":1,"repo-key":1},"error":true,
        "info":{"delta":7094538,"repository":{"delta":637792,"size":4287808},"size":34987847},"label":"20261125-102656F_20261125-102734I",
        "prior":"20261125-102656F","reference":["20261125-102656F"],"timestamp":{"start":1795602454,"stop":1795602455},"type":"incr"}],
        "cipher":"aes-256-cbc","db":[{"id":1,"repo-key":1,"system-id":7712053377057736369,"version":"15"}],"name":"s1",
        "repo":[{"cipher":"aes-256-cbc","key":1,"status":{"code":0,"message":"ok"}}],"status":{"code":0,"lock":{"backup":{"held":false}},"message":"ok"}}]"#;

    fn holdings(gaps: &[Gap]) -> Holdings {
        let mut stanzas: Vec<Stanza> = serde_json::from_str(SAID).unwrap();
        read(stanzas.pop().unwrap(), gaps).unwrap()
    }

    #[test]
    fn begun_repository_is_distinguished_from_a_complete_one() {
        let is_beginning = |paths: &[&str]| {
            let kind = |path: &str| if path.contains(".info") || path.ends_with(".zst") { "file" } else { "path" };
            let listed = paths.iter().map(|path| ((*path).to_owned(), Listed { kind: kind(path).to_owned() }));
            super::is_beginning(&listed.collect())
        };
        let directories = ["archive", "archive/1", "backup", "backup/1"];
        let (archive, backup) = ("archive/1/archive.info", "backup/1/backup.info");
        let with = |more: &[&'static str]| directories.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
        assert!(is_beginning(&with(&[archive])));
        assert!(is_beginning(&with(&["archive/1/archive.info.pgbackrest.tmp"])));
        assert!(is_beginning(&with(&[archive, "archive/1/archive.info.copy", "backup/1/backup.info.pgbackrest.tmp"])));
        assert!(!is_beginning(&with(&[archive, backup])), "it is whole");
        assert!(!is_beginning(&with(&["archive/1/archive.info.copy", "backup/1/backup.info.copy"])));
        assert!(is_beginning(&with(&[archive, "archive/1/15-1", "archive/1/15-1/0000000100000000/x.zst"])));
        assert!(!is_beginning(&with(&[archive, "backup/1/20260102-030405F/x.zst"])), "it was damaged");
        assert!(!is_beginning(&directories) && !is_beginning(&[]), "there is nothing");
    }

    #[test]
    fn backups_are_read() {
        let holdings = holdings(&[]);
        assert_eq!(holdings.major, Major(15));
        let [full, incremental] = &holdings.backups[..] else { panic!("there are two") };
        assert_eq!((full.kind, full.size, full.stored), (BackupKind::Full, 30_482_244, 3_983_888));
        assert!(full.restorable && !full.damaged_pages && full.requires.is_empty());
        assert_eq!(incremental.requires, std::slice::from_ref(&full.label));
        assert!(incremental.damaged_pages);
        assert!(!incremental.restorable, "its last segment is not there yet");
        assert_eq!(incremental.timeline, 1);
    }

    #[test]
    fn gap_in_the_wal_of_a_backup_makes_it_unusable() {
        let lost = |first: &str, last: &str| {
            let (first_segment, last_segment) = (first.to_owned(), last.to_owned());
            let gap = Gap { first_segment, last_segment, at: Timestamp::UNIX_EPOCH, archived_until: None };
            !holdings(&[gap]).backups[0].restorable
        };
        assert!(lost("00000001000000000000000F", "000000010000000000000012"));
        assert!(!lost("000000010000000000000010", "000000010000000000000012"));
        assert!(!lost("000000010000000000000001", "00000001000000000000000D"));
    }
}
