//! What the API, the console and the OAuth endpoints share: who calls, from where and how often; bodies, paths and
//! queries; errors; one answer for a request that is sent again.

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
