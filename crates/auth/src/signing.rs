//! The keys that sign tokens: ES256, kept in the metadata store under the master key. One fixed
//! algorithm: a token that names another is refused (RFC 8725 §3.1).
//!
//! Keys rotate. A new one is public for an hour before it signs, so that whoever checks signatures has
//! it by then: other processes hear of it, others ask for the public keys. Old keys sign no more and
//! stay public, since service tokens may last for ever.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use quick_cache::sync::Cache;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use base::error::{Error, Result};
use base::id::WorkspaceId;
use base::keyring::Keyring;
use base::secret::{Secret, random_hex};
use base::store::{Channel, Session, Tx};

const PURPOSE: &str = "token signing";
/// How many tokens are remembered as good.
const REMEMBERED: usize = 10_000;
/// How long a key is public before it signs.
const PUBLISHED: SignedDuration = SignedDuration::from_hours(1);
/// The type of access tokens (RFC 9068, section 2.1).
const ACCESS_TOKEN: &str = "at+jwt";

/// What a service token says. Nothing in it is secret; its row decides what it is worth.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServiceClaims {
    /// `workspace:<bare id>`; the command line of the original reads it.
    pub sub: String,
    /// At least 128 random bits; the row is found by its hash.
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
}

/// What an access token says (RFC 9068, section 2.2); here, too, the row decides.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The authorization server.
    pub iss: String,
    /// The user's id.
    pub sub: String,
    /// The API.
    pub aud: String,
    /// The application's id.
    pub client_id: String,
    /// Without its prefix, as clients of the original want it.
    pub workspace_id: String,
    /// The user's address.
    pub email: String,
    /// What the application may do.
    pub scope: String,
    /// At least 128 random bits; the row is found by its hash.
    pub jti: String,
    /// When it was made, in seconds.
    pub iat: i64,
    /// When it is over, in seconds.
    pub exp: i64,
}

/// What a token says whose signature is ours.
#[derive(Debug)]
pub enum Token {
    /// A service token.
    Service(ServiceClaims),
    /// An access token.
    Access(AccessClaims),
}

/// Signs tokens and checks their signatures.
pub struct Signer {
    keys: RwLock<Arc<Keys>>,
    /// What good signatures say, by the hash of the whole token: checking one again would give the
    /// same. What a token is worth is asked of its row each time.
    known: Cache<[u8; 32], Arc<Token>>,
}

struct Keys {
    /// Newest first.
    signing: Vec<SigningKey>,
    /// By key id: tokens that an earlier key has signed stay good.
    decoding: HashMap<String, DecodingKey>,
    /// The public keys, for others.
    public: JwkSet,
}

struct SigningKey {
    id: String,
    encoding: EncodingKey,
    created_at: Timestamp,
}

impl Signer {
    /// Loads the keys, or makes the first one.
    ///
    /// # Errors
    /// When a stored key does not open under this master key.
    pub async fn load_or_create(tx: &Tx, keyring: &Keyring, now: Timestamp) -> Result<Self> {
        let mut keys = load(tx, keyring).await?;
        if keys.signing.is_empty() {
            create(tx, keyring, now).await?;
            keys = load(tx, keyring).await?;
        }
        Ok(Self { keys: RwLock::new(Arc::new(keys)), known: Cache::new(REMEMBERED) })
    }

    /// Takes the keys that are there now: another process may have made one.
    pub async fn reload(&self, session: &Session, keyring: &Keyring) -> Result<()> {
        let keys = Arc::new(load(session, keyring).await?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The public keys (RFC 7517).
    pub fn public_keys(&self) -> JwkSet {
        self.keys().public.clone()
    }

    /// Signs what a service token says.
    pub fn sign_service_token(&self, claims: &ServiceClaims) -> Result<Secret> {
        self.sign("JWT", claims, claims.iat)
    }

    /// Signs what an access token says.
    pub fn sign_access_token(&self, claims: &AccessClaims) -> Result<Secret> {
        self.sign(ACCESS_TOKEN, claims, claims.iat)
    }

    fn sign(&self, kind: &str, claims: &impl Serialize, now: i64) -> Result<Secret> {
        let keys = self.keys();
        let is_known = |key: &&SigningKey| key.created_at.as_second() <= now - PUBLISHED.as_secs();
        let key = keys.signing.iter().find(is_known).or(keys.signing.last());
        let key = key.ok_or_else(|| Error::internal("there is no key that signs tokens"))?;
        let header = Header { typ: Some(kind.into()), kid: Some(key.id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &key.encoding).map(Secret::new).map_err(Error::internal)
    }

    /// Whether this token was good when it came last, lately.
    pub fn knows(&self, token: &str) -> bool {
        self.known.peek(&digest(token)).is_some()
    }

    /// Forgets a token that turned out not to be good any more.
    pub fn forget(&self, token: &str) {
        self.known.remove(&digest(token));
    }

    /// What a token says whose signature is ours; `None` for anything else. It is known from then on.
    pub fn verify(&self, token: &str) -> Option<Arc<Token>> {
        self.known.get_or_insert_with(&digest(token), || self.check(token).map(Arc::new).ok_or(())).ok()
    }

    fn check(&self, token: &str) -> Option<Token> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let keys = self.keys();
        let key = keys.decoding.get(&header.kid?)?;
        // The type keeps one kind of token from passing for another (RFC 8725 §3.11).
        match header.typ.as_deref() {
            Some("JWT") => decode(token, key).map(Token::Service),
            Some(ACCESS_TOKEN) => decode(token, key).map(Token::Access),
            _ => None,
        }
    }
}

fn decode<Claims: DeserializeOwned>(token: &str, key: &DecodingKey) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false; // the row decides about expiry
    validation.validate_aud = false; // nobody else's tokens are signed by this key
    Some(jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims)
}

/// Makes a new key when the newest one is older than this; other processes hear of it when the
/// transaction commits.
pub async fn rotate(tx: &Tx, keyring: &Keyring, now: Timestamp, after: SignedDuration) -> Result<bool> {
    // Whoever comes second sees the key of the first.
    tx.batch_execute("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE").await?;
    let row = tx.query_one("SELECT max(created_at) FROM keys WHERE purpose = $1", &[&PURPOSE]).await?;
    let newest: Option<Timestamp> = row.get(0);
    if newest.is_some_and(|newest| now.duration_since(newest) < after) {
        return Ok(false);
    }
    let id = create(tx, keyring, now).await?;
    tx.announce(Channel::KeyMade, &id).await?;
    Ok(true)
}

async fn create(tx: &Tx, keyring: &Keyring, now: Timestamp) -> Result<String> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::internal)?;
    let private = Secret::new(pair.serialize_pem());
    let id = random_hex::<8>();
    tx.execute(
        "INSERT INTO keys (purpose, key_id, sealed, public, created_at) VALUES ($1, $2, $3, $4, $5)",
        &[&PURPOSE, &id, &keyring.seal(PURPOSE, private.expose().as_bytes())?, &pair.public_key_pem(), &now],
    )
    .await?;
    Ok(id)
}

async fn load(session: &Session, keyring: &Keyring) -> Result<Keys> {
    let select =
        "SELECT key_id, sealed, public, created_at FROM keys WHERE purpose = $1 ORDER BY created_at DESC, key_id";
    let rows = session.query(select, &[&PURPOSE]).await?;
    let mut keys = Keys { signing: Vec::new(), decoding: HashMap::new(), public: JwkSet { keys: Vec::new() } };
    for row in rows {
        let (id, public): (String, &str) = (row.get("key_id"), row.get("public"));
        let private = keyring.open(PURPOSE, row.get("sealed"))?;
        let encoding = EncodingKey::from_ec_pem(&private).map_err(Error::internal)?;
        let decoding = DecodingKey::from_ec_pem(public.as_bytes()).map_err(Error::internal)?;
        let mut jwk = Jwk::from_decoding_key(&decoding, Some(Algorithm::ES256)).map_err(Error::internal)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        keys.public.keys.push(jwk);
        keys.decoding.insert(id.clone(), decoding);
        keys.signing.push(SigningKey { id, encoding, created_at: row.get("created_at") });
    }
    Ok(keys)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The subject of a workspace's service tokens.
pub fn workspace_subject(workspace: WorkspaceId) -> String {
    format!("workspace:{}", workspace.bare())
}
