//! The certificate that the operator gives with `--tls-cert` and `--tls-key`. A renewed one is served without a
//! restart.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::config::Serve;
use base::error::{Error, Result, describe};
use base::secret::Secret;
use gateway::tls::{self, Tls};

/// The files, and what was in them when they were read last.
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    read: Texts,
}

/// The certificate chain and its key, as PEM.
#[derive(PartialEq, Eq)]
struct Texts {
    certificate: String,
    key: Secret,
}

/// What the gateway serves of these files.
pub struct Given {
    certificate: PathBuf,
    key: PathBuf,
    /// What was in the files when they were looked at last, served or not.
    seen: Mutex<Texts>,
    tls: watch::Sender<Tls>,
}

impl Files {
    /// Those that the operator has named, read and checked; `None` where there are none.
    ///
    /// # Errors
    /// A sentence when they cannot be read or used.
    pub(super) fn read(config: &Serve) -> std::result::Result<Option<Self>, String> {
        let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) else { return Ok(None) };
        let read = Texts::read(certificate, key).map_err(|error| describe(&error))?;
        read.tls().map_err(|error| describe(&error))?;
        Ok(Some(Self { certificate: certificate.clone(), key: key.clone(), read }))
    }
}

impl Texts {
    fn read(certificate: &std::path::Path, key: &std::path::Path) -> Result<Self> {
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path).map_err(|error| {
                Error::invalid(format!("cannot read {}: {error}", path.display()), "a file that Howdah can read")
            })
        };
        Ok(Self { certificate: read(certificate)?, key: Secret::new(read(key)?) })
    }

    fn tls(&self) -> Result<Tls> {
        tls::server_config(&self.certificate, self.key.expose())
    }
}

impl Given {
    /// What the gateway serves from now on, and where it gets it.
    pub(super) fn new(files: Files) -> Result<(Self, watch::Receiver<Tls>)> {
        let Files { certificate, key, read } = files;
        let (tls, served) = watch::channel(read.tls()?);
        Ok((Self { certificate, key, seen: Mutex::new(read), tls }, served))
    }

    /// Serves what is in the files, if that is new. Files that do not fit each other are left for the next time:
    /// they may be in the middle of being replaced.
    pub(super) fn look(&self) -> Result<()> {
        let now = Texts::read(&self.certificate, &self.key)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now == *seen {
            return Ok(());
        }
        let tls = now.tls();
        *seen = now;
        self.tls.send_replace(tls?);
        tracing::info!(file = %self.certificate.display(), "serving the renewed certificate to new sessions");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewed_files_are_served_and_unusable_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let renew = || {
            let made = rcgen::generate_simple_self_signed(["db.example.com".to_owned()]).unwrap();
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            move |key: &PathBuf| std::fs::write(key, made.signing_key.serialize_pem()).unwrap()
        };
        renew()(&key);
        let read = Texts::read(&certificate, &key).unwrap();
        let files = Files { certificate: certificate.clone(), key: key.clone(), read };
        let (given, mut tls) = Given::new(files).unwrap();
        given.look().unwrap();
        assert!(!tls.has_changed().unwrap(), "nothing is new");

        let write_key = renew();
        assert!(given.look().is_err(), "the key is still the old one");
        given.look().unwrap();
        assert!(!tls.has_changed().unwrap());
        let before = tls.borrow_and_update().end_point.clone();
        write_key(&key);
        given.look().unwrap();
        assert!(tls.has_changed().unwrap());
        assert_ne!(tls.borrow_and_update().end_point, before);

        std::fs::remove_file(&key).unwrap();
        let error = describe(&given.look().unwrap_err());
        assert!(error.contains("key.pem"), "{error}");
        assert!(!tls.has_changed().unwrap());
    }
}
