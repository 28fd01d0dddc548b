//! What a right password has proven, until the code of the authenticator comes: sealed in the page
//! that asks for the code, so that there is no session before both are right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use base::error::Result;
use base::id::UserId;
use base::keyring::Keyring;

const PURPOSE: &str = "sign-in tickets";
/// How long one has to find the authenticator.
const GOOD: SignedDuration = SignedDuration::from_mins(10);

/// A ticket of a user, good for ten minutes in this browser; `browser` is what tells it from others.
pub fn make(keyring: &Keyring, now: Timestamp, user: UserId, browser: &str) -> Result<String> {
    let mut plain = user.uuid().into_bytes().to_vec();
    plain.extend(now.as_second().to_be_bytes());
    plain.extend(browser.as_bytes());
    Ok(URL_SAFE_NO_PAD.encode(keyring.seal(PURPOSE, &plain)?))
}

/// Whose ticket this is; `None` for one that is none, too old, or of another browser.
pub fn read(keyring: &Keyring, now: Timestamp, ticket: &str, browser: &str) -> Option<UserId> {
    let plain = keyring.open(PURPOSE, &URL_SAFE_NO_PAD.decode(ticket).ok()?).ok()?;
    let (user, rest) = plain.split_first_chunk::<16>()?;
    let (made, of) = rest.split_first_chunk::<8>()?;
    let made = Timestamp::from_second(i64::from_be_bytes(*made)).ok()?;
    let is_good = now.duration_since(made) <= GOOD && of == browser.as_bytes();
    is_good.then(|| Uuid::from_bytes(*user).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticket_is_valid_for_a_limited_time_in_its_browser() {
        let keyring = Keyring::new(&[7; 32]);
        let user = UserId::from(Uuid::from_u128(42));
        let at = |second| Timestamp::from_second(second).unwrap();
        let ticket = make(&keyring, at(1000), user, "this").unwrap();
        assert_eq!(read(&keyring, at(1600), &ticket, "this"), Some(user));
        assert_eq!(read(&keyring, at(1601), &ticket, "this"), None, "too old");
        assert_eq!(read(&keyring, at(1000), &ticket, "that"), None, "another browser's");
        assert_eq!(read(&Keyring::new(&[8; 32]), at(1000), &ticket, "this"), None);
        assert_eq!(read(&keyring, at(1000), "", "this"), None);
        let sealed = URL_SAFE_NO_PAD.encode(keyring.seal(PURPOSE, b"short").unwrap());
        assert_eq!(read(&keyring, at(1000), &sealed, "this"), None);
    }
}
