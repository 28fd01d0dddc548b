//! `howdah branches`

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::noun::{Listed, Named, Noun, Reference, Rows, Shown, all, find, read};
use super::output::Tone;
use super::projects::find_project;
use super::prompt;
use super::session::Session;
use super::table::Cell;
use base::id::BranchId;

const EXAMPLES: &str = "\
Examples:
  howdah branches list --project my_project
  howdah branches create feature-1 --project my_project
  howdah branches set-default feature-1 --project my_project

BRANCH is an ID (br_…) or, with --project, the exact name of a branch.";

/// Group a project's databases by Git branch
#[derive(Args, Debug)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Branches {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// List the branches of a project, oldest first
    #[command(visible_alias = "ls")]
    List {
        /// The ID or name of the project
        #[arg(long)]
        project: String,
        /// List only branches whose name contains this text
        #[arg(long, value_name = "TEXT")]
        contains: Option<String>,
        #[command(flatten)]
        rows: Rows,
    },

    /// Create a branch
    Create {
        /// The name of the Git branch
        name: String,
        /// The ID or name of the project
        #[arg(long)]
        project: String,
        /// Make it the project's default branch
        #[arg(long)]
        default: bool,
    },

    /// Show a branch
    Get(Which),

    /// Make a branch the default branch of its project
    SetDefault(Which),

    /// Delete a branch without databases
    Delete {
        #[command(flatten)]
        which: Which,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// The ID or name of the branch
    branch: String,
    /// The ID or name of the branch's project; required to give the branch by name
    #[arg(long)]
    project: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Branch {
    id: String,
    git_name: String,
    is_default: bool,
    role: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    project: Reference,
}

impl Branch {
    fn is_default(&self) -> Cell {
        if self.is_default { Cell::new("yes").with(Tone::Good) } else { Cell::new("no").with(Tone::Faint) }
    }
}

impl Noun for Branch {
    const SINGULAR: &'static str = "branch";
}

impl Listed for Branch {
    const PLURAL: &'static str = "branches";
    const COLUMNS: &'static [&'static str] = &["NAME", "ID", "ROLE", "DEFAULT", "CREATED"];

    fn cells(&self, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.git_name),
            Cell::id(&self.id),
            Cell::new(&self.role),
            self.is_default(),
            Cell::age(self.created_at, now),
        ]
    }
}

impl Shown for Branch {
    fn details(&self, now: Timestamp) -> Vec<(&'static str, Cell)> {
        vec![
            ("Name", Cell::new(&self.git_name)),
            ("ID", Cell::id(&self.id)),
            ("Role", Cell::new(&self.role)),
            ("Default", self.is_default()),
            ("Project", Cell::new(format!("{} ({})", self.project.name, self.project.id))),
            ("Created", Cell::time(self.created_at, now)),
            ("Updated", Cell::time(self.updated_at, now)),
        ]
    }
}

impl Named for Branch {
    fn is_id(text: &str) -> bool {
        BranchId::parse(text).is_some()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.git_name
    }

    fn place(&self) -> String {
        format!("of the project {}", self.project.name)
    }
}

impl Which {
    async fn id(&self, session: &Session) -> Result<String, Failure> {
        if Branch::is_id(&self.branch) {
            return Ok(self.branch.clone());
        }
        let Some(project) = &self.project else {
            return Err(Failure::Usage(format!(
                "{:?} is not an ID; to give a branch by name, add --project",
                self.branch
            )));
        };
        let project = find_project(session, project).await?;
        find::<Branch>(session, &self.branch, all(&["projects", &project, "branches"], &[])).await
    }
}

impl Branches {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (client, output) = (&session.client, &session.output);
        match self.verb {
            Verb::List { project, contains, rows } => {
                let project = find_project(session, &project).await?;
                let query: Vec<_> = contains.into_iter().map(|text| ("gitNameContains", text)).collect();
                let branches = client.list(rows.of(&["projects", &project, "branches"], &query)).await?;
                output.list::<Branch>(&branches, session.now())
            }
            Verb::Create { name, project, default } => {
                let project = find_project(session, &project).await?;
                let body = json!({"gitName": name, "isDefault": default});
                let made = client.post(&["projects", &project, "branches"], &body).await?;
                output.one::<Branch>(&made, session.now())
            }
            Verb::Get(which) => {
                let id = which.id(session).await?;
                output.one::<Branch>(&client.get(&["branches", &id]).await?, session.now())
            }
            Verb::SetDefault(which) => {
                let id = which.id(session).await?;
                let changed = client.patch(&["branches", &id], &json!({"isDefault": true})).await?;
                output.one::<Branch>(&changed, session.now())
            }
            Verb::Delete { which, yes } => {
                let id = which.id(session).await?;
                if !yes {
                    let branch: Branch = read(&client.get(&["branches", &id]).await?)?;
                    let of = branch.project.name;
                    prompt::confirm(yes, &format!("Delete the branch {} of the project {of}?", branch.git_name))
                        .await?;
                }
                client.delete(&["branches", &id]).await?;
                output.say(&format!("Deleted the branch {id}."));
                Ok(())
            }
        }
    }
}
