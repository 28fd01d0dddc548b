//! The private PostgreSQL in which Howdah keeps its own data when it is not given another.
//!
//! It has an id like every instance, so that it is archived and backed up by the same code; in the
//! engine's lists it is not. Each data directory has one, so each of these ids stands for one era of
//! the metadata: what was recovered from the vault of a lost one gets an id of its own when it is
//! started first, and writes into a vault of its own.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_postgres::Config;
use uuid::Uuid;

use super::configuration::Purpose;
use super::place::{Place, sync_directory, write_private};
use super::template::failed;
use super::{LocalConfig, LocalEngine, blocking, start, stock};
use crate::{Endpoint, Engine as _, EngineError, Major, PLATFORM_DATABASE, PLATFORM_ROLE};
use base::id::InstanceId;

const DOING: &str = "read the metadata instance";
/// Where the version of a UUID stands in it.
const VERSION: u32 = 76;

/// Howdah's own PostgreSQL, in `<data directory>/metadata`: a unix socket that only Howdah's
/// user gets in by, no port.
pub struct MetadataInstance {
    engine: Arc<LocalEngine>,
    place: Place,
    /// One verb at a time.
    verb: tokio::sync::Mutex<()>,
}

/// Whether an id is one of a metadata instance. They are of version 8, which is for whoever makes
/// them (RFC 9562, section 5.8), so that a vault in the repository says by its name what it is of.
pub(super) fn is_metadata(id: InstanceId) -> bool {
    id.uuid().get_version_num() == 8
}

/// A new id of a metadata instance. Later ones sort later, as other ids do.
pub(super) fn generate_id(now: Timestamp) -> InstanceId {
    let bits = InstanceId::generate(now).uuid().as_u128();
    Uuid::from_u128(bits & !(0xf << VERSION) | (8 << VERSION)).into()
}

/// What a server is for, by the instance's id.
pub(super) fn purpose_of(id: InstanceId) -> Purpose {
    if is_metadata(id) { Purpose::Metadata } else { Purpose::Tenant }
}

impl MetadataInstance {
    /// The one of this data directory. Starts nothing yet. Share the engine
    /// ([`LocalEngine::metadata`]), or open it alone.
    ///
    /// # Errors
    /// When the data directory cannot be used; see [`LocalConfig::check`].
    pub async fn open(config: LocalConfig) -> Result<Self, EngineError> {
        Ok(Self::of(LocalEngine::open(config).await?))
    }

    pub(super) fn of(engine: Arc<LocalEngine>) -> Self {
        let place = Place::new(engine.machine.metadata());
        Self { engine, place, verb: tokio::sync::Mutex::default() }
    }

    /// Whether it was made, or recovered, before.
    pub fn exists(&self) -> bool {
        self.place.exists()
    }

    /// Makes it if there is none, starts or adopts it, and says how to reach it: as superuser on
    /// a database of Howdah's own.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub async fn ensure_started(&self) -> Result<Config, EngineError> {
        let _verb = self.verb.lock().await;
        if !self.place.exists() {
            self.make().await?;
        }
        let id = self.id().await?;
        let manifest = self.place.read_manifest().map_err(failed(DOING))?;
        let known = self.engine.known(id);
        let machine = &self.engine.machine;
        let running = start::ensure(machine, &self.place, &manifest, Purpose::Metadata, &machine.access, known).await?;
        self.engine.remember(id, running);
        Ok(self.connection())
    }

    /// Ends it: a fast shutdown. What it wrote last is archived, if it is archived at all and that can
    /// be done now.
    ///
    /// # Errors
    /// When the server does not end.
    pub async fn ensure_stopped(&self) -> Result<(), EngineError> {
        let _verb = self.verb.lock().await;
        if !self.place.exists() {
            return Ok(());
        }
        let id = self.id().await?;
        let manifest = self.place.read_manifest().map_err(failed(DOING))?;
        start::stop(&self.place, &manifest, self.engine.known(id)).await?;
        self.engine.forget(id);
        self.engine.archive_after_stop(id).await;
        Ok(())
    }

    /// Returns when its server has ended, at once when none is known to run.
    pub async fn exited(&self) {
        if let Ok(id) = self.id().await {
            self.engine.has_exited(id).await;
        }
    }

    /// The id that its vault goes by, given to it at its first start.
    ///
    /// # Errors
    /// When it cannot be read or written, or there is no metadata instance.
    pub async fn id(&self) -> Result<InstanceId, EngineError> {
        let (place, now) = (self.place.clone(), self.engine.machine.config.clock.now());
        blocking(DOING, move || id_of(&place, now).map_err(failed(DOING))).await
    }

    /// Which major version's programs it needs; `None` before its first start.
    pub fn major(&self) -> Option<Major> {
        Some(self.place.read_manifest().ok()?.major())
    }

    /// How to reach it while it runs.
    fn connection(&self) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.place.socket())
            .port(Endpoint::PORT)
            .user(PLATFORM_ROLE)
            .dbname(PLATFORM_DATABASE)
            .application_name("howdah");
        config
    }

    async fn make(&self) -> Result<(), EngineError> {
        let programs = self.engine.machine.newest()?;
        let machine = self.engine.machine.clone();
        let (target, partial): (PathBuf, Place) =
            (self.place.root.clone(), Place::new(self.place.root.with_extension("partial")));
        blocking("prepare the metadata instance", move || {
            if partial.root.exists() {
                fs::remove_dir_all(&partial.root).map_err(failed("remove the remains of an interrupted start"))?;
            }
            stock::make(&machine, &programs, std::slice::from_ref(&partial), Purpose::Metadata)?;
            stock::move_to(&partial, &target).map_err(failed("prepare the metadata instance"))
        })
        .await
    }
}

fn id_of(place: &Place, now: Timestamp) -> io::Result<InstanceId> {
    let path = place.root.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id = InstanceId::parse(text.trim()).filter(|id| is_metadata(*id));
            id.ok_or_else(|| io::Error::other(format!("{} is damaged: it contains no ID", path.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = generate_id(now);
            write_private(&path, format!("{}\n", id.bare()).as_bytes())?;
            sync_directory(&place.root)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_what_they_are_of_and_sort_by_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (one, other) = (generate_id(at(1)), generate_id(at(20_000)));
        assert!(is_metadata(one) && is_metadata(other) && !is_metadata(InstanceId::generate(at(1))));
        assert!(one < other && one.bare() < other.bare());
    }
}
