//! What is printed where: results on standard output, everything about them on standard error;
//! for people, or with `--json` for programs.

use std::io::Write as _;
use std::os::fd::AsFd;

use jiff::Timestamp;
use rustix::termios::{isatty, tcgetwinsize};
use serde_json::Value;

use super::failure::Failure;
use super::noun::{Listed, Shown, read};
use super::table::{self, Cell, Look};

/// How something looks, where there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    /// Like any text.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Under way.
    Pending,
    /// Not as it should be.
    Bad,
    /// What stands beside the matter.
    Faint,
}

/// Where a command prints to, and how.
pub(super) struct Output {
    json: bool,
    stdout: Look,
    stderr: Look,
}

impl Output {
    /// As the terminal, or what stands in its place, can take it.
    pub(super) fn detect(json: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let look = |stream: &dyn AsFd| Look {
            colours: colours && isatty(stream.as_fd()),
            width: tcgetwinsize(stream.as_fd()).ok().map(|size| size.ws_col).filter(|width| *width > 0),
        };
        Self { json, stdout: look(&std::io::stdout()), stderr: look(&std::io::stderr()) }
    }

    /// Whether programs read it.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// For programs: a value, whole.
    pub(super) fn value(&self, value: &Value) {
        print(&format!("{value:#}\n"));
    }

    /// A list of things.
    pub(super) fn list<N: Listed>(&self, values: &[Value], now: Timestamp) -> Result<(), Failure> {
        if self.json {
            print(&format!("{:#}\n", Value::from(values.to_vec())));
            return Ok(());
        }
        let things = values.iter().map(read::<N>).collect::<Result<Vec<N>, _>>()?;
        if things.is_empty() {
            self.complain(&format!("There are no {}.\n", N::PLURAL));
            return Ok(());
        }
        let rows = things.iter().map(|thing| thing.cells(now)).collect();
        print(&table::list(N::COLUMNS, rows, self.stdout));
        Ok(())
    }

    /// One thing.
    pub(super) fn one<N: Shown>(&self, value: &Value, now: Timestamp) -> Result<(), Failure> {
        if self.json {
            self.value(value);
            return Ok(());
        }
        self.details(read::<N>(value)?.details(now));
        Ok(())
    }

    /// For people: facts about one thing, a line each.
    pub(super) fn details(&self, facts: Vec<(&'static str, Cell)>) {
        print(&table::facts(facts, self.stdout));
    }

    /// For people: what was done.
    pub(super) fn say(&self, sentence: &str) {
        if !self.json {
            print(&format!("{}\n", plain(sentence)));
        }
    }

    /// For people: a secret that is not shown again, under the sentence that says so. It has a line of
    /// its own and nothing around it, to be copied.
    pub(super) fn secret(&self, sentence: &str, secret: &str) {
        if !self.json {
            let (bold, off) = if self.stdout.colours { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
            print(&format!("\n{bold}{}{off}\n\n{}\n\n", plain(sentence), plain(secret)));
        }
    }

    /// Beside the result, on standard error.
    pub(super) fn complain(&self, text: &str) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// Beside the result and for people only: something to know.
    pub(super) fn note(&self, sentence: &str) {
        if !self.json {
            self.complain(&format!("{}\n", plain(sentence)));
        }
    }

    /// Lines for standard error, beside what they are.
    pub(super) fn beside(&self, title: Cell, lines: Vec<String>) -> String {
        table::beside(title, lines, self.stderr)
    }
}

/// For people and scripts: standard output.
/// When nobody reads it any more, that is no reason to stop.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// A text as a terminal may show it: names come from other people, and a control character in one
/// would command the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
