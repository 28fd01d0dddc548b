//! Bringing an installation back on an empty machine, from the repository of backups and the master key.
//!
//! The metadata comes first. What becomes of the databases is written into it in one transaction; the
//! next `howdah serve` does that work. Until that transaction has committed the data directory says that
//! a recovery is under way in it, so that nothing serves from it, and the same command goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::{DataDirectory, read_key};
use super::{Signals, backups, local};
use crate::config::Recover;
use crate::metadata;
use auth::signing::Signer;
use base::clock::{Clock, format_timestamp};
use base::error::{Error, describe};
use base::id::InstanceId;
use base::keyring::Keyring;
use base::store::Store;
use base::tasks::Tasks;
use cli::print;
use domain::backups as domain_backups;
use domain::recoveries::{self, Recovery};
use engine::backups::{BackupError, BackupFacts, Backups as _, Progress, ProgressSink, RecoverTo, Vault};
use engine::local::{BackupConfig, LocalConfig, LocalEngine, MetadataInstance, Repository};

const INTERRUPTED: &str = "interrupted; run the same command again to continue";

/// Recovers into an empty data directory. The error is one sentence with the cure. Backups inside of the
/// data directory are refused: that is emptied when nothing comes of it.
pub async fn recover(config: Recover) -> Result<(), String> {
    if config.place.metadata_url.is_some() {
        return Err("metadata at --metadata-url cannot be recovered by Howdah; omit --metadata-url to recover a \
                    server that used its private metadata instance"
            .to_owned());
    }
    let master_key = read_key(&config.master_key_file)?;
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let defaults = local(&config.place)?;
    let repository = backups::repository(config.backup_dir.as_deref(), &config.backup_s3)?;
    let repository =
        repository.ok_or("the location of the backups is missing; give --backup-dir or --backup-s3-bucket")?;
    let backups = BackupConfig { repository: Some(repository.clone()), ..defaults.backups };
    let local = LocalConfig { backups, ..defaults };
    if let Repository::Directory(directory) = &repository {
        check_directory(directory, &local.data_directory)?;
    }
    local.check()?;
    let directory = DataDirectory::open_for_recovery(&local.data_directory)?;
    let place = Kept::at(repository);
    let keyring = Keyring::new(&master_key);
    let engine = LocalEngine::open(local).await.map_err(|error| error.to_string())?;
    let private = engine.metadata();
    let recovered = async {
        if !private.exists() {
            bring_back(&engine, &keyring, &place).await?;
        }
        directory.write_master_key(&master_key)?;
        engine.note_repository().await.map_err(|error| place.unreadable(&error))?;
        settle(&engine, &private, &directory, &keyring, &place).await
    };
    let recovered = tokio::select! {
        recovered = recovered => recovered,
        () = signals.next() => Err(INTERRUPTED.to_owned()),
    };
    private.ensure_stopped().await.map_err(|error| error.to_string())?;
    match recovered {
        Ok(recovery) => {
            directory.end_recovery()?;
            print(&farewell(&directory, &place, recovery));
            Ok(())
        }
        Err(sentence) => {
            // What is left of it is in nobody's way: the next attempt goes on from there.
            if !private.exists() && sentence != INTERRUPTED {
                let _ = directory.empty();
            }
            Err(sentence)
        }
    }
}

/// A place of backups, and how it is called.
struct Kept {
    repository: Repository,
    /// Where it is.
    shown: String,
    /// The options that name it.
    options: String,
}

impl Kept {
    fn at(repository: Repository) -> Self {
        let (shown, options) = match &repository {
            Repository::Directory(directory) => {
                (directory.display().to_string(), format!("--backup-dir {}", directory.display()))
            }
            Repository::S3(s3) => {
                let below = if s3.prefix.is_empty() { String::new() } else { format!(" below {}", s3.prefix) };
                let options = format!("--backup-s3-bucket {} and the other --backup-s3-… options", s3.bucket);
                (format!("the bucket {}{below}", s3.bucket), options)
            }
        };
        Self { repository, shown, options }
    }

    /// Why nothing comes out of it.
    fn unreadable(&self, error: &BackupError) -> String {
        backups::unreadable(&self.repository, error)
    }
}

fn check_directory(backups: &Path, data: &Path) -> Result<(), String> {
    if !backups.is_dir() {
        return Err(format!("the directory {} does not exist; give the directory with the backups", backups.display()));
    }
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if resolved(backups).starts_with(resolved(data)) {
        return Err(format!(
            "the backups in {} are inside the data directory {}, which must be empty; move them out of it, or choose \
             another directory with --data-dir",
            backups.display(),
            data.display()
        ));
    }
    Ok(())
}

/// Restores the newest metadata that is whole.
async fn bring_back(engine: &Arc<LocalEngine>, keyring: &Keyring, place: &Kept) -> Result<(), String> {
    let shown = &place.shown;
    print(&format!("Looking for the metadata in {shown}.\n"));
    let (_, mut eras) = engine.vaults().await.map_err(|error| place.unreadable(&error))?;
    eras.reverse();
    if eras.is_empty() {
        return Err(format!(
            "there is no backup of the metadata in {shown}; give the location where the lost server \
             stored its backups"
        ));
    }
    let mut opened = true;
    for era in eras {
        let vault = jobs::metadata::vault(keyring, era);
        let held = match engine.backups(&vault).await {
            Ok(held) => held,
            Err(BackupError::Damaged(_)) => {
                opened = false;
                continue;
            }
            // It was lost before anything came into it.
            Err(BackupError::MissingVault(_)) => continue,
            Err(error) => return Err(place.unreadable(&error)),
        };
        let whole: Vec<_> = held.into_iter().filter(|facts| facts.restorable).collect();
        if restore_newest(engine, &vault, &whole, place).await? {
            return Ok(());
        }
    }
    Err(match opened {
        false => format!(
            "the master key does not decrypt the metadata in {shown}: it belongs to another server, or the metadata is \
             damaged; give the file with the right key with --master-key-file"
        ),
        true => format!("there is no complete backup of the metadata in {shown}, so nothing can be recovered"),
    })
}

/// False: none of these restores.
async fn restore_newest(
    engine: &Arc<LocalEngine>,
    vault: &Vault,
    whole: &[BackupFacts],
    place: &Kept,
) -> Result<bool, String> {
    // Without the WAL after it a backup is still worth its end.
    let ways = whole.iter().rev().flat_map(|facts| [(facts, RecoverTo::Latest), (facts, RecoverTo::Immediate)]);
    for (facts, to) in ways {
        let upto = match to {
            RecoverTo::Immediate => "without later changes",
            RecoverTo::Latest | RecoverTo::Time(_) => "with the WAL archived after it",
        };
        let made = format_timestamp(facts.stopped_at);
        print(&format!("Restoring the metadata from the backup of {made}, {upto}.\n"));
        let target = engine.metadata_target();
        match engine.restore(target, vault, &facts.label, to, quarters()).await {
            Ok(restored) => {
                let last = restored.last_commit_at.unwrap_or(facts.stopped_at);
                print(&format!("Restored the metadata to its state at {}.\n", format_timestamp(last)));
                return Ok(true);
            }
            Err(error @ (BackupError::Damaged(_) | BackupError::Gap(_) | BackupError::MissingBackup(_))) => {
                print(&format!("The restore failed: {error}.\n"));
            }
            Err(error) => return Err(place.unreadable(&error)),
        }
    }
    Ok(false)
}

/// Writes down what becomes of everything that was lost.
async fn settle(
    engine: &LocalEngine,
    private: &MetadataInstance,
    directory: &DataDirectory,
    keyring: &Keyring,
    place: &Kept,
) -> Result<Recovery, String> {
    let failed = |error: Error| format!("cannot use the recovered metadata: {}", describe(&error));
    let config =
        private.ensure_started().await.map_err(|error| format!("cannot start the metadata instance: {error}"))?;
    metadata::migrate(&config).await.map_err(failed)?;
    let tasks = Tasks::default();
    let store = Store::open(config, 1, &tasks).map_err(failed)?;
    let work = async {
        let tx = store.begin().await?;
        let installation = metadata::installation(&tx).await?;
        let installation = installation.ok_or_else(|| Error::internal("it belongs to no installation"))?;
        let now = Clock::system().now();
        // Its key is in the store: this fails with any other master key.
        Signer::load_or_create(&tx, keyring, now).await?;
        let recovery = recoveries::begin(&tx, now).await?;
        let known = domain_backups::all_vaults(&tx, keyring).await?;
        tx.commit().await?;
        Ok((installation, recovery, known))
    };
    let (installation, recovery, known) = work.await.map_err(failed)?;
    tasks.stop();
    tasks.finished().await;
    directory.write_installation(installation)?;
    let (there, _) = engine.vaults().await.map_err(|error| place.unreadable(&error))?;
    let unknown: Vec<InstanceId> =
        there.into_iter().filter(|id| known.iter().all(|vault| vault.instance != *id)).collect();
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(InstanceId::bare).collect();
        print(&format!(
            "These backup repositories belong to no database in the recovered metadata and are kept: {}. Their \
             databases were first backed up after the metadata was last archived, or belong to another server.\n",
            names.join(", ")
        ));
    }
    Ok(recovery)
}

/// Says when another quarter is done.
fn quarters() -> ProgressSink {
    let said = AtomicU64::new(0);
    Arc::new(move |Progress { done, total }| {
        let quarter = done.saturating_mul(4) / total.max(1);
        if said.fetch_max(quarter, Ordering::Relaxed) < quarter {
            print(&format!("  {} of {} MiB\n", done >> 20, total >> 20));
        }
    })
}

fn farewell(directory: &DataDirectory, place: &Kept, recovery: Recovery) -> String {
    let Recovery { databases, provisions, deletes } = recovery;
    let mut text =
        format!("\nRecovered into {}. The next start of `howdah serve` will process:\n\n", directory.path().display());
    for (what, number) in [
        ("databases to recover from their backups and archived WAL", databases),
        ("databases to create again, because their creation had not ended", provisions),
        ("databases to delete, because their deletion had not ended", deletes),
    ] {
        if number > 0 {
            text.push_str(&format!("  {what}: {number}\n"));
        }
    }
    if databases + provisions + deletes == 0 {
        text.push_str("  no databases.\n");
    }
    text.push_str(&format!(
        "\nStart the server with the options of the lost server, including:\n\n  howdah serve --data-dir {} {}\n\n\
         Nothing is written to the backups before that. Make sure that the lost server is not running anymore.\n",
        directory.path().display(),
        place.options
    ));
    text
}
