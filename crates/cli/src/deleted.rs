//! `howdah databases deleted`, `undelete`

use clap::Args;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::noun::{Listed, Named, Noun, all, choose, read};
use super::operations::Wait;
use super::projects::find_project;
use super::restore::show_made;
use super::session::Session;
use super::table::Cell;
use base::id::DatabaseId;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah databases deleted my_project
  howdah databases undelete reporting --from my_project")]
pub(super) struct Deleted {
    /// The ID or name of the project; the ID if the project is deleted, too
    project: String,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah databases undelete reporting --from my_project
  howdah databases undelete reporting --from proj_01jzq6w3c4e5f6g7h8j9k0m1n2 \\
    --into other

The restored database has a new ID and a new connection. Earlier connections are
not restored.")]
pub(super) struct Undelete {
    /// The ID or name of the deleted database; see `howdah databases deleted`
    database: String,
    /// The ID or name of the project that it was deleted from; the ID if the project is deleted, too
    #[arg(long, value_name = "PROJECT")]
    from: String,
    /// The ID or name of the project to restore it to [default: the project of --from]
    #[arg(long, value_name = "PROJECT")]
    into: Option<String>,
    /// The name of the restored database [default: its previous name]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

/// A deleted database.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    id: String,
    name: String,
    region: String,
    deleted_at: Timestamp,
    restorable_until: Timestamp,
}

impl Noun for Kept {
    const SINGULAR: &'static str = "deleted database";
}

impl Listed for Kept {
    const PLURAL: &'static str = "deleted databases that can be restored";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "REGION", "DELETED", "RESTORABLE"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::id(&self.id),
            Cell::new(&self.region),
            Cell::age(self.deleted_at, now),
            Cell::new(format!("until {}", self.restorable_until.strftime("%Y-%m-%d %H:%M UTC"))),
        ]
    }
}

impl Named for Kept {
    fn is_id(text: &str) -> bool {
        DatabaseId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> String {
        format!("deleted {}", self.deleted_at.strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

impl Deleted {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let project = find_project(session, &self.project).await?;
        let deleted = session.client.list(all(&["projects", &project, "deleted-databases"], &[])).await?;
        session.output.list::<Kept>(&deleted, session.now())
    }
}

impl Undelete {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let from = find_project(session, &self.from).await?;
        let into = match &self.into {
            Some(project) => find_project(session, project).await?,
            None => from.clone(),
        };
        let deleted = session.client.list(all(&["projects", &from, "deleted-databases"], &[])).await?;
        let deleted = deleted.iter().map(read::<Kept>).collect::<Result<Vec<_>, _>>()?;
        let wanted = match DatabaseId::parse(&self.database) {
            Some(id) => id.to_string(),
            None => choose(&self.database, &deleted)?,
        };
        let Some(kept) = deleted.iter().find(|kept| kept.id == wanted) else {
            let said = format!("the project has no deleted database {wanted} that can be restored");
            return Err(Failure::NotFound(said));
        };
        let body = json!({
            "projectId": into,
            "name": self.name.as_ref().unwrap_or(&kept.name),
            "region": kept.region,
            "source": {"type": "database", "databaseId": kept.id},
        });
        let made = session.client.start(&["databases"], &body).await?;
        show_made(session, made, &self.wait).await
    }
}
