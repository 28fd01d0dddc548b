//! Waiting for work that goes on after the answer.

use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::plain;
use super::session::Session;

/// How often to look at first; each further look waits longer, up to [`SLOWEST`].
const QUICKEST: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(2);

/// Whether to wait for a new database, and how long.
#[derive(Args, Clone, Debug)]
pub(super) struct Patience {
    /// Return immediately; connections wait until the database is ready
    #[arg(long)]
    no_wait: bool,

    /// The maximum time to wait; 0: no limit
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = base::options::duration, conflicts_with = "no_wait")]
    timeout: Duration,
}

impl Patience {
    /// Waits until a new database is ready, and brings its status up to date.
    pub(super) async fn until_ready(&self, session: &Session, database: &mut Value) -> Result<(), Failure> {
        let Some(id) = database["id"].as_str().map(str::to_owned) else { return Ok(()) };
        let is_over = |database: &Value| !matches!(database["status"].as_str(), Some("provisioning" | "recovering"));
        if self.no_wait {
            return Ok(());
        }
        if is_over(database) {
            return ended(database, &id);
        }
        let limit = Some(self.timeout).filter(|limit| !limit.is_zero());
        let waited = until(session, &["databases", &id], limit, is_over, |database| {
            let reason = database["statusReason"].as_str().map(|reason| format!(": {reason}"));
            format!("The database is being created{}", reason.unwrap_or_default())
        })
        .await?;
        let (now, is_over) = match waited {
            Waited::Over(now) => (now, true),
            Waited::TimeUp(now) => (now, false),
            Waited::Interrupted => return Err(Failure::Interrupted),
        };
        for field in ["status", "statusReason"] {
            database[field] = now[field].clone();
        }
        if is_over {
            return ended(database, &id);
        }
        let reason = now["statusReason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        Err(Failure::Failed(format!(
            "the database is still being created{reason}; this continues, see `howdah databases get {id}`"
        )))
    }
}

fn ended(database: &Value, id: &str) -> Result<(), Failure> {
    if database["status"] != "failure" {
        return Ok(());
    }
    let reason = database["statusReason"].as_str().unwrap_or("unknown reason");
    let cure = match database["operationId"].as_str() {
        Some(operation) => format!("retry with `howdah operations retry {operation}`"),
        None => format!("delete it with `howdah databases delete {id}`"),
    };
    Err(Failure::Failed(format!("the database {id} could not be created: {reason}; {cure}")))
}

/// A wait came to its end.
pub(super) enum Waited {
    /// What is waited for has come: the thing as it is now.
    Over(Value),
    /// The time is up.
    TimeUp(Value),
    /// Somebody does not want to wait any longer.
    Interrupted,
}

/// Looks at a resource until `is_over`, for `limit` at most; `describe` says what is going on.
pub(super) async fn until(
    session: &Session,
    path: &[&str],
    limit: Option<Duration>,
    is_over: impl Fn(&Value) -> bool,
    describe: impl Fn(&Value) -> String,
) -> Result<Waited, Failure> {
    let spinner = spinner(session);
    let begun = tokio::time::Instant::now();
    let look = async {
        let mut pause = QUICKEST;
        loop {
            let thing = session.client.get(path).await?;
            if is_over(&thing) {
                return Ok(Waited::Over(thing));
            }
            spinner.set_message(plain(&describe(&thing)));
            if limit.is_some_and(|limit| begun.elapsed() + pause > limit) {
                return Ok(Waited::TimeUp(thing));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(SLOWEST);
        }
    };
    tokio::select! {
        waited = look => waited,
        () = interrupted() => Ok(Waited::Interrupted),
    }
}

/// Turns on a terminal, and is nothing elsewhere. It clears its line when it is dropped.
fn spinner(session: &Session) -> ProgressBar {
    if session.output.json() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Waits for Ctrl-C, or for whatever else tells a program to end.
pub(super) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
}
