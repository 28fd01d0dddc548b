//! One-time passwords of an authenticator: RFC 6238 with SHA-1, six digits and thirty seconds, which
//! is what every authenticator speaks. A code is good in its own step and the ones beside it, and
//! once.

use jiff::Timestamp;
use totp_rs::{Algorithm, Builder};

use super::{User, store};
use base::error::{Error, Result};
use base::id::UserId;
use base::keyring::Keyring;
use base::secret::{Secret, random_bytes};
use base::store::{Session, Tx};

pub(super) const DIGITS: usize = 6;
const STEP: u64 = 30;
const PURPOSE: &str = "one-time passwords";

/// What an authenticator is given.
#[derive(Debug)]
pub struct Enrolment {
    /// The address in the QR code: `otpauth://totp/…`.
    pub url: Secret,
    /// The secret, for who types it.
    pub secret: Secret,
}

pub(super) async fn begin(tx: &Tx, keyring: &Keyring, user: &User, issuer: &str) -> Result<Enrolment> {
    let secret = random_bytes::<20>();
    if !store::set_totp(tx, user.id, &keyring.seal(PURPOSE, &secret)?).await? {
        return Err(Error::conflict("two-factor authentication is already on", "Turn it off first."));
    }
    enrolment(&secret, user, issuer)
}

pub(super) async fn pending(
    session: &Session,
    keyring: &Keyring,
    user: &User,
    issuer: &str,
) -> Result<Option<Enrolment>> {
    let Some(stored) = store::totp(session, user.id).await?.filter(|stored| !stored.is_confirmed) else {
        return Ok(None);
    };
    enrolment(&keyring.open(PURPOSE, &stored.sealed)?, user, issuer).map(Some)
}

pub(super) async fn confirm(tx: &Tx, keyring: &Keyring, now: Timestamp, user: UserId, code: &str) -> Result<()> {
    let code: String = code.chars().filter(|letter| !letter.is_whitespace()).collect();
    if check(tx, keyring, now, user, &code).await? {
        return store::confirm_totp(tx, user, now).await;
    }
    Err(Error::invalid(
        "code: wrong code",
        "Enter the six digits that the app shows now. The clock of your phone must be accurate.",
    ))
}

/// Whether this is a code of now, or of the step before or after, and newer than the one used last.
/// The row is locked, so that a code that comes twice at once is good once.
pub(super) async fn check(tx: &Tx, keyring: &Keyring, now: Timestamp, user: UserId, code: &str) -> Result<bool> {
    let Some(stored) = store::lock_totp(tx, user).await? else { return Ok(false) };
    let secret = keyring.open(PURPOSE, &stored.sealed)?;
    let time = u64::try_from(now.as_second()).map_err(Error::internal)?;
    let Some(step) = generator(&secret).build().map_err(Error::internal)?.check(code, time) else { return Ok(false) };
    let step = i64::try_from(step).map_err(Error::internal)?;
    if stored.last_step.is_some_and(|last| step <= last) {
        return Ok(false);
    }
    store::set_totp_step(tx, user, step).await?;
    Ok(true)
}

fn enrolment(secret: &[u8], user: &User, issuer: &str) -> Result<Enrolment> {
    // A colon parts the two in the address.
    let (issuer, account) = (issuer.replace(':', " "), user.email.replace(':', " "));
    let totp = generator(secret).with_issuer(Some(issuer)).with_account_name(account).build();
    let url = totp.and_then(|totp| totp.to_url()).map_err(Error::internal)?;
    Ok(Enrolment { url: Secret::new(url), secret: Secret::new(base32(secret)) })
}

fn generator(secret: &[u8]) -> Builder {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS as u8)
        .with_skew(1)
        .with_step_duration(STEP)
        .with_secret(secret.to_vec())
}

/// RFC 4648, section 6, without padding: what authenticators take when it is typed.
fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |index: usize| bytes.get(index / 8).map_or(0, |byte| byte >> (7 - index % 8) & 1);
    let letter = |place: usize| (0..5).fold(0, |value, offset| value << 1 | bit(place * 5 + offset));
    (0..(bytes.len() * 8).div_ceil(5)).map(|place| char::from(LETTERS[usize::from(letter(place))])).collect()
}

/// 80 random bits in four groups that can be told apart when they are read aloud.
pub(super) fn recovery_code() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters: Vec<char> =
        random_bytes::<16>().iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)])).collect();
    letters.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_as_rfc_4648_says() {
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(b"12345678901234567890"), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let totp = generator(b"12345678901234567890").build().unwrap();
        assert_eq!(totp.check("287082", 59), Some(1));
        assert_eq!(totp.check("287083", 59), None);
        assert_eq!(totp.check("287082", 59 + 60), None);
    }

    #[test]
    fn recovery_codes_have_eighty_bits() {
        let code = recovery_code();
        assert_eq!(code.len(), 19, "{code}");
        assert_ne!(code, recovery_code());
    }
}
