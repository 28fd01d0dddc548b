//! Instances: one PostgreSQL server for each database.
//!
//! [`Engine`] is what a driver can do; [`Instances`] is what the gateway and the workflows use:
//! it gives every instance one verb at a time, counts who is using it, measures what runs, and
//! stops the idle ones.
//! Nothing here knows of projects, connections or the API.

pub mod backups;
pub mod bounded;
#[cfg(test)]
mod conformance;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod instances;
pub mod local;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;

pub use instances::{Attachment, Instances, Limits, Measurement};

use self::backups::Backups;

use base::id::InstanceId;

/// The role that a tenant's sessions have inside every instance.
pub const TENANT_ROLE: &str = "tenant";
/// The platform's superuser inside every instance.
pub const PLATFORM_ROLE: &str = "howdah";
/// The platform's own database inside every instance, closed to everybody else.
pub const PLATFORM_DATABASE: &str = "howdah";
/// What pgBackRest logs in as: it can begin and end a backup and look at settings, and has no
/// password while none goes on.
pub const BACKUP_ROLE: &str = "howdah_backup";

/// A PostgreSQL major version, such as 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Major(pub u16);

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a running instance listens: `<directory>/.s.PGSQL.5432`, a private socket on which the
/// gateway's process logs in as [`TENANT_ROLE`] without a password (`peer`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The directory of the socket.
    pub directory: PathBuf,
}

impl Endpoint {
    /// The port in the socket's name.
    pub const PORT: u16 = 5432;

    /// The socket itself.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{}", Self::PORT))
    }
}

/// What exists of an instance.
#[derive(Clone, Debug)]
pub struct InstanceFacts {
    /// Which one.
    pub id: InstanceId,
    /// The major version whose programs it is started with.
    pub major: Major,
    /// Whether a server runs in it now.
    pub running: bool,
    /// It runs a minor version that has been replaced on this machine: restart it when it is idle.
    pub outdated: bool,
    /// PostgreSQL's own identifier of the cluster; no two instances share one.
    pub system_identifier: u64,
}

/// What a running instance has done and how large it is, from its own statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// The counters of the databases in it; without the platform's own.
    pub databases: Vec<Counters>,
    /// What these databases take on the disk, in bytes; without write-ahead log.
    pub storage_bytes: u64,
    /// How many sessions of the tenant are open in it.
    pub sessions: u64,
}

/// The counters of one database inside an instance. They only grow, as long as `since` stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// PostgreSQL's own number of the database; not used again for another one.
    pub database: u32,
    /// When they were zero, in microseconds since 1970: a crash begins them anew, a stop does not.
    pub since: i64,
    /// Transactions that were committed or rolled back, without those that open sessions. The
    /// server's own maintenance is among them.
    pub transactions: u64,
    /// Microseconds for which sessions were at work. While this stands still, no client has done
    /// anything.
    pub active: u64,
}

/// What an instance takes on the disk of the data directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

/// How full the pool of prepared instances is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockLevel {
    /// Prepared instances.
    pub ready: usize,
    /// How many there should be now: the operator's number, or more after a burst of creates.
    pub target: usize,
}

/// Why an engine could not do what it was asked to. The text is a sentence for an operator;
/// it names no path inside another tenant's directory and no secret.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No such instance: never created, or destroyed.
    #[error("instance {0} does not exist")]
    Missing(InstanceId),
    /// The programs of the instance's major version are not installed here.
    #[error("PostgreSQL {0} is not installed on this machine; install its server package and try again")]
    MajorMissing(Major),
    /// Every running instance is in use and the cap is reached. Maps to SQLSTATE 53300.
    #[error(
        "the maximum number of instances is running ({running}, --max-running), and none of them is idle; try again later or raise the maximum"
    )]
    Full {
        /// How many run.
        running: usize,
    },
    /// The disk is full. Maps to SQLSTATE 53100.
    #[error("no space left on the disk to {doing}")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
    },
    /// The instance was stopped because it grew while the disk was almost full. Maps to SQLSTATE 53100.
    #[error("the instance is stopped because it grew while the disk was almost full")]
    HeldBack {
        /// After so many seconds its owner may delete data; `None`: when there is room.
        again_s: Option<u64>,
    },
    /// Anything else that may pass; try again.
    #[error("{doing}: {reason}")]
    Failed {
        /// What was being done, such as `start the instance`.
        doing: &'static str,
        /// Why it failed, for people.
        reason: String,
    },
}

/// What drivers do; [`Backups`] is the part about those. Every verb may be called at any time, twice, after a crash in the middle of
/// the same verb, and has the same outcome; [`Instances`] never calls two verbs on one instance
/// at the same time, but calls verbs on different instances concurrently.
///
/// * After `ensure_created` an instance of that major exists, stopped, with the tenant's database
///   and role in it. If it exists already nothing changes. It is fast (a rename out of the stock)
///   unless the stock is empty.
/// * After `ensure_started` SQL works on the endpoint: the server is out of recovery. A running
///   instance is left as it is. Starting one that was never created is [`EngineError::Missing`].
/// * After `ensure_stopped` no server process of the instance is left; its sessions were ended
///   (fast shutdown), committed data is safe. Stopping a stopped or a missing instance is fine.
/// * After `ensure_ended` no process of the instance's own user is left either, whoever started it and whatever
///   the instance's files say; where instances share a user it is `ensure_stopped`. A delete begins with it.
/// * After `ensure_destroyed` nothing of it is left: no process, no file. Creating it again
///   afterwards gives a new, empty one.
/// * `is_busy` tells whether a tenant's transaction or statement is open in it now; false when
///   it is stopped.
/// * `measure` reads the statistics of a running instance; `None` when it is stopped. What a
///   session has done is in them ten seconds later, and when the session has ended. It counts
///   nothing of its own. It may be called while another verb is under way.
/// * `disk_usage` counts what an instance takes on the disk of the data directory, with its archived WAL where that
///   is on the same disk. It may be called while another verb is under way.
/// * `has_exited` waits until the server of a running instance ends by itself or is stopped;
///   returns at once for one that does not run.
#[async_trait]
pub trait Engine: Backups + Send + Sync + 'static {
    /// The majors that this engine can start now, newest first.
    async fn majors(&self) -> Vec<Major>;
    /// See the contract above.
    async fn ensure_created(&self, id: InstanceId, major: Major) -> Result<(), EngineError>;
    /// See the contract above.
    async fn ensure_started(&self, id: InstanceId) -> Result<Endpoint, EngineError>;
    /// See the contract above.
    async fn ensure_stopped(&self, id: InstanceId) -> Result<(), EngineError>;
    /// See the contract above.
    async fn ensure_ended(&self, id: InstanceId) -> Result<(), EngineError> {
        self.ensure_stopped(id).await
    }
    /// See the contract above.
    async fn ensure_destroyed(&self, id: InstanceId) -> Result<(), EngineError>;
    /// See the contract above.
    async fn is_busy(&self, id: InstanceId) -> Result<bool, EngineError>;
    /// See the contract above.
    async fn measure(&self, id: InstanceId) -> Result<Option<Measured>, EngineError>;
    /// See the contract above.
    async fn disk_usage(&self, id: InstanceId) -> Result<DiskUsage, EngineError>;
    /// See the contract above.
    async fn has_exited(&self, id: InstanceId);
    /// Every instance that exists, running or not; not the stock.
    async fn instances(&self) -> Result<Vec<InstanceFacts>, EngineError>;
    /// Prepares a batch of instances if the pool is below its target; returns how full it is then. The batch is
    /// small, so that a shutdown need not wait long for it.
    async fn replenish_stock(&self) -> Result<StockLevel, EngineError>;
}
