//! Where vaults are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::local::metadata::is_metadata;
use base::id::InstanceId;
use base::secret::Secret;

/// How much WAL of one instance may wait on the disk, when nothing else is wanted.
const QUEUE_LIMIT: u64 = 1 << 30;
/// When segments are finished, when nothing else is wanted.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// How backups are made and where they go.
#[derive(Clone, Debug)]
pub struct BackupConfig {
    /// Where vaults are kept; without it `backups` in the data directory.
    pub repository: Option<Repository>,
    /// The `pgbackrest` program, instead of looking for it on the path.
    pub program: Option<PathBuf>,
    /// When more WAL than this of one instance waits on the disk, in bytes, it is given up.
    pub queue_limit: u64,
    /// A segment of WAL is finished so long after the first write in it at the latest; whole seconds.
    pub archive_timeout: Duration,
    /// How many processes copy at a time for one backup or restore.
    pub processes: u8,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self {
            repository: None,
            program: None,
            queue_limit: QUEUE_LIMIT,
            archive_timeout: ARCHIVE_TIMEOUT,
            processes: 2,
        }
    }
}

/// A place for vaults.
#[derive(Clone, Debug)]
pub enum Repository {
    /// A directory, absolute. As root it, and everything in it, belongs to a user whom no
    /// instance shares.
    Directory(PathBuf),
    /// Storage that speaks the protocol of S3.
    S3(S3),
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    /// The host, such as `s3.eu-central-1.amazonaws.com`; always over TLS.
    pub endpoint: String,
    /// The port, if it is not 443.
    pub port: Option<u16>,
    /// The bucket.
    pub bucket: String,
    /// The region.
    pub region: String,
    /// The access key.
    pub key: Secret,
    /// The secret that goes with it.
    pub secret: Secret,
    /// What the names of all objects begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket stands in the path, not in the host's name.
    pub path_style: bool,
    /// Certificates of authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Repository {
    /// What pgBackRest has to be told about this vault's place, as variables of its environment.
    pub(super) fn settings(&self, instance: InstanceId) -> Vec<(&'static str, String)> {
        match self {
            Self::Directory(_) => {
                vec![("REPO1_PATH", self.directory_of(instance).unwrap_or_default().display().to_string())]
            }
            Self::S3(s3) => {
                let mut settings = vec![
                    ("REPO1_TYPE", "s3".to_owned()),
                    ("REPO1_PATH", s3.path(instance)),
                    ("REPO1_S3_ENDPOINT", s3.endpoint.clone()),
                    ("REPO1_S3_BUCKET", s3.bucket.clone()),
                    ("REPO1_S3_REGION", s3.region.clone()),
                    ("REPO1_S3_KEY", s3.key.expose().to_owned()),
                    ("REPO1_S3_KEY_SECRET", s3.secret.expose().to_owned()),
                    ("REPO1_S3_URI_STYLE", if s3.path_style { "path" } else { "host" }.to_owned()),
                ];
                settings.extend(s3.port.map(|port| ("REPO1_STORAGE_PORT", port.to_string())));
                settings.extend(s3.ca_file.iter().map(|file| ("REPO1_STORAGE_CA_FILE", file.display().to_string())));
                settings
            }
        }
    }

    /// The vault's own directory, where the repository is one.
    pub(super) fn directory_of(&self, instance: InstanceId) -> Option<PathBuf> {
        match self {
            Self::Directory(directory) => Some(directory.join(name_of(instance))),
            Self::S3(_) => None,
        }
    }

    /// The file of certificates that pgBackRest has to read.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::Directory(_) => None,
            Self::S3(s3) => s3.ca_file.as_deref(),
        }
    }
}

impl S3 {
    fn path(&self, instance: InstanceId) -> String {
        match self.prefix.as_str() {
            "" => format!("/{}", name_of(instance)),
            prefix => format!("/{prefix}/{}", name_of(instance)),
        }
    }
}

/// Where in the repository Howdah's own metadata is: an empty machine looks there first.
pub(super) const METADATA: &str = "metadata";

/// The name of a vault's place.
fn name_of(instance: InstanceId) -> String {
    match is_metadata(instance) {
        true => format!("{METADATA}/{}", instance.bare()),
        false => instance.bare(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_separate_paths() {
        let one = InstanceId::from(uuid::Uuid::from_u128(1));
        let directory = Repository::Directory("/srv/backups".into());
        assert_eq!(directory.settings(one), [("REPO1_PATH", "/srv/backups/00000000000000000000000001".to_owned())]);
        let mut s3 = S3 {
            endpoint: "127.0.0.1".into(),
            port: Some(9000),
            bucket: "backups".into(),
            region: "us-east-1".into(),
            key: Secret::new("key"),
            secret: Secret::new("very secret"),
            prefix: String::new(),
            path_style: true,
            ca_file: Some("/etc/ca.pem".into()),
        };
        assert_eq!(s3.path(one), "/00000000000000000000000001");
        let metadata = InstanceId::from(uuid::Uuid::from_u128(8 << 76));
        assert!(directory.directory_of(metadata).unwrap().starts_with("/srv/backups/metadata"));
        assert!(s3.path(metadata).starts_with("/metadata/"));
        s3.prefix = "howdah/one".into();
        let settings = Repository::S3(s3.clone()).settings(one);
        for (name, value) in [
            ("REPO1_PATH", "/howdah/one/00000000000000000000000001"),
            ("REPO1_S3_URI_STYLE", "path"),
            ("REPO1_STORAGE_PORT", "9000"),
            ("REPO1_STORAGE_CA_FILE", "/etc/ca.pem"),
        ] {
            assert!(settings.contains(&(name, value.to_owned())), "{name}");
        }
        assert!(!format!("{s3:?}").contains("very secret"));
    }
}
