//! `howdah ca`

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::output::{Output, Tone, print};
use super::session::{self, Options};
use super::table::Cell;
use crate::client::{Address, Client};

const EXAMPLES: &str = "\
Examples:
  howdah ca > howdah-ca.pem
  howdah ca --url https://howdah.example.com > howdah-ca.pem
  psql \"$DATABASE_URL&sslrootcert=howdah-ca.pem\"
  NODE_EXTRA_CA_CERTS=howdah-ca.pem node app.js

See docs/connecting.md for the settings of each driver. Needs no login.";

/// Print the CA certificate of the gateway
///
/// Database clients use it to verify the gateway. Prints PEM. Fails if the operator configured a
/// certificate for the gateway (--tls-cert).
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Ca {}

impl Ca {
    pub(super) async fn run(self, options: &Options, output: Output) -> Result<(), Failure> {
        let address = match &options.url {
            Some(url) => Address::parse(url).map_err(Failure::Usage)?,
            None => session::usual_address()?,
        };
        let exposed = address.is_exposed().then(|| address.to_string());
        let client = Client::new(address, None, session::on_retry(&output))?;
        let pem = client.get_file(&["ca.pem"]).await?;
        if output.json() {
            output.value(&json!(pem));
            return Ok(());
        }
        if let Some(address) = exposed {
            let warning = format!("{address} is not encrypted: the certificate may have been replaced in transit");
            output.complain(&output.beside(Cell::new("warning:").with(Tone::Pending), vec![warning]));
        }
        print(&pem);
        Ok(())
    }
}
