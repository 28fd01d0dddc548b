//! What the gateway and the workflows see of the engine: one verb at a time on each instance,
//! who uses it, which ones are idle, and how many may run.
//!
//! An instance is *idle* when no transaction is open in it and no byte has passed for the limit.
//! Open sessions do not keep it awake, since pools never disconnect: they are ended with 57P01.

mod backups;
mod holding;
mod measuring;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::stream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Notify, OwnedMutexGuard, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::holding::HeldBack;
pub use self::measuring::Measurement;

use super::{Endpoint, Engine, EngineError, InstanceFacts, Major, StockLevel};
use base::clock::Clock;
use base::id::InstanceId;
use base::tasks::Tasks;

/// How long sessions get to read why they end before their server goes.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long an instance whose programs were replaced has to be quiet before it is stopped.
const OUTDATED_QUIET: Duration = Duration::from_secs(2);
/// How long a session that has not sent anything yet is not taken for an idle one.
const SETTLING: Duration = Duration::from_secs(2);
/// How long an attach at the cap waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for one instance to answer and to stop before it turns to the next one.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How many instances are adopted or stopped at a time.
const VERBS_AT_ONCE: usize = 16;

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
    /// The instance grew while the disk was almost full.
    NoRoom,
    /// The instance is being destroyed or its server ended by itself.
    Gone,
}

/// All instances of this node.
pub struct Instances {
    engine: Arc<dyn Engine>,
    limits: Limits,
    clock: Clock,
    tasks: Tasks,
    slots: Mutex<HashMap<InstanceId, Arc<Slot>>>,
    seats: Arc<Seats>,
    /// One attach at a time makes room.
    making_room: tokio::sync::Mutex<()>,
    /// Who records measurements, if anybody does.
    measurements: Mutex<Option<mpsc::UnboundedSender<Measurement>>>,
    shut: AtomicBool,
    /// Instances that grew while the disk was almost full.
    held_back: Mutex<HashMap<InstanceId, HeldBack>>,
    clean_up_allowed: AtomicBool,
}

/// What is known of one instance.
#[derive(Default)]
struct Slot {
    /// Held by the verb under way.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Held by the measurement under way, so that measurements are sent in their order.
    measuring: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// An attachment was dropped.
    left: Notify,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// A stop or an adoption is under way: who attaches waits for it.
    closing: bool,
    /// How many starts have ended, and how the last one failed, for those who waited for it.
    starts: u64,
    failure: Option<Failure>,
    /// Ends the restore that is under way.
    interrupt: Option<CancellationToken>,
    /// Its server did not answer when it was asked last: others are stopped first to make room.
    silent: bool,
}

struct Running {
    endpoint: Endpoint,
    holds: Vec<Arc<Hold>>,
    /// Microseconds; of sessions that have left, and of the start.
    last_activity: i64,
    /// Microseconds; when it was measured last.
    measured: Option<i64>,
    _seat: Seat,
    /// Which start this is.
    start: u64,
}

/// The instances that run or are being started.
#[derive(Default)]
struct Seats {
    taken: Mutex<usize>,
    freed: Notify,
}

/// A place among those that may run.
struct Seat(Arc<Seats>);

/// One session.
struct Hold {
    /// Microseconds.
    last: AtomicI64,
    phase: AtomicU8,
    /// The platform's own: no activity.
    probe: bool,
    end: watch::Sender<Option<EndReason>>,
}

const SETTLES: u8 = 0;
const QUIET: u8 = 1;
const BUSY: u8 = 2;
const ENDED: u8 = 3;

/// A session's hold on a running instance. Dropping it ends the hold.
pub struct Attachment {
    endpoint: Endpoint,
    hold: Arc<Hold>,
    slot: Weak<Slot>,
    clock: Clock,
    clean_up: bool,
}

/// What an [`EngineError`] is made of again for everybody who waited for the same start.
#[derive(Clone)]
enum Failure {
    Missing(InstanceId),
    MajorMissing(Major),
    Full(usize),
    NoSpace(&'static str),
    HeldBack(Option<u64>),
    Failed(&'static str, String),
}

impl Instances {
    /// Coordinates the instances of `engine`. Call [`Instances::adopt`] once before use.
    pub fn new(engine: Arc<dyn Engine>, limits: Limits, clock: Clock, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            engine,
            limits,
            clock,
            tasks,
            slots: Mutex::default(),
            seats: Arc::default(),
            making_room: tokio::sync::Mutex::default(),
            measurements: Mutex::default(),
            shut: AtomicBool::new(false),
            held_back: Mutex::default(),
            clean_up_allowed: AtomicBool::new(true),
        })
    }

    /// Takes over what runs already, as after a crash of Howdah, so that it counts and is stopped
    /// when idle. Returns as soon as everybody who attaches waits for that; how long a server
    /// takes to answer holds up nobody else.
    pub async fn adopt(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut found = Vec::new();
        for facts in self.engine.instances().await?.into_iter().filter(|facts| facts.running) {
            let slot = self.slot(facts.id);
            // A verb under way, or an adoption, sees to it.
            let Ok(gate) = slot.gate.clone().try_lock_owned() else { continue };
            if lock(&slot.state).running.is_none() {
                lock(&slot.state).closing = true;
                found.push((facts.id, slot.clone(), Reopen(slot, Some(gate)), self.seats.force()));
            }
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let adoptions = stream::iter(found).for_each_concurrent(VERBS_AT_ONCE, |(id, slot, reopen, seat)| {
                let this = this.clone();
                async move { this.adopt_one(id, &slot, reopen, seat).await }
            });
            adoptions.await;
        });
        Ok(())
    }

    async fn adopt_one(self: &Arc<Self>, id: InstanceId, slot: &Arc<Slot>, reopen: Reopen, seat: Seat) {
        // One that has ended meanwhile sleeps like any other.
        if self.engine.has_exited(id).now_or_never().is_none() {
            match self.engine.ensure_started(id).await {
                Ok(endpoint) => drop(self.set_running(id, slot, endpoint, seat, None)),
                Err(error) => {
                    tracing::warn!(instance.id = %id, error = %error, "could not adopt the running server of {id}");
                }
            }
        }
        drop(reopen);
        self.seats.freed.notify_waiters();
    }

    /// Starts the instance if it sleeps and holds on to it. Waits for a stop under way and starts
    /// it again then: an attach never fails because of an idle stop.
    pub async fn attach(self: &Arc<Self>, id: InstanceId) -> Result<Attachment, EngineError> {
        self.attach_as(id, false).await
    }

    /// The same for the platform's own sessions: they do not keep the instance awake.
    pub async fn attach_probe(self: &Arc<Self>, id: InstanceId) -> Result<Attachment, EngineError> {
        self.attach_as(id, true).await
    }

    async fn attach_as(self: &Arc<Self>, id: InstanceId, probe: bool) -> Result<Attachment, EngineError> {
        let clean_up = !probe && self.check_held_back(id)?;
        let mut attachment = self.attach_to(id, probe).await?;
        attachment.clean_up = clean_up;
        Ok(attachment)
    }

    async fn attach_to(self: &Arc<Self>, id: InstanceId, probe: bool) -> Result<Attachment, EngineError> {
        let slot = self.slot(id);
        if let Some(attachment) = self.hold(&slot, probe)? {
            return Ok(attachment);
        }
        let seen = lock(&slot.state).starts;
        let gate = slot.gate.clone().lock_owned().await;
        if let Some(attachment) = self.hold(&slot, probe)? {
            return Ok(attachment);
        }
        {
            let state = lock(&slot.state);
            if state.starts > seen
                && let Some(failure) = &state.failure
            {
                return Err(failure.to_error());
            }
        }
        // The start runs in a task of its own, because others may wait for it after this caller has given up.
        let (answer, answered) = oneshot::channel();
        let (this, starting) = (self.clone(), slot.clone());
        self.tasks.spawn(async move {
            let started = this.start(id, &starting, gate, probe).await;
            let _ = answer.send(started);
        });
        // A start that panics is not repeated here: it would panic again, without a pause.
        answered.await.unwrap_or_else(|_| Err(interrupted("start the instance")))
    }

    /// Holds on to a running instance: what every attach but the first comes down to.
    fn hold(&self, slot: &Arc<Slot>, probe: bool) -> Result<Option<Attachment>, EngineError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(EngineError::Failed { doing: "attach", reason: "Howdah is shutting down".into() });
        }
        let now = self.now();
        let mut state = lock(&slot.state);
        if state.closing {
            return Ok(None);
        }
        Ok(state.running.as_mut().map(|running| self.add_hold(slot, running, probe, now)))
    }

    fn add_hold(&self, slot: &Arc<Slot>, running: &mut Running, probe: bool, now: i64) -> Attachment {
        let hold = Arc::new(Hold {
            last: AtomicI64::new(now),
            phase: AtomicU8::new(SETTLES),
            probe,
            end: watch::Sender::new(None),
        });
        running.holds.push(hold.clone());
        if !probe {
            running.last_activity = running.last_activity.max(now);
        }
        let endpoint = running.endpoint.clone();
        Attachment { endpoint, hold, slot: Arc::downgrade(slot), clock: self.clock.clone(), clean_up: false }
    }

    async fn start(
        self: &Arc<Self>,
        id: InstanceId,
        slot: &Arc<Slot>,
        _gate: OwnedMutexGuard<()>,
        probe: bool,
    ) -> Result<Attachment, EngineError> {
        let started = async {
            let seat = self.make_room().await?;
            Ok((seat, self.engine.ensure_started(id).await?))
        };
        match started.await {
            Ok((seat, endpoint)) => {
                let attachment = self.set_running(id, slot, endpoint, seat, Some(probe));
                attachment.ok_or(EngineError::Missing(id))
            }
            Err(error) => {
                let mut state = lock(&slot.state);
                state.starts += 1;
                state.failure = Some(Failure::of(&error));
                Err(error)
            }
        }
    }

    /// Notes that the instance runs, and watches over its server. `hold`: attach to it, as a
    /// probe or not.
    fn set_running(
        self: &Arc<Self>,
        id: InstanceId,
        slot: &Arc<Slot>,
        endpoint: Endpoint,
        seat: Seat,
        hold: Option<bool>,
    ) -> Option<Attachment> {
        let now = self.now();
        let (start, attachment) = {
            let mut state = lock(&slot.state);
            state.starts += 1;
            state.failure = None;
            state.closing = false;
            let start = state.starts;
            let mut running =
                Running { endpoint, holds: Vec::new(), last_activity: now, measured: None, _seat: seat, start };
            let attachment = hold.map(|probe| self.add_hold(slot, &mut running, probe, now));
            state.running = Some(running);
            (start, attachment)
        };
        let (this, slot) = (self.clone(), Arc::downgrade(slot));
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.engine.has_exited(id) => {}
                () = this.tasks.stopping() => return,
            }
            let Some(slot) = slot.upgrade() else { return };
            // A stop on purpose has ended the running by the time it lets go of the gate.
            let _gate = slot.gate.lock().await;
            let ended = lock(&slot.state).running.take_if(|running| running.start == start);
            if let Some(running) = ended {
                tracing::warn!(instance.id = %id, "the server of {id} ended unexpectedly");
                running.end_all(EndReason::Gone);
            }
        });
        attachment
    }

    /// A seat for one more instance; stops the least recently used idle one if it has to.
    async fn make_room(self: &Arc<Self>) -> Result<Seat, EngineError> {
        if let Some(seat) = self.seats.take(self.limits.max_running) {
            return Ok(seat);
        }
        let _one_at_a_time = self.making_room.lock().await;
        let waiting = async {
            loop {
                let freed = self.seats.freed.notified();
                if let Some(seat) = self.seats.take(self.limits.max_running) {
                    return Some(seat);
                }
                match timeout(STOP_PATIENCE, self.stop_one()).await {
                    // A stop that has begun goes on, and the next attempt chooses another instance.
                    Ok(true) | Err(_) => continue,
                    Ok(false) => {}
                }
                if !self.all_slots().iter().any(|(_, slot)| lock(&slot.state).closing) {
                    // Between the two questions the last stop may have ended.
                    return self.seats.take(self.limits.max_running);
                }
                freed.await;
            }
        };
        match timeout(ROOM_PATIENCE, waiting).await {
            Ok(Some(seat)) => Ok(seat),
            _ => Err(EngineError::Full { running: *lock(&self.seats.taken) }),
        }
    }

    /// Stops the least recently used instance that is idle now; false when there is none.
    async fn stop_one(self: &Arc<Self>) -> bool {
        let now = self.now();
        let mut candidates: Vec<_> = self
            .all_slots()
            .into_iter()
            .filter_map(|(id, slot)| {
                let last = slot.quiet_since(now)?;
                let silent = lock(&slot.state).silent;
                Some(((silent, last), id, slot))
            })
            .collect();
        candidates.sort_by_key(|(order, ..)| *order);
        for (_, id, slot) in candidates {
            match self.stop_if_quiet(id, &slot, Duration::ZERO).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(instance.id = %id, error = %error, "could not stop {id} to make room for another instance");
                }
            }
        }
        false
    }

    /// Stops an instance that has been quiet for so long and in which no transaction is open.
    /// Whoever attaches meanwhile waits; whoever sends meanwhile prevents it.
    async fn stop_if_quiet(
        self: &Arc<Self>,
        id: InstanceId,
        slot: &Arc<Slot>,
        quiet: Duration,
    ) -> Result<bool, EngineError> {
        // Another verb is under way: then it is not idle.
        let Ok(gate) = slot.gate.clone().try_lock_owned() else { return Ok(false) };
        let fits = |last: i64, now: i64| now.saturating_sub(last) >= micros(quiet);
        let Some(last) = slot.quiet_since(self.now()).filter(|last| fits(*last, self.now())) else {
            return Ok(false);
        };
        {
            let mut state = lock(&slot.state);
            state.closing = true;
            // Until it has answered: whoever waits for that may give up.
            state.silent = true;
        }
        let reopen = Reopen(slot.clone(), Some(gate));
        let busy = self.engine.is_busy(id).await?;
        lock(&slot.state).silent = false;
        if busy {
            return Ok(false);
        }
        // Nothing was sent while the server was asked, and from here on nothing can be: a session
        // that is marked as ended is told so when it tries.
        if slot.quiet_since(self.now()) != Some(last) || !slot.end_quiet_holds() {
            return Ok(false);
        }
        let measure = !slot.is_measured_after(last);
        self.finish_stop(id, slot, reopen, measure, FAREWELL).await.map(|()| true)
    }

    /// Waits until the sessions, which have been told, are gone, and stops the server. `measure`:
    /// something may have been done that no measurement has seen.
    async fn finish_stop(
        self: &Arc<Self>,
        id: InstanceId,
        slot: &Arc<Slot>,
        reopen: Reopen,
        measure: bool,
        farewell: Duration,
    ) -> Result<(), EngineError> {
        let (this, slot) = (self.clone(), slot.clone());
        self.to_the_end("stop the instance", async move {
            let _ = timeout(farewell, slot.emptied()).await;
            if measure {
                this.measure_last(id, &slot).await;
            }
            let stopped = this.engine.ensure_stopped(id).await;
            if stopped.is_ok() {
                let ended = lock(&slot.state).running.take();
                if let Some(running) = ended {
                    running.end_all(EndReason::Idle);
                }
            }
            drop(reopen);
            this.seats.freed.notify_waiters();
            stopped
        })
        .await
    }

    /// Runs a verb in a task of its own. What an engine does cannot be called off half-way: the
    /// verb keeps its gate until it has ended, even if the caller gives up.
    async fn to_the_end(
        &self,
        doing: &'static str,
        verb: impl Future<Output = Result<(), EngineError>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let (answer, answered) = oneshot::channel();
        self.tasks.spawn(async move {
            let _ = answer.send(verb.await);
        });
        answered.await.unwrap_or_else(|_| Err(interrupted(doing)))
    }

    fn slot(&self, id: InstanceId) -> Arc<Slot> {
        lock(&self.slots).entry(id).or_default().clone()
    }

    fn all_slots(&self) -> Vec<(InstanceId, Arc<Slot>)> {
        lock(&self.slots).iter().map(|(id, slot)| (*id, slot.clone())).collect()
    }

    /// Drops what is known of instances that run no more and that nobody is using.
    fn tidy(&self) {
        // Everybody gets theirs under this lock: one means that only the map has it.
        lock(&self.slots).retain(|_, slot| Arc::strong_count(slot) > 1 || lock(&slot.state).running.is_some());
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<InstanceId> {
        self.all_slots().into_iter().map(|(id, _)| id).collect()
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

impl Instances {
    /// [`Engine::majors`].
    pub async fn majors(&self) -> Vec<Major> {
        self.engine.majors().await
    }

    /// [`Engine::ensure_created`], one verb at a time.
    pub async fn ensure_created(self: &Arc<Self>, id: InstanceId, major: Major) -> Result<(), EngineError> {
        let slot = self.slot(id);
        let gate = slot.gate.clone().lock_owned().await;
        let this = self.clone();
        self.to_the_end("create the instance", async move {
            let created = this.engine.ensure_created(id, major).await;
            // While the gate is held the slot must not be forgotten.
            drop((gate, slot));
            created
        })
        .await
    }

    /// Ends every attachment ([`EndReason::Gone`]), then [`Engine::ensure_stopped`]. The next
    /// attach starts it again.
    pub async fn ensure_stopped(self: &Arc<Self>, id: InstanceId) -> Result<(), EngineError> {
        let slot = self.slot(id);
        self.end(id, &slot, EndReason::Gone).await
    }

    /// Ends every attachment ([`EndReason::Gone`]), then [`Engine::ensure_ended`]. The instance is measured as
    /// it stops.
    pub async fn ensure_ended(self: &Arc<Self>, id: InstanceId) -> Result<(), EngineError> {
        if let Err(error) = self.ensure_stopped(id).await {
            tracing::warn!(instance.id = %id, %error, "could not stop {id}; killing all processes of its user");
        }
        let slot = self.slot(id);
        let reopen = self.close(&slot, EndReason::Gone).await;
        let this = self.clone();
        self.to_the_end("end the instance's processes", async move {
            let ended = this.engine.ensure_ended(id).await;
            if ended.is_ok() {
                drop(lock(&slot.state).running.take());
            }
            drop(reopen);
            ended
        })
        .await
    }

    /// Ends every attachment ([`EndReason::Gone`]), then [`Engine::ensure_destroyed`].
    pub async fn ensure_destroyed(self: &Arc<Self>, id: InstanceId) -> Result<(), EngineError> {
        let slot = self.slot(id);
        let reopen = self.close(&slot, EndReason::Gone).await;
        let this = self.clone();
        self.to_the_end("remove the instance", async move {
            let _ = timeout(FAREWELL, slot.emptied()).await;
            let destroyed = this.engine.ensure_destroyed(id).await;
            if destroyed.is_ok() {
                drop(lock(&slot.state).running.take());
            }
            drop(reopen);
            destroyed
        })
        .await
    }

    /// One round of the idle-stop reconciler: stops what is idle, restarts nothing. An outdated
    /// instance is stopped as soon as it is not busy and has had no traffic for a few seconds.
    pub async fn stop_idle(self: &Arc<Self>) -> Result<(), EngineError> {
        self.tidy();
        let mut running = self.all_slots();
        running.retain(|(_, slot)| lock(&slot.state).running.is_some());
        if running.is_empty() {
            return Ok(());
        }
        let facts = self.engine.instances().await?;
        let outdated: HashSet<_> = facts.iter().filter(|facts| facts.outdated).map(|facts| facts.id).collect();
        let stops = running.into_iter().filter_map(|(id, slot)| {
            let limit = self.limits.idle_stop;
            let quiet = match outdated.contains(&id) {
                true => limit.unwrap_or(OUTDATED_QUIET).min(OUTDATED_QUIET),
                false => limit?,
            };
            Some(async move {
                if self.stop_if_quiet(id, &slot, quiet).await? {
                    tracing::info!(instance.id = %id, "stopped {id} after its idle timeout");
                }
                Ok(())
            })
        });
        // One instance that does not answer must not keep the others awake.
        let outcomes: Vec<Result<(), EngineError>> =
            stream::iter(stops).buffer_unordered(VERBS_AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }

    /// Ends every attachment ([`EndReason::Shutdown`]) and stops every instance. No attach succeeds afterwards.
    pub async fn shutdown(self: &Arc<Self>) {
        self.shut.store(true, Ordering::SeqCst);
        let mut all = self.all_slots();
        // Everybody is told at once, whoever has to wait for a verb under way.
        for (_, slot) in &all {
            if let Some(running) = &lock(&slot.state).running {
                running.end_all(EndReason::Shutdown);
            }
        }
        match self.engine.instances().await {
            Ok(facts) => {
                all.extend(facts.into_iter().filter(|facts| facts.running).map(|facts| (facts.id, self.slot(facts.id))))
            }
            Err(error) => tracing::warn!(error = %error, "could not list the instances to stop"),
        }
        all.sort_by_key(|(id, _)| *id);
        all.dedup_by_key(|(id, _)| *id);
        stream::iter(all)
            .for_each_concurrent(VERBS_AT_ONCE, |(id, slot)| async move {
                if let Err(error) = self.end(id, &slot, EndReason::Shutdown).await {
                    tracing::error!(instance.id = %id, error = %error, "could not stop {id}");
                }
            })
            .await;
        self.end_measurements();
    }

    /// [`Engine::instances`].
    pub async fn list(&self) -> Result<Vec<InstanceFacts>, EngineError> {
        self.engine.instances().await
    }

    /// [`Engine::replenish_stock`].
    pub async fn replenish_stock(&self) -> Result<StockLevel, EngineError> {
        self.engine.replenish_stock().await
    }

    /// Stops the instance whether it is idle or not.
    async fn end(self: &Arc<Self>, id: InstanceId, slot: &Arc<Slot>, reason: EndReason) -> Result<(), EngineError> {
        let reopen = self.close(slot, reason).await;
        self.finish_stop(id, slot, reopen, true, FAREWELL).await
    }

    /// Waits for the verb under way, then lets nobody in and tells those who are.
    async fn close(&self, slot: &Arc<Slot>, reason: EndReason) -> Reopen {
        if let Some(interrupt) = &lock(&slot.state).interrupt {
            interrupt.cancel();
        }
        let gate = slot.gate.clone().lock_owned().await;
        let mut state = lock(&slot.state);
        state.closing = true;
        if let Some(running) = &state.running {
            running.end_all(reason);
        }
        drop(state);
        Reopen(slot.clone(), Some(gate))
    }
}

impl Attachment {
    /// Where the instance listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether the session is there to delete data only: the disk is almost full, and the instance grew.
    pub fn is_for_clean_up(&self) -> bool {
        self.clean_up
    }

    /// Bytes passed. `busy`: a transaction or statement may be open now.
    pub fn touch(&self, busy: bool) {
        self.try_touch(busy);
    }

    /// Call it before a client's bytes are sent on to the server; the session is busy from then
    /// on, until [`Attachment::touch`] says otherwise. False: the session has been ended
    /// ([`Attachment::ended`] resolves), so do not send them, they would be lost.
    #[must_use = "what is sent on after the end is lost"]
    pub fn touch_before_sending(&self) -> bool {
        self.try_touch(true)
    }

    fn try_touch(&self, busy: bool) -> bool {
        self.hold.last.store(self.clock.now().as_microsecond(), Ordering::SeqCst);
        let next = if busy { BUSY } else { QUIET };
        self.hold
            .phase
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |phase| (phase != ENDED).then_some(next))
            .is_ok()
    }

    /// Resolves when the session has to end; cancel-safe.
    pub async fn ended(&self) -> EndReason {
        let mut end = self.hold.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or(EndReason::Gone),
            Err(_) => EndReason::Gone,
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(slot) = self.slot.upgrade() else { return };
        let mut state = lock(&slot.state);
        if let Some(running) = &mut state.running {
            running.holds.retain(|hold| !Arc::ptr_eq(hold, &self.hold));
            if !self.hold.probe {
                running.last_activity = running.last_activity.max(self.hold.last.load(Ordering::SeqCst));
            }
        }
        drop(state);
        slot.left.notify_waiters();
    }
}

impl Slot {
    /// Since when nothing has happened; `None` when something may be happening now, or when it
    /// does not run.
    fn quiet_since(&self, now: i64) -> Option<i64> {
        let state = lock(&self.state);
        let running = state.running.as_ref()?;
        let mut last = running.last_activity;
        for hold in &running.holds {
            let touched = hold.last.load(Ordering::SeqCst);
            match hold.phase.load(Ordering::SeqCst) {
                BUSY => return None,
                SETTLES if now.saturating_sub(touched) < micros(SETTLING) => return None,
                _ => {}
            }
            if !hold.probe {
                last = last.max(touched);
            }
        }
        Some(last)
    }

    /// Ends every session, unless one has become busy meanwhile: then false.
    fn end_quiet_holds(&self) -> bool {
        let state = lock(&self.state);
        let Some(running) = &state.running else { return false };
        running.holds.iter().all(|hold| {
            let phase = hold.phase.load(Ordering::SeqCst);
            let ended =
                phase != BUSY && hold.phase.compare_exchange(phase, ENDED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if ended {
                hold.end.send_replace(Some(EndReason::Idle));
            }
            ended
        })
    }

    /// Ends when no session is left.
    async fn emptied(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if lock(&self.state).running.as_ref().is_none_or(|running| running.holds.is_empty()) {
                return;
            }
            left.await;
        }
    }
}

impl Running {
    fn end_all(&self, reason: EndReason) {
        for hold in &self.holds {
            hold.phase.store(ENDED, Ordering::SeqCst);
            hold.end.send_if_modified(|end| end.is_none() && end.replace(reason).is_none());
        }
    }
}

/// Lets attaches in again when a stop has ended, well or not.
struct Reopen(Arc<Slot>, Option<OwnedMutexGuard<()>>);

impl Drop for Reopen {
    fn drop(&mut self) {
        lock(&self.0.state).closing = false;
        self.1 = None;
    }
}

impl Seats {
    fn take(self: &Arc<Self>, limit: usize) -> Option<Seat> {
        let mut taken = lock(&self.taken);
        (*taken < limit).then(|| {
            *taken += 1;
            Seat(self.clone())
        })
    }

    /// Beyond the limit if need be: it runs already.
    fn force(self: &Arc<Self>) -> Seat {
        *lock(&self.taken) += 1;
        Seat(self.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *lock(&self.0.taken) -= 1;
        self.0.freed.notify_waiters();
    }
}

impl Failure {
    fn of(error: &EngineError) -> Self {
        match error {
            EngineError::Missing(id) => Self::Missing(*id),
            EngineError::MajorMissing(major) => Self::MajorMissing(*major),
            EngineError::Full { running } => Self::Full(*running),
            EngineError::NoSpace { doing } => Self::NoSpace(doing),
            EngineError::HeldBack { again_s } => Self::HeldBack(*again_s),
            EngineError::Failed { doing, reason } => Self::Failed(doing, reason.clone()),
        }
    }

    fn to_error(&self) -> EngineError {
        match self {
            Self::Missing(id) => EngineError::Missing(*id),
            Self::MajorMissing(major) => EngineError::MajorMissing(*major),
            Self::Full(running) => EngineError::Full { running: *running },
            Self::NoSpace(doing) => EngineError::NoSpace { doing },
            Self::HeldBack(again_s) => EngineError::HeldBack { again_s: *again_s },
            Self::Failed(doing, reason) => EngineError::Failed { doing, reason: reason.clone() },
        }
    }
}

/// The error of a verb whose task panicked.
fn interrupted(doing: &'static str) -> EngineError {
    EngineError::Failed { doing, reason: "it was interrupted".into() }
}

/// None of these locks is held across an await or while anything can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
