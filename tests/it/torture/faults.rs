//! The faults that the torture injects, and how many of each there were.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::prelude::{IndexedRandom as _, RngExt as _, StdRng};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use crate::backups::pgbackrests;
use crate::harness::{Disk, Howdah};

/// Whose process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Howdah,
    Metadata,
    Instance,
    PgBackRest,
}

impl Victim {
    const ALL: [Self; 4] = [Self::Howdah, Self::Metadata, Self::Instance, Self::PgBackRest];

    fn name(self) -> &'static str {
        match self {
            Self::Howdah => "Howdah",
            Self::Metadata => "the metadata instance",
            Self::Instance => "an instance",
            Self::PgBackRest => "pgBackRest",
        }
    }

    /// Its process, of several the one that the dice choose; `None` when none runs.
    fn process(self, howdah: &Howdah, dice: &mut StdRng) -> Option<Pid> {
        let directory = howdah.directory();
        let servers = |below: &str| -> Vec<Pid> {
            let below = directory.path().join(below);
            let mut found: Vec<_> =
                directory.servers().into_iter().filter(|(_, data)| data.starts_with(&below)).collect();
            found.sort_by(|one, other| one.1.cmp(&other.1));
            found.into_iter().filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
        };
        let candidates = match self {
            Self::Howdah => Pid::from_raw(howdah.pid()).into_iter().collect(),
            Self::Metadata => servers("metadata"),
            Self::Instance => servers("instances"),
            Self::PgBackRest => pgbackrests(directory.path()),
        };
        candidates.choose(dice).copied()
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// kill -9.
    Kill(Victim),
    /// SIGSTOP to it and its children, and SIGCONT after a while.
    Freeze(Victim, Duration),
    /// Not a byte is free for a while.
    FullDisk(Duration),
}

impl Fault {
    pub(super) fn draw(dice: &mut StdRng, has_disk: bool) -> Self {
        let while_long = Duration::from_millis(dice.random_range(500..5_000));
        let victim = *Victim::ALL.choose(dice).expect("there are victims");
        match dice.random_range(0..10) {
            0..7 => Self::Kill(victim),
            7..9 => Self::Freeze(victim, while_long),
            _ if has_disk => Self::FullDisk(while_long),
            _ => Self::Kill(victim),
        }
    }

    /// Injects it, and ends it: nothing is frozen or full afterwards, and Howdah runs. Returns since when service may
    /// come back: the kill, the thaw, or the moment in which there was room again; nothing when no such process runs.
    pub(super) async fn inject(
        &self,
        howdah: &mut Howdah,
        disk: Option<&Disk>,
        dice: &mut StdRng,
    ) -> Result<Option<Instant>> {
        let mut since = Instant::now();
        match *self {
            Self::Kill(Victim::Howdah) => {
                howdah.kill();
                howdah.launch().await;
            }
            Self::Kill(victim) => {
                let Some(pid) = victim.process(howdah, dice) else { return Ok(None) };
                if kill_process(pid, Signal::KILL).is_err() {
                    return Ok(None);
                }
            }
            Self::Freeze(victim, how_long) => {
                let Some(pid) = victim.process(howdah, dice) else { return Ok(None) };
                let all = if victim == Victim::Howdah { vec![pid] } else { family(pid) };
                signal(&all, Signal::STOP);
                tokio::time::sleep(how_long).await;
                signal(&all, Signal::CONT);
                since = Instant::now();
            }
            Self::FullDisk(how_long) => {
                let disk = disk.context("there is no disk to fill")?.path();
                let filler = Filler::of(disk)?;
                tokio::time::sleep(how_long).await;
                drop(filler);
                since = Instant::now();
            }
        }
        Ok(Some(since))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(victim) => write!(f, "kill -9 of {}", victim.name()),
            Self::Freeze(victim, how_long) => write!(f, "freeze of {} for {how_long:?}", victim.name()),
            Self::FullDisk(how_long) => write!(f, "full disk for {how_long:?}"),
        }
    }
}

fn signal(processes: &[Pid], signal: Signal) {
    for pid in processes {
        let _ = kill_process(*pid, signal);
    }
}

/// A process and its children.
fn family(pid: Pid) -> Vec<Pid> {
    let number = pid.as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap_or_default();
    let children = text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?));
    std::iter::once(pid).chain(children).collect()
}

/// A file that takes all that is free, until it is dropped.
struct Filler(std::path::PathBuf);

impl Filler {
    fn of(disk: &Path) -> Result<Self> {
        let this = Self(disk.join("filler"));
        let file = File::create(&this.0)?;
        let mut size = 0;
        // Room that others free meanwhile is filled as well.
        for step in [64 << 20, 1 << 20, 1 << 12] {
            let flags = rustix::fs::FallocateFlags::empty();
            while rustix::fs::fallocate(&file, flags, size, step).is_ok() {
                size += step;
            }
        }
        Ok(this)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a run amounted to.
#[derive(Default)]
pub(super) struct Figures {
    rounds: u64,
    faults: BTreeMap<String, u64>,
    slowest_return: Duration,
    rows: usize,
    actions: BTreeMap<&'static str, u64>,
    failed: BTreeMap<String, u64>,
}

impl Figures {
    pub(super) fn count(&mut self, fault: &Fault) {
        let kind = match fault {
            Fault::Kill(victim) => format!("kill -9 of {}", victim.name()),
            Fault::Freeze(victim, _) => format!("freeze of {}", victim.name()),
            Fault::FullDisk(_) => "full disk".to_owned(),
        };
        *self.faults.entry(kind).or_default() += 1;
    }

    /// A fault was over, and a row was acknowledged so much later.
    pub(super) fn back_after(&mut self, time: Duration) {
        self.slowest_return = self.slowest_return.max(time);
    }

    /// What the clients have done up to the end of this round.
    pub(super) fn take<'c>(&mut self, clients: impl Iterator<Item = &'c Client>) {
        self.rounds += 1;
        (self.rows, self.actions, self.failed) = (0, BTreeMap::new(), BTreeMap::new());
        for client in clients {
            self.rows += client.acknowledged;
            for (action, count) in &client.actions {
                *self.actions.entry(action).or_default() += count;
            }
            for (reason, count) in &client.failed {
                *self.failed.entry(reason.clone()).or_default() += count;
            }
        }
    }

    pub(super) fn so_far(&self) -> String {
        format!("{} rows acknowledged, slowest return {:.1} s", self.rows, self.slowest_return.as_secs_f64())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds, {} rows acknowledged, 0 lost", self.rounds, self.rows)?;
        writeln!(f, "slowest return to service: {:.1} s", self.slowest_return.as_secs_f64())?;
        for (what, count) in &self.faults {
            writeln!(f, "{count:>6} x {what}")?;
        }
        for (what, count) in &self.actions {
            writeln!(f, "{count:>6} x {what}")?;
        }
        for (reason, count) in &self.failed {
            writeln!(f, "{count:>6} x failed with a reason: {reason}")?;
        }
        Ok(())
    }
}
