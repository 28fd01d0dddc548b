//! TLS of the gateway: the certificate, and what SCRAM binds to.
//!
//! PostgreSQL documentation §55.2.10 (`SSLRequest`, and direct TLS with ALPN `postgresql`);
//! RFC 5929 §4.1 (`tls-server-end-point`).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode as _;

use base::error::{Error, Result};

/// The protocol's name in ALPN.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// A certificate with its key, ready for handshakes. Sessions that were opened with one keep it when the
/// gateway gets another.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    /// The `tls-server-end-point` data of the certificate; `None` when it has none.
    pub end_point: Option<Arc<[u8]>>,
}

/// Reads a certificate chain (the server's own first) and its key from PEM.
///
/// # Errors
/// [`Error::Invalid`] when one can't be read or the two do not belong together.
pub fn server_config(cert_pem: &str, key_pem: &str) -> Result<Tls> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|cause| Error::invalid(format!("the TLS certificate can't be read: {cause}"), "a file in PEM form"))?;
    let Some(own) = chain.first() else {
        return Err(Error::invalid("the TLS certificate file holds no certificate", "a file in PEM form"));
    };
    let end_point = end_point(own).map(Into::into);
    // The cause of a key that can't be read is not told: it might quote the key.
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| Error::invalid("the TLS key can't be read", "an unencrypted private key in PEM form"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|cause| {
            Error::invalid(
                format!("the TLS certificate and key can't be used: {cause}"),
                "a certificate and the key it was made for",
            )
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0; // sessions are long and libpq resumes none
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), end_point })
}

/// The hash of the certificate, by the hash function of its signature; MD5 and SHA-1 count as
/// SHA-256 (RFC 5929 §4.1). `None` for signatures without one defined hash (Ed25519, RSA-PSS):
/// libpq can't bind to those either, and fails when it is offered.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = x509_cert::Certificate::from_der(certificate).ok()?.signature_algorithm.oid.to_string();
    let hash = match algorithm.as_str() {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1, then both with SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Sha224::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, both as PEM.
    fn self_signed() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn an_ecdsa_certificate_can_be_bound_to() {
        let (certificate, key) = self_signed();
        let tls = server_config(&certificate, &key).unwrap();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        assert_eq!(tls.end_point.unwrap().as_ref(), Sha256::digest(&der).as_slice());
    }

    #[test]
    fn mismatched_certificate_and_key_are_rejected() {
        let (certificate, key) = self_signed();
        let (_, other) = self_signed();
        for (certificate, key) in [("", &key), ("x", &key), (&certificate, &"x".to_owned()), (&certificate, &other)] {
            assert!(matches!(server_config(certificate, key), Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn a_signature_without_a_hash_is_not_bound_to() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(server_config(&made.pem(), &key.serialize_pem()).unwrap().end_point, None);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(end_point(made.der()).unwrap(), Sha384::digest(made.der()).to_vec());
    }
}
