//! The CA certificate by which clients verify the gateway's certificate.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use crate::app::App;
use crate::http::Failure;
use crate::http::failure::{ErrorBody, Kind};

const PEM: &str = "application/x-pem-file";

/// Certificates, each as PEM.
#[derive(ToSchema)]
#[schema(example = "-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n")]
pub(super) struct Certificates(String);

impl IntoResponse for Certificates {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, PEM)], self.0).into_response()
    }
}

/// Get the CA certificate
///
/// The certificate of the authority that issues the gateway's certificate, as PEM: what clients of
/// databases verify the gateway by (`sslrootcert`, `NODE_EXTRA_CA_CERTS`). While an authority is replaced by
/// the next one, the file has both. Needs no token.
///
/// A gateway with a certificate that the operator has given answers 404: clients trust its issuer.
#[utoipa::path(get, path = "/v1/ca.pem", tag = "Misc", security(()), responses(
    (status = 200, description = "The certificate.", body = inline(Certificates), content_type = "application/x-pem-file"),
    (status = 404, description = "The gateway has a certificate that the operator has given.", body = ErrorBody),
))]
pub(super) async fn get_ca(State(app): State<Arc<App>>) -> Result<Certificates, Failure> {
    match &app.authorities {
        Some(authorities) => Ok(Certificates(authorities.borrow().clone())),
        None => Err(Failure::new(
            Kind::NotFound,
            "This gateway has a certificate of the operator's own; clients trust it as they trust its issuer.",
            "Ask the operator who has issued the certificate; one of a public authority needs no file.",
        )),
    }
}
