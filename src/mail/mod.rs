//! Handing mail to the operator's mail server, by SMTP (RFC 5321) as to a submission server (RFC
//! 6409). That server brings it to whoever it is for; what it does not take is the sender's to try
//! again. Knows no noun.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Body, Mailbox};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use crate::base::error::describe;
use crate::base::id::MailId;
use crate::base::secret::Secret;

/// How long the server may take for one mail, from the connection on. The largest is a page of text.
const LIMIT: Duration = Duration::from_secs(30);
/// More of what a server says is not repeated.
const LONGEST_REPLY: usize = 400;
/// Replies that say that the sender is not let in, whatever the mail (RFC 4954, section 6).
const NOT_LET_IN: [&str; 4] = ["530", "534", "535", "538"];

/// Where the mail server is, and how it is spoken to.
#[derive(Debug)]
pub struct Server {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What protects the connection.
    pub protection: Protection,
    /// The user name and password that it wants.
    pub login: Option<(String, Secret)>,
    /// Authorities to trust for its certificate, PEM; otherwise the machine's.
    pub authorities: Option<Vec<u8>>,
}

/// What protects the connection to the mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS from the start (RFC 8314).
    Tls,
    /// TLS after `STARTTLS` (RFC 3207). Nothing is sent to a server that does not offer it.
    StartTls,
    /// None: nothing leaves the machine, or the operator said so.
    Nothing,
}

/// A mail to one person, in plain text.
#[derive(Debug)]
pub struct Mail<'a> {
    /// Its id: a mail that is sent twice is the same mail.
    pub id: MailId,
    /// The address.
    pub to: &'a str,
    /// One line.
    pub subject: &'a str,
    /// The text, lines of any length.
    pub text: &'a str,
    /// When it was written.
    pub written_at: Timestamp,
}

/// Why a mail was not taken. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// Nor will it be: this address, or this mail, is refused.
    #[error("the mail server {server} refuses it: {reason}")]
    Refused {
        /// Which server.
        server: String,
        /// What it says.
        reason: String,
    },
    /// The user name or the password is wrong or missing.
    #[error(
        "the mail server {server} does not let Howdah in: {reason}; check the user name in --smtp-url and HOWDAH_SMTP_PASSWORD"
    )]
    NotLetIn {
        /// Which server.
        server: String,
        /// What it says.
        reason: String,
    },
    /// It does not answer, or not now, or not safely.
    #[error("the mail server {server} cannot be used: {reason}")]
    Unavailable {
        /// Which server.
        server: String,
        /// Why not.
        reason: String,
    },
}

/// Hands over mail.
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    server: String,
}

impl Mailer {
    /// A mailer for this server. `from` is such as `Howdah <howdah@example.com>`; `own_host` is what
    /// Howdah calls itself when it greets. Connects to nothing.
    ///
    /// # Errors
    /// A sentence with the cure when `from` or the authorities cannot be used.
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

    /// Hands a mail over: the server has taken responsibility for it then.
    ///
    /// # Errors
    /// [`MailError::Refused`] when it is of no use to try again.
    pub async fn send(&self, mail: &Mail<'_>) -> Result<(), MailError> {
        let message = self.message(mail)?;
        match tokio::time::timeout(LIMIT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(&error, mail.to.is_ascii())),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Greets the server and signs in, to see whether that works.
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

    /// The mail as it travels. What stands in its header comes out of names that people have chosen:
    /// none of it ends its line.
    fn message(&self, mail: &Mail<'_>) -> Result<lettre::Message, MailError> {
        let refused = |reason: String| MailError::Refused { server: self.server.clone(), reason };
        let to: Address =
            mail.to.parse().map_err(|error| refused(format!("the address cannot be written to: {error}")))?;
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
        // No machine answers a machine (RFC 3834, section 5).
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(message)
    }

    /// `is_plain`: the address has no letters that only some servers know (RFC 6531).
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
        let reason = format!("it took longer than {} seconds", LIMIT.as_secs());
        MailError::Unavailable { server: self.server.clone(), reason }
    }
}

/// The text, in lines that end as SMTP wants it. Plain letters are left as they are, so that a link is
/// readable in the raw mail too; the longest line is 998 octets (RFC 5322, section 2.1.1).
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
    fn nothing_in_a_header_ends_it() {
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
    fn a_link_stands_in_one_line() {
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
    fn a_sender_has_an_address() {
        assert!(mailer("howdah@example.com").is_ok());
        for wrong in ["", "Howdah", "Howdah <howdah>", "a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example"] {
            assert!(mailer(wrong).is_err_and(|said| said.contains("--mail-from")), "{wrong:?}");
        }
    }
}
