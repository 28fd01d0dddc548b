//! What a start prints: where Howdah is reached, and what to do first.

use std::fmt::Write as _;
use std::net::SocketAddr;

use url::Url;

use super::directory::DataDirectory;
use base::network::is_this_machine;
use base::secret::Secret;
use domain::app::PublicAddresses;

/// The port that clients take when they are given none.
const USUAL_PORT: u16 = 5432;

/// Where this Howdah is, for who has started it.
pub(super) struct Banner<'a> {
    pub(super) public: &'a PublicAddresses,
    pub(super) metrics: Option<String>,
    /// Clients need Howdah's CA certificate to verify the gateway.
    pub(super) needs_ca: bool,
    pub(super) directory: &'a DataDirectory,
    /// The data directory was made by this start.
    pub(super) is_first: bool,
    /// The link for the first account, while there is none.
    pub(super) set_up: Option<&'a Secret>,
}

impl Banner<'_> {
    /// The text. Every address is the public one: it is what works from elsewhere, too.
    pub(super) fn text(&self) -> String {
        let PublicAddresses { api, gateway_host, gateway_port, .. } = self.public;
        let host = if gateway_host.contains(':') { format!("[{gateway_host}]") } else { gateway_host.clone() };
        let mut text = format!(
            "Howdah is ready.\n\n  API       {api}\n  Gateway   {host}:{gateway_port}\n  Data      {}\n",
            self.directory.path().display()
        );
        if let Some(metrics) = &self.metrics {
            let _ = writeln!(text, "  Metrics   http://{metrics}/metrics");
        }
        text.push_str(&elsewhere(self.public, self.needs_ca));
        if self.is_first {
            let _ = write!(
                text,
                "  Token     in {token}\n  Key       in {key}: keep a copy on another machine;\n            \
                 without it, no backup can be decrypted (docs/recovery.md)\n\nCreate a database:\n\n  \
                 curl -X POST {api}/v1/projects \\\n       \
                 -H \"Authorization: Bearer $(cat {token})\" \\\n       \
                 -H 'Content-Type: application/json' \\\n       \
                 -d '{{\"name\":\"my_project\",\"region\":\"us-east-1\"}}'\n",
                token = self.directory.path().join("initial-token").display(),
                key = self.directory.master_key_file().display()
            );
        }
        if let Some(link) = self.set_up {
            let link = link.expose();
            let _ = write!(text, "\nThere is no account yet. Create the administrator's account at:\n\n  {link}\n");
        }
        text.push('\n');
        text
    }
}

/// What clients on other machines need to know.
fn elsewhere(public: &PublicAddresses, needs_ca: bool) -> String {
    let PublicAddresses { api, gateway_host, gateway_port, .. } = public;
    let mut lines = String::new();
    if is_this_machine(gateway_host) {
        return lines;
    }
    if needs_ca {
        let _ = writeln!(
            lines,
            "  CA        {api}/v1/ca.pem, for clients that verify certificates (docs/connecting.md); or use --tls-cert"
        );
    }
    if *gateway_port != USUAL_PORT {
        let _ = writeln!(
            lines,
            "  Port      {gateway_port}; tools that take a host without a port use {USUAL_PORT} (docs/connecting.md)"
        );
    }
    lines
}

/// Warns when tokens and passwords cross a network unencrypted.
pub(super) fn warn_of_plain_http(listening: SocketAddr, public: &str) {
    let public_is_here = Url::parse(public).is_ok_and(|url| url.host_str().is_some_and(is_this_machine));
    let stays_here = listening.ip().is_loopback() && public_is_here;
    if !stays_here && !public.starts_with("https://") {
        tracing::warn!(
            url = public,
            listening = %listening,
            "the API and the console are served over plain HTTP: anyone on the network can read tokens and passwords; \
             see docs/https.md to set up HTTPS"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_elsewhere_are_told_what_they_need() {
        let lines = |host: &str, port, needs_ca| {
            let (api, auth) = ("http://howdah.example.com:8080".to_owned(), String::new());
            elsewhere(&PublicAddresses { api, auth, gateway_host: host.into(), gateway_port: port }, needs_ca)
        };
        assert_eq!(lines("127.0.0.1", 7432, true), "");
        assert_eq!(lines("db.example.com", 5432, false), "");
        let ca = lines("db.example.com", 5432, true);
        assert!(ca.contains("http://howdah.example.com:8080/v1/ca.pem") && ca.contains("--tls-cert"), "{ca}");
        let port = lines("db.example.com", 7432, false);
        assert!(port.contains("7432") && port.contains("5432") && !port.contains("CA"), "{port}");
    }
}
