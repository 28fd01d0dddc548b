//! The command line.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::base::error::describe;
use crate::config;
use crate::{http, serve};

/// A Postgres platform in one binary: one HTTP call, and a PostgreSQL database exists.
#[derive(Parser, Debug)]
#[command(name = "howdah", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
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

    /// Print the OpenAPI document of the API
    Openapi,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  howdah serve
  howdah serve --data-dir /srv/howdah --http 0.0.0.0:8080 --gateway 0.0.0.0:5432 --public-gateway db.example.com:5432

More detail in the logs: RUST_LOG=howdah=debug";

/// Runs the program; every failure is one line on standard error and exit code 1.
pub fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        return crate::serve::init::run();
    }
    let cli = Cli::parse();
    // Nothing that Howdah starts may gain privileges by executing a file.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return fail(&format!("cannot give up gaining privileges (no_new_privs): {error}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(config) => serve::run(*config).await,
            Command::Migrate(place) => serve::migrate(place).await,
            Command::Openapi => {
                print(&openapi());
                Ok(())
            }
        }
    });
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

/// For people and scripts: standard output.
/// When nobody reads it any more, that is no reason to stop.
pub(crate) fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

fn fail(sentence: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "howdah: {sentence}");
    ExitCode::FAILURE
}
