//! Where backups are kept: what the options mean, and whether it can be used.

use std::path::{Path, PathBuf};

use crate::config::{BackupS3, Serve, UriStyle};
use base::secret::Secret;
use engine::backups::BackupError;
use engine::local::{BackupConfig, LocalEngine, Repository, S3};

/// The variables that open a bucket.
const KEY: &str = "HOWDAH_BACKUP_S3_KEY";
const KEY_SECRET: &str = "HOWDAH_BACKUP_S3_KEY_SECRET";

/// Where backups go.
///
/// # Errors
/// A sentence with the cure when the options do not say one place.
pub(super) fn config(config: &Serve, defaults: BackupConfig) -> Result<BackupConfig, String> {
    let queue_limit = u64::from(config.backup_queue) << 20;
    let defaults = BackupConfig { queue_limit, archive_timeout: config.archive_timeout, ..defaults };
    let repository = repository(config.backup_dir.as_deref(), &config.backup_s3)?.or(defaults.repository);
    Ok(BackupConfig { repository, ..defaults })
}

/// The place that the options name, if they name one.
///
/// # Errors
/// A sentence with the cure when they do not name one place.
pub(super) fn repository(directory: Option<&Path>, bucket: &BackupS3) -> Result<Option<Repository>, String> {
    match (directory, &bucket.bucket) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err("--backup-dir and --backup-s3-bucket are mutually exclusive; give only one of them".to_owned())
        }
        (Some(directory), None) => absolute(directory, "--backup-dir").map(Repository::Directory).map(Some),
        (None, Some(name)) => bucket_of(name, bucket, |name| std::env::var(name).ok()).map(Repository::S3).map(Some),
    }
}

fn bucket_of(bucket: &str, options: &BackupS3, environment: impl Fn(&str) -> Option<String>) -> Result<S3, String> {
    let opens = |name: &str| {
        let value = environment(name).filter(|value| !value.is_empty()).map(Secret::new);
        value.ok_or_else(|| {
            format!("the bucket {bucket} needs {KEY} and {KEY_SECRET} in the environment; {name} is not set")
        })
    };
    let (endpoint, port) = match &options.endpoint {
        Some((host, port)) => (host.clone(), *port),
        None => (format!("s3.{}.amazonaws.com", options.region), None),
    };
    // Few others have a certificate for each bucket's host.
    let usual = if options.endpoint.is_some() { UriStyle::Path } else { UriStyle::Host };
    Ok(S3 {
        endpoint,
        port,
        bucket: bucket.to_owned(),
        region: options.region.clone(),
        key: opens(KEY)?,
        secret: opens(KEY_SECRET)?,
        prefix: options.prefix.clone().unwrap_or_default(),
        path_style: options.uri_style.unwrap_or(usual) == UriStyle::Path,
        ca_file: options.ca_file.as_deref().map(|file| absolute(file, "--backup-s3-ca-file")).transpose()?,
    })
}

fn absolute(path: &Path, option: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{} cannot be used: {error}; check {option}", path.display()))
}

/// Whether the bucket takes what is put into it. One that refuses does not get better by waiting, so
/// that is the end; one that does not answer may, and databases work without it.
///
/// # Errors
/// A sentence with the cure when it refuses.
pub(super) async fn check(engine: &LocalEngine, bucket: &BackupS3) -> Result<(), String> {
    if let Err(error) = engine.hold_to_repository().await {
        tracing::error!(%error, "the backup storage cannot be used; no backups are created and no WAL is archived");
    }
    let Some(bucket) = &bucket.bucket else { return Ok(()) };
    match engine.try_repository().await {
        Ok(()) => Ok(()),
        Err(BackupError::Refused { reason, .. }) => Err(refused(bucket, &reason)),
        Err(BackupError::NotInstalled) => Err(BackupError::NotInstalled.to_string()),
        Err(error) => {
            tracing::warn!(
                error = %error,
                "the backup bucket {bucket} is not responding: backups and WAL archiving are paused, and WAL waits on this \
                 machine's disk; check the options --backup-s3-… if this persists"
            );
            Ok(())
        }
    }
}

fn refused(bucket: &str, reason: &str) -> String {
    format!(
        "the bucket {bucket} cannot be used for backups: {reason}; check the options --backup-s3-… and {KEY} and \
         {KEY_SECRET} in the environment"
    )
}

/// Why nothing comes out of the place of backups, for whom that is the end, in one sentence.
pub(super) fn unreadable(repository: &Repository, error: &BackupError) -> String {
    match (repository, error) {
        (Repository::S3(s3), BackupError::Refused { reason, .. }) => refused(&s3.bucket, reason),
        (Repository::S3(s3), BackupError::Failed { reason, .. } | BackupError::Unreachable { reason, .. }) => format!(
            "the backup bucket {} is not responding: {reason}; check the options --backup-s3-…, or try again \
             later",
            s3.bucket
        ),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> BackupS3 {
        BackupS3 {
            bucket: Some("kept".into()),
            endpoint: None,
            region: "eu-central-1".into(),
            prefix: None,
            uri_style: None,
            ca_file: None,
        }
    }

    #[test]
    fn a_bucket_is_where_the_options_say() {
        let there = |name: &str| Some(format!("value of {name}"));
        let at_aws = bucket_of("kept", &options(), there).unwrap();
        assert_eq!((at_aws.endpoint.as_str(), at_aws.path_style), ("s3.eu-central-1.amazonaws.com", false));
        assert_eq!(at_aws.secret.expose(), "value of HOWDAH_BACKUP_S3_KEY_SECRET");
        let own = BackupS3 { endpoint: Some(("minio".into(), Some(9000))), ..options() };
        let own = bucket_of("kept", &own, there).unwrap();
        assert_eq!((own.endpoint.as_str(), own.port, own.path_style), ("minio", Some(9000), true));
    }

    #[test]
    fn missing_storage_credentials_are_named() {
        let only_key = |name: &str| (name == KEY).then(|| "key".to_owned());
        let said = bucket_of("kept", &options(), only_key).unwrap_err();
        assert!(said.contains("HOWDAH_BACKUP_S3_KEY_SECRET is not set"), "{said}");
        let empty = |_: &str| Some(String::new());
        assert!(bucket_of("kept", &options(), empty).unwrap_err().contains("HOWDAH_BACKUP_S3_KEY is not set"));
    }
}
