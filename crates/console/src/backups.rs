//! The backups of a database, and restoring one: a backup, a point in time or a copy of the current state, to
//! a new database or in place.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde::Deserialize;

use super::chart::bytes;
use super::confirm::Typed;
use super::databases::{self as database_pages, Head, Standing};
use super::projects::{self as project_pages, Wanted};
use super::{Attempt, Frame, Html, Member, Once, Problem, Section, again, see_other};
use base::error::{Error, Result};
use base::id::BackupId;
use base::name::LONGEST as LONGEST_NAME;
use domain::app::App;
use domain::backups::{self, Backup, Health, Kind, State as BackupState};
use domain::branches::Placement;
use domain::databases::{Database, Status};
use domain::restores::{self, Source};
use web::Failure;
use web::path::Path;
use web::query::Query;

const SHOWN: u32 = 100;
const DAMAGED: (&str, &str) = ("bad", "Damaged: does not restore");
/// The format of `datetime-local` (HTML, section 2.3.5.5), to the second.
const MOMENT: &str = "%Y-%m-%dT%H:%M:%S";

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/databases/{database}/backups", get(list).post(create))
        .route("/databases/{database}/restore", get(ask).post(restore))
}

/// The restorable window in whole seconds.
struct Restorable {
    earliest: Timestamp,
    latest: Timestamp,
    /// Begin and end of each part, if the window has gaps.
    parts: Vec<(String, String)>,
}

impl Restorable {
    fn of(spans: &[backups::Span]) -> Option<Self> {
        let second = |mode| TimestampRound::new().smallest(Unit::Second).mode(mode);
        let begin = |from: Timestamp| from.round(second(RoundMode::Ceil)).unwrap_or(from);
        let end = |until: Timestamp| until.round(second(RoundMode::Floor)).unwrap_or(until);
        // A window of less than a second does not end before it begins.
        let whole = |span: &backups::Span| (begin(span.from), end(span.until).max(begin(span.from)));
        let parts: Vec<_> = spans.iter().map(whole).map(|(from, until)| (exactly(from), exactly(until))).collect();
        Some(Self {
            earliest: begin(spans.first()?.from),
            latest: spans.iter().map(|span| whole(span).1).max()?,
            parts: if parts.len() > 1 { parts } else { Vec::new() },
        })
    }

    fn first(&self) -> String {
        self.earliest.strftime(MOMENT).to_string()
    }

    fn last(&self) -> String {
        self.latest.strftime(MOMENT).to_string()
    }

    /// To the second, like the form's field.
    fn begins(&self) -> String {
        exactly(self.earliest)
    }

    fn ends(&self) -> String {
        exactly(self.latest)
    }
}

fn exactly(moment: Timestamp) -> String {
    moment.strftime("%-d %b %Y, %H:%M:%S UTC").to_string()
}

struct Row {
    backup: Backup,
    kind: &'static str,
    state: (&'static str, &'static str),
    /// Why it failed, or why it does not restore.
    reason: Option<String>,
    size: String,
    /// Why verification failed without proving that the backup is damaged.
    unverified: Option<String>,
    restore: Option<String>,
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Full => "Full",
        Kind::Differential => "Differential",
        Kind::Incremental => "Incremental",
    }
}

impl Row {
    fn of(base: &str, backup: Backup, may_change: bool) -> Self {
        let restores = backup.state == BackupState::Completed && !backup.damaged;
        let (state, reason) = match backup.state {
            BackupState::Running => (("busy", "Running"), None),
            BackupState::Completed if backup.damaged => (DAMAGED, backup.verification_failure.clone()),
            BackupState::Completed => (("good", "Completed"), None),
            BackupState::Failed => (("bad", "Failed"), backup.failure_reason.clone()),
        };
        Self {
            kind: kind(backup.kind),
            state,
            reason,
            size: backup.size.map(|size| bytes(size.unsigned_abs())).unwrap_or_default(),
            unverified: backup.verification_failure.clone().filter(|_| !backup.damaged),
            restore: (restores && may_change).then(|| format!("{base}/restore?backup={}", backup.id.bare())),
            backup,
        }
    }
}

#[derive(Template)]
#[template(path = "backups/list.html")]
struct List {
    frame: Frame,
    head: Head,
    standing: Standing,
    days: i32,
    health: Health,
    window: Option<Restorable>,
    rows: Vec<Row>,
    has_more: bool,
    kinds: [Kind; 3],
    can_back_up: bool,
    problem: Problem,
}

impl List {
    async fn of(app: &App, member: &Member, database: Database) -> Result<Self> {
        let (frame, actor) = (member.frame(Section::Projects), &member.actor);
        let session = app.store.session().await?;
        let (found, has_more) = backups::list(&session, actor, database.id, SHOWN).await?;
        let health = backups::health(&session, database.id).await?;
        let window = backups::window(&session, database.id, app.clock.now()).await?;
        let days = backups::retention_days(&session, database.project).await?;
        let standing = Standing::of(&session, &frame, actor, &database).await?;
        let is_running = found.iter().any(|backup| backup.state == BackupState::Running);
        let can_back_up = actor.may_change().is_ok() && database.status == Status::Ready && !is_running;
        let head = Head::of(&frame, database, "backups");
        Ok(Self {
            rows: found.into_iter().map(|backup| Row::of(&head.base, backup, frame.may_change())).collect(),
            window: Restorable::of(&window.spans()),
            kinds: Kind::ALL,
            problem: Problem::none(),
            frame,
            head,
            standing,
            days,
            health,
            has_more,
            can_back_up,
        })
    }
}

async fn list(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let database = database_pages::find(&app, &member, &database).await?;
    Ok(Html(List::of(&app, &member, database).await?).into_response())
}

#[derive(Deserialize)]
struct NewForm {
    #[serde(default, rename = "backupType")]
    kind: String,
}

async fn create(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Once(form, attempt): Once<NewForm>,
) -> Result<Response, Failure> {
    let database = database_pages::find(&app, &member, &database).await?;
    let started = async {
        let tx = app.store.begin().await?;
        let (actor, now) = (&member.actor, app.clock.now());
        backups::create(&tx, actor, now, &app.keyring, database.id, Kind::parse(&form.kind)).await?;
        let base = database_pages::address(&member.frame(Section::Projects), database.id);
        attempt.commit(&app, tx, see_other(&app, &format!("{base}/backups"), "Backup started.")).await
    };
    match started.await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let problem = Problem::of(error, &[])?;
            Ok(again(List { problem, ..List::of(&app, &member, database).await? }))
        }
    }
}

#[derive(Template)]
#[template(path = "backups/restore.html")]
struct Ask {
    frame: Frame,
    head: Head,
    window: Option<Restorable>,
    choices: Vec<Choice>,
    health: Health,
    form: RestoreForm,
    is_ready: bool,
    /// Why nothing can be restored, and what to do.
    nothing: Option<&'static str>,
    problem: Problem,
}

/// Why a database without a usable backup cannot be restored. A ready database can still be copied.
fn nothing_to_restore(status: Status, health: Health) -> Option<&'static str> {
    match status {
        Status::Ready => None,
        Status::Provisioning => Some("The database is being created and has no data yet. Wait until it is ready."),
        Status::Recovering => Some("The database is being restored. Wait until it is ready."),
        Status::Failure if health.damaged > 0 => Some("All backups of this database are damaged."),
        Status::Failure => Some(
            "The database could not be created, so there is no backup of it. Retry the operation that failed, or \
             delete the database and create another one.",
        ),
    }
}

/// An option of the form.
struct Choice {
    id: String,
    label: String,
}

#[derive(Clone, Default, Deserialize)]
struct RestoreForm {
    /// `backup`, `moment` or `now`.
    #[serde(default)]
    what: String,
    #[serde(default)]
    backup: String,
    #[serde(default, rename = "targetTime")]
    moment: String,
    /// `new` or `here`.
    #[serde(default)]
    into: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    confirm: String,
}

impl Ask {
    async fn of(app: &App, member: &Member, database: Database, form: RestoreForm) -> Result<Self> {
        let frame = member.frame(Section::Projects);
        member.actor.may_change()?;
        let session = app.store.session().await?;
        let (found, _) = backups::list(&session, &member.actor, database.id, SHOWN).await?;
        let health = backups::health(&session, database.id).await?;
        let window = backups::window(&session, database.id, app.clock.now()).await?;
        let complete = found.into_iter().filter(|backup| !backup.damaged).filter_map(|backup| {
            let at = backup.completed_at?;
            Some(Choice {
                id: backup.id.bare(),
                label: format!("{} ({})", exactly(at), kind(backup.kind).to_lowercase()),
            })
        });
        let (window, choices) = (Restorable::of(&window.within_reach()), complete.collect::<Vec<_>>());
        let has_none = window.is_none() && choices.is_empty();
        Ok(Self {
            nothing: nothing_to_restore(database.status, health).filter(|_| has_none),
            health,
            window,
            choices,
            is_ready: database.status == Status::Ready,
            head: Head::of(&frame, database, "backups"),
            problem: Problem::none(),
            frame,
            form,
        })
    }
}

#[derive(Deserialize)]
struct AskQuery {
    backup: Option<String>,
}

async fn ask(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Query(query): Query<AskQuery>,
) -> Result<Response, Failure> {
    let database = database_pages::find(&app, &member, &database).await?;
    let name = name_of_restored(&database.name, app.clock.now());
    let form = RestoreForm { what: "backup".into(), into: "new".into(), name, ..RestoreForm::default() };
    let page = Ask::of(&app, &member, database, form).await?;
    let form = match query.backup {
        Some(backup) => RestoreForm { backup, ..page.form },
        None if page.window.is_some() => RestoreForm { what: "moment".into(), ..page.form },
        None => RestoreForm { what: "now".into(), ..page.form },
    };
    Ok(Html(Ask { form, ..page }).into_response())
}

/// The default name of the restored database. It has no spaces, so that it needs no quotes in a shell.
fn name_of_restored(name: &str, now: Timestamp) -> String {
    let minute = now.strftime("%Y-%m-%d-%H%M").to_string();
    let words: Vec<&str> = name.split_whitespace().collect();
    let kept: String = words.join("-").chars().take(LONGEST_NAME - minute.len() - 1).collect();
    format!("{kept}-{minute}")
}

/// The source that the form selects.
fn source(form: &RestoreForm, database: &Database) -> Result<Source> {
    let database = database.id;
    match form.what.as_str() {
        "backup" => {
            let backup = BackupId::parse(&form.backup);
            let backup =
                backup.ok_or_else(|| Error::invalid("backup: no backup is selected", "Select one from the list."))?;
            Ok(Source::Backup { database, backup, to: None })
        }
        "moment" => Ok(Source::Database { database, to: Some(moment("targetTime", &form.moment)?) }),
        "now" => Ok(Source::Database { database, to: None }),
        _ => Err(Error::invalid("what: nothing is selected", "Select what to restore from.")),
    }
}

/// Parses a date and time of a form. `datetime-local` sends no offset, and pages say that the time is UTC; an
/// offset that was typed is respected.
pub(crate) fn moment(field: &str, text: &str) -> Result<Timestamp> {
    let text = text.trim();
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|moment| moment.timestamp());
    text.parse().ok().or_else(local).ok_or_else(|| {
        Error::invalid(format!("{field}: not a valid date and time"), "Use the format 2030-01-31T12:00:00, in UTC.")
    })
}

async fn restore(
    State(app): State<Arc<App>>,
    member: Member,
    Path((_, database)): Path<(String, String)>,
    Once(form, attempt): Once<RestoreForm>,
) -> Result<Response, Failure> {
    let database = database_pages::find(&app, &member, &database).await?;
    let done = match form.into.as_str() {
        "here" => restore_in_place(&app, &member, &database, &form, attempt).await,
        _ => restore_beside(&app, &member, &database, &form, attempt).await,
    };
    match done {
        Ok(answer) => Ok(answer),
        Err(Refused::Problem(problem)) => Ok(again(Ask { problem, ..Ask::of(&app, &member, database, form).await? })),
        Err(Refused::Error(error)) => {
            let problem = Problem::of(error, &["what", "backup", "targetTime", "into", "name", "confirm"])?;
            Ok(again(Ask { problem, ..Ask::of(&app, &member, database, form).await? }))
        }
    }
}

enum Refused {
    Problem(Problem),
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

async fn restore_beside(
    app: &App,
    member: &Member,
    database: &Database,
    form: &RestoreForm,
    attempt: Attempt,
) -> Result<Response, Refused> {
    let wanted = Wanted {
        name: form.name.trim(),
        region: &database.region,
        placement: Placement::Branch(database.branch),
        is_default: false,
        source: Some(source(form, database)?),
    };
    let title = format!("Restoring “{}” to “{}”", database.name, form.name.trim());
    Ok(project_pages::create_database(app, member, database.project, wanted, title, attempt).await?)
}

async fn restore_in_place(
    app: &App,
    member: &Member,
    database: &Database,
    form: &RestoreForm,
    attempt: Attempt,
) -> Result<Response, Refused> {
    let source = source(form, database)?;
    if form.what == "now" {
        let message = "the current state cannot be restored in place: select a backup or a point in time";
        return Err(Error::invalid(format!("what: {message}"), "").into());
    }
    let typed = Typed { confirm: form.confirm.clone() };
    typed.check(&database.name, "database").map_err(Refused::Problem)?;
    let mut announcements = app.store.announcements();
    let tx = app.store.begin().await?;
    let (_, operation) = restores::start_in_place(&tx, &member.actor, app.clock.now(), database.id, &source).await?;
    let address = database_pages::address(&member.frame(Section::Projects), database.id);
    let answer = attempt.commit(app, tx, see_other(app, &address, "Restore started.")).await?;
    app.settle(&mut announcements, operation).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datetime_local_is_parsed_as_utc() {
        for text in ["2030-01-31T12:00", "2030-01-31T12:00:00", " 2030-01-31 12:00:00Z", "2030-01-31T13:00+01:00"] {
            assert_eq!(moment("at", text).unwrap().to_string(), "2030-01-31T12:00:00Z", "{text:?}");
        }
        for text in ["", "yesterday", "2030-13-01T00:00", "31.1.2030"] {
            assert!(moment("at", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn default_name_of_a_restored_database_is_valid_and_has_no_spaces() {
        let now = "2030-01-31T16:48:59Z".parse().unwrap();
        assert_eq!(name_of_restored("storefront", now), "storefront-2030-01-31-1648");
        assert_eq!(name_of_restored("Web  shop", now), "Web-shop-2030-01-31-1648");
        let long = name_of_restored(&"\u{e4}".repeat(LONGEST_NAME), now);
        assert!(base::name::DatabaseName::parse(&long).is_ok() && long.ends_with("-2030-01-31-1648"), "{long}");
    }

    #[test]
    fn rounding_to_seconds_stays_inside_the_window() {
        let round = |text: &str, mode| {
            let moment: Timestamp = text.parse().unwrap();
            moment.round(TimestampRound::new().smallest(Unit::Second).mode(mode)).unwrap().to_string()
        };
        assert_eq!(round("2030-01-31T12:00:00.2Z", RoundMode::Ceil), "2030-01-31T12:00:01Z");
        assert_eq!(round("2030-01-31T12:00:00.8Z", RoundMode::Floor), "2030-01-31T12:00:00Z");
    }
}
