//! Removing instances.
//!
//! An instance that is no longer needed is renamed into `trash/` first, which takes no time whatever its files
//! look like. Its files are removed there. A start moves what interrupted work has left into the trash and goes
//! on; [`LocalEngine::keep_trash_empty`] removes it in the background and tries again what cannot be removed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::place::Place;
use super::process::{self, Server};
use super::template::failed;
use super::{LocalEngine, Machine, blocking, places, stock};
use crate::EngineError;
use base::secret::random_hex;
use base::tasks::Tasks;

const DOING: &str = "empty the trash";
/// How often to look into the trash.
const ROUND: Duration = Duration::from_secs(60);
/// How long to wait after a failure: doubled with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// The directories that are being removed now.
#[derive(Debug, Default)]
pub(super) struct Removals(Mutex<HashSet<PathBuf>>);

/// One of them.
struct Removal<'a> {
    all: &'a Removals,
    root: PathBuf,
}

impl Removals {
    /// `None` when somebody else is removing it.
    fn begin(&self, place: &Place) -> Option<Removal<'_>> {
        let root = place.root.clone();
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(root.clone());
        is_first.then_some(Removal { all: self, root })
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.root);
    }
}

impl Machine {
    /// Puts an instance into the trash. A server that still runs in it is told to end at once.
    pub(super) fn throw_away(&self, place: &Place) -> io::Result<Place> {
        if let Ok(manifest) = place.read_manifest()
            && let Some(server) = Server::adopt(place, manifest.uid)
        {
            server.abandon();
        }
        let name = place.root.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let thrown = Place::new(self.trash().join(format!("{name}.{}", random_hex::<4>())));
        stock::move_to(place, &thrown.root)?;
        Ok(thrown)
    }

    /// Puts something into the trash that is no instance.
    pub(super) fn throw_away_file(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                fs::rename(path, self.trash().join(format!("directory.{}", random_hex::<4>())))
            }
            removed => removed,
        }
    }

    /// Removes an instance that nobody can find any more, and only then lets go of its user.
    pub(super) fn discard(&self, place: &Place) -> io::Result<()> {
        let Some(_alone) = self.removals.begin(place) else {
            return Err(io::Error::other("its files are already being removed"));
        };
        let uid = place.read_manifest().ok().and_then(|manifest| manifest.uid);
        place.remove(&self.stop)?;
        if let Some(uid) = uid.filter(|_| self.users.are_separate()) {
            process::remove_shared_memory_of(uid);
        }
        self.users.give_back(uid);
        Ok(())
    }

    /// Moves what an earlier run did not finish into the trash. What cannot be moved is in nobody's way.
    pub(super) fn clear_leftovers(&self) -> io::Result<()> {
        let unfinished = |place: &Place| !place.exists() || place.root.extension().is_some();
        let stock = places(&self.stock())?.into_iter().filter(unfinished);
        for place in stock.chain(places(&self.restores())?) {
            if let Err(error) = self.throw_away(&place) {
                tracing::warn!(%error, "could not move {}, left by an earlier run, to the trash", place.root.display());
            }
        }
        Ok(())
    }
}

impl LocalEngine {
    /// Removes what is in the trash, until the tasks stop.
    pub async fn keep_trash_empty(self: Arc<Self>, tasks: Tasks) {
        let mut pause = FIRST_PAUSE;
        while !tasks.is_stopping() {
            let is_empty = self.empty_trash().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "could not list the trash; retrying");
                false
            });
            let next = if is_empty { ROUND } else { pause };
            pause = if is_empty { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = sleep(next) => {}
                () = tasks.stopping() => {}
            }
        }
    }

    /// Removes what is in the trash. False: something is left, and the log says why.
    pub(super) async fn empty_trash(&self) -> Result<bool, EngineError> {
        let machine = self.machine.clone();
        let thrown = blocking(DOING, move || places(&machine.trash()).map_err(failed(DOING))).await?;
        let mut is_empty = true;
        for place in thrown {
            let root = place.root.display().to_string();
            match self.remove_thrown(place).await {
                Ok(()) => {}
                Err(_) if self.machine.stop.is_cancelled() => return Ok(false),
                Err(error) => {
                    tracing::warn!(%error, "could not remove {root}; retrying later");
                    is_empty = false;
                }
            }
        }
        Ok(is_empty)
    }

    async fn remove_thrown(&self, place: Place) -> Result<(), EngineError> {
        let uid = place.read_manifest().ok().and_then(|manifest| manifest.uid);
        if let Some(uid) = uid.filter(|_| self.machine.users.are_separate()) {
            process::end_all_of(uid).await.map_err(failed(DOING))?;
        }
        let machine = self.machine.clone();
        blocking(DOING, move || machine.discard(&place).map_err(failed(DOING))).await
    }
}
