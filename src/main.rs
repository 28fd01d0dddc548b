//! The `howdah` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    howdah::commands::main()
}
