//! Which Howdah a command asks, and as whom.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::failure::Failure;
use super::output::{Output, Tone};
use super::saved;
use super::table::Cell;
use crate::client::{self, Address, Client};
use base::clock::Clock;
use base::options;
use base::secret::Secret;

/// What every command of the client takes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The URL of the server [default: that of the saved login, or of a server on this machine]
    #[arg(long, env = "HOWDAH_URL", hide_env_values = true, value_name = "URL", global = true, help_heading = HEADING)]
    pub(super) url: Option<String>,

    /// A file with the token, `-` for standard input [default: HOWDAH_TOKEN or `howdah login`]
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    pub(super) token_file: Option<PathBuf>,

    /// Print JSON: the `data` of the API, lists as one array, errors on standard error
    #[arg(long, global = true, help_heading = HEADING)]
    pub(super) json: bool,
}

const HEADING: &str = "Common options";

/// The most that a token's file may hold: more than any token.
const LARGEST_TOKEN: u64 = 16 * 1024;

/// Who asks whom, and where that comes from.
#[derive(Clone)]
pub(crate) struct Login {
    pub(super) address: Address,
    pub(super) token: Secret,
    /// For people: what names the token.
    pub(super) source: String,
}

/// What a command works with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) output: Output,
    pub(super) clock: Clock,
    /// For people: what names the token.
    pub(super) source: String,
}

impl Session {
    /// Finds out who asks whom. Asks nobody yet.
    pub(super) fn open(options: &Options, output: Output) -> Result<Self, Failure> {
        Self::with(login(options)?, output)
    }

    /// One for a login that is known.
    pub(super) fn with(login: Login, output: Output) -> Result<Self, Failure> {
        let client = Client::new(login.address, Some(login.token), on_retry(&output))?;
        Ok(Self { client, output, clock: Clock::system(), source: login.source })
    }

    /// The time now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The workspace that the token reaches.
    pub(super) async fn workspace(&self) -> Result<String, Failure> {
        let me = self.client.get(&["me"]).await?;
        let id = me["workspace"]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| Failure::Failed("the token can access no workspace".into()))
    }
}

/// What a client of these commands does when it tries again: for people, it says so.
pub(super) fn on_retry(output: &Output) -> fn(&client::Failure, Duration) {
    if output.json() { |_, _| {} } else { say_retry }
}

/// Short waits are not worth a line.
fn say_retry(failure: &client::Failure, wait: Duration) {
    if wait >= Duration::from_secs(1) {
        let output = Output::detect(false);
        output.note(&format!("{failure}; retrying in {} s", wait.as_secs()));
    }
}

/// Who asks whom: what the command line and the environment say comes first, then the saved login,
/// then a Howdah on this machine. A token that was saved for one address goes to no other.
fn login(options: &Options) -> Result<Login, Failure> {
    let address = options.url.as_deref().map(Address::parse).transpose().map_err(Failure::Usage)?;
    if let Some((token, source)) = given_token(options)? {
        let address = match address {
            Some(address) => address,
            None => usual_address()?,
        };
        return Ok(Login { address, token, source });
    }
    if let Some(saved) = saved::read()?.filter(|saved| address.as_ref().is_none_or(|address| *address == saved.address))
    {
        return Ok(saved);
    }
    let unknown = |why: &str| {
        let to = address.as_ref().map_or(String::new(), |address| format!(" to {address}"));
        Failure::NotLoggedIn(format!("not logged in{to}{why}"))
    };
    match local(None) {
        Ok(Some(local)) if address.as_ref().is_none_or(|address| *address == local.address) => Ok(local),
        Ok(_) => Err(unknown("")),
        Err(reason) => Err(unknown(&format!(", and {reason}"))),
    }
}

/// The address when none is given: that of the saved login, of a Howdah on this machine, or the one
/// that `howdah serve` takes when it is told none.
pub(super) fn usual_address() -> Result<Address, Failure> {
    if let Some(saved) = saved::read()? {
        return Ok(saved.address);
    }
    match local_address(&data_directory(None).map_err(Failure::Failed)?) {
        Ok(Some(address)) => Ok(address),
        Ok(None) | Err(_) => Address::parse("http://127.0.0.1:8080").map_err(Failure::Failed),
    }
}

/// The token that the command line or the environment gives, and what to call it.
pub(super) fn given_token(options: &Options) -> Result<Option<(Secret, String)>, Failure> {
    if let Some(file) = &options.token_file {
        let source = if is_stdin(file) { "standard input".into() } else { file.display().to_string() };
        return Ok(Some((read_token(file)?, source)));
    }
    match std::env::var("HOWDAH_TOKEN") {
        Ok(token) if !token.trim().is_empty() => Ok(Some((Secret::new(token.trim()), "HOWDAH_TOKEN".into()))),
        _ => Ok(None),
    }
}

/// A token out of a file; `-` is standard input.
pub(super) fn read_token(file: &Path) -> Result<Secret, Failure> {
    let name = if is_stdin(file) { "standard input".into() } else { file.display().to_string() };
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = if is_stdin(file) {
        std::io::stdin().lock().take(LARGEST_TOKEN).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LARGEST_TOKEN).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Usage(format!("cannot read a token from {name}: {error}")))?;
    match text.trim() {
        "" => Err(Failure::Usage(format!("{name} contains no token"))),
        token if token.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Err(Failure::Usage(format!("{name} contains no valid token: a token is one word")))
        }
        token => Ok(Secret::new(token)),
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// The Howdah that serves from a directory of this machine, with its first token. `None` when there
/// is none; a sentence when it cannot be used.
pub(super) fn local(directory: Option<&Path>) -> Result<Option<Login>, String> {
    let directory = data_directory(directory)?;
    let Some(address) = local_address(&directory)? else { return Ok(None) };
    let file = directory.join("initial-token");
    let token = read_token(&file).map_err(|failure| failure.to_string())?;
    Ok(Some(Login { address, token, source: file.display().to_string() }))
}

pub(super) fn data_directory(chosen: Option<&Path>) -> Result<PathBuf, String> {
    let usual = std::env::var_os("HOWDAH_DATA_DIR").map(PathBuf::from);
    options::data_directory(chosen.or(usual.as_deref()))
}

fn local_address(directory: &Path) -> Result<Option<Address>, String> {
    let file = directory.join("run/addresses.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
    };
    let addresses: Value = serde_json::from_str(&text).unwrap_or_default();
    let listening = addresses["http"].as_str().and_then(|text| text.parse::<std::net::SocketAddr>().ok());
    let Some(mut listening) = listening else { return Err(format!("{} is damaged", file.display())) };
    if listening.ip().is_unspecified() {
        listening.set_ip(match listening {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Address::parse(&format!("http://{listening}")).map(Some)
}

/// Beside the result: that a token can be read on its way.
pub(super) fn warn_if_exposed(address: &Address, output: &Output) {
    if address.is_exposed() && !output.json() {
        let warning = format!("{address} is not encrypted: the token can be read in transit; use https");
        output.complain(&output.beside(Cell::new("warning:").with(Tone::Pending), vec![warning]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_howdah_is_found_by_the_address_that_it_wrote() {
        let directory = tempfile::tempdir().unwrap();
        assert!(local(Some(directory.path())).unwrap().is_none());
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("run/addresses.json", r#"{"http":"0.0.0.0:8080","gateway":"127.0.0.1:7432"}"#);
        assert!(local(Some(directory.path())).err().unwrap().contains("initial-token"));
        write("initial-token", "a.b.c\n");
        let found = local(Some(directory.path())).unwrap().unwrap();
        assert_eq!((found.address.to_string(), found.token.expose()), ("http://127.0.0.1:8080".into(), "a.b.c"));
        write("run/addresses.json", r#"{"http":"[::]:1"}"#);
        assert_eq!(local(Some(directory.path())).unwrap().unwrap().address.to_string(), "http://[::1]:1");
        write("run/addresses.json", "nonsense");
        assert!(local(Some(directory.path())).err().unwrap().contains("damaged"));
    }

    #[test]
    fn a_token_is_one_word() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        for (text, good) in [("a.b.c\n", true), ("  a.b.c", true), ("", false), ("\n", false), ("a b", false)] {
            std::fs::write(&file, text).unwrap();
            let read = read_token(&file);
            assert_eq!(read.is_ok(), good, "{text:?}");
            if let Ok(token) = read {
                assert_eq!(token.expose(), "a.b.c");
            }
        }
        assert!(matches!(read_token(&directory.path().join("none")), Err(Failure::Usage(_))));
    }
}
