//! What the first start makes, and what every start checks: the installation, the first
//! workspace and token, the keys.

use super::directory::DataDirectory;
use crate::metadata;
use auth::oauth::clients;
use auth::signing::Signer;
use auth::{Limits, links, service_tokens, users};
use base::clock::Clock;
use base::error::{Error, Result, describe};
use base::id::InstallationId;
use base::keyring::Keyring;
use base::name::TokenName;
use base::secret::Secret;
use base::store::Store;
use domain::workspaces;
use engine::Instances;

/// What a start works with.
pub(super) struct First {
    /// Signs tokens.
    pub(super) signer: Signer,
    /// Whether the workspace and the token were made just now.
    pub(super) is_first: bool,
}

/// Checks that directory and store belong together; at the first start, makes the workspace and
/// the token. The token's file is written before the row is committed: a token that is known but
/// not valid is made again at the next start, one that is valid but unknown would be lost.
pub(super) async fn ensure(
    store: &Store,
    directory: &DataDirectory,
    keyring: &Keyring,
    instances: &Instances,
    clock: &Clock,
) -> std::result::Result<First, String> {
    let failed = |error: Error| format!("cannot use the metadata store: {}", describe(&error));
    let now = clock.now();
    let tx = store.begin().await.map_err(failed)?;
    tx.batch_execute("LOCK TABLE installation").await.map_err(|error| failed(error.into()))?;
    let stored = metadata::installation(&tx).await.map_err(failed)?;
    let is_first = match (stored, directory.installation()?) {
        (Some(stored), Some(own)) if stored == own => false,
        (Some(stored), own) => {
            let own = own.map_or("to none yet".into(), |own| format!("to {own}"));
            return Err(format!(
                "the metadata store belongs to the installation {stored}, the data directory {} {own}; \
                 start with the directory and the --metadata-url that belong together",
                directory.path().display()
            ));
        }
        (None, own) => {
            let existing = instances.list().await.map_err(|error| error.to_string())?.len();
            if existing > 0 {
                return Err(format!(
                    "the data directory {} has {existing} instances, but the metadata store is empty; \
                     start with the --metadata-url that belongs to it",
                    directory.path().display()
                ));
            }
            let id = own.unwrap_or_else(|| InstallationId::generate(now));
            directory.write_installation(id)?;
            metadata::claim(&tx, id, now).await.map_err(failed)?;
            true
        }
    };
    let signer = Signer::load_or_create(&tx, keyring, now).await.map_err(|error| {
        format!("{}; check that keys/master.key in the data directory is the original one", describe(&error))
    })?;
    if is_first {
        let workspace = workspaces::create(&tx, "Default", now).await.map_err(failed)?;
        let name = TokenName::parse("Initial token").map_err(failed)?;
        let token = service_tokens::issue(&tx, &signer, now, workspace.id, &name, &Limits::default()).await;
        directory.write_initial_token(&token.map_err(failed)?.value)?;
    }
    tx.commit().await.map_err(failed)?;
    Ok(First { signer, is_first })
}

/// The link that makes the first account, while nobody has one; each start makes it anew.
pub(super) async fn set_up_link(store: &Store, clock: &Clock) -> Result<Option<Secret>> {
    let tx = store.begin().await?;
    if users::exist(&tx).await? {
        return Ok(None);
    }
    let link = links::make_set_up(&tx, clock.now()).await?;
    tx.commit().await?;
    Ok(Some(link))
}

/// The OAuth applications that Howdah brings, with the addresses of now.
pub(super) async fn built_in_applications(store: &Store, clock: &Clock, public: &str) -> Result<()> {
    let tx = store.begin().await?;
    clients::ensure_built_in(&tx, clock.now(), public).await?;
    tx.commit().await
}

/// Another token that may do everything in the oldest workspace.
pub(super) async fn issue_token(store: &Store, keyring: &Keyring, clock: &Clock) -> Result<Secret> {
    let tx = store.begin().await?;
    let now = clock.now();
    let signer = Signer::load_or_create(&tx, keyring, now).await?;
    let workspace = workspaces::first(&tx).await?;
    let name = TokenName::parse("Issued on the server")?;
    let issued = service_tokens::issue(&tx, &signer, now, workspace, &name, &Limits::default()).await?;
    tx.commit().await?;
    Ok(issued.value)
}
