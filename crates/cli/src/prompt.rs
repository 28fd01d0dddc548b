//! Questions to people at a terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::failure::Failure;
use super::output::plain;
use super::wait::interrupted;
use base::secret::Secret;

/// Whether somebody is there to answer.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Goes on if the answer is yes. Without somebody to ask it takes `yes` beforehand.
pub(super) async fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_possible() {
        return Err(Failure::Usage("not a terminal; pass --yes to confirm".into()));
    }
    match ask(&format!("{} [y/N] ", plain(question)), true).await?.expose().trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("not confirmed; nothing was changed".into())),
    }
}

/// Goes on if the answer is this name: for what cannot be taken back. Without somebody to ask it takes `yes`
/// beforehand.
pub(super) async fn confirm_by_name(yes: bool, warning: &str, name: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !is_possible() {
        return Err(Failure::Usage("not a terminal; pass --yes to confirm".into()));
    }
    let question = format!("{}\nType {} to continue: ", plain(warning), plain(name));
    match ask(&question, true).await?.expose().trim() {
        typed if typed == name.trim() => Ok(()),
        _ => Err(Failure::Failed("not confirmed; nothing was changed".into())),
    }
}

/// A secret that is typed or pasted, and not shown.
pub(super) async fn secret(what: &str) -> Result<Secret, Failure> {
    let answer = ask(&format!("{} (not shown): ", plain(what)), false).await?;
    match answer.expose().trim() {
        "" => Err(Failure::Usage("no token was given".into())),
        text => Ok(Secret::new(text)),
    }
}

async fn ask(question: &str, echo: bool) -> Result<Secret, Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("cannot read the answer: {error}"));
    let mut stderr = std::io::stderr();
    // Before the question: whoever answers at once is not shown either.
    let quiet = if echo { None } else { Some(Quiet::begin().map_err(failed)?) };
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let line = tokio::task::spawn_blocking(|| {
        let mut line = zeroize::Zeroizing::new(String::new());
        std::io::stdin().lock().read_line(&mut line).map(|_| Secret::new(line.as_str()))
    });
    // Ctrl-C would otherwise end the program before the terminal is as it was.
    let answer = tokio::select! {
        answer = line => answer.map_err(|error| failed(error.into()))?.map_err(failed),
        () = interrupted() => Err(Failure::Interrupted),
    };
    if quiet.is_some() || answer.is_err() {
        let _ = stderr.write_all(b"\n");
    }
    answer
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
