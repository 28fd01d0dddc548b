//! The mail server: what the options mean, and whether it can be used.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::config::Mail;
use base::network::is_this_machine;
use base::secret::Secret;
use jobs::context::JobCtx;
use smtp::{Mailer, Protection, Server};

/// The variable that has the mail server's password.
const PASSWORD: &str = "HOWDAH_SMTP_PASSWORD";
/// Where mail is submitted: RFC 6409, and RFC 8314 for TLS from the start.
const SUBMISSION: u16 = 587;
const SUBMISSION_BY_TLS: u16 = 465;
/// Where the mail server of the machine itself listens.
const LOCAL: u16 = 25;

/// The mailer that the options name; `public_url` is what Howdah is called, for the greeting. Connects
/// to nothing: a mail server that is down keeps nobody from their databases.
///
/// # Errors
/// A sentence with the cure when the options do not fit. It never has the password in it.
pub(super) fn mailer(options: &Mail, public_url: Option<&str>) -> Result<Option<Mailer>, String> {
    let (url, from) = match (&options.smtp_url, &options.mail_from) {
        (None, None) => return Ok(None),
        (Some(url), Some(from)) => (url, from),
        (Some(_), None) => {
            return Err("--smtp-url needs --mail-from, such as \"Howdah <howdah@example.com>\"".to_owned());
        }
        (None, Some(_)) => {
            return Err("--mail-from needs --smtp-url, such as smtp://howdah@mail.example.com:587".to_owned());
        }
    };
    let mut server = server(url, password(options)?)?;
    if let Some(file) = &options.smtp_ca_file {
        let read = std::fs::read(file);
        let read = read.map_err(|error| format!("cannot read {}: {error}; check --smtp-ca-file", file.display()))?;
        server.authorities = Some(read);
    }
    let own = public_url.and_then(|url| Url::parse(url).ok()).and_then(|url| url.host_str().map(str::to_owned));
    Mailer::new(server, from, own.as_deref().unwrap_or("localhost")).map(Some)
}

fn password(options: &Mail) -> Result<Option<Secret>, String> {
    if let Some(file) = &options.smtp_password_file {
        let read = std::fs::read_to_string(file);
        let read =
            read.map_err(|error| format!("cannot read {}: {error}; check --smtp-password-file", file.display()))?;
        return Ok(Some(Secret::new(read.trim_end_matches(['\r', '\n']))));
    }
    Ok(std::env::var(PASSWORD).ok().map(Secret::new)).map(|found| found.filter(|found| !found.expose().is_empty()))
}

/// Where the URL leads. It is quoted in no message: somebody may have put a password into it.
fn server(text: &str, password: Option<Secret>) -> Result<Server, String> {
    let wrong = || {
        "--smtp-url is not a mail server such as smtp://howdah@mail.example.com:587, or smtps:// for TLS from the start"
            .to_owned()
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()).filter(|host| !host.is_empty());
    let host = host.ok_or_else(wrong)?;
    if !["smtp", "smtps"].contains(&url.scheme()) || !["", "/"].contains(&url.path()) || url.fragment().is_some() {
        return Err(wrong());
    }
    if url.password().is_some() {
        return Err(format!(
            "--smtp-url has a password in it, which everybody on this machine can read; take it out, and give it in {PASSWORD} \
             or --smtp-password-file"
        ));
    }
    let stays_here = is_this_machine(&host);
    let protection = match (url.scheme(), url.query()) {
        ("smtps", None) => Protection::Tls,
        ("smtp", None) if stays_here => Protection::Nothing,
        ("smtp", None | Some("tls=required")) => Protection::StartTls,
        ("smtp", Some("tls=never")) => Protection::Nothing,
        _ => {
            return Err(
                "--smtp-url can end with ?tls=required or ?tls=never for smtp://, and with neither for smtps://"
                    .to_owned(),
            );
        }
    };
    let user = percent_decode_str(url.username()).decode_utf8().map_err(|_| wrong())?.into_owned();
    let login = match (user.is_empty(), password) {
        (true, None) => None,
        (true, Some(_)) => {
            return Err(format!(
                "there is a password for the mail server, and no user name: put it into --smtp-url, as in \
                 smtp://howdah@{host}, or leave {PASSWORD} and --smtp-password-file out"
            ));
        }
        (false, None) => {
            return Err(format!(
                "--smtp-url has the user name {user}, and there is no password: give it in {PASSWORD} or \
                 --smtp-password-file"
            ));
        }
        (false, Some(_)) if protection == Protection::Nothing && !stays_here => {
            return Err(format!(
                "the password for {host} would cross the network in clear; leave ?tls=never out of --smtp-url, or the user \
                 name"
            ));
        }
        (false, Some(password)) => Some((user, password)),
    };
    let usual = match protection {
        Protection::Tls => SUBMISSION_BY_TLS,
        _ if stays_here => LOCAL,
        _ => SUBMISSION,
    };
    Ok(Server { host, port: url.port().unwrap_or(usual), protection, login, authorities: None })
}

/// Says so when the mail server does not take mail now, and when links in mails lead nowhere. That is the
/// end of nothing: mail waits.
pub(super) async fn look(ctx: Arc<JobCtx>) {
    let Some(mailer) = &ctx.mailer else { return };
    let root = &ctx.app.public.api;
    if Url::parse(root).is_ok_and(|url| url.host_str().is_some_and(is_this_machine)) {
        tracing::warn!("links in mails begin with {root}, which does not work on other machines; set --public-url");
    }
    tokio::select! {
        checked = mailer.check() => match checked {
            Ok(()) => tracing::info!("the mail server is available"),
            Err(error) => tracing::warn!("{error}; mail is queued until the server is available"),
        },
        () = ctx.app.tasks.stopping() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Option<Secret> {
        Some(Secret::new("hush-hush"))
    }

    #[test]
    fn mail_across_a_network_goes_by_tls_unless_told_otherwise() {
        let read = |url: &str| server(url, None).map(|server| (server.host, server.port, server.protection)).unwrap();
        let expected = |host: &str, port, protection| (host.to_owned(), port, protection);
        use Protection::{Nothing, StartTls, Tls};
        assert_eq!(read("smtp://mail.example.com"), expected("mail.example.com", 587, StartTls));
        assert_eq!(read("smtps://mail.example.com/"), expected("mail.example.com", 465, Tls));
        assert_eq!(read("smtps://localhost:2465"), expected("localhost", 2465, Tls));
        assert_eq!(read("smtp://10.0.0.1:25?tls=never"), expected("10.0.0.1", 25, Nothing));
        assert_eq!(read("smtp://localhost"), expected("localhost", 25, Nothing));
        assert_eq!(read("smtp://[::1]:26"), expected("::1", 26, Nothing));
        assert_eq!(read("smtp://127.0.0.1?tls=required"), expected("127.0.0.1", 25, StartTls));
        let login = server("smtp://howdah%40example.com@mail.example.com", secret()).unwrap().login.unwrap();
        assert_eq!((login.0.as_str(), login.1.expose()), ("howdah@example.com", "hush-hush"));
    }

    #[test]
    fn invalid_mail_options_are_rejected_without_naming_the_password() {
        for (url, password, said) in [
            ("mail.example.com:587", None, "is not a mail server such as"),
            ("http://mail.example.com", None, "is not a mail server such as"),
            ("smtp://", None, "is not a mail server such as"),
            ("smtp://mail.example.com/hush-hush", None, "is not a mail server such as"),
            ("smtp://howdah:hush-hush@mail.example.com", None, "take it out"),
            ("smtp://howdah@mail.example.com", None, "there is no password"),
            ("smtp://mail.example.com", secret(), "no user name"),
            ("smtp://howdah@mail.example.com?tls=never", secret(), "in clear"),
            ("smtp://mail.example.com?tls=maybe", None, "?tls=required or ?tls=never"),
            ("smtps://mail.example.com?tls=never", None, "?tls=required or ?tls=never"),
        ] {
            let refused = server(url, password).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("hush") && !refused.contains('\n'), "{url}: {refused}");
        }
    }
}
