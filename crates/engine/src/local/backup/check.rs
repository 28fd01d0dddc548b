//! Looking whether a restored instance is whole, with `pg_amcheck`.
//!
//! It logs in as superuser to databases that a tenant has filled, so what it may do is kept to what
//! runs nothing of theirs (PostgreSQL's documentation, appendix F, "amcheck"): `verify_heapam` reads
//! pages, and `bt_index_check` compares keys with functions that only a superuser can have put into
//! an operator class. What would evaluate index expressions and predicates, `--heapallindexed` and
//! `--rootdescend`, is left out, and autovacuum is off, which would do so too. Settings that a tenant
//! has given databases and roles are removed first.
//!
//! The extension comes into `pg_catalog`, where no tenant can have put anything in its way. The
//! program runs as the instance's own user, with a password that is good for this instance alone:
//! a server that is not what it should be is alone with itself.

use base::name::TENANT_DATABASE;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

use super::archiver::unanswered;
use super::confine;
use crate::backups::{BackupError, CheckFacts, Progress, ProgressSink};
use crate::local::configuration::Purpose;
use crate::local::place::{Manifest, Place};
use crate::local::process;
use crate::local::programs::Programs;
use crate::local::session::{ask, ask_for_text, renew_password};
use crate::local::start::{self, Private};
use crate::local::template::failed;
use crate::local::{LocalEngine, blocking};
use crate::{Endpoint, EngineError, Major, PLATFORM_DATABASE, PLATFORM_ROLE};
use base::id::InstanceId;

const DOING: &str = "check the restored instance";
/// The size of a page of PostgreSQL's, as the packages have it.
const PAGE: u64 = 8192;
/// How much of its words is passed on.
const LONGEST_REASON: usize = 500;
/// A longer line is taken for several: what is said comes from a server that may not be what it should.
const LONGEST_LINE: u64 = 4096;
/// What it ends with when something is not whole.
const NOT_WHOLE: i32 = 2;

impl LocalEngine {
    pub(super) async fn check_restored(
        &self,
        id: InstanceId,
        progress: &ProgressSink,
    ) -> Result<CheckFacts, BackupError> {
        let (place, manifest) = (self.place(id), self.manifest(id)?);
        if manifest.restored.is_none() {
            let reason = "the instance was not created by a restore".to_owned();
            return Err(BackupError::Failed { doing: DOING, reason });
        }
        let major = manifest.major();
        let programs = self.machine.finder.of(major).ok_or(EngineError::MajorMissing(major))?;
        if !programs.path("pg_amcheck").is_file() {
            return Err(BackupError::CheckMissing(major));
        }
        // A check that was interrupted may have left its server.
        start::stop(&place, &manifest, self.known(id)).await?;
        self.forget(id);
        let access = &self.machine.access;
        let server = start::ensure(&self.machine, &place, &manifest, Purpose::Private, access, None).await?;
        let server = Private(server);
        let is_there = "SELECT EXISTS (SELECT FROM pg_catalog.pg_available_extensions() AS e WHERE e.name = 'amcheck')";
        if !ask(&place, is_there).await.map_err(|error| unanswered(DOING, error))? {
            return Err(BackupError::CheckMissing(major));
        }
        // What a tenant has set for databases and roles, such as a library that is to be loaded, would end or
        // change the sessions of the check. The instance is thrown away after it.
        let forget = "DELETE FROM pg_catalog.pg_db_role_setting";
        ask_for_text(&place, forget).await.map_err(|error| unanswered(DOING, error))?;
        let facts = examine(&place, &manifest, &programs, progress).await?;
        start::stop(&place, &manifest, Some(server.0.clone())).await?;
        tracing::info!(instance.id = %id, "checked {} tables and indexes of {id}: no damage found", facts.relations);
        Ok(facts)
    }
}

/// Has the program read everything.
async fn examine(
    place: &Place,
    manifest: &Manifest,
    programs: &Programs,
    progress: &ProgressSink,
) -> Result<CheckFacts, BackupError> {
    let secret = renew_password(place).await.map_err(|error| unanswered(DOING, error))?;
    let mut command = process::command(&programs.path("pg_amcheck"), manifest.uid);
    command
        .env("PGPASSWORD", secret.expose())
        .env("PGOPTIONS", options(programs.major))
        .arg("--host")
        .arg(place.socket())
        .arg(format!("--port={}", Endpoint::PORT))
        .arg(format!("--username={PLATFORM_ROLE}"))
        .arg(format!("--maintenance-db={TENANT_DATABASE}"))
        // Nobody but Howdah was ever in it.
        .arg(format!("--exclude-database={PLATFORM_DATABASE}"))
        .args(["--no-password", "--all", "--install-missing", "--progress"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let readable: Vec<_> = programs.home().map(ToOwned::to_owned).into_iter().chain([place.socket()]).collect();
    let mut child = blocking(DOING, move || confine::spawn(command, &readable, &[]).map_err(failed(DOING))).await?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let mut findings = Said::default();
    let mut complaints = Said::default();
    let mut reached = Reached::default();
    tokio::join!(
        each_line(output, |line| findings.add(line)),
        each_line(errors, |line| match Reached::parse(line) {
            Some(now) => {
                progress(Progress { done: now.pages.0 * PAGE, total: now.pages.1 * PAGE });
                reached = now;
            }
            None => complaints.add(line),
        }),
    );
    let status = child.wait().await.map_err(failed(DOING))?;
    match status.code() {
        Some(0) if reached.relations > 0 => Ok(CheckFacts { relations: reached.relations }),
        Some(NOT_WHOLE) => Err(BackupError::Corrupt(findings.or(complaints).text())),
        _ => {
            let reason = format!("pg_amcheck ended with {status}: {}", complaints.or(findings).text());
            Err(BackupError::Failed { doing: DOING, reason })
        }
    }
}

/// What a tenant can have set for a database of theirs, and would change what is done here.
fn options(major: Major) -> String {
    let mut options = "-c search_path=pg_catalog -c role=none -c default_transaction_read_only=off \
                       -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
                       -c idle_session_timeout=0 -c client_min_messages=error"
        .to_owned();
    if major >= Major(17) {
        options.push_str(" -c transaction_timeout=0");
    }
    options
}

async fn each_line(from: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&str)) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        take(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

/// The first words of what may be without end.
#[derive(Default)]
struct Said(String);

impl Said {
    fn add(&mut self, line: &str) {
        if self.0.len() < LONGEST_REASON && !line.trim().is_empty() {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(line.trim());
        }
    }

    fn or(self, other: Self) -> Self {
        if self.0.is_empty() { other } else { self }
    }

    fn text(&self) -> String {
        let said = if self.0.is_empty() { "no output" } else { &self.0 };
        said.chars().filter(|letter| !letter.is_control()).take(LONGEST_REASON).collect()
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    relations: u64,
    /// Done, and of how many.
    pages: (u64, u64),
}

impl Reached {
    /// Reads `540/540 relations (100%), 1604/1604 pages (100%)`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (relations, rest) = line.split_once(" relations (")?;
        let (_, rest) = rest.split_once("), ")?;
        let (pages, _) = rest.split_once(" pages (")?;
        let part = |text: &str| -> Option<(u64, u64)> {
            let (done, total) = text.trim().split_once('/')?;
            Some((done.trim().parse().ok()?, total.trim().parse().ok()?))
        };
        Some(Self { relations: part(relations)?.0, pages: part(pages)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let reached = |relations, done, total| Some(Reached { relations, pages: (done, total) });
        let line = "  0/540 relations (0%),    0/1604 pages (0%)";
        assert_eq!(Reached::parse(line), reached(0, 0, 1604));
        assert_eq!(Reached::parse("540/540 relations (100%), 1604/1604 pages (100%)"), reached(540, 1604, 1604));
        assert_eq!(Reached::parse("pg_amcheck: error: no relations to check"), None);
    }

    #[test]
    fn output_of_a_check_is_bounded() {
        let mut said = Said::default();
        assert_eq!(said.text(), "no output");
        for _ in 0..1000 {
            said.add("  heap table \"a\":\t");
        }
        assert_eq!(said.text().len(), LONGEST_REASON);
        assert!(said.text().starts_with("heap table \"a\": heap"));
    }
}
