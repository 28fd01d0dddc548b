//! The mark of a directory of backups. By it that directory is told from the empty one that is there instead
//! while its disk is not mounted, so that nothing is put there.
//!
//! ```text
//! <backups>/howdah-backups          the mark: random text
//! <data directory>/backup-place     the same text, from the first start with that directory on
//! ```

use std::fs;
use std::io;
use std::path::Path;

use super::repository::Repository;
use crate::backups::BackupError;
use crate::local::place::{make_directory, sync_directory, write_private};
use crate::local::template::failed;
use crate::local::{LocalEngine, Machine, blocking, passable};
use base::secret::random_text;

const DOING: &str = "check the marker file of the backup directory";
const MARK: &str = "howdah-backups";
const KNOWN: &str = "backup-place";

impl LocalEngine {
    /// From now on backups are kept in the directory that bears the mark that this data directory knows, and
    /// nowhere else. A data directory that knows none learns that of its directory of backups, which is made
    /// and marked if need be. What is in a bucket is not marked: another bucket is never in its place.
    ///
    /// # Errors
    /// [`BackupError::WrongPlace`] when the directory is another one, or not there; it is looked for again each
    /// time that it is needed.
    pub async fn hold_to_repository(&self) -> Result<(), BackupError> {
        let machine = self.machine.clone();
        blocking(DOING, move || machine.learn_mark(true).map_err(failed(DOING))).await?;
        self.check_repository().await
    }

    /// Has the data directory know the mark of its directory of backups, if that bears one; writes nothing
    /// there.
    ///
    /// # Errors
    /// When it cannot be read, or not be written down.
    pub async fn note_repository(&self) -> Result<(), BackupError> {
        let machine = self.machine.clone();
        Ok(blocking(DOING, move || machine.learn_mark(false).map_err(failed(DOING))).await?)
    }

    /// Whether the place of backups is the one that it is to be.
    pub(super) async fn check_repository(&self) -> Result<(), BackupError> {
        let machine = self.machine.clone();
        let looked = blocking(DOING, move || Ok(machine.look_for_mark())).await?;
        looked.map_err(|error| BackupError::WrongPlace(error.to_string()))
    }
}

impl Machine {
    fn learn_mark(&self, may_mark: bool) -> io::Result<()> {
        let known = self.config.data_directory.join(KNOWN);
        let Repository::Directory(directory) = self.repository() else {
            return match fs::remove_file(&known) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let unusable = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        let mark = match (read(&known)?, read(&directory.join(MARK)).map_err(unusable)?) {
            (Some(known), _) => known,
            (None, None) if !may_mark => return Ok(()),
            (None, there) => {
                let mark = match there {
                    Some(there) => there,
                    None => {
                        if !directory.exists() {
                            make_directory(&directory, passable()).map_err(unusable)?;
                        }
                        let mark = random_text::<16>();
                        write_private(&directory.join(MARK), mark.as_bytes()).map_err(unusable)?;
                        sync_directory(&directory)?;
                        tracing::info!(
                            "using {} for backups; created the marker file {MARK} in it",
                            directory.display()
                        );
                        mark
                    }
                };
                write_private(&known, mark.as_bytes())?;
                sync_directory(&self.config.data_directory)?;
                mark
            }
        };
        // Only the first call counts.
        let _ = self.mark.set(mark);
        Ok(())
    }

    /// Fails with a sentence when the directory of backups does not bear the mark that it is to bear.
    pub(super) fn look_for_mark(&self) -> io::Result<()> {
        let (Some(mark), Repository::Directory(directory)) = (self.mark.get(), self.repository()) else {
            return Ok(());
        };
        let found = match read(&directory.join(MARK)) {
            Ok(Some(found)) if found == *mark => return Ok(()),
            Ok(Some(_)) => format!("its file {MARK} is another one"),
            Ok(None) => format!("there is no file {MARK} in it"),
            Err(error) => format!("its file {MARK} cannot be read ({error})"),
        };
        Err(io::Error::other(format!(
            "{} is not the directory that backups were kept in so far: {found}; mount or bring back that one, or, if \
             what is there now is to be used from now on, stop Howdah, remove {} and start it again",
            directory.display(),
            self.config.data_directory.join(KNOWN).display()
        )))
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
