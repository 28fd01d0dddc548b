//! The installation's own certificate authority, and the certificates that it issues for the gateway.
//!
//! RFC 5280: §4.1.2.5 (validity), §4.2.1 (extensions).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::der::Decode as _;

use base::error::{Error, Result};
use base::secret::Secret;

/// How long an authority is valid.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
/// How long a certificate of the gateway is valid, at most.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 397);
/// How long before it is made a certificate is valid already, for clients whose clock is behind.
const LEEWAY: SignedDuration = SignedDuration::from_hours(24);
/// The longest common name (RFC 5280, appendix A.1: `ub-common-name`).
const COMMON_NAME: usize = 64;

/// A certificate authority: its certificate and the key that signs with it.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    valid: Validity,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// A certificate of the gateway, and its key, both as PEM.
pub struct Leaf {
    pub pem: String,
    pub key: Secret,
    pub valid: Validity,
}

impl Validity {
    /// From a day before `now`. Certificates count in seconds.
    fn starting(now: Timestamp, life: SignedDuration) -> Result<Self> {
        let from = Timestamp::from_second((now - LEEWAY).as_second()).map_err(Error::internal)?;
        Ok(Self { from, until: from + life })
    }

    pub fn contains(&self, now: Timestamp) -> bool {
        (self.from..self.until).contains(&now)
    }

    fn write(&self, params: &mut CertificateParams) {
        let at = |time: Timestamp| {
            let seconds = Duration::from_secs(time.as_second().max(0).unsigned_abs());
            date_time_ymd(1970, 1, 1) + seconds
        };
        (params.not_before, params.not_after) = (at(self.from), at(self.until));
    }
}

impl Authority {
    /// Makes an authority of this name: ECDSA on P-256, for certificates of servers only, not for further
    /// authorities. Returns its key too, as PEM.
    pub fn make(name: &str, now: Timestamp) -> Result<(Self, Secret)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::internal)?;
        let valid = Validity::starting(now, AUTHORITY_LIFE)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid.write(&mut params);
        let pem = params.self_signed(&key).map_err(Error::internal)?.pem();
        let secret = Secret::new(key.serialize_pem());
        Ok((Self { pem, issuer: Issuer::new(params, key), valid }, secret))
    }

    /// Reads an authority from its certificate and its key, both as PEM.
    ///
    /// # Errors
    /// [`Error::Internal`] when one cannot be read.
    pub fn read(pem: &str, key: &str) -> Result<Self> {
        let broken = |what: &str| Error::internal(format!("the {what} of the certificate authority cannot be read"));
        let key = KeyPair::from_pem(key).map_err(|_| broken("key"))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| broken("certificate"))?;
        let parsed = x509_cert::Certificate::from_der(&der).map_err(|_| broken("certificate"))?;
        let second = |time: x509_cert::time::Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).map_err(Error::internal)?;
            Timestamp::from_second(seconds).map_err(Error::internal)
        };
        let validity = parsed.tbs_certificate.validity;
        let valid = Validity { from: second(validity.not_before)?, until: second(validity.not_after)? };
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| broken("certificate"))?;
        Ok(Self { pem: pem.to_owned(), issuer, valid })
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn valid(&self) -> Validity {
        self.valid
    }

    /// Issues a certificate for these host names and addresses, with a new key. The first one is its
    /// subject.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a name is neither a host name nor an address.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Leaf> {
        let mut params = CertificateParams::new(names).map_err(|cause| {
            Error::invalid(
                format!("no certificate can be made for {}: {cause}", names.join(", ")),
                "Give --public-gateway a host name in ASCII or an IP address.",
            )
        })?;
        // Clients look at the alternative names. A subject that is too long is refused by some.
        let subject = names.first().filter(|name| name.len() <= COMMON_NAME);
        params.distinguished_name = subject.map_or_else(DistinguishedName::new, |name| common_name(name));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let valid = Validity::starting(now, LEAF_LIFE)?;
        valid.write(&mut params);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::internal)?;
        let pem = params.signed_by(&key, &self.issuer).map_err(Error::internal)?.pem();
        Ok(Leaf { pem, key: Secret::new(key.serialize_pem()), valid })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-04T05:06:07.89Z".parse().unwrap()
    }

    #[test]
    fn an_authority_is_the_same_again_when_it_is_read() {
        let (made, key) = Authority::make("Howdah CA of this test", now()).unwrap();
        let read = Authority::read(made.pem(), key.expose()).unwrap();
        assert_eq!(read.valid(), made.valid());
        assert_eq!(read.valid().from, "2026-03-03T05:06:07Z".parse().unwrap());
        assert_eq!(read.valid().until, "2036-02-29T05:06:07Z".parse().unwrap());
        assert!(Authority::read("", key.expose()).is_err() && Authority::read(made.pem(), "").is_err());

        let issuers = [&made, &read].map(|authority| {
            let leaf = authority.issue(&["db.example.com".to_owned()], now()).unwrap();
            let der = CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap();
            let parsed = x509_cert::Certificate::from_der(&der).unwrap().tbs_certificate;
            (parsed.issuer.to_string(), parsed.subject.to_string())
        });
        assert_eq!(issuers[0], issuers[1]);
        assert_eq!(issuers[1], ("CN=Howdah CA of this test".to_owned(), "CN=db.example.com".to_owned()));
    }

    #[test]
    fn invalid_names_are_rejected_and_a_long_name_is_not_the_subject() {
        let (authority, _) = Authority::make("Howdah CA", now()).unwrap();
        let refused = authority.issue(&["bücher.example".to_owned()], now()).err().unwrap();
        assert!(matches!(&refused, Error::Invalid { message, .. } if message.contains("bücher.example")), "{refused}");
        let long = format!("{}.example.com", "x".repeat(60));
        let leaf = authority.issue(&[long], now()).unwrap();
        let der = CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap();
        let subject = x509_cert::Certificate::from_der(&der).unwrap().tbs_certificate.subject;
        assert_eq!(subject.to_string(), "");
        assert_eq!(leaf.valid.until.duration_since(leaf.valid.from), LEAF_LIFE);
    }
}
