//! The first page of help: which commands there are, in groups.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use cli::EXIT_CODES;

/// The groups; what is in none stands in the last one.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Server", &["serve", "recover", "migrate", "issue-token", "openapi"]),
    ("Authentication", &["login", "logout", "whoami"]),
    (
        "Resources",
        &[
            "projects",
            "databases",
            "backups",
            "branches",
            "connections",
            "ca",
            "tokens",
            "operations",
            "audit",
            "workspaces",
            "regions",
        ],
    ),
    ("Other", &["completions"]),
];

/// The commands that ask no Howdah, and so take no options of the client's.
pub(super) const PLATFORM: [&str; 6] = ["serve", "recover", "migrate", "issue-token", "openapi", "completions"];

const EXAMPLES: &str = "\
Examples:
  howdah serve                              run the server on this machine
  howdah projects create my_project         create a project with a database
  howdah databases psql my_project          open psql on the database
  howdah login --url https://howdah.example.com
                                            log in to a remote server

Resources can be given by ID or, if it is unique, by their exact name.
Lists are complete unless --limit is given. With --json, results and errors are
JSON. See `howdah login --help` for how the server and the token are chosen.

Exit codes of client commands:";

/// An option of the client's on the command line, wherever it stands there.
pub(super) fn given(matches: &ArgMatches) -> Option<&'static str> {
    let is_given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
    [("url", "url"), ("token_file", "token-file"), ("json", "json")]
        .into_iter()
        .find_map(|(id, name)| is_given(&id).then_some(name))
}

/// The command with its first page of help in groups. The client's options, which may stand anywhere, are
/// not in the help of commands that do not take them.
pub(super) fn arrange(command: Command) -> Command {
    let common: Vec<Arg> =
        command.get_arguments().filter(|a| a.is_global_set()).map(|a| a.clone().hide(true)).collect();
    let command =
        PLATFORM.into_iter().fold(command, |all, name| all.mut_subcommand(name, |verb| verb.args(common.clone())));
    let heading = command.get_styles().get_header().to_owned();
    let literal = command.get_styles().get_literal().to_owned();
    let mut template = format!("{{about-with-newline}}\n{heading}Usage:{heading:#} {{usage}}\n");
    for (at, (title, names)) in GROUPS.iter().enumerate() {
        template.push_str(&format!("\n{heading}{title}:{heading:#}\n"));
        let is_last = at + 1 == GROUPS.len();
        let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
        let here = |name: &str| names.contains(&name) || (is_last && !grouped(name));
        for verb in command.get_subcommands().filter(|verb| here(verb.get_name())) {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            template.push_str(&format!("  {literal}{:<12}{literal:#} {about}\n", verb.get_name()));
        }
    }
    template.push_str(&format!("\n{heading}Options:{heading:#}\n{{options}}{{after-help}}"));
    command.help_template(template).after_help(format!("{EXAMPLES}\n{EXIT_CODES}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command below this one, each with its own name in front.
    fn walk(command: &Command, path: &str, visit: &mut impl FnMut(&str, &Command)) {
        let path = format!("{path} {}", command.get_name());
        visit(&path, command);
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            walk(verb, &path, visit);
        }
    }

    #[test]
    fn everything_is_explained_in_lines_that_a_terminal_has() {
        let command = arrange(<super::super::Cli as clap::CommandFactory>::command());
        walk(&command, "", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} of {path} has no description", argument.get_id());
            }
            // Examples of the platform's commands are longer than a line, as those commands are.
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let long = after.lines().find(|line| line.chars().count() > 80 && !line.contains("howdah serve"));
            assert_eq!(long, None, "the help of {path} breaks a line of its own");
        });
    }

    #[test]
    fn every_command_that_is_grouped_exists() {
        let command = <super::super::Cli as clap::CommandFactory>::command();
        for name in GROUPS.iter().flat_map(|(_, names)| *names) {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
        command.debug_assert();
    }
}
