//! The command line: the platform's commands, and those of people who use one.
//!
//! This file is the entry point and knows both; the client's commands are in the crate `cli`.

mod help;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use base::error::describe;
use cli::{Options, print};

use crate::{config, http, serve};

/// Self-hosted Postgres platform
#[derive(Parser, Debug)]
#[command(name = "howdah", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server: API, console, gateway and workers in one process
    ///
    /// The first start creates the data directory, the metadata store, a workspace and a first
    /// service token, which is written to the file `initial-token` in the data directory. Every
    /// option can also be set with its environment variable. Ctrl-C shuts the server down cleanly.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<config::Serve>),

    /// Update the schema of the metadata store, then exit
    ///
    /// `howdah serve` does this at every start. Use this command to do it beforehand.
    Migrate(config::Place),

    /// Recover a lost server on an empty machine, from its backups and its master key
    ///
    /// Restores the metadata into a new or empty data directory. `howdah serve` then recovers each
    /// database to its latest archived state. The backups are in the directory --backup-dir or in the
    /// bucket --backup-s3-bucket. The lost server must have used its private metadata instance
    /// (--metadata-url is not supported). Tokens and connection strings stay valid. An interrupted
    /// recovery can be run again. Make sure that the lost server is not running anymore; see
    /// docs/recovery.md.
    #[command(after_help = RECOVER_EXAMPLES, mut_arg("metadata_url", |option| option.hide(true)))]
    Recover(config::Recover),

    /// Create a full-access token for the first workspace
    ///
    /// Prints the token. Use this command if all tokens are lost: run it on the machine of the
    /// server, as the user of the server, while the server is running.
    IssueToken(config::Place),

    /// Print the OpenAPI document of the API
    Openapi,

    #[command(flatten)]
    Client(cli::Command),

    /// Print a completion script for a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const SERVE_EXAMPLES: &str = "\
Examples:
  howdah serve
  howdah serve --data-dir /srv/howdah --http 0.0.0.0:8080 --gateway 0.0.0.0:5432 --public-gateway db.example.com:5432

For more detailed logs, set RUST_LOG=howdah=debug.";

const RECOVER_EXAMPLES: &str = "\
Examples:
  howdah recover --backup-dir /mnt/backups --master-key-file /mnt/usb/master.key
  howdah serve --backup-dir /mnt/backups

  export HOWDAH_BACKUP_S3_KEY=… HOWDAH_BACKUP_S3_KEY_SECRET=…
  howdah recover --backup-s3-bucket backups --master-key-file master.key";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  howdah completions bash > /etc/bash_completion.d/howdah
  howdah completions zsh > \"${fpath[1]}/_howdah\"
  howdah completions fish > ~/.config/fish/completions/howdah.fish";

/// Runs the program. The platform's commands fail with one line on standard error and exit code 1;
/// the client's as `howdah --help` says.
pub fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        return crate::serve::init::run();
    }
    let matches = help::arrange(Cli::command()).get_matches();
    let Cli { options, command } = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if matches.subcommand_name().is_some_and(|name| help::PLATFORM.contains(&name))
        && let Some(option) = help::given(&matches)
    {
        return misused(&format!("--{option} is only an option of client commands"));
    }
    match command {
        Command::Serve(config) => platform(serve::run(*config)),
        Command::Migrate(place) => platform(serve::migrate(place)),
        Command::Recover(config) => platform(serve::recover(config)),
        Command::IssueToken(place) => platform(serve::issue_token(place)),
        Command::Openapi => {
            print(&openapi());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut help::arrange(Cli::command()), "howdah", &mut script);
            print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Command::Client(command) => command.run(&options),
    }
}

/// Runs a command of the platform.
fn platform(work: impl Future<Output = Result<(), String>>) -> ExitCode {
    // Nothing that Howdah starts may gain privileges by executing a file.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return fail(&format!("cannot set no_new_privs: {error}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let done = runtime.block_on(work);
    // Tasks that still wait for the disk can be interrupted at any point, as by a crash.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => fail(&sentence),
    }
}

/// The OpenAPI document as it is committed.
pub fn openapi() -> String {
    match http::document().and_then(|document| serde_json::to_string_pretty(&document)) {
        Ok(text) => text + "\n",
        Err(error) => describe(&error),
    }
}

/// The exit code is clap's for a command line that is wrong.
fn misused(sentence: &str) -> ExitCode {
    fail(sentence);
    ExitCode::from(2)
}

fn fail(sentence: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "howdah: {sentence}");
    ExitCode::FAILURE
}
