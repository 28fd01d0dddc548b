//! Where a request comes from.

use std::net::IpAddr;

use axum::http::Extensions;

use super::request_id::RequestId;
use crate::auth::Origin;

/// The address of the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// What a request's extensions say about where it comes from.
pub(super) fn of(extensions: &Extensions) -> Origin {
    Origin {
        address: extensions.get::<ClientAddress>().map(|address| address.0),
        request_id: extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
    }
}
