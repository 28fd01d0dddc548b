//! What Howdah must be able to read again is stored encrypted under the master key
//! (XChaCha20-Poly1305; the purpose of a key is authenticated with it).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::scram::hmac;
use super::secret::{Secret, random_bytes};

const NONCE: usize = 24;

/// The cipher under the master key, and the keys that come from that alone.
pub struct Keyring {
    cipher: XChaCha20Poly1305,
    master_key: Zeroizing<[u8; 32]>,
}

impl Keyring {
    /// A keyring under a master key of 256 random bits.
    pub fn new(master_key: &[u8; 32]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(master_key.into()), master_key: Zeroizing::new(*master_key) }
    }

    /// A key that whoever has the master key can make again, for what must open when nothing but that
    /// key is left: HMAC-SHA-256 of the purpose, as text of 256 bits.
    pub fn derive(&self, purpose: &str) -> Secret {
        Secret::new(URL_SAFE_NO_PAD.encode(hmac(self.master_key.as_slice(), purpose.as_bytes())))
    }

    /// Encrypts `plain`; it can be read back only for the same `purpose`.
    ///
    /// # Errors
    /// [`Error::Internal`] when the cipher refuses, which it does for absurd lengths only.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce = random_bytes::<NONCE>();
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: purpose.as_bytes() })
            .map_err(|_| Error::internal("encrypt a key under the master key"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Keyring::seal`] made.
    ///
    /// # Errors
    /// [`Error::Internal`] when it was sealed under another master key or purpose, or was changed.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let broken = || Error::internal(format!("the key for {purpose} does not open under this master key"));
        let (nonce, body) = sealed.split_at_checked(NONCE).ok_or_else(broken)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| broken())?;
        let payload = Payload { msg: body, aad: purpose.as_bytes() };
        let plain = self.cipher.decrypt(&nonce, payload).map_err(|_| broken())?;
        Ok(Zeroizing::new(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_purpose_open() {
        let keyring = Keyring::new(&[7; 32]);
        let sealed = keyring.seal("token signing", b"secret").unwrap();
        assert_eq!(keyring.open("token signing", &sealed).unwrap().as_slice(), b"secret");
        assert!(keyring.open("gateway", &sealed).is_err());
        assert!(Keyring::new(&[8; 32]).open("token signing", &sealed).is_err());
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(keyring.open("token signing", &changed).is_err());
    }

    #[test]
    fn a_derived_key_is_the_same_again_for_the_same_key_and_purpose_only() {
        let key = Keyring::new(&[7; 32]).derive("metadata 1");
        assert_eq!(Keyring::new(&[7; 32]).derive("metadata 1").expose(), key.expose());
        assert_ne!(Keyring::new(&[7; 32]).derive("metadata 2").expose(), key.expose());
        assert_ne!(Keyring::new(&[8; 32]).derive("metadata 1").expose(), key.expose());
    }
}
