//! The identity provider that people may sign in with: what the options mean.

use std::sync::Arc;

use crate::config::Oidc;
use auth::provider::{Configuration, Provider};
use base::secret::Secret;
use domain::app::App;

/// The variable that proves who Howdah is.
const SECRET: &str = "HOWDAH_OIDC_CLIENT_SECRET";

/// The provider that the options name, if they name one.
///
/// # Errors
/// A sentence with the cure when they do not fit.
pub(super) fn configured(options: &Oidc) -> Result<Option<Provider>, String> {
    let (Some(issuer), Some(client)) = (&options.issuer, &options.client_id) else { return Ok(None) };
    let secret = std::env::var(SECRET).ok().filter(|value| !value.is_empty()).map(Secret::new);
    Provider::new(Configuration {
        name: options.name.clone(),
        issuer: issuer.clone(),
        client: client.clone(),
        secret,
        trusts_addresses: options.trust_addresses,
        domains: options.domains.clone(),
    })
    .map(Some)
}

/// Says whether the provider answers: people with a password can sign in without it.
pub(super) async fn check(app: Arc<App>) {
    let Some(provider) = &app.provider else { return };
    let (name, callback) = (provider.name(), app.public.sign_in_callback());
    match provider.check().await {
        Ok(()) => tracing::info!("sign-in with {name} is available; its redirect URI is {callback}"),
        Err(error) => tracing::warn!(
            %error,
            "sign-in with {name} is not available: {error}; check --oidc-issuer and the connection to {name}"
        ),
    }
}
