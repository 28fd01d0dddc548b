//! Starting and stopping one server, whatever it is for.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::children::Role;
use super::configuration::{self, Access, Purpose};
use super::place::{self, GROUP_ACCESS, Manifest, Place};
use super::process::{self, Says, Server};
use super::session::{Unanswered, ask};
use super::template::{failed, run};
use super::{Machine, blocking};
use crate::EngineError;

const DOING: &str = "start the instance";
/// How long a starting server may go without any sign of progress.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look whether it is ready. A start takes about 30 ms.
const INTERVAL: Duration = Duration::from_millis(2);
/// How often to try again while processes of a killed predecessor are still ending.
const PREDECESSOR_ATTEMPTS: usize = 50;
/// After so many attempts those processes are killed.
const PREDECESSOR_PATIENCE: usize = 10;
/// How much of a server's own words is passed on.
const LONGEST_REASON: usize = 500;

/// Starts the server of `place` unless it runs, and waits until SQL works. `known`: the server
/// as it was last seen.
pub(super) async fn ensure(
    machine: &Arc<Machine>,
    place: &Place,
    manifest: &Manifest,
    purpose: Purpose,
    access: &Access,
    known: Option<Arc<Server>>,
) -> Result<Arc<Server>, EngineError> {
    let mut attempt = 0;
    loop {
        let server = match find(place, manifest, known.clone()) {
            Some(server) => server,
            None => launch(machine, place, manifest, purpose, access.clone(), Vec::new()).await?,
        };
        match until_ready(place, purpose, &server).await {
            Ok(()) => return Ok(server),
            Err(NotStarted::PredecessorEnds) if attempt < PREDECESSOR_ATTEMPTS => {
                attempt += 1;
                if attempt == PREDECESSOR_PATIENCE {
                    tracing::warn!(
                        "killing processes in {} that are left from an earlier server",
                        place.root.display()
                    );
                    process::end_orphans(place, manifest.uid).await.map_err(failed(DOING))?;
                }
                sleep(Duration::from_millis(100)).await;
            }
            Err(NotStarted::PredecessorEnds) => {
                let reason = "processes of an earlier server of this instance do not exit".into();
                return Err(EngineError::Failed { doing: DOING, reason });
            }
            Err(NotStarted::Because(error)) => {
                // A half-started server must not stay: the next attempt would find it.
                let _ = server.stop().await;
                return Err(error);
            }
        }
    }
}

/// The server that runs in `place` now.
pub(super) fn find(place: &Place, manifest: &Manifest, known: Option<Arc<Server>>) -> Option<Arc<Server>> {
    known.filter(|server| server.is_alive()).or_else(|| Server::adopt(place, manifest.uid).map(Arc::new))
}

/// A server that nobody but Howdah knows, and that ends with this.
pub(super) struct Private(pub(super) Arc<Server>);

impl Drop for Private {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Ends the server of `place` if one runs.
pub(super) async fn stop(place: &Place, manifest: &Manifest, known: Option<Arc<Server>>) -> Result<(), EngineError> {
    match find(place, manifest, known) {
        Some(server) => server.stop().await,
        None => match process::ensure_vacant(place, manifest.uid) {
            Ok(()) => process::end_orphans(place, manifest.uid).await,
            Err(error) => Err(error),
        },
    }
    .map_err(failed("stop the instance"))?;
    let _ = fs::remove_file(place.server_record());
    Ok(())
}

/// Starts the server of `place` without waiting for it. `further`: settings that come after, and
/// so before, all others.
pub(super) async fn launch(
    machine: &Arc<Machine>,
    place: &Place,
    manifest: &Manifest,
    purpose: Purpose,
    access: Access,
    further: Vec<OsString>,
) -> Result<Arc<Server>, EngineError> {
    if manifest.uid.is_some() && !machine.access.separate_users {
        let reason = "the instance was created by root; run Howdah as root to start it".into();
        return Err(EngineError::Failed { doing: DOING, reason });
    }
    let (machine, place, manifest) = (machine.clone(), place.clone(), manifest.clone());
    blocking(DOING, move || {
        let major = manifest.major();
        let programs = machine.finder.of(major).ok_or(EngineError::MajorMissing(major))?;
        open_to_group(&place, &manifest)?;
        configuration::write_files(&place, purpose, machine.config.sessions, &access, manifest.uid)
            .map_err(failed(DOING))?;
        remove_strange_locks(&machine, &place, &manifest).map_err(failed(DOING))?;
        process::remove_stale_locks(&place, manifest.uid).map_err(failed(DOING))?;
        let archive_timeout = machine.config.backups.archive_timeout;
        let mut arguments = configuration::arguments(&place, purpose, major, archive_timeout);
        arguments.extend(further.into_iter().flat_map(|setting| ["-c".into(), setting]));
        let role = match purpose {
            Purpose::Tenant | Purpose::Private => Role::Tenant,
            Purpose::Metadata => Role::Metadata,
        };
        Ok(Arc::new(Server::spawn(&programs, &place, manifest.uid, role, &arguments).map_err(failed(DOING))?))
    })
    .await
}

/// Removes the lock files when one of them is not a plain file: PostgreSQL would wait for ever to read a pipe. A
/// process of the instance's user has put it there, and as long as one runs it may be a server.
fn remove_strange_locks(machine: &Machine, place: &Place, manifest: &Manifest) -> std::io::Result<()> {
    let is_strange = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|facts| !facts.is_file());
    let locks = process::lock_files(place);
    if locks.iter().any(is_strange) {
        process::ensure_unused(place, manifest.uid)?;
        locks.iter().try_for_each(|path| machine.throw_away_file(path))?;
    }
    Ok(())
}

/// Lets the instance's group, which only a backup of it runs in, read an instance that was made
/// before there were backups.
fn open_to_group(place: &Place, manifest: &Manifest) -> Result<(), EngineError> {
    let Some(uid) = manifest.uid.filter(|_| !manifest.group_access) else { return Ok(()) };
    // As its user: who owns the files has put nothing in the way that could do harm.
    let mut chmod = process::command(Path::new("/bin/chmod"), Some(uid));
    chmod.args(["-R", "g+rX"]).arg(place.data());
    run(chmod, "", DOING)?;
    let record = || {
        place::set_mode(&place.socket(), GROUP_ACCESS)?;
        place.write_manifest(&Manifest { group_access: true, ..manifest.clone() })
    };
    record().map_err(failed(DOING))
}

enum NotStarted {
    /// A killed server's children hold its shared memory a moment longer.
    PredecessorEnds,
    Because(EngineError),
}

/// Waits until the server accepts sessions. A tenant's server that was just started is believed when its lock file
/// says so: a session to ask it would take a third of the processor time of a start, since the first session in each
/// database builds PostgreSQL's cache of the catalogs again. The tenant's code could write a lie into this file, and
/// would harm its own database only.
async fn until_ready(place: &Place, purpose: Purpose, server: &Server) -> Result<(), NotStarted> {
    if server.is_ready() {
        return Ok(());
    }
    let mut deadline = Instant::now() + PATIENCE;
    let mut work = 0;
    let mut look_for_work = Instant::now() + Duration::from_secs(1);
    let mut answer = String::from("the server does not accept sessions");
    loop {
        if purpose == Purpose::Tenant && server.reports_ready(place) {
            server.set_ready();
            return Ok(());
        }
        if process::says(place) != Says::Nothing {
            match ask(place, "SELECT NOT pg_catalog.pg_is_in_recovery()").await {
                Ok(true) => {
                    server.set_ready();
                    return Ok(());
                }
                Ok(false) => answer = "the server is still in recovery".into(),
                Err(Unanswered::NotYet(reason)) => answer = reason,
                Err(Unanswered::NoSpace) => return Err(NotStarted::Because(EngineError::NoSpace { doing: DOING })),
            }
        }
        if timeout(INTERVAL, server.exited()).await.is_ok() {
            return Err(why_it_ended(place, server));
        }
        if Instant::now() >= look_for_work {
            look_for_work = Instant::now() + Duration::from_secs(1);
            let now = server.processor_time();
            if now > work && process::says(place) == Says::Nothing {
                deadline = Instant::now() + PATIENCE; // a long crash recovery
            }
            work = work.max(now);
        }
        if Instant::now() >= deadline {
            return Err(NotStarted::Because(EngineError::Failed { doing: DOING, reason: answer }));
        }
    }
}

/// Why a server that was not told to has ended.
pub(super) fn reason_of_end(place: &Place, server: &Server) -> EngineError {
    match why_it_ended(place, server) {
        NotStarted::Because(error) => error,
        NotStarted::PredecessorEnds => {
            EngineError::Failed { doing: DOING, reason: "processes of an earlier server do not exit".into() }
        }
    }
}

/// Reads what the server said since this start.
fn why_it_ended(place: &Place, server: &Server) -> NotStarted {
    let read = || -> std::io::Result<String> {
        let mut log = File::open(place.log())?;
        // The reason stands at the end, however much was said before.
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(server.log_start.max(end.saturating_sub(64 << 10))))?;
        let mut said = Vec::new();
        log.take(64 << 10).read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    };
    let said = read().unwrap_or_default();
    if said.contains("pre-existing shared memory block") {
        return NotStarted::PredecessorEnds;
    }
    // Shared memory is another place than the disk.
    if said.lines().any(|line| line.contains("No space left on device") && !line.contains("shared memory")) {
        return NotStarted::Because(EngineError::NoSpace { doing: DOING });
    }
    let reason = format!("the server exited during startup: {}", complaint(&said, server.pid()));
    NotStarted::Because(EngineError::Failed { doing: DOING, reason })
}

/// What the server gives as the reason of its end.
fn complaint(said: &str, postmaster: i32) -> String {
    let complaints = ["FATAL:".to_owned(), "PANIC:".to_owned()];
    // What its first process remarks is about files and limits: no tenant's data ever reach it.
    let remarks = [format!("[{postmaster}] DETAIL:"), format!("[{postmaster}] HINT:")];
    let mut parts = Vec::new();
    for line in said.lines() {
        let after = |words: &[String]| words.iter().find_map(|word| Some(line.split_once(word)?.1.trim()));
        if let Some(text) = after(&complaints) {
            parts = vec![text];
        } else if let Some(text) = after(&remarks) {
            parts.push(text.trim_end_matches('.'));
        }
    }
    if parts.is_empty() {
        parts.push(said.lines().last().unwrap_or("no output"));
    }
    parts.join("; ").chars().take(LONGEST_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_complete_and_holds_nothing_of_a_tenant() {
        let said = "2026-01-02 03:04:05.678 UTC [7] FATAL:  something earlier\n\
                    2026-01-02 03:04:05.678 UTC [7] FATAL:  could not open shared memory segment \"/PostgreSQL.3\": Permission denied\n";
        assert_eq!(complaint(said, 7), r#"could not open shared memory segment "/PostgreSQL.3": Permission denied"#);
        let said = "2026-01-02 03:04:05.678 UTC [7] FATAL:  database files are incompatible with server\n\
                    2026-01-02 03:04:05.678 UTC [7] DETAIL:  The data directory is of version 9.6.\n\
                    2026-01-02 03:04:05.678 UTC [8] DETAIL:  Key (name)=(secret) is duplicated.\n\
                    2026-01-02 03:04:05.678 UTC [7] HINT:  Use that one.\n\
                    \tmore\n";
        assert_eq!(
            complaint(said, 7),
            "database files are incompatible with server; The data directory is of version 9.6; Use that one"
        );
        assert_eq!(complaint("sh: no such file\n", 7), "sh: no such file");
        assert_eq!(complaint("", 7), "no output");
    }
}
