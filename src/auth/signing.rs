//! The key that signs tokens: ES256, made at first start, kept in the metadata store under the
//! master key. One fixed algorithm: a token that names another is refused (RFC 8725 §3.1).

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::error::{Error, Result};
use crate::base::id::WorkspaceId;
use crate::base::keyring::Keyring;
use crate::base::secret::{Secret, random_hex};
use crate::base::store::Tx;

const PURPOSE: &str = "token signing";
/// How many tokens are remembered as good.
const REMEMBERED: usize = 10_000;

/// What a service token says. Nothing in it is secret; its row decides what it is worth.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    /// `workspace:<bare id>`; the command line of the original reads it.
    pub sub: String,
    /// At least 128 random bits; the row is found by its hash.
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
}

/// Signs tokens and checks their signatures.
pub struct Signer {
    key_id: String,
    encoding: EncodingKey,
    /// By key id: tokens that an earlier key has signed stay good.
    decoding: HashMap<String, DecodingKey>,
    /// What good signatures say, by the hash of the whole token: checking one again would give the
    /// same. What a token is worth is asked of its row each time.
    known: Cache<[u8; 32], Arc<Claims>>,
}

impl Signer {
    /// Loads the signing key, or makes it when there is none.
    ///
    /// # Errors
    /// When the stored key does not open under this master key.
    pub async fn load_or_create(tx: &Tx, keyring: &Keyring, now: jiff::Timestamp) -> Result<Self> {
        let select = "SELECT key_id, sealed, public FROM keys WHERE purpose = $1 ORDER BY created_at DESC, key_id";
        let rows = tx.query(select, &[&PURPOSE]).await?;
        if let Some(newest) = rows.first() {
            let private = keyring.open(PURPOSE, newest.get("sealed"))?;
            let public = rows.iter().map(|row| (row.get("key_id"), row.get("public")));
            return Self::from_pem(newest.get("key_id"), &private, public);
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::internal)?;
        let (private, public) = (Secret::new(pair.serialize_pem()), public_pem(&pair));
        let key_id = random_hex::<8>();
        tx.execute(
            "INSERT INTO keys (purpose, key_id, sealed, public, created_at) VALUES ($1, $2, $3, $4, $5)",
            &[&PURPOSE, &key_id, &keyring.seal(PURPOSE, private.expose().as_bytes())?, &public, &now],
        )
        .await?;
        Self::from_pem(key_id.clone(), private.expose().as_bytes(), [(key_id, public)])
    }

    fn from_pem(key_id: String, private: &[u8], public: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let decoding = public.into_iter().map(|(id, pem)| Ok((id, DecodingKey::from_ec_pem(pem.as_bytes())?)));
        let decoding: Result<_, jsonwebtoken::errors::Error> = decoding.collect();
        Ok(Self {
            key_id,
            encoding: EncodingKey::from_ec_pem(private).map_err(Error::internal)?,
            decoding: decoding.map_err(Error::internal)?,
            known: Cache::new(REMEMBERED),
        })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Claims) -> Result<Secret> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.encoding).map(Secret::new).map_err(Error::internal)
    }

    /// Whether this token was good when it came last, lately.
    pub fn knows(&self, token: &str) -> bool {
        self.known.peek(&digest(token)).is_some()
    }

    /// Forgets a token that turned out not to be good any more.
    pub fn forget(&self, token: &str) {
        self.known.remove(&digest(token));
    }

    /// The claims of a token whose signature is ours; `None` for anything else. It is known from
    /// then on.
    pub fn verify(&self, token: &str) -> Option<Arc<Claims>> {
        self.known.get_or_insert_with(&digest(token), || self.check(token).map(Arc::new).ok_or(())).ok()
    }

    fn check(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false; // the row decides about expiry
        validation.validate_aud = false;
        let key = self.decoding.get(&jsonwebtoken::decode_header(token).ok()?.kid?)?;
        Some(jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn public_pem(pair: &KeyPair) -> String {
    pair.public_key_pem()
}

/// The subject of a workspace's service tokens.
pub fn workspace_subject(workspace: WorkspaceId) -> String {
    format!("workspace:{}", workspace.bare())
}
