//! The checker: everything that was acknowledged holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::client::{Client, Database, ask, in_session, state};
use crate::harness::{Howdah, Person};

/// How long anything may take after a fault: an answer, a session, the end of an operation.
pub(super) const BOUND: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(200);
/// How many deletes of each client are looked at again.
const REMEMBERED: usize = 20;

pub(super) async fn everything<'c>(howdah: &Howdah, clients: impl Iterator<Item = &'c Client>) -> Result<()> {
    let (owner, clients) = (howdah.owner(), clients.collect::<Vec<_>>());
    operations_end(&owner).await?;
    try_join_all(clients.iter().map(|client| promises(client))).await?;
    // Each change was made once, however often it was sent, and nothing was made that nobody asked for.
    let mut listed = BTreeMap::new();
    for project in all(&owner, "/v1/projects").await? {
        *listed.entry(project["name"].as_str().unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    let created = clients.iter().flat_map(|client| &client.projects);
    let created: BTreeMap<String, i32> = created.map(|project| (project.name.clone(), 1)).collect();
    ensure!(listed == created, "projects are {listed:?}, acknowledged were {created:?}");
    Ok(())
}

async fn all(owner: &Person, path: &str) -> Result<Vec<Value>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ask(owner, &Method::GET, &format!("{path}?limit=100{cursor}"), None, None).await?;
        ensure!(page.status == 200, "{path} answered {}: {}", page.status, page.body);
        found.extend(page.body["data"].as_array().context("a list")?.iter().cloned());
        match page.body["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// No operation is stuck.
async fn operations_end(owner: &Person) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut open = all(owner, "/v1/operations").await?;
        open.retain(|operation| operation["endedAt"].is_null());
        if open.is_empty() {
            return Ok(());
        }
        ensure!(begun.elapsed() < BOUND, "operations do not end within {BOUND:?}: {open:#?}");
        sleep(PAUSE).await;
    }
}

async fn promises(client: &Client) -> Result<()> {
    for project in &client.projects {
        let databases = project.databases.iter().map(|database| async {
            has_its_rows(database).await.with_context(|| format!("database {} of {}", database.id, project.name))
        });
        try_join_all(databases).await?;
    }
    for gone in client.gone.iter().rev().take(REMEMBERED) {
        let answer = ask(&client.owner, &Method::GET, &gone.path, None, None).await?;
        ensure!(answer.status == 404, "{} was deleted and answers {}: {}", gone.path, answer.status, answer.body);
        for string in gone.strings.iter().take(2) {
            refuses(string).await.with_context(|| format!("{} was deleted", gone.path))?;
        }
    }
    Ok(())
}

async fn has_its_rows(database: &Database) -> Result<()> {
    for connection in &database.connections {
        let found: BTreeSet<i64> = rows(&connection.string).await?.into_iter().collect();
        let lost: Vec<_> =
            database.rows.iter().filter(|row| row.acknowledged.is_some() && !found.contains(&row.id)).collect();
        ensure!(lost.is_empty(), "acknowledged rows are lost: {lost:?}");
        let sent: BTreeSet<i64> = database.rows.iter().map(|row| row.id).collect();
        let unknown: Vec<_> = found.difference(&sent).collect();
        ensure!(unknown.is_empty(), "there are rows from after the moment, or of nobody: {unknown:?}");
    }
    for string in database.revoked.iter().rev().take(2) {
        refuses(string).await.context("a connection was revoked")?;
    }
    Ok(())
}

async fn rows(connection: &str) -> Result<Vec<i64>> {
    let begun = Instant::now();
    loop {
        let asked = in_session(connection, async |session| session.query("SELECT id FROM kept", &[]).await).await;
        match asked {
            Ok(rows) => return Ok(rows.iter().map(|row| row.get(0)).collect()),
            // A restore to before the table.
            Err(error) if state(&error) == Some("42P01") => return Ok(Vec::new()),
            Err(error) => ensure!(begun.elapsed() < BOUND, "cannot be read within {BOUND:?}: {error:?}"),
        }
        sleep(PAUSE).await;
    }
}

async fn refuses(connection: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        match in_session(connection, async |_| Ok(())).await {
            Ok(()) => bail!("its connection string is accepted"),
            Err(error) if state(&error) == Some("28P01") => return Ok(()),
            Err(error) => ensure!(begun.elapsed() < BOUND, "it is not refused for its password: {error:?}"),
        }
        sleep(PAUSE).await;
    }
}
