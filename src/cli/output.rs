//! What is printed where: results on standard output, everything about them on standard error;
//! for people, or with `--json` for programs.

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::Value;

use super::noun::Noun;
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
    /// What to look at.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Good => style.fg_color(Some(AnsiColor::Green.into())),
            Self::Pending => style.fg_color(Some(AnsiColor::Yellow.into())),
            Self::Bad => style.fg_color(Some(AnsiColor::Red.into())).bold(),
            Self::Faint => style.dimmed(),
            Self::Strong => style.bold(),
        }
    }
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
        let plain = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colours = !plain("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        Self {
            json,
            stdout: Look {
                colours: colours && stdout.is_terminal(),
                width: rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0),
            },
            stderr: Look { colours: colours && stderr.is_terminal(), width: None },
        }
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
    pub(super) fn list<N: Noun>(&self, values: &[Value], now: Timestamp) -> Result<(), super::failure::Failure> {
        if self.json {
            print(&format!("{:#}\n", Value::from(values.to_vec())));
            return Ok(());
        }
        let things = values.iter().map(super::noun::read::<N>).collect::<Result<Vec<N>, _>>()?;
        if things.is_empty() {
            self.complain(&format!("There are no {}.\n", N::PLURAL));
            return Ok(());
        }
        let rows = things.iter().map(|thing| thing.cells(now)).collect();
        print(&table::list(N::COLUMNS, rows, self.stdout));
        Ok(())
    }

    /// One thing.
    pub(super) fn one<N: Noun>(&self, value: &Value, now: Timestamp) -> Result<(), super::failure::Failure> {
        if self.json {
            self.value(value);
            return Ok(());
        }
        self.details(super::noun::read::<N>(value)?.details(now));
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
            let Look { colours, .. } = self.stdout;
            print(&format!("\n{}\n\n{}\n\n", paint(colours, Tone::Strong, &plain(sentence)), plain(secret)));
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

    /// A text for standard error as it looks there.
    pub(super) fn on_stderr(&self, tone: Tone, text: &str) -> String {
        paint(self.stderr.colours, tone, text)
    }
}

/// For people and scripts: standard output.
/// When nobody reads it any more, that is no reason to stop.
pub(crate) fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// A text as a terminal may show it: names come from other people, and a control character in one
/// would command the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

pub(super) fn paint(colours: bool, tone: Tone, text: &str) -> String {
    if !colours {
        return text.to_owned();
    }
    let style = tone.style();
    format!("{style}{text}{style:#}")
}
