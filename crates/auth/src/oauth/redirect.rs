//! Where an authorization may be answered: the addresses that an application has registered, compared
//! letter by letter (RFC 9700, section 4.1.3), with two exceptions that clients need.

use std::fmt;

use url::{Host, Url, form_urlencoded};

use base::error::{Error, Result};

/// The longest address, in bytes.
const LONGEST: usize = 2000;
/// What an answer adds to the address; nobody else may.
const OURS: [&str; 6] = ["code", "state", "iss", "error", "error_description", "error_uri"];

/// An address that an application has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri(String);

impl RedirectUri {
    /// Reads one: `https`, or `http` on this machine itself, or a private scheme of a native
    /// application, which is a domain name backwards (RFC 8252, section 7.1).
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(
                format!("redirectUris: {what}: {}", text.chars().take(100).collect::<String>()),
                "Give an https URL, a URL that begins with http://localhost, http://127.0.0.1 or http://[::1], or a private \
                 scheme such as com.example.app:/callback; without a fragment, a user name or spaces.",
            )
        };
        if text.len() > LONGEST {
            return Err(wrong("the URI is too long"));
        }
        let url = parse(text).ok_or_else(|| wrong("not a valid redirect URI"))?;
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            "http" => return Err(wrong("http is only allowed for loopback addresses")),
            private if private.contains('.') => {}
            _ => return Err(wrong("a private scheme must be a reversed domain name")),
        }
        Ok(Self(text.to_owned()))
    }

    /// What was stored; it was read by [`RedirectUri::parse`] once, or is built in.
    pub(super) fn stored(text: String) -> Self {
        Self(text)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an authorization that asks to be answered there may be. Besides the same address: any port
    /// of the user's own machine, since a native application takes what is free (RFC 8252, section 7.3);
    /// and, where a secret is needed to use the code, an address with more in its query.
    pub(super) fn admits(&self, asked: &str, is_confidential: bool) -> bool {
        if parse(asked).is_none() {
            return false;
        }
        asked == self.0 || self.is_on_another_port(asked) || is_confidential && self.is_extended(asked)
    }

    fn is_on_another_port(&self, asked: &str) -> bool {
        parse(&self.0).is_some_and(|own| is_loopback(&own)) && without_port(&self.0) == without_port(asked)
    }

    fn is_extended(&self, asked: &str) -> bool {
        let separator = if self.0.contains('?') { '&' } else { '?' };
        let Some(added) = asked.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix(separator)) else {
            return false;
        };
        form_urlencoded::parse(added.as_bytes()).all(|(name, _)| !OURS.contains(&name.as_ref()))
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address that means the same to everybody who reads it. Browsers take a backslash for a slash and
/// leave out blanks.
fn parse(text: &str) -> Option<Url> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#<>\"".contains(&byte));
    let url = Url::parse(text).ok().filter(|_| is_plain)?;
    let is_of_nobody = url.username().is_empty() && url.password().is_none();
    let is_web = matches!(url.scheme(), "http" | "https");
    // The scheme as it is written, and two slashes: `https:host` is read in two ways.
    let is_whole = !is_web || text.starts_with(&format!("{}://", url.scheme())) && url.host().is_some();
    (is_of_nobody && is_whole).then_some(url)
}

/// What stands before the port of an address that [`parse`] has read, and what stands behind it.
fn without_port(text: &str) -> (&str, &str) {
    let host = text.find("://").map_or(0, |at| at + 3);
    let end = text.get(host..).and_then(|rest| rest.find(['/', '?'])).map_or(text.len(), |length| host + length);
    let (before, after) = text.split_at(end);
    match before.rsplit_once(':') {
        Some((head, port)) if head.len() >= host && port.bytes().all(|byte| byte.is_ascii_digit()) => (head, after),
        _ => (before, after),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_addresses_are_registered() {
        for good in [
            "https://app.example.com/callback",
            "https://app.example.com:8443/callback?tenant=1",
            "http://localhost/auth/callback",
            "http://127.0.0.1:4711/",
            "http://[::1]:4711/callback",
            "com.example.app:/callback",
        ] {
            assert_eq!(RedirectUri::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "/callback",
            "callback",
            "http://app.example.com/callback",
            "http://localhost.example.com/",
            "https://app.example.com/#fragment",
            "https://user@app.example.com/",
            "https://user:password@app.example.com/",
            "https://app.example.com/ ",
            "https://app.example.com/\n",
            "https:app.example.com",
            "https:/app.example.com",
            "https://app.example.com\\@evil.example",
            "javascript:alert(1)",
            "data:text/html,hello",
            "file:///etc/passwd",
            "myapp:/callback",
            &format!("https://app.example.com/{}", "a".repeat(2000)),
        ] {
            assert!(RedirectUri::parse(bad).is_err(), "{bad}");
        }
    }

    fn admits(registered: &str, asked: &str, is_confidential: bool) -> bool {
        RedirectUri::parse(registered).unwrap().admits(asked, is_confidential)
    }

    #[test]
    fn an_answer_goes_to_the_registered_address_and_nowhere_else() {
        let registered = "https://app.example.com/callback";
        assert!(admits(registered, registered, false));
        for other in [
            "https://app.example.com/callback/",
            "https://app.example.com/callback/../evil",
            "https://app.example.com/Callback",
            "https://APP.example.com/callback",
            "https://app.example.com:8443/callback",
            "https://app.example.com:443/callback",
            "http://app.example.com/callback",
            "https://app.example.com/callback#fragment",
            "https://app.example.com.evil.example/callback",
            "https://app.example.com@evil.example/callback",
            "https://evil.example/?https://app.example.com/callback",
            "https://app.example.com/callback\\",
            "",
        ] {
            assert!(!admits(registered, other, false) && !admits(registered, other, true), "{other}");
        }
        assert!(!admits("https://app.example.com", "https://app.example.com.evil.example", true));
    }

    #[test]
    fn the_users_own_machine_may_be_on_any_port() {
        for (registered, host) in [
            ("http://localhost/callback", "localhost"),
            ("http://127.0.0.1:1/callback", "127.0.0.1"),
            ("http://[::1]/callback", "[::1]"),
        ] {
            for port in ["", ":80", ":4711"] {
                assert!(admits(registered, &format!("http://{host}{port}/callback"), false));
            }
            for other in ["/other", "/callback?x=1", "/callback/", "/x/../callback", "@evil.example/callback"] {
                assert!(!admits(registered, &format!("http://{host}:4711{other}"), false), "{other}");
            }
            for same in ["http://LOCALHOST/callback", "http://127.1/callback", "http://[0:0::1]/callback"] {
                assert!(!admits(registered, same, false), "{same} is written in another way");
            }
            assert!(!admits(registered, "http://127.0.0.2/callback", false));
            assert!(!admits(registered, "http://evil.example/callback", false));
            assert!(!admits(registered, &format!("https://{host}:4711/callback"), false));
        }
    }

    #[test]
    fn a_confidential_application_may_add_to_the_query() {
        let registered = "https://app.example.com/callback";
        assert!(admits(registered, "https://app.example.com/callback?project=1&x=2", true));
        assert!(!admits(registered, "https://app.example.com/callback?project=1", false));
        assert!(admits("https://app.example.com/callback?a=1", "https://app.example.com/callback?a=1&b=2", true));
        for other in [
            "https://app.example.com/callback?a=1&code=mine",
            "https://app.example.com/callback?st%61te=mine",
            "https://app.example.com/callback&a=1",
            "https://app.example.com/callbacks?a=1",
            "https://app.example.com/callback?a#b",
        ] {
            assert!(!admits(registered, other, true), "{other}");
        }
    }
}
