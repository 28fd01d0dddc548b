//! Making an instance: a copy of the template with an identifier, a user and, where it needs
//! one, a password of its own. Done ahead of time, into the stock.

use std::fs;
use std::io;
use std::path::Path;

use super::Machine;
use super::configuration::{self, Purpose};
use super::control_file;
use super::place::{Manifest, Place, sync_directory, sync_tree};
use super::process::command;
use super::programs::Programs;
use super::template::{self, failed, run};
use crate::base::scram::Verifier;
use crate::base::secret::{Secret, random_bytes, random_text};
use crate::engine::EngineError;

const DOING: &str = "prepare an instance";

/// New instances leave this many bytes of the disk free, so that those that exist, and the
/// metadata store, can go on when it gets tight.
pub(super) const RESERVE: u64 = 128 << 20;

/// Makes a complete, durable, stopped instance at `place`, which must not exist. After a failure
/// nothing is left of it.
pub(super) fn make(
    machine: &Machine,
    programs: &Programs,
    place: &Place,
    purpose: Purpose,
) -> Result<Manifest, EngineError> {
    if purpose == Purpose::Tenant {
        let disk = rustix::fs::statvfs(machine.stock()).map_err(|error| failed(DOING)(error.into()))?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE {
            return Err(EngineError::NoSpace { doing: DOING });
        }
    }
    let template = template::ensure(&machine.templates(), programs)?;
    let uid = machine.users.take().map_err(|reason| EngineError::Failed { doing: DOING, reason })?;
    let made = fill(machine, programs, place, purpose, &template, uid);
    // A user who still has files here is not given to anybody else.
    if made.is_err() && place.remove().is_ok() {
        machine.users.give_back(uid);
    }
    made
}

fn fill(
    machine: &Machine,
    programs: &Programs,
    place: &Place,
    purpose: Purpose,
    template: &Path,
    uid: Option<u32>,
) -> Result<Manifest, EngineError> {
    place.make_directories(uid).map_err(failed(DOING))?;
    template::copy(template, &place.data(), uid).map_err(failed(DOING))?;
    let system_identifier = new_identifier();
    identify(programs, place, uid, system_identifier)?;

    configuration::write_files(place, purpose, &machine.access, uid).map_err(failed(DOING))?;
    if purpose == Purpose::Tenant && !machine.access.separate_users {
        let secret = Secret::new(random_text::<24>());
        place.write_secret(&secret).map_err(failed(DOING))?;
        let mut single = command(&programs.path("postgres"), uid);
        single.current_dir(&place.root).args(["--single", "-j"]);
        single.args(configuration::arguments(place, purpose, programs.major)).arg("postgres");
        run(single, &format!("ALTER ROLE howdah PASSWORD '{}';\n\n", Verifier::of(&secret).to_text()), DOING)?;
    }
    // What PostgreSQL has counted so far is not what a tenant did.
    match fs::remove_file(place.data().join("pg_stat/pgstat.stat")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(DOING)(error)),
        _ => {}
    }
    let manifest =
        Manifest { major: programs.major.0, uid, system_identifier, group_access: uid.is_some(), restored: None };
    place.write_manifest(&manifest).and_then(|()| sync_tree(&place.root)).map_err(failed(DOING))?;
    Ok(manifest)
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

fn set_identifier(place: &Place, identifier: u64) -> io::Result<()> {
    let path = place.data().join("global/pg_control");
    let mut control = fs::read(&path)?;
    control_file::set_system_identifier(&mut control, identifier)
        .ok_or_else(|| io::Error::other("the template's control file is damaged"))?;
    // Written over in place: owner and mode stay.
    fs::write(&path, control)
}
