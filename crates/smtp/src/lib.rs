//! Sends mail through the operator's submission server (RFC 6409) by SMTP (RFC 5321). That server delivers it;
//! the caller retries what it does not accept.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Body, Mailbox};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use base::error::describe;
use base::id::MailId;
use base::secret::Secret;

/// The time limit for one mail, including the connection.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer replies of the server are cut, in characters.
const LONGEST_REPLY: usize = 400;
/// Replies that refuse the login, whatever the mail (RFC 4954, section 6).
const NOT_LET_IN: [&str; 4] = ["530", "534", "535", "538"];

/// The mail server and how to connect to it.
#[derive(Debug)]
pub struct Server {
    /// The name or address, without brackets.
    pub host: String,
    pub port: u16,
    pub protection: Protection,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// Certificate authorities to trust, in PEM, instead of the system's.
    pub authorities: Option<Vec<u8>>,
}

/// The encryption of the connection to the mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS from the start (RFC 8314).
    Tls,
    /// TLS after `STARTTLS` (RFC 3207). Servers that do not offer it are not used.
    StartTls,
    /// None: for a server on this machine, or by the operator's choice.
    Nothing,
}

/// A plain-text mail to one recipient.
#[derive(Debug)]
pub struct Mail<'a> {
    /// The id. It becomes the `Message-ID`, so that a mail that is sent twice is recognized.
    pub id: MailId,
    /// The recipient's address.
    pub to: &'a str,
    pub subject: &'a str,
    /// The text, with lines of any length.
    pub text: &'a str,
    pub written_at: Timestamp,
}

/// Why a mail was not sent. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Permanent: the server refused this address or this mail.
    #[error("the mail server {server} refused the mail: {reason}")]
    Refused {
        server: String,
        /// The server's reply.
        reason: String,
    },
    /// The user name or the password is wrong or missing.
    #[error(
        "the mail server {server} refused the login: {reason}; check the user name in --smtp-url and HOWDAH_SMTP_PASSWORD"
    )]
    NotLetIn {
        server: String,
        /// The server's reply.
        reason: String,
    },
    /// Temporary: the server cannot be reached, or not securely.
    #[error("the mail server {server} is not usable: {reason}")]
    Unavailable { server: String, reason: String },
}

pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    server: String,
}

impl Mailer {
    /// A mailer for this server. `from` is a sender such as `Howdah <howdah@example.com>`; `own_host` is the name in
    /// the SMTP greeting. Does not connect yet.
    ///
    /// # Errors
    /// A message for the operator when `from` or the authorities are invalid.
    pub fn new(server: Server, from: &str, own_host: &str) -> Result<Self, String> {
        let from: Mailbox = from
            .parse()
            .map_err(|_| format!("--mail-from {from:?} is not a sender such as \"Howdah <howdah@example.com>\""))?;
        let tls = match server.protection {
            Protection::Nothing => Tls::None,
            Protection::Tls => Tls::Wrapper(parameters(&server)?),
            Protection::StartTls => Tls::Required(parameters(&server)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
            .port(server.port)
            .tls(tls)
            .timeout(Some(LIMIT))
            .hello_name(match own_host.trim_matches(['[', ']']).parse() {
                Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
                Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
                Err(_) => ClientId::Domain(own_host.to_owned()),
            });
        if let Some((user, password)) = server.login {
            builder = builder.credentials(Credentials::new(user, password.expose().to_owned()));
        }
        Ok(Self { transport: builder.build(), from, server: format!("{}:{}", server.host, server.port) })
    }

    /// Sends a mail. On success, the server is responsible for it.
    ///
    /// # Errors
    /// [`MailError::Refused`] when retrying cannot help.
    pub async fn send(&self, mail: &Mail<'_>) -> Result<(), MailError> {
        let message = self.message(mail)?;
        match tokio::time::timeout(LIMIT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(&error, mail.to.is_ascii())),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Connects and logs in, to check the configuration.
    ///
    /// # Errors
    /// Never [`MailError::Refused`].
    pub async fn check(&self) -> Result<(), MailError> {
        match tokio::time::timeout(LIMIT, self.transport.test_connection()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(&error, true)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// The message. Headers contain user-chosen names, so control characters are replaced: a line break would add
    /// headers.
    fn message(&self, mail: &Mail<'_>) -> Result<lettre::Message, MailError> {
        let refused = |reason: String| MailError::Refused { server: self.server.clone(), reason };
        let to: Address = mail.to.parse().map_err(|error| refused(format!("the address is not valid: {error}")))?;
        let subject: String =
            mail.subject.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let mut message = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(subject)
            .date(SystemTime::from(mail.written_at))
            .message_id(Some(format!("<{}@{}>", mail.id.bare(), self.from.email.domain())))
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(body(mail.text))
            .map_err(|error| refused(describe(&error)))?;
        // Tells auto-responders not to reply (RFC 3834, section 5).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }

    /// `is_plain`: the address is ASCII. Other addresses need an extension of the server (RFC 6531).
    fn error(&self, error: &lettre::transport::smtp::Error, is_plain: bool) -> MailError {
        let server = self.server.clone();
        let said = describe(error);
        let reason: String =
            said.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST_REPLY).collect();
        let code = error.status().map(|code| code.to_string()).unwrap_or_default();
        match () {
            () if NOT_LET_IN.contains(&code.as_str()) => MailError::NotLetIn { server, reason },
            () if error.is_permanent() || error.is_client() && !is_plain => MailError::Refused { server, reason },
            () => MailError::Unavailable { server, reason },
        }
    }

    fn too_slow(&self) -> MailError {
        let reason = format!("no response within {} seconds", LIMIT.as_secs());
        MailError::Unavailable { server: self.server.clone(), reason }
    }
}

/// The text with SMTP's line ends. ASCII is sent unencoded, so that links are readable in the raw mail; the
/// longest line is 998 octets (RFC 5322, section 2.1.1).
fn body(text: &str) -> Body {
    let is_text = |letter: char| !letter.is_control() || letter == '\t';
    let lines =
        text.lines().map(|line| line.chars().map(|letter| if is_text(letter) { letter } else { ' ' }).collect());
    let lines: Vec<String> = lines.collect();
    if lines.iter().all(|line| line.is_ascii() && line.len() <= 998) {
        let bytes = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"]).flatten().copied().collect();
        return Body::dangerous_pre_encoded(bytes, ContentTransferEncoding::SevenBit);
    }
    Body::new(format!("{}\n", lines.join("\n")))
}

fn parameters(server: &Server) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(pem) = &server.authorities {
        let found = Certificate::from_pem(pem).map_err(|_| "--smtp-ca-file has no certificate in PEM".to_owned())?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(found);
    }
    builder.build().map_err(|error| format!("TLS to the mail server cannot be set up: {}", describe(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailer(from: &str) -> Result<Mailer, String> {
        let (host, port, protection) = ("localhost".to_owned(), 25, Protection::StartTls);
        Mailer::new(Server { host, port, protection, login: None, authorities: None }, from, "howdah.example")
    }

    fn written(to: &str, subject: &str, text: &str) -> String {
        let written_at = Timestamp::from_second(1_700_000_000).unwrap();
        let mail = Mail { id: MailId::generate(written_at), to, subject, text, written_at };
        let mailer = mailer("Howdah <howdah@example.com>").unwrap();
        String::from_utf8(mailer.message(&mail).unwrap().formatted()).unwrap()
    }

    #[test]
    fn line_breaks_cannot_add_headers() {
        for hostile in
            ["a\r\nBcc: evil@example.com", "a\nBcc: evil@example.com\n\nHello", "a\rBcc: x", "é\r\nBcc: x@y.z"]
        {
            let mail = written("ada@example.com", hostile, "Text.\r\n.\r\nQUIT\r\n");
            let (head, _) = mail.split_once("\r\n\r\n").unwrap();
            assert!(!head.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{head}");
            assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head}");
            assert_eq!(head.matches("Auto-Submitted: auto-generated").count(), 1, "{head}");
            assert!(head.contains("Date: Tue, 14 Nov 2023 22:13:20"), "{head}");
        }
        for address in ["ada@example.com\r\nBcc: x@example.com", "a>b@example.com", "<ada@example.com>", "a@b,c@d.com"]
        {
            let written_at = Timestamp::UNIX_EPOCH;
            let mail = Mail { id: MailId::generate(written_at), to: address, subject: "a", text: "b", written_at };
            let refused = mailer("howdah@example.com").unwrap().message(&mail);
            assert!(matches!(refused, Err(MailError::Refused { .. })), "{address}");
        }
    }

    #[test]
    fn links_are_not_wrapped() {
        let link = format!("https://howdah.a-host-with-a-long-name.example/console/invitations/{}", "x".repeat(32));
        let mail = written("ada@example.com", "A link", &format!("Open\n\n{link}\n\n{}\n", "word ".repeat(40)));
        assert!(
            mail.contains("Content-Transfer-Encoding: 7bit\r\n") && mail.contains(&format!("\r\n{link}\r\n")),
            "{mail}"
        );
        for text in ["é\n", &"x".repeat(999), "a\rb\0c\n.\nd"] {
            let mail = written("ada@example.com", "Letters", text);
            assert!(mail.is_ascii() && mail.split("\r\n").all(|line| line.len() <= 998), "{mail}");
            assert!(!mail.replace("\r\n", "").contains(['\r', '\n', '\0']), "{mail}");
        }
    }

    #[test]
    fn sender_must_have_an_address() {
        assert!(mailer("howdah@example.com").is_ok());
        for wrong in ["", "Howdah", "Howdah <howdah>", "a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example"] {
            assert!(mailer(wrong).is_err_and(|said| said.contains("--mail-from")), "{wrong:?}");
        }
    }
}
