//! Repeated requests: what was answered to a request with an `Idempotency-Key` is kept for 24 hours
//! and given again to whoever repeats it. A key belongs to the principal that used it.
//!
//! The answer is written in the transaction of the change itself, so that there is never one
//! without the other. It is encrypted, since it may hold a secret that is shown once.

mod store;

use uuid::Uuid;

use base::error::{Error, Result};
use base::keyring::Keyring;
use base::secret::random_bytes;
use base::store::{Channel, Session, Store, Tx};

/// The longest key.
const LONGEST: usize = 255;

/// A key that the caller made up for a request, to be repeated with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty, longer than 255 characters, or has others than
    /// the visible ones of ASCII.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let fits = (1..=LONGEST).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        match String::from_utf8(text.to_vec()) {
            Ok(text) if fits => Ok(Self(text)),
            _ => Err(Error::invalid(
                "Idempotency-Key: must be 1 to 255 visible ASCII characters",
                "Use a new random UUID for each change, and the same UUID to retry it.",
            )),
        }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The right to answer a request; lost when it is not used within a minute, and at once when the process that has it
/// ends.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The key's row.
    id: Uuid,
    /// Tells this claim from later ones of the same row.
    fence: Uuid,
}

impl Claim {
    /// What is announced when the answer is there, or the claim was given up.
    pub fn bare(&self) -> String {
        self.id.simple().to_string()
    }
}

/// How a request with a key stands.
#[derive(Debug)]
pub enum Begun {
    /// Nobody has answered it: carry it out.
    Fresh(Claim),
    /// It is being carried out. What is announced on [`Channel::AnswerStored`] when that changes, and
    /// the answer as it is so far.
    UnderWay(String, Option<Vec<u8>>),
    /// It was carried out, with this answer.
    Answered(Vec<u8>),
}

/// Claims the right to answer a request, or finds its answer.
///
/// # Errors
/// [`Error::Invalid`] when the key was used for a request with another hash.
pub async fn begin(
    session: &Session,
    keyring: &Keyring,
    principal: Uuid,
    key: &IdempotencyKey,
    request_hash: &[u8],
) -> Result<Begun> {
    let fence = uuid::Builder::from_random_bytes(random_bytes()).into_uuid();
    if let Some(id) = store::claim(session, principal, key, request_hash, fence).await? {
        return Ok(Begun::Fresh(Claim { id, fence }));
    }
    let Some(found) = store::find(session, principal, key).await? else {
        // Given up between the two statements.
        return Ok(Begun::UnderWay(String::new(), None));
    };
    if found.request_hash != request_hash {
        return Err(Error::invalid(
            "Idempotency-Key: the key was used for another request",
            "Use a new key for each change. To get the response to a request again, repeat the request unchanged.",
        ));
    }
    let answer = match found.answer {
        Some(sealed) => Some(keyring.open(&purpose(found.id), &sealed)?.to_vec()),
        None => None,
    };
    match answer {
        Some(answer) if found.settled => Ok(Begun::Answered(answer)),
        answer => Ok(Begun::UnderWay(found.id.simple().to_string(), answer)),
    }
}

/// Keeps the answer, in the transaction of the change that it is about. One that is not settled may
/// be replaced once more.
///
/// # Errors
/// [`Error::Unavailable`] when the claim was lost: the transaction must not commit then.
pub async fn keep(tx: &Tx, keyring: &Keyring, claim: &Claim, answer: &[u8], settled: bool) -> Result<()> {
    let sealed = keyring.seal(&purpose(claim.id), answer)?;
    if !store::keep(tx, claim.id, claim.fence, &sealed, settled).await? {
        return Err(Error::Unavailable {
            message: "the request took too long and was replaced by another request with the same Idempotency-Key"
                .into(),
            cause: None,
        });
    }
    tx.announce(Channel::AnswerStored, &claim.bare()).await
}

/// Gives a claim up: nothing was changed, and the request may be repeated under the same key. Where there
/// is an answer so far, no other will come of this request: it is settled.
pub async fn release(store: &Store, claim: &Claim) -> Result<()> {
    let tx = store.begin().await?;
    store::release(&tx, claim.id, claim.fence).await?;
    tx.announce(Channel::AnswerStored, &claim.bare()).await?;
    tx.commit().await
}

/// Forgets keys that are older than 24 hours.
pub async fn forget_expired(session: &Session) -> Result<()> {
    store::forget_expired(session).await
}

fn purpose(id: Uuid) -> String {
    format!("the answer to the request {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_visible_and_not_too_long() {
        assert!(IdempotencyKey::parse(b"0e5b3c1a-7d").is_ok());
        assert!(IdempotencyKey::parse("x".repeat(255).as_bytes()).is_ok());
        for bad in [b"".as_slice(), b"two words", b"tab\t", "ö".as_bytes(), b"\xff", "x".repeat(256).as_bytes()] {
            assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
        }
    }
}
