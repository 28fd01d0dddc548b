//! Making an instance: a copy of the template with an identifier, a user and, where it needs
//! one, a password of its own. Done ahead of time, into the stock.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::configuration::{self, Purpose};
use super::control_file;
use super::place::{Manifest, Place, little_is_unwritten, sync_directory, sync_file_system, sync_tree};
use super::process::command;
use super::programs::Programs;
use super::template::{self, failed, run};
use super::{Machine, places};
use crate::{EngineError, Major};
use base::disk::Level;
use base::scram::Verifier;
use base::secret::{Secret, random_bytes, random_hex, random_text};

pub(super) const DOING: &str = "prepare an instance";

/// The pool of prepared instances is as large as the demand of this time was.
const DEMAND_PERIOD: SignedDuration = SignedDuration::from_mins(1);
/// However large the demand, no more instances than this are prepared.
const LARGEST_POOL: usize = 64;
/// Instances that are prepared for demand alone take at most this part of what is free on the disk.
const SHARE_OF_FREE_SPACE: u64 = 20;
/// About what a prepared instance takes on the disk.
const INSTANCE_BYTES: u64 = 26 << 20;

/// When prepared instances were taken.
#[derive(Debug, Default)]
pub(super) struct Demand(Mutex<VecDeque<Timestamp>>);

impl Demand {
    /// One was taken.
    pub(super) fn note(&self, now: Timestamp) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push_back(now);
        if taken.len() > LARGEST_POOL {
            taken.pop_front();
        }
    }

    /// How many were taken in the last minute, as far as the pool can follow.
    pub(super) fn of_late(&self, now: Timestamp) -> usize {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter(|at| now.duration_since(**at) < DEMAND_PERIOD).count()
    }
}

/// How many instances to hold prepared: what the operator says, and for a while after a burst of creates as many
/// as it took, if there is plenty of room for them. `--stock 0` prepares none.
pub(super) fn target(machine: &Machine, demand: usize) -> Result<usize, EngineError> {
    let least = machine.config.stock_target;
    let disk = rustix::fs::statvfs(machine.stock()).map_err(|error| failed(DOING)(error.into()))?;
    let room = disk.f_bavail.saturating_mul(disk.f_frsize) / SHARE_OF_FREE_SPACE / INSTANCE_BYTES;
    let most = usize::try_from(room).unwrap_or(usize::MAX).min(LARGEST_POOL);
    Ok(if least == 0 { 0 } else { least.max(demand.min(most)) })
}

/// The prepared instances of a major version.
pub(super) fn prepared(machine: &Machine, major: Major) -> Result<impl Iterator<Item = Place> + use<>, EngineError> {
    let all = places(&machine.stock()).map_err(failed(DOING))?.into_iter();
    Ok(all.filter(move |place| {
        place.root.extension().is_none() && place.read_manifest().is_ok_and(|manifest| manifest.major() == major)
    }))
}

/// How many instances are prepared together at most. They share one wait for the disk.
const LARGEST_BATCH: usize = 8;

/// Makes `count` complete, durable, stopped instances, at most [`LARGEST_BATCH`], and puts them into the pool of
/// prepared instances. Returns how many it made.
///
/// # Errors
/// When not a single one could be made. After a failure nothing is left of it.
pub(super) fn prepare(machine: &Machine, programs: &Programs, count: usize) -> Result<usize, EngineError> {
    let count = count.min(LARGEST_BATCH);
    let names: Vec<String> = (0..count).map(|_| random_hex::<8>()).collect();
    let partial = |name: &String| Place::new(machine.stock().join(format!("{name}.partial")));
    let places: Vec<Place> = names.iter().map(partial).collect();
    make(machine, programs, &places, Purpose::Tenant)?;
    for (name, place) in names.iter().zip(&places) {
        fs::rename(&place.root, machine.stock().join(name)).map_err(failed(DOING))?;
    }
    sync_directory(&machine.stock()).map_err(failed(DOING))?;
    Ok(count)
}

/// Makes complete, durable, stopped instances at `places`, none of which may exist, as many at a time as there
/// are processors. After a failure nothing is left of any.
pub(super) fn make(
    machine: &Machine,
    programs: &Programs,
    places: &[Place],
    purpose: Purpose,
) -> Result<(), EngineError> {
    // Those that exist, and the metadata store, can go on when it gets tight.
    if purpose == Purpose::Tenant && machine.config.disk.look().map_err(failed(DOING))?.level() >= Level::Scarce {
        return Err(EngineError::NoSpace { doing: DOING });
    }
    let template = template::ensure(&machine.templates(), programs)?;
    let one_sync = little_is_unwritten();
    let mut all: Vec<(&Place, Option<u32>)> = Vec::new();
    for place in places {
        match machine.users.take() {
            Ok(uid) => all.push((place, uid)),
            Err(reason) => {
                all.iter().for_each(|(_, uid)| machine.users.give_back(*uid));
                return Err(EngineError::Failed { doing: DOING, reason });
            }
        }
    }
    let fill_some = |some: &[(&Place, Option<u32>)]| {
        some.iter().try_for_each(|(place, uid)| fill(machine, programs, place, purpose, &template, *uid))
    };
    let made = std::thread::scope(|scope| {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = all
            .chunks(all.len().div_ceil(at_once).max(1))
            .map(|some| std::thread::Builder::new().name("prepare".into()).spawn_scoped(scope, move || fill_some(some)))
            .collect::<io::Result<_>>()
            .map_err(failed(DOING))?;
        let panicked = || EngineError::Failed { doing: DOING, reason: "a thread panicked".into() };
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(panicked())))
    });
    let made = made.and_then(|()| {
        let sync = || match one_sync {
            true => sync_file_system(&machine.config.data_directory),
            false => places.iter().try_for_each(|place| sync_tree(&place.root)),
        };
        sync().map_err(failed(DOING))
    });
    if made.is_err() {
        for (place, uid) in all {
            // A user who still has files here is not given to anybody else.
            if place.remove(&machine.stop).is_ok() {
                machine.users.give_back(uid);
            }
        }
    }
    made
}

/// Writes everything of an instance, and leaves it to the caller to wait for the disk.
fn fill(
    machine: &Machine,
    programs: &Programs,
    place: &Place,
    purpose: Purpose,
    template: &Path,
    uid: Option<u32>,
) -> Result<(), EngineError> {
    place.make_directories(uid).map_err(failed(DOING))?;
    template::copy(template, &place.data(), uid).map_err(failed(DOING))?;
    let system_identifier = new_identifier();
    if !set_identifier_of_new(place, system_identifier).map_err(failed(DOING))? {
        identify(programs, place, uid, system_identifier)?;
    }

    configuration::write_files(place, purpose, machine.config.sessions, &machine.access, uid).map_err(failed(DOING))?;
    if purpose == Purpose::Tenant && !machine.access.separate_users {
        let secret = Secret::new(random_text::<24>());
        place.write_secret(&secret).map_err(failed(DOING))?;
        let mut single = command(&programs.path("postgres"), uid);
        single.current_dir(&place.root).args(["--single", "-j"]);
        single
            .args(configuration::arguments(place, purpose, programs.major, machine.config.backups.archive_timeout))
            .arg("postgres");
        run(single, &format!("ALTER ROLE howdah PASSWORD '{}';\n\n", Verifier::of(&secret).to_text()), DOING)?;
        template::forget_statistics(&place.data()).map_err(failed(DOING))?;
    }
    let manifest =
        Manifest { major: programs.major.0, uid, system_identifier, group_access: uid.is_some(), restored: None };
    place.write_new_manifest(&manifest).map_err(failed(DOING))
}

/// Gives a cleanly stopped instance an identifier of its own. Its log carries the one of what it
/// was copied from: so it gets a new, empty one.
pub(super) fn identify(
    programs: &Programs,
    place: &Place,
    uid: Option<u32>,
    system_identifier: u64,
) -> Result<(), EngineError> {
    set_identifier(place, system_identifier).map_err(failed(DOING))?;
    let mut resetwal = command(&programs.path("pg_resetwal"), uid);
    resetwal.current_dir(&place.root).arg("-f").arg("-D").arg(place.data());
    run(resetwal, "", DOING)
}

/// Moves a finished instance; afterwards it is there even if the power fails.
pub(super) fn move_to(from: &Place, to: &Path) -> io::Result<()> {
    fs::rename(&from.root, to)?;
    for path in [to, &from.root] {
        sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(())
}

/// Positive also where SQL shows it as a signed number, and never zero.
pub(super) fn new_identifier() -> u64 {
    (u64::from_ne_bytes(random_bytes()) >> 1).max(1)
}

/// Gives a new copy of the template an identifier of its own: in the control file and in the header of its only
/// segment of WAL, which holds nothing but the checkpoint of a clean stop. `false`: its WAL does not look like that.
///
/// The first page of a segment begins with a long header: 20 bytes as in every page, 4 bytes of padding, then the
/// system identifier (PostgreSQL's `access/xlog_internal.h`; so in all of its versions since 9.3). No checksum
/// covers it.
fn set_identifier_of_new(place: &Place, identifier: u64) -> io::Result<bool> {
    const HEADER: std::ops::Range<usize> = 24..32;
    let there = control_file::system_identifier(&fs::read(place.data().join("global/pg_control"))?);
    let wal =
        fs::read_dir(place.data().join("pg_wal"))?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let segments: Vec<&PathBuf> = wal.iter().filter(|path| path.is_file()).collect();
    let [segment] = segments[..] else { return Ok(false) };
    let file = fs::OpenOptions::new().read(true).write(true).open(segment)?;
    let mut header = [0; HEADER.end];
    file.read_exact_at(&mut header, 0)?;
    if there.map(u64::to_ne_bytes).as_ref().map(<[u8; 8]>::as_slice) != header.get(HEADER) {
        return Ok(false);
    }
    file.write_all_at(&identifier.to_ne_bytes(), HEADER.start as u64)?;
    set_identifier(place, identifier)?;
    Ok(true)
}

fn set_identifier(place: &Place, identifier: u64) -> io::Result<()> {
    place.change_control_file(|control| {
        control_file::set_system_identifier(control, identifier)
            .ok_or_else(|| io::Error::other("the control file is damaged"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_counts_the_last_minute() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let demand = Demand::default();
        for second in 0..40 {
            demand.note(at(second));
        }
        assert_eq!(demand.of_late(at(40)), 40);
        assert_eq!(demand.of_late(at(79)), 20);
        assert_eq!(demand.of_late(at(1000)), 0);
    }

    #[test]
    fn demand_never_asks_for_more_than_the_largest_pool() {
        let demand = Demand::default();
        for _ in 0..1000 {
            demand.note(Timestamp::UNIX_EPOCH);
        }
        assert_eq!(demand.of_late(Timestamp::UNIX_EPOCH), LARGEST_POOL);
    }
}
