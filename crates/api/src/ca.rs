//! The CA certificate by which clients verify the gateway's certificate.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use domain::app::App;
use web::Failure;
use web::failure::{ErrorBody, Kind};

const PEM: &str = "application/x-pem-file";

/// One or more certificates in PEM format.
#[derive(ToSchema)]
#[schema(example = "-----BEGIN CERTIFICATE-----\nMIIB...\n-----END CERTIFICATE-----\n")]
pub(crate) struct Certificates(String);

impl IntoResponse for Certificates {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, PEM)], self.0).into_response()
    }
}

/// Get the CA certificate
///
/// Returns the certificate of the CA that issued the gateway's certificate, in PEM format. PostgreSQL clients use it to
/// verify the gateway (`sslrootcert`, `NODE_EXTRA_CA_CERTS`). During a CA rotation the file contains both
/// certificates. Requires no token.
///
/// Fails with 404 when the operator has configured a certificate for the gateway: clients verify it with its issuer's
/// certificate.
#[utoipa::path(get, path = "/v1/ca.pem", tag = "Misc", security(()), responses(
    (status = 200, description = "The certificate.", body = inline(Certificates), content_type = "application/x-pem-file"),
    (status = 404, description = "The operator has configured a certificate for the gateway.", body = ErrorBody),
))]
pub(crate) async fn get_ca(State(app): State<Arc<App>>) -> Result<Certificates, Failure> {
    match &app.authorities {
        Some(authorities) => Ok(Certificates(authorities.borrow().clone())),
        None => Err(Failure::new(
            Kind::NotFound,
            "The gateway uses a certificate that the operator has configured, so this server has no CA certificate.",
            "Ask the operator for the issuer's certificate. A certificate from a public CA needs no file.",
        )),
    }
}
