//! What the provider says about a person, in an ID token (OpenID Connect Core 1.0, section 2) or at its userinfo
//! endpoint (section 5.3). Only the claims that are used are read: whatever type the others have does no harm.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Claims of a token whose signature is good, or of an answer that came by HTTPS.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Map<String, Value>);

/// What an ID token has to fit.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    /// Howdah's client id.
    pub(super) audience: &'a str,
    pub(super) nonce: &'a str,
    /// The access token that came with it.
    pub(super) access_token: &'a str,
    pub(super) now: Timestamp,
}

impl Claims {
    pub(super) fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// The claims of an ID token that one of these keys has signed (section 3.1.3.7).
    pub(super) fn of_id_token(token: &str, keys: &[Jwk], expected: &Expected<'_>) -> Result<Self, String> {
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| format!("its ID token cannot be parsed: {error}"))?;
        // A signature made with the client's secret would let everybody vouch who knows it.
        if header.alg.family() == AlgorithmFamily::Hmac {
            return Err("its ID token is not signed with an asymmetric key".into());
        }
        // All claims are checked below: those that the library would check have to be there here.
        let mut signature_only = Validation::new(header.alg);
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let claims = keys
            .iter()
            .filter(|key| key.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature))
            .filter(|key| key.common.key_id.is_none() || header.kid.is_none() || key.common.key_id == header.kid)
            .filter_map(|key| DecodingKey::from_jwk(key).ok())
            .find_map(|key| jsonwebtoken::decode(token, &key, &signature_only).ok())
            .map(|data| Self(data.claims))
            .ok_or("the signature of its ID token matches none of its keys")?;
        claims.check(header.alg, expected)?;
        Ok(claims)
    }

    fn check(&self, algorithm: Algorithm, expected: &Expected<'_>) -> Result<(), String> {
        if self.text("iss") != Some(expected.issuer) {
            return Err("its ID token was issued by another provider (iss)".into());
        }
        if !self.is_for(expected.audience) {
            return Err("its ID token is not for this client only (aud)".into());
        }
        if self.seconds("exp").is_none_or(|end| end <= expected.now.as_second()) {
            return Err("its ID token has expired (exp)".into());
        }
        if self.text("nonce") != Some(expected.nonce) {
            return Err("its ID token belongs to another sign-in (nonce)".into());
        }
        if let Some(hash) = self.0.get("at_hash").filter(|hash| !hash.is_null())
            && hash.as_str() != Some(&half_hash(algorithm, expected.access_token))
        {
            return Err("the access token does not match the ID token (at_hash)".into());
        }
        Ok(())
    }

    /// What the provider calls the person.
    pub(super) fn subject(&self) -> Result<&str, String> {
        self.text("sub").filter(|subject| !subject.is_empty()).ok_or_else(|| "it contains no subject (sub)".into())
    }

    /// Their address, and whether it is known to be theirs, if the provider says so. Some say `"true"`.
    pub(super) fn email(&self) -> Option<(&str, Option<bool>)> {
        let is_verified = match self.0.get("email_verified") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(is_verified)) => Some(*is_verified),
            Some(Value::String(text)) => Some(text.eq_ignore_ascii_case("true")),
            Some(_) => Some(false),
        };
        Some((self.text("email")?, is_verified))
    }

    /// Their name in no language in particular, or in the first (section 5.2).
    pub(super) fn name(&self) -> Option<&str> {
        let in_a_language = || self.0.iter().find_map(|(claim, value)| claim.strip_prefix("name#").and(value.as_str()));
        self.text("name").or_else(in_a_language)
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim)?.as_str()
    }

    /// A time. Some write fractions of a second.
    fn seconds(&self, claim: &str) -> Option<i64> {
        let value = self.0.get(claim)?;
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and NaN is no JSON")]
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// Whether the audience is this client and nobody else, as text or as a list.
    fn is_for(&self, client: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(audience)) => audience == client,
            Some(Value::Array(all)) => !all.is_empty() && all.iter().all(|audience| audience == client),
            _ => false,
        }
    }
}

/// The left half of a token's hash, by the hash function of the signature (section 3.1.3.6).
fn half_hash(algorithm: Algorithm, token: &str) -> String {
    let digest = match algorithm {
        Algorithm::ES256 | Algorithm::RS256 | Algorithm::PS256 | Algorithm::HS256 => Sha256::digest(token).to_vec(),
        Algorithm::ES384 | Algorithm::RS384 | Algorithm::PS384 | Algorithm::HS384 => Sha384::digest(token).to_vec(),
        // Ed25519 has SHA-512 in it.
        _ => Sha512::digest(token).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(&digest[..digest.len() / 2])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    #[test]
    fn verified_addresses_may_be_said_by_text() {
        let is_verified =
            |value: Value| claims(json!({"email": "a@b.example", "email_verified": value})).email().unwrap().1;
        for verified in [json!(true), json!("true"), json!("True")] {
            assert_eq!(is_verified(verified), Some(true));
        }
        for not in [json!(false), json!("false"), json!(""), json!("yes"), json!(1), json!([true]), json!({})] {
            assert_eq!(is_verified(not.clone()), Some(false), "{not}");
        }
        assert_eq!(is_verified(json!(null)), None);
        assert_eq!(claims(json!({"email": ["a@b.example"], "email_verified": true})).email(), None);
    }

    #[test]
    fn audience_is_this_client_alone() {
        let is_for = |aud: Value| claims(json!({ "aud": aud })).is_for("howdah");
        assert!(is_for(json!("howdah")) && is_for(json!(["howdah"])));
        for other in [json!("other"), json!(["howdah", "other"]), json!([]), json!(null), json!({"howdah": true})] {
            assert!(!is_for(other.clone()), "{other}");
        }
    }

    #[test]
    fn names_are_text_in_any_language() {
        assert_eq!(claims(json!({"name": "Ada", "name#de": "Adele"})).name(), Some("Ada"));
        assert_eq!(claims(json!({"name": null, "name#de": "Adele"})).name(), Some("Adele"));
        assert_eq!(claims(json!({"name": 7})).name(), None);
    }

    #[test]
    fn access_token_hash_is_that_of_the_specification() {
        // OpenID Connect Core 1.0, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(half_hash(Algorithm::RS256, token), "77QmUPtjPfzWtF2AnpK9RQ");
    }
}
