//! SCRAM-SHA-256 verifiers (RFC 5802 §3, RFC 7677): what is stored of a password.

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::error::{Error, Result};
use super::secret::{Secret, random_bytes};

/// RFC 7677's minimum, which some drivers insist on. Generated passwords have 128 random bits
/// and more, so more rounds would protect nothing and slow every connect.
pub const ITERATIONS: u32 = 4096;

/// What the server needs to check a password without knowing it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// Random, public.
    pub salt: [u8; 16],
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: [u8; 32],
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

impl Verifier {
    /// The verifier of a password, with a random salt.
    pub fn of(password: &Secret) -> Self {
        Self::with_salt(password, random_bytes())
    }

    /// The verifier of a password with this salt.
    pub fn with_salt(password: &Secret, salt: [u8; 16]) -> Self {
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.expose().as_bytes(), &salt, ITERATIONS, &mut salted);
        let client_key = hmac(&salted, b"Client Key");
        Self {
            salt,
            iterations: ITERATIONS,
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }

    /// PostgreSQL's text form, as in `pg_authid.rolpassword`.
    pub fn to_text(&self) -> String {
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            base64(&self.salt),
            base64(&self.stored_key),
            base64(&self.server_key)
        )
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`Error::Internal`]: a stored verifier is never malformed unless someone changed it.
    pub fn parse(text: &str) -> Result<Self> {
        let read = || -> Option<Self> {
            let (rounds, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
            let (iterations, salt) = rounds.split_once(':')?;
            let (stored_key, server_key) = keys.split_once(':')?;
            let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
            Some(Self {
                salt: bytes(salt)?.try_into().ok()?,
                iterations: iterations.parse().ok()?,
                stored_key: bytes(stored_key)?.try_into().ok()?,
                server_key: bytes(server_key)?.try_into().ok()?,
            })
        };
        read().ok_or_else(|| Error::internal("a stored password verifier is malformed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_survives_a_round_trip() {
        let verifier = Verifier::of(&Secret::new("sk_test"));
        assert!(Verifier::parse(&verifier.to_text()).unwrap() == verifier);
        assert!(Verifier::parse("md5abc").is_err());
    }

    /// The keys that PostgreSQL 15 computes for the password `pencil` and this salt.
    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        let verifier = Verifier::with_salt(&Secret::new("pencil"), *b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81");
        // RFC 7677 §3: the server signature of the example follows from this ServerKey.
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&verifier.server_key, message.as_bytes());
        assert_eq!(
            base64::engine::general_purpose::STANDARD.encode(signature),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }
}
