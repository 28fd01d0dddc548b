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

/// A Postgres platform in one binary: one HTTP call, and a PostgreSQL database exists.
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
    /// Run the platform: API, gateway and workers in one process
    ///
    /// The first start makes the data directory, Howdah's own metadata store, a workspace and a
    /// first service token, which is written to `initial-token` in it. Every option can also
    /// be set by its environment variable. Ctrl-C stops everything cleanly.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<config::Serve>),

    /// Bring the metadata store's schema up to date, and stop
    ///
    /// `howdah serve` does this at each start; this is for those who want to do it before.
    Migrate(config::Place),

    /// Bring everything back on an empty machine, from backups and the master key
    ///
    /// Restores Howdah's own metadata into a new or empty data directory, and notes what has to be done
    /// about the databases: `howdah serve` then brings each of them back to what was archived last. The
    /// backups are in the directory of --backup-dir or in the bucket of --backup-s3-bucket; the lost
    /// Howdah has to have kept its own metadata, so --metadata-url is not taken. Tokens and connection strings stay good. It can be run again after it was interrupted. Make sure
    /// that the lost Howdah does not run any more; docs/recovery.md says what else to think of.
    #[command(after_help = RECOVER_EXAMPLES, mut_arg("metadata_url", |option| option.hide(true)))]
    Recover(config::Recover),

    /// Make a token that may do everything in the first workspace, and print it
    ///
    /// For whoever has lost every token: on the machine itself, as the user that Howdah runs as,
    /// while it serves.
    IssueToken(config::Place),

    /// Print the OpenAPI document of the API
    Openapi,

    #[command(flatten)]
    Client(cli::Command),

    /// Print a completion script for a shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

const SERVE_EXAMPLES: &str = "\
Examples:
  howdah serve
  howdah serve --data-dir /srv/howdah --http 0.0.0.0:8080 --gateway 0.0.0.0:5432 --public-gateway db.example.com:5432

More detail in the logs: RUST_LOG=howdah=debug";

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
        return misused(&format!("--{option} is an option of the client's commands"));
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
        return fail(&format!("cannot give up gaining privileges (no_new_privs): {error}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let done = runtime.block_on(work);
    // What still waits for the disk then can be interrupted anywhere, as by a crash.
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
