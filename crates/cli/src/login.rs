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

/// Save an address and a token for the commands that follow
///
/// Asks for the token without showing it, or reads it from --token-file, HOWDAH_TOKEN or standard
/// input; checks it; and saves it where only you can read it. A token is never given on the command
/// line: there everybody on the machine could see it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  howdah login --url https://howdah.example.com
  howdah login --url https://howdah.example.com --token-file - < token
  howdah login --data-dir /var/lib/howdah

Where a command takes address and token from, in this order:
  1. --url and --token-file
  2. HOWDAH_URL and HOWDAH_TOKEN
  3. the saved login: $XDG_CONFIG_HOME/howdah/login.json
     (~/.config/howdah/login.json)
  4. a Howdah that runs on this machine, if you can read its data directory
     (HOWDAH_DATA_DIR, or the default of `howdah serve`): its address and its
     initial token
A saved or initial token goes only to the address that it belongs to.")]
pub struct Login {
    /// Take address and initial token of the Howdah that serves from this directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Forget the saved login
///
/// The token itself stays good: `howdah tokens revoke` ends it.
#[derive(Args, Debug)]
pub struct Logout {}

/// Say which Howdah is asked, and as whom
#[derive(Args, Debug)]
pub struct Whoami {}

impl Login {
    pub(super) async fn run(self, options: &Options, output: Output) -> Result<(), Failure> {
        let login = match &self.data_dir {
            Some(_) if options.url.is_some() || options.token_file.is_some() => {
                return Err(Failure::Usage("--data-dir says where and who; leave --url and --token-file out".into()));
            }
            Some(directory) => session::local(Some(directory)).map_err(Failure::Failed)?.ok_or_else(|| {
                Failure::Failed(format!("no Howdah runs on {}: it has no run/addresses.json", directory.display()))
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
        session.output.note(&format!("Saved in {}.", path.display()));
        Ok(())
    }
}

impl Logout {
    pub(super) fn run(self, output: &Output) -> Result<(), Failure> {
        output.say(match saved::remove()? {
            true => "Logged out. The token itself stays good until it is revoked.",
            false => "There was no saved login.",
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
        let mut facts = vec![("Howdah", Cell::new(session.client.address().to_string()))];
        facts.extend(me["user"]["email"].as_str().map(|email| ("User", Cell::new(email))));
        facts.extend([
            ("Workspace", text(&me["workspace"]["name"])),
            ("Workspace id", text(&me["workspace"]["id"])),
            ("Token", text(&me["credential"]["name"])),
            ("Token id", text(&me["credential"]["id"])),
            ("Taken from", Cell::new(&session.source)),
        ]);
        session.output.details(facts);
        Ok(())
    }
}

fn who(me: &Value) -> String {
    let name = |value: &Value| value["name"].as_str().unwrap_or("without a name").to_owned();
    format!("the token {} of the workspace {}", name(&me["credential"]), name(&me["workspace"]))
}
