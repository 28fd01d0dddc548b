//! Passwords: argon2id with 19 MiB and two passes (RFC 9106; the parameters are OWASP's), and how
//! good one must be.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::Semaphore;

use base::error::{Error, Result};
use base::secret::Secret;

/// Shorter ones are refused.
pub const SHORTEST: usize = 10;
/// Longer ones are refused too: each byte of them is hashed.
pub const LONGEST: usize = 512;
/// How many are hashed at a time: each takes 19 MiB and some 50 ms of a processor.
static HASHING: Semaphore = Semaphore::const_new(2);
/// What is checked where there is no account, so that it takes as long.
static NOBODYS: LazyLock<Option<String>> =
    LazyLock::new(|| argon2().hash_password(b"a password that nobody has").map(|hash| hash.to_string()).ok());

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Hashes a password that somebody has chosen; `words` are what it must not be made of, such as
/// the person's name and address.
///
/// # Errors
/// [`Error::Invalid`] when it is too short, too long or too easily guessed.
pub async fn hash(password: &Secret, words: &[&str]) -> Result<String> {
    check(password.expose(), words)?;
    let password = password.clone();
    in_turn(move || argon2().hash_password(password.expose().as_bytes()).map(|hash| hash.to_string()))
        .await?
        .map_err(|error| Error::internal(error.to_string()))
}

/// Whether this is the password of the hash. Without a hash it takes as long and is not.
pub async fn verify(password: &Secret, hash: Option<&str>) -> Result<bool> {
    if password.expose().len() > LONGEST {
        return Ok(false);
    }
    let (password, exists) = (password.clone(), hash.is_some());
    let hash = hash.map(str::to_owned).or_else(|| NOBODYS.clone()).unwrap_or_default();
    in_turn(move || {
        let parsed = PasswordHash::new(&hash).map_err(|error| Error::internal(error.to_string()))?;
        Ok(argon2().verify_password(password.expose().as_bytes(), &parsed).is_ok() && exists)
    })
    .await?
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let _turn = HASHING.acquire().await.map_err(Error::internal)?;
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)
}

fn check(password: &str, words: &[&str]) -> Result<()> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Err(Error::invalid(
            format!("password: too short: {length} characters, at least {SHORTEST} are required"),
            "Use several unrelated words.",
        ));
    }
    if password.len() > LONGEST {
        return Err(Error::invalid(
            format!("password: longer than {LONGEST} bytes"),
            format!("Use at most {LONGEST} bytes."),
        ));
    }
    let estimate = zxcvbn::zxcvbn(password, words);
    if estimate.score() < zxcvbn::Score::Three {
        let why = estimate.feedback().and_then(|feedback| feedback.warning());
        return Err(Error::invalid(
            "password: too easy to guess",
            why.map_or_else(
                || "Use several unrelated words.".to_owned(),
                |why| format!("{} Use several unrelated words.", sentence(&why.to_string())),
            ),
        ));
    }
    Ok(())
}

fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let password = Secret::new("tusk-marble-wander-94");
        let stored = hash(&password, &[]).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(&password, Some(&stored)).await.unwrap());
        assert!(!verify(&Secret::new("tusk-marble-wander-95"), Some(&stored)).await.unwrap());
        assert!(!verify(&Secret::new("a password that nobody has"), None).await.unwrap());
        assert!(!verify(&Secret::new("x".repeat(LONGEST + 1)), Some(&stored)).await.unwrap());
    }

    #[test]
    fn easy_ones_are_refused() {
        for easy in ["short", "password1234", "aaaaaaaaaaaaaaa", "lovelace1815"] {
            assert!(check(easy, &["ada", "lovelace", "ada@example.com"]).is_err(), "{easy}");
        }
        assert!(check(&"long enough ".repeat(50), &[]).is_err());
        assert!(check("tusk-marble-wander-94", &["ada@example.com"]).is_ok());
    }
}
