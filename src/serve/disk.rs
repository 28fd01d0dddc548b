//! The watch on the disks: it acts in steps before one is full.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ballast::Ballast;
use base::disk::{Disk, Level, Look};
use base::health::Health;
use base::id::InstanceId;
use base::tasks::Tasks;
use engine::local::{LocalConfig, Repository};
use engine::{DiskUsage, Instances};

/// How often to look at disks with plenty of room, and at others.
const ROUND: Duration = Duration::from_secs(1);
const TIGHT_ROUND: Duration = Duration::from_millis(200);
/// Growth is what came in so long at most.
const WINDOW: Duration = Duration::from_secs(30);
/// Counting the files of instances takes one part of the time in this many at most.
const SHARE_OF_COUNTS: u32 = 3;
/// What an instance may grow by while it is open for a clean-up. What is written to delete a table is less.
const CLEAN_UP_ALLOWANCE: DiskUsage = DiskUsage { bytes: 8 << 20, files: 256 };

/// The disks that Howdah writes to: that of the data directory, and that of the backups where it is another one.
pub(super) fn disks(local: &LocalConfig) -> Vec<Arc<Disk>> {
    let mut disks = vec![local.disk.clone()];
    let device = |path: &Path| fs::metadata(path).ok().map(|facts| facts.dev());
    if let Some(Repository::Directory(backups)) = &local.backups.repository
        && device(backups).is_some_and(|there| Some(there) != device(&local.data_directory))
    {
        disks.push(Arc::new(Disk::of("backups", backups, None)));
    }
    disks
}

/// Looks at the disks, and does what their state demands.
pub(super) struct Watch {
    disks: Vec<Arc<Disk>>,
    ballast: Ballast,
    instances: Arc<Instances>,
    health: Arc<Health>,
    tasks: Tasks,
    told: HashMap<&'static str, Level>,
    last: Option<Look>,
    growth: Growth,
    next_count: Instant,
}

impl Watch {
    pub(super) fn new(
        disks: Vec<Arc<Disk>>,
        ballast: Ballast,
        instances: Arc<Instances>,
        health: Arc<Health>,
        tasks: Tasks,
    ) -> Self {
        Self {
            disks,
            ballast,
            instances,
            health,
            tasks,
            told: HashMap::new(),
            last: None,
            growth: Growth::default(),
            next_count: Instant::now(),
        }
    }

    /// Goes on until shutdown begins.
    pub(super) async fn keep(&mut self) {
        loop {
            let level = self.round().await;
            let pause = if level == Level::Plenty { ROUND } else { TIGHT_ROUND };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.tasks.stopping() => return,
            }
        }
    }

    async fn round(&mut self) -> Level {
        let mut of_data = None;
        for (index, disk) in self.disks.clone().into_iter().enumerate() {
            let looking = disk.clone();
            match tokio::task::spawn_blocking(move || looking.look()).await {
                Ok(Ok(look)) => {
                    self.tell(disk.name(), &look);
                    of_data = of_data.or((index == 0).then_some(look));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "could not read the free space on the disk of the {}", disk.name())
                }
                Err(error) => tracing::debug!(%error, "the check of the disk of the {} panicked", disk.name()),
            }
        }
        let Some(look) = of_data else { return Level::Low };
        let coming = self.last.replace(look).map_or(look, |before| {
            // As much may be gone at the next look.
            look.after_writing(before.bytes.free.saturating_sub(look.bytes.free))
        });
        self.stop_growth(&coming).await;
        self.keep_ballast(&look);
        coming.level()
    }

    /// Says when it gets tighter or better.
    fn tell(&mut self, name: &'static str, look: &Look) {
        let level = look.level();
        match self.told.insert(name, level).unwrap_or(Level::Plenty) {
            before if before == level => {}
            _ if level == Level::Plenty => {
                tracing::info!(disk = name, "the disk of the {name} has enough space again: {look}")
            }
            before if before > level => {
                tracing::info!(disk = name, "the disk of the {name} has more space again: {look}")
            }
            _ if level >= Level::Critical => {
                tracing::error!(disk = name, "the disk of the {name} is almost full: {look}; free some space");
            }
            _ => tracing::warn!(disk = name, "the disk of the {name} is getting full: {look}; free some space"),
        }
    }

    /// Stops instances that grow when it is tight, and lets them go when it is not.
    async fn stop_growth(&mut self, look: &Look) {
        let held = self.instances.held_back();
        if look.level() < Level::Scarce && !held.is_empty() {
            tracing::info!(
                "{} instances that were stopped because the disk was almost full can be used again",
                held.len()
            );
            self.instances.release_held_back();
        }
        if look.level() < Level::Low && held.is_empty() {
            return self.growth = Growth::default();
        }
        let begun = Instant::now();
        if begun < self.next_count {
            return;
        }
        let mut usage = HashMap::new();
        for id in self.instances.running() {
            match self.instances.disk_usage(id).await {
                Ok(used) => drop(usage.insert(id, used)),
                Err(error) => tracing::debug!(instance.id = %id, %error, "could not measure the disk usage of {id}"),
            }
        }
        self.next_count = begun + begun.elapsed() * SHARE_OF_COUNTS;
        for id in self.growth.too_fast(look, usage, &held, begun) {
            self.instances.hold_back(id).await;
        }
    }

    /// Gives the ballast back where it is needed, and makes it again when there is room.
    fn keep_ballast(&self, look: &Look) {
        let (there, whole, free) = (self.ballast.bytes(), look.reserve, look.bytes.free);
        if there > 0 && look.level_of_bytes() == Level::Exhausted {
            // The last half is for the metadata alone.
            if self.health.outage().is_some() {
                self.ballast.give_back(0, "so that the metadata instance can start");
            } else if there > whole / 2 {
                self.ballast.give_back(whole / 2, "so that owners can delete data");
            }
        } else if there < whole && Level::of(free.saturating_sub(whole - there), whole) < Level::Scarce {
            match self.ballast.fill(whole) {
                Ok(()) => tracing::debug!("reserved {} MiB of the disk", whole >> 20),
                Err(error) => tracing::debug!(%error, "could not reserve {} MiB of the disk", whole >> 20),
            }
        }
        self.instances.allow_clean_up(free >= whole / 4);
    }
}

/// How instances have grown of late.
#[derive(Default)]
struct Growth {
    /// The least that each one took in this window.
    least: HashMap<InstanceId, DiskUsage>,
    since: Option<Instant>,
}

impl Growth {
    /// Which instances to stop, by what each one takes now. `held`: those that were stopped before, and run so that
    /// their owners can delete.
    fn too_fast(
        &mut self,
        look: &Look,
        usage: HashMap<InstanceId, DiskUsage>,
        held: &[InstanceId],
        now: Instant,
    ) -> Vec<InstanceId> {
        self.least.retain(|id, _| usage.contains_key(id));
        if self.since.is_none_or(|since| now.duration_since(since) > WINDOW) {
            self.since = Some(now);
            self.least.clear();
        }
        let by_files = look.level_of_files() > look.level_of_bytes();
        let mut grown: Vec<(InstanceId, u64)> = Vec::new();
        for (id, used) in usage {
            let least = self.least.entry(id).or_insert(used);
            *least = DiskUsage { bytes: least.bytes.min(used.bytes), files: least.files.min(used.files) };
            let (bytes, files) = (used.bytes - least.bytes, used.files - least.files);
            if held.contains(&id) {
                // It may grow by so much each time that it is opened.
                if bytes > CLEAN_UP_ALLOWANCE.bytes || files > CLEAN_UP_ALLOWANCE.files {
                    grown.push((id, u64::MAX));
                }
            } else {
                grown.push((id, if by_files { files } else { bytes }));
            }
        }
        let threshold = match (look.level(), by_files) {
            (Level::Plenty | Level::Low | Level::Scarce, _) => u64::MAX,
            (Level::Critical, false) => (look.reserve / 16).max(4 << 20),
            (Level::Critical, true) => 128,
            (Level::Exhausted, false) => 1 << 20,
            (Level::Exhausted, true) => 16,
        };
        let most = grown.iter().map(|(_, grown)| *grown).filter(|grown| *grown < u64::MAX).max().unwrap_or_default();
        grown.retain(|(_, grown)| *grown >= threshold.max(most / 4));
        for (id, _) in &grown {
            self.least.remove(id);
        }
        grown.into_iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::disk::Amount;

    const MEBIBYTE: u64 = 1 << 20;

    fn id(number: u128) -> InstanceId {
        uuid::Uuid::from_u128(number).into()
    }

    fn look(free_mebibytes: u64, free_files: u64) -> Look {
        Look {
            bytes: Amount { total: 2048 * MEBIBYTE, free: free_mebibytes * MEBIBYTE },
            files: Amount { total: 131_072, free: free_files },
            reserve: 64 * MEBIBYTE,
        }
    }

    /// Two instances whose sizes are given in MiB and files.
    fn sizes(one: (u64, u64), other: (u64, u64)) -> HashMap<InstanceId, DiskUsage> {
        let usage = |(mebibytes, files)| DiskUsage { bytes: mebibytes * MEBIBYTE, files };
        [(id(1), usage(one)), (id(2), usage(other))].into()
    }

    #[test]
    fn fastest_growing_instances_are_stopped_when_it_is_tight() {
        let (mut growth, now) = (Growth::default(), Instant::now());
        let mut stop = |look: &Look, usage, held: &[InstanceId]| growth.too_fast(look, usage, held, now);
        let (low, critical, exhausted) = (look(300, 100_000), look(120, 100_000), look(20, 100_000));
        assert!(stop(&low, sizes((900, 1300), (30, 1300)), &[]).is_empty(), "nothing to compare with");
        assert!(stop(&low, sizes((900, 1300), (90, 1300)), &[]).is_empty(), "there is room");
        assert_eq!(stop(&critical, sizes((906, 1300), (150, 1300)), &[]), [id(2)], "size does not count, growth does");
        assert!(stop(&critical, sizes((902, 1300), (150, 1300)), &[]).is_empty(), "a little growth is left alone");
        assert_eq!(stop(&exhausted, sizes((902, 1300), (150, 1300)), &[]), [id(1)], "until nothing is left");
        // Open for a clean-up: it may shrink, and grow a little.
        assert!(stop(&critical, sizes((902, 1300), (150, 1300)), &[id(2)]).is_empty());
        assert!(stop(&critical, sizes((902, 1300), (100, 1300)), &[id(2)]).is_empty());
        assert!(stop(&critical, sizes((902, 1300), (107, 1300)), &[id(2)]).is_empty());
        assert_eq!(stop(&critical, sizes((902, 1300), (109, 1300)), &[id(2)]), [id(2)]);
    }

    #[test]
    fn growth_in_inodes_counts_when_inodes_are_scarce() {
        let (mut growth, now) = (Growth::default(), Instant::now());
        let tight = look(1000, 3000);
        assert!(growth.too_fast(&tight, sizes((30, 1300), (30, 1300)), &[], now).is_empty());
        assert_eq!(growth.too_fast(&tight, sizes((900, 1310), (31, 2000)), &[], now), [id(2)]);
    }

    #[test]
    fn growth_of_long_ago_is_forgotten() {
        let (mut growth, now) = (Growth::default(), Instant::now());
        let tight = look(120, 100_000);
        assert!(growth.too_fast(&tight, sizes((30, 1300), (30, 1300)), &[], now).is_empty());
        let later = now + WINDOW * 2;
        assert!(growth.too_fast(&tight, sizes((90, 1300), (30, 1300)), &[], later).is_empty());
    }
}
