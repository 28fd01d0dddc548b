//! The private PostgreSQL in which Howdah keeps its own data when it is not given another.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_postgres::Config;

use super::configuration::Purpose;
use super::place::Place;
use super::process::Server;
use super::template::failed;
use super::{LocalConfig, Machine, start, stock};
use crate::engine::{Endpoint, EngineError, Major, PLATFORM_DATABASE, PLATFORM_ROLE};

/// Howdah's own PostgreSQL, in `<data directory>/metadata`: a unix socket that only Howdah's
/// user gets in by, no port.
pub struct MetadataInstance {
    machine: Arc<Machine>,
    place: Place,
    /// One verb at a time.
    server: tokio::sync::Mutex<Option<Arc<Server>>>,
}

impl MetadataInstance {
    /// The one of this data directory. Starts nothing yet. Share the machine with the engine
    /// ([`super::LocalEngine::metadata`]), or open it alone.
    ///
    /// # Errors
    /// When the data directory cannot be used; see [`LocalConfig::check`].
    pub async fn open(config: LocalConfig) -> Result<Self, EngineError> {
        Ok(Self::on(Machine::open(config).await?))
    }

    pub(super) fn on(machine: Arc<Machine>) -> Self {
        let place = Place::new(machine.metadata());
        Self { machine, place, server: tokio::sync::Mutex::new(None) }
    }

    /// Makes it if there is none, starts or adopts it, and says how to reach it: as superuser on
    /// a database of Howdah's own.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub async fn ensure_started(&self) -> Result<Config, EngineError> {
        let mut server = self.server.lock().await;
        if !self.place.exists() {
            self.make().await?;
        }
        let manifest = self.place.read_manifest().map_err(failed("read the metadata instance"))?;
        let running = start::ensure(&self.machine, &self.place, &manifest, Purpose::Metadata, server.take()).await?;
        *server = Some(running);
        Ok(self.connection())
    }

    /// Ends it: a fast shutdown.
    ///
    /// # Errors
    /// When the server does not end.
    pub async fn ensure_stopped(&self) -> Result<(), EngineError> {
        let mut server = self.server.lock().await;
        if !self.place.exists() {
            return Ok(());
        }
        let manifest = self.place.read_manifest().map_err(failed("read the metadata instance"))?;
        start::stop(&self.place, &manifest, server.take()).await
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
        let programs = self.machine.newest()?;
        let machine = self.machine.clone();
        let (target, partial): (PathBuf, Place) =
            (self.place.root.clone(), Place::new(self.place.root.with_extension("partial")));
        super::blocking("prepare the metadata instance", move || {
            if partial.root.exists() {
                fs::remove_dir_all(&partial.root).map_err(failed("clear what an interrupted start left"))?;
            }
            stock::make(&machine, &programs, &partial, Purpose::Metadata)?;
            stock::move_to(&partial, &target).map_err(failed("prepare the metadata instance"))
        })
        .await
    }
}
