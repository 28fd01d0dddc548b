//! Instances on this machine.
//!
//! ```text
//! <data directory>/
//!   instances/<id>/   data/ and socket/ belong to the instance's user;
//!                     conf/, log/, instance.json, server.json, secret are Howdah's
//!   stock/<name>/     the same, prepared and waiting for an id
//!   templates/<ver>/  what the stock is copied from
//!   trash/            on its way out
//!   metadata/         Howdah's own PostgreSQL, where it has no other
//! ```
//!
//! Whatever takes time is made under another name and renamed, so that a crash leaves whole
//! things or things that the next start removes.

mod backup;
mod children;
mod configuration;
mod control_file;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod measure;
mod metadata;
mod place;
mod process;
mod programs;
mod session;
mod start;
mod stock;
mod template;
#[cfg(test)]
pub(crate) mod tests;
mod trash;
mod tree;
mod untrusted;
mod users;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::backup::Archives;
pub use backup::{BackupConfig, Repository, S3};
pub use children::{OpenFiles, prepare_this_process};
pub use configuration::MOST_SESSIONS;
pub use metadata::MetadataInstance;
pub use programs::OLDEST;

use self::configuration::{Access, Purpose};
use self::place::{Manifest, Place, make_directory};
use self::process::Server;
use self::programs::{Finder, Programs};
use self::session::ask;
use self::template::failed;
use self::trash::Removals;
use self::users::Users;
use super::{DiskUsage, Endpoint, Engine, EngineError, InstanceFacts, Major, Measured, StockLevel};
use base::clock::Clock;
use base::disk::Disk;
use base::id::InstanceId;

/// The longest path that a unix socket can have.
const LONGEST_SOCKET_PATH: usize = 107;

/// How many files of an instance are counted at most.
const MOST_COUNTED: u64 = 1_000_000;

/// How to run instances on this machine.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Where everything is kept; absolute.
    pub data_directory: PathBuf,
    /// Where PostgreSQL's programs are, instead of looking in the usual places.
    pub programs: Option<PathBuf>,
    /// The users of instances, when Howdah runs as root; without it a block that the data directory
    /// draws for itself.
    pub uid_range: Option<RangeInclusive<u32>>,
    /// How many sessions one database takes at a time, at most [`MOST_SESSIONS`]; an instance that runs takes as
    /// many as when it started.
    pub sessions: u16,
    /// How many prepared instances to hold.
    pub stock_target: usize,
    /// The major that new instances get and the stock is made of; without it the newest installed.
    pub major: Option<Major>,
    /// How backups are made and where they go.
    pub backups: BackupConfig,
    /// The disk of the data directory.
    pub disk: Arc<Disk>,
    /// The time.
    pub clock: Clock,
}

impl LocalConfig {
    /// The defaults, in this directory.
    pub fn new(data_directory: PathBuf) -> Self {
        let disk = Arc::new(Disk::of("data directory", &data_directory, None));
        Self {
            disk,
            data_directory,
            programs: None,
            uid_range: None,
            sessions: 40,
            stock_target: 8,
            major: None,
            backups: BackupConfig::default(),
            clock: Clock::system(),
        }
    }

    /// Whether instances can live here and servers can be started. The error is a sentence with
    /// the cure. Changes nothing.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self) -> Result<(), String> {
        let directory = &self.data_directory;
        let shown = directory.display();
        if !directory.is_absolute() {
            return Err(format!("the data directory {shown} is not an absolute path; give it one that begins with /"));
        }
        let sample = Place::new(directory.join("instances").join("0".repeat(26))).endpoint().socket();
        let excess = sample.as_os_str().len().saturating_sub(LONGEST_SOCKET_PATH);
        if excess > 0 {
            return Err(format!(
                "the path of the data directory {shown} is {excess} characters too long for the sockets in it; \
                 choose a shorter one with --data-dir"
            ));
        }
        if users::own_name().is_none() {
            return Err(format!(
                "the user with the number {} that Howdah runs as has no name on this machine, and PostgreSQL insists \
                 on one; run Howdah as a user of the machine, or add a line for it to /etc/passwd",
                rustix::process::geteuid().as_raw()
            ));
        }
        if users::is_root() {
            // The data directory itself is made passable when it is opened.
            let closed = directory.parent().and_then(users::first_closed_directory);
            if let Some(closed) = closed {
                return Err(format!(
                    "the users that instances run as cannot pass through {}, so they cannot reach the data directory \
                     {shown}; choose another one with --data-dir, or run: chmod o+x {}",
                    closed.display(),
                    closed.display()
                ));
            }
            if let Some(reason) = users::unusable_users(self.uid_range.as_ref()) {
                return Err(reason);
            }
        }
        let found = Finder::new(self.programs.clone()).all();
        let Some(newest) = found.first() else {
            let place = match &self.programs {
                Some(directory) => format!(" in {}", directory.display()),
                None => String::new(),
            };
            return Err(format!(
                "no PostgreSQL server of version {OLDEST} or newer found{place}; install one \
                 (Debian, Ubuntu: apt-get install postgresql) or name its programs' directory with --postgres-bin"
            ));
        };
        if let Some(major) = self.major
            && !found.iter().any(|programs| programs.major == major)
        {
            return Err(EngineError::MajorMissing(major).to_string());
        }
        if users::is_root()
            && let Some(closed) = users::first_closed_directory(&newest.path("postgres"))
        {
            return Err(format!(
                "the users that instances run as cannot reach PostgreSQL's programs through {0}; run: chmod o+x {0}",
                closed.display()
            ));
        }
        Ok(())
    }
}

/// This machine as instances see it: the data directory, the programs, the users.
#[derive(Debug)]
struct Machine {
    config: LocalConfig,
    finder: Finder,
    users: Users,
    access: Access,
    /// Whom the vaults belong to; `None`: this process's user.
    backup_user: Option<u32>,
    /// What the directory of backups is told by, once that is known.
    mark: OnceLock<String>,
    removals: Removals,
    /// Cancelled when Howdah stops: removals end early.
    stop: CancellationToken,
}

impl Machine {
    async fn open(config: LocalConfig) -> Result<Arc<Self>, EngineError> {
        blocking("open the data directory", move || {
            config.check().map_err(|reason| EngineError::Failed { doing: "open the data directory", reason })?;
            prepare(&config.data_directory).map_err(failed("open the data directory"))?;
            let mut machine = Self {
                finder: Finder::new(config.programs.clone()),
                users: Users::open(&config.data_directory, config.uid_range.clone())
                    .map_err(failed("open the data directory"))?,
                access: Access { separate_users: users::is_root(), own_name: users::own_name().unwrap_or_default() },
                backup_user: None,
                mark: OnceLock::new(),
                removals: Removals::default(),
                stop: CancellationToken::new(),
                config,
            };
            machine.note_users().map_err(failed("open the data directory"))?;
            machine.backup_user =
                machine.users.backup_user(&machine.config.data_directory).map_err(failed("open the data directory"))?;
            Ok(Arc::new(machine))
        })
        .await
    }

    fn instances(&self) -> PathBuf {
        self.config.data_directory.join("instances")
    }

    fn stock(&self) -> PathBuf {
        self.config.data_directory.join("stock")
    }

    fn templates(&self) -> PathBuf {
        self.config.data_directory.join("templates")
    }

    fn trash(&self) -> PathBuf {
        self.config.data_directory.join("trash")
    }

    /// Instances that are being restored.
    fn restores(&self) -> PathBuf {
        self.config.data_directory.join("restores")
    }

    fn metadata(&self) -> PathBuf {
        self.config.data_directory.join("metadata")
    }

    /// What an instance takes on the disk of the data directory, as far as that can be counted.
    fn disk_usage(&self, id: InstanceId, place: &Place) -> DiskUsage {
        let archive = self.vault_on_this_disk(id).map(|vault| vault.join("archive"));
        let mut usage = DiskUsage::default();
        for root in archive.into_iter().chain([place.data()]) {
            // A walk that ends early, at a directory that is nested too deep or has gone, has counted the rest.
            let _ = tree::visit(&root, tree::DEEPEST, &mut |_, _, facts| {
                usage.bytes += u64::try_from(facts.st_blocks).unwrap_or_default() * 512;
                usage.files += 1;
                match usage.files > MOST_COUNTED {
                    true => Err(tree::foreign(format_args!("more than {MOST_COUNTED} files"))),
                    false => Ok(()),
                }
            });
        }
        usage
    }

    fn newest(&self) -> Result<Programs, EngineError> {
        let wanted = self.config.major.unwrap_or(OLDEST);
        let found = match self.config.major {
            Some(major) => self.finder.of(major),
            None => self.finder.all().into_iter().next(),
        };
        found.ok_or(EngineError::MajorMissing(wanted))
    }

    /// Makes the directories of what is kept, and notes which users are taken.
    fn note_users(&self) -> io::Result<()> {
        for parent in [self.instances(), self.stock(), self.templates(), self.trash(), self.restores()] {
            make_directory(&parent, passable())?;
            for place in places(&parent)? {
                self.users.note(place.read_manifest().ok().and_then(|manifest| manifest.uid));
            }
        }
        let metadata = Place::new(self.metadata());
        self.users.note(metadata.read_manifest().ok().and_then(|manifest| manifest.uid));
        Ok(())
    }

    fn all_places(&self) -> io::Result<Vec<(InstanceId, Place)>> {
        Ok(places(&self.instances())?
            .into_iter()
            .filter_map(|place| Some((InstanceId::parse(place.root.file_name()?.to_str()?)?, place)))
            .collect())
    }
}

/// The mode of directories that instances' users pass through, where they are others than Howdah's.
fn passable() -> u32 {
    if users::is_root() { 0o711 } else { 0o700 }
}

/// Makes the data directory. One that exists already may be anything that was there before:
/// nothing is taken away from it.
fn prepare(directory: &Path) -> io::Result<()> {
    if !directory.exists() {
        return make_directory(directory, passable());
    }
    if users::is_root() {
        let there = fs::metadata(directory)?.permissions().mode() & 0o7777;
        place::set_mode(directory, there | 0o001)?;
    }
    Ok(())
}

fn places(parent: &Path) -> io::Result<Vec<Place>> {
    fs::read_dir(parent)?.map(|entry| Ok(Place::new(entry?.path()))).collect()
}

/// Runs what waits for the disk off the runtime's threads.
async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(EngineError::Failed { doing, reason: error.to_string() }))
}

/// The driver for instances on this machine.
pub struct LocalEngine {
    machine: Arc<Machine>,
    /// What has been started or adopted. A server in it may have ended since.
    servers: Mutex<HashMap<InstanceId, Arc<Server>>>,
    /// One batch of prepared instances is made at a time.
    maker: tokio::sync::Mutex<()>,
    /// How many creates wait for a prepared instance.
    creates_waiting: AtomicUsize,
    demand: stock::Demand,
    archives: Archives,
}

impl LocalEngine {
    /// Opens the data directory: makes it if it is missing, moves what an earlier run left
    /// half done into the trash, and finds the servers that it left running. The caller makes sure
    /// that nobody else has it open.
    ///
    /// # Errors
    /// When the directory cannot be used; see [`LocalConfig::check`].
    pub async fn open(config: LocalConfig) -> Result<Arc<Self>, EngineError> {
        let machine = Machine::open(config).await?;
        let engine = Arc::new(Self {
            machine,
            servers: Mutex::default(),
            maker: tokio::sync::Mutex::default(),
            creates_waiting: AtomicUsize::default(),
            demand: stock::Demand::default(),
            archives: Archives::default(),
        });
        let opened = engine.clone();
        blocking("open the data directory", move || {
            opened.machine.clear_leftovers().map_err(failed("clear what an earlier run left"))?;
            for (id, place) in opened.machine.all_places().map_err(failed("list the instances"))? {
                if let Ok(manifest) = place.read_manifest()
                    && let Some(server) = Server::adopt(&place, manifest.uid)
                {
                    tracing::info!(instance.id = %id, pid = server.pid(), "adopted the running server of {id}");
                    opened.remember(id, Arc::new(server));
                }
                if place.archive_record().exists() {
                    opened.archives.look_out_for(id);
                }
            }
            Ok(())
        })
        .await?;
        Ok(engine)
    }

    /// The metadata instance in the same data directory.
    pub fn metadata(self: &Arc<Self>) -> MetadataInstance {
        MetadataInstance::of(self.clone())
    }

    /// An id to restore the metadata into, in a data directory that has none yet. It is given an id for
    /// good when it is started.
    pub fn metadata_target(&self) -> InstanceId {
        metadata::generate_id(self.machine.config.clock.now())
    }

    fn place(&self, id: InstanceId) -> Place {
        match metadata::is_metadata(id) {
            true => Place::new(self.machine.metadata()),
            false => Place::new(self.machine.instances().join(id.bare())),
        }
    }

    fn known(&self, id: InstanceId) -> Option<Arc<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn remember(&self, id: InstanceId, server: Arc<Server>) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, server);
    }

    fn forget(&self, id: InstanceId) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn manifest(&self, id: InstanceId) -> Result<Manifest, EngineError> {
        match self.place(id).read_manifest() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(EngineError::Missing(id)),
            other => other.map_err(failed("read the instance's description")),
        }
    }

    /// Ends the instance's server. False: there is no such instance.
    async fn stop_server(&self, id: InstanceId) -> Result<bool, EngineError> {
        let manifest = match self.manifest(id) {
            Err(EngineError::Missing(_)) => return Ok(false),
            other => other?,
        };
        start::stop(&self.place(id), &manifest, self.known(id)).await?;
        self.forget(id);
        Ok(true)
    }
}

#[async_trait]
impl Engine for LocalEngine {
    async fn majors(&self) -> Vec<Major> {
        let machine = self.machine.clone();
        blocking("look for PostgreSQL", move || {
            Ok(machine.finder.all().into_iter().map(|programs| programs.major).collect())
        })
        .await
        .unwrap_or_default()
    }

    async fn ensure_created(&self, id: InstanceId, major: Major) -> Result<(), EngineError> {
        let place = self.place(id);
        if self.take_prepared(&place, major).await? {
            return Ok(());
        }
        self.creates_waiting.fetch_add(1, Ordering::Relaxed);
        let taken = self.take_or_prepare(&place, major).await;
        self.creates_waiting.fetch_sub(1, Ordering::Relaxed);
        taken
    }

    async fn ensure_started(&self, id: InstanceId) -> Result<Endpoint, EngineError> {
        let manifest = self.manifest(id)?;
        let place = self.place(id);
        let (machine, known) = (&self.machine, self.known(id));
        let server = start::ensure(machine, &place, &manifest, Purpose::Tenant, &machine.access, known).await?;
        self.remember(id, server);
        Ok(place.endpoint())
    }

    async fn ensure_stopped(&self, id: InstanceId) -> Result<(), EngineError> {
        if self.stop_server(id).await? {
            self.archive_after_stop(id).await;
        }
        Ok(())
    }

    async fn ensure_ended(&self, id: InstanceId) -> Result<(), EngineError> {
        let uid = self.place(id).read_manifest().ok().and_then(|manifest| manifest.uid);
        let stopped = self.stop_server(id).await;
        match uid.filter(|_| self.machine.users.are_separate()) {
            // A user of the instance's own has no other business than the instance.
            Some(uid) => process::end_all_of(uid).await.map_err(failed("end the instance's processes"))?,
            None => drop(stopped?),
        }
        self.forget(id);
        Ok(())
    }

    async fn ensure_destroyed(&self, id: InstanceId) -> Result<(), EngineError> {
        const DOING: &str = "remove the instance";
        let place = self.place(id);
        self.ensure_ended(id).await?;
        self.abandon_restore(id).await?;
        self.archives.forget(id);
        let machine = self.machine.clone();
        blocking(DOING, move || {
            if place.root.exists() {
                machine.throw_away(&place).map_err(failed(DOING))?;
            }
            // An earlier attempt may have come as far as here.
            for discarded in places(&machine.trash()).map_err(failed(DOING))? {
                if discarded.root.file_stem().is_some_and(|name| name == id.bare().as_str()) {
                    machine.discard(&discarded).map_err(failed(DOING))?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn is_busy(&self, id: InstanceId) -> Result<bool, EngineError> {
        let Some(server) = self.known(id) else { return Ok(false) };
        let question = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity \
                        WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM 'howdah' \
                        AND (xact_start IS NOT NULL OR state IS DISTINCT FROM 'idle'))";
        match ask(&self.place(id), question).await {
            Ok(busy) => Ok(busy),
            Err(_) if !server.is_alive() => Ok(false),
            Err(unanswered) => Err(unanswered.while_doing("ask the instance what it does")),
        }
    }

    async fn measure(&self, id: InstanceId) -> Result<Option<Measured>, EngineError> {
        let Some(server) = self.known(id) else { return Ok(None) };
        match measure::ask(&self.place(id)).await {
            Ok(measured) => Ok(Some(measured)),
            Err(_) if !server.is_alive() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn disk_usage(&self, id: InstanceId) -> Result<DiskUsage, EngineError> {
        let (machine, place) = (self.machine.clone(), self.place(id));
        blocking("count the instance's files", move || Ok(machine.disk_usage(id, &place))).await
    }

    async fn has_exited(&self, id: InstanceId) {
        // Waiting alone would see an end only a moment later.
        if let Some(server) = self.known(id).filter(|server| server.is_alive()) {
            server.exited().await;
        }
    }

    async fn instances(&self) -> Result<Vec<InstanceFacts>, EngineError> {
        const DOING: &str = "list the instances";
        let machine = self.machine.clone();
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        blocking(DOING, move || {
            let installed: HashMap<Major, Programs> =
                machine.finder.all().into_iter().map(|programs| (programs.major, programs)).collect();
            let facts = machine.all_places().map_err(failed(DOING))?.into_iter().filter_map(|(id, place)| {
                let manifest = place.read_manifest().ok()?;
                let server = servers.get(&id).filter(|server| server.is_alive());
                let outdated = match (server, installed.get(&manifest.major())) {
                    (Some(server), Some(programs)) => server.program != Some(programs.identity),
                    _ => false,
                };
                if server.is_some() {
                    process::bound_log(&place);
                }
                Some(InstanceFacts {
                    id,
                    major: manifest.major(),
                    running: server.is_some(),
                    outdated,
                    system_identifier: manifest.system_identifier,
                })
            });
            Ok(facts.collect())
        })
        .await
    }

    async fn replenish_stock(&self) -> Result<StockLevel, EngineError> {
        let _one_at_a_time = self.maker.lock().await;
        let (machine, demand) = (self.machine.clone(), self.demand.of_late(self.machine.config.clock.now()));
        blocking(stock::DOING, move || {
            let programs = machine.newest()?;
            let target = stock::target(&machine, demand)?;
            let mut ready = stock::prepared(&machine, programs.major)?.count();
            if ready < target {
                ready += stock::prepare(&machine, &programs, target - ready)?;
            }
            Ok(StockLevel { ready, target })
        })
        .await
    }
}

impl LocalEngine {
    /// Makes a prepared instance the one at `place`, unless there is one already. `false`: none is prepared.
    async fn take_prepared(&self, place: &Place, major: Major) -> Result<bool, EngineError> {
        const DOING: &str = "create the instance";
        let (machine, place) = (self.machine.clone(), place.clone());
        let taken = blocking(DOING, move || {
            if place.exists() {
                // An earlier attempt may have ended before its rename was durable.
                return place::sync_directory(&machine.instances()).map_err(failed(DOING)).map(|()| true);
            }
            for prepared in stock::prepared(&machine, major)? {
                match stock::move_to(&prepared, &place.root) {
                    // Another create took this one.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    moved => return moved.map_err(failed(DOING)).map(|()| true),
                }
            }
            Ok(false)
        })
        .await?;
        if taken {
            self.demand.note(self.machine.config.clock.now());
        }
        Ok(taken)
    }

    /// Prepares instances for all creates that wait by now, and takes one.
    async fn take_or_prepare(&self, place: &Place, major: Major) -> Result<(), EngineError> {
        loop {
            let _one_at_a_time = self.maker.lock().await;
            if self.take_prepared(place, major).await? {
                return Ok(());
            }
            let (machine, waiting) = (self.machine.clone(), self.creates_waiting.load(Ordering::Relaxed));
            blocking(stock::DOING, move || {
                let programs = machine.finder.of(major).ok_or(EngineError::MajorMissing(major))?;
                // The other creates that wait probably want the newest version.
                let count = if machine.newest()?.major == major { waiting.max(1) } else { 1 };
                stock::prepare(&machine, &programs, count)
            })
            .await?;
            if self.take_prepared(place, major).await? {
                return Ok(());
            }
        }
    }
}
