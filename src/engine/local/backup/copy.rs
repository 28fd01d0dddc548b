//! Copying an instance that sleeps, where the file system lets files share their blocks (`FICLONE`: XFS,
//! Btrfs and others). The copy is there at once, whatever its size, and takes room as the two come to differ.
//!
//! Nothing runs in the source while its files are copied, and a file is taken for what it is and not for what
//! a link leads to: its own user, who could put one there, has no process then. What the copy shares with its
//! origin is taken from it as it is after a restore.

use std::fs;
use std::io;

use tokio::time::Instant;

use super::restore::{disinherit, milliseconds_since};
use crate::base::id::InstanceId;
use crate::engine::EngineError;
use crate::engine::backups::{BackupError, RestoreFacts};
use crate::engine::local::configuration::{Access, Purpose};
use crate::engine::local::control_file;
use crate::engine::local::place::{Manifest, Place, sync_tree};
use crate::engine::local::process::{ensure_vacant, living_processes_of};
use crate::engine::local::start::{self, Private};
use crate::engine::local::stock::forget_counts;
use crate::engine::local::template::{failed, share};
use crate::engine::local::{LocalEngine, blocking};

const DOING: &str = "copy the instance";

impl LocalEngine {
    pub(super) async fn copy_sleeping(
        &self,
        target: InstanceId,
        source: InstanceId,
    ) -> Result<Option<RestoreFacts>, BackupError> {
        if let Some(facts) = self.brought_back(target)? {
            return Ok(Some(facts));
        }
        let (origin, sleeper) = match self.manifest(source) {
            Ok(manifest) => (self.place(source), manifest),
            Err(EngineError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.abandon_restore(target).await?;
        let begun = Instant::now();
        let (place, manifest) = self.make_room(target, sleeper.major(), 0).await?;
        let (here, uid) = (place.clone(), manifest.uid);
        let shared = blocking(DOING, move || fill(&origin, &sleeper, &here, uid).map_err(failed(DOING))).await;
        let Some(bytes) = shared? else {
            self.abandon(&place).await?;
            return Ok(None);
        };

        // Where users are shared nobody knows its origin's password.
        let access = Access { separate_users: true, own_name: self.machine.access.own_name.clone() };
        let server = start::ensure(&self.machine, &place, &manifest, Purpose::Private, &access, None).await?;
        let server = Private(server);
        let facts = self.take_over(target, &place, bytes).await?;
        start::stop(&place, &manifest, Some(server.0.clone())).await?;
        let facts = RestoreFacts { milliseconds: milliseconds_since(begun), ..facts };
        self.finish(target, &place, manifest, &facts).await?;
        tracing::info!(instance.id = %target, "copied {source}, which sleeps, into {target}");
        Ok(Some(facts))
    }
}

/// Fills a place with the files of an instance that sleeps, and makes them durable: how many bytes they are.
/// `None`: it does not sleep, or the file system does not share blocks.
fn fill(origin: &Place, sleeper: &Manifest, place: &Place, uid: Option<u32>) -> io::Result<Option<u64>> {
    let control = fs::read(origin.data().join("global/pg_control"))?;
    let lives = sleeper.uid.is_some_and(|uid| living_processes_of(uid).next().is_some());
    if lives || !control_file::is_shut_down(&control) || ensure_vacant(origin, sleeper.uid).is_err() {
        return Ok(None);
    }
    let bytes = match share(&origin.data(), &place.data(), uid) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
        shared => shared?,
    };
    disinherit(place)?;
    forget_counts(place)?;
    sync_tree(&place.data())?;
    Ok(Some(bytes))
}
