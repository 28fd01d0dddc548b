//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.
//!
//! RFC 5802 (messages, §5.1 attributes, §6 channel binding), RFC 7677 (SHA-256), RFC 5929 §4
//! (`tls-server-end-point`), and PostgreSQL documentation §55.3 (how SASL travels). As in
//! PostgreSQL the user name of the startup packet counts, not the one in the exchange.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use base::scram::{ITERATIONS, Verifier, hmac};
use base::secret::random_bytes;

/// The mechanism without channel binding.
pub(crate) const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub(crate) const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Why an exchange failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Wrong password, or a user that does not exist.
    Password,
    /// The messages or the channel binding are wrong; says how.
    Protocol(&'static str),
}

/// Whom the exchange is for. An unknown user gets a verifier that looks like any other and that
/// no password satisfies.
pub(crate) struct Subject {
    verifier: Verifier,
    genuine: Choice,
}

impl Subject {
    /// `secret` makes the salts of unknown users: stable, and not to be told from real ones.
    pub(crate) fn new(found: Option<&Verifier>, user: &str, secret: &[u8; 32]) -> Self {
        // Made in either case, so that both take the same time.
        let seed = hmac(secret, user.as_bytes());
        let mut salt = [0; 16];
        salt.copy_from_slice(&seed[..16]);
        let mock = Verifier {
            salt,
            iterations: ITERATIONS,
            stored_key: hmac(secret, &seed),
            server_key: hmac(&seed, b"Server Key"),
        };
        match found {
            Some(verifier) => Self { verifier: verifier.clone(), genuine: Choice::from(1) },
            None => Self { verifier: mock, genuine: Choice::from(0) },
        }
    }
}

/// An exchange that waits for the client's proof.
pub(crate) struct Exchange {
    subject: Subject,
    /// What `c=` has to be.
    binding: String,
    nonce: String,
    /// `client-first-message-bare "," server-first-message ","`
    messages: String,
}

/// Reads `client-first-message` and answers with `server-first-message`. `end_point` is the
/// channel's `tls-server-end-point` data, when PLUS was offered.
pub(crate) fn begin(
    subject: Subject,
    mechanism: &[u8],
    message: &[u8],
    end_point: Option<&[u8]>,
) -> Result<(Exchange, String), Failure> {
    begin_with(subject, mechanism, message, end_point, BASE64.encode(random_bytes::<18>()))
}

pub(super) fn begin_with(
    subject: Subject,
    mechanism: &[u8],
    message: &[u8],
    end_point: Option<&[u8]>,
    own_nonce: String,
) -> Result<(Exchange, String), Failure> {
    const MALFORMED: Failure = Failure::Protocol("malformed SCRAM message");
    let plus = match (mechanism, end_point) {
        (b"SCRAM-SHA-256", _) => false,
        (b"SCRAM-SHA-256-PLUS", Some(_)) => true,
        _ => return Err(Failure::Protocol("client selected an invalid SASL authentication mechanism")),
    };
    let message = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
    let (flag, rest) = message.split_once(',').ok_or(MALFORMED)?;
    let (identity, bare) = rest.split_once(',').ok_or(MALFORMED)?;
    match (flag, plus) {
        ("n", false) => {}
        ("y", false) if end_point.is_none() => {}
        ("y", false) => {
            // The client supports it and believes that we do not: somebody removed our offer.
            return Err(Failure::Protocol(
                "SCRAM channel binding negotiation error: the client supports channel binding but thinks the server does not",
            ));
        }
        ("p=tls-server-end-point", true) => {}
        (flag, true) if flag.starts_with("p=") => {
            return Err(Failure::Protocol("unsupported SCRAM channel-binding type"));
        }
        (_, true) => return Err(Failure::Protocol("SCRAM-SHA-256-PLUS was selected without channel binding data")),
        (flag, false) if flag.starts_with("p=") => {
            return Err(Failure::Protocol("SCRAM-SHA-256 was selected with channel binding data"));
        }
        (_, false) => return Err(MALFORMED),
    }
    if !identity.is_empty() {
        return Err(Failure::Protocol("client uses authorization identity, but it is not supported"));
    }
    let mut attributes = bare.split(',');
    let (Some(user), Some(nonce)) = (attributes.next(), attributes.next()) else { return Err(MALFORMED) };
    if user.starts_with("m=") {
        return Err(Failure::Protocol("client requires an unsupported SCRAM extension"));
    }
    if !user.starts_with("n=") {
        return Err(MALFORMED);
    }
    let nonce = nonce.strip_prefix("r=").ok_or(MALFORMED)?;
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MALFORMED);
    }
    let nonce = format!("{nonce}{own_nonce}");
    let mut binding = format!("{flag},,").into_bytes();
    if let (true, Some(data)) = (plus, end_point) {
        binding.extend(data);
    }
    let answer = format!("r={nonce},s={},i={}", BASE64.encode(subject.verifier.salt), subject.verifier.iterations);
    let messages = format!("{bare},{answer},");
    Ok((Exchange { subject, binding: BASE64.encode(binding), nonce, messages }, answer))
}

impl Exchange {
    /// Reads `client-final-message`, checks the proof and answers with `server-final-message`.
    pub(crate) fn finish(self, message: &[u8]) -> Result<String, Failure> {
        const MALFORMED: Failure = Failure::Protocol("malformed SCRAM message");
        let message = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(MALFORMED)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes.next().and_then(|text| text.strip_prefix("c=")).ok_or(MALFORMED)?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r=")).ok_or(MALFORMED)?;
        let proof: [u8; 32] = BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(MALFORMED)?;
        if !bool::from(binding.as_bytes().ct_eq(self.binding.as_bytes())) {
            return Err(Failure::Protocol("SCRAM channel binding check failed"));
        }
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(Failure::Protocol("SCRAM nonce does not match"));
        }
        let Subject { verifier, genuine } = &self.subject;
        let message = format!("{}{without_proof}", self.messages);
        let mut client_key = hmac(&verifier.stored_key, message.as_bytes());
        for (key, proof) in client_key.iter_mut().zip(proof) {
            *key ^= proof;
        }
        let right = Sha256::digest(client_key).as_slice().ct_eq(&verifier.stored_key);
        let signature = hmac(&verifier.server_key, message.as_bytes());
        if bool::from(right & *genuine) {
            Ok(format!("v={}", BASE64.encode(signature)))
        } else {
            Err(Failure::Password)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::secret::Secret;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
    use proptest::prelude::*;

    const SECRET: [u8; 32] = [7; 32];

    fn subject(password: &str) -> Subject {
        Subject::new(Some(&Verifier::of(&Secret::new(password))), "ada", &SECRET)
    }

    fn unknown(user: &str) -> Subject {
        Subject::new(None, user, &SECRET)
    }

    /// A whole exchange with the client of tokio-postgres.
    fn exchange(
        subject: Subject,
        password: &str,
        mechanism: &str,
        binding: ChannelBinding,
        end_point: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let (exchange, first) = begin(subject, mechanism.as_bytes(), client.message(), end_point)?;
        client.update(first.as_bytes()).unwrap();
        let last = exchange.finish(client.message())?;
        client.finish(last.as_bytes()).unwrap();
        Ok(())
    }

    #[test]
    fn the_right_password_passes_and_a_wrong_one_does_not() {
        let none = ChannelBinding::unsupported;
        assert_eq!(exchange(subject("pencil"), "pencil", PLAIN, none(), None), Ok(()));
        assert_eq!(exchange(subject("pencil"), "pencil", PLAIN, none(), Some(b"hash")), Ok(()));
        assert_eq!(exchange(subject("pencil"), "pen", PLAIN, none(), None), Err(Failure::Password));
    }

    #[test]
    fn channel_binding_is_checked() {
        let bound = |data: &[u8]| ChannelBinding::tls_server_end_point(data.to_vec());
        assert_eq!(exchange(subject("pencil"), "pencil", PLUS, bound(b"hash"), Some(b"hash")), Ok(()));
        assert_eq!(
            exchange(subject("pencil"), "pencil", PLUS, bound(b"other"), Some(b"hash")),
            Err(Failure::Protocol("SCRAM channel binding check failed"))
        );
        // Over a plain connection PLUS is not offered.
        assert!(matches!(exchange(subject("pencil"), "pencil", PLUS, bound(b"hash"), None), Err(Failure::Protocol(_))));
        // Binding data under the wrong mechanism, and the reverse.
        assert!(exchange(subject("pencil"), "pencil", PLAIN, bound(b"hash"), Some(b"hash")).is_err());
        assert!(exchange(subject("pencil"), "pencil", PLUS, ChannelBinding::unsupported(), Some(b"hash")).is_err());
    }

    #[test]
    fn a_removed_offer_is_noticed() {
        let unrequested = ChannelBinding::unrequested; // the client's `y`
        assert_eq!(exchange(subject("pencil"), "pencil", PLAIN, unrequested(), None), Ok(()));
        let noticed = exchange(subject("pencil"), "pencil", PLAIN, unrequested(), Some(b"hash"));
        assert!(matches!(noticed, Err(Failure::Protocol(text)) if text.contains("negotiation")));
    }

    #[test]
    fn an_unknown_user_fails_like_a_wrong_password() {
        let none = ChannelBinding::unsupported;
        assert_eq!(exchange(unknown("eve"), "", PLAIN, none(), None), Err(Failure::Password));
        assert_eq!(unknown("eve").verifier.salt, unknown("eve").verifier.salt);
        assert_ne!(unknown("eve").verifier.salt, unknown("bob").verifier.salt);
    }

    /// The example of RFC 7677 §3.
    #[test]
    fn the_messages_are_those_of_rfc_7677() {
        let verifier = Verifier::with_salt(&Secret::new("pencil"), *b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81");
        let (exchange, first) = begin_with(
            Subject::new(Some(&verifier), "user", &SECRET),
            PLAIN.as_bytes(),
            b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            None,
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
        )
        .ok()
        .unwrap();
        assert_eq!(first, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = exchange.finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(last.unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn messages_that_the_rfc_forbids_are_rejected() {
        for first in
            ["", "n", "n,", "n,,", "n,a=x,n=,r=abc", "n,,m=1,n=,r=abc", "n,,n=", "n,,n=,r=", "x,,n=,r=a", "n,,r=a,n="]
        {
            assert!(begin(subject("x"), PLAIN.as_bytes(), first.as_bytes(), None).is_err(), "{first}");
        }
        assert!(begin(subject("x"), b"SCRAM-SHA-1", b"n,,n=,r=abc", None).is_err());
    }

    proptest! {
        #[test]
        fn any_first_message_is_read_or_refused(bytes: Vec<u8>, bound: bool) {
            let _ = begin(unknown("x"), PLAIN.as_bytes(), &bytes, bound.then_some(b"hash"));
        }

        #[test]
        fn any_last_message_is_refused(bytes: Vec<u8>, text in "c=biws,r=[ -~]{0,30},p=[A-Za-z0-9+/=]{0,50}") {
            for message in [&bytes[..], text.as_bytes()] {
                let (exchange, _) = begin(unknown("x"), PLAIN.as_bytes(), b"n,,n=,r=abc", None).ok().unwrap();
                prop_assert!(exchange.finish(message).is_err());
            }
        }
    }
}
