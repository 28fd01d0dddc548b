//! `howdah login`, `logout`, `whoami`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::failure::Failure;
use super::output::Output;
use super::session::{self, Options, Session};
use super::table::Cell;
use super::{prompt, saved};
use crate::client::Address;

/// Log in to a server and save the login
///
/// Prompts for a token, or reads it from --token-file, HOWDAH_TOKEN or standard input. Checks the
/// token and saves it in a file that only you can read. A token cannot be given on the command line,
/// where other users of the machine could see it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah login --url https://howdah.example.com
  howdah login --url https://howdah.example.com --token-file - < token
  howdah login --data-dir /var/lib/howdah

Commands use the first server and token found in:
  1. --url and --token-file
  2. HOWDAH_URL and HOWDAH_TOKEN
  3. the saved login: $XDG_CONFIG_HOME/howdah/login.json
     (~/.config/howdah/login.json)
  4. a server running on this machine, if you can read its data directory
     (HOWDAH_DATA_DIR, or the default of `howdah serve`): its address and its
     initial token
A saved or initial token is only sent to the server that it belongs to.")]
pub struct Login {
    /// Use the address and the initial token of the server with this data directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Remove the saved login
///
/// The token stays valid; to end it, use `howdah tokens revoke`.
#[derive(Args, Debug)]
pub struct Logout {}

/// Show the current server and identity
#[derive(Args, Debug)]
pub struct Whoami {}

impl Login {
    pub(super) async fn run(self, options: &Options, output: Output) -> Result<(), Failure> {
        let login = match &self.data_dir {
            Some(_) if options.url.is_some() || options.token_file.is_some() => {
                return Err(Failure::Usage("--data-dir cannot be combined with --url or --token-file".into()));
            }
            Some(directory) => session::local(Some(directory)).map_err(Failure::Failed)?.ok_or_else(|| {
                Failure::Failed(format!(
                    "no server is running on {}: the file run/addresses.json is missing",
                    directory.display()
                ))
            })?,
            None => {
                let address = match &options.url {
                    Some(url) => Address::parse(url).map_err(Failure::Usage)?,
                    None => session::usual_address()?,
                };
                let (token, source) = match session::given_token(options)? {
                    Some(given) => given,
                    None if prompt::is_possible() => {
                        (prompt::secret(&format!("Token for {address}")).await?, "the prompt".into())
                    }
                    None => (session::read_token("-".as_ref())?, "standard input".into()),
                };
                session::Login { address, token, source }
            }
        };
        let keep = login.clone();
        session::warn_if_exposed(&login.address, &output);
        let session = Session::with(login, output)?;
        let me = session.client.get(&["me"]).await?;
        let path = saved::write(&keep)?;
        if session.output.json() {
            session.output.value(&me);
        }
        session.output.say(&format!("Logged in to {} as {}.", session.client.address(), who(&me)));
        session.output.note(&format!("Saved the login in {}.", path.display()));
        Ok(())
    }
}

impl Logout {
    pub(super) fn run(self, output: &Output) -> Result<(), Failure> {
        output.say(match saved::remove()? {
            true => "Logged out. The token stays valid until it is revoked.",
            false => "There is no saved login.",
        });
        Ok(())
    }
}

impl Whoami {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let me = session.client.get(&["me"]).await?;
        if session.output.json() {
            session.output.value(&me);
            return Ok(());
        }
        let text = |value: &Value| Cell::maybe(value.as_str());
        let mut facts = vec![("Server", Cell::new(session.client.address().to_string()))];
        facts.extend(me["user"]["email"].as_str().map(|email| ("User", Cell::new(email))));
        facts.extend([
            ("Workspace", text(&me["workspace"]["name"])),
            ("Workspace ID", text(&me["workspace"]["id"])),
            ("Token", text(&me["credential"]["name"])),
            ("Token ID", text(&me["credential"]["id"])),
            ("Source", Cell::new(&session.source)),
        ]);
        session.output.details(facts);
        Ok(())
    }
}

fn who(me: &Value) -> String {
    let name = |value: &Value| value["name"].as_str().unwrap_or("(unnamed)").to_owned();
    format!("the token {} of the workspace {}", name(&me["credential"]), name(&me["workspace"]))
}
