//! A client: what it does, and what it was promised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base::clock::Clock;
use jiff::Timestamp;
use rand::prelude::{RngExt as _, SeedableRng as _, StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use super::check::BOUND;
use crate::harness::{Person, connection_string};

/// The pause before something is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one request or one session may take before the client gives it up.
const PATIENCE: Duration = Duration::from_secs(40);
/// What a client has at most.
const PROJECTS: usize = 2;
const DATABASES: usize = 2;
/// SQLSTATEs that tell of damage: a table that is gone, corrupt data, files that are missing.
const DAMAGE: [&str; 5] = ["42P01", "XX000", "XX001", "XX002", "58P01"];

/// A row that was sent, and acknowledged if the client heard of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) begun: Timestamp,
    pub(super) acknowledged: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    id: String,
    pub(super) string: String,
}

/// A database whose creation was acknowledged.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) id: String,
    pub(super) connections: Vec<Connection>,
    pub(super) revoked: Vec<String>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) databases: Vec<Database>,
}

/// What an acknowledged delete leaves: a path that answers 404, and connection strings that are refused.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) path: String,
    pub(super) strings: Vec<String>,
}

pub(super) struct Client {
    name: u64,
    dice: StdRng,
    pub(super) owner: Person,
    next: i64,
    pub(super) projects: Vec<Project>,
    pub(super) gone: Vec<Gone>,
    /// How many rows were acknowledged.
    pub(super) acknowledged: usize,
    pub(super) actions: BTreeMap<&'static str, u64>,
    /// How many operations failed, by the reason that they gave.
    pub(super) failed: BTreeMap<String, u64>,
}

/// An answer of the API.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    operation: Option<String>,
}

impl Answer {
    /// Its data, of an answer with this status.
    fn data(&self, status: u16) -> Result<&Value> {
        ensure!(self.status == status, "answered {} instead of {status}: {}", self.status, self.body);
        Ok(&self.body["data"])
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Runs statements in a session of its own.
pub(super) async fn in_session<T>(
    connection: &str,
    work: impl AsyncFnOnce(&tokio_postgres::Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T> {
    let all = async {
        let (client, driver) = tokio_postgres::connect(connection, NoTls).await?;
        tokio::select! {
            biased;
            done = work(&client) => Ok(done?),
            ended = driver => {
                ended?;
                bail!("the session ended")
            }
        }
    };
    timeout(PATIENCE, all).await.context("the session took too long")?
}

/// The SQLSTATE of an error, if the server gave one.
pub(super) fn state(error: &anyhow::Error) -> Option<&str> {
    Some(error.downcast_ref::<tokio_postgres::Error>()?.code()?.code())
}

/// An error that a fault explains; one that tells of damage breaks the promise.
fn excuse(error: &anyhow::Error) -> Result<()> {
    let is_damage = state(error).is_some_and(|state| DAMAGE.contains(&state)) && !is_full_disk(error);
    ensure!(!is_damage, "a database is damaged: {error:?}");
    Ok(())
}

/// On a full disk, a new session that cannot write its cache of the catalogs ends with an internal error (XX000,
/// PostgreSQL's `relcache.c`) instead of `disk_full` (53100). The cache is written again by a later session.
fn is_full_disk(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::as_db_error);
    error.is_some_and(|error| error.message() == "could not write init file")
}

/// Makes the table that rows are written to. A restore to a moment before it has none.
async fn make_table(connection: &str) -> Result<()> {
    let begun = Instant::now();
    let create = "CREATE TABLE IF NOT EXISTS kept (id bigint PRIMARY KEY)";
    while let Err(error) = in_session(connection, async |session| session.batch_execute(create).await).await {
        excuse(&error)?;
        ensure!(begun.elapsed() < BOUND, "no table in a new database within {BOUND:?}: {error:?}");
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Sends a request until it is answered.
pub(super) async fn ask(
    owner: &Person,
    method: &Method,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer> {
    let begun = Instant::now();
    loop {
        let said = match timeout(PATIENCE, send(owner, method, path, key, body)).await {
            Ok(Ok(answer)) if !answer.says_later() => return Ok(answer),
            Ok(Ok(answer)) => format!("{} {}", answer.status, answer.body),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        ensure!(begun.elapsed() < BOUND, "{method} {path} was not answered within {BOUND:?}: {said}");
        sleep(PAUSE).await;
    }
}

impl Answer {
    /// Whether it asks for a repetition.
    fn says_later(&self) -> bool {
        let is_under_way = self.body["error"]["message"].as_str().is_some_and(|text| text.contains("Idempotency-Key"));
        matches!(self.status, 429 | 503) || (self.status == 409 && is_under_way)
    }
}

async fn send(
    owner: &Person,
    method: &Method,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
) -> Result<Answer, reqwest::Error> {
    let mut request = owner.request(method.clone(), path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    let operation = response.headers().get("howdah-operation").and_then(|id| Some(id.to_str().ok()?.to_owned()));
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, body, operation })
}

impl Client {
    pub(super) fn new(name: u64, seed: u64, owner: Person) -> Self {
        Self {
            name,
            dice: StdRng::seed_from_u64(seed ^ (name + 1).rotate_left(32)),
            owner,
            next: 0,
            projects: Vec::new(),
            gone: Vec::new(),
            acknowledged: 0,
            actions: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// Asks for a change until it is answered, under one key. Sometimes the first request is given up on the way.
    async fn change(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let key = format!("{1}-{0}", self.next(), self.name);
        if self.dice.random_bool(0.1) {
            let short = Duration::from_millis(self.dice.random_range(0..200));
            let _ = timeout(short, send(&self.owner, &method, path, Some(&key), body.as_ref())).await;
        }
        ask(&self.owner, &method, path, Some(&key), body.as_ref()).await
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        ask(&self.owner, &Method::GET, path, None, None).await
    }

    /// Does one thing after the other.
    pub(super) async fn work(&mut self, end: Instant) -> Result<()> {
        while Instant::now() < end {
            if self.projects.is_empty() {
                self.create().await?;
            }
            let project = self.dice.random_range(0..self.projects.len());
            let database = self.dice.random_range(0..self.projects[project].databases.len());
            let at = (project, database);
            let did = match self.dice.random_range(0..100) {
                0..10 if self.projects.len() < PROJECTS => self.create().await.map(|()| "create"),
                10..18 => self.connect(at).await.map(|()| "connection created"),
                18..26 => self.revoke(at).await.map(|()| "connection revoked"),
                26..38 => self.back_up(at).await,
                38..46 => self.restore(at).await,
                46..52 => self.copy(at).await,
                52..57 => self.delete(project).await.map(|()| "delete"),
                // The database goes to sleep meanwhile, and wakes for the next write.
                57..62 => {
                    sleep(Duration::from_secs(4)).await;
                    self.write(at, 1).await.map(|()| "sleep and wake")
                }
                _ => {
                    let rows = self.dice.random_range(1..30);
                    self.write(at, rows).await.map(|()| "write")
                }
            };
            let did = did.with_context(|| format!("client {}", self.name))?;
            *self.actions.entry(did).or_default() += 1;
        }
        Ok(())
    }

    pub(super) async fn create(&mut self) -> Result<()> {
        let name = format!("c{1}-{0}", self.next(), self.name);
        let body = json!({"name": name, "region": "us-east-1"});
        let answer = self.change(Method::POST, "/v1/projects", Some(body)).await?;
        let made = answer.data(201)?;
        let database = Self::database(&made["database"], Vec::new());
        let string = database.connections[0].string.clone();
        self.projects.push(Project { id: text(&made["id"]), name, databases: vec![database] });
        make_table(&string).await
    }

    fn database(made: &Value, rows: Vec<Row>) -> Database {
        let first = Connection { id: text(&made["connections"][0]["id"]), string: connection_string(made) };
        Database { id: text(&made["id"]), connections: vec![first], revoked: Vec::new(), rows }
    }

    fn of(&mut self, (project, database): (usize, usize)) -> &mut Database {
        &mut self.projects[project].databases[database]
    }

    async fn write(&mut self, at: (usize, usize), count: usize) -> Result<()> {
        let connections = self.of(at).connections.len();
        let connection = self.dice.random_range(0..connections);
        let string = self.of(at).connections[connection].string.clone();
        let written = in_session(&string, async |session| {
            for _ in 0..count {
                let id = self.next();
                self.of(at).rows.push(Row { id, begun: now(), acknowledged: None });
                session.execute("INSERT INTO kept VALUES ($1)", &[&id]).await?;
                if let Some(row) = self.of(at).rows.last_mut() {
                    row.acknowledged = Some(now());
                }
                self.acknowledged += 1;
            }
            Ok(())
        })
        .await;
        if let Err(error) = written {
            excuse(&error)?;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Writes one row, however often that has to be tried.
    pub(super) async fn write_until_acknowledged(&mut self, bound: Duration) -> Result<()> {
        let (begun, before) = (Instant::now(), self.acknowledged);
        while self.acknowledged == before {
            ensure!(begun.elapsed() < bound, "no row could be written within {bound:?} after a fault");
            self.write((0, 0), 1).await?;
        }
        Ok(())
    }

    async fn connect(&mut self, at: (usize, usize)) -> Result<()> {
        let body = json!({"databaseId": self.of(at).id, "name": format!("connection {}", self.next())});
        let answer = self.change(Method::POST, "/v1/connections", Some(body)).await?;
        let made = answer.data(201)?;
        let made = Connection { id: text(&made["id"]), string: text(&made["connectionString"]) };
        self.of(at).connections.push(made);
        Ok(())
    }

    /// Revokes all connections but one.
    async fn revoke(&mut self, at: (usize, usize)) -> Result<()> {
        while self.of(at).connections.len() > 1 {
            let connection = self.of(at).connections[0].clone();
            self.change(Method::DELETE, &format!("/v1/connections/{}", connection.id), None).await?.data(204)?;
            let database = self.of(at);
            database.connections.remove(0);
            database.revoked.push(connection.string);
        }
        Ok(())
    }

    async fn back_up(&mut self, at: (usize, usize)) -> Result<&'static str> {
        let path = format!("/v1/databases/{}/backups", self.of(at).id);
        let answer = self.change(Method::POST, &path, Some(json!({}))).await?;
        match answer.status {
            202 => Ok("backup"),
            409 => Ok("backup refused for another"),
            status => bail!("{path}: {status} {}", answer.body),
        }
    }

    /// Restores to a new database at a moment that is offered.
    async fn restore(&mut self, at: (usize, usize)) -> Result<&'static str> {
        let id = self.of(at).id.clone();
        let listed = self.get(&format!("/v1/databases/{id}/backups")).await?;
        listed.data(200)?;
        let windows = listed.body["meta"]["restorableWindows"].as_array().cloned().unwrap_or_default();
        let Some(window) = windows.last() else { return self.back_up(at).await };
        let [from, until] = ["from", "until"].map(|end| text(&window[end]).parse::<Timestamp>().expect("a moment"));
        let (from, until) = (from.as_millisecond(), until.as_millisecond());
        let moment = Timestamp::from_millisecond(self.dice.random_range(from..=until.max(from)))?;
        let source = json!({"type": "database", "databaseId": id, "targetTime": moment.to_string()});
        self.make_from(at, source, moment, "restore").await
    }

    async fn copy(&mut self, at: (usize, usize)) -> Result<&'static str> {
        let source = json!({"type": "database", "databaseId": self.of(at).id});
        self.make_from(at, source, now(), "copy").await
    }

    /// A new database with what was acknowledged until then.
    async fn make_from(
        &mut self,
        at: (usize, usize),
        source: Value,
        moment: Timestamp,
        kind: &'static str,
    ) -> Result<&'static str> {
        if self.projects[at.0].databases.len() >= DATABASES {
            return self.delete_database(at.0).await.map(|()| "delete of a copy");
        }
        let name = format!("d{}", self.next());
        let body = json!({"projectId": self.projects[at.0].id, "name": name, "source": source});
        let shown = body.to_string();
        let answer = self.change(Method::POST, "/v1/databases", Some(body)).await?;
        if answer.status == 409 {
            // A backup of the source is under way, or it is not ready.
            return Ok("copy refused for a backup");
        }
        let rows = self.of(at).rows.iter().filter(|row| row.begun <= moment);
        let rows =
            rows.map(|row| Row { acknowledged: row.acknowledged.filter(|then| *then <= moment), ..*row }).collect();
        let database = Self::database(answer.data(201).context(shown)?, rows);
        let operation = answer.operation.context("a copy names its operation")?;
        let string = database.connections[0].string.clone();
        let ended = self.ended(&operation).await?;
        self.projects[at.0].databases.push(database);
        if ended["state"] == "succeeded" {
            make_table(&string).await?;
        } else {
            let reason = ended["reason"].as_str().with_context(|| format!("it failed without a reason: {ended}"))?;
            *self.failed.entry(format!("{}: {reason}", text(&ended["kind"]))).or_default() += 1;
            self.delete_database(at.0).await?;
        }
        Ok(kind)
    }

    async fn ended(&self, operation: &str) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let answer = self.get(&format!("/v1/operations/{operation}")).await?;
            let operation = answer.data(200)?;
            if operation["endedAt"].is_string() {
                return Ok(operation.clone());
            }
            ensure!(begun.elapsed() < BOUND, "an operation does not end within {BOUND:?}: {operation}");
            sleep(PAUSE).await;
        }
    }

    /// Deletes the newest database of a project.
    async fn delete_database(&mut self, project: usize) -> Result<()> {
        let database = self.projects[project].databases.last().ok_or_else(|| anyhow!("a project without database"))?;
        let path = format!("/v1/databases/{}", database.id);
        self.remove(&path, 200).await?;
        let database = self.projects[project].databases.pop();
        self.gone.push(Gone { path, strings: database.into_iter().flat_map(Database::strings).collect() });
        Ok(())
    }

    /// Deletes something, after the backup or the restore that is under way.
    async fn remove(&mut self, path: &str, status: u16) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.change(Method::DELETE, path, None).await?;
            if !matches!(answer.status, 400 | 409) {
                return answer.data(status).map(drop);
            }
            ensure!(begun.elapsed() < BOUND, "{path} cannot be deleted within {BOUND:?}: {}", answer.body);
            sleep(PAUSE).await;
        }
    }

    async fn delete(&mut self, project: usize) -> Result<()> {
        let path = format!("/v1/projects/{}", self.projects[project].id);
        self.remove(&path, 204).await?;
        let project = self.projects.remove(project);
        self.gone.push(Gone { path, strings: project.databases.into_iter().flat_map(Database::strings).collect() });
        Ok(())
    }

    pub(super) async fn delete_all(&mut self) -> Result<()> {
        while !self.projects.is_empty() {
            self.delete(0).await?;
        }
        Ok(())
    }
}

impl Database {
    /// All connection strings that were ever good.
    fn strings(self) -> Vec<String> {
        self.connections.into_iter().map(|connection| connection.string).chain(self.revoked).collect()
    }
}
