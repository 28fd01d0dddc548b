//! Shared by the API, the console and the OAuth endpoints: the caller, its address and its rate limits; bodies, paths
//! and queries; errors; the stored response for a repeated request.

pub mod answer;
pub mod body;
pub mod caller;
pub mod failure;
pub mod file;
pub mod head;
pub mod named;
pub mod origin;
pub mod path;
pub mod query;
pub mod rate;
pub mod refusal;
pub mod request_id;
pub mod retry;
pub mod server;

pub use failure::Failure;
