//! The saved login: a file of mode 0600, whole or not there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::session::Login;
use crate::client::Address;
use base::secret::{Secret, random_hex};

#[derive(Serialize, Deserialize)]
struct Saved {
    url: String,
    token: String,
}

/// Where it is: below the directory that the desktop specification names.
pub(super) fn path() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    let home = home.ok_or_else(|| {
        Failure::Failed("there is no home directory for the login; set XDG_CONFIG_HOME or HOWDAH_TOKEN".into())
    })?;
    Ok(home.join("howdah/login.json"))
}

/// The saved login, if there is one.
pub(super) fn read() -> Result<Option<Login>, Failure> {
    // Without a place for it there is none.
    let Ok(path) = path() else { return Ok(None) };
    let text = match fs::read(&path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::Failed(format!("cannot read {}: {error}", path.display()))),
    };
    let damaged = || Failure::Failed(format!("{} is damaged; log in again with `howdah login`", path.display()));
    let saved: Saved = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let address = Address::parse(&saved.url).map_err(|_| damaged())?;
    Ok(Some(Login { address, token: Secret::new(saved.token), source: path.display().to_string() }))
}

/// Saves a login in place of the one before.
pub(super) fn write(login: &Login) -> Result<PathBuf, Failure> {
    let path = path()?;
    let saved = Saved { url: login.address.to_string(), token: login.token.expose().to_owned() };
    let failed = |error: io::Error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
    let text = zeroize::Zeroizing::new(serde_json::to_string_pretty(&saved).map_err(|error| failed(error.into()))?);
    let draft = path.with_extension(random_hex::<4>());
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&draft);
        failed(error)
    })?;
    Ok(path)
}

/// Forgets the login; whether there was one.
pub(super) fn remove() -> Result<bool, Failure> {
    let path = path()?;
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Ok(false),
        Err(error) => Err(Failure::Failed(format!("cannot remove {}: {error}", path.display()))),
    }
}
