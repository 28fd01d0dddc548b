//! The client: one file a noun of the API, and what they share. It starts nothing of the platform.

mod audit;
mod backups;
mod branches;
mod ca;
mod client;
mod connections;
mod databases;
mod deleted;
mod failure;
mod limits;
mod login;
mod noun;
mod operations;
mod output;
mod projects;
mod prompt;
mod psql;
mod regions;
mod restore;
mod saved;
mod service_tokens;
mod session;
mod table;
mod usage;
mod wait;
mod workspaces;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

pub use self::failure::EXIT_CODES;
use self::failure::Failure;
use self::output::Output;
pub use self::output::print;
pub use self::session::Options;
use self::session::Session;

/// The client's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    Login(login::Login),
    Logout(login::Logout),
    Whoami(login::Whoami),
    #[command(alias = "project")]
    Projects(projects::Projects),
    #[command(aliases = ["database", "db"])]
    Databases(databases::Databases),
    #[command(alias = "backup")]
    Backups(backups::Backups),
    #[command(alias = "branch")]
    Branches(branches::Branches),
    #[command(alias = "connection")]
    Connections(connections::Connections),
    Ca(ca::Ca),
    #[command(aliases = ["token", "service-tokens"])]
    Tokens(service_tokens::Tokens),
    #[command(alias = "operation")]
    Operations(operations::Operations),
    #[command(alias = "workspace")]
    Workspaces(workspaces::Workspaces),
    #[command(alias = "region")]
    Regions(regions::Regions),
    Audit(audit::Audit),
}

impl Command {
    /// Runs the command. The exit code is what `howdah --help` says.
    pub fn run(self, options: &Options) -> ExitCode {
        match self {
            Self::Login(login) => run(options.json, async |output| login.run(options, output).await),
            Self::Logout(logout) => run(options.json, async |output| logout.run(&output)),
            Self::Whoami(whoami) => ask(options, async |session| whoami.run(session).await),
            Self::Projects(projects) => ask(options, async |session| projects.run(session).await),
            Self::Databases(databases) => ask(options, async |session| databases.run(session).await),
            Self::Backups(backups) => ask(options, async |session| backups.run(session).await),
            Self::Branches(branches) => ask(options, async |session| branches.run(session).await),
            Self::Ca(ca) => run(options.json, async |output| ca.run(options, output).await),
            Self::Connections(connections) => ask(options, async |session| connections.run(session).await),
            Self::Tokens(tokens) => ask(options, async |session| tokens.run(session).await),
            Self::Operations(operations) => ask(options, async |session| operations.run(session).await),
            Self::Workspaces(workspaces) => ask(options, async |session| workspaces.run(session).await),
            Self::Regions(regions) => ask(options, async |session| regions.run(session).await),
            Self::Audit(audit) => ask(options, async |session| audit.run(session).await),
        }
    }
}

/// Runs a command of the client that asks a Howdah.
fn ask(options: &Options, work: impl AsyncFnOnce(&Session) -> Result<(), Failure>) -> ExitCode {
    run(options.json, async |output| work(&Session::open(options, output)?).await)
}

/// Runs a command of the client.
fn run(json: bool, work: impl AsyncFnOnce(Output) -> Result<(), Failure>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "howdah: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(work(Output::detect(json)));
    // A blocked read from the terminal would otherwise keep the process alive.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&Output::detect(json)),
    }
}
