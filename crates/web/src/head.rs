//! How large a request's head may be: 414 for its address, 431 for its header fields. The
//! listener's own limits are wider, so that what is only too large gets an answer in the envelope.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use super::failure::{Failure, Kind};

/// The longest path and query, in bytes.
const LONGEST_ADDRESS: usize = 8 * 1024;
/// How many header fields there may be.
const MOST_FIELDS: usize = 100;
/// How large they may be together, names and values, in bytes.
const LARGEST_FIELDS: usize = 16 * 1024;

/// Lets through what is not too large.
pub async fn check(request: Request, next: Next) -> Result<Response, Failure> {
    let address = request.uri().path_and_query().map_or(0, |address| address.as_str().len());
    if address > LONGEST_ADDRESS {
        return Err(Failure::new(
            Kind::AddressTooLong,
            format!("The address is {address} bytes long; it may have {LONGEST_ADDRESS}."),
            "Send a shorter path or query.",
        ));
    }
    let fields = request.headers();
    let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if fields.len() > MOST_FIELDS || size > LARGEST_FIELDS {
        return Err(Failure::new(
            Kind::HeadTooLarge,
            format!(
                "The request has {} header fields of {size} bytes; it may have {MOST_FIELDS} of {LARGEST_FIELDS} bytes.",
                fields.len()
            ),
            "Send fewer or smaller header fields.",
        ));
    }
    Ok(next.run(request).await)
}
