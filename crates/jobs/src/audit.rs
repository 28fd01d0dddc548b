//! The stream of the audit log: each entry as a line of JSON, to a file or to syslog.
//!
//! An entry is marked as streamed in the transaction in which it was written out, so that a crash may
//! repeat one but loses none. What was recorded while no stream was configured follows when one is.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::context::JobCtx;
use base::clock::format_timestamp;
use base::error::{Error, Result, describe};
use base::store::{Announcement, Channel};
use domain::audit::{self, Entry};

/// The maximum number of entries per transaction.
const BATCH: i64 = 500;
/// How often to look for entries without a notification, and after a failure.
const LOOK: Duration = Duration::from_secs(10);
/// The socket of the system log.
const SYSLOG: &str = "/dev/log";
/// Facility 13, "log audit", severity 5, "notice" (RFC 5424, section 6.2.1).
const PRIORITY: u8 = 13 * 8 + 5;

/// Where the audit log is streamed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file that lines are appended to. It is created again after it was moved away.
    File(PathBuf),
    /// The system's log.
    Syslog,
}

impl Target {
    /// `syslog`, or a file.
    pub fn parse(text: &str) -> Self {
        if text == "syslog" { Self::Syslog } else { Self::File(text.into()) }
    }

    /// Checks that the target can be written to.
    ///
    /// # Errors
    /// One sentence with the cure.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::File(path) => open(path).map(drop).map_err(|error| {
                format!("cannot write the audit log to {}: {error}; choose another file with --audit-stream", path.display())
            }),
            Self::Syslog => UnixDatagram::unbound().and_then(|socket| socket.connect(SYSLOG)).map_err(|error| {
                format!("cannot connect to the system log at {SYSLOG}: {error}; start the system log, or choose a file with --audit-stream")
            }),
        }
    }

    /// Returns once the entries will survive a crash, as far as the target lets one know.
    fn write(&self, entries: &[Entry]) -> io::Result<()> {
        match self {
            Self::File(path) => {
                let lines: String = entries.iter().map(|entry| format!("{}\n", entry.to_json())).collect();
                let mut file = open(path)?;
                file.write_all(lines.as_bytes())?;
                file.sync_data()
            }
            Self::Syslog => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(SYSLOG)?;
                entries.iter().try_for_each(|entry| socket.send(syslog_line(entry).as_bytes()).map(drop))
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// RFC 5424, section 6, without host and process, which the system's log adds.
fn syslog_line(entry: &Entry) -> String {
    format!("<{PRIORITY}>1 {} - howdah - audit - {}", format_timestamp(entry.at), entry.to_json())
}

/// Writes entries to the stream as they are recorded.
pub async fn stream(ctx: Arc<JobCtx>, target: Target) {
    let tasks = ctx.app.tasks.clone();
    let mut announcements = ctx.app.store.announcements();
    while !tasks.is_stopping() {
        let more = write_out(&ctx, &target).await.unwrap_or_else(|error| {
            tracing::error!(error = %describe(&error), "could not write to the audit stream; retrying");
            false
        });
        if more {
            continue;
        }
        let recorded = async {
            loop {
                match announcements.recv().await {
                    Ok(Announcement::Of(Channel::AuditRecorded, _) | Announcement::Missed) => return,
                    Ok(Announcement::Of(..)) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(LOOK, recorded) => {}
            () = tasks.stopping() => {}
        }
    }
    // The last entries too: their responses may already be on the way.
    let _ = write_out(&ctx, &target).await;
}

/// Returns true if there may be more entries. The transaction is open while a local file is written: a batch must
/// not be lost between the two.
async fn write_out(ctx: &JobCtx, target: &Target) -> Result<bool> {
    let tx = ctx.app.store.begin().await?;
    let entries = audit::take_unstreamed(&tx, BATCH).await?;
    let count = entries.len();
    if count == 0 {
        return Ok(false);
    }
    let target = target.clone();
    tokio::task::spawn_blocking(move || target.write(&entries))
        .await
        .map_err(Error::internal)?
        .map_err(Error::internal)?;
    tx.commit().await?;
    Ok(count as i64 == BATCH)
}
